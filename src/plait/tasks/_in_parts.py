"""What PyTorch datasets hold that lie in memory, whatever they are put together from."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset
from torch.utils.data import Subset as TorchSubset

from plait.tasks._examples import Items

#: Bytes up to which what lies in parts is copied.
_COPIED = 1 << 30


def in_memory_columns(data: Any, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Columns of PyTorch datasets that lie in memory, or of a list; {} for all others.

    Those that lie in parts are put together for it, if they are not too large.
    """
    if type(data) is TorchSubset:
        rows = torch.as_tensor(np.asarray(data.indices, dtype=np.int64))
        return {name: column[rows] for name, column in in_memory_columns(data.dataset, names).items()}
    if type(data) is ConcatDataset:
        parts = [in_memory_columns(part, names) for part in data.datasets]
        kinds = [{name: (c.dtype, c.shape[1:]) for name, c in part.items()} for part in parts]
        held = sum(column.nbytes for part in parts for column in part.values())
        if held > _COPIED or any(kind != kinds[0] for kind in kinds):
            return {}
        return {name: torch.cat([part[name] for part in parts]) for name in kinds[0]}
    if isinstance(data, list) and data:
        examples = Items(data, names)
        with contextlib.suppress(Exception):  # what makes no batch is told when one is asked for
            one = examples.batch([0]).values()
            small = (
                all(isinstance(c, Tensor) for c in one) and sum(c.nbytes for c in one) * len(data) <= _COPIED
            )
            return examples.batch(range(len(data))) if small else {}
    return dict(zip(names, getattr(data, "tensors", ()), strict=False))
