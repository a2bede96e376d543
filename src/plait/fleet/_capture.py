"""A pass recorded as a flat list of tensor operations, replayed without the cost of vmap and autograd.

Tracing once per shape and replaying removes what torch.func does in Python for each operation at each level
(vmap, grad, vmap of the backward): for small networks that is most of a step.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from plait.fleet._batches import Stack
from plait.fleet._pass import Found, Pass
from plait.fleet._simplify import simplify
from plait.fleet._trainee import Tensors

#: Graphs kept, one for each combination of shapes.
_KEPT = 16


class Captured:
    """Calls a pass; shapes that come up again are recorded, and replayed from then on."""

    def __init__(self, compute: Pass) -> None:
        self.compute = compute
        self._seen: set[Any] = set()
        self._graphs: OrderedDict[Any, Any] = OrderedDict()

    def __call__(
        self, parameters: Tensors, frozen: Tensors, buffers: Tensors, stack: Stack, keys: Tensor
    ) -> Found:
        shapes = (stack.shared, stack.rows is None, *((n, t.shape, t.dtype) for n, t in stack.batch.items()))
        arguments = (parameters, frozen, buffers, stack.batch, stack.rows, keys)
        if shapes not in self._graphs:
            if shapes not in self._seen:
                self._seen.add(shapes)
                return self.compute(parameters, frozen, buffers, stack, keys)
            self._graphs[shapes] = self._record(stack.shared, arguments)
            if len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
        graph, form = self._graphs[shapes]
        with torch.no_grad():
            return pytree.tree_unflatten(graph(*pytree.tree_leaves(arguments)), form)

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
