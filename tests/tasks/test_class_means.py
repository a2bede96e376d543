"""Heads of class means, against plain numpy."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from plait.tasks import Columns, Task, evaluate
from plait.tasks.suites._class_means import with_class_means


def test_a_class_is_the_mean_direction_of_its_examples() -> None:
    torch.manual_seed(0)
    base = nn.Linear(5, 4)
    x, y = torch.randn(700, 5), torch.arange(700) % 3
    splits = {
        "train": Columns({"input": x[:600], "label": y[:600]}),
        "test": Columns({"input": x[600:], "label": y[600:]}),
    }
    task = with_class_means(Task("t", splits, classes=("a", "b", "c")), base)
    with torch.no_grad():
        features = base(x).double().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([features[:600][(y[:600] == c).numpy()].mean(0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    cosines = features[600:] @ means.T
    assert task.head is not None
    with torch.no_grad():
        logits = task.head(base(x[600:])).double().numpy()
    assert np.allclose(logits / cosines, (logits / cosines)[0, 0], rtol=1e-4)
    wanted = (cosines.argmax(1) == y[600:].numpy()).mean()
    found = evaluate(task.with_body(base), task, bootstrap=0)
    assert found.rows[0].value == wanted
    assert found.untrained == ()
    assert list(task.head.parameters()) == []
