"""A base's tensors with an adapter's change applied, computed range by range when read.

Every element has one value, whatever the range it is read in: the products are added up in a fixed
order (`plait.numerics._outer`), in float32 (float64 for a float64 base), and rounded once to the
base's dtype.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from plait.checkpoint._tensor import LazyTensor, ReadFlat, Shape, numel
from plait.errors import InputError
from plait.numerics._outer import add_squares, low_rank_product

#: Elements computed at a time: a few MiB of working memory however large the range.
_BLOCK = 1 << 20


def work_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type that sums are taken in before the one rounding to `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True, eq=False)
class Factors:
    """The low-rank change of one tensor, seen as the matrix `(rows, columns)` = `left @ right`.

    Attributes:
        left: lazy `lora_B` or, transposed, `lora_A`.
        right: lazy `lora_A` or, transposed, `lora_B`.
        transposed: the stored tensors are `(rank, rows)` and `(columns, rank)`.
        scale: what the product is multiplied with (alpha / rank, or alpha / sqrt(rank)).
    """

    left: LazyTensor
    right: LazyTensor
    transposed: bool
    scale: float

    @property
    def rank(self) -> int:
        """Length of the product's inner axis."""
        return self.left.shape[0] if self.transposed else self.left.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """`(rows, columns)` of the product."""
        rows = self.left.shape[1] if self.transposed else self.left.shape[0]
        columns = self.right.shape[0] if self.transposed else numel(self.right.shape[1:])
        return rows, columns

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.left.nbytes + self.right.nbytes


@lru_cache(maxsize=16)
def _loaded(factors: Factors, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both factors, `(rows, rank)` and `(rank, columns)`; a few stay, as one tensor has many ranges."""
    left, right = factors.left.read().to(dtype), factors.right.read().to(dtype)
    left, right = left.flatten(1), right.flatten(1)
    return (left.T.contiguous(), right.T.contiguous()) if factors.transposed else (left, right)


@dataclass(frozen=True, eq=False, repr=False)
class LowRankTensor(ReadFlat):
    """`base + scale * left @ right`; with a magnitude, each row or column rescaled to it (DoRA).

    Attributes:
        base: the base's tensor; its first axis is the rows, the others together the columns.
        factors: the change; None where only its magnitude changes nothing else.
        magnitude: DoRA's `(rows,)` or `(columns,)`.
        by_column: the magnitude belongs to columns (transposed layers and embeddings).
    """

    base: LazyTensor
    factors: Factors
    magnitude: LazyTensor | None = None
    by_column: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _ratio: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def shape(self) -> Shape:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def nbytes(self) -> int:
        passes = 2 if self.magnitude is not None else 1
        return passes * self.base.nbytes + self.factors.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        out = self.base.read_flat(start, stop)
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            part = out[first - start : last - start]
            part.copy_(self._changed(part, first, last))
        return out

    def _changed(self, base: Tensor, start: int, stop: int) -> Tensor:
        """Elements of the result in the working type, from those of the base."""
        columns = self.factors.shape[1]
        low, high = start // columns, -(-stop // columns)
        total = base.to(work_dtype(self.dtype)) + self._delta(low, high)[start - low * columns :][: len(base)]
        if self.magnitude is None:
            return total
        ratio = self._rescaling()
        places = torch.arange(start, stop)
        return total * ratio[places % columns if self.by_column else places // columns]

    def _delta(self, low: int, high: int) -> Tensor:
        """Rows `low:high` of the scaled product, flattened."""
        left, right = _loaded(self.factors, work_dtype(self.dtype))
        return low_rank_product(left[low:high], right).mul_(self.factors.scale).flatten()

    def _rescaling(self) -> Tensor:
        """magnitude / norm of each row or column of `base + delta`; found once, by one pass over the base."""
        with self._lock:
            if not self._ratio:
                self._ratio.append(self._find_rescaling())
            return self._ratio[0]

    def _find_rescaling(self) -> Tensor:
        assert self.magnitude is not None
        rows, columns = self.factors.shape
        by_row = torch.zeros(rows, dtype=torch.float64)
        by_column = torch.zeros(columns, dtype=torch.float64)
        step = max(1, _BLOCK // max(columns, 1))
        for low in range(0, rows, step):
            high = min(low + step, rows)
            base = self.base.read_flat(low * columns, high * columns).to(work_dtype(self.dtype))
            block = (base + self._delta(low, high)).reshape(high - low, columns)
            add_squares(block, by_row[low:high], by_column)
        norm = (by_column if self.by_column else by_row).sqrt()
        if not bool((norm > 0).all()):
            which = "column" if self.by_column else "row"
            raise InputError(f"a {which} of base plus delta is zero, DoRA can't rescale it", where=self.name)
        magnitude = self.magnitude.read().flatten().double()
        return (magnitude / norm).to(work_dtype(self.dtype))


@dataclass(frozen=True, eq=False, repr=False)
class MappedTensor(ReadFlat):
    """A tensor whose every element comes from the same element of one or two others.

    Attributes:
        name: its name.
        dtype: the type that the result is rounded to.
        sources: tensors of the result's shape.
        rule: from their elements, in the working type, to the result's.
    """

    name: str
    dtype: torch.dtype
    sources: tuple[LazyTensor, ...]
    rule: Callable[..., Tensor]

    @property
    def shape(self) -> Shape:
        return self.sources[0].shape

    @property
    def nbytes(self) -> int:
        return sum(source.nbytes for source in self.sources)

    def read_flat(self, start: int, stop: int) -> Tensor:
        kind = work_dtype(self.dtype)
        return self.rule(*(source.read_flat(start, stop).to(kind) for source in self.sources)).to(self.dtype)


def with_bias(base: LazyTensor, bias: LazyTensor, scale: float) -> LazyTensor:
    """`base + scale * bias`: the bias of `lora_B`."""
    return MappedTensor(base.name, base.dtype, (base, bias), lambda b, extra: b + extra * scale)


def renamed(tensor: LazyTensor, name: str, dtype: torch.dtype | None = None) -> LazyTensor:
    """The same tensor under another name and, where given, rounded to another type."""
    return _Renamed(name, tensor, dtype or tensor.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class _Renamed(ReadFlat):
    name: str
    source: LazyTensor
    dtype: torch.dtype

    @property
    def shape(self) -> Shape:
        return self.source.shape

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        return self.source.read_flat(start, stop).to(self.dtype)


@dataclass(frozen=True, eq=False, repr=False)
class RowsReplaced(ReadFlat):
    """A base's matrix with some rows replaced (PEFT's trainable tokens).

    Attributes:
        base: `(rows, columns)`.
        rows: which rows.
        values: `(len(rows), columns)`, what they become.
    """

    base: LazyTensor
    rows: tuple[int, ...]
    values: LazyTensor

    @property
    def name(self) -> str:
        return self.base.name

    @property
    def shape(self) -> Shape:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def nbytes(self) -> int:
        return self.base.nbytes + self.values.nbytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        out = self.base.read_flat(start, stop)
        width = self.shape[1]
        for place, row in enumerate(self.rows):
            low, high = max(start, row * width), min(stop, (row + 1) * width)
            if low < high:
                shift = (place - row) * width
                out[low - start : high - start] = self.values.read_flat(low + shift, high + shift).to(
                    self.dtype
                )
        return out
