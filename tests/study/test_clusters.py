"""c-BTM: embeddings, balanced clusters, and an ensemble weighed by how near a text is to each."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_language
import small_study
import torch
from scipy.optimize import linear_sum_assignment
from small_study import step
from torch import nn

import plait
from plait.errors import InputError, MissingExtra
from plait.study import load_study, run_study
from plait.study._balanced import balanced, balanced_centres, squared_distances
from plait.study._embedding import Embedding, fitted, words_of
from plait.study._language import Texts
from plait.study._mixing import kept
from plait.study.ways import _clusters
from plait.study.ways._clusters import Nearness
from plait.tasks import Columns, NextToken, Suite, Task, bits_per_byte, mixture

STUDY = """
study: domains
suite: domains
experts: {backend: sequential, steps: 30, batch_size: 16, lr: 0.02}
bootstrap: 0
ways:
  clusters: {clusters: 3, every: 4}
  two: {clusters: 3, every: 4, top: 1, settings: {steps: 5}}
"""
SAYINGS = [f"word{'abcdefghijkl'[token]}" for token in range(small_language.WORDS)]


def say(tokens: Any) -> str:
    return " ".join(SAYINGS[token] for token in tokens)


def suite(names: Any = None) -> Suite:
    return replace(small_language.suite(names), decode=say)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clusters")
    with pytest.MonkeyPatch.context() as patch:
        run_study(small_language.write(folder, STUDY, patch, suite), folder / "out")
    return folder


# ---- balanced clusters


def points(count: int, width: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    random = np.random.default_rng(seed)
    return np.concatenate(
        [random.normal(size=(count - count // 4, width)), random.normal(size=(count // 4, width)) * 0.1 + 4]
    )


@pytest.mark.parametrize(("count", "clusters"), [(12, 3), (60, 4), (200, 8), (30, 30), (40, 2), (16, 1)])
def test_an_assignment_is_the_cheapest_of_all_that_are_balanced(count: int, clusters: int) -> None:
    for seed in range(5):
        costs = squared_distances(points(count, seed=seed), points(clusters, seed=seed + 50))
        labels = balanced(costs)
        assert np.bincount(labels, minlength=clusters).tolist() == [count // clusters] * clusters
        rows, columns = linear_sum_assignment(np.repeat(costs, count // clusters, axis=1))
        cheapest = np.repeat(costs, count // clusters, axis=1)[rows, columns].sum()
        assert costs[np.arange(count), labels].sum() == pytest.approx(cheapest, rel=1e-9)


@pytest.mark.parametrize(("count", "clusters"), [(13, 3), (62, 4), (203, 8), (31, 30)])
def test_sizes_differ_by_one_at_most_and_no_other_assignment_of_them_is_cheaper(
    count: int, clusters: int
) -> None:
    costs = squared_distances(points(count), points(clusters, seed=9))
    labels = balanced(costs)
    sizes = np.bincount(labels, minlength=clusters)
    assert sizes.max() - sizes.min() == 1
    wide = np.repeat(costs, sizes, axis=1)
    rows, columns = linear_sum_assignment(wide)
    assert costs[np.arange(count), labels].sum() == pytest.approx(wide[rows, columns].sum(), rel=1e-9)


def test_copies_of_one_document_are_shared_out() -> None:
    same = np.concatenate([np.ones((50, 2)), np.zeros((7, 2))])
    for centres in (np.zeros((5, 2)), points(5, 2)):
        sizes = np.bincount(balanced(squared_distances(same, centres)), minlength=5)
        assert sorted(sizes) == [11, 11, 11, 12, 12]


def test_centres_are_means_of_balanced_clusters_that_they_are_nearest_to() -> None:
    data = points(120)
    centres = balanced_centres(data, 4, seed=0, iterations=100)
    labels = balanced(squared_distances(data, centres))
    assert np.bincount(labels).tolist() == [30] * 4
    for cluster in range(4):
        np.testing.assert_allclose(centres[cluster], data[labels == cluster].mean(0))
    assert np.array_equal(centres, balanced_centres(data, 4, seed=0, iterations=100))


def test_clusters_that_lie_apart_are_found() -> None:
    random = np.random.default_rng(0)
    data = np.concatenate([random.normal(size=(20, 2)) * 0.1 + place for place in ((0, 0), (5, 0), (0, 5))])
    labels = squared_distances(data, balanced_centres(data, 3, seed=1)).argmin(1)
    assert [len(set(labels[start : start + 20])) for start in (0, 20, 40)] == [1, 1, 1]
    assert len(set(labels)) == 3


def test_squared_distances_are_those() -> None:
    one, two = points(7), points(4, seed=3)
    np.testing.assert_allclose(squared_distances(one, two), ((one[:, None] - two) ** 2).sum(2), atol=1e-12)


# ---- documents


def test_words_are_lower_case_without_stop_words_and_numbers_are_one() -> None:
    text = b"The Model of 1999 and 3rd_try: x, model_2 cost 12.50!"
    assert words_of(list(text), lambda ids: bytes(ids).decode()) == [
        "model",
        "#number",
        "#number",
        "model_2",
        "cost",
        "#number",
        "#number",
    ]
    assert words_of([7, 7, 12], None) == ["7", "7", "12"]


def test_documents_are_embedded_by_tf_idf_and_svd() -> None:
    random = np.random.default_rng(0)
    documents = [[f"w{n}" for n in random.integers(0, 40, size=random.integers(1, 30))] for _ in range(60)]
    documents.append([])
    known = sorted({word for document in documents for word in document})
    counts = np.array([[document.count(word) for word in known] for document in documents], float)
    inverse = np.log((1 + len(documents)) / (1 + (counts > 0).sum(0))) + 1
    table = counts * inverse
    table[:-1] /= np.linalg.norm(table[:-1], axis=1, keepdims=True)
    directions = np.linalg.svd(table, full_matrices=False)[2]
    wanted = table @ directions.T
    wanted[:-1] /= np.linalg.norm(wanted[:-1], axis=1, keepdims=True)
    embedding = fitted(documents, 0)
    found = np.stack([embedding.of(document) for document in documents])
    # Axes may be turned round, so that products are what is held against each other.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found[:-1], axis=1), 1)
    assert not embedding.of(["never", "heard"]).any()
    np.testing.assert_allclose(embedding.of([*documents[0], "never"]), embedding.of(documents[0]))


def test_an_embedding_has_a_hundred_dimensions_at_most_and_is_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    documents = [[f"w{n}" for n in random.integers(0, 300, size=20)] for _ in range(150)]
    embedding = fitted(documents, 0)
    assert embedding.vectors.shape == (len(embedding.words), 100)
    embedding.save(tmp_path)
    again = Embedding.load(tmp_path)
    assert np.array_equal(again.of(documents[3]), embedding.of(documents[3]))


def test_texts_without_a_word_are_told() -> None:
    with pytest.raises(InputError, match="no word to tell them apart"):
        fitted([[], []], 0)


# ---- weights


def nearness(**more: Any) -> Nearness:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(12, 5)).astype(np.float32)
    embedding = Embedding({word: place for place, word in enumerate(SAYINGS)}, vectors)
    return Nearness(
        embedding, random.normal(size=(4, 5)), **{"temperature": 0.1, "every": 3, "decode": say} | more
    )


def weights(weigh: Nearness, ids: torch.Tensor, top: int | None = None, **more: torch.Tensor) -> torch.Tensor:
    return kept(weigh(torch.zeros(4, *ids.shape, dtype=torch.float64), Texts.of(ids, **more)), top).exp()


def test_weights_fall_with_the_distance_of_the_context_looked_at_every_few_tokens() -> None:
    ids, weigh = torch.randint(0, 12, (3, 11), generator=torch.Generator().manual_seed(0)), nearness()
    found = weights(weigh, ids)
    for row, place in itertools.product(range(3), range(11)):
        seen = (place + 1) // 3 * 3
        if seen == 0:
            assert found[:, row, place].tolist() == [0.25] * 4
            continue
        h = weigh.embedding.vectors[ids[row, :seen].numpy()].astype(float).sum(0)
        h /= np.linalg.norm(h)
        raw = np.exp([-((h - centre) ** 2).sum() / 0.1 for centre in weigh.centres])
        assert found[:, row, place].tolist() == pytest.approx((raw / raw.sum()).tolist(), rel=1e-5)
    torch.testing.assert_close(found.sum(0), torch.ones(3, 11, dtype=torch.float64))


def test_at_a_low_temperature_the_nearest_cluster_is_all() -> None:
    ids = torch.randint(0, 12, (3, 11), generator=torch.Generator().manual_seed(0))
    found = weights(nearness(temperature=1e-9), ids)[:, :, 2:]
    assert set(found.flatten().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(found, weights(nearness(), ids, top=1)[:, :, 2:])
    equal = weights(nearness(temperature=1e9), ids)
    torch.testing.assert_close(equal, torch.full_like(equal, 0.25), atol=1e-6, rtol=0)


def test_the_nearest_clusters_are_kept() -> None:
    ids = torch.randint(0, 12, (2, 6), generator=torch.Generator().manual_seed(0))
    found, whole = weights(nearness(), ids, top=2)[:, 0, 5], weights(nearness(), ids)[:, 0, 5]
    best = whole.topk(2)
    assert sorted(found.nonzero().flatten().tolist()) == sorted(best.indices.tolist())
    torch.testing.assert_close(found[best.indices], best.values / best.values.sum())
    torch.testing.assert_close(weights(nearness(), ids, top=7), weights(nearness(), ids))


def test_what_comes_later_and_padding_and_other_texts_change_no_weight() -> None:
    ids = torch.randint(0, 12, (1, 12), generator=torch.Generator().manual_seed(0))
    whole = weights(nearness(), ids)
    other = ids.clone()
    other[:, 8:] = (other[:, 8:] + 1) % 12
    assert torch.equal(weights(nearness(), other)[:, :, :8], whole[:, :, :8])
    places = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    packed = weights(nearness(), ids, places=places)
    torch.testing.assert_close(packed[:, :, 5:], weights(nearness(), ids[:, 5:]))
    mask = torch.tensor([[0] * 4 + [1] * 8])
    torch.testing.assert_close(weights(nearness(), ids, mask=mask)[:, :, 4:], weights(nearness(), ids[:, 4:]))


def test_a_context_of_unknown_words_weighs_all_alike() -> None:
    weigh = nearness(decode=lambda ids: "nothing that was ever read")
    found = weights(weigh, torch.zeros(1, 9, dtype=torch.long))
    torch.testing.assert_close(found, torch.full_like(found, 0.25))


# ---- the way


def network(folder: Path) -> nn.Module:
    body = small_language.network()
    body.load_state_dict({name: plait.open(str(folder))[name].read() for name in plait.open(str(folder))})
    return body.eval()


def members(folder: Path, way: str) -> list[nn.Module]:
    place = step(folder, f"{way}-@0")
    index = json.loads((place / "models.json").read_text())
    return [network(place / index[f"cluster {n}"]) for n in (1, 2, 3)]


def test_each_text_belongs_to_the_nearest_centre_and_trains_that_expert(ran: Path) -> None:
    place = step(ran, "clusters-@0") / "clusters"
    embedding, centres = Embedding.load(place), np.load(place / "centres.npy")
    labels = np.load(place / "labels.npy")
    mixed = mixture(list(suite().tasks)).split("train")
    for number in range(0, len(mixed), 17):
        h = embedding.of(say(mixed.batch([number])["input"][0].tolist()).split())
        assert labels[number] == ((h - centres) ** 2).sum(1).argmin()
    own = mixed.batch(np.flatnonzero(labels == 1).tolist())["input"]
    task = Task("alone", {"train": Columns({"input": own, "labels": own})}, NextToken(), bits_per_byte())
    member = plait.Member(name="cluster 2", task=task, steps=30, batch_size=16, lr=0.02)
    alone = plait.Fleet([member], model=small_language.network(), backend="sequential").fit()["cluster 2"]
    for one, two in zip(alone.parameters(), members(ran, "clusters")[1].parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("way", ["clusters", "two"])
def test_the_ensemble_is_scored_by_the_nearness_of_contexts(ran: Path, way: str) -> None:
    place = step(ran, f"{way}-@0") / "clusters"
    embedding, centres, bodies = Embedding.load(place), np.load(place / "centres.npy"), members(ran, way)
    ids, nats = suite()["garage"].split("test").batch(range(24))["input"], 0.0
    with torch.no_grad():
        said = torch.stack([body(ids).double().softmax(-1) for body in bodies])
    for row, at in itertools.product(range(24), range(15)):
        h = embedding.of(say(ids[row, : (at + 1) // 4 * 4].tolist()).split())
        share = np.exp(-((h - centres) ** 2).sum(1) / 0.1) if h.any() else np.ones(3)
        if way == "two":
            share = np.eye(3)[share.argmax()]
        share = share / share.sum()
        nats -= np.log(sum(w * float(said[j, row, at, ids[row, at + 1]]) for j, w in enumerate(share)))
    with np.load(step(ran, f"score-{way}-@0") / "numbers.npz") as numbers:
        assert numbers["garage"][:, 0].sum() == pytest.approx(nats / np.log(2), rel=1e-5)


def test_clusters_find_the_domains_and_help_in_them(ran: Path) -> None:
    labels = np.load(step(ran, "clusters-@0") / "clusters" / "labels.npy").reshape(3, -1)
    most = [np.bincount(own, minlength=3).argmax() for own in labels]
    assert sorted(most) == [0, 1, 2]
    for task in small_language.NAMES:
        bits = {}
        for model in ("clusters-@0", "base-@0"):
            with np.load(step(ran, f"score-{model}") / "numbers.npz") as numbers:
                bits[model] = numbers[task][:, 0].sum()
        assert bits["clusters-@0"] < bits["base-@0"]


def test_a_killed_way_keeps_its_clusters(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied, whole, calls = Path(shutil.copytree(ran, tmp_path / "copied")), _clusters.fit, []
    shutil.rmtree(step(copied, "clusters-@0"))
    path = small_language.write(copied, STUDY, monkeypatch, suite)

    def killed(*_: object, **__: object) -> None:
        raise InputError("killed")

    def counted(*given: Any, **more: Any) -> Any:
        calls.append("fit")
        return whole(*given, **more)

    monkeypatch.setattr(_clusters, "fit", killed)
    with pytest.raises(InputError, match="step `clusters @0` failed: killed"):
        run_study(path, copied / "out")
    monkeypatch.setattr(_clusters, "fit", counted)
    monkeypatch.setattr(_clusters, "fitted", killed)  # clusters are there
    assert run_study(path, copied / "out", resume=True).ran == ["clusters @0"]
    assert calls == ["fit"]
    for one, two in zip(members(ran, "clusters"), members(copied, "clusters"), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_tokens_that_nobody_can_read_are_words_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = STUDY.replace("  two: {clusters: 3, every: 4, top: 1, settings: {steps: 5}}\n", "").replace(
        "steps: 30", "steps: 2"
    )
    run_study(small_language.write(tmp_path, text, monkeypatch), tmp_path / "out")
    words = json.loads((step(tmp_path, "clusters-@0") / "clusters" / "words.json").read_text())
    assert sorted(map(int, words)) == list(range(small_language.WORDS))


def test_texts_that_are_all_alike_make_no_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def alike(names: Any) -> Suite:
        return replace(suite(names), decode=lambda ids: "same words")

    with pytest.raises(InputError, match=re.escape("of 3") + ".*\n.*give fewer clusters"):
        run_study(small_language.write(tmp_path, STUDY, monkeypatch, alike), tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("clusters: 3, every: 4}", "clusters: 0}", "must be at least 1"),
        ("clusters: 3, every: 4}", "clusters: 289}", "288 training examples make no 289 clusters"),
        ("clusters: 3, every: 4}", "clusters: 3, temperature: 0}", "must be above 0"),
        ("clusters: 3, every: 4}", "clusters: 3, every: 0}", "must be at least 1"),
        ("clusters: 3, every: 4}", "clusters: 3, top: 0}", "must be at least 1"),
        ("settings: {steps: 5}", "settings: {stpes: 5}", "no setting `stpes`"),
    ],
)
def test_faulty_clusters_are_refused_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    assert old in STUDY
    path = small_language.write(tmp_path, STUDY.replace(old, new), monkeypatch, suite)
    with pytest.raises(InputError, match=said):
        run_study(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_scikit_learn_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.study._extras.find_spec", lambda _: None)
    with pytest.raises(
        MissingExtra, match=r"clustering documents needs the package `scikit-learn`.*(?s:.*)plait\[tasks\]"
    ):
        load_study(small_language.write(tmp_path, STUDY, monkeypatch, suite))


def test_classes_make_no_ensemble_of_clusters(tmp_path: Path) -> None:
    text = "study: tables\nsuite: suite.yaml\nexperts: {steps: 1}\nways:\n  clusters: {clusters: 2}\n"
    with pytest.raises(InputError, match="needs the probability of a text, which task `first` has not"):
        load_study(small_study.write(tmp_path, text))
