"""TIES-Merging (Yadav et al., NeurIPS 2023, arXiv:2306.01708).

Trim   τ̂_t keeps the top `density` of |τ_t|
Elect  γ = sign(Σ_t w_t τ̂_t)
Merge  τ = Σ_t w_t τ̂_t over those with sign γ / Σ of their weights;  θ = θ₀ + λτ

The authors trim over the whole model, mergekit over each tensor.
"""

from plait.methods._consensus import SIGN
from plait.methods._parts import compose
from plait.methods._sparsify import MAGNITUDE

METHOD = compose(
    "ties",
    sparsify=MAGNITUDE,
    consensus=SIGN,
    summary="trim, elect a sign per entry, average what agrees",
    reference="arXiv:2306.01708",
    density=(0.2, 1.0),
    normalize=True,
)
