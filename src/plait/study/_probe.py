"""A linear probe: the best linear read-out of fixed features."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.errors import InputError

Floats = NDArray[np.float64]

#: The largest entry of the gradient at which the minimum counts as found.
_TOLERANCE = 1e-6
_STEPS = 1000
#: Below the least of the others lies the bias of a class that no example has; its minimum would be −∞.
_UNSEEN = 40.0


def probed(features: Tensor, labels: Tensor, outputs: int, ridge: float, *, classes: bool) -> nn.Linear:
    """The minimum of the mean loss + ridge / 2 · ‖weights‖², which is unique; its bias is free.

    Args:
        features: `(n, width)`.
        labels: `(n,)` classes, or `(n,)` or `(n, outputs)` numbers.
        outputs: how many.
        ridge: above 0.
        classes: whether the loss is cross-entropy, else half the squared error.

    Returns:
        a layer of float32.

    Raises:
        InputError: features are not finite.
    """
    x = features.double().numpy()
    if not np.isfinite(x).all():
        raise InputError("features that a probe is to read out are not finite", hint="has a model diverged?")
    if classes:
        weight, bias = _logistic(x, labels.long().numpy(), outputs, ridge)
    else:
        weight, bias = _least_squares(x, labels.double().reshape(len(x), -1).numpy(), ridge)
    layer = nn.Linear(x.shape[1], outputs)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _logistic(x: Floats, labels: NDArray[np.int64], outputs: int, ridge: float) -> tuple[Floats, Floats]:
    from sklearn.linear_model import LogisticRegression

    weight, seen = np.zeros((outputs, x.shape[1])), np.unique(labels)
    bias = np.full(outputs, -_UNSEEN)
    if len(seen) == 1:
        bias[seen] = 0.0
        return weight, bias
    # scikit-learn has C · Σ loss + ‖w‖² / 2. Of two classes it has the difference d of their weights ± d / 2
    # alone, whose squares sum to half of d's.
    scale = (2 if len(seen) == 2 else 1) / (len(x) * ridge)
    model = LogisticRegression(C=scale, solver="newton-cg", tol=_TOLERANCE, max_iter=_STEPS).fit(x, labels)
    found, free = model.coef_, model.intercept_
    if len(seen) == 2:
        found, free = np.stack([-found[0], found[0]]) / 2, np.array([-free[0], free[0]]) / 2
    weight[seen] = found
    bias[:] = free.min() - _UNSEEN
    bias[seen] = free
    return weight, bias


def _least_squares(x: Floats, wanted: Floats, ridge: float) -> tuple[Floats, Floats]:
    centre, mean = x.mean(0), wanted.mean(0)
    centred = x - centre
    curvature = centred.T @ centred / len(x) + ridge * np.eye(x.shape[1])
    weight = np.linalg.solve(curvature, centred.T @ (wanted - mean) / len(x)).T
    return weight, mean - weight @ centre
