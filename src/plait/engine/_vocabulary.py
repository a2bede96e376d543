"""Embeddings of models with different vocabularies, seen as if all had the output's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from plait.checkpoint import Checkpoint, LazyTensor, ReadFlat, Shape, find_embeddings, row_length
from plait.engine._models import Ties
from plait.engine._stage import Stage
from plait.errors import InputError
from plait.recipe import Alignment, ModelRef, Tokenizer, Vocabulary, align_vocabularies, read_vocabulary

_STEP = 4096


@dataclass(frozen=True, repr=False)
class AlignedTensor(ReadFlat):
    """One model's embedding with the output's rows.

    Attributes:
        source: the model's own embedding.
        alignment: where rows come from.
        model: the model's position in the alignment.
        family: this embedding in every model, for rows that are made of others'.
        stand_ins: per model `(output rows,)` int64: its row that others' missing rows are made of, or -1.
    """

    source: LazyTensor
    alignment: Alignment
    model: int
    family: Sequence[LazyTensor | None] = field(repr=False)
    stand_ins: Sequence[np.ndarray] = field(repr=False)

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def shape(self) -> Shape:
        return (self.alignment.rows, *self.source.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.source.dtype

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    @property
    def _width(self) -> int:
        return row_length(self.shape) if len(self.shape) > 1 else 1

    def read_flat(self, start: int, stop: int) -> Tensor:
        width = self._width
        if stop <= start:
            return torch.empty(0, dtype=self.dtype)
        first, last = start // width, -(-stop // width)
        rows = self._rows(first, last)
        padding = self.alignment.padding
        inside = padding[(padding >= first) & (padding < last)]
        if len(inside):
            rows[torch.from_numpy(inside - first)] = self._mean.to(self.dtype)
        return rows.reshape(-1)[start - first * width : stop - first * width].clone()

    def _rows(self, first: int, last: int) -> Tensor:
        """Rows without the padding's."""
        wanted = self.alignment.permutations[self.model][first:last]
        out = torch.zeros(last - first, self._width, dtype=self.dtype)
        own = np.flatnonzero(wanted >= 0)
        if len(own):
            out[torch.from_numpy(own)] = _gather(self.source, wanted[own], self._width)
        lacking = np.flatnonzero(wanted < 0)
        if len(lacking):
            out[torch.from_numpy(lacking)] = self._instead(lacking + first).to(self.dtype)
        return out

    def _instead(self, rows: np.ndarray) -> Tensor:
        """What stands in for rows that this model lacks: others' rows, `(rows, width)` in float64."""
        total = torch.zeros(len(rows), self._width, dtype=torch.float64)
        count = np.zeros(len(rows))
        for tensor, index in zip(self.family, self.stand_ins, strict=True):
            own = index[rows]
            held = np.flatnonzero(own >= 0)
            if tensor is not None and len(held):
                total[torch.from_numpy(held)] += _gather(tensor, own[held], self._width).double()
                count[held] += 1
        return total / torch.from_numpy(np.maximum(count, 1))[:, None]

    @cached_property
    def _mean(self) -> Tensor:
        """The mean of all rows that stand for a token, for the rows that stand for none."""
        padding = set(self.alignment.padding.tolist())
        total = torch.zeros(self._width, dtype=torch.float64)
        for first in range(0, self.alignment.rows, _STEP):
            last = min(first + _STEP, self.alignment.rows)
            keep = torch.tensor([row not in padding for row in range(first, last)])
            total += self._rows(first, last)[keep].double().sum(0)
        return total / max(self.alignment.rows - len(padding), 1)


def _gather(tensor: LazyTensor, rows: np.ndarray, width: int) -> Tensor:
    """Rows of a tensor by index, read in as few pieces as they lie in."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    breaks = np.flatnonzero(np.diff(ordered) > 64) + 1
    out = torch.empty(len(rows), width, dtype=tensor.dtype)
    for piece in np.split(np.arange(len(rows)), breaks):
        low, high = int(ordered[piece[0]]), int(ordered[piece[-1]]) + 1
        block = tensor.read_flat(low * width, high * width).view(-1, width)
        out[torch.from_numpy(order[piece])] = block[torch.from_numpy(ordered[piece] - low)]
    return out


def _stand_ins(alignment: Alignment) -> list[np.ndarray]:
    found = [np.full(alignment.rows, -1, dtype=np.int64) for _ in alignment.models]
    for row, parts in alignment.fallbacks.items():
        for model, index in parts:
            found[model][row] = index
    return found


def align(
    spec: Tokenizer,
    opened: Mapping[ModelRef, Checkpoint],
    tied: Ties,
    base: ModelRef | None,
    staged: Mapping[ModelRef, Stage],
) -> tuple[dict[ModelRef, Checkpoint], Ties, Alignment]:
    """The models with their embeddings aligned, and how.

    Args:
        spec: the recipe's `tokenizer`.
        opened: the models, and the one that the tokenizer comes from.
        tied: what is tied in the models, which are its keys, in their order.
        base: the base.
        staged: the models that are stages, whose tokenizers do not exist yet.

    Raises:
        InputError: a model has no tokenizer beside it, or the alignment is impossible.
    """
    order = list(tied)
    embeddings = {ref: find_embeddings(opened[ref], opened[ref].config) for ref in opened}
    wanted = [*order, *([spec.source] if isinstance(spec.source, ModelRef) else [])]
    vocabularies = {ref: _vocabulary(ref, opened[ref], embeddings[ref], staged.get(ref)) for ref in wanted}
    alignment = align_vocabularies(spec, vocabularies, models=order, base=base)
    if alignment.is_identity:
        return dict(opened), tied, alignment

    stand_ins = _stand_ins(alignment)

    def aligned(index: int, name: str, tensor: LazyTensor) -> LazyTensor:
        family = [opened[other].tensors.get(name) or tied[other].get(name) for other in order]
        return AlignedTensor(tensor, alignment, index, family, stand_ins)

    result, ties = dict(opened), {}
    for index, ref in enumerate(order):
        own = {name: aligned(index, name, opened[ref][name]) for name in embeddings[ref]}
        result[ref] = replace(opened[ref], tensors={**opened[ref].tensors, **own})
        ties[ref] = {
            alias: aligned(index, alias, tensor) if tensor.name in embeddings[ref] else tensor
            for alias, tensor in tied[ref].items()
        }
    return result, ties, alignment


def _vocabulary(ref: ModelRef, model: Checkpoint, embeddings: set[str], stage: Stage | None) -> Vocabulary:
    """A model's vocabulary: its tokenizer's, or the one that its stage will have."""
    while stage is not None and stage.plan.alignment is None:  # its tokenizer is its template's
        ref = stage.plan.template_from
        model, stage = stage.plan.opened[ref], stage.plan.staged.get(ref)
    made = None if stage is None else stage.plan.alignment
    if made is not None:
        return Vocabulary(made.tokens, made.rows, {**made.template.added, **made.added})
    if model.folder is None:
        raise InputError(
            "it has no tokenizer beside it, and the recipe's `tokenizer` needs one", where=ref.text
        )
    rows = next((model[name].shape[0] for name in sorted(embeddings)), None)
    return read_vocabulary(model.folder, rows)
