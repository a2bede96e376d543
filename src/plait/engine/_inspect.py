"""What a checkpoint holds, from its headers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from plait.checkpoint import Openable, numel, open_checkpoint
from plait.checkpoint._structure import find_layers


@dataclass(frozen=True)
class TensorRow:
    """One tensor.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: its type, as torch writes it without `torch.`.
        parameters: number of its elements.
        bytes: of its elements in that type.
        stack: the stack of layers that it lies in (`model.layers.`); None outside of every stack.
        layer: the layer's index in that stack.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameters: int
    bytes: int
    stack: str | None
    layer: int | None


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds.

    Attributes:
        reference: the user's words for it.
        revision: the hub commit, where it came from there.
        model_type: the config's word for the architecture, or None.
        architectures: the config's classes.
        tensors: every stored tensor, in the order of the files.
        parameters: number of all floating-point elements; tied tensors count once.
        elements: number of all elements, buffers of integers included.
        bytes: of all elements.
        dtypes: type → number of elements, the most frequent first.
        layers: prefix of a stack of layers → number of layers.
        main_stack: the prefix of the stack that the config means.
        tied: alias → the stored tensor that it is.
        sidecars: the files that travel with the weights.
    """

    reference: str
    revision: str | None
    model_type: str | None
    architectures: tuple[str, ...]
    tensors: tuple[TensorRow, ...]
    parameters: int
    elements: int
    bytes: int
    dtypes: Mapping[str, int]
    layers: Mapping[str, int]
    main_stack: str | None
    tied: Mapping[str, str]
    sidecars: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def inspect_checkpoint(model: Openable) -> Inspection:
    """Describe a checkpoint; no weight is read. Linear in the number of tensors.

    Args:
        model: a path, a hub id, a module, a checkpoint.

    Raises:
        InputError: it can't be opened.
    """
    checkpoint = open_checkpoint(model)
    config = checkpoint.config
    layers = find_layers(checkpoint, config)
    rows: list[TensorRow] = []
    dtypes: Counter[str] = Counter()
    parameters = 0
    for name, tensor in checkpoint.items():
        count = numel(tensor.shape)
        kind = str(tensor.dtype).removeprefix("torch.")
        stack, layer = layers.layer_of(name) or (None, None)
        rows.append(TensorRow(name, tensor.shape, kind, count, count * tensor.dtype.itemsize, stack, layer))
        dtypes[kind] += count
        parameters += count if tensor.dtype.is_floating_point or tensor.dtype.is_complex else 0
    model_type = config.get("model_type")
    return Inspection(
        reference=checkpoint.reference,
        revision=checkpoint.revision,
        model_type=model_type if isinstance(model_type, str) else None,
        architectures=tuple(config.get("architectures") or ()),
        tensors=tuple(rows),
        parameters=parameters,
        elements=sum(row.parameters for row in rows),
        bytes=sum(row.bytes for row in rows),
        dtypes=dict(dtypes.most_common()),
        layers=dict(layers.stacks),
        main_stack=layers.main,
        tied=dict(checkpoint.tied),
        sidecars=tuple(sidecar.name for sidecar in checkpoint.sidecars),
    )
