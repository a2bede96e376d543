"""Rows to members: one batched pass instead of a loop over networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from plait.fleet._adapter import adapted
from plait.fleet._dropout import dropout
from plait.fleet._groups import families
from plait.fleet._pass import widest_network
from plait.fleet._rows import like
from plait.fleet._stacked import stacked
from plait.fleet._trainee import State, Tensors, Trainee
from plait.tasks import Batch

#: Members whose rows differ in number by more than this factor go in passes of their own.
_SPREAD = 4


@dataclass(frozen=True)
class _Family:
    """Members that are alike, stacked: `(members, …)`."""

    places: dict[str, int]
    trainee: Trainee
    network: nn.Module
    tensors: Tensors
    classes: Tensor | None


class Router:
    """Predicts each row with its own member.

    Args:
        members: name → trainee and state.
        device: where it runs.
    """

    def __init__(self, members: Mapping[str, tuple[Trainee, State]], device: torch.device) -> None:
        self.device = device
        whole = [_as_it_is(t) for t, _ in members.values() if t.member.lora is None]
        self.families = [self._family(family, members) for family in families(whole)]
        self._adapters = {n: own for n, own in members.items() if own[0].member.lora is not None}

    def _family(self, family: Sequence[Trainee], members: Mapping[str, tuple[Trainee, State]]) -> _Family:
        names = [t.member.name for t in family]
        states = [members[name][1] for name in names]
        tensors = {n: stacked([s.parameters[n] for s in states], self.device) for n in states[0].parameters}
        tensors |= {n: stacked([s.buffers[n] for s in states], self.device) for n in states[0].buffers}
        network, classes = widest_network(family, self.device)
        if len(family) == 1:  # what it holds of its own tensors in other places is then right as well
            states[0].put_into(network)
        return _Family({n: i for i, n in enumerate(names)}, family[0], network.eval(), tensors, classes)

    def __call__(self, batch: Batch, names: Sequence[str], codes: NDArray[np.int64]) -> Tensor:
        """Outputs `(rows, …)` of named columns `(rows, …)`, row i by member `names[codes[i]]`.

        Outputs of heads with fewer classes than the widest are filled up with −∞.
        """
        found = torch.empty(0)
        for family in self.families:
            place_of = np.array([family.places.get(name, -1) for name in names], dtype=np.int64)
            places = place_of[codes]
            mine = np.flatnonzero(places >= 0)
            if not len(mine):
                continue
            with like(batch, family.trainee) as taken:
                passes = self._passes(family, taken, mine, places[mine])
            for rows, outputs in passes:
                if not found.numel():
                    found = outputs.new_full((len(codes), *outputs.shape[1:]), -torch.inf)
                found = _placed(found, rows, outputs)
        for rows, outputs in self._each_adapter(batch, names, codes):
            if not found.numel():
                found = outputs.new_full((len(codes), *outputs.shape[1:]), -torch.inf)
            found = _placed(found, rows, outputs)
        return found

    def _each_adapter(
        self, batch: Batch, names: Sequence[str], codes: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Rows of members with adapters, one member after another: the base's passes are most of the work."""
        for code, name in enumerate(names):
            rows = np.flatnonzero(codes == code)
            if name not in self._adapters or not len(rows):
                continue
            trainee, state = self._adapters[name]
            network = adapted(trainee.member, trainee.network, trainee.task, state.parameters).eval()
            part = {n: column[torch.from_numpy(rows)] for n, column in batch.items()}
            with torch.no_grad(), like(part, trainee) as taken:
                there = {n: column.to(self.device) for n, column in taken.items()}
                outputs = trainee.task.outputs(network, there).cpu()
            yield rows, outputs

    def _passes(
        self, family: _Family, batch: Batch, rows: NDArray[np.int64], places: NDArray[np.int64]
    ) -> list[tuple[NDArray[np.int64], Tensor]]:
        """Rows and their outputs; members with about equally many rows in one pass."""
        used, inverse, counts = np.unique(places, return_inverse=True, return_counts=True)
        sorted_rows = rows[np.argsort(inverse, kind="stable")]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        level = np.floor(np.log(counts) / np.log(_SPREAD)).astype(int)
        made = []
        for each in np.unique(level):
            chosen = np.flatnonzero(level == each)
            longest = counts[chosen].max()
            # What fills up repeats a member's last row; its outputs are left out.
            offsets = np.minimum(np.arange(longest), counts[chosen][:, None] - 1)
            index = sorted_rows[starts[chosen][:, None] + offsets]
            outputs = self._outputs(family, batch, index, used[chosen])
            real = np.arange(longest) < counts[chosen][:, None]
            made.append((index[real], outputs[torch.from_numpy(real)]))
        return made

    def _outputs(
        self, family: _Family, batch: Batch, index: NDArray[np.int64], who: NDArray[np.int64]
    ) -> Tensor:
        members = torch.from_numpy(who).to(self.device)
        whole = len(who) == len(family.places)
        tensors = family.tensors if whole else {n: t[members] for n, t in family.tensors.items()}
        rows = torch.from_numpy(index)
        columns = {name: column[rows].to(self.device) for name, column in batch.items()}
        task, key = family.trainee.task, torch.zeros((), dtype=torch.int32)

        def one(own: Tensors, part: Batch) -> Tensor:
            def call(*args: Any, **kwargs: Any) -> Any:
                return functional_call(family.network, own, args, kwargs)

            with dropout(key, plain_attention=True):
                return task.outputs(call, part)

        with torch.no_grad():
            outputs = vmap(one)(tensors, columns)
        outputs = outputs if outputs.dim() > 2 else outputs.unsqueeze(-1)
        if family.classes is not None:
            outputs = outputs.masked_fill(~family.classes[members].unsqueeze(1), -torch.inf)
        return outputs.cpu()


def _as_it_is(trainee: Trainee) -> Trainee:
    """A member whose network is looked at anew: the loop trains those that count their steps."""
    made = copy.copy(trainee)
    made.structure = None
    return made


def _placed(found: Tensor, rows: NDArray[np.int64], outputs: Tensor) -> Tensor:
    found = _widened(found, outputs)
    found[torch.from_numpy(rows), : outputs.shape[1]] = outputs
    return found


def _widened(found: Tensor, outputs: Tensor) -> Tensor:
    missing = outputs.shape[1] - found.shape[1]
    if missing <= 0:
        return found
    return torch.cat([found, found.new_full((len(found), missing, *found.shape[2:]), -torch.inf)], dim=1)
