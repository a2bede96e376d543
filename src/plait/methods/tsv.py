"""TSV-M, task singular vectors (Gargiulo et al., CVPR 2025, arXiv:2412.00081), per matrix.

With r the smaller of rows and columns:

Compress  τ_t ≈ U_t diag(s_t) V_tᵀ, the top k = int(r / T) singular triplets of each task vector
Whiten    U = [U_1 … U_T] and V = [V_1 … V_T] become the nearest matrices with orthonormal columns
Merge     θ = θ₀ + λ · Polar(U) diag(s_1 … s_T) Polar(V)ᵀ;  Polar(X) = X (XᵀX)^(-1/2)

What is no matrix, or has fewer rows or columns than there are models (k = 0), is merged by the mean of task
vectors. Singular values of zero bring no vectors, and a direction that tasks share exactly counts once: the
paper leaves both to the library. So T models that are the same give their task vector's top k.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from plait.methods._spec import Matrix, Method, Settings
from plait.methods._spectral import OPTIONS, joined, mean, memory, sides, wanted
from plait.numerics import leading_triplets, polar


def _merge(deltas: Iterable[Tensor], settings: Settings) -> Tensor:
    k = min(sides(settings)) // settings.models
    u, s, v = joined(leading_triplets(delta, k, torch.linalg.norm(delta)) for delta in deltas)
    return (polar(u) * (settings.shared["lambda"] * s)) @ polar(v).T


def _applies(settings: Settings) -> bool:
    return wanted(settings) and settings.models <= min(sides(settings))


METHOD = Method(
    "tsv",
    "the top singular vectors of each task vector, made orthogonal to those of the others",
    "arXiv:2412.00081",
    mean,
    OPTIONS,
    base="required",
    matrix=Matrix(_merge, memory, _applies),
)
