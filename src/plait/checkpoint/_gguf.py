"""A GGUF file as a checkpoint: dequantised when read, under the names that transformers gives them.

llama.cpp stores some weights otherwise than transformers (permuted heads, transposed or shifted
weights). transformers' own processors undo that. What one does to a tensor is found by giving it row
numbers: where these only come out in another order, ranges are read row by row; anything else is
dequantised whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plait.checkpoint._extras import gguf_extras
from plait.checkpoint._files import SourceFile, source_file
from plait.checkpoint._fingerprint import file_fingerprint
from plait.checkpoint._gguf_header import TensorInfo, read_header
from plait.checkpoint._json import some
from plait.checkpoint._tensor import Checkpoint, LazyTensor, ReadFlat, Shape, numel
from plait.errors import InputError, MissingExtra

#: What llama.cpp computes from the config and stores beside the weights.
_DERIVED = re.compile(r"rope_freqs\.weight|rope_factors_(long|short)\.weight")
_EXPERTS = re.compile(r"blk\.\d+\.ffn_(?P<part>gate|up|down)_exps\.weight$")
#: The folder's disk format has one tensor per expert; memory has one per layer.
_FUSED = re.compile(r"(?P<stem>.*\.mlp\.experts)\.(gate_up|down)_proj$")


def open_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file; its tensors are float32.

    Raises:
        InputError: no GGUF file, corrupt, of an architecture or with tensors that transformers does not
            know, or with types that can't be dequantised; all tensors' problems at once.
        MissingExtra: the package `gguf` or `transformers` is not installed.
    """
    _require()
    file = source_file(path)
    architecture, infos = read_header(file)
    blocks = {info.name: _blocks(info, file) for info in infos}
    config, processor, names, expected, tied = _mapping(path, architecture)
    tensors: dict[str, LazyTensor] = {}
    lost: list[str] = []
    for name, stored in blocks.items():
        # an expert stack has no `.weight` in memory
        target = names.get(name) or names.get(name.removesuffix(".weight"))
        if target is None and not _DERIVED.match(name):
            lost.append(name)
        elif target is not None:
            tensors.update((t.name, t) for t in _tensors(stored, target, processor, names))
    if lost:
        raise InputError(f"transformers has no name for {some(lost)}", where=str(path))
    _check_model(tensors, expected, tied, path)
    header = file.read(0, min([info.offset for info in infos], default=file.size))
    fingerprint = {path.name: file_fingerprint(file, header)}
    tied = {alias: name for alias, name in tied.items() if alias not in tensors and name in tensors}
    return Checkpoint(
        str(path), tensors, config, tied=tied, fingerprint=fingerprint, extras=gguf_extras(path)
    )


def _check_model(
    tensors: Mapping[str, LazyTensor], expected: Mapping[str, Shape], tied: Mapping[str, str], path: Path
) -> None:
    """The tensors are those of transformers' model, all of them and in its shapes."""
    there = set(tensors) | {fused for name in tensors if (fused := _fused_name(name))}
    missing = [name for name in expected if name not in there and name not in tied]
    if missing:
        raise InputError(f"{some(missing)} of the architecture are not in the file", where=str(path))
    shapes = {name: shape for name in tensors if (shape := _shape_expected(name, expected)) is not None}
    wrong = next((name for name, shape in shapes.items() if tensors[name].shape != shape), None)
    if wrong is not None:
        what = f"{list(tensors[wrong].shape)} in the file and {list(shapes[wrong])} in transformers"
        hint = "the file's metadata, or what transformers reads of it, is incomplete"
        raise InputError(f"`{wrong}` is {what}", where=str(path), hint=hint)


def _require() -> None:
    import importlib.util

    for package, extra in (("gguf", "gguf"), ("transformers", "hf")):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, extra, "reading GGUF files")


@dataclass(frozen=True, eq=False)
class _Blocks:
    """A tensor's quantised rows in the file."""

    name: str
    file: SourceFile
    offset: int
    shape: Shape
    row_bytes: int
    kind: Any

    @property
    def columns(self) -> int:
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        return numel(self.shape[:-1])

    def read_rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as float32 `(stop - start, columns)`."""
        from gguf.quants import dequantize

        raw = self.file.read(self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)
        if start == stop:
            return np.empty((0, self.columns), np.float32)
        values = dequantize(np.frombuffer(raw, np.uint8).reshape(stop - start, self.row_bytes), self.kind)
        return values.reshape(stop - start, self.columns)


def _blocks(info: TensorInfo, file: SourceFile) -> _Blocks:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    where = f"{file.path}: tensor `{info.name}`"
    try:
        kind = GGMLQuantizationType(info.kind)
        block, size = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, size), np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"its type can't be dequantised ({error})", where=where) from error
    columns = info.shape[-1] if info.shape else 1
    if columns % block:
        raise InputError(f"its rows of {columns} are not whole blocks of {block}", where=where)
    blocks = _Blocks(info.name, file, info.offset, info.shape, columns // block * size, kind)
    end = info.offset + blocks.rows * blocks.row_bytes
    if end > file.size:
        raise InputError(
            f"it ends at byte {end}, and the file has {file.size}; it was cut short", where=where
        )
    return blocks


def _mapping(
    path: Path, architecture: str
) -> tuple[dict[str, Any], Any, dict[str, str], dict[str, Shape], dict[str, str]]:
    """transformers' config, processor and names for this file, its model's shapes, and tied names."""
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from transformers import modeling_gguf_pytorch_utils as hf

    try:
        parsed = hf.load_gguf_checkpoint(str(path))
        config = AutoConfig.for_model(**parsed["config"])
        heads = (AutoModelForCausalLM, AutoModelForSeq2SeqLM)
        family = next((head for head in heads if type(config) in head._model_mapping), AutoModel)
        with torch.device("meta"):
            model = family.from_config(config)
        # the processors go by the architecture's name in the file, as load_gguf_checkpoint itself does
        processor = hf.TENSOR_PROCESSORS.get(architecture, hf.TensorProcessor)(config=parsed["config"])
        names = hf.get_gguf_hf_weights_map(model, processor)
    except Exception as error:  # whatever transformers says of a file that it can't read
        raise InputError(f"transformers can't map this file: {error}", where=str(path)) from error
    values = {**config.to_dict(), "architectures": [type(model).__name__]}
    buffers = {name for name, _ in model.named_buffers()}
    expected = {name: tuple(t.shape) for name, t in model.state_dict().items() if name not in buffers}
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return values, processor, names, expected, dict(tied) if config.tie_word_embeddings else {}


def _tensors(stored: _Blocks, target: str, processor: Any, names: Mapping[str, str]) -> list[LazyTensor]:
    """What one stored tensor becomes: one tensor, or one per expert."""
    fused, part = _FUSED.match(target), _EXPERTS.match(stored.name)
    if fused and part and len(stored.shape) == 3:
        stem, projection = fused["stem"], f"{part['part']}_proj.weight"
        return [
            _RowTensor(
                f"{stem}.{expert}.{projection}", stored.shape[1:], stored, None, expert * stored.shape[1]
            )
            for expert in range(stored.shape[0])
        ]
    order, shape = _row_order(stored, processor, names)
    if shape is not None:
        return [_RowTensor(target, shape, stored, order)]
    # only its shape counts: a value that no logarithm minds, in no memory
    probe = np.broadcast_to(np.float32(-1.0), stored.shape)
    after = tuple(_process(probe, stored.name, processor, names).shape)
    return [_WholeTensor(target, after, stored, processor, names)]


def _fused_name(name: str) -> str | None:
    """The name in memory of a layer's experts, from the name on disk of one."""
    found = re.match(r"(.*\.mlp\.experts)\.\d+\.(gate|up|down)_proj\.weight$", name)
    return f"{found[1]}.{'down' if found[2] == 'down' else 'gate_up'}_proj" if found else None


def _shape_expected(name: str, expected: Mapping[str, Shape]) -> Shape | None:
    fused = expected.get(_fused_name(name) or "")
    if fused is None:
        return expected.get(name)
    _, rows, columns = fused
    return (rows, columns) if name.endswith(".down_proj.weight") else (rows // 2, columns)


def _process(values: np.ndarray, name: str, processor: Any, names: Mapping[str, str]) -> np.ndarray:
    """What transformers makes of a stored tensor's values; some processors hand them over by a table."""
    parsed: dict[str, dict[str, Tensor]] = {"tensors": {}}
    result = processor.process(weights=values, name=name, tensor_key_mapping=names, parsed_parameters=parsed)
    if result.name is not None:
        return result.weights
    if len(parsed["tensors"]) == 1:
        return next(iter(parsed["tensors"].values())).numpy()
    raise InputError(f"`{name}` becomes several tensors in transformers, which plait does not read")


def _row_order(
    stored: _Blocks, processor: Any, names: Mapping[str, str]
) -> tuple[np.ndarray | None, Shape | None]:
    """Which stored row each row is, and the shape; no shape if more than that happens to the values."""
    if len(stored.shape) != 2:
        return None, None
    rows = np.arange(stored.rows, dtype=np.float64)[:, None]
    try:
        found = _process(rows, stored.name, processor, names)
    except Exception:  # a processor that needs the true number of columns
        return None, None
    if found.shape != rows.shape or not np.array_equal(np.sort(found, axis=0), rows):
        return None, None
    order = found[:, 0].astype(np.int64)
    return (None if np.array_equal(order, rows[:, 0]) else order), stored.shape


@dataclass(frozen=True, eq=False, repr=False)
class _RowTensor(ReadFlat):
    """A tensor whose rows are rows of a stored one."""

    name: str
    shape: Shape
    stored: _Blocks
    order: np.ndarray | None
    first: int = 0
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        return numel(self.shape[:-1]) * self.stored.row_bytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        width = max(self.stored.columns, 1)
        low, high = start // width, -(-stop // width)
        if self.order is None:
            values = self.stored.read_rows(self.first + low, self.first + high)
        else:
            # the rows that lie together are read together: a head's rows are mixed, its neighbours' not
            wanted = self.order[low:high]
            lowest, highest = (int(wanted.min()), int(wanted.max()) + 1) if len(wanted) else (0, 0)
            values = self.stored.read_rows(lowest, highest)[wanted - lowest]
        return torch.from_numpy(np.array(values.reshape(-1)[start - low * width : stop - low * width]))


@lru_cache(maxsize=2)
def _whole(tensor: _WholeTensor) -> np.ndarray:
    values = tensor.stored.read_rows(0, tensor.stored.rows).reshape(tensor.stored.shape)
    return np.ascontiguousarray(_process(values, tensor.stored.name, tensor.processor, tensor.names))


@dataclass(frozen=True, eq=False, repr=False)
class _WholeTensor(ReadFlat):
    """A tensor that is dequantised whole, as transformers does more to it than reorder its rows."""

    name: str
    shape: Shape
    stored: _Blocks
    processor: Any
    names: Mapping[str, str]
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        return self.stored.rows * self.stored.row_bytes

    def read_flat(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(np.array(_whole(self).reshape(-1)[start:stop], dtype=np.float32))
