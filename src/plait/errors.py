"""The few exceptions that users meet: what is wrong, where, and what to do about it."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence


class PlaitError(Exception):
    """Base of every error that plait raises on purpose; the CLI prints it without a traceback."""


class PlaitWarning(UserWarning):
    """What the user should know of a merge made from Python; the CLI prints it."""


class InputError(PlaitError):
    """Something the user gave is at fault (exit status 2).

    Args:
        what: one sentence that says what is wrong, quoting the user's own words.
        where: the file, model or tensor it was found in.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def located(self, locate: Callable[[str | None], str]) -> InputError:
        """The same error, found where `locate` says of where it was found so far."""
        return InputError(self.what, where=locate(self.where), hint=self.hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.where, self.hint)


def _rebuild(what: str, where: str | None, hint: str | None) -> InputError:
    return InputError(what, where=where, hint=hint)


#: Problems that differ in nothing but quoted words and numbers are written out up to this many times.
_OF_ONE_KIND = 8
_QUOTED = re.compile(r"`[^`]*`|\d+")


class InputErrors(InputError):
    """Several problems found by one check, reported together.

    Its text tells many of one kind by the first of them and their number; `problems` has them all.

    Args:
        problems: the problems, in the order found; duplicates are shown once.
    """

    def __init__(self, problems: Sequence[InputError]) -> None:
        self.problems = list({str(p): p for p in problems}.values())
        super().__init__(f"{len(self.problems)} problems found")

    def located(self, locate: Callable[[str | None], str]) -> InputError:
        return InputErrors([problem.located(locate) for problem in self.problems])

    def __str__(self) -> str:
        kinds: dict[object, list[InputError]] = {}
        for problem in self.problems:
            kinds.setdefault((problem.where, _QUOTED.sub("", problem.what)), []).append(problem)
        lines = [f"{len(self.problems)} problems found:"]
        for alike in kinds.values():
            shown = alike if len(alike) == _OF_ONE_KIND + 1 else alike[:_OF_ONE_KIND]
            lines += [f"- {problem}" for problem in shown]
            if len(alike) > len(shown):
                lines.append(f"- … and {len(alike) - len(shown)} more like these")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return InputErrors, (self.problems,)


class MissingExtra(InputError):
    """An optional dependency is needed and absent; the hint says what to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package `{package}`, which is not installed",
            hint=f'pip install "plait[{extra}]"',
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.what, self.where, self.hint)


def raise_all(problems: Sequence[InputError]) -> None:
    """Raise nothing, the one problem, or all of them together."""
    if problems:
        raise together(problems)


def together(problems: Sequence[InputError]) -> InputError:
    """The one problem, or all of them as one; the same problem said twice is one."""
    found = InputErrors(problems)
    return found.problems[0] if len(found.problems) == 1 else found


@contextlib.contextmanager
def noted(problems: list[InputError]) -> Iterator[None]:
    """Add what is raised inside to the problems, so that more of them can be looked for."""
    try:
        yield
    except InputErrors as error:
        problems += error.problems
    except InputError as error:
        problems.append(error)


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint that names the closest valid word, or lists what is valid."""
    options = sorted(valid)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return "valid: " + ", ".join(f"`{option}`" for option in options) if options else "none is valid here"


def counted(count: int, word: str) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def size(count: int) -> str:
    """A number of bytes for people: `2.4 MB`, in powers of ten."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count} bytes"


_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


def parse_size(text: str, option: str, least: int = 1) -> int:
    """Bytes of a size such as `1GB`, `512MiB` or `1000000`.

    Raises:
        InputError: it is no size, or less than `least` bytes.
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?I?)B?\s*", text.upper())
    if found is None or found[2] not in _UNITS or float(found[1]) <= 0:
        raise InputError(f"`{text}` is no size", where=option, hint="write it as 1GB, 512MiB or 1000000")
    count = int(float(found[1]) * _UNITS[found[2]])
    if count < least:
        raise InputError(f"`{text}` is too little", where=option, hint=f"give at least {size(least)}")
    return count
