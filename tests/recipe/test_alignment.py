"""Vocabularies of a few tokens, aligned by rules that can be followed by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plait.errors import InputError
from plait.recipe import (
    AddedToken,
    ModelRef,
    Tokenizer,
    TokenSource,
    Vocabulary,
    align_tables,
    align_vocabularies,
)

A, B, C = ModelRef("a"), ModelRef("b"), ModelRef("c")


def vocabulary(text: str, rows: int | None = None, added: tuple[str, ...] = ()) -> Vocabulary:
    tokens = {token: row for row, token in enumerate(text.split())}
    return Vocabulary(tokens, rows or len(tokens), {token: AddedToken(special=True) for token in added})


def align(spec: Tokenizer, base: ModelRef | None = None, **texts: Vocabulary):
    vocabularies = {ModelRef(name): found for name, found in texts.items()}
    return align_vocabularies(spec, vocabularies, models=list(vocabularies), base=base)


def test_equal_vocabularies_need_nothing():
    found = align(Tokenizer("union"), a=vocabulary("x y z"), b=vocabulary("x y z"))
    assert found.is_identity
    assert dict(found.fallbacks) == {}
    assert found.added == {}
    assert not align(Tokenizer("base"), a=vocabulary("x y", rows=8), b=vocabulary("x y")).is_identity


def test_the_base_keeps_its_tokens_and_others_are_rearranged():
    found = align(Tokenizer("base"), A, a=vocabulary("x y z"), b=vocabulary("z w x"))
    assert found.tokens == {"x": 0, "y": 1, "z": 2}
    assert [p.tolist() for p in found.permutations] == [[0, 1, 2], [2, -1, 0]]
    assert found.fallbacks == {1: ((0, 1),)}
    assert not found.is_identity


def test_a_union_appends_the_models_tokens_and_then_the_added_ones():
    a, b, c = vocabulary("x y <s>", added=("<s>",)), vocabulary("y <t> w", added=("<t>",)), vocabulary("v w")
    found = align(Tokenizer("union"), A, a=a, b=b, c=c)
    assert list(found.tokens) == ["x", "y", "<s>", "w", "v", "<t>"]
    assert list(found.tokens.values()) == list(range(6))
    assert found.added == {"w": AddedToken(), "v": AddedToken(), "<t>": AddedToken(special=True)}


def test_a_missing_row_comes_from_the_base_else_the_only_one_else_the_mean():
    a, b, c = vocabulary("x p"), vocabulary("x q p2"), vocabulary("q p2")
    found = align(Tokenizer("union"), A, a=a, b=b, c=c)
    row = found.tokens
    assert found.fallbacks[row["x"]] == ((0, 0),)  # the base has it
    assert found.fallbacks[row["p"]] == ((0, 1),)  # nobody else has it
    assert found.fallbacks[row["q"]] == ((1, 1), (2, 0))  # both that have it
    without_base = align(Tokenizer("union"), None, a=a, b=b, c=c)
    assert without_base.fallbacks[without_base.tokens["x"]] == ((0, 0), (1, 0))


def test_a_token_of_no_model_is_zeros_and_a_warning():
    found = align(
        Tokenizer("base", {"<new>": TokenSource("default")}), A, a=vocabulary("x"), b=vocabulary("x")
    )
    assert found.tokens == {"x": 0, "<new>": 1}
    assert found.fallbacks == {1: ()}
    assert "`'<new>'`" in found.warnings[0]


def test_tokens_take_the_sources_that_the_recipe_names():
    tokens = {
        "y": TokenSource("model", B),
        "<zero>": TokenSource("zero"),
        "<alias>": TokenSource("model_token", B, token="w"),
        "<id>": TokenSource("model_token", A, token_id=1),
        "x": TokenSource("model", B, force=True),
    }
    found = align(Tokenizer("base", tokens), A, a=vocabulary("x z y"), b=vocabulary("x w y"))
    row = found.tokens
    assert found.fallbacks[row["<zero>"]] == ()
    assert found.fallbacks[row["<alias>"]] == ((1, 1),)
    assert found.fallbacks[row["<id>"]] == ((0, 1),)
    assert found.fallbacks[row["x"]] == ((1, 0),)
    assert [p[row["x"]] for p in found.permutations] == [-1, -1]
    assert row["y"] not in found.fallbacks  # both have it, and nothing is forced


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (TokenSource("model", B, force=True), "its source `'b'` has no embedding for `'z'`"),
        (TokenSource("model", C, force=True), "its source `'c'` is not one of the merged models"),
        (TokenSource("model_token", B, token="no", force=True), "has no embedding for `'no'`"),
        (TokenSource("model_token", B, token_id=9, force=True), "has no embedding for `9`"),
        (TokenSource("default", force=True), "`force` needs a `source`"),
    ],
)
def test_sources_that_have_nothing_to_give_are_refused(entry: TokenSource, message: str):
    with pytest.raises(InputError) as caught:
        align(Tokenizer("base", {"z": entry}), A, a=vocabulary("x z"), b=vocabulary("x"))
    assert message in str(caught.value)
    assert "token `'z'`" in str(caught.value)


def test_tokens_without_a_row_do_not_exist():
    found = align(Tokenizer("union"), A, a=vocabulary("x y ghost", rows=2), b=vocabulary("x y other", rows=2))
    assert found.tokens == {"x": 0, "y": 1}


def test_the_vocabulary_may_be_that_of_another_model():
    vocabularies = {A: vocabulary("x y"), B: vocabulary("y z"), C: vocabulary("z x")}
    found = align_vocabularies(Tokenizer(C), vocabularies, models=[A, B], base=A)
    assert found.tokens == {"z": 0, "x": 1}
    assert [p.tolist() for p in found.permutations] == [[-1, 0], [1, -1]]
    assert found.fallbacks == {0: ((1, 1),), 1: ((0, 0),)}


def test_padding_rounds_up_and_is_the_mean_of_the_other_rows():
    found = align(Tokenizer("base", {}, 4), A, a=vocabulary("x y z", rows=8), b=vocabulary("x y z"))
    assert found.rows == 4
    assert found.padding.tolist() == [3]
    tables = [torch.arange(16.0).reshape(8, 2), torch.ones(3, 2)]
    first, second = align_tables(found, tables)
    assert first.tolist() == [[0, 1], [2, 3], [4, 5], [2, 3]]
    assert second.tolist() == [[1, 1]] * 4


def slow_tables(found, tables):
    """Row by row, in the words of the rules."""
    out = []
    for index, table in enumerate(tables):
        rows = []
        for row in range(found.rows):
            own = int(found.permutations[index][row])
            if own >= 0:
                rows.append(table[own])
            elif row in found.fallbacks:
                taken = [tables[m][r] for m, r in found.fallbacks[row]]
                rows.append(sum(taken) / len(taken) if taken else torch.zeros_like(table[0]))
            else:
                rows.append(None)
        known = [row for row in rows if row is not None]
        mean = sum(known) / len(known)
        out.append(torch.stack([mean if row is None else row for row in rows]))
    return out


def test_tables_of_random_vocabularies_match_the_row_by_row_reading():
    random = np.random.default_rng(3)
    words = [f"w{i}" for i in range(30)]
    for _ in range(20):
        texts = {n: " ".join(random.permutation(words)[: random.integers(5, 30)]) for n in "abc"}
        vocabularies = {name: vocabulary(text) for name, text in texts.items()}
        base = A if random.random() < 0.5 else None
        found = align(Tokenizer("union", {"w1": TokenSource("zero", force=True)}, 8), base, **vocabularies)
        tables = [torch.randn(v.rows, 3, dtype=torch.float64) for v in vocabularies.values()]
        for fast, slow in zip(align_tables(found, tables), slow_tables(found, tables), strict=True):
            torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


def test_tables_promote_to_a_common_type():
    found = align(Tokenizer("base"), A, a=vocabulary("x"), b=vocabulary("x"))
    tables = [torch.zeros(1, 2, dtype=torch.bfloat16), torch.zeros(1, 2, dtype=torch.float16)]
    assert [t.dtype for t in align_tables(found, tables)] == [torch.float32, torch.float32]
