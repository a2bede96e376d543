"""A merge of the experts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from plait.checkpoint import open_model
from plait.engine import RunOptions, merge
from plait.errors import InputError, PlaitWarning, nearest
from plait.methods import METHODS, Option
from plait.study.ways._way import Way
from plait.tasks import Suite

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

_RUN = RunOptions(overwrite=True)


class Merge(Way):
    """`merge: METHOD`, with its `options`."""

    merge: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.merge

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        del study
        return problems_of_method(self.merge, self.options, where)

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        if self.merge not in METHODS:
            return []
        return problems_of_models(self.merge, self.options, len(suite.tasks), where)

    def make(self, at: At, folder: Path) -> None:
        woven(self.merge, self.options, at.experts, at.base, at.seed, folder / "model")


def woven(
    method: str,
    options: Mapping[str, Any],
    models: Mapping[str, Path],
    base: Path,
    seed: int,
    out: Path,
) -> None:
    """A merge of folders.

    Args:
        method: of merging.
        options: its.
        models: name → folder.
        base: used where the method has one.
        seed: of methods that draw.
        out: where to, in place of what a killed run left there.
    """
    own = str(base) if METHODS[method].base != "unused" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlaitWarning)
        # Opened here, as methods that draw know models by names then, which are the same in any folder.
        named = {name: open_model(path) for name, path in models.items()}
        merge(named, base=own, method=method, out=out, seed=seed, options=_RUN, **options)


def problems_of_method(method: str, options: Mapping[str, Any], where: str) -> list[InputError]:
    """A method that is not there, options that it has not, and values that they don't take."""
    if method not in METHODS:
        return [InputError(f"there is no method `{method}`", where=where, hint=nearest(method, METHODS))]
    known = {option.name: option for option in METHODS[method].options}
    problems = []
    for key, value in options.items():
        if key not in known:
            what = f"method `{method}` has no option `{key}`"
            problems.append(InputError(what, where=where, hint=nearest(key, known)))
        elif isinstance(value, list) and known[key].per_model:
            wrong = [each for each in value if not _fits(known[key], each)]
            hint = f"give {known[key].allowed}"
            problems += [InputError(f"`{key}` has {each!r}", where=where, hint=hint) for each in wrong[:1]]
        elif not _fits(known[key], value):
            hint = f"give {known[key].allowed}"
            problems.append(InputError(f"`{key}` is {value!r}", where=where, hint=hint))
    return problems


def problems_of_models(method: str, options: Mapping[str, Any], count: int, where: str) -> list[InputError]:
    """Options that a method must be given, and a number of models that it does not take."""
    known, problems = METHODS[method], list[InputError]()
    low, high = known.min_models, known.max_models
    if count < low or (high is not None and count > high):
        wants = f"{low} and more" if high is None else f"{low}" if low == high else f"{low} to {high}"
        wants += (" model" if high == 1 else " models") + (
            " besides the base" if known.base != "unused" else ""
        )
        what = f"method `{method}` takes {wants}, and there are {count} experts"
        problems.append(InputError(what, where=where, hint="choose `tasks`, or another method"))
    problems += [
        InputError(f"method `{method}` needs the option `{option.name}`", where=where, hint=option.doc)
        for option in known.options
        if option.default is None and not option.optional and option.name not in options
    ]
    problems += [
        InputError(f"`{name}` has {len(value)} values for {count} experts", where=where)
        for name, value in options.items()
        if isinstance(value, list) and len(value) != count
    ]
    return problems


def _fits(option: Option, value: Any) -> bool:
    """Whether an option takes a value."""
    if option.choices:
        return value in option.choices
    if option.kind == "str":
        return isinstance(value, str)
    if option.kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low, high = option.low, option.high
    return (low is None or value >= low) and (high is None or value <= high)
