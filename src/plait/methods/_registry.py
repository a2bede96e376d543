"""The registry: the files of this folder, and the `plait.methods` entry points of installed packages."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points

from plait.errors import InputError, nearest
from plait.methods._spec import Method

#: Name of an entry point → what is wrong with it, and where.
Broken = dict[str, tuple[str, str]]


class Registry(Mapping[str, Method]):
    """Name → method, read on first use."""

    def __getitem__(self, name: str) -> Method:
        return _read()[0][name]

    def __iter__(self) -> Iterator[str]:
        return iter(_read()[0])

    def __len__(self) -> int:
        return len(_read()[0])


METHODS = Registry()


def get_method(name: str, *, where: str | None = None) -> Method:
    """The method of this name; `where` is the recipe that names it, for the message.

    Raises:
        InputError: there is none; the nearest name is suggested.
    """
    broken = _read()[1]
    if name not in METHODS and name in broken:
        what, value = broken[name]
        raise InputError(f"the method `{name}` can't be loaded: {what}", where=value)
    if name not in METHODS:
        raise InputError(f"there is no merge method `{name}`", where=where, hint=nearest(name, METHODS))
    return METHODS[name]


def package_of(method: Method) -> str | None:
    """`NAME VERSION` of the package whose entry point a method is; None if it comes from elsewhere."""
    name, found = method.name, _read()
    return found[2].get(name) if found[0].get(name) is method else None


@cache
def _read() -> tuple[dict[str, Method], Broken, dict[str, str]]:
    """plait's own methods and those of installed packages; what of these can't be loaded; their packages."""
    found: dict[str, Method] = {}
    for module in pkgutil.iter_modules(__import__("plait.methods", fromlist=["x"]).__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"plait.methods.{module.name}")
        methods = getattr(loaded, "METHODS", None) or (loaded.METHOD,)
        found.update({method.name: method for method in methods})
    others, broken = _from_packages()
    packages = {}
    for method, value, package in others:
        if method.name in found:
            raise InputError(f"the method `{method.name}` exists already", where=value)
        found[method.name], packages[method.name] = method, package
    return dict(sorted(found.items())), broken, packages


def _from_packages() -> tuple[list[tuple[Method, str, str]], Broken]:
    """Each package's method with where it is and whose; one that fails must not stop the others."""
    methods, broken = [], {}
    for point in entry_points(group="plait.methods"):
        try:
            method = point.load()
        except Exception as error:  # whatever the package's code raises
            broken[point.name] = f"{type(error).__name__}: {error}", point.value
            continue
        if isinstance(method, Method):
            package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
            methods.append((method, point.value, package))
        else:
            broken[point.name] = f"it is a {type(method).__name__}, not a `plait.methods.Method`", point.value
    return methods, broken
