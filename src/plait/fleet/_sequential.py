"""The plain loop: one member after another, with PyTorch's own optimizers. What every backend must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet._adapter import adapted, trained
from plait.fleet._backend import Steps
from plait.fleet._dropout import dropout, step_key
from plait.fleet._noise import seed_noise
from plait.fleet._recompute import recomputing
from plait.fleet._signals import hold, undisturbed
from plait.fleet._trainee import State, Trainee, buffer_slots, empty_buffers, owner_of, take_buffer
from plait.tasks import Batch


class Sequential:
    """Trains each member by itself, a step of each in turn."""

    name = "sequential"

    def __init__(self, trainees: Sequence[Trainee], states: Sequence[State], device: torch.device) -> None:
        self.trainees: Sequence[Trainee] = list(trainees)
        self._lone = [_Lone(t, s, device) for t, s in zip(trainees, states, strict=True)]

    def step(self) -> Steps:
        """One step of every member; who took one in a call that was cut off or had errors takes no other."""
        errors: dict[str, Exception] = {}
        found = [_IDLE] * len(self._lone)
        for index, lone in enumerate(self._lone):
            if lone.trainee.running:
                try:
                    found[index] = lone.step()
                except Exception as error:
                    errors[lone.trainee.member.name] = error
        if not errors:
            hold()
            for lone in self._lone:
                lone.counted()
        losses, norms, taken = zip(*found, strict=True)
        return Steps(np.array(losses), np.array(norms), np.array(taken, dtype=bool), errors)

    def state(self, index: int) -> State:
        """A member's state; a copy."""
        return self._lone[index].state()


#: What a member that took no step gives: loss, norm, whether it took it.
_IDLE: tuple[float, float, bool] = (math.nan, math.nan, False)


class _Lone:
    """One member and its optimizer."""

    def __init__(self, trainee: Trainee, state: State, device: torch.device) -> None:
        self.trainee, self.device = trainee, device
        self.network = trainee.network.to(device)
        if trainee.member.lora is None:
            state.put_into(self.network)
            # one that a callback has frozen keeps its moments, as PyTorch's optimizers keep them
            moved = {name for moment in state.moments for name in moment}
            named = self.network.named_parameters()
            self.parameters = {n: p for n, p in named if p.requires_grad or n in moved}
            self.held = dict(self.network.named_parameters())
        else:
            self.network = adapted(trainee.member, self.network, trainee.task, state.parameters).train()
            self.held = self.parameters = trained(self.network)
        recomputing(self.network)
        self.optimizer = _optimizer(trainee, self.parameters)
        self._restore(state)
        #: Whether the network drops anything; not known before it has run.
        self.drops: bool | None = None
        #: Buffers (running means), and their numbers before a step that has begun and is not taken.
        self._before: dict[str, tuple[Tensor, Tensor]] | None = None
        self._empty: tuple[str, ...] = ()
        #: The last step that was taken: its number and what it gave.
        self._taken: tuple[int, tuple[float, float, bool]] | None = None

    def step(self) -> tuple[float, float, bool]:
        """A step; one that can't be taken, or fails, leaves weights and buffers as they were."""
        if self._taken is not None and self._taken[0] == self.trainee.step:
            return self._taken[1]  # a fit was cut off before it could count it
        self._put_back()
        held = dict(buffer_slots(self.network))
        self._before = {name: (buffer, buffer.clone()) for name, buffer in held.items() if buffer is not None}
        self._empty = tuple(name for name, buffer in held.items() if buffer is None)
        try:
            return self._step()
        finally:
            self._put_back()

    def counted(self) -> None:
        """The step that was taken is known to who asked for it; the next call takes another."""
        self._taken = None

    def _step(self) -> tuple[float, float, bool]:
        member = self.trainee.member
        for group in self.optimizer.param_groups:
            group["lr"] = member.learning_rate(self.trainee.step, self.trainee.steps)
        self.optimizer.zero_grad(set_to_none=True)
        total = weight = 0.0
        for micro_batch in range(member.accumulate):
            batch = {name: t.to(self.device) for name, t in self.trainee.batch(micro_batch).items()}
            with undisturbed():  # a mode of PyTorch's that is cut off in its beginning would stay
                values, weights = self._losses(batch, micro_batch)
            if self._before:
                self._check_buffers()
            whole, count = values.sum(), weights.sum()
            (whole / count if self.trainee.mean else whole).backward()
            total, weight = total + whole.item(), weight + count.item()
        norm = self._norm(1.0 if self.trainee.mean else weight)
        if not (math.isfinite(norm) and math.isfinite(total) and weight):
            return total / weight if weight else math.nan, norm, False
        given = total / weight, norm, True
        with undisturbed():
            self.optimizer.step()
            self._taken, self._before = (self.trainee.step, given), None
        return given

    def _put_back(self) -> None:
        """Buffers as they were before a step that was not taken: the same tensors, with their numbers."""
        if self._before is None:
            return
        for name in dict(self.network.named_buffers(remove_duplicate=False)).keys() - self._before.keys():
            take_buffer(self.network, name, name in self._empty)
        with torch.no_grad():
            for name, (buffer, held) in self._before.items():
                owner, key = owner_of(self.network, name)
                # an expanded tensor has fewer numbers than places
                owner._buffers[key] = held if 0 in buffer.stride() else buffer.copy_(held)
        self._before = None

    def _check_buffers(self) -> None:
        """Nothing if the network has still the buffers that it had: who goes on from a save counts on them.

        Raises:
            InputError: it has lost one.
        """
        now = dict(self.network.named_buffers(remove_duplicate=False))
        lost = (self._before or {}).keys() - now.keys()
        if lost:
            what = (
                f"the network ({type(self.network).__name__}) loses its buffer `{min(lost)}` as it is trained"
            )
            raise InputError(what, hint="give it numbers that change nothing instead")

    def _losses(self, batch: Batch, micro_batch: int) -> tuple[Tensor, Tensor]:
        task, step = self.trainee.task, self.trainee.step
        seed = step_key(self.trainee.member.seed, step, micro_batch)
        # Whatever else a network draws (stochastic depth) depends on member and step alone as well.
        seed_noise(seed)
        if self.drops is False:
            return task.loss(task.outputs(self.network, batch), batch)
        key = torch.tensor(seed, dtype=torch.int32, device=self.device)
        with dropout(key) as mode:
            found = task.loss(task.outputs(self.network, batch), batch)
        self.drops = mode.calls > 0
        return found

    def _norm(self, weight: float) -> float:
        """Divide gradients by the weight, clip, and tell their norm before that."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        if weight != 1:
            torch._foreach_div_(grads, weight)  # pyright: ignore[reportPrivateImportUsage]
        norm = nn.utils.get_total_norm(grads).item()
        clip = self.trainee.member.clip
        if clip is not None and norm > clip:
            torch._foreach_mul_(grads, clip / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        return norm

    def state(self) -> State:
        self._put_back()
        state = State(
            {name: p.detach().clone() for name, p in self.held.items()},
            {name: b.detach().clone() for name, b in self._buffers()},
            step=self.trainee.step,
            empty=empty_buffers(self.network),
        )
        for key in _MOMENTS[self.trainee.member.optimizer]:
            held = {
                n: self.optimizer.state[p].get(key)
                for n, p in self.parameters.items()
                if p in self.optimizer.state
            }
            if any(moment is not None for moment in held.values()):
                state.moments.append({n: m.detach().clone() for n, m in held.items() if m is not None})
        state.missed = self._missed()
        return state

    def _missed(self) -> dict[str, int]:
        """How many steps were taken without a parameter that others were taken with."""
        counts = {n: int(self.optimizer.state.get(p, {}).get("step", 0)) for n, p in self.parameters.items()}
        return {n: self.trainee.step - count for n, count in counts.items() if 0 < count < self.trainee.step}

    def _buffers(self) -> list[tuple[str, Tensor]]:
        """Those that are the member's own."""
        return list(self.network.named_buffers()) if self.trainee.member.lora is None else []

    def _restore(self, state: State) -> None:
        keys = _MOMENTS[self.trainee.member.optimizer]
        for key, moment in zip(keys, state.moments, strict=False):
            for name, value in moment.items():
                kept: dict[str, Any] = self.optimizer.state[self.parameters[name]]
                kept[key] = value.to(self.device).clone()
                if self.trainee.member.optimizer == "adamw":
                    kept["step"] = torch.tensor(float(state.step - state.missed.get(name, 0)))


_MOMENTS = {"adamw": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}


def _optimizer(trainee: Trainee, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    member = trainee.member
    decaying = [p for n, p in parameters.items() if trainee.decays(n, p)]
    others = [p for n, p in parameters.items() if not trainee.decays(n, p)]
    groups = [
        {"params": decaying, "weight_decay": member.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if member.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=member.lr, momentum=member.momentum, nesterov=member.nesterov)
    return torch.optim.AdamW(groups, lr=member.lr, betas=member.betas, eps=member.eps)
