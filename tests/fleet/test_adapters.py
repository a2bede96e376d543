"""An adapter in the fleet is the adapter that PEFT trains alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora import (
    GPT2_TARGETS,
    LLAMA_TARGETS,
    advance,
    assert_equal,
    bert,
    classes,
    config,
    decoders,
    encoders,
    gpt2,
    llama,
    made,
    next_token,
    states,
)

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.fleet._adapters import Adapters
from plait.fleet._sequential import Sequential
from plait.fleet._trainee import State

_CASES = {
    "llama": (lambda t: llama(t, attention_dropout=0.1), lambda: decoders(LLAMA_TARGETS, 0.2)),
    "llama without dropout": (llama, lambda: decoders(LLAMA_TARGETS)),
    "gpt2": (gpt2, lambda: decoders(GPT2_TARGETS, 0.2)),
    "gpt2 without dropout": (lambda t: gpt2(t, 0.0), lambda: decoders(GPT2_TARGETS)),
    "bert with heads": (bert, lambda: encoders(head=True, drop=0.1)),
    "bert with saved modules": (lambda t: bert(t, 5), lambda: encoders(head=False, drop=0.1)),
    "bert without dropout": (lambda t: bert(t, drop=0.0), lambda: encoders(head=True)),
}


def compared(base, members, steps: int, within: float) -> None:
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    fleet, alone = made(Adapters, base, members), made(Sequential, base, members)
    found, expected = advance(fleet, steps), advance(alone, steps)
    assert_equal(states(fleet), states(alone), within)
    for one, other in zip(found, expected, strict=True):
        assert one.taken.all()
        np.testing.assert_allclose(one.loss, other.loss, rtol=max(within, 1e-6))
        np.testing.assert_allclose(one.norm, other.norm, rtol=1e3 * within, atol=1e-7)
    for name, parameter in base.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad


@pytest.mark.parametrize("case", ["llama", "gpt2", "bert with heads", "bert with saved modules"])
def test_the_first_steps_equal_those_of_peft_alone(case):
    make, members = _CASES[case]
    compared(make(torch.float64), members(), 6, 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("case", _CASES)
def test_a_member_equals_peft_alone_after_200_steps_in_float64(case):
    make, members = _CASES[case]
    compared(make(torch.float64), members(), 200, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", _CASES)
def test_a_member_equals_peft_alone_after_200_steps_in_float32(case):
    make, members = _CASES[case]
    # Adam takes whole steps along gradients of rounding errors alone, unless eps is above these
    compared(make(torch.float32), [replace(member, eps=1e-5) for member in members()], 200, 1e-4)


@pytest.mark.parametrize("case", ["llama", "gpt2", "bert with heads"])
def test_a_base_in_bfloat16_carries_adapters_in_float32(case):
    make, members = _CASES[case]
    base = make(torch.bfloat16)
    fleet, alone = made(Adapters, base, members()), made(Sequential, base, members())
    found, expected = advance(fleet, 8), advance(alone, 8)
    assert all(t.dtype == torch.float32 for s in states(fleet) for t in s.parameters.values())
    # bfloat16 keeps 8 bits, and products are rounded otherwise where rows are filled up
    np.testing.assert_allclose(found[-1].loss, expected[-1].loss, rtol=2**-5)
    assert_equal([_weights(s) for s in states(fleet)], [_weights(s) for s in states(alone)], 0.1)


def _weights(state: State) -> State:
    return State(state.parameters, {}, [], state.step)


@pytest.mark.parametrize("backend", [Adapters, Sequential])
@pytest.mark.parametrize("case", ["llama", "gpt2"])
def test_checkpointed_activations_change_nothing(case, backend):
    make, members = _CASES[case]
    base = make(torch.float64)
    plain = made(backend, base, members())
    base.activation_checkpointing_enable()
    again = made(backend, base, members())
    advance(plain, 4)
    advance(again, 4)
    assert_equal(states(again), states(plain), 1e-12)


def test_checkpointing_really_computes_layers_again(monkeypatch):
    from transformers.models.llama.modeling_llama import LlamaMLP

    calls = []
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: (calls.append(1), forward(self, x))[1])
    base = llama()
    backend = made(Adapters, base, decoders(LLAMA_TARGETS)[:1])
    calls.clear()
    advance(backend, 1)
    once = len(calls)
    base.activation_checkpointing_enable()
    backend = made(Adapters, base, decoders(LLAMA_TARGETS)[:1])
    calls.clear()
    advance(backend, 1)
    assert len(calls) == 2 * once


@given(
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    ranks=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    batches=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    accumulate=st.lists(st.integers(1, 2), min_size=4, max_size=4),
    drops=st.lists(st.sampled_from([0.0, 0.3]), min_size=4, max_size=4),
    targets=st.lists(
        st.sets(st.sampled_from(["c_attn", "c_fc", "mlp.c_proj", "attn.c_proj"]), min_size=1),
        min_size=4,
        max_size=4,
    ),
    optimizer=st.sampled_from(["adamw", "sgd"]),
    drop=st.sampled_from([0.0, 0.2]),
)
@settings(max_examples=6)
def test_members_of_any_number_and_settings_equal_peft_alone(
    seeds, ranks, batches, accumulate, drops, targets, optimizer, drop
):
    members = [
        Member(name=f"m{i}", task=next_token(seed, 7), steps=9, lr=1e-2, seed=seed, batch_size=batches[i],
               accumulate=accumulate[i], optimizer=optimizer, momentum=0.5 if optimizer == "sgd" else 0.0,
               lora=config(r=ranks[i], target_modules=sorted(targets[i]), lora_dropout=drops[i]))
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
    compared(gpt2(drop=drop), members, 3, 1e-11)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_layers_that_no_loss_depends_on_are_left_alone(optimizer):
    def members(modules_to_save=None):
        lora = [config(r=2, target_modules=t, modules_to_save=modules_to_save)
                for t in ("all-linear", ["pooler.dense", "query"])]  # fmt: skip
        return [
            Member(name=f"m{i}", task=classes(i, 3, head=True), steps=9, seed=i, batch_size=2, lora=own,
                   lr=1e-2, weight_decay=0.3, optimizer=optimizer, momentum=0.5 * (optimizer == "sgd"))
            for i, own in enumerate(lora)
        ]  # fmt: skip

    base = bert(drop=0.0)
    compared(base, members(), 6, 1e-10)
    fleet = made(Adapters, base, members())
    before, _ = states(fleet), advance(fleet, 3)
    name = "base_model.model.pooler.dense.lora_A.weight"
    assert all(
        torch.equal(a.parameters[name], b.parameters[name])
        for a, b in zip(before, states(fleet), strict=True)
    )


def test_saved_modules_that_no_loss_depends_on_are_left_alone():
    base = bert(drop=0.0)
    member = Member(name="m", task=classes(0, 3, head=True), steps=9, batch_size=2, weight_decay=0.3,
                    lora=config(r=2, target_modules=["query"], modules_to_save=["pooler"]))  # fmt: skip
    compared(base, [member], 6, 1e-10)


def test_an_adapter_that_changes_no_loss_is_refused():
    member = Member(
        name="m", task=classes(0, 3, head=True), steps=9, lora=config(target_modules=["pooler.dense"])
    )
    with pytest.raises(InputError, match=r"member `m`: its loss depends on none of `pooler.dense`"):
        Fleet([member], model=bert(), backend="adapters").fit(quiet=True)


def test_members_that_share_batches_equal_peft_alone():
    task = next_token(0)
    members = [
        Member(name=f"m{i}", task=task, steps=9, lr=1e-2 * (i + 1), seed=i, data_seed=5, batch_size=3,
               lora=config(r=2 + i, target_modules="all-linear"))
        for i in range(3)
    ]  # fmt: skip
    compared(gpt2(), members, 4, 1e-12)


def test_what_a_member_does_not_have_stays_zero():
    fleet = made(Adapters, llama(), decoders(LLAMA_TARGETS, 0.2))
    stacks = fleet.stacks
    owned = [torch.zeros_like(p, dtype=torch.bool) for p in stacks.parameters]
    for member, slots in enumerate(stacks.slots):
        for slot in slots.values():
            slot.of(owned, member).fill_(True)
    assert any(not own.all() for own in owned)
    advance(fleet, 5)
    for own, *held in zip(owned, stacks.parameters, *fleet.optimizer.moments, strict=True):
        assert all(not tensor[~own].any() for tensor in held)


def test_states_of_either_backend_go_on_in_the_other():
    base = gpt2()
    expected = made(Sequential, base, decoders(GPT2_TARGETS, 0.2))
    advance(expected, 9)
    for first, second in ((Adapters, Sequential), (Sequential, Adapters)):
        begun = made(first, base, decoders(GPT2_TARGETS, 0.2))
        advance(begun, 4)
        trainees = begun.trainees
        ended = second(trainees, states(begun), torch.device("cpu"))
        advance(ended, 5)
        assert_equal(states(ended), states(expected), 1e-11)


def test_the_start_is_what_peft_draws_under_the_members_seed():
    from peft import get_peft_model, get_peft_model_state_dict

    base = llama(torch.float32)
    fleet = made(Adapters, base, decoders(LLAMA_TARGETS))
    for state, member in zip(states(fleet), decoders(LLAMA_TARGETS), strict=True):
        torch.manual_seed(member.seed)
        expected = get_peft_model_state_dict(get_peft_model(copy.deepcopy(base), member.lora))
        assert state.parameters.keys() == expected.keys()
        assert all(torch.equal(state.parameters[name], tensor) for name, tensor in expected.items())


def test_members_without_finite_losses_keep_their_weights_and_the_others_go_on():
    base = gpt2(drop=0.0)
    fleet, alone = (made(kind, base, decoders(GPT2_TARGETS)) for kind in (Adapters, Sequential))
    for backend in (fleet, alone):
        advance(backend, 1)
    poisoned = states(fleet)
    name = next(name for name in poisoned[1].parameters if "lora_A" in name)
    poisoned[1].parameters[name].fill_(torch.nan)
    broken = Adapters(fleet.trainees, poisoned, torch.device("cpu"))
    steps = advance(broken, 3)
    advance(alone, 3)
    assert [s.taken.tolist() for s in steps] == [[True, False, True]] * 3
    kept = states(broken)
    assert_equal([kept[0], kept[2]], [states(alone)[0], states(alone)[2]], 1e-11)


def test_the_base_is_in_memory_once():
    base = llama()
    members = decoders(LLAMA_TARGETS)
    for kind in (Adapters, Sequential):
        backend = made(kind, base, members)
        networks = [backend._pass.network] if kind is Adapters else [lone.network for lone in backend._lone]
        held = {p.data_ptr() for p in base.parameters()}
        sizes = {p.data_ptr(): p.numel() for n in networks for p in n.parameters() if not p.requires_grad}
        assert sizes.keys() <= held


def test_a_fleet_trains_adapters_and_gives_peft_models():
    base = gpt2()
    members = [
        replace(member, steps=steps) for member, steps in zip(decoders(GPT2_TARGETS), (2, 4, 3), strict=True)
    ]
    together = Fleet(members, model=base, backend="adapters").fit()
    alone = Fleet(members, model=base, backend="sequential").fit()
    batch = next_token(9).split("validation").batch(range(4))
    for member in members:
        one, other = (fleet[member.name].eval() for fleet in (together, alone))
        with torch.no_grad():
            outputs = [model(batch["input_ids"]).logits for model in (one, other, base.eval())]
        torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-12)
        assert (outputs[0] - outputs[2]).abs().max() > 1e-4


def test_a_fleet_leaves_every_part_of_the_users_base_in_its_mode() -> None:
    base = llama().train()
    base.model.layers[0].eval()
    modes = [module.training for module in base.modules()]
    Fleet(decoders(LLAMA_TARGETS), model=base)
    assert [module.training for module in base.modules()] == modes
