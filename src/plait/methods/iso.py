"""Isotropic merging (Marczak et al., ICML 2025, arXiv:2502.04959), per matrix of r = min(rows, cols).

Iso-C    Σ_t τ_t = U diag(σ) Vᵀ;  θ = θ₀ + λ · mean(σ) · U Vᵀ
Iso-CTS  U_c, σ_c, V_c are the top r − s triplets of Σ_t τ_t;
         U_t, σ_t, V_t the top s / T triplets of τ_t − U_c U_cᵀ τ_t;
         U = [U_1 … U_T U_c], V and σ alike;  θ = θ₀ + λ · mean(σ) · Polar(U) Polar(V)ᵀ
         s = T · round((r − int(common_space_fraction · r)) / T);  s = 0 is Iso-C

What is no matrix is merged by the mean of task vectors. Singular values of zero bring no vectors and do not
count in the mean, so a sum of rank ρ < r is made isotropic in the ρ directions that it has; in the paper the
others, which the library chooses as it likes, get the mean over all r.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from plait.methods._spec import Matrix, Method, Option, Settings
from plait.methods._spectral import OPTIONS, Triplets, joined, mean, memory, sides, wanted
from plait.numerics import leading_triplets, polar


def _common(deltas: Iterable[Tensor], rank: int) -> Triplets:
    """The top triplets of the sum."""
    merged, scale = torch.zeros(()), torch.zeros(())
    for delta in deltas:
        scale = scale + torch.linalg.norm(delta).cpu()
        merged = delta if not merged.dim() else merged.add_(delta)
    return leading_triplets(merged, rank, scale.to(merged.device))


def _average(s: Tensor) -> Tensor:
    return s.sum() / max(len(s), 1)


def _iso_c(deltas: Iterable[Tensor], settings: Settings) -> Tensor:
    u, s, v = _common(deltas, min(sides(settings)))
    return (u * (settings.shared["lambda"] * _average(s))) @ v.T


def _specific(settings: Settings) -> int:
    """Triplets that each model has of its own, s / T."""
    r = min(sides(settings))
    return round((r - int(r * settings.shared["common_space_fraction"])) / settings.models)


def _iso_cts(deltas: Iterable[Tensor], settings: Settings) -> Tensor:
    own = _specific(settings)
    common = _common(deltas, min(sides(settings)) - own * settings.models)

    def parts() -> Iterator[Triplets]:
        if own:
            for delta in deltas:
                scale = torch.linalg.norm(delta)
                delta -= common[0] @ (common[0].T @ delta)  # noqa: PLW2901 (in place: it may be large)
                yield leading_triplets(delta, own, scale)
        yield common

    u, s, v = joined(parts())
    return (polar(u) * (settings.shared["lambda"] * _average(s))) @ polar(v).T


def _too_many(settings: Settings) -> str | None:
    r, s = min(sides(settings)), _specific(settings) * settings.models
    if settings.matrices is None or s <= r:
        return None
    fraction = settings.shared["common_space_fraction"]
    return (
        f"`common_space_fraction` {fraction:g} leaves {r - int(r * fraction)} of {r} directions, and "
        f"{settings.models} models, which get equally many, would take {s}"
    )


METHODS = (
    Method(
        "iso_c",
        "the sum of task vectors with all singular values made equal",
        "arXiv:2502.04959",
        mean,
        OPTIONS,
        base="required",
        matrix=Matrix(_iso_c, memory, wanted),
    ),
    Method(
        "iso_cts",
        "the sum's top directions and each model's own, with all singular values made equal",
        "arXiv:2502.04959",
        mean,
        (
            *OPTIONS,
            Option(
                "common_space_fraction", 0.8, "part of the directions that the sum gives", low=0.0, high=1.0
            ),
        ),
        base="required",
        check=_too_many,
        matrix=Matrix(_iso_cts, memory, wanted),
    ),
)
