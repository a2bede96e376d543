"""Members whose sequences differ in length share a pass only where what fills up does not count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, FleetWarning, Member, _lengthened
from plait.fleet._stream import rows
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, ByKeywords, CrossEntropy, NextToken, Ragged, Task

BF16 = torch.bfloat16
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


def fleet_of(network: Any, grows: Sequence[int], loss: Any = None, **kwargs: Any) -> Fleet:
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
    monkeypatch.setattr("plait.fleet._auto._NEAR", float("inf"))
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


def texts(
    lengths: Sequence[int | list[int]],
    network: Any,
    dtype: torch.dtype,
    steps: int = 6,
    data_seed: int | None = None,
    **kwargs: Any,
) -> Fleet:
    """A member for each length, whose sequences all have it, or for those of all of its sequences."""
    tasks = []
    for seed, own in enumerate(lengths):
        random = np.random.default_rng(seed)
        ids = [
            random.integers(1, 20, length).tolist()
            for length in ([own] * 24 if isinstance(own, int) else own)
        ]
        columns = {"label": torch.tensor([sum(row) % 3 for row in ids])}
        examples = Ragged({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, columns)
        tasks.append(Task(f"t{seed}", {"train": examples}, CrossEntropy(), meet=ByKeywords(output="")))
    own = [
        Member(name=t.name, task=t.name, steps=steps, batch_size=4, drop_last=True, data_seed=data_seed)
        for t in tasks
    ]
    return Fleet(own, tasks, model=lambda: network().to(dtype), **kwargs)


class Zeroed(nn.Module):
    """A network whose last layer is of zeros at the start, as heads of plait's own suites are."""

    def __init__(self, inner: Mean | OverTime) -> None:
        super().__init__()
        self.inner = inner
        nn.init.zeros_(inner.last.weight)
        nn.init.zeros_(inner.last.bias)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        return self.inner(*args, **kwargs)


def test_a_head_of_zeros_hides_nothing() -> None:
    """Its loss is log 3 whatever was read, and that of every batch."""

    def zeroed() -> nn.Module:
        return Zeroed(Mean())

    with pytest.raises(InputError, match="what fills up a shorter sequence changes its loss"):
        fleet_of(zeroed, [1, 2], backend="stacked").fit()
    with pytest.raises(InputError, match="what fills up a shorter sequence changes its loss"):
        texts([60, 64], lambda: Zeroed(OverTime(normal=False, masked=False)), BF16, backend="stacked").fit()


@JOINT
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_head_of_zeros_shares_a_stack_where_what_fills_up_is_masked(backend: Any, dtype: Any) -> None:
    def zeroed() -> nn.Module:
        return Zeroed(OverTime(normal=False))

    fleet = texts([5, 9, 14], zeroed, dtype, backend=backend).fit()
    if dtype == torch.float64:
        equal(fleet, texts([5, 9, 14], zeroed, dtype, backend="sequential").fit())
    assert set(fleet.status.values()) == {"finished"}


class Aside(nn.Module):
    """A masked mean, and nothing added to it that has a gradient all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden, mask = self.embedding(input_ids), attention_mask.unsqueeze(2).to(self.last.weight.dtype)
        whole = hidden.mean(1)
        return self.last((hidden * mask).sum(1) / mask.sum(1) + whole - whole.detach())


def test_what_fills_up_may_not_change_gradients_either() -> None:
    with pytest.raises(InputError, match="what fills up a shorter sequence changes its gradient"):
        texts([9, 14], Aside, torch.float64, backend="stacked").fit()


class Beside(nn.Module):
    """A masked mean of what is next to each token, which is what fills up for the last one alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.inner = nn.Embedding(20, 8), nn.Conv1d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(1).to(self.last.weight.dtype)
        hidden = torch.tanh(self.inner(self.embedding(input_ids).transpose(1, 2)))
        return self.last((hidden * mask).sum(2) / mask.sum(2))


def test_what_fills_up_is_found_if_it_counts_for_the_longest_of_a_batch_alone() -> None:
    """The first of a batch are shorter than its longest, and have filler behind them as it is."""
    lengths = [[4] * 24, [18] * 24]
    for row in rows(0, 0, examples=24, size=4, per_epoch=6)[2:]:
        lengths[0][row] = 5
    with pytest.raises(InputError, match="member `t0`, task `t0`: what fills up a shorter sequence changes"):
        texts(lengths, Beside, torch.float64, backend="stacked", data_seed=0).fit()


class Late(Causal):
    """Logits that depend on all places after the 20th: 9 tokens may be filled up to 16, and not to 32."""

    def forward(self, ids: Tensor) -> Tensor:
        late = self.embedding(ids)[:, 20:].sum((1, 2))
        return super().forward(ids) + late[:, None, None] * torch.arange(20)


def test_a_try_holds_for_no_more_than_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it comes before the step that needs it, so that those that were taken stay."""
    monkeypatch.setattr("plait.fleet._auto._LEAVE", 0.0)
    monkeypatch.setattr("plait.fleet._auto._NEAR", float("inf"))

    class Longer:
        def on_round(self, fleet: Fleet, validated: Any) -> None:
            examples = fleet.tasks["t1"].splits["train"]
            assert isinstance(examples, Own)
            examples.grows = 1 if fleet.round < 4 else 4

    def trained(backend: Any) -> Fleet:
        return fleet_of(Late, [0, 1], NextToken(), backend=backend).fit(callbacks=[Longer()])

    changes = "member `t0`, task `t0`: what fills up a shorter sequence changes its loss"
    with pytest.raises(InputError, match=changes):
        trained("stacked")
    with pytest.warns(FleetWarning, match=f"go on one by one: {changes}"):
        fleet = trained("auto")
    equal(fleet, trained("sequential"))


def test_tries_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths from 3 to 40 in any order: each try fills up by twice what is needed."""
    tries: list[str] = []
    plain_network = _lengthened._network

    def counted(trainee: Trainee) -> tuple[nn.Module, float]:
        tries.append(trainee.member.name)
        return plain_network(trainee)

    monkeypatch.setattr(_lengthened, "_network", counted)
    lengths = np.random.default_rng(0).integers(3, 41, (3, 24)).tolist()

    def plain() -> nn.Module:
        return OverTime(41, normal=False)

    fleet = texts(lengths, plain, torch.float64, steps=60, backend="stacked").fit()
    assert 3 <= len(tries) <= 3 * 6
    equal(fleet, texts(lengths, plain, torch.float64, steps=60, backend="sequential").fit())


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
