"""Metrics go to JSON lines and to TensorBoard, members to folders, and progress to a terminal."""

from __future__ import annotations

import json
import math
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import MLP, task
from safetensors.torch import load_file
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, FleetWarning, Member, MLflow, TensorBoard
from plait.fleet._log import JsonLines


def members(count: int = 2, **settings: Any) -> list[Member]:
    common: dict[str, Any] = {"steps": 20, "evaluate_every": 10}
    return [Member(name=f"m{i}", seed=i, **(common | settings)) for i in range(count)]


def double() -> nn.Module:
    return MLP().double()


def test_json_lines_hold_what_history_holds(tmp_path: Path) -> None:
    fleet = Fleet(members(), task(MLP), model=double, out=tmp_path).fit()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == fleet.history
    assert {"member", "step", "loss", "lr", "norm"} <= set(lines[0])


def test_numbers_that_json_lacks_are_words_and_come_back(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "log.jsonl")
    log.write({"member": "a", "step": 1, "loss": math.inf})
    log.write({"member": "a", "step": 2, "loss": math.nan})
    assert '"inf"' in (log.records(), Path(tmp_path / "log.jsonl").read_text())[1]
    first, second = log.records()
    assert first["loss"] == math.inf
    assert math.isnan(second["loss"])


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fleet = Fleet(members(), task(MLP), model=double, writers=[TensorBoard(tmp_path)]).fit()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(e.step, e.value) for e in events.Scalars("m1/loss")]
    wanted = [(r["step"], r["loss"]) for r in fleet.history if r["member"] == "m1" and "loss" in r]
    assert [step for step, _ in found] == [step for step, _ in wanted]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted])


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An experiment of MLflow in a folder."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tmp_path.as_uri())
    try:
        yield mlflow.create_experiment("fleets")
    finally:
        while mlflow.active_run() is not None:
            mlflow.end_run()
        mlflow.set_tracking_uri(before)


def logged(experiment: str, name: str) -> list[tuple[int, float]]:
    """Of the experiment's one run."""
    import mlflow

    (run,) = mlflow.MlflowClient().search_runs([experiment])
    assert run.info.status == "FINISHED"
    return [(m.step, m.value) for m in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


def losses(fleet: Fleet, member: str) -> list[tuple[int, float]]:
    return [(r["step"], r["loss"]) for r in fleet.history if r["member"] == member and "loss" in r]


def test_mlflow_gets_every_number(experiment: str) -> None:
    import mlflow

    writer = MLflow(run_name="fleet", experiment_id=experiment)
    fleet = Fleet(members(), task(MLP), model=double, writers=[writer]).fit()
    assert mlflow.active_run() is None
    assert logged(experiment, "m1/loss") == losses(fleet, "m1")


def test_mlflow_goes_on_in_its_run(experiment: str) -> None:
    import mlflow

    writer = MLflow(run_name="fleet", experiment_id=experiment)
    fleet = Fleet(members(1), task(MLP), model=double, writers=[writer]).fit()
    fleet.add(Member(name="late", steps=20))
    fleet.fit()
    assert mlflow.active_run() is None
    assert mlflow.search_runs(search_all_experiments=True, output_format="list").__len__() == 1
    assert logged(experiment, "m0/loss") == losses(fleet, "m0")
    assert logged(experiment, "late/loss") == losses(fleet, "late")


def test_mlflow_stays_in_the_run_that_was_active(experiment: str) -> None:
    import mlflow

    with mlflow.start_run(experiment_id=experiment) as run:
        fleet = Fleet(members(1), task(MLP), model=double, writers=[MLflow()]).fit()
        assert mlflow.active_run().info.run_id == run.info.run_id
    assert logged(experiment, "m0/loss") == losses(fleet, "m0")


def test_mlflow_gets_members_of_any_name(experiment: str) -> None:
    names = {
        "lr=0.1, $x": "lr_0.1_ _x",
        "../up": "__/up",
        "/a//b": "_/a/_/b",
        ".": "_",
        "ä/ö": "ä/ö",
        "x" * 300: "x" * 200 + "-",
        "a=1": "a_1",
        "a?1": "a_1-",
    }
    own = [Member(name=name, steps=1, seed=i) for i, name in enumerate(names)]
    writer = MLflow(experiment_id=experiment)
    fleet = Fleet(own, task(MLP), model=double, writers=[writer], backend="sequential").fit()
    for name, start in names.items():
        taken = writer._name(name)
        assert taken.startswith(start)
        assert len(taken) == len(start) + 8 * start.endswith("-")
        assert logged(experiment, f"{taken}/loss") == losses(fleet, name)


def test_a_writer_that_fails_is_told_of_once_and_training_goes_on() -> None:
    class Failing:
        def __init__(self, closing: bool) -> None:
            self.closing, self.calls = closing, 0

        def write(self, record: Any) -> None:
            self.calls += 1
            if not self.closing:
                raise OSError("the network is gone")

        def close(self) -> None:
            raise RuntimeError("the network is gone")

    writers = [Failing(False), Failing(True)]
    fleet = Fleet(members(), task(MLP), model=double, writers=writers, log_every=1)
    with pytest.warns(FleetWarning, match="the writer Failing failed") as told:
        fleet.fit()
    assert [str(warning.message).rpartition(": ")[0] for warning in told] == [
        "the writer Failing failed, training goes on without it: OSError",
        "the writer Failing failed, training goes on without it: RuntimeError",
    ]
    assert [writer.calls for writer in writers] == [1, len(fleet.history)]
    assert set(fleet.status.values()) == {"finished"}


def test_members_are_saved_as_folders(tmp_path: Path) -> None:
    learned = task(MLP, head=nn.Linear(3, 3).double())
    fleet = Fleet(members(), learned, model=double).fit()
    folders = fleet.save(tmp_path / "out")
    assert [folder.name for folder in folders] == ["m0", "m1"]
    network: Any = fleet["m1"]
    body, head = load_file(folders[1] / "model.safetensors"), load_file(folders[1] / "head.safetensors")
    assert all(torch.equal(body[n], t) for n, t in network.body.state_dict().items())
    assert all(torch.equal(head[n], t) for n, t in network.head.state_dict().items())
    assert json.loads((folders[1] / "member.json").read_text())["steps"] == 20
    with pytest.raises(InputError, match="the folder is not empty"):
        fleet.save(tmp_path / "out")


def test_saved_members_merge(tmp_path: Path) -> None:
    import plait

    fleet = Fleet(members(3), task(MLP), model=double).fit()
    paths = [str(folder / "model.safetensors") for folder in fleet.save(tmp_path / "out")]
    merged = plait.merge(paths, method="linear")
    wanted = sum(fleet[name].first.weight.detach() for name in fleet) / 3
    assert torch.allclose(merged["first.weight"], wanted)
    live = plait.merge([fleet[name] for name in fleet], method="linear")
    assert torch.allclose(live["first.weight"], wanted)


def test_a_terminal_shows_a_row_for_each_member(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from networks import MLP, task\nfrom plait.fleet import Fleet, Member\n"
        "own = [Member(name=f'member {i}', seed=i, steps=30, evaluate_every=10) for i in range(30)]\n"
        "Fleet(own, task(MLP), model=lambda: MLP().double(), backend='stacked').fit()\n"
    )
    script = tmp_path / "show.py"
    script.write_text(code)
    process, terminal = pty.fork()
    if process == 0:
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        os.environ["COLUMNS"], os.environ["LINES"], os.environ["TERM"] = "100", "50", "xterm"
        os.execv(sys.executable, [sys.executable, str(script)])
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    text = shown.decode()
    assert "member 0" in text
    assert "30/30" in text
    assert "finished" in text
    assert "6 more" in text
