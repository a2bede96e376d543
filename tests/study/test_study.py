"""The whole loop: what is cached, what is run again, what is reported, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_study
import torch
from small_study import step
from typer.testing import CliRunner

import plait
from plait import study
from plait.cli._app import app
from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study.ways import WAYS, Merge
from plait.tasks import Headed, load_suite

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its results under `out`."""
    folder = tmp_path_factory.mktemp("study")
    return small_study.ran(folder)


@pytest.fixture
def copied(ran: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(ran, tmp_path / "copied"))


def changed(folder: Path, old: str, new: str) -> Path:
    """The folder's study, edited."""
    path = folder / "study.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_a_study_ends_in_a_report_with_every_way(ran: Path) -> None:
    html = (ran / "out" / "report" / "report.html").read_text()
    for name in ("average", "task arithmetic", "joint", "ensemble", "experts"):
        assert name in html


def test_the_same_study_again_runs_nothing(ran: Path) -> None:
    assert run_study(ran / "study.yaml", ran / "out").ran == []


def test_another_setting_of_one_method_runs_that_method_alone(copied: Path) -> None:
    path = changed(copied, "lambda: [0.2, 0.4, 0.8]", "lambda: [0.2, 0.4, 0.7]")
    assert run_study(path, copied / "out").ran == ["task arithmetic @0", "score task arithmetic @0"]


def test_a_new_way_runs_that_way_alone(copied: Path) -> None:
    path = changed(copied, "  joint:", "  ties: {merge: ties}\n  joint:")
    assert run_study(path, copied / "out").ran == ["ties @0", "score ties @0"]


def test_a_way_may_be_called_like_the_experts(copied: Path) -> None:
    path = changed(copied, "  joint:", "  experts, mean: {merge: linear}\n  joint:")
    assert run_study(path, copied / "out").ran == ["experts, mean @0", "score experts, mean @0"]


def test_a_new_length_of_training_runs_all_but_the_base_and_joint_training_of_its_own(copied: Path) -> None:
    path = changed(copied, "steps: 40", "steps: 41")
    again = run_study(path, copied / "out").ran
    assert "base" not in again
    assert "joint @0" not in again
    assert {"experts @0", "average @0", "score ensemble @0", "score joint @0"} <= set(again)


def test_other_data_run_everything_again_but_a_base_that_learned_nothing_of_them(tmp_path: Path) -> None:
    path = small_study.write(tmp_path)
    first = run_study(path, tmp_path / "out").ran
    rows = (tmp_path / "first-train.csv").read_text().splitlines()
    (tmp_path / "first-train.csv").write_text("\n".join([*rows[:-1], rows[1]]) + "\n")
    assert ["base", *run_study(path, tmp_path / "out").ran] == first


def test_another_head_runs_everything_that_learns_or_is_measured_again(tmp_path: Path) -> None:
    path = small_study.write(tmp_path)
    known = load_study(path)
    first = run_study(known, tmp_path / "out").ran
    tasks = tuple(replace(task, head=torch.nn.Linear(16, 3)) for task in known.suite.tasks)
    assert (
        run_study(replace(known, suite=replace(known.suite, tasks=tasks)), tmp_path / "out").ran == first[1:]
    )


def test_the_same_study_elsewhere_gives_the_same_numbers(ran: Path, tmp_path: Path) -> None:
    run_study(small_study.write(tmp_path), tmp_path / "out")
    for name in ("score-average-@0", "score-joint-@0", "score-ensemble-@0", "score-experts-@0"):
        with (
            np.load(step(ran, name) / "numbers.npz") as one,
            np.load(step(tmp_path, name) / "numbers.npz") as two,
        ):
            assert one.files == two.files
            assert all(np.array_equal(one[key], two[key]) for key in one.files)


def bodies(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    index = json.loads((step(folder, "experts-@0") / "models.json").read_text())
    opened = {task: plait.open(str(step(folder, "experts-@0") / own)) for task, own in index.items()}
    return {task: {n: found[n].read() for n in found} for task, found in opened.items()}


def test_the_average_is_the_mean_of_the_experts_scored_with_their_heads(ran: Path) -> None:
    experts = bodies(ran)
    mean = {n: torch.stack([own[n].double() for own in experts.values()]).mean(0) for n in experts["first"]}
    found = plait.open(str(step(ran, "average-@0") / "model"))
    assert all(torch.allclose(found[n].read().double(), mean[n], atol=1e-6) for n in mean)
    suite = load_suite(ran / "suite.yaml")
    heads = {t: step(ran, "experts-@0") / "models" / t for t in small_study.NAMES}
    scores = plait.evaluate(str(step(ran, "average-@0") / "model"), suite, heads=heads, bootstrap=0)
    with np.load(step(ran, "score-average-@0") / "numbers.npz") as numbers:
        for task in small_study.NAMES:
            added = numbers[task].sum(0)
            assert scores.score(scores.models[0], task).value == pytest.approx(added[0] / added[1])


def test_the_setting_with_the_best_validation_is_taken(ran: Path) -> None:
    place = step(ran, "task-arithmetic-@0")
    trials = json.loads((place / "trials.json").read_text())
    values = [trial["value"] for trial in trials]
    assert [trial["chosen"] for trial in trials] == [i == int(np.argmax(values)) for i in range(3)]
    scale = trials[int(np.argmax(values))]["setting"]["lambda"]
    base = small_study.network().state_dict()
    moved = torch.stack([own["0.weight"] - base["0.weight"] for own in bodies(ran).values()])
    wanted = base["0.weight"] + scale * moved.sum(0)
    assert torch.allclose(plait.open(str(place / "model"))["0.weight"].read(), wanted, atol=1e-5)


def test_the_ensemble_is_the_mean_of_probabilities(ran: Path) -> None:
    suite, experts = load_suite(ran / "suite.yaml"), bodies(ran)
    task = suite["second"]
    heads = plait.open(str(step(ran, "experts-@0") / "models" / "second" / "head.safetensors"))
    assert task.head is not None
    batch = task.split("test").batch(range(50))
    shares = []
    for own in experts.values():
        body = small_study.network()
        body.load_state_dict(own)
        model = Headed(body, task.head, task.meet)
        model.head.load_state_dict({n: heads[n].read() for n in heads})
        shares.append(model(batch).softmax(-1))
    wanted = (torch.stack(shares).mean(0).argmax(-1) == batch["label"]).double()
    with np.load(step(ran, "score-ensemble-@0") / "numbers.npz") as numbers:
        assert numbers["second"][:, 0].tolist() == wanted.tolist()


def test_the_joint_model_is_scored_with_its_own_heads(ran: Path) -> None:
    model = step(ran, "joint-@0") / "model"
    assert sorted(p.name for p in model.iterdir() if p.is_dir()) == sorted(small_study.NAMES)
    scores = plait.evaluate(str(model), load_suite(ran / "suite.yaml"), heads=model, bootstrap=0)
    with np.load(step(ran, "score-joint-@0") / "numbers.npz") as numbers:
        for row in scores:
            added = numbers[row.task].sum(0)
            assert row.value == pytest.approx(added[0] / added[1])


def test_similarity_is_that_of_task_vectors(ran: Path) -> None:
    base, experts = small_study.network().state_dict(), bodies(ran)
    deltas = [torch.cat([(own[n] - base[n]).flatten() for n in base]).double() for own in experts.values()]
    with np.load(step(ran, "similarity") / "similarity.npz") as found:
        for i, one in enumerate(deltas):
            for j, two in enumerate(deltas):
                wanted = torch.cosine_similarity(one, two, dim=0).item()
                assert found["cosine"][i, j] == pytest.approx(wanted, abs=1e-6)
        signs = torch.stack(
            [(own["0.weight"] - base["0.weight"]).flatten() for own in experts.values()]
        ).sign()
        bias = torch.stack([(own["0.bias"] - base["0.bias"]).flatten() for own in experts.values()]).sign()
        both = torch.cat([signs, bias], dim=1)
        less = torch.minimum((both > 0).sum(0), (both < 0).sum(0)).sum() / (both != 0).sum()
        assert found["conflict"][0] == pytest.approx(less.item())


def test_two_seeds_train_two_fleets(tmp_path: Path) -> None:
    path = small_study.write(tmp_path, small_study.STUDY.replace("bootstrap", "seeds: [0, 5]\nbootstrap"))
    ran = run_study(path, tmp_path / "out").ran
    assert {"experts @0", "experts @5", "joint @5", "average @5"} <= set(ran)
    one, two = (
        next((tmp_path / "out" / "steps").glob(f"experts-@{s}-*/models/first/*.safetensors")) for s in (0, 5)
    )
    assert one.read_bytes() != two.read_bytes()


def test_steps_that_fail_are_named_and_all_that_do_not_need_them_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = small_study.write(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(WAYS["train"], "make", refused)
        patch.setattr(WAYS["merge"], "make", refused)
        with pytest.raises(InputError, match="step `joint @0` failed: no room") as caught:
            run_study(path, tmp_path / "out")
    assert "step `average @0` failed: no room" in str(caught.value)
    assert "--resume" in str(caught.value)
    assert not (tmp_path / "out" / "report").exists()
    failed = ["average @0", "task arithmetic @0", "joint @0"]
    again = [step for name in failed for step in (name, f"score {name}")]
    assert run_study(path, tmp_path / "out", resume=True).ran == again


def refused(*_: object) -> None:
    raise InputError("no room")


def test_a_killed_study_goes_on_without_repeating_a_finished_step(tmp_path: Path) -> None:
    text = small_study.STUDY.replace("steps: 60", "steps: 60000")
    path, out = small_study.write(tmp_path, text), tmp_path / "out"
    main = "from plait.cli import main; main()"
    words = [sys.executable, "-c", main, "run", str(path), "-o", str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}
    process = subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while (
            not list((out / "steps").glob("joint-@0-*.partial/run/saves/*")) and time.monotonic() < deadline
        ):
            assert process.poll() is None
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = {p.name for p in (out / "steps").iterdir() if not p.name.endswith(".partial")}
    assert any(name.startswith("experts") for name in done)
    times = {p: (out / "steps" / p / "step.json").stat().st_mtime_ns for p in done}
    small_study.write(tmp_path, text.replace("steps: 60000", "steps: 60"))
    ran = run_study(path, out, resume=True).ran
    assert ran == ["joint @0", "score joint @0", "score ensemble @0"]
    assert all((out / "steps" / p / "step.json").stat().st_mtime_ns == at for p, at in times.items())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("merge: linear", "merge: linaer", "no method `linaer`"),
        ("reference: average", "reference: avarage", "no way `avarage`"),
        ("lambda: [0.2", "lamda: [0.2", "no option `lamda`"),
        ("[0.2, 0.4, 0.8]", "[0.2, 0.4, 0.8, 1.0]", "tries 4 settings, and each way may try 3"),
        ("[0.2, 0.4, 0.8]", "[]", "has no value to try"),
        ("[0.2, 0.4, 0.8]", "[x]", "`lambda` is 'x'"),
        ("[0.2, 0.4, 0.8]", "[.nan]", "`lambda` is nan"),
        ("steps: 40", "stpes: 40", "no setting `stpes`"),
        ("steps: 40", "steps: -1", "`steps` is -1"),
        ("lr: 0.01", "lr: fast", "`lr` is 'fast'"),
        ("settings: {steps: 60}", "settings: {steps: 0}", "`steps` is 0"),
        ("train: joint", "train: joint, merge: ties", "exactly one of"),
        ("ensemble: probabilities", "ensemble: votes", "ensemble"),
        ("suite: suite.yaml", "suite: glyfs", "no suite `glyfs`"),
        ("suite: suite.yaml", "suite: suite.yaml\ntasks: [first, nope]", "no task `nope`"),
        ("study: tables", "studdy: tables", "studdy"),
        ("  average:", "  score joint:", "step of two meanings"),
        ("  average:", "  experts:", "`experts` is a row of every report"),
        ("backend: sequential", "backend: magic", "no backend `magic`"),
        ("bootstrap: 50", "seeds: [1, 1]", "there twice"),
        ("bootstrap: 50", "split: train", "split"),
        ("experts > base", "experts > bass", "no way `bass`"),
        ("experts > base", "experts", "`experts` compares nothing"),
        ("experts > base", "experts > experts", "compares a row with itself"),
        (
            "merge: linear",
            "merge: slerp, options: {t: 0.5}",
            "`slerp` takes 1 model besides the base, and there are 3",
        ),
        ("merge: linear", "merge: nearswap", "needs the option `t`"),
        ("merge: linear", "merge: linear, options: {weight: [1, 2]}", "2 values for 3 experts"),
        ("merge: linear", "merge: linear, options: {weight: [1, x, 2]}", "`weight` has 'x'"),
        ("train: joint,", "train: joint, weights: {first: 1},", "has none for task `second`"),
        (
            "train: joint,",
            "train: joint, weights: {first: 1, second: 0, third: 1},",
            "weight of `second` is 0",
        ),
        ("bootstrap: 50", "base: {train: joint, tasks: [first, first]}", "task `first` is there twice"),
        ("bootstrap: 50", "seeds: [true]", "seeds"),
        ("bootstrap: 50", f"seeds: [{2**63}]", "too large"),
        ("  average:", "  experts for tuning:", "what a step is called"),
        ("  average:", '  "a\\0b":', "no name for a way"),
        ("train: joint,", "train: joint, weights: {first: 1, nope: 1},", "no task `nope`"),
    ],
)
def test_a_faulty_study_is_refused_before_its_first_step(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in small_study.STUDY
    path = small_study.write(tmp_path, small_study.STUDY.replace(old, new))
    with pytest.raises(InputError, match=said):
        run_study(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = small_study.STUDY.replace("merge: linear", "merge: linaer").replace("lr: 0.01", "rl: 0.01")
    with pytest.raises(InputError) as caught:
        load_study(small_study.write(tmp_path, text))
    assert "linaer" in str(caught.value)
    assert "`rl`" in str(caught.value)


def test_a_task_without_validation_can_not_be_tuned_on(tmp_path: Path) -> None:
    path = small_study.write(tmp_path)
    suite = (tmp_path / "suite.yaml").read_text().replace("validation: second-validation.csv,", "")
    (tmp_path / "suite.yaml").write_text(suite)
    with pytest.raises(InputError, match="task `second` has no split `validation`"):
        load_study(path)


def test_the_command_tells_steps_and_report(ran: Path) -> None:
    found = CliRunner().invoke(app, ["run", str(ran / "study.yaml"), "-o", str(ran / "out"), "--json"])
    told = json.loads(found.stdout)
    assert Path(told["report"]).is_file()
    assert all(each["cached"] for each in told["steps"])
    expected = {(each["better"], each["worse"]): each for each in told["expected"]}
    assert expected["experts", "base"]["outcome"] == "holds"
    assert expected["experts", "base"]["test"]["value"] > 0.05
    words = CliRunner().invoke(app, ["run", str(ran / "study.yaml"), "-o", str(ran / "out")]).stdout
    assert "expected experts > base: holds (+" in words
    assert "expected joint > average:" in words
    trials = json.loads((step(ran, "task-arithmetic-@0") / "trials.json").read_text())
    (chosen,) = (trial["setting"]["lambda"] for trial in trials if trial["chosen"])
    side = {0.2: "lowest", 0.8: "highest"}.get(chosen)
    wanted = [] if side is None else [("task arithmetic", "lambda", chosen, side)]
    assert [(e["way"], e["option"], e["value"], e["side"]) for e in told["edges"]] == wanted
    said = (
        f"grid's edge, a better value may lie outside: task arithmetic: lambda={chosen:g}, the {side} tried"
    )
    assert (said in words) == bool(wanted)


def test_the_demo_is_a_study_of_eight_merges_with_one_budget(
    ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(ran / "suite.yaml")
    monkeypatch.setattr("plait.study._study.load_suite", lambda *_, **__: suite)
    found = load_study(Path(study.__file__).parent / "demo.yaml")
    merges = {name: way for name, way in found.ways.items() if isinstance(way, Merge)}
    assert len(merges) == 8
    assert {len(way.grid) for name, way in merges.items() if name != "average"} == {found.tuning.budget}
    assert {way.kind for way in found.ways.values()} == {"merge", "joint", "ensemble"}


def test_experts_may_have_weights_of_their_own(tmp_path: Path) -> None:
    text = small_study.STUDY.replace("merge: linear", "merge: linear, options: {weight: [1, 2, 5]}")
    run_study(small_study.write(tmp_path, text), tmp_path / "out")
    held = list(bodies(tmp_path).values())
    wanted = sum(w * own["0.weight"].double() for w, own in zip((1, 2, 5), held, strict=True)) / 8
    found = plait.open(str(step(tmp_path, "average-@0") / "model"))["0.weight"].read().double()
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_way_with_a_sign_in_its_name_can_be_expected_of(tmp_path: Path) -> None:
    text = small_study.STUDY.replace("  joint:", '  "a > b":').replace("joint > average", '"a > b > average"')
    known = load_study(small_study.write(tmp_path, text))
    assert known.expected == (("experts", "base"), ("a > b", "average"))


def test_a_report_tells_which_split_was_measured(tmp_path: Path) -> None:
    text = small_study.STUDY.replace("bootstrap", "split: validation\nbootstrap")
    folder = small_study.ran(tmp_path, text)
    table = (folder / "out" / "report" / "tables" / "scores.md").read_text()
    assert "every task's validation examples" in table
    tuning = (folder / "out" / "report" / "tables" / "tuning.md").read_text()
    assert "the same that are scored" in tuning
