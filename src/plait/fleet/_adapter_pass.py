"""One forward and one backward pass of a shared base for all members' examples at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from plait.fleet._adapter import HEAD
from plait.fleet._adapter_layout import Layout
from plait.fleet._batches import Stack
from plait.fleet._copies import Copies
from plait.fleet._lora_linear import Adapted, Group, Part
from plait.fleet._member_dropout import MemberDropout
from plait.fleet._recompute import recomputing
from plait.fleet._token_loss import Deferred, defer, labels_of, next_token
from plait.fleet._trainee import Trainee
from plait.tasks import Batch, ByKeywords, NextToken


class AdapterPass:
    """The base with every member's adapter on it.

    Args:
        trainees: the members.
        network: a structure of the base that is its own; changed.
        layout: where the members' tensors lie.
        drops: whether the base drops anything.
    """

    def __init__(self, trainees: Sequence[Trainee], network: nn.Module, layout: Layout, drops: bool) -> None:
        self.trainees, self.network, self.layout = list(trainees), network, layout
        stacks = layout.stacks
        self.gradients = [torch.zeros_like(p) for p in stacks.parameters]
        self._leaves = {
            i: self._leaf(i) for held in [*layout.saved.values(), layout.heads] for i in held.values()
        }
        self._shares = np.array([t.adapter.dropout for t in trainees])
        self._drops = drops or bool(self._shares.any()) or any(m is not None for m in layout.modules)
        self._drops = self._drops or bool(layout.saved)
        self.means = np.array([t.mean for t in trainees])
        self._mode: MemberDropout | None = None
        self._groups = self._install()
        recomputing(network)
        alike = all(t.task.loss == trainees[0].task.loss for t in trainees)
        self._one_loss = alike and not any(t.task.head for t in trainees)
        self._deferred = self._defer() if self._one_loss else None

    def _leaf(self, stack: int) -> Tensor:
        """A stack as autograd sees it: its own numbers and gradient."""
        leaf = self.layout.stacks.parameters[stack].detach().requires_grad_()
        leaf.grad = self.gradients[stack]
        return leaf

    def _install(self) -> list[Group]:
        """Put members' parts where the base's layers stand."""
        parameters, groups = self.layout.stacks.parameters, []
        for found in self.layout.factors:
            parts = [
                Part(
                    name,
                    self.network.get_submodule(name),
                    parameters[up],
                    self.gradients[up],
                    ranks,
                    self._dropped,
                )
                for name, up, ranks in zip(found.layers, found.ups, found.ranks, strict=True)
            ]
            group = Group(parameters[found.down], self.gradients[found.down], found.scales, parts)
            for index, name in enumerate(found.layers):
                self.network.set_submodule(name, Adapted(group, index))
            groups.append(group)
        for name, held in self.layout.saved.items():
            own = [
                {n: self._leaves[i][member] for n, i in held.items()} if name in t.adapter.saved else None
                for member, t in enumerate(self.trainees)
            ]
            self.network.set_submodule(name, Copies(self.network.get_submodule(name), own, self._alone))
        return groups

    @property
    def _dropped(self) -> Any:
        return self._inputs if self._shares.any() else None

    def _inputs(self, part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self._mode is not None
        has = np.array([part.name in t.adapter.layers for t in self.trainees])
        return self._mode.inputs(x, self._shares * has)

    def _alone(self, member: int) -> AbstractContextManager[Any]:
        return nullcontext() if self._mode is None else self._mode.alone(member)

    def _defer(self) -> Deferred | None:
        task = self.trainees[0].task
        taken = {name for found in self.layout.factors for name in found.layers} | set(self.layout.saved)
        if type(task.loss) is not NextToken or not isinstance(task.meet, ByKeywords):
            return None
        return defer(self.network, lambda name: any(name == t or name.startswith(f"{t}.") for t in taken))

    def begin(self) -> None:
        """Begin a step: gradients are those of nothing."""
        for group in self._groups:
            group.clear()
        for leaf in self._leaves:
            self.gradients[leaf].zero_()

    def end(self) -> None:
        """End a step: gradients are whole."""
        for group in self._groups:
            group.settle()

    def __call__(
        self, stack: Stack, keys: Sequence[int], chosen: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of the members' mean losses, or their sums (see `Trainee.mean`).

        Args:
            stack: the members' examples.
            keys: of their dropout.
            chosen: whose losses count; everybody's if None.

        Returns:
            the sums and weights, `(members,)` each.
        """
        members = len(self.trainees)
        batch = flat(stack, members)
        rows = None if stack.rows is None else stack.rows.flatten()
        device = self.gradients[0].device
        self._mode = MemberDropout(keys, device) if self._drops else None
        with self._mode or nullcontext():
            values, weights = self._losses(batch, stack, rows)
        if rows is not None:
            values = torch.where(rows > 0, values, torch.zeros_like(values))
            weights = torch.where(rows > 0, weights, torch.zeros_like(weights))
        sums, counts = values.view(members, -1).sum(1), weights.view(members, -1).sum(1)
        means = torch.as_tensor(self.means, device=counts.device) & (counts > 0)
        totals = sums / torch.where(means, counts, 1)
        (totals if chosen is None else totals[list(chosen)]).sum().backward()
        return sums.detach(), counts.detach()

    def _losses(self, batch: Batch, stack: Stack, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values and weights of all examples, `(members · rows,)`."""
        task = self.trainees[0].task
        outputs = task.meet(self.network, batch)
        if self._deferred is not None and self._deferred.on:
            if outputs is self._deferred.hidden:
                assert isinstance(task.loss, NextToken)
                self._deferred.hidden = None
                labels = labels_of(batch, task.loss.label, rows)
                return next_token(outputs, self._deferred.layer, labels)
            self._deferred.on, self._deferred.hidden = False, None
            self.begin()
            if self._mode is not None:
                self._mode.calls = np.zeros_like(self._mode.calls)
            outputs = task.meet(self.network, batch)
        if self._one_loss:
            return task.loss(outputs, batch)
        return self._own_losses(outputs, stack)

    def _own_losses(self, outputs: Any, stack: Stack) -> tuple[Tensor, Tensor]:
        """Each member's part of the outputs through its own head and loss."""
        found = []
        for member, (trainee, own) in enumerate(zip(self.trainees, self.layout.modules, strict=True)):
            count = len(outputs) // len(self.trainees)
            if not trainee.running:  # it sees another's examples, which its head may have no class for
                found.append((outputs.new_zeros(count), outputs.new_zeros(count)))
                continue
            part = outputs[member * count : (member + 1) * count]
            if own is not None:
                with self._alone(member):
                    part = functional_call(own, self._head(member), (part,))
            found.append(trainee.task.loss(part, own_batch(stack, member)))
        values, weights = zip(*found, strict=True)
        return torch.cat(values), torch.cat(weights)

    def _head(self, member: int) -> dict[str, Tensor]:
        """The weights of a member's head, by their names in it."""
        slots, heads = self.layout.stacks.slots[member], self.layout.heads
        own = {name: stack for name, stack in heads.items() if f"{HEAD}{name}" in slots}
        return {name: self._leaves[i][member][slots[f"{HEAD}{name}"].cut] for name, i in own.items()}


def flat(stack: Stack, members: int) -> Batch:
    """All members' examples one after another."""
    if stack.shared:
        return {n: t.unsqueeze(0).expand(members, *t.shape).flatten(0, 1) for n, t in stack.batch.items()}
    return {name: t.flatten(0, 1) for name, t in stack.batch.items()}


def own_batch(stack: Stack, member: int) -> Batch:
    """A member's examples."""
    return stack.batch if stack.shared else {name: t[member] for name, t in stack.batch.items()}
