"""The ways to make one task vector of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plait.methods._parts import Consensus
from plait.methods._spec import Cell, Numbers, Option, Settings, Stage, Sums
from plait.numerics import Value, absolute, sign, where

NORMALIZE = Option("normalize", False, "divide by the sum of the weights (of those that agree)", kind="bool")
ZERO_SIGN = Option(
    "zero_sign",
    "majority",
    "the sign elected where votes cancel: plus, minus, or the sign that most of the model's sums have",
    mergekit="plus",
    kind="str",
    choices=("plus", "minus", "majority"),
)


def total(values: Sequence[Value]) -> Value:
    """Σ in order."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def _sum(c: Cell, deltas: Sequence[Value], weights: Sequence[Value]) -> Value:
    merged = total(deltas)
    if not c.option("normalize"):
        return merged
    divisor = total(weights)
    return merged / where(absolute(divisor) < 1e-8, 1.0, divisor)


SUM = Consensus("sum", _sum, "the weighted sum", (NORMALIZE,))


def _mean(c: Cell, deltas: Sequence[Value], weights: Sequence[Value]) -> Value:
    return total(deltas) / float(len(deltas))


MEAN = Consensus("mean", _mean, "the sum over the number of models")


def _positive(c: Cell, merged: Value) -> Value:
    """Whether plus is elected."""
    rule = c.option("zero_sign")
    if rule == "majority":
        return where(merged == 0.0, c.stat("majority")[0], merged) > 0.0
    return merged >= 0.0 if rule == "plus" else merged > 0.0


def _elected(c: Cell, deltas: Sequence[Value], weights: Sequence[Value]) -> Value:
    positive = _positive(c, total(deltas))
    agree = [(positive & (d > 0.0)) | (~positive & (d < 0.0)) for d in deltas]
    merged = total([where(a, d, 0.0) for a, d in zip(agree, deltas, strict=True)])
    if not c.option("normalize"):
        return merged
    divisor = total([where(a, w, 0.0) for a, w in zip(agree, weights, strict=True)])
    return merged / where(divisor == 0.0, 1.0, divisor)


def _majority(rule: Callable[[Cell], list[Value]], settings: Settings) -> list[Stage]:
    if settings.shared["zero_sign"] != "majority":
        return []

    def signs(c: Cell) -> list[Value]:
        return [sign(total(rule(c)))]

    def finish(sums: Sequence[Numbers], settings: Settings) -> dict[str, Sequence[Numbers]]:
        return {"majority": sums}

    return [Sums("majority", signs, finish, "model")]


SIGN = Consensus(
    "elected_sign", _elected, "the entries whose sign the sum has", (NORMALIZE, ZERO_SIGN), _majority
)


def _largest(c: Cell, deltas: Sequence[Value], weights: Sequence[Value]) -> Value:
    best = deltas[0]
    for delta in deltas[1:]:
        # A tie goes to the later model, as in the authors' code.
        best = where(absolute(delta) >= absolute(best), delta, best)
    return best


LARGEST = Consensus("largest", _largest, "the entry of largest magnitude")
