"""Open anything as a read-only mapping of names to lazy tensors; write one safely."""

from plait.checkpoint._files import close_idle_files
from plait.checkpoint._fill import load_into
from plait.checkpoint._fingerprint import content_hash
from plait.checkpoint._json import read_json, read_text
from plait.checkpoint._memory import MemoryTensor
from plait.checkpoint._modules import HEAD_FILE
from plait.checkpoint._open import Openable, open_checkpoint, open_model
from plait.checkpoint._reference import exists as is_path
from plait.checkpoint._reference import is_hub_id, parse_reference
from plait.checkpoint._safetensors import DTYPE_NAMES, DTYPES, FileTensor, open_safetensors
from plait.checkpoint._sidecars import find_sidecars
from plait.checkpoint._structure import LayerMap, find_layers
from plait.checkpoint._tensor import (
    Checkpoint,
    LazyTensor,
    ReadFlat,
    Shape,
    Sidecar,
    numel,
    row_length,
)
from plait.checkpoint._vocabulary import find_embeddings, find_tied, vocab_size
from plait.checkpoint._whole import disk_errors, save_module, save_tensors
from plait.checkpoint._write import MAX_SHARD_SIZE, ShardFile, index_json, plan_shards, save_checkpoint

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "HEAD_FILE",
    "MAX_SHARD_SIZE",
    "Checkpoint",
    "FileTensor",
    "LayerMap",
    "LazyTensor",
    "MemoryTensor",
    "Openable",
    "ReadFlat",
    "Shape",
    "ShardFile",
    "Sidecar",
    "close_idle_files",
    "content_hash",
    "disk_errors",
    "find_embeddings",
    "find_layers",
    "find_sidecars",
    "find_tied",
    "index_json",
    "is_hub_id",
    "is_path",
    "load_into",
    "numel",
    "open_checkpoint",
    "open_model",
    "open_safetensors",
    "parse_reference",
    "plan_shards",
    "read_json",
    "read_text",
    "row_length",
    "save_checkpoint",
    "save_module",
    "save_tensors",
    "vocab_size",
]
