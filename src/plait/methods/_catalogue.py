"""The parts that a recipe may compose on its own, by name."""

from __future__ import annotations

from plait.methods import _consensus, _sparsify
from plait.methods._parts import Consensus, Sparsify, compose
from plait.methods._spec import Method

SPARSIFY: dict[str, Sparsify] = {
    part.name: part
    for part in (
        _sparsify.NONE,
        _sparsify.MAGNITUDE,
        _sparsify.RANDOM,
        _sparsify.BOTH_TAILS,
        _sparsify.BY_RANK,
    )
}
CONSENSUS: dict[str, Consensus] = {
    part.name: part for part in (_consensus.SUM, _consensus.MEAN, _consensus.SIGN, _consensus.LARGEST)
}


def pipeline(sparsify: Sparsify = _sparsify.NONE, consensus: Consensus = _consensus.SUM) -> Method:
    """The method that a recipe's own parts make."""
    return compose(
        "pipeline",
        sparsify=sparsify,
        consensus=consensus,
        summary="parts chosen by the recipe",
        reference="the recipe",
        symmetric=consensus is not _consensus.LARGEST,
    )
