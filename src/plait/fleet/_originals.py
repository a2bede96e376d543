"""Networks of members as user's code between steps may change them: a stack runs a copy."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from plait.fleet._alike import Describer, attributes
from plait.fleet._held import Held


class Originals:
    """What the networks' modules hold as attributes, and what can be reached from there.

    Of all, that is also which parameters are trained, with hooks on their gradients, and whether weights and
    buffers are the ones they were; of the first one, its mode and its hooks. Its functions are those that a
    stack runs, with what they enclose: these are not looked at.

    Args:
        networks: of the members; the first is the one that a stack copies.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._networks = networks
        self.keep()

    def keep(self) -> None:
        """Take them as they are now."""
        self._tensors = _tensors(self._networks)
        self._marks = list(map(_mark, self._tensors.values()))
        own = {id(each) for network in self._networks for each in _own(network)}
        run: set[int] = set()

        def looked_into(value: Any) -> bool:
            if isinstance(value, FunctionType):
                run.add(id(value))
            return not isinstance(value, FunctionType)

        first, *rest = self._networks
        self._first = Held(own, looked_into)
        for name, module in first.named_modules():
            _hold(self._first, name, module)
            self._first.place(vars(module), "training", _place(name, "training"))
            for key in ("_forward_pre_hooks", "_forward_hooks"):
                self._first.value(vars(module)[key], _place(name, key))
        self._others = Held([*own, *run, *map(id, self._first.reached)])
        for network in rest:
            for name, module in network.named_modules():
                _hold(self._others, name, module)

    def changed(self) -> str:
        """What has changed since they were kept: a module's attribute; empty if nothing has."""
        if self._marks != list(map(_mark, self._tensors.values())):
            marks = zip(self._tensors, self._tensors.values(), self._marks, strict=True)
            return next(name for (_, name), tensor, mark in marks if _mark(tensor) != mark)
        if self._first.same() and self._others.same():
            return ""
        describe = Describer(self._networks[0])

        def alike(now: Any, before: Any) -> bool:
            return describe(now) == describe(before)

        if found := self._first.changed(alike) or self._others.changed(alike):
            return found
        self.keep()  # other objects, which are alike, are the ones to look at from here on
        return ""


def _tensors(networks: Sequence[nn.Module]) -> dict[tuple[int, str], Tensor]:
    return {
        (place, name): tensor
        for place, network in enumerate(networks)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }


#: Other ones where a tensor is changed in place, is frozen, or gets a hook on its gradient.
_mark = attrgetter("_version", "requires_grad", "_backward_hooks")


def _own(network: nn.Module) -> list[Any]:
    return [*network.modules(), *network.parameters(), *network.buffers()]


def _hold(held: Held, name: str, module: nn.Module) -> None:
    table = vars(module)
    held.size(table, name or type(module).__name__)
    for key in attributes(module).keys() & table.keys():
        if not key.startswith("_forward_"):
            held.place(table, key, _place(name, key))


def _place(module: str, attribute: str) -> str:
    return f"{module}.{attribute}" if module else attribute
