"""DELLA (Deep et al., 2024, arXiv:2406.11617): MagPrune, then a sum or an elected sign.

Per row, rank r = 0…n−1 ascending in |δ|: keep with q = (density − ε) + 2ε·r/(n−1), rescale by 1/q.
mergekit rescales by one L1 factor per tensor instead. A row of one element is kept with q = density.
"""

from plait.methods._consensus import SIGN, SUM
from plait.methods._parts import compose
from plait.methods._sparsify import BY_RANK

METHODS = (
    compose(
        "della",
        sparsify=BY_RANK,
        consensus=SIGN,
        summary="keep large entries more often, rescale, elect a sign",
        reference="arXiv:2406.11617",
        density=(0.7, 1.0),
        rescale=("probability", "l1"),
        normalize=True,
    ),
    compose(
        "della_linear",
        sparsify=BY_RANK,
        consensus=SUM,
        summary="keep large entries more often, rescale, add",
        reference="arXiv:2406.11617",
        density=(0.7, 1.0),
        rescale=("probability", "l1"),
    ),
)
