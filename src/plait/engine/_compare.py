"""How far apart two checkpoints are, tensor by tensor, streamed in chunks and added up in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from plait.checkpoint import Checkpoint, LazyTensor, Openable, numel, open_checkpoint
from plait.engine._limits import cores, one_torch_thread

Status = Literal["identical", "differs", "dtype differs", "shape differs", "only in a", "only in b"]
#: Elements compared at a time: some 50 MB of working memory per thread.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Sums:
    """What is added up over the chunks of a tensor, or over tensors."""

    elements: int = 0
    different: int = 0
    same_sign: int = 0
    not_finite: int = 0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    dd: float = 0.0
    max_abs: float = 0.0

    def __add__(self, other: _Sums) -> _Sums:
        values = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(_Sums)}
        # max() would lose a NaN that comes second
        both = torch.tensor([self.max_abs, other.max_abs], dtype=torch.float64)
        return _Sums(**{**values, "max_abs": float(both.max())})


@dataclass(frozen=True)
class Distance:
    """How far apart the values of one tensor, or of all, are. Numbers are None where there are none.

    Attributes:
        l2: norm of `b - a`.
        relative: `l2` over the norm of `a`; None if `a` is zero.
        cosine: of the angle between both; None if one of them is zero.
        max_abs: largest difference of an element.
        sign_agreement: share of the elements whose signs (minus, zero, plus) are equal.
        different: number of elements whose values differ.
        not_finite: number of elements that are NaN or infinite in either; the sums are then not finite.
        elements: number of elements.
    """

    l2: float
    relative: float | None
    cosine: float | None
    max_abs: float
    sign_agreement: float | None
    different: int
    not_finite: int
    elements: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON, which has neither NaN nor infinity: None stands for them."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class DiffRow:
    """One tensor of either checkpoint.

    Attributes:
        name: its name.
        status: identical (type, shape and every bit), or what differs.
        shape_a, shape_b, dtype_a, dtype_b: None where the tensor is absent.
        distance: of the values, where both have the same shape.
    """

    name: str
    status: Status
    shape_a: tuple[int, ...] | None
    shape_b: tuple[int, ...] | None
    dtype_a: str | None
    dtype_b: str | None
    distance: Distance | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON; the distance's numbers lie beside the others."""
        values = {**asdict(self), **(self.distance.to_dict() if self.distance else {})}
        del values["distance"]
        return values


@dataclass(frozen=True)
class CheckpointDiff:
    """All rows, in the order of `a` and then of what only `b` has; and the distance over all of them.

    Attributes:
        rows: one per tensor name.
        total: distance of all tensors that could be compared, seen as one vector.
    """

    rows: tuple[DiffRow, ...]
    total: Distance

    @property
    def identical(self) -> bool:
        """Whether every tensor is there in both and the same to the bit."""
        return all(row.status == "identical" for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        rows = [row.to_dict() for row in self.rows]
        return {"identical": self.identical, "total": self.total.to_dict(), "tensors": rows}


def diff_checkpoints(a: Openable, b: Openable, *, threads: int | None = None) -> CheckpointDiff:
    """Compare two checkpoints tensor by tensor.

    Reads both once; memory is bounded by the chunk and the threads, not by the tensors. A name that is tied
    in one and stored in the other is compared with the tensor that it is tied to.

    Args:
        a: what distances are relative to: a path, a hub id, a module, a checkpoint.
        b: the other.
        threads: tensors compared at the same time, None for one per core; the result does not depend on it.

    Raises:
        InputError: one can't be opened, or a tensor can't be read.
    """
    a, b = open_checkpoint(a), open_checkpoint(b)
    names = [name for name in dict.fromkeys((*a, *b, *a.tied)) if name in a or name in b]
    pairs = [(name, _find(a, name), _find(b, name)) for name in names]
    with one_torch_thread(), ThreadPoolExecutor(threads or cores()) as pool:
        compared = list(pool.map(compare_tensors, *zip(*pairs, strict=True))) if pairs else []
    total = _Sums()
    for _, sums in compared:
        total += sums
    return CheckpointDiff(tuple(row for row, _ in compared), _distance(total))


def _find(checkpoint: Checkpoint, name: str) -> LazyTensor | None:
    return checkpoint.tensors.get(name) or checkpoint.tensors.get(checkpoint.tied.get(name, name))


def compare_tensors(name: str, a: LazyTensor | None, b: LazyTensor | None) -> tuple[DiffRow, _Sums]:
    """Compare two tensors, of which one may be absent; the sums are those that distances come from."""
    row = partial(
        DiffRow,
        name=name,
        shape_a=a.shape if a else None,
        shape_b=b.shape if b else None,
        dtype_a=str(a.dtype).removeprefix("torch.") if a else None,
        dtype_b=str(b.dtype).removeprefix("torch.") if b else None,
    )
    if a is None or b is None:
        return row(status="only in b" if a is None else "only in a", distance=None), _Sums()
    if a.shape != b.shape:
        return row(status="shape differs", distance=None), _Sums()
    sums, same_bits = _Sums(), a.dtype == b.dtype
    count = numel(a.shape)
    for start in range(0, count, _CHUNK):
        ours, theirs = (tensor.read_flat(start, min(start + _CHUNK, count)) for tensor in (a, b))
        same_bits = same_bits and torch.equal(_bits(ours), _bits(theirs))
        sums += _measure(_numbers(ours), _numbers(theirs))
    status: Status = "identical" if same_bits else "differs" if a.dtype == b.dtype else "dtype differs"
    return row(status=status, distance=_distance(sums)), sums


def _bits(tensor: Tensor) -> Tensor:
    """The elements' bytes, in which NaN equals NaN and minus zero is not zero."""
    return tensor.contiguous().view(torch.uint8)


def _numbers(tensor: Tensor) -> Tensor:
    """The elements in float64; complex ones as their parts."""
    return (torch.view_as_real(tensor).flatten() if tensor.is_complex() else tensor).to(torch.float64)


def _measure(a: Tensor, b: Tensor) -> _Sums:
    difference = b - a
    return _Sums(
        elements=len(a),
        different=int((a != b).sum()),
        same_sign=int((a.sign() == b.sign()).sum()),
        not_finite=int((~(a.isfinite() & b.isfinite())).sum()),
        aa=float(a.square().sum()),
        bb=float(b.square().sum()),
        ab=float((a * b).sum()),
        dd=float(difference.square().sum()),
        max_abs=float(difference.abs().max()),
    )


def _distance(sums: _Sums) -> Distance:
    norms = math.sqrt(sums.aa) * math.sqrt(sums.bb)
    return Distance(
        l2=math.sqrt(sums.dd),
        relative=math.sqrt(sums.dd / sums.aa) if sums.aa else None,
        # rounding may carry equal directions a little over one
        cosine=_clamped(sums.ab / norms) if norms else None,
        max_abs=sums.max_abs,
        sign_agreement=sums.same_sign / sums.elements if sums.elements else None,
        different=sums.different,
        not_finite=sums.not_finite,
        elements=sums.elements,
    )


def _clamped(value: float) -> float:
    return value if math.isnan(value) else max(-1.0, min(1.0, value))


def largest_differences(rows: Sequence[DiffRow], count: int) -> list[DiffRow]:
    """The rows that differ most, relative to their size; those that can't be compared first."""

    def key(row: DiffRow) -> float:
        if row.distance is None or not math.isfinite(row.distance.l2):
            return math.inf
        return row.distance.relative if row.distance.relative is not None else row.distance.l2

    different = [row for row in rows if row.status != "identical"]
    return sorted(different, key=key, reverse=True)[:count]
