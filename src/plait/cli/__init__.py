"""The command line: one file per command.

Exit status: 0 done, 2 the user's input is at fault, 1 plait is; `plait diff` gives 3 for models that differ,
and an interrupted command 130.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from plait.errors import PlaitError

#: Mistakes of the machine or its user, not of plait.
_OUTSIDE = (OSError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `plait`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    raise SystemExit(_status(words))


def _status(words: list[str]) -> int:
    import typer

    from plait.cli._app import app

    # Newer typers bring a click of their own, so its exceptions are found through typer.
    unusable = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

    try:
        if words[:1] == ["merge"]:
            words = ["merge", *_translated(words[1:])]
        found = app(words, standalone_mode=False, prog_name="plait")
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except unusable as error:
        error.show()
        return 2
    except PlaitError as error:
        print(f"plait: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("plait: interrupted; a merge can be continued with --resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Who read the output (`head`, say) has enough; nothing more may be flushed there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except _OUTSIDE as error:
        what = "not enough memory" if isinstance(error, MemoryError) else str(error)
        print(f"plait: {what}", file=sys.stderr)
        return 2
    except Exception as error:
        if os.environ.get("PLAIT_DEBUG"):
            traceback.print_exc()
        print(
            f"plait: this is a bug in plait: {type(error).__name__}: {error}\n"
            "  please report it with the output of the same command under PLAIT_DEBUG=1",
            file=sys.stderr,
        )
        return 1


def _translated(words: list[str]) -> list[str]:
    """The words with mergekit-yaml's flags as ours; those that do less here are named."""
    if not any(word.startswith("-") for word in words):
        return words
    from plait.recipe._mergekit_flags import translate_mergekit_flags

    ours, notes = translate_mergekit_flags(words)
    for note in notes:
        print(f"plait: {note}", file=sys.stderr)
    return ours
