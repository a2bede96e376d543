"""Heads of class means, against plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plait.tasks import Columns, Task, evaluate
from plait.tasks.suites._class_means import with_class_means


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    return tmp_path


def test_a_class_is_the_mean_direction_of_its_examples() -> None:
    torch.manual_seed(0)
    base = nn.Linear(5, 4)
    x, y = torch.randn(700, 5), torch.arange(700) % 3
    splits = {
        "train": Columns({"input": x[:600], "label": y[:600]}),
        "test": Columns({"input": x[600:], "label": y[600:]}),
    }
    task = with_class_means(Task("t", splits, classes=("a", "b", "c")), base, __file__)
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


def test_means_are_kept_for_the_same_base_and_examples(empty_cache: Path) -> None:
    looked = list[int]()

    torch.manual_seed(0)
    base, x = nn.Linear(5, 4), torch.randn(300, 5)
    base.register_forward_hook(lambda _, given, __: looked.append(len(given[0])))
    tasks = [
        Task(
            "t", {"train": Columns({"input": rows, "label": torch.arange(300) % 3})}, classes=("a", "b", "c")
        )
        for rows in (x, x.flip(0))
    ]
    first, again = (with_class_means(tasks[0], base, __file__) for _ in range(2))
    assert looked == [256, 44]
    assert first.head is not None
    assert again.head is not None
    assert torch.equal(first.head.directions, again.head.directions)
    with_class_means(tasks[1], base, __file__)
    with torch.no_grad():
        base.bias.add_(1)
    with_class_means(tasks[0], base, __file__)
    assert len(looked) == 6
    assert len(list((empty_cache / "heads").glob("t-*"))) == 3
