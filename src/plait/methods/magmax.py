"""MagMax (Marczak et al., ECCV 2024, arXiv:2407.06322): τ[p] = τ_t[p] with the largest |τ_t[p]|; θ = θ₀ + λτ.

Equal magnitudes: the later model wins, so the order of models matters there and there alone.
"""

from plait.methods._consensus import LARGEST
from plait.methods._parts import compose
from plait.methods._sparsify import NONE

METHOD = compose(
    "magmax",
    sparsify=NONE,
    consensus=LARGEST,
    summary="take the entry of largest magnitude",
    reference="arXiv:2407.06322",
    weight=1.0,
    scale=0.5,
    symmetric=False,
)
