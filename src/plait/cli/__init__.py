"""The command line: one file per command.

Exit status: 0 done, 2 the user's input is at fault, 1 plait is; `plait diff` gives 3 for models that differ,
`plait evaluate` 3 for a regression, and a command that was interrupted 130 (Ctrl-C) or 143 (SIGTERM).
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from plait.cli._interrupt import Interrupted, check_interrupt, prompt_end
from plait.cli._show import printable
from plait.errors import PlaitError

#: Mistakes of the machine or its user, not of plait.
_OUTSIDE = (OSError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `plait`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Otherwise numba starts colorama where that is installed, which writes an escape code when Python ends.
    os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what no encoding has
            stream.reconfigure(errors="backslashreplace")
    say = _once("plait: interrupted" + ("; continue with --resume" if words[:1] == ["merge"] else ""))
    try:
        with prompt_end(say):
            status = _status(words)
    except Interrupted as error:
        say()
        _leave(128 + error.number)
    _keep_colours_out()
    raise SystemExit(status)


def _leave(status: int) -> NoReturn:
    """End the process here: what libraries do at the interpreter's end takes seconds on a busy machine."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _keep_colours_out() -> None:
    """numba starts colorama where that is installed, which would end what a terminal shows with an escape."""
    colorama = sys.modules.get("colorama.initialise")
    if colorama is not None:
        atexit.unregister(colorama.reset_all)


def _once(text: str) -> Callable[[], None]:
    """Print a line to stderr, whoever asks for it, once."""
    first = threading.Lock()

    def say() -> None:
        if first.acquire(blocking=False):
            print(text, file=sys.stderr, flush=True)

    return say


def _status(words: list[str]) -> int:
    import typer

    from plait.cli._app import app
    from plait.cli.try_models import repeated

    # typer may bring its own copy of click, so what click raises is found through typer.
    kinds: Sequence[type[Exception]] = [k for k in typer.BadParameter.__mro__ if issubclass(k, Exception)]
    usage_error = next(kind for kind in kinds if kind.__name__ == "ClickException")
    try:
        if words[:1] == ["merge"]:
            words = ["merge", *_translated(words[1:])]
        elif words[:1] == ["try"]:
            words = ["try", *repeated(words[1:])]
        try:
            found = app(words, standalone_mode=False, prog_name="plait")
        except Exception:
            check_interrupt()
            raise
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except usage_error as error:
        _tell_usage(error)
        return 2
    except PlaitError as error:
        print(f"plait: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Who read the output (`head`, say) has enough; nothing more may be flushed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _OUTSIDE as error:
        what = "not enough memory" if isinstance(error, MemoryError) else str(error)
        print(f"plait: {printable(what)}", file=sys.stderr)
        return 2
    except Exception as error:
        if os.environ.get("PLAIT_DEBUG"):
            traceback.print_exc()
        print(
            f"plait: this is a bug in plait: {type(error).__name__}: {printable(str(error))}\n"
            "  please report it with the output of the same command under PLAIT_DEBUG=1",
            file=sys.stderr,
        )
        return 1


def _tell_usage(error: Any) -> None:
    """Say what is wrong with the words, and where to read more; without any words, show the help."""
    command = getattr(getattr(error, "ctx", None), "command_path", "plait")
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    what = str(error.format_message()).rstrip(".")
    print(f"plait: {what[:1].lower()}{printable(what[1:])}\n  hint: {command} --help", file=sys.stderr)


def _translated(words: list[str]) -> list[str]:
    """The words with mergekit-yaml's flags as ours; those that do less here are named."""
    if not any(word.startswith("-") for word in words):
        return words
    from plait.recipe._mergekit_flags import translate_mergekit_flags

    ours, notes = translate_mergekit_flags(words)
    for note in notes:
        print(f"plait: {note}", file=sys.stderr)
    return ours
