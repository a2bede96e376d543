"""The operations that a rule may use; each works on torch tensors and on traced expressions alike.

A rule is a plain function of scalars. Evaluated on torch tensors it gives a block; evaluated on `Expr`
objects it writes down its own arithmetic, from which `_kernel` compiles one branch-free loop.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from plait.errors import PlaitError


class RuleError(PlaitError):
    """A rule does what cannot run at every coordinate: it asks for a truth value, or an unknown operation."""


class Expr:
    """A value that a rule computes, not yet known: an operation and what it is applied to.

    Attributes:
        op: the operation (`add`, `where`, `input`, …).
        args: operands; for leaves (`input`, `param`, `const`) what they stand for.
        boolean: whether it is a truth value.
    """

    __slots__ = ("args", "boolean", "op")

    def __init__(self, op: str, args: tuple[Any, ...], *, boolean: bool = False) -> None:
        self.op, self.args, self.boolean = op, args, boolean

    def __add__(self, other: Value) -> Expr:
        return _binary("add", self, other)

    def __radd__(self, other: Value) -> Expr:
        return _binary("add", other, self)

    def __sub__(self, other: Value) -> Expr:
        return _binary("sub", self, other)

    def __rsub__(self, other: Value) -> Expr:
        return _binary("sub", other, self)

    def __mul__(self, other: Value) -> Expr:
        return _binary("mul", self, other)

    def __rmul__(self, other: Value) -> Expr:
        return _binary("mul", other, self)

    def __truediv__(self, other: Value) -> Expr:
        return _binary("div", self, other)

    def __rtruediv__(self, other: Value) -> Expr:
        return _binary("div", other, self)

    def __neg__(self) -> Expr:
        return Expr("neg", (self,))

    def __lt__(self, other: Value) -> Expr:
        return _binary("lt", self, other, boolean=True)

    def __le__(self, other: Value) -> Expr:
        return _binary("le", self, other, boolean=True)

    def __gt__(self, other: Value) -> Expr:
        return _binary("gt", self, other, boolean=True)

    def __ge__(self, other: Value) -> Expr:
        return _binary("ge", self, other, boolean=True)

    def __eq__(self, other: object) -> Any:
        return _binary("eq", self, other, boolean=True)

    def __ne__(self, other: object) -> Any:
        return _binary("ne", self, other, boolean=True)

    def __and__(self, other: Expr) -> Expr:
        return _binary("and", self, other, boolean=True)

    def __or__(self, other: Expr) -> Expr:
        return _binary("or", self, other, boolean=True)

    def __invert__(self) -> Expr:
        return Expr("not", (self,), boolean=True)

    def __hash__(self) -> int:
        return id(self)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"a rule used `.{name}` on a value: it sees one coordinate, not a tensor; use arithmetic, "
            "comparisons and the operations of `plait.numerics`"
        )

    def __bool__(self) -> NoReturn:
        raise RuleError(
            "a rule used `if`, `and`, `or` or `not` on a value: it runs at every coordinate at once, "
            "so select with `where(condition, a, b)` and combine conditions with `&`, `|`, `~`"
        )


#: What a rule computes with.
Value: TypeAlias = Any


def as_expr(value: Value) -> Expr:
    """An expression as it is; a Python number as a constant."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, (bool, int, float)):
        return Expr("const", (float(value),))
    raise RuleError(
        f"a rule mixed a {type(value).__name__} into its arithmetic; use numbers and its cell's values"
    )


def _binary(op: str, left: object, right: object, *, boolean: bool = False) -> Expr:
    return Expr(op, (as_expr(left), as_expr(right)), boolean=boolean)


def where(condition: Value, yes: Value, no: Value) -> Value:
    """`yes` where the condition holds, else `no`."""
    if isinstance(condition, Expr):
        return Expr("where", (condition, as_expr(yes), as_expr(no)))
    if isinstance(condition, bool):
        return yes if condition else no
    like = next((v for v in (yes, no) if isinstance(v, Tensor)), None)
    dtype = torch.float32 if like is None else like.dtype
    return torch.where(condition, _tensor(yes, dtype, condition), _tensor(no, dtype, condition))


def absolute(x: Value) -> Value:
    """|x|."""
    return Expr("abs", (x,)) if isinstance(x, Expr) else abs(x)


def sign(x: Value) -> Value:
    """−1, 0 or 1."""
    return where(x > 0, 1.0, where(x < 0, -1.0, 0.0 * absolute(x)))


def minimum(a: Value, b: Value) -> Value:
    """The smaller of two."""
    return where(a < b, a, b)


def maximum(a: Value, b: Value) -> Value:
    """The larger of two."""
    return where(a > b, a, b)


def sqrt(x: Value) -> Value:
    """√x."""
    return Expr("sqrt", (x,)) if isinstance(x, Expr) else torch.sqrt(torch.as_tensor(x))


def exp(x: Value) -> Value:
    """eˣ."""
    return Expr("exp", (x,)) if isinstance(x, Expr) else torch.exp(torch.as_tensor(x))


def tanh(x: Value) -> Value:
    """The hyperbolic tangent."""
    return Expr("tanh", (x,)) if isinstance(x, Expr) else torch.tanh(torch.as_tensor(x))


def _tensor(value: Value, dtype: torch.dtype, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=dtype, device=like.device)
