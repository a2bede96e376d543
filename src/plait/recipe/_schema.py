"""The one form of a recipe inside plait; mergekit's grammar, plait's own and Python all end here.

    Recipe ─ modules ─ Module ─ slices ─ Slice ─ sources ─ Source ─ model
                 parameters at each of the four levels, the innermost first

A recipe that lists `models` is one module with one slice whose sources take all layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Scalar = bool | int | float | str
Grammar = Literal["mergekit", "plait", "python"]
Conventions = Literal["mergekit", "paper"]
PartKind = Literal["space", "sparsify", "consensus", "scale"]

#: The kinds of parts, in the order in which a pipeline runs them.
PART_KINDS: tuple[PartKind, ...] = ("space", "sparsify", "consensus", "scale")


@dataclass(frozen=True, eq=False)
class ModelRef:
    """A model as the recipe names it. Hashable; equal when text, nested recipe and live object are.

    Attributes:
        text: the user's words: a path, a hub id, `model@revision+adapter@revision`, a stage's name, or
            a name made for a live or nested model.
        nested: the recipe that makes this model (a nested recipe, or an earlier stage).
        live: a module, state dict or checkpoint in memory.
    """

    text: str
    nested: Recipe | None = None
    live: object | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ModelRef):
            return NotImplemented
        return self.text == other.text and self.live is other.live and self.nested == other.nested

    def __hash__(self) -> int:
        return hash((self.text, id(self.live)))

    def __str__(self) -> str:
        return self.text

    @property
    def adapter(self) -> str | None:
        """What follows `+` in the text: the adapter to lay over the model (over a stage as well)."""
        return None if self.live is not None else self.text.partition("+")[2] or None


@dataclass(frozen=True)
class Setting:
    """One value of a parameter, for the tensors that its filter lets through.

    Attributes:
        value: a scalar, or a gradient: two or more scalars spread evenly over the layers.
        filter: a substring of tensor names (mergekit's grammar), a glob on the whole name (plait's), or
            None for every tensor.
    """

    value: Scalar | tuple[Scalar, ...]
    filter: str | None = None


#: Name of a parameter → its settings; the first whose filter matches wins.
Parameters = Mapping[str, tuple[Setting, ...]]


@dataclass(frozen=True)
class Source:
    """One model's share in a slice.

    Attributes:
        model: the model.
        parameters: settings for this model here.
        layer_range: its layers, `[first, last + 1)`; None takes all.
    """

    model: ModelRef
    parameters: Parameters = field(default_factory=dict)
    layer_range: tuple[int, int] | None = None


@dataclass(frozen=True)
class Slice:
    """A run of output layers, merged from the same number of layers of each source.

    Attributes:
        sources: in mergekit's grammar the base is one of them, as there; else only if it is listed.
        parameters: settings for these layers.
        base: the base for this slice, where it differs from the recipe's.
    """

    sources: tuple[Source, ...]
    parameters: Parameters = field(default_factory=dict)
    base: ModelRef | None = None


@dataclass(frozen=True)
class Module:
    """A part of the output model (a text or vision tower), or all of it when `name` is None."""

    name: str | None
    slices: tuple[Slice, ...]
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class TokenSource:
    """Where a token's embedding comes from in the models that lack it (in all of them with `force`).

    Attributes:
        kind: `default` (the usual rules), `model` (this token in `model`), `zero`, or `model_token`
            (another token of `model`, by its text or its id).
        model: for `model` and `model_token`.
        token: for `model_token`.
        token_id: for `model_token`.
        force: replace the embedding in models that have the token, too.
    """

    kind: Literal["default", "model", "zero", "model_token"]
    model: ModelRef | None = None
    token: str | None = None
    token_id: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Tokenizer:
    """How the output's vocabulary is made.

    Attributes:
        source: `base` (or the first model where there is no base), `union`, or a model.
        tokens: token → its source; tokens that the vocabulary lacks are added.
        pad_to_multiple_of: round the number of embedding rows up to a multiple.
    """

    source: Literal["base", "union"] | ModelRef = "union"
    tokens: Mapping[str, TokenSource] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None


@dataclass(frozen=True)
class Part:
    """One step of a composed pipeline.

    Attributes:
        kind: `space`, `sparsify`, `consensus` or `scale`.
        name: which of its kind.
        options: settings of this step alone.
    """

    kind: PartKind
    name: str
    options: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything a merge was asked to do; nothing here reads weights.

    Attributes:
        grammar: which grammar it was written in.
        conventions: whose defaults and semantics hold where papers and mergekit differ.
        method: a method's name, the parts of a pipeline, or a function.
        modules: what is merged; never empty.
        base: the base model.
        parameters: settings for everything.
        dtype: the output's type (`bfloat16`); None keeps the base's or the first model's.
        out_dtype: wins over `dtype`.
        tokenizer: how vocabularies are aligned; None requires equal ones.
        chat_template: `auto`, a template's name, or Jinja text.
        exclude: globs on tensor names that the output leaves out.
        keep: globs on tensor names that are copied from the base or the first model that has them.
        seed: seed of every random draw.
        name: the stage's name.
        code: a Python file that defines the method; running it takes the user's consent.
        origin: the file it came from, for messages.
        warnings: what the reader should tell the user.
        places: a text in the recipe, such as a model's name → `file:line` where it stands, for messages.
        identities: a model in memory that has no name → a digest of some of its values.
    """

    grammar: Grammar
    conventions: Conventions
    method: str | tuple[Part, ...] | Callable[..., object]
    modules: tuple[Module, ...]
    base: ModelRef | None = None
    parameters: Parameters = field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: Tokenizer | None = None
    chat_template: str | None = None
    exclude: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    seed: int = 0
    name: str | None = None
    code: Path | None = None
    origin: str | None = field(default=None, compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    places: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    identities: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def identity(self, model: str) -> str:
        """What orders a model and keys its random draws: its name, if that is more than a place in a list."""
        return self.identities.get(model, model)


def recipe_models(recipe: Recipe) -> list[ModelRef]:
    """The distinct models whose weights the recipe uses: the base first, then in order of appearance."""
    found: dict[ModelRef, None] = {}
    if recipe.base is not None:
        found[recipe.base] = None
    for module in recipe.modules:
        for part in module.slices:
            found.update(dict.fromkeys(source.model for source in part.sources))
            if part.base is not None:
                found[part.base] = None
    return list(found)
