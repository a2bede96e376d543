"""A function of the user's that a file names, and the module that it gives."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from torch import nn

from plait.errors import InputError, PlaitError
from plait.tasks._call import find_function, looked_for_in

_PLAIT = Path(__file__).parents[1]
_PYTHON = Path(sysconfig.get_path("stdlib"))


def called(call: str, folder: Path, where: str) -> nn.Module:
    """The module that `package.module:function` gives.

    Args:
        call: names the function.
        folder: of the file that names it, where Python modules are looked for first.
        where: for messages.

    Raises:
        InputError: there is no such function, it raises, or gives no module.
    """
    named = f"`call` names `{call}`"
    try:
        make = find_function(call, folder, where)
    except PlaitError:
        raise
    except (Exception, SystemExit) as error:  # a module runs what it likes
        raise _raised(f"{named}, whose module", error, where) from error
    try:
        with looked_for_in(folder, where):
            made = make()
    except PlaitError:
        raise
    except (Exception, SystemExit) as error:
        raise _raised(f"{named}, which", error, where) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{named}, which gives a {type(made).__name__}, no module", where=where)
    return made


def _raised(what: str, error: BaseException, where: str) -> InputError:
    """What a function of the user's raised, and the last place in it."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(frame.filename)]
    hint = f"raised in {own[-1].filename}, line {own[-1].lineno}" if own else None
    if isinstance(error, SyntaxError) and error.filename:
        said, hint = f"SyntaxError: {error.msg}", f"look at {error.filename}, line {error.lineno}"
    return InputError(f"{what} raised {said}", where=where, hint=hint)


def _is_library(file: str) -> bool:
    """Whether a file is plait's, Python's, an installed package's, or none, as of what `importlib` runs."""
    path = Path(file)
    below = any(path.is_relative_to(place) for place in (_PLAIT, _PYTHON))
    return file.startswith("<") or "site-packages" in path.parts or below
