"""A fine-tuned model as a LoRA adapter over its base: each matrix's change, cut to a rank by its SVD."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from plait.checkpoint import Checkpoint, LazyTensor, Openable, open_checkpoint
from plait.engine._adapter_folder import adapter_config, write_adapter
from plait.engine._compare import compare_tensors
from plait.engine._extract_plan import ExtractPlan, plan_extraction
from plait.engine._lora_kinds import Kind
from plait.errors import InputError, raise_all
from plait.numerics import torch_threads
from plait.numerics._lowrank import low_rank


@dataclass(frozen=True)
class Extracted:
    """One module's factors.

    Attributes:
        module: its name.
        kind: `linear`, `transposed` (stored as `(in, out)`) or `embedding`.
        rank: of its factors; at most its smaller side.
        error: norm of what the rank leaves out, relative to the norm of the change.
    """

    module: str
    kind: Kind
    rank: int
    error: float


@dataclass(frozen=True)
class Left:
    """A tensor whose change the adapter does not carry.

    Attributes:
        name: the tensor.
        why: why not.
        change: norm of the change relative to the base's; None where they can't be subtracted.
    """

    name: str
    why: str
    change: float | None = None


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction wrote, and what it could not.

    Attributes:
        out: the adapter's folder.
        rank: as asked for.
        alpha: as asked for, else the rank.
        modules: the modules with factors.
        saved: tensors that the adapter holds whole.
        left: changed tensors that it does not carry.
        unchanged: number of tensors that are equal in both.
    """

    out: Path
    rank: int
    alpha: float
    modules: tuple[Extracted, ...]
    saved: tuple[str, ...]
    left: tuple[Left, ...]
    unchanged: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "out": str(self.out)}


_Factored = tuple[Extracted, dict[str, Tensor]]


def extract_lora(
    finetuned: Openable,
    base: Openable,
    out: str | os.PathLike[str],
    *,
    rank: int,
    alpha: float | None = None,
    target_modules: Sequence[str] | None = None,
    modules_to_save: Sequence[str] = (),
    threads: int = 1,
) -> ExtractReport:
    """Write the difference of two models as a PEFT adapter folder.

    A change of a matrix (linear layers, embeddings, GPT-2's transposed layers) becomes two factors, changed
    biases go along whole. Everything else that changed is listed in the report, and goes along whole if
    `modules_to_save` names its module.

    Args:
        finetuned: the fine-tuned model: a path, a hub id, a module, a checkpoint.
        base: what it was trained from.
        out: a folder that does not exist, or is empty.
        rank: of the factors, at least 1.
        alpha: LoRA's alpha; the factors make up for it. The rank if None.
        target_modules: globs on module names; every changed matrix if None.
        modules_to_save: globs on module names.
        threads: modules at the same time; the result does not depend on it.

    Raises:
        InputError: nothing to extract, a glob without a match, a NaN or infinity, or a folder in the way.
    """
    finetuned, base, out = open_checkpoint(finetuned), open_checkpoint(base), Path(out)
    alpha = float(rank) if alpha is None else float(alpha)
    _check(finetuned, base, out, rank, alpha)
    plan = plan_extraction(finetuned, base, target_modules, modules_to_save)
    factored, changes = _measure(finetuned, base, plan, rank, alpha, threads)
    modules = tuple(module for module, _ in factored)
    tensors = {name: tensor for _, tensors in factored for name, tensor in tensors.items()}
    saved = _saved(plan, changes)
    targets = {module.module for module in modules}
    tensors.update({_file_name(name, targets): finetuned[name].read() for name in saved})
    if not tensors:
        raise InputError("the two models are equal where an adapter could differ", where=finetuned.reference)
    config = adapter_config(
        base,
        {module.module: (module.kind, module.rank) for module in modules},
        rank=rank,
        alpha=alpha,
        biases=any(name in plan.biases for name in saved),
        saved=[module for module, names in plan.saved.items() if set(names) & set(saved)],
    )
    write_adapter(out, tensors, config)
    left = tuple(
        Left(name, why, changes.get(name)) for name, why in plan.left.items() if changes.get(name) != 0
    )
    changed = len(modules) + len(saved) + sum(item.name in finetuned for item in left)
    return ExtractReport(out, rank, alpha, modules, tuple(saved), left, len(finetuned) - changed)


def _measure(
    finetuned: Checkpoint, base: Checkpoint, plan: ExtractPlan, rank: int, alpha: float, threads: int
) -> tuple[list[_Factored], dict[str, float | None]]:
    """The factors of every module that changed, and the sizes of the other changes."""
    factor = partial(_factor, finetuned, base, rank, alpha)
    change = partial(_change, finetuned, base)
    # bits of factorisations depend on the number of BLAS threads: one, and modules side by side instead
    one = partial(torch.set_num_threads, 1)
    with torch_threads(1), ThreadPoolExecutor(threads, initializer=one) as pool:
        factored = pool.map(factor, plan.factored.keys(), plan.factored.values())
        changes = pool.map(change, plan.measured)
        return [f for f in factored if f], dict(zip(plan.measured, changes, strict=True))


def _check(finetuned: Checkpoint, base: Checkpoint, out: Path, rank: int, alpha: float) -> None:
    problems: list[InputError] = []
    if rank < 1:
        problems.append(InputError(f"the rank is {rank}, and must be at least 1"))
    if not alpha > 0:
        problems.append(InputError(f"alpha is {alpha}, and must be above 0"))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        problems.append(InputError("something is there already", where=str(out), hint="name a new folder"))
    if not set(finetuned) & set(base):
        problems.append(InputError("no tensor has the same name in both models", where=finetuned.reference))
    raise_all(problems)


def _delta(finetuned: LazyTensor, base: LazyTensor) -> Tensor:
    kind = torch.float64 if finetuned.dtype == torch.float64 else torch.float32
    delta = finetuned.read().to(kind) - base.read().to(kind)
    if not bool(delta.isfinite().all()):
        raise InputError("NaN or infinity in the difference", where=f"tensor `{finetuned.name}`")
    return delta


def _change(finetuned: Checkpoint, base: Checkpoint, name: str) -> float | None:
    """Norm of a tensor's change relative to the base's; 0 where no bit changed."""
    row, _ = compare_tensors(name, base[name], finetuned[name])
    if row.distance is None or row.status == "identical":
        return None if row.distance is None else 0.0
    if row.distance.not_finite:
        raise InputError("NaN or infinity in the difference", where=f"tensor `{name}`")
    return row.distance.l2 if row.distance.relative is None else row.distance.relative


def _rest(matrix: Tensor, a: Tensor, b: Tensor, scale: float) -> float:
    """Norm of `matrix - scale * b @ a` of the factors as they are stored, by blocks of rows in float64."""
    total = 0.0
    step = max(1, (1 << 20) // max(matrix.shape[1], 1))
    for low in range(0, matrix.shape[0], step):
        rows = slice(low, low + step)
        rest = matrix[rows].double() - scale * b[rows].double() @ a.double()
        total += float(rest.square().sum())
    return math.sqrt(total)


def _factor(
    finetuned: Checkpoint, base: Checkpoint, rank: int, alpha: float, module: str, kind: Kind
) -> _Factored | None:
    """A module's factors under PEFT's names, in the fine-tuned model's type; None if it did not change."""
    weight = finetuned[f"{module}.weight"]
    delta = _delta(weight, base[f"{module}.weight"])
    norm = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
    if not norm:
        return None
    # an embedding is `(vocabulary, dim)`, and its factors are those of a layer `(dim, vocabulary)`
    matrix = delta if kind == "linear" else delta.T
    a, b = low_rank(matrix, rank)
    own = a.shape[0]
    b = b * (rank / alpha)  # PEFT multiplies by alpha / rank
    a, b = a.to(weight.dtype).contiguous(), b.to(weight.dtype).contiguous()
    stem = f"base_model.model.{module}"
    names = (
        ("lora_embedding_A", "lora_embedding_B")
        if kind == "embedding"
        else ("lora_A.weight", "lora_B.weight")
    )
    tensors = {f"{stem}.{names[0]}": a, f"{stem}.{names[1]}": b}
    return Extracted(module, kind, own, _rest(matrix, a, b, alpha / rank) / norm), tensors


def _saved(plan: ExtractPlan, changes: Mapping[str, float | None]) -> list[str]:
    """Tensors that go along whole: changed biases, and modules to save of which anything changed."""
    saved = [name for name in plan.biases if changes[name]]
    for names in plan.saved.values():
        if any(changes.get(name) != 0 for name in names):
            saved += names
    return saved


def _file_name(name: str, targets: set[str]) -> str:
    module, _, last = name.rpartition(".")
    # in a module with factors, PEFT wraps the layer that holds the bias
    return f"base_model.model.{module}.base_layer.{last}" if module in targets else f"base_model.model.{name}"
