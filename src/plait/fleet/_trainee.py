"""A member while it trains: its task, its network, how far it is, and what must be kept to go on."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plait.fleet._adapter import Adapter, describe, initial
from plait.fleet._member import Member
from plait.fleet._noise import noise_kept, seed_noise
from plait.fleet._stream import rows
from plait.numerics import stream_key
from plait.tasks import Batch, Classes, Examples, Ragged, Task, check_labels, columns_of, in_memory, table_of

Tensors = dict[str, Tensor]


@dataclass
class State:
    """All that a member's next step depends on, besides its settings.

    Args:
        parameters: name → tensor; those that are trained and those that are not.
        buffers: name → tensor.
        moments: of the optimizer, each name → tensor like the parameter; empty before the first step.
        step: how many steps were taken.
        missed: name → in how many of them the loss did not depend on a parameter that it depended on in
            others: AdamW corrects moments by a parameter's own steps.
        empty: buffers that have a name and no numbers yet.
    """

    parameters: Tensors
    buffers: Tensors
    moments: list[Tensors] = field(default_factory=list)
    step: int = 0
    missed: dict[str, int] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    def put_into(self, network: nn.Module) -> None:
        """Give a network these weights and buffers. As it is trained, buffers may come and become others."""
        held = dict(network.named_buffers(remove_duplicate=False))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(self.parameters[name])
            shared = {name: [n for n, other in held.items() if other is one] for name, one in held.items()}
            for name in {name for name, _ in network.named_buffers()} - self.buffers.keys():  # came later
                for each in shared[name]:
                    take_buffer(network, each, name in self.empty)
            for name, buffer in self.buffers.items():
                found = held.get(name)
                if found is None:
                    owner, key = owner_of(network, name)
                    owner.register_buffer(key, buffer.to(_device(network), copy=True))
                elif (found.shape, found.dtype) == (buffer.shape, buffer.dtype) and 0 not in found.stride():
                    found.copy_(buffer)
                else:
                    made = buffer.to(found.device, copy=True)
                    for each in shared[name]:
                        owner, key = owner_of(network, each)
                        owner._buffers[key] = made


def buffer_slots(network: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Names of its buffers, a shared one by each of its names, and what they hold: maybe nothing yet."""
    for place, module in network.named_modules(remove_duplicate=False):
        for key, buffer in module._buffers.items():
            yield f"{place}.{key}" if place else key, buffer


def empty_buffers(network: nn.Module) -> tuple[str, ...]:
    """Names of buffers that have no numbers yet."""
    return tuple(name for name, buffer in buffer_slots(network) if buffer is None)


def take_buffer(network: nn.Module, name: str, empty: bool) -> None:
    """Take a buffer away; its name stays if it was there before its numbers."""
    owner, key = owner_of(network, name)
    if empty:
        owner._buffers[key] = None
    else:
        del owner._buffers[key]


def owner_of(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Whose buffer it is, and what it is called there."""
    place, _, key = name.rpartition(".")
    return network.get_submodule(place), key


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


@dataclass
class Trainee:
    """A member that is being trained.

    Args:
        member: its settings.
        task: its task.
        network: the structure of its network, head included; its weights are those at the start. With a
            `lora`, the base without the head: one module for all members.
        steps: how many it takes in all.
        classes: how many outputs labels have, where batches must be looked through; None where the labels
            of all examples have been.
        given: whether its first weights came as a module or a checkpoint, and were not made for it.
        step: how many it has taken.
        status: `running`, or how it ended: `finished`, `stopped` (early), `dropped`, `failed`.
        why: what stopped it, in words.
        lengthened: column → up to which length, and by how many places, sequences may be filled up: so far
            it was seen to learn the same then.
        apart: why no stack can hold it, once that has shown.
        fills: whether its head may be filled up to more classes; None until it is tried.
        structure: what its network does, as it was before training; None until it is asked for.
        best: its best validation so far, and `waited` how many there were since.
    """

    member: Member
    task: Task
    network: nn.Module
    steps: int
    classes: Classes = None
    given: bool = False
    step: int = 0
    status: str = "running"
    why: str = ""
    best: float | None = None
    waited: int = 0
    fingerprint: str = ""
    lengthened: dict[str, tuple[int, int]] = field(default_factory=dict)
    apart: str = ""
    fills: bool | None = None
    structure: Any = None

    @property
    def running(self) -> bool:
        """Whether it takes further steps."""
        return self.status == "running"

    @property
    def mean(self) -> bool:
        """Whether gradients are of a batch's mean loss, as in one's own loop, or of micro-batches' sums."""
        return self.member.accumulate == 1

    @property
    def examples(self) -> Examples:
        """What it learns from."""
        return self.task.split("train")

    @property
    def data_seed(self) -> int:
        """The seed of its data's order."""
        return self.member.seed if self.member.data_seed is None else self.member.data_seed

    def rows(self, micro_batch: int) -> NDArray[np.int64]:
        """The rows of its examples in a micro-batch (0, 1, …) of its next step.

        Beyond its last, where others have more, those of the last: what comes later is not for this step.
        """
        member, examples = self.member, len(self.examples)
        micro_batch = min(micro_batch, member.accumulate - 1)
        return rows(
            self.data_seed,
            self.step * member.accumulate + micro_batch,
            examples=examples,
            size=min(member.batch_size, examples) if member.drop_last else member.batch_size,
            per_epoch=member.batches(examples),
        )

    def batch(self, micro_batch: int) -> Batch:
        """The examples of a micro-batch of its next step."""
        return self.read(self.rows(micro_batch), micro_batch)

    def read(self, rows: NDArray[np.int64], micro_batch: int) -> Batch:
        """Some of its examples, for a micro-batch of its next step.

        Those made on demand may draw (augmentation): what they draw depends on seed and step alone.
        """
        if self.draws:
            seed_noise(self.data_key(micro_batch))
        return self.checked(self.examples.batch(rows), rows)  # type: ignore[arg-type]

    @functools.cached_property
    def draws(self) -> bool:
        """Whether reading examples may draw random numbers: of those in memory it can't."""
        return not in_memory(self.examples)

    def data_key(self, micro_batch: int) -> int:
        """The seed of what its examples draw, for a micro-batch of its next step."""
        micro_batch = min(micro_batch, self.member.accumulate - 1)
        return stream_key(self.data_seed, "examples", f"{self.step} {micro_batch}")[0]

    def checked(self, batch: Batch, rows: NDArray[np.int64]) -> Batch:
        """A batch of its examples `rows`, none of whose labels is out of range."""
        if self.classes is not None:
            where = f"member `{self.member.name}`, task `{self.task.name}`, split `train`"
            check_labels(self.task.loss, batch, self.classes, where, rows)  # type: ignore[arg-type]
        return batch

    @functools.cached_property
    def example(self) -> Batch:
        """The first of its examples; kept, as they may not be there for ever."""
        with noise_kept():
            return self.examples.batch([0])

    def looked_at(self) -> Trainee:
        """It, once its first example has been read."""
        _ = self.example
        return self

    @property
    def columns(self) -> tuple[tuple[str, torch.dtype, int], ...]:
        """What its batches hold."""
        return columns_of(self.example)

    @functools.cached_property
    def longest(self) -> int:
        """How long its sequences can be at most: as its examples are, or else as its network says."""
        held, _ = table_of(self.examples)
        if isinstance(held, Ragged):
            return max(len(sequence) for named in held.sequences.values() for sequence in named)
        limit = getattr(getattr(self.network, "config", None), "max_position_embeddings", None)
        return limit if isinstance(limit, int) else sys.maxsize

    @functools.cached_property
    def adapter(self) -> Adapter:
        """What PEFT makes of the member's `lora` over the network, which is then the base of all members."""
        return describe(self.member, self.network)

    def initial(self) -> State:
        """Its state before the first step; with a `lora`, that of the adapter and the task's head alone."""
        if self.member.lora is not None:
            return State(initial(self.adapter, self.task, self.network), {})
        return State(
            {name: p.detach().clone() for name, p in self.network.named_parameters()},
            {name: b.detach().clone() for name, b in self.network.named_buffers()},
            empty=empty_buffers(self.network),
        )

    def trained(self) -> list[str]:
        """Names of the parameters that are trained."""
        if self.member.lora is not None:
            return list(self.initial().parameters)
        return [name for name, p in self.network.named_parameters() if p.requires_grad]

    def decays(self, name: str, tensor: Tensor) -> bool:
        """Whether a parameter (of one member) decays."""
        return self.member.decay == "all" or tensor.dim() > 1
