"""The plan: everything that headers, configs and the recipe can tell, before any weight is read."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

from plait.checkpoint import Checkpoint, LazyTensor, Shape, ShardFile, find_embeddings
from plait.engine._align import excluder, places
from plait.engine._identity import plan_digest, weights_identity
from plait.engine._layout import lay_out
from plait.engine._limits import RunOptions, cores, memory_budget
from plait.engine._models import Models, Place, find_ties
from plait.engine._modules import owners
from plait.engine._settings import Options, OptionsAt, options_of
from plait.engine._stacked import StackedLayers
from plait.engine._stage import Stage, open_models
from plait.engine._vocabulary import align
from plait.errors import InputError, raise_all
from plait.methods import Method, Settings
from plait.recipe import (
    Alignment,
    ModelRef,
    Recipe,
    Slice,
    filter_warnings,
    read_chat_template,
    recipe_models,
    resolve_chat_template,
)

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
        return lay_out(self.outputs, self.options.max_shard_size, self.template)

    @cached_property
    def compiled(self) -> bool:
        """Whether rules run compiled: small merges are done before a compiler would be loaded."""
        return sum(math.prod(o.shape) for o in self.outputs if o.how == "merge") >= COMPILED_FROM

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
        return "\n".join(
            [
                f"{self.method.name} ({self.conventions} conventions), {len(self.opened)} models",
                f"{merged} tensors merged, {copied} copied, {len(self.excluded)} excluded",
                f"reads {self.bytes_read / 1e9:.3f} GB ({self.passes} passes), "
                f"writes {self.bytes_written / 1e9:.3f} GB in {len(self.shards)} files",
                f"memory {memory_budget(self.options.memory) / 1e9:.2f} GB, "
                f"{self.options.threads or cores()} threads",
            ]
        )


def describe(output: Output) -> dict[str, Any]:
    """How one tensor came to be."""
    found: dict[str, Any] = {
        "how": output.how,
        "shape": list(output.shape),
        "dtype": str(output.dtype).removeprefix("torch."),
        "from": [f"{m}: {t.name}" for m, t in zip(output.models, output.inputs, strict=True)],
    }
    if output.settings is not None:
        found["options"] = {
            **output.settings.shared,
            **{k: list(v) for k, v in output.settings.per_model.items()},
        }
    return found


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """Planning makes a few objects per tensor and no cycles; looking for some takes a third of its time."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@_no_collector()
def build_plan(recipe: Recipe, options: RunOptions | None = None) -> Plan:
    """Check everything and lay the merge out.

    Args:
        recipe: what to merge.
        options: how to run.

    Raises:
        InputError: something is wrong; all that is found is named at once.
    """
    options = options or RunOptions()
    _check_device(options.device)
    if recipe.code is not None:
        recipe = _with_code(recipe, options)
    asked, chosen = recipe, options_of(recipe)
    if chosen.method.symmetric:
        recipe = _in_canonical_order(recipe)
        chosen = options_of(recipe)
    opened, staged = open_models(recipe, recipe_models(recipe), lambda nested: build_plan(nested, options))
    _check_counts(recipe, chosen.method)
    alignment = None
    warnings = [*recipe.warnings, *chosen.warnings]
    used = {ref: opened[ref] for ref in recipe_models(recipe)}
    tied = find_ties(used)
    if recipe.tokenizer is not None:
        opened, tied, alignment = align(recipe.tokenizer, opened, tied, recipe.base, staged)
        used = {ref: opened[ref] for ref in used}
        warnings += alignment.warnings
    problems: list[InputError] = []
    chat_template = _chat_template(recipe, used, staged, problems)
    excluded: list[str] = []
    stacks: list[StackedLayers] = []
    # Ids of tokens in a config belong to the vocabulary, so the files come from where that comes from.
    first = recipe_models(asked if alignment is None else recipe)[0]
    modules = owners(recipe, used, excluder(recipe.exclude), warnings, problems)
    found = list(places(recipe, Models(used, tied), modules, problems, excluded, first, stacks))
    builder = _Builder(recipe, chosen, opened, options, problems)
    outputs = [output for place in found for output in builder.outputs(place)]
    if not outputs and not problems:
        problems.append(InputError("nothing is left to merge", where=recipe.origin))
    raise_all(problems)
    names = [name for place in found for name in (place.name, *place.names)]
    warnings += filter_warnings(recipe, [*names, *excluded])
    plan = Plan(
        asked,
        chosen.method,
        opened,
        outputs,
        excluded,
        warnings,
        compute=torch.float64 if options.float64 or builder.wide else torch.float32,
        options=options,
        alignment=alignment,
        chat_template=chat_template,
        first=first,
        tied=frozenset(tied[first]),
        stacks=stacks,
        staged=staged,
    )
    _check_memory(plan)
    return plan


def _chat_template(
    recipe: Recipe,
    opened: Mapping[ModelRef, Checkpoint],
    staged: Mapping[ModelRef, Stage],
    problems: list[InputError],
) -> str | None:
    if recipe.chat_template is None:
        return None
    try:
        own = [_own_template(opened[ref], staged.get(ref)) for ref in opened]
        return resolve_chat_template(recipe.chat_template, own)
    except InputError as error:
        problems.append(error)
        return None


def _own_template(model: Checkpoint, stage: Stage | None) -> str | None:
    """A model's chat template: the one in its folder, or the one that its stage will have."""
    if stage is None:
        return None if model.folder is None else read_chat_template(model.folder)
    plan = stage.plan
    if plan.chat_template is not None:
        return plan.chat_template
    return _own_template(plan.opened[plan.tokenizer_from], plan.staged.get(plan.tokenizer_from))


def _in_canonical_order(recipe: Recipe) -> Recipe:
    """The recipe with its models by name: listing them in another order changes no weight, buffers included.

    The files that travel are no weights: without a base they are those of the model that is listed first.
    """
    modules = tuple(
        replace(
            module,
            slices=tuple(
                replace(part, sources=tuple(sorted(part.sources, key=lambda source: source.model.text)))
                for part in module.slices
            ),
        )
        for module in recipe.modules
    )
    return replace(recipe, modules=modules)


def _check_device(name: str) -> None:
    try:
        torch.zeros(1, device=torch.device(name))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"the device `{name}` can't be used: {reason}", hint="leave out --device") from error


def _with_code(recipe: Recipe, options: RunOptions) -> Recipe:
    from plait.engine._code import load_method

    return load_method(recipe, allowed=options.allow_code)


def _check_counts(recipe: Recipe, method: Method) -> None:
    problems = []
    for module in recipe.modules:
        for part in module.slices:
            base = part.base or recipe.base
            if recipe.grammar == "mergekit" and method.base != "unused" and base is not None:
                problems += _without_base(part, base, recipe)
            count = sum(s.model != base or method.base == "unused" for s in part.sources)
            if method.base == "required" and base is None:
                hint = "name it: `base_model`" if recipe.grammar == "mergekit" else "name it: `base`"
                problems.append(
                    InputError(
                        f"the method `{method.name}` needs a base model", where=recipe.origin, hint=hint
                    )
                )
            if count < method.min_models or (method.max_models is not None and count > method.max_models):
                bounds = (
                    f"{method.min_models}"
                    if method.max_models == method.min_models
                    else (
                        f"at least {method.min_models}"
                        if method.max_models is None
                        else f"{method.min_models} to {method.max_models}"
                    )
                )
                beside = "" if method.base == "unused" else " besides the base"
                problems.append(
                    InputError(
                        f"the method `{method.name}` takes {bounds} models{beside}, not {count}",
                        where=recipe.origin,
                    )
                )
    raise_all(problems)


def _without_base(part: Slice, base: ModelRef, recipe: Recipe) -> list[InputError]:
    """mergekit's slices list the base, whose layers are where it says."""
    if any(source.model == base for source in part.sources):
        return []
    what = (
        f"a slice of {', '.join(source.model.text for source in part.sources)} lacks the base `{base.text}`"
    )
    return [
        InputError(what, where=recipe.origin, hint="list it among the slice's `sources`, with its layers")
    ]


def _check_memory(plan: Plan) -> None:
    budget = memory_budget(plan.options.memory)
    problems = []
    for output in plan.outputs:
        if output.settings is None or not plan.method.whole(output.settings):
            continue
        needed = math.prod(output.shape) * plan.compute.itemsize * (len(output.inputs) + 6)
        if needed > budget:
            problems.append(
                InputError(
                    f"`{plan.method.name}` must hold the tensor `{output.name}` whole: "
                    f"{needed / 1e9:.2f} GB, and the budget is {budget / 1e9:.2f} GB",
                    hint="raise --memory",
                )
            )
    raise_all(problems)


class _Role(NamedTuple):
    """What is the same for all tensors of floats in one slice.

    Attributes:
        chosen: which of the slice's sources are merged, in order: not the base.
        models: whose the inputs are, the base's first.
        options: the method's.
    """

    chosen: list[int]
    models: tuple[str, ...]
    options: OptionsAt


class _Builder:
    """Makes outputs of places, collecting problems."""

    def __init__(
        self,
        recipe: Recipe,
        options: Options,
        opened: Mapping[ModelRef, Checkpoint],
        run: RunOptions,
        problems: list[InputError],
    ) -> None:
        self.recipe, self.options, self.opened, self.problems = recipe, options, opened, problems
        self.method = options.method
        self.wide = False
        name = recipe.out_dtype or recipe.dtype
        self.dtype = getattr(torch, name) if name else None
        self.embeddings = {ref: find_embeddings(c, c.config) for ref, c in opened.items()}
        self._roles: dict[tuple[int, str | None], _Role] = {}
        self._said: set[str] = set()

    def outputs(self, place: Place) -> list[Output]:
        base_ref = place.slice.base or self.recipe.base
        given = [(source.model.text, tensor) for source, tensor in place.inputs]
        if place.base is not None and base_ref is not None:
            given.insert(0, (base_ref.text, place.base))
        lead_name, lead = given[0]
        if not self._alike(place, given):
            return []
        if not lead.dtype.is_floating_point:
            return [Output(place.name, lead.shape, lead.dtype, "copy", (lead,), (lead_name,), False, None)]
        base = place.base if self.method.base != "unused" else None
        try:
            role = self._role(place, base_ref if base is not None else None)
            own = [place.names[i] for i in role.chosen]
            settings = role.options.settings(place.name, own, place.t, lead.shape)
            wrong = self.method.check(settings)
            if wrong:
                raise InputError(wrong, where=f"tensor `{place.name}`")
        except InputError as error:
            self._say(error)
            return []
        inputs = [place.inputs[i][1] for i in role.chosen]
        if base is not None:
            inputs.insert(0, base)
        if not self.wide:
            self.wide = torch.float64 in [t.dtype for t in inputs]
        dtype = self.dtype or lead.dtype
        return [
            Output(
                place.name,
                lead.shape,
                dtype,
                "merge",
                tuple(inputs),
                role.models,
                base is not None,
                settings,
            )
        ]

    def _role(self, place: Place, base: ModelRef | None) -> _Role:
        key = id(place.slice), None if base is None else base.text
        if key not in self._roles:
            kept = [i for i, (source, _) in enumerate(place.inputs) if base is None or source.model != base]
            if self.method.symmetric:
                kept.sort(key=lambda i: place.inputs[i][0].model.text)
            sources = [place.inputs[i][0] for i in kept]
            names = [*([] if base is None else [base.text]), *(source.model.text for source in sources)]
            options = self.options.at(place.module, place.slice, sources)
            self._roles[key] = _Role(kept, tuple(names), options)
        return self._roles[key]

    def _alike(self, place: Place, given: Sequence[tuple[str, LazyTensor]]) -> bool:
        """Whether all have one shape, and none is of integers where others are not; else a problem."""
        shape, floating = given[0][1].shape, given[0][1].dtype.is_floating_point
        for _, tensor in given:  # plain, as it is done for every tensor
            if tensor.shape != shape or tensor.dtype.is_floating_point != floating:
                break
        else:
            return True
        if all(t.shape == shape for _, t in given):
            word, told = "types", {m: f"{m} has {str(t.dtype).removeprefix('torch.')}" for m, t in given}
        else:
            word, told = "shapes", {m: f"{m} has {list(t.shape)}" for m, t in given}
        vocabulary = any(place.name in found for found in self.embeddings.values())
        hint = (
            "the models' vocabularies differ: add `tokenizer: {source: union}` to the recipe"
            if vocabulary and word == "shapes"
            else f"merge models of one architecture, or leave it out with `exclude: [{place.name}]`"
        )
        text = f"the tensor `{place.name}` has different {word}: {', '.join(told.values())}"
        self.problems.append(InputError(text, hint=hint))
        return False

    def _say(self, error: InputError) -> None:
        if error.what not in self._said:  # the first tensor stands for all that have this problem
            self._said.add(error.what)
            self.problems.append(error)
