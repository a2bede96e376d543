"""Tokens that a base has no embedding of are told before the first step, wherever they lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lora import VOCABULARY, classes, config, llama, next_token
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import ByKeywords, Columns, NextToken, Ragged, Subset, Task, mixture, perplexity


def with_token(learned: Task, token: int, example: int, split: str = "train") -> Task:
    """A task of which one example has this token last."""
    held: Any = learned.splits[split]
    ids = [list(row) for row in held.sequences["input_ids"]]
    ids[example][-1] = token
    changed = replace(held, sequences={**held.sequences, "input_ids": ids})
    return replace(learned, splits={**learned.splits, split: changed})


def made(learned: Task, backend: Any = "auto", **settings: Any) -> Fleet:
    return Fleet([Member(name="a", steps=1, task=learned, **settings)], model=llama(), backend=backend)


@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        ("stacked", {}),
        ("sequential", {}),
        ("sequential", {"lora": config(r=2, target_modules=["q_proj"])}),
        ("adapters", {"lora": config(r=2, target_modules=["q_proj"])}),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_token_in_a_late_row(backend: Any, settings: dict[str, Any], split: str) -> None:
    message = (
        rf"member `a`, task `tokens0`, split `{split}`, example 17: token {VOCABULARY} is out of range: "
        rf"the base's input embedding has {VOCABULARY} rows\n.*tokenizer"
    )
    for _ in range(2):  # it is no less wrong the second time
        with pytest.raises(InputError, match=message):
            made(with_token(next_token(0), VOCABULARY, 17, split), backend, **settings)


def test_the_last_token_of_a_vocabulary_is_one() -> None:
    assert made(with_token(next_token(0), VOCABULARY - 1, 17)).status == {"a": "running"}
    with pytest.raises(InputError, match="example 17: token -1 is out of range"):
        made(with_token(next_token(0), -1, 17))


def test_tasks_with_heads_and_mixtures_are_looked_through() -> None:
    own = with_token(classes(0, 3, head=True), 99, 18)
    with pytest.raises(InputError, match="example 18: token 99 is out of range"):
        Fleet([Member(name="a", steps=1, task=own)], model=llama().model)
    both = mixture([next_token(0), with_token(next_token(1), 99, 18)])
    with pytest.raises(InputError, match="example 38: token 99 is out of range"):
        made(both)


def columns(rows: Any = None) -> Task:
    ids = torch.full((9, 4), 3)
    ids[6, 2] = 1000
    table: Any = Columns({"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)})
    table = table if rows is None else Subset(table, np.asarray(rows))
    return Task("t", {"train": table}, loss=NextToken(), metric=perplexity(), meet=ByKeywords())


def test_columns_and_some_of_their_rows() -> None:
    with pytest.raises(InputError, match="example 6: token 1000 is out of range"):
        made(columns())
    with pytest.raises(InputError, match="example 2: token 1000 is out of range"):
        made(columns([1, 0, 6]))
    assert made(columns([1, 0, 5])).status == {"a": "running"}


def test_what_fills_up_sequences_is_a_token_too() -> None:
    learned = next_token(0)
    held: Any = learned.splits["train"]
    padded = replace(held, padding={"labels": -100, "input_ids": VOCABULARY})
    with pytest.raises(InputError, match=f"token {VOCABULARY} is out of range"):
        made(replace(learned, splits={"train": padded}))


def test_a_network_that_tells_of_no_embedding_is_left_to_itself() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Embedding(20, 3)

        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.inner(input_ids % 20).mean(1)}

    ids, labels = [[1000 + i] * (2 + i % 3) for i in range(9)], torch.arange(9) % 3
    learned = Task("t", {"train": Ragged({"input_ids": ids}, {"label": labels})}, meet=ByKeywords())
    assert Fleet([Member(name="a", steps=1)], learned, model=Network).fit().status == {"a": "finished"}
