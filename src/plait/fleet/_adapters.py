"""Many LoRA adapters trained at once on one resident base: one pass of the base serves all members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from plait.errors import InputError
from plait.fleet._adapter import headed
from plait.fleet._adapter_check import check, check_apart, check_calls
from plait.fleet._adapter_layout import lay_out
from plait.fleet._adapter_pass import AdapterPass, flat, own_batch
from plait.fleet._backend import Steps, hold
from plait.fleet._batches import Stack, gather
from plait.fleet._calls import Calls, idle, record
from plait.fleet._dropout import step_key
from plait.fleet._resident import shell
from plait.fleet._signals import undisturbed
from plait.fleet._stacked import _fixed
from plait.fleet._trainee import State, Trainee
from plait.fleet._update import Floats, Optimizer, Rates

#: Examples of each member that the base is tried with.
_TRIED = 2


class Adapters:
    """Trains members whose networks are one base with a LoRA adapter (and a head) of each one's own.

    The base is in memory once, whatever the number of members: its weights are the first trainee's network's.

    Args:
        trainees, states: the members; ranks, targets, scales and every setting of the optimizer but its kind
            may differ.
        device: where they are trained.
        threads: of the optimizer's step.

    Raises:
        InputError: members that cannot share a base, or a base that mixes the examples of a batch.
    """

    name = "adapters"

    def __init__(
        self, trainees: Sequence[Trainee], states: Sequence[State], device: torch.device, threads: int = 1
    ) -> None:
        check(trainees)
        self.trainees: Sequence[Trainee] = list(trainees)
        self.device = device
        first = next((t for t in trainees if t.running), trainees[0])
        network = shell(first.network.to(device))
        network.train()
        example = _example(self._gather(0))
        calls = self._record(network, example)
        check_calls(calls)
        layout = lay_out(trainees, network, calls, device)
        self.stacks = layout.stacks
        self._pass = AdapterPass(trainees, network, layout, calls.drops)
        if len(trainees) > 1:
            self._check_apart(example)
        self.stacks.fill(states)
        self._busy = layout.busy
        self.optimizer = Optimizer(
            first.member.optimizer,
            [self.stacks.parameters[i] for i in self._busy],
            [first.member.decay == "all" or self.stacks.dims[i] > 1 for i in self._busy],
            momentum=any(t.member.momentum for t in trainees),
            nesterov=first.member.nesterov,
            threads=threads,
        )
        self.stacks.restore(self._moments(), states)
        self._fixed = _fixed(trainees)

    def _record(self, network: nn.Module, example: Stack) -> Calls:
        batch, first = flat(example, len(self.trainees)), self.trainees[0]
        calls = record(network, lambda: first.task.meet(network, batch))
        adapters = [t.adapter for t in self.trainees]
        names = dict.fromkeys(name for a in adapters for name in (*a.layers, *a.saved))
        own, whole = own_batch(example, 0), headed(network, first.task, network)

        def loss() -> Tensor:
            return first.task.loss(first.task.outputs(whole, own), own)[0].sum()

        found = idle(network, list(names), loss)
        if found.issuperset(names):
            what = f"its loss depends on none of `{'`, `'.join(list(names)[:3])}`, where its adapter stands"
            hint = "adapt layers whose outputs count: target_modules="
            raise InputError(what, where=f"member `{first.member.name}`", hint=hint)
        return replace(calls, idle=found)

    def _moments(self) -> list[dict[int, Tensor]]:
        """The optimizer's moments by the numbers of their stacks."""
        return [dict(zip(self._busy, moment, strict=True)) for moment in self.optimizer.moments]

    def _check_apart(self, example: Stack) -> None:
        """At the start, every other member's loss must leave those between them alone."""
        self.stacks.fill([t.initial() for t in self.trainees])
        seen = range(0, len(self.trainees), 2)
        self._pass.begin()
        self._pass(example, self._keys(0), seen)
        self._pass.end()
        check_apart(self._pass.gradients, seen)

    def step(self) -> Steps:
        """One step of every member, all at once."""
        losses, weights = np.zeros(len(self.trainees)), np.zeros(len(self.trainees))
        self._pass.begin()
        for micro_batch in range(max(t.member.accumulate for t in self.trainees)):
            stack = self._gather(micro_batch)
            with undisturbed():
                loss, weight = self._pass(stack, self._keys(micro_batch))
            losses += loss.double().cpu().numpy()
            weights += weight.double().cpu().numpy()
        self._pass.end()
        running = np.array([t.running for t in self.trainees])
        with np.errstate(divide="ignore", invalid="ignore"):
            means = losses / weights
            rates = self._rates(np.where(self._pass.means, 1.0, weights), np.isfinite(means) & running)
            hold()
            norms, taken = self.optimizer.step([self._pass.gradients[i] for i in self._busy], rates)
        return Steps(means, norms, taken)

    def _gather(self, micro_batch: int) -> Stack:
        """The next micro-batch of every member; of one whose step has no further one, nothing counts."""
        stack = gather(self.trainees, micro_batch, self.device)
        counted = [micro_batch < t.member.accumulate for t in self.trainees]
        if all(counted):
            return stack
        mask = torch.tensor(counted, dtype=torch.float32, device=self.device).unsqueeze(1)
        first = next(iter(stack.batch.values()))
        rows = stack.rows if stack.rows is not None else torch.ones(1, first.shape[0 if stack.shared else 1])
        return Stack(stack.batch, rows.to(self.device) * mask, stack.shared)

    def _keys(self, micro_batch: int) -> list[int]:
        return [step_key(t.member.seed, t.step, micro_batch) for t in self.trainees]

    def _rates(self, weights: Floats, active: np.ndarray) -> Rates:
        lr = np.array([t.member.learning_rate(t.step, t.steps) for t in self.trainees])
        step = np.array([t.step + 1.0 for t in self.trainees])
        return Rates(weight=weights, lr=lr, step=step, active=active, **self._fixed)

    def state(self, index: int) -> State:
        """A member's state; a copy."""
        step = self.trainees[index].step
        moments = self._moments() if step else []
        parameters = self.stacks.read(dict(enumerate(self.stacks.parameters)), index)
        return State(parameters, {}, [self.stacks.read(held, index) for held in moments], step)


def _example(stack: Stack) -> Stack:
    """The first rows of each member's batch."""
    rows = slice(_TRIED) if stack.shared else (slice(None), slice(_TRIED))
    return Stack({name: t[rows] for name, t in stack.batch.items()}, None, stack.shared)
