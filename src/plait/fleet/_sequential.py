"""The plain loop: one member after another, with PyTorch's own optimizers. What every backend must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plait.fleet._adapter import adapted, trained
from plait.fleet._backend import Steps
from plait.fleet._dropout import dropout, step_key
from plait.fleet._recompute import recomputing
from plait.fleet._trainee import State, Trainee
from plait.fleet._usage import seed_noise
from plait.tasks import Batch


class Sequential:
    """Trains each member by itself, a step of each in turn."""

    name = "sequential"

    def __init__(self, trainees: Sequence[Trainee], states: Sequence[State], device: torch.device) -> None:
        self.trainees: Sequence[Trainee] = list(trainees)
        self._lone = [_Lone(t, s, device) for t, s in zip(trainees, states, strict=True)]
        #: Steps that were taken in this turn: one that Ctrl-C cuts off goes on with the others.
        self._taken: dict[int, tuple[float, float, bool]] = {}

    def step(self) -> Steps:
        """One step of every member."""
        errors: dict[str, Exception] = {}
        for index, lone in enumerate(self._lone):
            if lone.trainee.running and index not in self._taken:
                try:
                    self._taken[index] = lone.step()
                except Exception as error:
                    errors[lone.trainee.member.name] = error
        idle = (math.nan, math.nan, False)
        losses, norms, taken = zip(*(self._taken.get(i, idle) for i in range(len(self._lone))), strict=True)
        self._taken = {}
        return Steps(np.array(losses), np.array(norms), np.array(taken, dtype=bool), errors)

    def state(self, index: int) -> State:
        """A member's state; a copy."""
        return self._lone[index].state()


class _Lone:
    """One member and its optimizer."""

    def __init__(self, trainee: Trainee, state: State, device: torch.device) -> None:
        self.trainee, self.device = trainee, device
        self.network = trainee.network.to(device)
        if trainee.member.lora is None:
            state.put_into(self.network)
            self.parameters = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
            self.held = dict(self.network.named_parameters())
        else:
            self.network = adapted(trainee.member, self.network, trainee.task, state.parameters)
            self.held = self.parameters = trained(self.network)
        self.network.train()
        recomputing(self.network)
        self.optimizer = _optimizer(trainee, self.parameters)
        self._restore(state)
        #: Whether the network drops anything; not known before it has run.
        self.drops: bool | None = None
        #: Buffers that steps change (running means); not known before the first.
        self.moving: list[str] | None = None

    def step(self) -> tuple[float, float, bool]:
        """A step; one that can't be taken, or fails, leaves weights and buffers as they were."""
        if self.moving == []:
            return self._step()
        named = dict(self.network.named_buffers())
        before = {name: named[name].clone() for name in (named if self.moving is None else self.moving)}
        taken = False
        try:
            loss, norm, taken = self._step()
            return loss, norm, taken
        finally:
            now = dict(self.network.named_buffers())
            if not taken:
                with torch.no_grad():
                    for name, held in before.items():
                        now[name].copy_(held)
            elif self.moving is None:
                self.moving = [name for name, held in before.items() if not torch.equal(now[name], held)]

    def _step(self) -> tuple[float, float, bool]:
        member = self.trainee.member
        for group in self.optimizer.param_groups:
            group["lr"] = member.learning_rate(self.trainee.step, self.trainee.steps)
        self.optimizer.zero_grad(set_to_none=True)
        total = weight = 0.0
        for micro_batch in range(member.accumulate):
            batch = {name: t.to(self.device) for name, t in self.trainee.batch(micro_batch).items()}
            values, weights = self._losses(batch, micro_batch)
            whole = values.sum()
            whole.backward()
            total, weight = total + whole.item(), weight + weights.sum().item()
        norm = self._norm(weight)
        if math.isfinite(norm) and math.isfinite(total):
            self.optimizer.step()
            return total / weight, norm, True
        return total / weight if weight else math.nan, norm, False

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
        """Divide gradients of the sum by the weight, clip, and tell their norm before that."""
        grads = [p.grad for p in self.parameters.values() if p.grad is not None]
        torch._foreach_div_(grads, weight)  # pyright: ignore[reportPrivateImportUsage]
        norm = nn.utils.get_total_norm(grads).item()
        clip = self.trainee.member.clip
        if clip is not None and norm > clip:
            torch._foreach_mul_(grads, clip / (norm + 1e-6))  # pyright: ignore[reportPrivateImportUsage]
        return norm

    def state(self) -> State:
        state = State(
            {name: p.detach().clone() for name, p in self.held.items()},
            {name: b.detach().clone() for name, b in self._buffers()},
            step=self.trainee.step,
        )
        for key in _MOMENTS[self.trainee.member.optimizer]:
            held = {
                n: self.optimizer.state[p].get(key)
                for n, p in self.parameters.items()
                if p in self.optimizer.state
            }
            if any(moment is not None for moment in held.values()):
                state.moments.append({n: m.detach().clone() for n, m in held.items() if m is not None})
        return state

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
                    kept["step"] = torch.tensor(float(state.step))


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
