"""The posterior of domains, its prior, and mixtures of language models, against loops over tokens."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import small_language
import torch
from torch import Tensor, nn

from plait.study._language import Texts
from plait.study._mixing import TokenMixture, kept, log_said, log_shares
from plait.study._posterior import Form, cached_prior, log_posterior

PRIOR = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


class Chain(nn.Module):
    """A language model that looks at the last token alone."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor | None = None, **given: Tensor) -> dict[str, Tensor]:
        ids = given["input_ids"] if ids is None else ids
        return {"logits": self.table[ids].log()}


def chains(count: int = 3, words: int = 5) -> list[Chain]:
    random = torch.Generator().manual_seed(1)
    tables = torch.rand(count, words, words, generator=random, dtype=torch.float64)
    return [Chain(table / table.sum(1, keepdim=True)) for table in tables]


def ids(rows: int = 4, length: int = 9, words: int = 5) -> Tensor:
    return torch.randint(0, words, (rows, length), generator=torch.Generator().manual_seed(2))


def looped(members: list[Chain], row: Tensor, prior: Tensor, form: Form = "prefix") -> Tensor:
    """The mixture's next probabilities `(length, words)`, token by token from the definition."""
    found, so_far = [], [float(p) for p in prior]
    for place, token in enumerate(row.tolist()):
        said = [1.0 if place == 0 else float(m.table[row[place - 1], token]) for m in members]
        if form == "prefix":
            so_far = [w * p for w, p in zip(so_far, said, strict=True)]
            joint = so_far
        elif place == 0:
            joint = [1.0] * len(members)
        else:
            joint = [float(p) * s for p, s in zip(prior, said, strict=True)]
        shares = [w / sum(joint) for w in joint]
        found.append(sum(w * m.table[token] for w, m in zip(shares, members, strict=True)))
    return torch.stack(found)


def mixture(
    members: list[Chain], prior: Tensor = PRIOR, form: Form = "prefix", top: int | None = None
) -> TokenMixture:
    return TokenMixture(members, partial(log_posterior, prior=prior, form=form), top)


@pytest.mark.parametrize("form", ["prefix", "token"])
def test_the_ensemble_is_bayes_rule_over_a_text(form: Form) -> None:
    members, rows = chains(), ids(70)  # more rows than are mixed at a time
    found = mixture(members, form=form)(rows)["logits"].exp()
    wanted = torch.stack([looped(members, row, PRIOR, form) for row in rows])
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.sum(-1), torch.ones(70, 9, dtype=torch.float64))


def weights(
    members: list[Chain], rows: Tensor, prior: Tensor = PRIOR, form: Form = "prefix", **more: Tensor
) -> Tensor:
    given = Texts.of(rows, **more)
    said = log_said([log_shares(member(rows)["logits"]) for member in members], given)
    return log_posterior(said, given, prior, form).exp()


def test_before_the_second_token_nothing_but_the_prior_counts() -> None:
    torch.testing.assert_close(weights(chains(), ids())[:, :, 0], PRIOR[:, None].expand(3, 4))
    equal = torch.full((3, 4), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(weights(chains(), ids(), form="token")[:, :, 0], equal)


def test_equal_experts_are_one_expert_with_the_prior_s_weights() -> None:
    members = chains(1) * 3
    torch.testing.assert_close(weights(members, ids()), PRIOR[:, None, None].expand(3, 4, 9))
    torch.testing.assert_close(mixture(members)(ids())["logits"], members[0](ids())["logits"])


def test_one_expert_alone_is_itself() -> None:
    one = torch.ones(1, dtype=torch.float64)
    forms: tuple[Form, ...] = ("prefix", "token")
    for form in forms:
        found = mixture(chains(1), one, form)(ids())["logits"]
        torch.testing.assert_close(found, chains(1)[0](ids())["logits"])


def test_a_long_text_tells_whose_domain_it_is_of() -> None:
    members = chains()
    random, row = torch.Generator().manual_seed(3), [0]
    for _ in range(400):
        row.append(int(torch.multinomial(members[2].table[row[-1]], 1, generator=random)))
    found = weights(members, torch.tensor([row]))[:, 0]
    assert found[2, -1] > 1 - 1e-6
    assert found[2, 100:].mean() > found[2, :20].mean()


def test_an_expert_that_says_a_text_can_not_be_is_out_until_the_text_ends() -> None:
    members, rows = chains(2), ids(1)
    members[0].table[rows[0, 3], rows[0, 4]] = 0
    prior = torch.tensor([0.9, 0.1], dtype=torch.float64)
    places = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2]])
    found = weights(members, rows, prior, places=places)[0, 0]
    assert (found[:4] > 0).all()
    assert found[4:6].tolist() == [0, 0]
    assert found[6] == pytest.approx(0.9)
    assert torch.isfinite(mixture(members, prior)(rows)["logits"][:, :-1]).all()


def test_where_all_say_a_text_can_not_be_the_prior_is_left() -> None:
    members, rows = chains(2), ids(1)
    for member in members:
        member.table[rows[0, 3], rows[0, 4]] = 0
    prior = torch.tensor([0.9, 0.1], dtype=torch.float64)
    torch.testing.assert_close(weights(members, rows, prior)[:, 0, 4:], prior[:, None].expand(2, 5))


def test_a_sure_prior_is_never_overruled() -> None:
    sure = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = mixture(chains(), sure)(ids())["logits"]
    torch.testing.assert_close(found, chains()[1](ids())["logits"])


def test_padding_changes_nothing_on_either_side() -> None:
    members, row = chains(), ids(1, 6)
    whole = mixture(members)(input_ids=row)["logits"]
    filled = torch.cat([row, torch.zeros(1, 3, dtype=torch.long)], 1)
    mask = torch.tensor([[1] * 6 + [0] * 3])
    behind = mixture(members)(input_ids=filled, attention_mask=mask)["logits"]
    before = mixture(members)(input_ids=filled.flip(1), attention_mask=mask.flip(1))["logits"]
    torch.testing.assert_close(behind[:, :6], whole)
    flipped = mixture(members)(input_ids=row.flip(1))["logits"]
    torch.testing.assert_close(before[:, 3:], flipped)


def test_texts_packed_in_one_row_are_each_alone() -> None:
    members, one, two = chains(), ids(1, 4), ids(1, 7)[:, 2:]
    packed = {
        "input_ids": torch.cat([one, two], 1),
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]),
    }
    found = mixture(members)(**packed)["logits"]
    torch.testing.assert_close(found[:, :4], mixture(members)(one)["logits"])
    torch.testing.assert_close(found[:, 4:], mixture(members)(two)["logits"])


def test_the_largest_weights_are_kept_and_sum_to_one() -> None:
    held = torch.tensor([[0.1, 0.3], [0.5, 0.3], [0.15, 0.3], [0.25, 0.1]], dtype=torch.float64)
    found = kept(held.log(), 2).exp()
    wanted = [[0, 0.5], [0.5 / 0.75, 0.5], [0, 0], [0.25 / 0.75, 0]]  # of equal ones the first
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    for many in (4, 9, None):
        torch.testing.assert_close(kept(held.log(), many).exp(), held)


def test_the_best_expert_alone_answers_if_one_is_kept() -> None:
    members, rows = chains(), ids()
    found, shares = mixture(members, top=1)(rows)["logits"], weights(members, rows)
    for row in range(4):
        for place in range(9):
            best = int(shares[:, row, place].argmax())
            torch.testing.assert_close(found[row, place], members[best].table[rows[row, place]].log())


def test_half_precision_is_mixed_in_float32() -> None:
    members = [nn.Sequential(small_language.network()) for _ in range(2)]
    rows = torch.randint(0, small_language.WORDS, (2, 16))
    exact = TokenMixture(members, partial(log_posterior, prior=torch.tensor([0.5, 0.5])))(rows)["logits"]
    for member in members:
        member.bfloat16()
    short = TokenMixture(members, partial(log_posterior, prior=torch.tensor([0.5, 0.5])))(rows)["logits"]
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, exact, atol=0.05, rtol=0.05)


def stream(members: list[Chain], rows: Tensor, **more: Tensor) -> list[tuple[Tensor, Texts]]:
    given = Texts.of(rows, **more)
    return [(log_said([log_shares(member(rows)["logits"]) for member in members], given), given)]


def posterior(members: list[Chain], row: list[int], prior: list[float]) -> list[float]:
    joint = list(prior)
    for before, token in itertools.pairwise(row):
        joint = [w * float(m.table[before, token]) for w, m in zip(joint, members, strict=True)]
    return [w / sum(joint) for w in joint]


def test_a_cached_prior_is_the_moving_average_of_whole_texts_posteriors() -> None:
    members, rows = chains(), ids(6, 4)
    prior = [1 / 3] * 3
    for row in rows.tolist():
        found = posterior(members, row, prior)
        prior = [0.3 * own + 0.7 * old for own, old in zip(found, prior, strict=True)]
    assert cached_prior(stream(members, rows)).tolist() == pytest.approx(prior, rel=1e-12)
    parts = [*stream(members, rows[:2]), *stream(members, rows[2:])]
    assert cached_prior(parts).tolist() == pytest.approx(prior, rel=1e-12)


def test_a_cached_prior_counts_texts_not_rows_and_no_more_than_asked_for() -> None:
    members, rows = chains(), ids(2, 8)
    halves = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]] * 2)
    apart = rows.reshape(4, 4)
    packed = cached_prior(stream(members, rows, places=halves), most=3)
    torch.testing.assert_close(packed, cached_prior(stream(members, apart[:3])))
    torch.testing.assert_close(packed, cached_prior(stream(members, apart), most=3))


def test_a_cached_prior_of_last_tokens_is_of_means_over_texts_and_begins_with_the_first() -> None:
    members, rows = chains(), ids(3, 4)
    prior = [1 / 3] * 3
    for number, row in enumerate(rows.tolist()):
        shares = [[1 / 3] * 3]
        for before, token in itertools.pairwise(row):
            joint = [w * float(m.table[before, token]) for w, m in zip(prior, members, strict=True)]
            shares.append([w / sum(joint) for w in joint])
        mean = [math.fsum(each) / 4 for each in zip(*shares, strict=True)]
        prior = mean if number == 0 else [0.3 * m + 0.7 * p for m, p in zip(mean, prior, strict=True)]
    assert cached_prior(stream(members, rows), "token").tolist() == pytest.approx(prior, rel=1e-12)
