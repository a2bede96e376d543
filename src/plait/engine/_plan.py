"""The plan: everything that headers, configs and the recipe can tell, before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from plait.checkpoint import Checkpoint, LazyTensor, Shape, ShardFile
from plait.engine._identity import plan_digest, weights_identity
from plait.engine._layout import lay_out
from plait.engine._limits import RunOptions, cores, memory_budget
from plait.engine._matrix import held_bytes
from plait.engine._stacked import StackedLayers
from plait.engine._stage import Stage
from plait.errors import counted, size
from plait.methods import Method, Settings
from plait.recipe import Alignment, ModelRef, Recipe

#: Elements from which on compiled loops pay.
COMPILED_FROM = 1 << 22


@dataclass(frozen=True)
class Output:
    """One tensor of the output.

    Attributes:
        name: its name.
        shape: its shape.
        dtype: its type.
        how: `merge`, or `copy` (as it is in the base or the first model).
        inputs: the base's tensor first where the method has a base, then the models'.
        models: whose they are, as the user named them.
        has_base: whether the first input is the base.
        settings: the method's options here; None for a copy.
    """

    name: str
    shape: Shape
    dtype: torch.dtype
    how: str
    inputs: tuple[LazyTensor, ...]
    models: tuple[str, ...]
    has_base: bool
    settings: Settings | None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Plan:
    """A merge, complete but not begun.

    Attributes:
        recipe: what was asked for.
        method: how tensors merge.
        opened: the models.
        outputs: every tensor of the output, in order.
        excluded: names that the recipe leaves out.
        warnings: what the user should know.
        compute: the arithmetic's type.
        options: how it runs.
        alignment: how vocabularies are brought to one.
        chat_template: the output's, where the recipe says anything about it.
        first: the base or the model listed first, whose config and other files the output takes.
        tied: names that the template does not store because another of its tensors stands for them.
        stacks: stacks of layers that slices build anew.
        staged: the models that are stages.
    """

    recipe: Recipe
    method: Method
    opened: Mapping[ModelRef, Checkpoint]
    outputs: list[Output]
    excluded: list[str]
    warnings: list[str]
    compute: torch.dtype
    options: RunOptions
    alignment: Alignment | None = None
    chat_template: str | None = None
    first: ModelRef | None = None
    tied: frozenset[str] = frozenset()
    stacks: Sequence[StackedLayers] = ()
    staged: Mapping[ModelRef, Stage] = field(default_factory=dict)

    @property
    def conventions(self) -> str:
        """Whose defaults hold: `paper` or `mergekit`."""
        return self.recipe.conventions

    @property
    def template(self) -> Checkpoint:
        """The model whose config and files the output takes."""
        return self.opened[self.template_from]

    @property
    def template_from(self) -> ModelRef:
        """The model whose config and files the output takes, as the recipe names it."""
        return next(iter(self.opened)) if self.first is None else self.first

    @property
    def tokenizer_from(self) -> ModelRef:
        """The model whose tokenizer the output's starts from."""
        tokenizer = self.recipe.tokenizer
        source = None if tokenizer is None else tokenizer.source
        return source if isinstance(source, ModelRef) else self.template_from

    @cached_property
    def stages(self) -> list[Stage]:
        """Nested recipes that run first, each once."""
        return list({id(stage): stage for stage in self.staged.values()}.values())

    @cached_property
    def shards(self) -> list[ShardFile]:
        """The output's weight files; a sub-model's lie in its folder."""
        return lay_out(self.outputs, self.options.shard_bytes, self.template)

    @cached_property
    def compiled(self) -> bool:
        """Whether rules run compiled: small merges are done before a compiler would be loaded."""
        streamed = (o for o in self.outputs if o.how == "merge" and self.held(o) is None)
        return sum(math.prod(o.shape) for o in streamed) >= COMPILED_FROM

    @property
    def bytes_written(self) -> int:
        return sum(shard.size for shard in self.shards)

    @property
    def bytes_read(self) -> int:
        return sum(t.nbytes for o in self.outputs for t in o.inputs)

    @property
    def passes(self) -> int:
        """How often inputs are streamed: once to merge, and once for each stage over the whole model."""
        merged = next((o for o in self.outputs if o.settings is not None), None)
        if merged is None or merged.settings is None:
            return 1
        stages = self.method.stages(merged.settings)
        return 1 + sum((1 if hasattr(s, "finish") else 2) for s in stages if s.scope == "model")

    def held(self, output: Output) -> int | None:
        """Bytes that a tensor takes which is held whole, or matrix by matrix; None if it is streamed."""
        if output.settings is None:
            return None
        return held_bytes(self.method, output.settings, output.inputs, self.compute)

    @cached_property
    def largest(self) -> tuple[int, str] | None:
        """The most that one tensor takes which is not streamed, and its name."""
        found = ((held, o.name) for o in self.outputs if (held := self.held(o)) is not None)
        return max(found, default=None)

    @cached_property
    def weights(self) -> dict[ModelRef, dict[str, str]]:
        """Each input's identity: its files' sizes, times and headers, or its content."""
        return {ref: weights_identity(self, ref, c) for ref, c in self.opened.items()}

    @cached_property
    def digest(self) -> str:
        """Identifies the bytes that this plan makes: recipe, inputs, version, options that count."""
        return plan_digest(self)

    def to_dict(self) -> dict[str, Any]:
        """The plan for machines."""
        return {
            "method": self.method.name,
            "conventions": self.conventions,
            "models": [ref.text for ref in self.opened],
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "memory": memory_budget(self.options.memory),
            "held": self.largest and self.largest[0],
            "threads": self.options.threads or cores(),
            "passes": self.passes,
            "shards": [shard.name for shard in self.shards],
            "warnings": self.warnings,
            "excluded": self.excluded,
            "tensors": {o.name: describe(o) for o in self.outputs},
        }

    def summary(self) -> str:
        """The plan for people."""
        merged = sum(o.how == "merge" for o in self.outputs)
        copied = len(self.outputs) - merged
        held = f", of which `{self.largest[1]}` takes {size(self.largest[0])}" if self.largest else ""
        passes = f" in each of {self.passes} passes" if self.passes > 1 else ""
        return "\n".join(
            [
                f"{self.method.name} ({self.conventions} conventions), {counted(len(self.opened), 'model')}",
                f"{counted(merged, 'tensor')} merged, {copied} copied, {len(self.excluded)} excluded",
                f"reads {size(self.bytes_read)}{passes}, "
                f"writes {size(self.bytes_written)} in {counted(len(self.shards), 'file')}",
                f"memory {size(memory_budget(self.options.memory))}{held}, "
                f"{counted(self.options.threads or cores(), 'thread')}",
            ]
        )

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Every tensor for people: its name, how it comes to be, its type, its shape, what it is made of."""
        made = [
            (o.name, o.how, str(o.dtype).removeprefix("torch."), str(list(o.shape)), _origin(o))
            for o in self.outputs
        ]
        return made + [(name, "excluded", "", "", "") for name in self.excluded]


def _origin(output: Output) -> str:
    """Whose tensors it is made of, with their names where these are others than its own."""
    pairs = zip(output.models, output.inputs, strict=True)
    return ", ".join(m if t.name == output.name else f"{m}: {t.name}" for m, t in pairs)


def describe(output: Output) -> dict[str, Any]:
    """How one tensor came to be."""
    found: dict[str, Any] = {
        "how": output.how,
        "shape": list(output.shape),
        "dtype": str(output.dtype).removeprefix("torch."),
        "from": [f"{m}: {t.name}" for m, t in zip(output.models, output.inputs, strict=True)],
    }
    if output.settings is not None and output.settings.matrices is not None:
        found["matrices"] = list(output.settings.matrices)
    if output.settings is not None:
        found["options"] = {
            **output.settings.shared,
            **{k: list(v) for k, v in output.settings.per_model.items()},
        }
    return found
