"""What a network's Python code may change or read beside tensors, which no recording of a pass follows."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy as np
from torch import nn

from plait.fleet._alike import Describer, attributes
from plait.fleet._held import Held
from plait.fleet._reached import looked_into, reach
from plait.tasks import Task


def numbers(network: nn.Module) -> dict[tuple[str, str], Any]:
    """What a network's modules hold as attributes, as it is: values, collections, objects, generators."""
    describe = Describer(network)
    return {
        (name, key): describe(value)
        for name, module in network.named_modules()
        for key, value in attributes(module).items()
    }


def generators() -> tuple[Any, ...]:
    """The states of Python's and NumPy's own generators."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), kind, cast("Any", keys).tobytes(), *rest


class Surroundings:
    """Values outside of a network that its code names: globals, class attributes, what closures hold.

    Args:
        network: it; what its own modules hold as attributes is `numbers`.
        task: whose loss, and whose way to meet a network, are code of a pass as well.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        self._network, self._task = network, task
        self.keep()

    def keep(self) -> None:
        """Take them as they are now."""
        own = [*self._network.modules(), *self._network.parameters(), *self._network.buffers()]
        self._held = Held(map(id, own), looked_into)
        reach(self._network, [self._task.loss, self._task.meet], self._held)

    def changed(self) -> str:
        """The name of what has changed since they were kept; empty if nothing has."""
        if self._held.same():
            return ""
        describe = Describer(self._network)
        if found := self._held.changed(lambda now, before: describe(now) == describe(before)):
            return found
        self.keep()  # other objects, which are alike, are the ones to look at from here on
        return ""
