"""Model Breadcrumbs (Davari and Belilovsky, ECCV 2024, arXiv:2312.06795).

m_t drops the int(γn) largest |τ_t| and keeps the int(density·n) largest of the rest: per row in the authors'
code, per tensor in mergekit;  θ = θ₀ + λ Σ_t m_t ⊙ τ_t, or with an elected sign (`breadcrumbs_ties`).
"""

from plait.methods._consensus import SIGN, SUM
from plait.methods._parts import compose
from plait.methods._sparsify import BOTH_TAILS

METHODS = (
    compose(
        "breadcrumbs",
        sparsify=BOTH_TAILS,
        consensus=SUM,
        summary="drop the largest and the smallest entries, add",
        reference="arXiv:2312.06795",
        density=(0.2, 1.0),
        gamma=(0.1, 0.01),
        scope=("row", "tensor"),
        ties="lowest_index",
        scale=(0.4, 1.0),
    ),
    compose(
        "breadcrumbs_ties",
        sparsify=BOTH_TAILS,
        consensus=SIGN,
        summary="drop the largest and the smallest entries, elect a sign",
        reference="arXiv:2312.06795, arXiv:2306.01708",
        density=(0.2, 1.0),
        gamma=(0.1, 0.01),
        scope=("row", "tensor"),
        ties="lowest_index",
        scale=(0.4, 1.0),
        normalize=(True, False),
    ),
)
