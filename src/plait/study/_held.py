"""What an instance holds, wherever it holds it: attributes, slots, and what it would be pickled by."""

from __future__ import annotations

import copyreg
import warnings
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakSet

import numpy as np
from torch import nn

from plait.fleet._slots import slots_of
from plait.study._named import known, made_of
from plait.study._scripted import SCRIPTED, scripted

#: Parts of a configuration that say where it was read, and by which version.
OF_FILES = ("_name_or_path", "name_or_path", "transformers_version", "_commit_hash")
#: Names of what comes by pickling begin so.
PICKLED = "pickled: "
#: A class with one of these says itself what its instances are pickled by.
_OWN_STATE = ("__reduce__", "__reduce_ex__", "__getstate__")


def held_by(value: Any) -> Iterator[tuple[str, Any]]:
    """Name → what an instance holds. What it refuses to tell is left out.

    Instances of classes of known packages are told by what they would be pickled by, since their attributes
    may be of this process alone (a logger's handlers, a hash); others by their attributes and slots as well.
    """
    if isinstance(value, SCRIPTED):
        yield from scripted(value)
        return
    if isinstance(value, nn.Module) and made_of(value) is not None:
        yield "made of", made_of(value)
        return
    told = getattr(value, "to_dict", None)
    if known(type(value)) and not isinstance(value, nn.Module) and callable(told):
        yield "settings", without_files(told())
        return
    if isinstance(value, nn.Module) or not known(type(value)):
        yield from _attributes(value)
        yield from slots_of(value)
    if isinstance(value, np.ndarray | np.generic) and (value.dtype.hasobject or value.dtype.fields):
        yield from [("dtype", str(value.dtype)), ("shape", value.shape), ("elements", value.tolist())]
    elif not isinstance(value, nn.Module | set | frozenset | WeakSet):
        yield from ((PICKLED + name, held) for name, held in _pickled(value))


def without_files(config: Any) -> Any:
    """A configuration without what says where it came from, at any depth."""
    if not isinstance(config, Mapping):
        return config
    return {name: without_files(value) for name, value in config.items() if name not in OF_FILES}


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """A module's hooks are told without their numbers, which go up with every hook."""
    for name, held in sorted(getattr(value, "__dict__", {}).items()):
        hooks = isinstance(value, nn.Module) and "hooks" in name and isinstance(held, Mapping)
        yield name, list(held.values()) if hooks else held


def _pickled(value: Any) -> Iterator[tuple[str, Any]]:
    """What `copyreg` makes an instance anew from; its attributes and slots only where they stand for it."""
    found = _reduced(value)
    if found is None:
        return
    if isinstance(found, str):
        yield "global", found
        return
    function, arguments = found[:2]
    state, elements, items = (*found[2:], None, None, None)[:3]
    if function not in (copyreg.__newobj__, copyreg.__newobj_ex__):  # pyright: ignore[reportAttributeAccessIssue]
        yield "made by", function
    yield from ((f"argument {n}", held) for n, held in enumerate(arguments))
    if elements is not None:
        yield "elements", list(elements)
    if items is not None and not isinstance(value, Mapping):
        yield "items", list(items)
    if known(type(value)) or any(_of_user(type(value), name) for name in _OWN_STATE):
        yield from _state(state)


def _of_user(kind: type, name: str) -> bool:
    """Whether a class has another method of this name than every object has."""
    return getattr(kind, name, None) is not getattr(object, name, None)


def _state(state: Any) -> Iterator[tuple[str, Any]]:
    """What is pickled besides arguments; nothing if there is a lock in it, as then it is this process's."""
    parts: tuple[Any, ...] = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if all(isinstance(part, dict | None) for part in parts):
        held = {str(name): each for part in parts for name, each in (part or {}).items()}
        if not any(type(each).__module__ == "_thread" for each in held.values()):
            yield from sorted(held.items())
    else:
        yield "state", state


def _reduced(value: Any) -> Any:
    """What an instance would be pickled by: a name, or a function, arguments and more; None if it refuses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            registered = copyreg.dispatch_table.get(type(value))
            found = registered(value) if registered is not None else value.__reduce_ex__(4)
    except Exception:  # it may be of any kind: what is asked is a user's code
        return None
    return found if isinstance(found, str) or (isinstance(found, tuple) and 2 <= len(found) <= 6) else None
