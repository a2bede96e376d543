"""Models that are themselves recipes: nested ones and earlier stages, planned now and run first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from plait.checkpoint import Checkpoint, LazyTensor, ReadFlat, Shape, open_model
from plait.errors import InputError, noted, raise_all
from plait.recipe import ModelRef, Recipe

if TYPE_CHECKING:
    from plait.engine._plan import Plan


@dataclass
class Stage:
    """A recipe whose output is an input.

    Attributes:
        name: what the outer recipe calls it.
        plan: its own plan.
        result: its output, once it has run.
        files: the files beside its output's weights, from then on until the outer run ends.
    """

    name: str
    plan: Plan
    result: Checkpoint | None = None
    files: Path | None = None

    def tensors(self) -> dict[str, LazyTensor]:
        """Its output's tensors, before they exist."""
        return {o.name: StagedTensor(o.name, o.shape, o.dtype, self) for o in self.plan.outputs}


@dataclass(frozen=True, repr=False)
class StagedTensor(ReadFlat):
    """A tensor of a stage: known by its header now, readable once the stage has run."""

    name: str
    shape: Shape
    dtype: torch.dtype
    stage: Stage

    @property
    def nbytes(self) -> int:
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size

    def read_flat(self, start: int, stop: int) -> Tensor:
        if self.stage.result is None:
            raise InputError(f"the stage `{self.stage.name}` has not run yet", where=f"tensor `{self.name}`")
        return self.stage.result[self.name].read_flat(start, stop)


def open_models(
    recipe: Recipe, refs: Sequence[ModelRef], plan: Callable[[Recipe], Plan]
) -> tuple[dict[ModelRef, Checkpoint], dict[ModelRef, Stage]]:
    """Open every model of a recipe; plan those that are recipes.

    Returns:
        The models, and the stages that some of them are.

    Raises:
        InputError: some can't be opened; all are named.
    """
    opened: dict[ModelRef, Checkpoint] = {}
    stages: dict[int, Stage] = {}
    staged: dict[ModelRef, Stage] = {}
    problems: list[InputError] = []
    if recipe.tokenizer is not None and isinstance(recipe.tokenizer.source, ModelRef):
        refs = [*refs, recipe.tokenizer.source]
    for ref in refs:
        if ref in opened:
            continue
        with noted(problems), _placed(ref, recipe):
            if ref.nested is not None:
                stage = stages.setdefault(id(ref.nested), Stage(ref.text, plan(ref.nested)))
                opened[ref], staged[ref] = _staged(ref, stage), stage
            else:
                opened[ref] = open_model(ref.live if ref.live is not None else ref.text)  # type: ignore[arg-type]
    raise_all(problems)
    return opened, staged


@contextlib.contextmanager
def _placed(ref: ModelRef, recipe: Recipe) -> Iterator[None]:
    """Tell with a model's errors the line of the recipe that names it."""
    line = recipe.places.get(ref.text) if ref.nested is None else None
    try:
        yield
    except InputError as error:
        if line is None:
            raise
        raise error.located(lambda where: f"{where or ref.text} ({line})") from error


def _staged(ref: ModelRef, stage: Stage) -> Checkpoint:
    from plait.engine._config import output_config

    template = stage.plan.template
    found = Checkpoint(
        reference=ref.text,
        tensors=stage.tensors(),
        config=output_config(stage.plan) if template.config else {},
        folder=template.folder,
        sidecars=template.sidecars,
    )
    if ref.adapter is None:
        return found
    from plait.checkpoint._adapter import open_adapter

    return open_adapter(found, Path(ref.adapter))
