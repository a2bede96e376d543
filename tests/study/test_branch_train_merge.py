"""Branch-Train-Merge as a study: experts that come and go, ensembles and averages by the posterior."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_language
import small_study
import torch
from small_study import step
from torch import nn

import plait
from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study._branches import needed
from plait.study.ways import _posterior
from plait.tasks import Suite

SETTINGS = "{backend: sequential, steps: 30, batch_size: 16, lr: 0.02}"
STUDY = f"""
study: domains
suite: domains
experts: {SETTINGS}
branch:
  attic: {{from: posterior}}
tasks: [river, kitchen, garage, attic]
bootstrap: 0
ways:
  uniform: {{merge: linear}}
  ensemble: {{posterior: ensemble}}
  flat: {{posterior: ensemble, prior: uniform}}
  two: {{posterior: ensemble, experts: [garage, river], top: 1}}
  average: {{posterior: average}}
  average of one: {{posterior: average, top: 1, experts: [river, kitchen]}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("domains")
    with pytest.MonkeyPatch.context() as patch:
        run_study(small_language.write(folder, STUDY, patch), folder / "out")
    return folder


def again(folder: Path, text: str, patch: pytest.MonkeyPatch) -> list[str]:
    return run_study(small_language.write(folder, text, patch), folder / "out").ran


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = plait.open(str(folder))
    return {name: found[name].read() for name in found}


def expert(folder: Path, task: str) -> Path:
    place = step(folder, "expert-attic-@0" if task == "attic" else "experts-@0")
    return place / json.loads((place / "models.json").read_text())[task]


def network(folder: Path) -> nn.Module:
    body = small_language.network()
    body.load_state_dict(weights(folder))
    return body.eval()


def rows(task: str, split: str) -> torch.Tensor:
    examples = small_language.suite([task])[task].split(split)
    return examples.batch(range(len(examples)))["input"]


def says(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """p of the tokens from the second on, `(n, length - 1)`."""
    with torch.no_grad():
        shares = network(folder)(ids[:, :-1]).double().softmax(-1)
    return shares.gather(-1, ids[:, 1:, None]).squeeze(-1)


def bits(folder: Path, way: str, task: str) -> float:
    with np.load(step(folder, f"score-{way}-@0") / "numbers.npz") as numbers:
        return numbers[task][:, 0].sum() / numbers[task][:, 1].sum()


def held(folder: Path, way: str) -> dict[str, dict[str, float]]:
    return json.loads((step(folder, f"{way}-@0") / "weights.json").read_text())


def moving(experts: Mapping[str, Path], task: str) -> dict[str, float]:
    """The cached prior, from its definition."""
    prior = dict.fromkeys(experts, 1 / len(experts))
    said = {name: says(path, rows(task, "validation")) for name, path in experts.items()}
    for number in range(len(rows(task, "validation"))):
        joint = {name: prior[name] * float(said[name][number].prod()) for name in experts}
        total = sum(joint.values())
        prior = {name: 0.3 * joint[name] / total + 0.7 * prior[name] for name in experts}
    return prior


def test_the_prior_of_a_domain_is_out_of_its_validation_texts(ran: Path) -> None:
    experts = {name: expert(ran, name) for name in (*small_language.NAMES, "attic")}
    for task in ("kitchen", "attic"):
        assert held(ran, "ensemble")[task] == pytest.approx(moving(experts, task), rel=1e-4, abs=1e-9)
    assert held(ran, "flat")["river"] == dict.fromkeys(experts, 0.25)
    assert max(held(ran, "ensemble")["garage"], key=held(ran, "ensemble")["garage"].__getitem__) == "garage"


def test_the_ensemble_is_scored_by_bayes_rule(ran: Path) -> None:
    for way, names in (("ensemble", (*small_language.NAMES, "attic")), ("two", ("river", "garage"))):
        ids, prior, nats = rows("kitchen", "test"), held(ran, way)["kitchen"], 0.0
        assert tuple(prior) == names
        said = torch.stack([says(expert(ran, name), ids) for name in names])
        for row in range(len(ids)):
            joint = torch.tensor(list(prior.values()), dtype=torch.float64)
            for place in range(ids.shape[1] - 1):
                share = joint / joint.sum()
                if way == "two":
                    share = (share == share.max()).double()
                nats -= float((share * said[:, row, place]).sum().log())
                joint = joint * said[:, row, place]
        assert bits(ran, way, "kitchen") == pytest.approx(nats / np.log(2) / (24 * 15), rel=1e-5)


def test_the_average_of_a_domain_has_the_prior_s_weights(ran: Path) -> None:
    for number, task in enumerate(("river", "kitchen", "garage", "attic")):
        prior = held(ran, "average")[task]
        found = weights(step(ran, "average-@0") / f"model-{number}")
        for name, value in found.items():
            wanted = sum(prior[own] * weights(expert(ran, own))[name].double() for own in prior)
            torch.testing.assert_close(value.double(), wanted, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(
            bits(ran, "average", task), bits_of(step(ran, "average-@0") / f"model-{number}", task)
        )


def bits_of(folder: Path, task: str) -> float:
    return float(-says(folder, rows(task, "test")).log2().mean())


def test_an_average_of_one_expert_is_that_expert(ran: Path) -> None:
    found = weights(step(ran, "average-of-one-@0") / "model-1")
    assert held(ran, "average-of-one")["kitchen"]["kitchen"] > 0.5
    assert all(torch.equal(found[name], value) for name, value in weights(expert(ran, "kitchen")).items())


def test_experts_of_domains_help_in_their_domains(ran: Path) -> None:
    """What the paper is about: ensemble and weighted average beat base and uniform average."""
    for task in small_language.NAMES:
        assert bits(ran, "ensemble", task) < min(bits(ran, "base", task), bits(ran, "uniform", task))
        assert bits(ran, "average", task) < bits(ran, "uniform", task)


def test_a_new_domain_s_expert_starts_from_the_others_weighed_by_the_posterior(ran: Path) -> None:
    place = step(ran, "expert-attic-@0")
    found = json.loads((place / "weights.json").read_text())
    experts = {name: expert(ran, name) for name in small_language.NAMES}
    assert found == pytest.approx(moving(experts, "attic"), rel=1e-4, abs=1e-9)
    start = weights(place / "start")
    for name, value in start.items():
        wanted = sum(found[own] * weights(experts[own])[name].double() for own in experts)
        torch.testing.assert_close(value.double(), wanted, atol=1e-6, rtol=1e-5)
    alone, trained = learned("attic", network(place / "start")), weights(expert(ran, "attic"))
    assert all(torch.equal(trained[name], value) for name, value in alone.items())
    assert bits(ran, "experts", "attic") < bits_of(place / "start", "attic")


def learned(task: str, start: nn.Module) -> dict[str, torch.Tensor]:
    """What a fleet of one becomes with the study's settings."""
    own = small_language.suite([task])[task]
    member = plait.Member(name=task, task=own, steps=30, batch_size=16, lr=0.02)
    return plait.Fleet([member], model=start, backend="sequential").fit()[task].state_dict()


def test_the_example_runs_in_a_short_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def domains(names: list[str]) -> Suite:
        found = small_language.suite((*small_language.NAMES, "attic"))
        renamed = (task.renamed(name) for task, name in zip(found.tasks, names, strict=True))
        return replace(found, tasks=tuple(renamed))

    text = (Path(__file__).parents[2] / "examples" / "studies" / "branch_train_merge.yaml").read_text()
    for long in ("steps: 100", "steps: 120"):
        assert long in text
        text = text.replace(long, "steps: 4")
    text = text.replace("experts: {", "bootstrap: 20\nexperts: {backend: sequential, ")
    found = run_study(small_language.write(tmp_path, text, monkeypatch, domains), tmp_path / "out")
    assert len(found.expected) == 7
    assert "expert manuals @0" in found.ran


@pytest.fixture
def copied(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "copied"))


def test_an_expert_joins_and_no_other_is_trained_again(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = STUDY.replace("branch:\n  attic: {from: posterior}\n", "").replace(", attic]", "]")
    ran = again(copied, without, monkeypatch)
    assert not [name for name in ran if name.startswith(("base", "expert"))]
    joined = without.replace("garage]", "garage, attic]\nbranch: {attic: {from: river}}")
    ran = again(copied, joined, monkeypatch)
    assert [name for name in ran if name.startswith(("base", "expert"))] == ["expert attic @0"]


def test_an_expert_that_leaves_an_ensemble_changes_that_ensemble_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = again(copied, STUDY.replace("[garage, river]", "[garage]"), monkeypatch)
    assert ran == ["two @0", "score two @0"]


def test_experts_start_from_the_base_from_another_and_from_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch = "{kitchen: {from: river}, garage: {from: {kitchen: 1, river: 3}}, attic: {from: base}}"
    text = STUDY[: STUDY.index("ways:")].replace("\n  attic: {from: posterior}", f" {branch}")
    again(tmp_path, text + "ways:\n  uniform: {merge: linear}\n", monkeypatch)
    own = {task: weights(folder_of(tmp_path, task)) for task in (*small_language.NAMES, "attic")}
    starts = {"attic": small_language.network().state_dict(), "kitchen": own["river"]}
    starts["garage"] = {n: (own["kitchen"][n] + 3 * own["river"][n]) / 4 for n in own["river"]}
    for task, start in starts.items():
        body = small_language.network()
        body.load_state_dict(start)
        for name, value in learned(task, body).items():
            torch.testing.assert_close(own[task][name], value, atol=1e-4, rtol=1e-4)
    mean = weights(step(tmp_path, "uniform-@0") / "model")
    for name, value in mean.items():
        torch.testing.assert_close(value, sum(each[name] for each in own.values()) / 4, atol=1e-6, rtol=1e-5)


def test_a_posterior_is_of_all_experts_that_are_there_by_then() -> None:
    starts = {
        "kitchen": "river",
        "attic": "posterior",
        "garage": {"kitchen": 1.0, "attic": 2.0},
        "sea": "base",
    }
    tasks = ["river", *starts]
    assert needed("kitchen", starts, tasks, 5) == ("experts @5",)
    assert needed("attic", starts, tasks, 5) == ("experts @5", "expert kitchen @5")
    assert needed("garage", starts, tasks, 5) == ("expert kitchen @5", "expert attic @5")
    assert needed("sea", starts, tasks, 5) == ()


def folder_of(folder: Path, task: str) -> Path:
    place = step(folder, "experts-@0" if task == "river" else f"expert-{task}-@0")
    return place / json.loads((place / "models.json").read_text())[task]


def test_a_killed_way_goes_on_with_the_domains_that_it_has_not(
    ran: Path, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(step(copied, "average-@0"))
    calls, whole = [0], _posterior.domain_weights

    def killed(*given: object, **more: object) -> dict[str, float]:
        calls[0] += 1
        if calls[0] == 3:
            raise InputError("killed")
        return whole(*given, **more)

    monkeypatch.setattr(_posterior, "domain_weights", killed)
    path = small_language.write(copied, STUDY, monkeypatch)
    with pytest.raises(InputError, match="step `average @0` failed: killed"):
        run_study(path, copied / "out")
    run_study(path, copied / "out", resume=True)
    assert calls[0] == 3 + 2
    for number in range(4):
        one, two = (weights(step(place, "average-@0") / f"model-{number}") for place in (ran, copied))
        assert all(torch.equal(one[name], two[name]) for name in one)
    assert held(ran, "average") == held(copied, "average")


def test_an_expert_that_gives_nan_is_told(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from plait.study import _domains

    monkeypatch.setattr(_domains, "logits", lambda given: given * float("nan"))
    text = STUDY.replace("{posterior: ensemble}", "{posterior: ensemble, form: token}")
    with pytest.raises(InputError, match="an expert gives NaN for `validation` texts of task `river`"):
        again(copied, text, monkeypatch)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("posterior: average}", "posterior: median}", "ensemble.*average"),
        ("posterior: average}", "posterior: average, prior: uniform}", "it is `merge: linear`"),
        ("prior: uniform", "prior: flat", "cached.*uniform"),
        ("posterior: ensemble}", "posterior: ensemble, form: words}", "prefix.*token"),
        ("posterior: ensemble}", "posterior: ensemble, tpo: 1}", "`tpo`"),
        ("top: 1}", "top: 0}", "must be at least 1"),
        ("[garage, river]", "[garage, rivre]", "(?s)there is no expert `rivre`.*river"),
        ("[garage, river]", "[river, river]", "expert `river` is there twice"),
        ("[garage, river]", "[]", "at least 1"),
        ("attic: {from: posterior}", "cellar: {from: base}", "there is no task `cellar`"),
        ("attic: {from: posterior}", "attic: {from: cellar}", "`attic` can't start from `cellar`"),
        ("attic: {from: posterior}", "attic: {from: attic}", "`attic` can't start from `attic`"),
        ("attic: {from: posterior}", "attic: {from: {river: 0}}", "must be above 0"),
        ("attic: {from: posterior}", "attic: {from: {}}", "it names no expert"),
        ("attic: {from: posterior}", "attic: {start: base}", "`start`"),
        (
            "attic: {from: posterior}",
            "attic: {from: garage}\n  garage: {from: river}",
            "(?s)`attic` can't start from `garage`.*in the order of `branch`",
        ),
        (
            "attic: {from: posterior}",
            "river: {from: base}\n  kitchen: {from: base}\n  garage: {from: base}\n  attic: {from: base}",
            "no expert is there to begin with",
        ),
        ("  uniform:", "  expert attic:", "step of two meanings"),
    ],
)
def test_faults_are_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    assert old in STUDY
    path = small_language.write(tmp_path, STUDY.replace(old, new), monkeypatch)
    with pytest.raises(InputError, match=said):
        run_study(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(tasks: tuple[str, ...] | None, **what: object) -> Suite:
    found = small_language.suite(tasks)
    return replace(found, tasks=tuple(replace(task, **what) for task in found.tasks))


def test_a_prior_needs_a_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = small_language.suite()["river"].splits
    bare = partial(changed, splits={name: splits[name] for name in ("train", "test")})
    with pytest.raises(InputError, match="task `attic` has no split `validation`") as caught:
        load_study(small_language.write(tmp_path, STUDY, monkeypatch, bare))
    assert "which its posterior is of" in str(caught.value)
    flat = STUDY[: STUDY.index("branch:")] + "ways:\n  flat: {posterior: ensemble, prior: uniform}\n"
    assert load_study(small_language.write(tmp_path, flat, monkeypatch, bare)).ways


@pytest.mark.parametrize("way", ["ensemble", "average"])
def test_classes_are_no_texts(tmp_path: Path, way: str) -> None:
    text = "study: tables\nsuite: suite.yaml\nexperts: {steps: 1}\nways:\n"
    path = small_study.write(tmp_path, text + f"  posterior: {{posterior: {way}}}\n")
    with pytest.raises(InputError, match="needs the probability of a text, which task `first` has not"):
        load_study(path)


def test_models_with_a_meeting_of_their_own_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = partial(changed, meet=lambda model, batch: model(batch["input"]))
    with pytest.raises(InputError, match="can't see the tokens of task `river`"):
        load_study(small_language.write(tmp_path, STUDY, monkeypatch, odd))
