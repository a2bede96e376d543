"""What both grammars share below the top level: models, slices, modules, and what they compile to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo

from plait.errors import InputError
from plait.recipe._document import Keys, Settings, notes_of, quote, refuse
from plait.recipe._schema import ModelRef, Module, Parameters, Slice, Source
from plait.recipe._yaml import KeyPath, YamlDocument


def parse_ref(value: Any, info: ValidationInfo) -> ModelRef:
    """A model: text; in mergekit's grammar also its mapping form; in plait's also a recipe."""
    notes = notes_of(info)
    if isinstance(value, dict) and notes.nested is not None:
        return notes.nested(value)
    if isinstance(value, dict) and not notes.strict:
        notes.note(value, ("model", "lora"))
        return _from_mapping(value)
    if not isinstance(value, str) or not value.strip():
        raise refuse(
            "it must name a model", "put it in quotes" if value and not isinstance(value, str) else ""
        )
    if not notes.strict:
        _check_grammar(value)
    return ModelRef(value)


def _check_grammar(text: str) -> None:
    """mergekit's form is `model@revision+adapter@revision`, with each sign at most once per name."""
    pieces = text.split("+")
    if len(pieces) > 2 or any(piece.count("@") > 1 or not piece for piece in pieces):
        raise refuse("it must have the form `model@revision+adapter@revision`")


def _from_mapping(value: dict[str, Any]) -> ModelRef:
    """`{model: {path, revision}, lora: {path, revision}}`, the form that mergekit writes for odd names."""
    if "merge" in value or "merge_method" in value:
        raise refuse("mergekit's grammar has no nested recipes", "name a stage, or use `merge:` at the top")
    texts = [_path_text(value[key]) for key in ("model", "lora") if value.get(key) is not None]
    if "model" not in value or not all(texts):
        raise refuse("it must be a name or {model: {path: ..., revision: ...}, lora: ...}")
    text = "+".join(texts)
    _check_grammar(text)
    return ModelRef(text)


def _path_text(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        revision = value.get("revision")
        return f"{value['path']}@{revision}" if revision else value["path"]
    return value if isinstance(value, str) else ""


def _check_range(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] < value[1]:
        raise refuse("it must be [first, last + 1], counted from 0, with one layer at least")
    return value


Ref = Annotated[ModelRef, PlainValidator(parse_ref)]
LayerRange = Annotated[tuple[int, int], AfterValidator(_check_range)]
RawParameters = dict[str, Settings]


class RawModel(Keys):
    """One entry of `models`."""

    model: Ref
    parameters: RawParameters | None = None


class RawSource(Keys):
    """One entry of a slice's `sources`."""

    model: Ref
    layer_range: LayerRange
    parameters: RawParameters | None = None


class RawSlice(Keys):
    """One entry of `slices`."""

    sources: list[RawSource] = Field(min_length=1)
    base_model: Ref | None = None
    parameters: RawParameters | None = None


AnySlice = TypeVar("AnySlice", bound=RawSlice)


class RawModule(Keys, Generic[AnySlice]):
    """One entry of `modules`."""

    slices: list[AnySlice] | None = None
    models: list[RawModel] | None = None
    parameters: RawParameters | None = None


class RawBody(Keys, Generic[AnySlice]):
    """The keys at the top that say what is merged."""

    modules: dict[str, RawModule[AnySlice]] | None = None
    slices: list[AnySlice] | None = None
    models: list[RawModel] | None = None


class BodyBuilder:
    """Compiles models, slices and modules, and collects what is wrong with them."""

    def __init__(self, document: YamlDocument, base: ModelRef | None, *, add_base: bool) -> None:
        self.problems: list[InputError] = []
        self._document, self._base, self._add_base = document, base, add_base

    def build(self, body: RawBody[Any]) -> tuple[Module, ...]:
        """The modules; a recipe without `modules` has one without a name."""
        given = [key for key in ("models", "slices", "modules") if self._document.data.get(key)]
        if len(given) != 1:
            found = " and ".join(f"`{key}`" for key in given) or "none of them"
            self._refuse(
                (), f"a recipe has exactly one of `models`, `slices` and `modules`, and this has {found}"
            )
            return ()
        if not getattr(body, given[0]):
            return ()  # what was given is faulty, and told
        if body.modules:
            return tuple(self._module(name, raw, ("modules", name)) for name, raw in body.modules.items())
        return (Module(None, self._slices(body.slices, body.models, ())),)

    def _module(self, name: str, raw: RawModule[Any], path: KeyPath) -> Module:
        if bool(raw.slices) == bool(raw.models):
            found = "both" if raw.slices else "neither"
            self._refuse(
                path, f"`{self._document.show(path)}` has either `models` or `slices`, and this has {found}"
            )
        return Module(name, self._slices(raw.slices, raw.models, path), raw.parameters or {})

    def _slices(
        self, slices: Sequence[RawSlice] | None, models: Sequence[RawModel] | None, path: KeyPath
    ) -> tuple[Slice, ...]:
        if slices:
            return tuple(self._slice(raw, (*path, "slices", index)) for index, raw in enumerate(slices))
        sources = [Source(raw.model, raw.parameters or {}) for raw in models or ()]
        self._check_distinct(sources, (*path, "models"))
        if self._add_base and self._base is not None and all(s.model != self._base for s in sources):
            sources.append(Source(self._base))
        return (Slice(tuple(sources)),)

    def _slice(self, raw: RawSlice, path: KeyPath) -> Slice:
        sources = [Source(s.model, s.parameters or {}, s.layer_range) for s in raw.sources]
        self._check_distinct(sources, (*path, "sources"))
        lengths = [s.layer_range[1] - s.layer_range[0] for s in raw.sources]
        if len(set(lengths)) > 1:
            counts = ", ".join(
                f"{n} of {quote(s.model.text)}" for n, s in zip(lengths, raw.sources, strict=True)
            )
            self._refuse(path, f"`{self._document.show(path)}` merges different numbers of layers: {counts}")
        return Slice(tuple(sources), raw.parameters or {}, raw.base_model)

    def _check_distinct(self, sources: list[Source], path: KeyPath) -> None:
        seen: dict[ModelRef, int] = {}
        for index, source in enumerate(sources):
            first = seen.setdefault(source.model, index)
            if first != index:
                self._refuse(
                    (*path, index),
                    f"`{self._document.show(path)}` has the model {quote(source.model.text)} twice",
                    "give it once, with the sum of the weights",
                )

    def _refuse(self, path: KeyPath, what: str, hint: str | None = None) -> None:
        self.problems.append(InputError(what, where=self._document.locate(path), hint=hint))


def levels(modules: tuple[Module, ...], parameters: Parameters) -> list[tuple[KeyPath, str, Parameters]]:
    """Every mapping of parameters in a recipe: its path there, its level, and itself.

    Levels are `recipe`, `module`, `slice` and `source`.
    """
    found: list[tuple[KeyPath, str, Parameters]] = [(("parameters",), "recipe", parameters)]
    for module in modules:
        top: KeyPath = () if module.name is None else ("modules", module.name)
        if module.name is not None:
            found.append(((*top, "parameters"), "module", module.parameters))
        for index, part in enumerate(module.slices):
            whole = all(source.layer_range is None for source in part.sources)
            inner: KeyPath = top if whole else (*top, "slices", index)
            found.append(((*inner, "parameters"), "slice", part.parameters))
            place = (*top, "models") if whole else (*inner, "sources")
            found += [((*place, i, "parameters"), "source", s.parameters) for i, s in enumerate(part.sources)]
    return [item for item in found if item[2]]
