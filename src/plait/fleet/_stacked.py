"""Members of one architecture, stacked: one vmapped forward and backward pass, one vectorised optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plait.fleet._backend import Steps, hold
from plait.fleet._batches import Stack, gather
from plait.fleet._capture import Captured
from plait.fleet._dropout import step_key
from plait.fleet._heads import class_tensors
from plait.fleet._originals import Originals
from plait.fleet._pass import Found, Pass
from plait.fleet._refused import HINT, Unstackable, unstackable
from plait.fleet._trainee import State, Tensors, Trainee
from plait.fleet._update import Floats, Optimizer, Rates
from plait.fleet._usage import Usage


class Stacked:
    """Trains members whose networks differ in nothing but numbers (and in how many classes a head has).

    Args:
        trainees, states: the members; `_architecture.check` has let them through.
        device: where they are trained.
        threads: of the optimizer's step.
    """

    name = "stacked"

    def __init__(
        self, trainees: Sequence[Trainee], states: Sequence[State], device: torch.device, threads: int = 1
    ) -> None:
        self.trainees: Sequence[Trainee] = list(trainees)
        self.device = device
        self._place = next((place for place, t in enumerate(trainees) if t.running), 0)
        first = trainees[self._place]
        if first.apart:
            raise Unstackable(first.apart, hint=HINT)
        self._pass = Pass(trainees, device)
        self._usage = Usage(first, device)
        names = [name for name in first.trained() if name not in self._usage.idle]
        self._sizes = [_sizes(t, state) for t, state in zip(trainees, states, strict=True)]
        self.parameters = {n: stacked([s.parameters[n] for s in states], device) for n in names}
        self.frozen = {
            n: stacked([s.parameters[n] for s in states], device)
            for n in states[0].parameters
            if n not in self.parameters
        }
        self.buffers = {n: stacked([s.buffers[n] for s in states], device) for n in states[0].buffers}
        self.optimizer = Optimizer(
            first.member.optimizer,
            list(self.parameters.values()),
            [first.decays(n, p[0]) for n, p in self.parameters.items()],
            momentum=first.member.momentum > 0,
            nesterov=first.member.nesterov,
            threads=threads,
        )
        self._restore(states)
        self._captured = Captured(self._pass)
        self._originals = Originals([t.network for t in trainees])
        self._fixed = _fixed(trainees)

    def _restore(self, states: Sequence[State]) -> None:
        if self.optimizer.moments:
            self._check_moments(states)
        for index, moment in enumerate(self.optimizer.moments):
            for name, held in zip(self.parameters, moment, strict=True):
                for row, state in zip(held, states, strict=True):
                    if index < len(state.moments):
                        value = state.moments[index][name]
                        row[tuple(slice(size) for size in value.shape)] = value

    def _check_moments(self, states: Sequence[State]) -> None:
        """Nothing if all parameters of a member were in all of its steps, as they are in a stack's.

        Raises:
            Unstackable: a loop took some without one of them.
        """
        for trainee, state in zip(self.trainees, states, strict=True):
            moved = state.moments[0].keys() if state.moments else set[str]()
            some = sorted({*state.missed, *(self.parameters.keys() - moved if state.step else ())})
            if some:
                what = f"its loss depended on `{some[0]}` in some of its steps and not in others"
                raise unstackable(trainee.network, what)

    def step(self) -> Steps:
        """One step of every member, all at once."""
        gradients: list[Tensor] = []
        losses, weights = np.zeros(len(self.trainees)), np.zeros(len(self.trainees))
        buffers, running = self.buffers, np.array([t.running for t in self.trainees])
        for micro_batch in range(self.trainees[0].member.accumulate):
            stack = gather(self.trainees, micro_batch, self.device)
            found, loss, weight, buffers = self._computed(micro_batch, buffers, stack)
            if gradients:
                torch._foreach_add_(gradients, found)  # pyright: ignore[reportPrivateImportUsage]
            else:
                gradients = found
            losses += loss.double().cpu().numpy()
            weights += weight.double().cpu().numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            means = losses / weights
            hold()
            divisor = np.ones_like(weights) if self._pass.mean else weights
            norms, taken = self.optimizer.step(gradients, self._rates(divisor, np.isfinite(means) & running))
        self.buffers = buffers if taken.all() else self._kept(buffers, taken)
        return Steps(means, norms, taken)

    def _computed(self, micro_batch: int, buffers: Tensors, stack: Stack) -> Found:
        """A pass, and what it leaves unsaid: the networks are as they were when the stack was made."""
        try:
            if not micro_batch and (changed := self._originals.changed()):
                what = f"`{changed}` was changed between two steps, and a stack runs a copy of it"
                raise unstackable(self.trainees[0].network, what)
            self._usage.check(stack, self._place)
            found = self._captured(self.parameters, self.frozen, buffers, stack, self._keys(micro_batch))
        except Unstackable as error:
            for trainee in self.trainees:  # a stack made anew would not show it before a step is lost
                trainee.apart = error.what
            raise
        if self._captured.ran and self._originals.changed():
            self._originals.keep()  # by the pass itself, in what copies share
        return found

    def _kept(self, buffers: Tensors, taken: np.ndarray) -> Tensors:
        """Buffers after a step; those of members that did not take it are as before."""
        mask = torch.as_tensor(taken, device=self.device)
        return {
            name: torch.where(mask.view(-1, *[1] * (new.dim() - 1)), new, self.buffers[name])
            for name, new in buffers.items()
        }

    def _keys(self, micro_batch: int) -> Tensor:
        keys = (
            [step_key(t.member.seed, t.step, micro_batch) for t in self.trainees] if self._pass.drops else []
        )
        return torch.tensor(keys or [0] * len(self.trainees), dtype=torch.int32, device=self.device)

    def _rates(self, weights: Floats, finite: np.ndarray) -> Rates:
        lr = np.array([t.member.learning_rate(t.step, t.steps) for t in self.trainees])
        step = np.array([t.step + 1.0 for t in self.trainees])
        return Rates(weight=weights, lr=lr, step=step, active=finite, **self._fixed)

    def state(self, index: int) -> State:
        """A member's state; a copy."""
        sizes = self._sizes[index]
        names = list(self.parameters)
        own = {**self.parameters, **self.frozen}

        def cut(name: str, row: Tensor) -> Tensor:
            return row[tuple(slice(size) for size in sizes.get(name, ()))].detach().clone()

        step = self.trainees[index].step
        return State(
            {name: cut(name, own[name][index]) for name in sizes if name in own},
            {name: cut(name, buffer[index]) for name, buffer in self.buffers.items()},
            [
                {name: cut(name, held[index]) for name, held in zip(names, moment, strict=True)}
                for moment in (self.optimizer.moments if step else [])
            ],
            step,
        )


def stacked(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """Tensors on a new first dimension; smaller ones (heads of fewer classes) are filled up with zeros."""
    shape = tuple(max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True))
    if all(t.shape == shape for t in tensors):
        return torch.stack([t.to(device) for t in tensors])
    whole = torch.zeros((len(tensors), *shape), dtype=tensors[0].dtype, device=device)
    for row, tensor in zip(whole, tensors, strict=True):
        row[: len(tensor)] = tensor
    return whole


def _sizes(trainee: Trainee, state: State) -> dict[str, torch.Size]:
    """Shapes of a member's own that may be smaller than the stack's: all but buffers outside of heads."""
    heads = {name: state.buffers[name] for name in class_tensors(trainee) if name in state.buffers}
    return {name: tensor.shape for name, tensor in {**state.parameters, **heads}.items()}


def _fixed(trainees: Sequence[Trainee]) -> dict[str, Floats]:
    """The settings that no step changes."""
    members = [t.member for t in trainees]
    return {
        "decay": np.array([m.weight_decay for m in members]),
        "beta1": np.array([m.betas[0] for m in members]),
        "beta2": np.array([m.betas[1] for m in members]),
        "eps": np.array([m.eps for m in members]),
        "momentum": np.array([m.momentum for m in members]),
        "clip": np.array([np.inf if m.clip is None else m.clip for m in members]),
    }
