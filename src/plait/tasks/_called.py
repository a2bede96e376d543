"""A function of the user's that a file names, and the module that it gives."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from plait.errors import InputError, PlaitError

_PLAIT = Path(__file__).parents[1]


def called(call: str, where: str) -> nn.Module:
    """The module that `package.module:function` gives.

    Args:
        call: names the function.
        where: the file that names it, for messages.

    Raises:
        InputError: there is no such function, it raises, or gives no module.
    """
    package, _, name = call.partition(":")
    named = f"`call` names `{call}`"
    try:
        found = import_module(package)
    except (Exception, SystemExit) as error:  # a module runs what it likes
        if isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}."):
            raise InputError(f"{named}, and {error}", where=where) from error
        raise _raised(f"{named}, whose module", error, where) from error
    make: Callable[[], Any] | None = getattr(found, name, None)
    if not callable(make):
        raise InputError(f"{named}, and module `{package}` has no function `{name}`", where=where)
    try:
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
    return InputError(f"{what} raised {said}", where=where, hint=hint)


def _is_library(file: str) -> bool:
    """Whether a file is plait's, an installed package's, or none, as of what `importlib` runs."""
    path = Path(file)
    return file.startswith("<") or "site-packages" in path.parts or path.is_relative_to(_PLAIT)
