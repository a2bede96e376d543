"""The `tokenizer` section as it is written, in both grammars."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, ValidationInfo

from plait.errors import nearest
from plait.recipe._document import Keys, notes_of, quote, refuse
from plait.recipe._schema import ModelRef, Tokenizer, TokenSource
from plait.recipe._shape import parse_ref


def _parse_vocabulary(value: Any, info: ValidationInfo) -> Literal["base", "union"] | ModelRef:
    if value in ("base", "union"):
        return value
    found = parse_ref(value, info)
    if isinstance(value, str) and not Path(value).exists():
        hint = nearest(value, ("base", "union"))
        if hint.startswith("did you mean"):
            raise refuse("it must be base, union or a model, and no such model is here", hint)
    return found


def _parse_token_source(value: Any, info: ValidationInfo) -> TokenSource:
    if value is None:
        return TokenSource("default")
    if not isinstance(value, dict) or "kind" not in value:
        return TokenSource("model", parse_ref(value, info))
    kind = value["kind"]
    if kind == "zero":
        notes_of(info).note(value, ("kind",))
        return TokenSource("zero")
    if kind != "model_token":
        raise refuse("its kind must be `zero` or `model_token`")
    notes_of(info).note(value, ("kind", "model", "token", "token_id"))
    return _model_token(value, info)


def _model_token(value: dict[str, Any], info: ValidationInfo) -> TokenSource:
    token, token_id = value.get("token"), value.get("token_id")
    if (token is None) == (token_id is None):
        raise refuse("a `model_token` has either `token` or `token_id`")
    if token is not None and not isinstance(token, str):
        raise refuse(f"its token {quote(token)} must be text", "put it in quotes, or use `token_id`")
    if token_id is not None and (type(token_id) is not int or token_id < 0):
        raise refuse(f"its token_id {quote(token_id)} must be a number from 0 on")
    if "model" not in value:
        raise refuse("a `model_token` needs a `model`")
    return TokenSource("model_token", parse_ref(value["model"], info), token, token_id)


class RawToken(Keys):
    """One entry of `tokens`."""

    source: Annotated[TokenSource, PlainValidator(_parse_token_source)] = TokenSource("default")
    force: bool = False


class RawTokenizer(Keys):
    """The `tokenizer` section."""

    source: Annotated[Literal["base", "union"] | ModelRef, PlainValidator(_parse_vocabulary)] = "union"
    tokens: dict[str, RawToken] | None = None
    pad_to_multiple_of: Annotated[int, Field(ge=1)] | None = None

    def build(self) -> Tokenizer:
        """The section as the recipe holds it."""
        tokens = {token: _forced(raw) for token, raw in (self.tokens or {}).items()}
        return Tokenizer(self.source, tokens, self.pad_to_multiple_of)


Vocabulary = Annotated[Literal["base", "union"] | ModelRef | None, PlainValidator(_parse_vocabulary)]


def _forced(raw: RawToken) -> TokenSource:
    source = raw.source
    return TokenSource(source.kind, source.model, source.token, source.token_id, raw.force)
