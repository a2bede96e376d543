"""Members whose sequences differ in length share a pass only where what fills up does not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, FleetWarning, Member
from plait.tasks import Batch, ByKeywords, CrossEntropy, NextToken, Ragged, Task

JOINT = pytest.mark.parametrize("backend", ["stacked", "auto"])


class Causal(nn.Module):
    """Logits of each token from those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(20, 8), nn.LSTM(8, 12, batch_first=True)
        self.last = nn.Linear(12, 20)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.inner(self.embedding(ids))[0])


class Mean(nn.Module):
    """Classes from the mean of all tokens, whatever they are."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.embedding(ids).mean(1))


class Own:
    """Sequences of a user's own, of one length in a batch: longer and longer ones."""

    def __init__(self, seed: int, *, grows: int) -> None:
        self.random, self.grows = np.random.default_rng(seed).integers(1, 20, (48, 30)), grows

    def __len__(self) -> int:
        return len(self.random)

    def batch(self, rows: Sequence[int]) -> Batch:
        ids = torch.from_numpy(self.random[list(rows), : 9 + self.grows * (max(rows) // 8)])
        return {"input": ids, "label": ids[:, 0] % 3, "labels": ids}


def fleet_of(network: type[nn.Module], grows: Sequence[int], loss: Any = None, **kwargs: Any) -> Fleet:
    tasks = [Task(f"t{n}", {"train": Own(n, grows=by)}, loss or CrossEntropy()) for n, by in enumerate(grows)]
    own = [Member(name=t.name, task=t.name, steps=9, seed=n, batch_size=4) for n, t in enumerate(tasks)]
    return Fleet(own, tasks, model=lambda: network().double(), **kwargs)


def equal(one: Fleet, other: Fleet) -> None:
    for name in one.status:
        for key, value in one.state(name).parameters.items():
            torch.testing.assert_close(value, other.state(name).parameters[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["stacked", "auto"])
def test_labels_of_what_fills_up_do_not_count(backend: Any) -> None:
    fleet = fleet_of(Causal, [1, 2, 3], NextToken(), backend=backend).fit()
    equal(fleet, fleet_of(Causal, [1, 2, 3], NextToken(), backend="sequential").fit())


def test_a_stack_is_refused_where_what_fills_up_counts() -> None:
    with pytest.raises(
        InputError, match="member `t0`, task `t0`: what fills up a shorter sequence changes"
    ) as told:
        fleet_of(Mean, [1, 2], backend="stacked").fit()
    assert "attention_mask" in str(told.value)
    fleet_of(Mean, [0, 0], backend="stacked").fit()


def test_auto_goes_on_one_by_one_where_lengths_part_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a member sees a longer sequence than the others, nothing tells that it can't be stacked."""
    monkeypatch.setattr("plait.fleet._auto._LEAVE", 0.0)
    fleet = fleet_of(Mean, [0, 0, 0], backend="auto")

    class Longer:
        def on_round(self, fleet: Fleet, validated: Any) -> None:
            if fleet.round == 3:
                fleet.tasks["t1"].splits["train"].grows = 4

    assert isinstance(fleet.tasks["t1"].splits["train"], Own)
    with pytest.warns(FleetWarning, match="go on one by one: member `t0`, task `t0`: what fills up"):
        fleet.fit(callbacks=[Longer()])
    assert set(fleet.status.values()) == {"finished"}
    assert [choice.kind for choice in fleet.choices.values()] == ["sequential"]
    alone = fleet_of(Mean, [0, 0, 0], backend="sequential").fit(callbacks=[Longer()])
    equal(fleet, alone)


def test_labels_of_ragged_examples_are_filled_up_as_transformers_does() -> None:
    batch = Ragged({"input_ids": [[1, 2, 3], [4]], "labels": [[1, 2, 3], [4]]}).batch([0, 1])
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    given = Ragged({"labels": [[1, 2], [4]]}, padding={"labels": 7}).batch([0, 1])
    assert given["labels"].tolist() == [[1, 2], [4, 7]]


class OverTime(nn.Module):
    """Normalises over the batch and time before a masked mean."""

    def __init__(self, positions: int = 99, *, normal: bool = True, masked: bool = True) -> None:
        super().__init__()
        self.embedding, self.places = nn.Embedding(20, 8), nn.Embedding(positions, 8)
        self.normal = nn.BatchNorm1d(8) if normal else nn.Identity()
        self.last, self.masked = nn.Linear(8, 3), masked

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(1).to(self.last.weight.dtype)
        places = self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        hidden = self.normal((self.embedding(input_ids) + places).transpose(1, 2))
        return self.last((hidden * mask).sum(2) / mask.sum(2) if self.masked else hidden.mean(2))


def texts(lengths: Sequence[int], network: Any, dtype: torch.dtype, **kwargs: Any) -> Fleet:
    """A member for each length, whose sequences all have it."""
    tasks = []
    for seed, length in enumerate(lengths):
        ids = np.random.default_rng(seed).integers(1, 20, (24, length)).tolist()
        columns = {"label": torch.tensor([sum(row) % 3 for row in ids])}
        examples = Ragged({"input_ids": ids, "attention_mask": [[1] * length] * 24}, columns)
        tasks.append(Task(f"t{seed}", {"train": examples}, CrossEntropy(), meet=ByKeywords(output="")))
    own = [Member(name=t.name, task=t.name, steps=6, batch_size=4, drop_last=True) for t in tasks]
    return Fleet(own, tasks, model=lambda: network().to(dtype), **kwargs)


def test_a_stack_is_refused_where_what_fills_up_moves_the_means_of_a_batch() -> None:
    with pytest.raises(InputError, match="what fills up a shorter sequence changes its loss"):
        texts([9, 14], OverTime, torch.float32, backend="stacked").fit()
    texts([9, 9], OverTime, torch.float32, backend="stacked").fit()


def test_what_fills_up_is_found_in_short_types_too() -> None:
    def plain() -> nn.Module:
        return OverTime(normal=False, masked=False)

    with pytest.raises(InputError, match="what fills up a shorter sequence changes its loss"):
        texts([60, 64], plain, torch.bfloat16, backend="stacked").fit()


def test_sequences_are_not_filled_up_beyond_the_longest_that_there_is() -> None:
    """A network of 21 places takes 21 tokens, and no multiple of 16."""

    def short() -> nn.Module:
        return OverTime(21, normal=False)

    fleet = texts([13, 21], short, torch.float64, backend="stacked").fit()
    equal(fleet, texts([13, 21], short, torch.float64, backend="sequential").fit())
