"""Models of transformers, with masks and dropout, in stacks; and attention as PyTorch has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora import VOCABULARY, bert, classes, gpt2, llama, next_token
from torch import nn
from torch.nn import functional as F

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._dropout import Dropout
from plait.fleet._multi_head import multi_head
from plait.tasks import ByKeywords, Columns, NextToken, Task, bits_per_byte


def left_padded() -> Task:
    """Rows filled up on the left: there, a causal model's first queries see no key at all."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, VOCABULARY, (16, 9), generator=generator)
    mask = (torch.arange(9) >= torch.randint(0, 5, (16, 1), generator=generator)).long()
    columns = {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}
    return Task(
        "left", {"train": Columns(columns)}, loss=NextToken(), metric=bits_per_byte(), meet=ByKeywords()
    )


CASES = {
    "bert": (lambda: bert(classes=3, drop=0.1), classes(1, 3, head=False)),
    "gpt2": (gpt2, next_token(1)),
    "llama": (lambda: llama(attention_dropout=0.1), next_token(1)),
    "llama, left": (llama, left_padded()),
}


@pytest.mark.parametrize("case", CASES)
def test_transformers_models_with_masks_stack(case: str) -> None:
    make, task = CASES[case]
    members = [Member(name=f"m{i}", seed=i, steps=20, batch_size=3 + i, lr=1e-3 * (i + 1)) for i in range(3)]
    ended = []
    for backend in ("stacked", "sequential"):
        fleet = Fleet(members, task, model=make(), backend=backend).fit(quiet=True)
        ended.append([fleet.state(name).parameters for name in fleet])
    for one, two in zip(*ended, strict=True):
        for name in one:
            assert (one[name] - two[name]).abs().max() < 1e-10, name


def test_a_stack_predicts_as_the_model_alone_does() -> None:
    task = classes(1, 3, head=False)
    fleet = Fleet([Member(name=n, seed=i, steps=2) for i, n in enumerate("ab")], task, model=bert(classes=3))
    fleet.fit(quiet=True)
    batch = task.split("train").batch(range(6))
    wanted = fleet["a"](input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(fleet.outputs(batch, "a"), wanted, atol=1e-12)
    assert fleet["a"].config._attn_implementation == "sdpa"


class Odd(nn.Module):
    """A layer between two linear ones."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(8, 8), layer, nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(torch.tanh(self.first(x))).mean(1))


LAYERS: dict[str, Any] = {
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True),
    "alpha dropout": lambda: nn.AlphaDropout(0.2),
    "feature alpha dropout": lambda: nn.FeatureAlphaDropout(0.2),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)),
}


def rows() -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, 8, generator=generator, dtype=torch.float64)
    return Task("rows", {"train": Columns({"input": x, "label": torch.arange(40) % 3})})


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_that_drop_in_their_own_ways_stack(layer: str) -> None:
    members = [Member(name=f"m{i}", seed=i, steps=20, lr=0.01) for i in range(3)]
    ended = []
    for backend in ("stacked", "sequential"):
        fleet = Fleet(members, rows(), model=lambda: Odd(LAYERS[layer]()).double(), backend=backend)
        ended.append([fleet.fit(quiet=True).state(name).parameters for name in fleet])
    for one, two in zip(*ended, strict=True):
        assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-9


class Noisy(Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + torch.randn_like(x))


class Asking(Odd):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.mean() > 0 else -x)


@pytest.mark.parametrize(
    ("network", "said"),
    [(Noisy, "it draws random numbers other than dropout's"), (Asking, "depends on numbers in a tensor")],
)
def test_what_cannot_be_stacked_is_told_in_words(network: Any, said: str) -> None:
    members = [Member(name=f"m{i}", seed=i, steps=2) for i in range(2)]
    with pytest.raises(InputError, match=said):
        Fleet(members, rows(), model=lambda: network(nn.Identity()).double(), backend="stacked").fit()


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    kept = torch.rand(400_000, generator=torch.Generator().manual_seed(1)) >= 0.3
    with Dropout(lambda *_: kept):
        y = F.alpha_dropout(x, 0.3, training=True)
    assert y.mean().item() == pytest.approx(0, abs=0.01)
    assert y.std().item() == pytest.approx(1, abs=0.01)
    assert len(y[~kept].unique()) == 1
    assert torch.allclose(F.alpha_dropout(x, 0.3, training=True).mode().values, y[~kept][0])


@settings(max_examples=60)
@given(
    flat=st.booleans(), padded=st.booleans(), mask=st.sampled_from([None, "bool", "float", "each"]),
    separate=st.booleans(), weights=st.booleans(), average=st.booleans(), bias=st.booleans(),
)  # fmt: skip
def test_multi_head_attention_is_pytorch_s(
    flat: bool, padded: bool, mask: str | None, separate: bool, weights: bool, average: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"kdim": 6, "vdim": 10} if separate else {}
    module = nn.MultiheadAttention(8, 2, bias=bias, dropout=0.5, **sizes).double()
    shape = () if flat else (3,)
    q, k, v = (
        torch.randn(n, *shape, d, dtype=torch.float64)
        for n, d in ((4, 8), (5, sizes.get("kdim", 8)), (5, sizes.get("vdim", 8)))
    )
    seen = torch.rand(*((2 * (1 if flat else 3),) if mask == "each" else ()), 4, 5) < 0.3
    seen[..., 0] = False
    given_mask = None if mask is None else seen if mask != "float" else torch.randn(4, 5).double()
    hidden = torch.arange(5) >= 3
    padding = None if not padded else hidden if flat else hidden.expand(3, 5)
    options = {
        "key_padding_mask": padding, "attn_mask": given_mask, "need_weights": weights,
        "use_separate_proj_weight": separate, "q_proj_weight": module.q_proj_weight,
        "k_proj_weight": module.k_proj_weight, "v_proj_weight": module.v_proj_weight,
        "average_attn_weights": average,
    }  # fmt: skip
    common = (
        q, k, v, 8, 2, module.in_proj_weight, module.in_proj_bias, None, None, False, 0.0,
        module.out_proj.weight, module.out_proj.bias,
    )  # fmt: skip
    wanted = F.multi_head_attention_forward(*common, **options)
    assert multi_head(lambda *_: torch.empty(0), *common, **options) is None
    found = multi_head(
        lambda q, k, added, p: Dropout(lambda *_: torch.empty(0))._shares(q, k, added, 0.0),
        *common[:10], 0.5, *common[11:], **options,
    )  # fmt: skip
    assert found is not None
    assert torch.allclose(found[0], wanted[0], atol=1e-12)
    assert (found[1] is None) == (wanted[1] is None)
    if wanted[1] is not None and found[1] is not None:
        assert torch.allclose(found[1], wanted[1], atol=1e-12)
