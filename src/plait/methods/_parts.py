"""Composition: sparsify each task vector, find consensus across models, scale; methods are presets of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from plait.methods._spec import Cell, Method, Option, Settings, Stage
from plait.numerics import Value

WEIGHT = Option(
    "weight", 1.0, "factor of the model's task vector; may be negative", per_model=True, needed=True
)
LAMBDA = Option("lambda", 1.0, "factor of the merged task vector")


@dataclass(frozen=True)
class Sparsify:
    """Keeps a part of each task vector.

    Attributes:
        name: as written in a pipeline.
        apply: cell, model → the sparse task vector's value.
        options: typed options.
        stages: what it must know first.
        summary: one line.
        by_row: it ranks within rows.
        check: settings → what is wrong with them together, or None.
    """

    name: str
    apply: Callable[[Cell, int], Value]
    summary: str
    options: tuple[Option, ...] = ()
    stages: Callable[[Settings], Sequence[Stage]] = field(default=lambda settings: ())
    by_row: bool = False
    check: Callable[[Settings], str | None] = field(default=lambda settings: None)


@dataclass(frozen=True)
class Consensus:
    """Makes one task vector of several.

    Attributes:
        name: as written in a pipeline.
        apply: cell, sparse and weighted task vectors, weights → one value.
        options: typed options.
        stages: sparsifier, settings → what it must know first.
        summary: one line.
    """

    name: str
    apply: Callable[[Cell, Sequence[Value], Sequence[Value]], Value]
    summary: str
    options: tuple[Option, ...] = ()
    stages: Callable[[Callable[[Cell], list[Value]], Settings], Sequence[Stage]] = field(
        default=lambda rule, settings: ()
    )


def compose(
    name: str,
    *,
    sparsify: Sparsify,
    consensus: Consensus,
    summary: str,
    reference: str,
    symmetric: bool = True,
    **defaults: Any,
) -> Method:
    """The method that chains the two parts: θ = θ₀ + λ·consensus_t(w_t · sparsify(θ_t − θ₀)).

    Args:
        name: the method's name.
        sparsify: what is kept of each task vector.
        consensus: how several become one.
        summary: one line.
        reference: where it was published.
        symmetric: the order of the models does not matter.
        defaults: option → its default here, or `(paper's, mergekit's)`.
    """

    def weighted(c: Cell) -> list[Value]:
        return [w * sparsify.apply(c, k) for k, w in enumerate(c.each("weight"))]

    def combine(c: Cell) -> Value:
        return c.base + c.option("lambda") * consensus.apply(c, weighted(c), c.each("weight"))

    def stages(settings: Settings) -> list[Stage]:
        return [*sparsify.stages(settings), *consensus.stages(weighted, settings)]

    options = tuple(
        _with_default(option, defaults) for option in (WEIGHT, *sparsify.options, *consensus.options, LAMBDA)
    )
    return Method(
        name,
        summary,
        reference,
        combine,
        options,
        stages,
        base="required",
        symmetric=symmetric,
        check=sparsify.check,
        by_row=sparsify.by_row,
    )


def _with_default(option: Option, defaults: dict[str, Any]) -> Option:
    given = defaults.get(option.name.replace("lambda", "scale"))
    if given is None:
        return option
    paper, mergekit = given if isinstance(given, tuple) else (given, option.mergekit)
    return replace(option, default=paper, mergekit=mergekit, needed=False)
