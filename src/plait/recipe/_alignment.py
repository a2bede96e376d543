"""Models with different vocabularies brought to one: which row of which embedding goes where.

Every model's embedding is rearranged to the output's tokens before it is merged. A token that a model has
keeps that model's row. For one that it lacks, the recipe may name a source; else the base's row is taken,
or the only row there is, or the mean of all there are, or zeros if no model has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from plait.errors import InputError, raise_all
from plait.recipe._document import quote
from plait.recipe._schema import ModelRef, Tokenizer, TokenSource
from plait.recipe._vocabulary import AddedToken, Vocabulary

#: Rows without a token that an embedding may have.
_MOST_EMPTY = 1 << 16

#: Rows of embeddings, as (position of the model, row in its own embedding).
Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Alignment:
    """How embeddings become those of the output.

    Attributes:
        tokens: token → id in the output, ordered by id.
        rows: rows of the output's embeddings, padding included.
        models: the merged models, in the order of `permutations`.
        model_rows: rows of each model's own embedding.
        permutations: per model `(rows,)` int64: output row → the model's own row, or -1 where `fallbacks`
            or `padding` says what it is.
        fallbacks: output row → the rows whose mean it is, for models with -1 there; no rows means zeros.
        padding: output rows `(n,)` without a token: each is the mean of the model's other aligned rows.
        template: the vocabulary whose files the output's tokenizer starts from.
        added: tokens of the output that `template` lacks, with how they behave.
        warnings: what the user should know.
    """

    tokens: Mapping[str, int]
    rows: int
    models: tuple[ModelRef, ...]
    model_rows: tuple[int, ...]
    permutations: tuple[np.ndarray, ...]
    fallbacks: Mapping[int, Rows]
    padding: np.ndarray
    template: Vocabulary
    added: Mapping[str, AddedToken]
    warnings: tuple[str, ...] = ()

    @property
    def is_identity(self) -> bool:
        """Whether every model keeps all of its rows where they are."""
        order = np.arange(self.rows)
        same = all(rows == self.rows for rows in self.model_rows) and not len(self.padding)
        return same and all(np.array_equal(p, order) for p in self.permutations)


def align_vocabularies(
    spec: Tokenizer,
    vocabularies: Mapping[ModelRef, Vocabulary],
    *,
    models: Sequence[ModelRef],
    base: ModelRef | None = None,
) -> Alignment:
    """The output's vocabulary, and where each row of its embeddings comes from.

    Args:
        spec: the recipe's `tokenizer`.
        vocabularies: of every merged model, and of `spec.source` if that is another model.
        models: the merged models (the base among them if it is merged), distinct; new tokens of a union
            get their ids in this order, the base's first.
        base: the base; the first model stands in where there is none.

    Raises:
        InputError: a token's source does not have it, or names a model that is not merged.
    """
    first = base if base in vocabularies and base is not None else models[0]
    template, tokens, added = _output(spec, vocabularies, models, first)
    size = max(tokens.values(), default=-1) + 1
    multiple = spec.pad_to_multiple_of or 1
    rows = -(-size // multiple) * multiple
    if rows - len(tokens) > _MOST_EMPTY:
        where = "the recipe's tokenizer" if template.folder is None else str(template.folder)
        what = f"{rows} rows for {len(tokens)} tokens: the ids have gaps, or `pad_to_multiple_of` is large"
        raise InputError(what, where=where)
    own = [_permutation(vocabularies[model], tokens, rows) for model in models]
    known = np.zeros(rows, dtype=bool)
    known[list(tokens.values())] = True
    place = None if base is None or base not in models else list(models).index(base)
    builder = _Fallbacks(spec, vocabularies, list(models), place, tokens, own)
    fallbacks = builder.build()
    permutations = [permutation.copy() for permutation in own]
    forced = [tokens[token] for token, entry in spec.tokens.items() if entry.force and token in tokens]
    for permutation in permutations:
        permutation[forced] = -1
    return Alignment(
        tokens=tokens,
        rows=rows,
        models=tuple(models),
        model_rows=tuple(vocabularies[model].rows for model in models),
        permutations=tuple(permutations),
        fallbacks=fallbacks,
        padding=np.flatnonzero(~known),
        template=template,
        added=added,
        warnings=tuple(builder.warnings),
    )


def _output(
    spec: Tokenizer, vocabularies: Mapping[ModelRef, Vocabulary], models: Sequence[ModelRef], first: ModelRef
) -> tuple[Vocabulary, dict[str, int], dict[str, AddedToken]]:
    """The template, the output's tokens, and those that the template lacks."""
    if isinstance(spec.source, ModelRef):
        template = vocabularies[spec.source]
        tokens = dict(sorted(template.tokens.items(), key=lambda pair: pair[1]))
    else:
        template = vocabularies[first]
        tokens = template.used()
    new: dict[str, AddedToken] = {}
    if spec.source == "union":
        ordered = [vocabularies[first], *(vocabularies[model] for model in models if model != first)]
        new = _union(ordered)
    new |= {token: AddedToken() for token in spec.tokens if token not in new}
    new = {token: info for token, info in new.items() if token not in tokens}
    start = max(tokens.values(), default=-1) + 1
    tokens |= {token: start + index for index, token in enumerate(new)}
    return template, tokens, new


def _union(ordered: Sequence[Vocabulary]) -> dict[str, AddedToken]:
    """All tokens in the order of their new ids: the models' own first, then the added ones."""
    added: dict[str, AddedToken] = {}
    for vocabulary in ordered:
        for token in vocabulary.used():
            if token in vocabulary.added:
                added.setdefault(token, vocabulary.added[token])
    own = {
        token: AddedToken()
        for vocabulary in ordered
        for token in vocabulary.used()
        if token not in vocabulary.added and token not in added
    }
    return {**own, **added}


def _permutation(vocabulary: Vocabulary, tokens: Mapping[str, int], rows: int) -> np.ndarray:
    """`(rows,)` int64: output row → this model's row of the same token, or -1."""
    result = np.full(rows, -1, dtype=np.int64)
    own, limit = vocabulary.tokens, vocabulary.rows
    for token, row in tokens.items():
        found = own.get(token, limit)
        if found < limit:
            result[row] = found
    return result


@dataclass
class _Fallbacks:
    """Finds, for each token that some model lacks, the rows to take instead."""

    spec: Tokenizer
    vocabularies: Mapping[ModelRef, Vocabulary]
    models: list[ModelRef]
    base: int | None
    tokens: Mapping[str, int]
    own: list[np.ndarray]
    warnings: list[str] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)

    def build(self) -> dict[int, Rows]:
        """Output row → rows to average."""
        stacked: np.ndarray = np.stack(self.own)
        lacking = stacked.min(axis=0) < 0
        found = {}
        nowhere = []
        for token, row in self.tokens.items():
            entry = self.spec.tokens.get(token)
            forced = entry is not None and entry.force
            if not lacking[row] and not forced:
                continue
            if entry is None or entry.kind == "default":
                found[row] = self._default(stacked[:, row])
                if forced:
                    self._refuse(token, "`force` needs a `source`")
                if not found[row]:
                    nowhere.append(token)
            else:
                found[row] = self._named(token, row, entry)
        raise_all(self.problems)
        if nowhere:
            shown = ", ".join(quote(token) for token in nowhere[:5]) + (", ..." if len(nowhere) > 5 else "")
            self.warnings.append(f"no model has an embedding for {len(nowhere)} tokens, zeros it is: {shown}")
        return found

    def _default(self, rows: np.ndarray) -> Rows:
        holders = [(model, int(row)) for model, row in enumerate(rows) if row >= 0]
        if self.base is not None and rows[self.base] >= 0:
            return ((self.base, int(rows[self.base])),)
        return tuple(holders)

    def _named(self, token: str, row: int, entry: TokenSource) -> Rows:
        if entry.kind == "zero" or entry.model is None:
            return ()
        if entry.model not in self.models:
            self._refuse(token, f"its source {quote(entry.model.text)} is not one of the merged models")
            return ()
        index = self.models.index(entry.model)
        vocabulary = self.vocabularies[entry.model]
        if entry.kind == "model":
            source = int(self.own[index][row])
        elif entry.token_id is not None:
            source = entry.token_id if entry.token_id < vocabulary.rows else -1
        else:
            source = vocabulary.tokens.get(entry.token or "", -1)
        if not 0 <= source < vocabulary.rows:
            wanted = {"model": token, "model_token": entry.token or entry.token_id}[entry.kind]
            self._refuse(token, f"its source {quote(entry.model.text)} has no embedding for {quote(wanted)}")
            return ()
        return ((index, source),)

    def _refuse(self, token: str, what: str) -> None:
        self.problems.append(InputError(what, where=f"the recipe's tokenizer, token {quote(token)}"))
