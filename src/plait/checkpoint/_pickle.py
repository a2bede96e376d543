"""PyTorch files, with weights-only loading: nothing in them runs, and no tensor is read early.

torch unpickles the file onto its `meta` device, which says where in the file each storage lies. Tensors
are then read by offset like those of a safetensors file, so that a file that shrinks is an error here too.
"""

from __future__ import annotations

import pickle
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from plait.checkpoint._files import SourceFile, source_file, unreadable
from plait.checkpoint._fingerprint import edge_fingerprint
from plait.checkpoint._json import some
from plait.checkpoint._memory import MemoryTensor
from plait.checkpoint._safetensors import DTYPE_NAMES, LONGEST_NAME, FileTensor
from plait.checkpoint._strided import StridedTensor
from plait.checkpoint._tensor import LazyTensor
from plait.checkpoint._weights import WeightFile
from plait.errors import InputError

#: Under these keys training scripts keep the state dict, beside an optimizer's state and the like.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
#: Bytes of the record that names the order of bytes: `little` or `big`.
_LONGEST_ORDER = 16
_CONVERT = "convert it to safetensors where you trust it"


def open_torch(path: Path) -> WeightFile:
    """Open a file that `torch.save` wrote.

    The state dict is the file's object, or what lies in it under `state_dict`, `model_state_dict`, `model`
    or `module`; what lies beside such a key (an epoch, an optimizer) is left. Within the state dict every
    entry must be a dense tensor; only `_extra_state` entries are left out.

    Raises:
        InputError: the file is corrupt, its pickle wants more than tensors, or it holds no state dict.
    """
    file = source_file(path)
    records = _records(file)
    if records is None:  # the format before PyTorch 1.6, which must be read whole
        state = dense_state_dict(_load(path, map_location="cpu"), str(path))
        return _weights(state, file, None)
    state = dense_state_dict(_load(path, map_location="meta"), str(path))
    if any(
        getattr(tensor.untyped_storage(), "_checkpoint_offset", None) is None for tensor in state.values()
    ):
        # an older torch does not say where storages lie, and tensors of other bytes order get swapped
        return _weights(dense_state_dict(_load(path, map_location="cpu", mmap=True), str(path)), file, None)
    return _weights(state, file, records)


def _load(path: Path, **options: object) -> object:
    try:
        return torch.load(path, weights_only=True, **options)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        raise unreadable(path, error) from error
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        text = f"it wants `{wanted[1]}`" if wanted else "it holds more than tensors"
        raise InputError(
            f"this pickle is refused: {text}, and running code from a checkpoint is not safe",
            where=str(path),
            hint=_CONVERT,
        ) from error
    except Exception as error:  # a corrupt pickle can make the unpickler raise anything
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InputError(f"this can't be loaded as a PyTorch file: {reason}", where=str(path)) from error


def _records(file: SourceFile) -> dict[int, int] | None:
    """Where each record of the archive begins and how long it is; None if this is no archive.

    Raises:
        InputError: a record is compressed (torch never does that), so that offsets mean nothing.
    """
    try:
        if not zipfile.is_zipfile(file.path):
            return None
        with zipfile.ZipFile(file.path) as archive:
            infos = archive.infolist()
            compressed = any(info.compress_type != zipfile.ZIP_STORED for info in infos)
            short = (i for i in infos if i.filename.endswith("/byteorder") and i.file_size <= _LONGEST_ORDER)
            order = b"little" if compressed else next((archive.read(info) for info in short), b"little")
    except Exception as error:  # a corrupt archive can make the library raise anything
        raise InputError(f"this archive is corrupt ({error})", where=str(file.path)) from error
    if compressed:
        raise InputError("this archive is compressed, and torch.save never does that", where=str(file.path))
    if order.decode("ascii", "replace") != sys.byteorder:
        raise InputError("its bytes are in another order than this machine's", where=str(file.path))
    found: dict[int, int] = {}
    for info in infos:
        if not 0 <= info.header_offset <= file.size - 30:
            raise InputError("this archive is corrupt (a record lies outside of it)", where=str(file.path))
        local = file.read(info.header_offset, 30)  # a local header: name and extra field have own lengths
        name, extra = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
        found[info.header_offset + 30 + name + extra] = info.file_size
    return found


def dense_state_dict(value: object, where: str) -> dict[str, Tensor]:
    """The state dict in an object, unwrapped and checked as `open_torch` says."""
    for _ in range(3):
        if not isinstance(value, Mapping) or any(isinstance(item, Tensor) for item in value.values()):
            break
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            break
        value = inner
    if not isinstance(value, Mapping):
        text = f"this is a {type(value).__name__}, not a state dict (a mapping of names to tensors)"
        raise InputError(text, where=where)
    found = {str(name): item for name, item in value.items() if not str(name).endswith("_extra_state")}
    wrong = [name for name, item in found.items() if not isinstance(item, Tensor)]
    if wrong:
        raise InputError(f"its state dict has entries that are no tensors: {some(wrong)}", where=where)
    if any(len(name) > LONGEST_NAME for name in found):
        raise InputError(f"a tensor's name has more than {LONGEST_NAME} characters", where=where)
    odd = [name for name, tensor in found.items() if _is_odd(tensor)]
    if odd:
        text = f"only dense tensors of types that safetensors has can be merged, unlike {some(odd)}"
        raise InputError(text, where=where)
    return found


def _is_odd(tensor: Tensor) -> bool:
    dense = tensor.layout == torch.strided and not tensor.is_quantized
    return not dense or tensor.dtype not in DTYPE_NAMES or tensor.is_conj() or tensor.is_neg()


def _weights(state: Mapping[str, Tensor], file: SourceFile, records: Mapping[int, int] | None) -> WeightFile:
    tensors: dict[str, LazyTensor] = {}
    tied: dict[str, str] = {}
    seen: dict[object, str] = {}
    for name, tensor in state.items():
        key = identity(tensor) if tensor.numel() else name
        stored = seen.setdefault(key, name)
        if stored != name:
            tied[name] = stored
        elif records is None:
            tensors[name] = MemoryTensor(name, tensor)
        else:
            tensors[name] = _in_file(name, tensor, file, records)
    return WeightFile(tensors, edge_fingerprint(file), tied)


def identity(tensor: Tensor) -> object:
    """Equal for two tensors that are the same elements of the same memory."""
    storage = tensor.untyped_storage()
    return storage._cdata, tensor.storage_offset(), tensor.dtype, tuple(tensor.shape), tensor.stride()


def _in_file(name: str, tensor: Tensor, file: SourceFile, records: Mapping[int, int]) -> LazyTensor:
    storage, size = tensor.untyped_storage(), tensor.dtype.itemsize
    begin = int(getattr(storage, "_checkpoint_offset"))  # noqa: B009  (torch's stubs lack it)
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    stop = (tensor.storage_offset() + last + 1) * size if tensor.numel() else 0
    if begin + stop > file.size or (stop and records.get(begin, -1) < stop):
        where = f"{file.path}: tensor {name!r}"
        raise InputError(f"it wants {stop} bytes where the file has {records.get(begin, 0)}", where=where)
    offset = begin + tensor.storage_offset() * size
    shape = tuple(tensor.shape)
    if tensor.is_contiguous():
        return FileTensor(name, shape, tensor.dtype, file, int(offset))
    whole = FileTensor(name, (int(last) + 1,), tensor.dtype, file, int(offset))
    return StridedTensor(name, shape, tensor.stride(), whole)
