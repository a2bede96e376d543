"""A recorded pass with less in it: nothing is computed twice, nothing that is known, nothing for nobody.

What vmap and autograd record is full of views of the same shape, transposes of transposes, products with 1
and repeated masks. For small networks each costs as much as a real operation. What is left gives the same to
the bit: a shape that comes up for the first time is not recorded, and must not come out otherwise.
"""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx

_ops: Any = torch.ops.aten
_VIEWS = {_ops.view.default, _ops._unsafe_view.default, _ops.expand.default, _ops.reshape.default}
_PRODUCTS = {_ops.mul.Scalar, _ops.mul.Tensor}
#: Functions that PyTorch draws random numbers in: two calls are two draws.
_RANDOM = torch.Tag.nondeterministic_seeded


def simplify(module: fx.GraphModule) -> fx.GraphModule:
    """Rewrite a recorded pass in place; it gives the same values, to the bit.

    Args:
        module: recorded by `make_fx`, so each node's `meta["val"]` has its shape and type. One that changes
            tensors in place is left as it is.
    """
    graph = module.graph
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if any(_changes(node) for node in calls):
        return module
    known: dict[Any, Any] = {}
    for node in calls:
        same = _source(node)
        if same is None:
            _hold(module, node, known)
            key = _key(node)
            same = known.setdefault(key, node) if key is not None else node
        if same is not node:
            node.replace_all_uses_with(same)
    graph.eliminate_dead_code()
    _own_outputs(graph)
    graph.lint()
    module.recompile()
    return module


def _changes(node: Any) -> bool:
    if node.target is operator.getitem:
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or bool(schema.is_mutable)


def _shape(node: Any) -> tuple[int, ...] | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _source(node: Any) -> Any:
    """The node that this one gives again: a view of the same shape, a product with 1, a transpose undone."""
    first = node.args[0] if node.args else None
    if not isinstance(first, fx.Node):
        return None
    if node.target in _VIEWS and _shape(first) is not None and _shape(first) == _shape(node):
        return first
    if node.target in _PRODUCTS and node.args[1] == 1 and _dtype(first) == _dtype(node):
        return first
    undone = node.target is _ops.transpose.int and first.target is _ops.transpose.int
    if undone and set(node.args[1:]) == set(first.args[1:]) and isinstance(first.args[0], fx.Node):
        return first.args[0]
    return None


def _dtype(node: Any) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def _key(node: Any) -> Any:
    """Equal for nodes that compute the same; None for those that draw."""
    if _RANDOM in getattr(node.target, "tags", ()):
        return None
    return node.target, _frozen(node.args), _frozen(node.kwargs)


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _frozen(inner)) for name, inner in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(inner) for inner in value)
    # 1, 1.0 and True are equal and not the same argument
    return value if isinstance(value, fx.Node) else (type(value).__name__, repr(value))


def _hold(module: fx.GraphModule, node: Any, known: dict[Any, Any]) -> None:
    """Turn the making of a number into a tensor that is kept."""
    if node.target is not _ops.scalar_tensor.default:
        return
    key = "held", _frozen(node.args), _frozen(node.kwargs)
    if key not in known:
        name = f"_held_{len(known)}"
        module.register_buffer(name, node.target(*node.args, **node.kwargs), persistent=False)
        with module.graph.inserting_before(next(iter(module.graph.nodes))):
            known[key] = module.graph.get_attr(name)
        known[key].meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(known[key])


def _own_outputs(graph: fx.Graph) -> None:
    """Let no output be an input or another output: who gets them may change them."""
    output = next(node for node in graph.nodes if node.op == "output")
    given = output.args[0]
    assert isinstance(given, (list, tuple))
    seen: Counter[Any] = Counter()
    own = []
    for value in given:
        if isinstance(value, fx.Node):
            seen[value] += 1
            if value.op in ("placeholder", "get_attr") or seen[value] > 1:
                with graph.inserting_before(output):
                    value = graph.call_function(_ops.clone.default, (value,))  # noqa: PLW2901
        own.append(value)
    output.args = (own,)
