"""transformers' callbacks see each member as a run of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from lora import GPT2_TARGETS, advance, assert_equal, decoders, gpt2, made, states
from transformers import EarlyStoppingCallback, TrainerCallback

from plait.errors import InputError
from plait.fleet import Fleet, TrainerCallbacks
from plait.fleet._sequential import Sequential


class Diary(TrainerCallback):
    """Writes down what it sees."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.events.append(f"begin {args.learning_rate} of {state.max_steps}")

    def on_step_end(self, args, state, control, **kwargs):
        self.events.append(f"step {state.global_step}")

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.events.append(f"evaluate {sorted(metrics)}")

    def on_save(self, args, state, control, **kwargs):
        self.events.append("save")

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self.events.append(f"end of {type(model).__name__} at {state.global_step}")


class StopAt(TrainerCallback):
    """Stops a run after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def members(steps: int = 4):
    return [replace(m, steps=steps, evaluate_every=2) for m in decoders(GPT2_TARGETS)]


def test_every_member_has_a_run_of_its_own(tmp_path):
    bridge = TrainerCallbacks([Diary()])
    Fleet(members(), model=gpt2(), backend="adapters", log_every=2, out=tmp_path, save_every=3).fit(
        callbacks=[bridge]
    )
    for member in members():
        (diary,) = bridge.of(member.name)
        assert diary.events == [
            f"begin {member.lr} of 4",
            "step 1",
            "step 2",
            "evaluate ['epoch', 'eval_perplexity']",
            "step 3",
            "save",
            "step 4",
            "evaluate ['epoch', 'eval_perplexity']",
            "end of PeftModel at 4",
        ]
        losses = [log for log in diary.logs if "loss" in log]
        assert [sorted(log) for log in losses] == [["epoch", "grad_norm", "learning_rate", "loss"]] * 2


def test_a_callback_stops_its_own_member_alone():
    bridge = TrainerCallbacks(lambda name: [StopAt(2)] if name == "b" else [])
    fleet = Fleet(members(), model=gpt2(drop=0.0), backend="adapters").fit(callbacks=[bridge])
    assert fleet.status == {"a": "finished", "b": "stopped", "c": "finished"}
    alone = made(Sequential, gpt2(drop=0.0), members())
    advance(alone, 4)
    assert_equal([fleet.state(name) for name in "ac"], [states(alone)[0], states(alone)[2]], 1e-11)


def test_early_stopping_waits_for_each_member_by_itself():
    patient = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1e9)
    kept = [replace(m, steps=8, evaluate_every=every) for m, every in zip(members(), (1, 2, 8), strict=True)]
    bridge = TrainerCallbacks([patient])
    fleet = Fleet(kept, model=gpt2(), backend="adapters").fit(callbacks=[bridge])
    # the first validation is the best yet, the second improves by less than the threshold
    assert {name: fleet.state(name).step for name in "abc"} == {"a": 2, "b": 4, "c": 8}
    assert patient.early_stopping_patience_counter == 0


def test_counts_go_on_after_a_save(tmp_path):
    kept = [replace(m, steps=6, evaluate_every=2) for m in members()]

    class Crash(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    def fleet(out="one"):
        return Fleet(kept, model=gpt2(), backend="adapters", out=tmp_path / out, save_every=2)

    def patient():
        return EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=1e9)

    cut = fleet()
    with pytest.raises(KeyboardInterrupt):
        cut.fit(callbacks=[TrainerCallbacks([patient(), Crash()])])
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for goes_on in (fleet("other"), cut):  # from the save, and from where it is itself
        resumed = TrainerCallbacks([patient(), StopAt(99)])
        goes_on.fit(callbacks=[resumed], resume=True)
        assert [resumed.of(name)[0].early_stopping_patience_counter for name in "abc"] == [2, 2, 2]


def test_what_is_no_callback():
    for given, told in (
        (["early stopping"], "a str is no callback of transformers"),
        (7, "a int is no callback of transformers"),
        (Diary, "the callback Diary is a class\n.*Diary"),
        ([Diary], "the callback Diary is a class"),
    ):
        with pytest.raises(InputError, match=told):
            TrainerCallbacks(given)
    bridge = TrainerCallbacks(lambda name: [name])
    with pytest.raises(InputError, match="a str is no callback of transformers"):
        Fleet(members(), model=gpt2(), backend="adapters").fit(callbacks=[bridge])


def test_one_callback_alone_sees_members_as_they_are_at_the_moment():
    weights = []

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            weights.append((state.global_step, adapter(model)))

        def on_step_end(self, args, state, control, model=None, **kwargs):
            assert model is None

        def on_evaluate(self, args, state, control, model=None, **kwargs):
            weights.append((state.global_step, adapter(model)))

    def adapter(model):
        return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    fleet = Fleet(members(2)[:1], model=gpt2(), backend="adapters").fit(callbacks=[TrainerCallbacks(Look())])
    assert [step for step, _ in weights] == [0, 2]
    last, start = adapter(fleet["a"]), weights[0][1]
    assert all(torch.equal(weights[1][1][name], value) for name, value in last.items())
    assert any(not torch.equal(start[name], value) for name, value in last.items())


def test_epochs_count_every_micro_batch():
    # 20 examples in batches of 4 are 5 micro-batches, of which a step takes 2
    kept = [replace(m, steps=5, batch_size=4, accumulate=2, evaluate_every=0) for m in members()[:1]]
    bridge = TrainerCallbacks([Diary()])
    Fleet(kept, model=gpt2(), backend="adapters", log_every=1).fit(callbacks=[bridge])
    (diary,) = bridge.of("a")
    assert [log["epoch"] for log in diary.logs if "loss" in log] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
