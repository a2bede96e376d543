"""What adapters cannot train is one message that names it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lora import GPT2_TARGETS, LLAMA_TARGETS, bert, config, decoders, encoders, gpt2, llama, made, next_token
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._adapters import Adapters
from plait.fleet._save_adapter import save_adapter
from plait.tasks import Columns, CrossEntropy, Task


def member(**options) -> Member:
    return Member(name="a", task=next_token(0), steps=2, lora=config(**options))


@pytest.mark.parametrize(
    ("targets", "message", "hint"),
    [
        (["q_prj"], "member `a`: LoRA target `q_prj` matches no layer", "did you mean `q_proj`?"),
        (["q_proj", "val"], "LoRA target `val` matches no layer", "its linear layers end in `down_proj`"),
        ("nothing.*", "LoRA target `nothing.*` matches no layer", "`v_proj`"),
        (["embed_tokens"], "LoRA on `model.embed_tokens`, a Embedding, is not supported", "Conv1D"),
        (["input_layernorm"], "LoRA on `model.layers.0.input_layernorm`, a LlamaRMSNorm", "nn.Linear"),
    ],
)
def test_targets_that_are_no_linear_layers(targets, message, hint):
    with pytest.raises(InputError) as caught:
        Fleet([member(target_modules=targets)], model=llama(), backend="adapters")
    assert message in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "`use_dora` is True"),
        ({"bias": "all"}, "`bias` is 'all'"),
        ({"lora_bias": True}, "`lora_bias` is True"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights` is `pissa`, which changes the base"),
        ({"trainable_token_indices": [1]}, "`trainable_token_indices` is [1]"),
    ],
)
def test_options_beyond_plain_lora(options, message):
    with pytest.raises(InputError) as caught:
        Fleet([member(target_modules=["q_proj"], **options)], model=llama(), backend="adapters")
    assert message in str(caught.value)


def test_a_member_without_lora():
    one, two, _ = decoders(LLAMA_TARGETS)
    with pytest.raises(InputError, match="member `b`: `lora` is missing"):
        made(Adapters, llama(), [one, replace(two, lora=None)])
    with pytest.raises(InputError, match="member `b`: `lora` is a dict"):
        made(Adapters, llama(), [one, replace(two, lora={"r": 8})])


def test_members_of_different_bases():
    one, two, _ = decoders(GPT2_TARGETS)
    backends = [made(Adapters, gpt2(), [each]) for each in (one, two)]
    trainees = [backend.trainees[0] for backend in backends]
    with pytest.raises(InputError, match="members `a` and `b`: they start from different bases"):
        Adapters(trainees, [t.initial() for t in trainees], torch.device("cpu"))


def test_members_whose_optimizers_or_calls_differ():
    one, two, _ = decoders(GPT2_TARGETS)
    with pytest.raises(InputError, match="`optimizer` is `adamw` and `sgd`"):
        made(Adapters, gpt2(), [one, replace(two, optimizer="sgd")])
    headed, plain = encoders(head=True)[0], decoders((["query"],) * 3)[0]
    with pytest.raises(InputError, match="their tasks call the base in different ways"):
        made(Adapters, bert(), [headed, plain])


class Mixing(nn.Module):
    """A network whose examples see each other."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 6), norm, nn.Linear(6, 3)

    def forward(self, x):
        hidden = self.first(x)
        hidden = hidden - hidden.mean(0) if self.norm is None else self.norm(hidden)
        return self.second(hidden)


class Noisy(nn.Module):
    """A network with noise of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)

    def forward(self, x):
        return self.first(x) + 0.1 * torch.randn(3)


class TimeFirst(nn.Module):
    """A network whose layers see time before examples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x.T.unsqueeze(-1)))).mean(0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Mixing(), "the base mixes the examples of a batch"),
        (Mixing(nn.BatchNorm1d(6)), "`norm` is a BatchNorm1d"),
        (Noisy(), "draws random numbers beside dropout"),
        (TimeFirst(), "the base mixes the examples of a batch"),
    ],
)
def test_bases_in_which_members_would_meet(network, message):
    generator = torch.Generator().manual_seed(0)
    data = Columns({"input": torch.randn(8, 4, generator=generator), "label": torch.arange(8) % 3})
    task = Task("t", {"train": data}, loss=CrossEntropy())
    members = [
        Member(
            name=name, task=task, steps=2, seed=seed, batch_size=2, lora=config(r=2, target_modules=["first"])
        )
        for seed, name in enumerate("ab")
    ]
    with pytest.raises(InputError, match=message):
        made(Adapters, network, members)


def test_modules_saved_whole_over_a_base_of_16_bits():
    with pytest.raises(InputError, match="`classifier` would be trained in 16 bits"):
        made(Adapters, bert(torch.bfloat16, 5), encoders(head=False))


def test_an_adapter_is_saved_with_the_name_of_its_base_and_its_own_weights(tmp_path):
    fleet = made(Adapters, gpt2(), decoders(GPT2_TARGETS))
    one, two, _ = fleet.trainees
    with pytest.raises(InputError, match="no path or name"):
        save_adapter(fleet.state(0), one.adapter, tmp_path / "out")
    with pytest.raises(InputError, match="not this adapter's weights"):
        save_adapter(fleet.state(0), two.adapter, tmp_path / "out", "base")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("targets", "excluded"),
    [(["q_proj"], ["q_proj"]), ("all-linear", "model.*"), (r".*q_proj", r".*\.[01]\..*")],
)
def test_exclusions_that_leave_no_target(targets, excluded):
    with pytest.raises(InputError, match=r"member `a`: `exclude_modules` .* leaves out every layer"):
        Fleet([member(target_modules=targets, exclude_modules=excluded)], model=llama(), backend="adapters")
    with pytest.raises(InputError, match="LoRA target `nothing` matches no layer"):
        Fleet([member(target_modules="nothing", exclude_modules=excluded)], model=llama(), backend="adapters")
