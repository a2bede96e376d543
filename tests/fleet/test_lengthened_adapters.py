"""LoRA adapters whose sequences differ in length share a pass only where what fills up does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import ByKeywords, Ragged, Task


class Body(nn.Module):
    """A linear layer of each token, and their mean, of all or of those that count."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        self.embedding, self.inner, self.masked = nn.Embedding(20, 8), nn.Linear(8, 8), masked

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(2).to(self.inner.weight.dtype)
        hidden = torch.tanh(self.inner(self.embedding(input_ids)))
        return (hidden * mask).sum(1) / mask.sum(1) if self.masked else hidden.mean(1)


def adapters(base: nn.Module, backend: Any) -> Fleet:
    """LoRA adapters whose B is zero at the start, under heads of zeros."""
    tasks = []
    for seed, length in enumerate((5, 9, 14)):
        ids = np.random.default_rng(seed).integers(1, 20, (24, length)).tolist()
        columns = {"label": torch.tensor([sum(row) % 3 for row in ids])}
        examples = Ragged({"input_ids": ids, "attention_mask": [[1] * length] * 24}, columns)
        head = nn.Linear(8, 3)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        tasks.append(Task(f"t{seed}", {"train": examples}, head=head, meet=ByKeywords(output="")))
    lora = LoraConfig(r=2, target_modules=["inner"])
    own = [Member(name=t.name, task=t.name, steps=6, batch_size=4, lora=lora, lr=0.01) for t in tasks]
    return Fleet(own, tasks, model=base, backend=backend)


def equal(one: Fleet, other: Fleet) -> None:
    for name in one.status:
        for key, value in one.state(name).parameters.items():
            torch.testing.assert_close(value, other.state(name).parameters[key], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_adapters_and_heads_of_zeros_hide_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    base = Body(masked=False).to(dtype)
    with pytest.raises(InputError, match="member `t0`, task `t0`: what fills up a shorter sequence changes"):
        adapters(base, "adapters").fit()
    equal(adapters(base, "auto").fit(), adapters(base, "sequential").fit())


def test_adapters_share_a_pass_where_what_fills_up_is_masked() -> None:
    torch.manual_seed(0)
    base = Body(masked=True).double()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    equal(adapters(base, "adapters").fit(), adapters(base, "sequential").fit())
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(parameter.grad is None for parameter in base.parameters())
    assert set(adapters(Body(masked=True).bfloat16(), "adapters").fit().status.values()) == {"finished"}
