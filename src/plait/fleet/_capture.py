"""A pass recorded as a flat list of tensor operations, replayed without the cost of vmap and autograd.

Tracing once per shape and replaying removes what torch.func does in Python for each operation at each level
(vmap, grad, vmap of the backward): for small networks that is most of a step.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from plait.fleet._batches import Stack
from plait.fleet._pass import Found, Pass
from plait.fleet._refused import unstackable
from plait.fleet._signals import undisturbed
from plait.fleet._simplify import simplify
from plait.fleet._trainee import Tensors
from plait.fleet._watch import Surroundings, generators, numbers

#: Graphs kept, one for each combination of shapes.
_KEPT = 16


#: Passes that run as they are before any is recorded.
_WATCHED = 2


class Captured:
    """Calls a pass; shapes that come up again are recorded, and replayed from then on.

    A network whose surroundings still change is never recorded: its Python code has to run each time. One
    that changes what its own attributes hold, or a value outside, each time (a counter) is refused. What
    caches fill in the first call, or for a batch of another shape, does not count.
    """

    def __init__(self, compute: Pass) -> None:
        self.compute = compute
        self._calls = 0
        self._records = True
        self._seen: set[Any] = set()
        self._graphs: OrderedDict[Any, Any] = OrderedDict()
        self._around = Surroundings(compute.network, compute.task)
        #: Whether the last call ran the network's own code.
        self.ran = False

    def __call__(
        self, parameters: Tensors, frozen: Tensors, buffers: Tensors, stack: Stack, keys: Tensor
    ) -> Found:
        with undisturbed():  # PyTorch's transforms abort the process where a signal's handler raises
            return self._found(parameters, frozen, buffers, stack, keys)

    def _found(
        self, parameters: Tensors, frozen: Tensors, buffers: Tensors, stack: Stack, keys: Tensor
    ) -> Found:
        self.ran = True
        shapes = (stack.shared, stack.rows is None, *((n, t.shape, t.dtype) for n, t in stack.batch.items()))
        arguments = (parameters, frozen, buffers, stack.batch, stack.rows, keys)
        if self._calls < _WATCHED:
            self._seen.add(shapes)
            return self._watched(parameters, frozen, buffers, stack, keys)
        if self._records and self._around.changed():
            self._records = False
            self._graphs.clear()
        if shapes not in self._graphs:
            if shapes not in self._seen or not self._records:
                self._seen.add(shapes)
                return self.compute(parameters, frozen, buffers, stack, keys)
            try:
                self._graphs[shapes] = self._record(stack.shared, arguments)
                found = self._replay(shapes, arguments)
                self.ran = True
                return found
            except Exception:  # what PyTorch can compute and can't record (fused LSTMs) is computed each time
                self._records = False
                self._graphs.pop(shapes, None)
                return self.compute(parameters, frozen, buffers, stack, keys)
        return self._replay(shapes, arguments)

    def _replay(self, shapes: Any, arguments: Any) -> Found:
        if len(self._graphs) > _KEPT:
            self._graphs.popitem(last=False)
        graph, form = self._graphs[shapes]
        self.ran = False
        with torch.no_grad():
            return pytree.tree_unflatten(graph(*pytree.tree_leaves(arguments)), form)

    def _watched(self, *arguments: Any) -> Found:
        """A pass, with an eye on what it changes beside its results.

        Raises:
            Unstackable: it draws numbers that no seed of a member decides, or keeps count of its calls.
        """
        self._calls += 1
        network = self.compute.network
        before, drawn = numbers(network), generators()
        self._around.keep()
        if self._calls == 1:
            self._tried_apart(*arguments)
        found = self.compute(*arguments)
        if generators() != drawn:
            raise unstackable(
                network, "it draws random numbers of Python or NumPy, which members would share"
            )
        outside, inside = self._around.changed(), numbers(network) != before
        if outside or inside:
            self._check_repeated(*arguments)
            self._around.keep()
        if self._calls > 1 and (outside or inside):
            self._records = False
        return found

    def _check_repeated(self, *arguments: Any) -> None:
        """What a pass changed in the network's attributes, or outside, stays as it is when it is repeated.

        Raises:
            Unstackable: it does not.
        """
        after: list[Any] = []
        outside = ""
        with contextlib.suppress(Exception):  # what can't be copied changes by what a pass has left there
            trial = self.compute.apart()
            for _ in range(2):
                self._around.keep()
                trial(*arguments)
                after.append(numbers(trial.network))
                outside = self._around.changed()
        if len(after) < 2 or after[0] != after[1]:
            changed = (key for key in after[0] if after[0][key] != after[1].get(key)) if after[1:] else ()
            name, key = next(iter(changed), ("", ""))
            place = f"`{name}.{key}`" if name else f"`{key}`" if key else "its attributes"
            raise unstackable(self.compute.network, f"each step changes {place}, which members would share")
        if outside:
            what = f"each step changes `{outside}`, outside of it, which members would share"
            raise unstackable(self.compute.network, what)

    def _tried_apart(
        self, parameters: Tensors, frozen: Tensors, buffers: Tensors, stack: Stack, keys: Tensor
    ) -> None:
        """A batch that all share, as if each had its own: vmap then refuses a network whose Python code reads
        numbers of it (`x[x != 0]`, `.tolist()`, `if x.any()`), which a recording would freeze.

        Raises:
            InputError: it does.
        """
        if stack.shared:
            batch = {name: column.expand(len(keys), *column.shape) for name, column in stack.batch.items()}
            trial = self.compute.apart()  # as the network may count its calls
            trial(parameters, frozen, buffers, Stack(batch, stack.rows, shared=False), keys)

    def _record(self, shared: bool, arguments: tuple[Any, ...]) -> Any:
        leaves, given = pytree.tree_flatten(arguments)
        form: Any = None

        def flat(*tensors: Tensor | None) -> list[Tensor]:
            nonlocal form
            parameters, frozen, buffers, batch, rows, keys = pytree.tree_unflatten(list(tensors), given)
            found = self.compute(parameters, frozen, buffers, Stack(batch, rows, shared), keys)
            out, form = pytree.tree_flatten(found)
            return out

        return simplify(make_fx(flat)(*leaves)), form
