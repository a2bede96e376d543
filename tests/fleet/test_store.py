"""Files of a fleet that are not what a save left, and disks that refuse: one message with the path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import MLP, task
from safetensors.torch import load_file, save_file
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member

HERE = Path(__file__).parent


def double() -> nn.Module:
    return MLP().double()


def fleet(out: Any, steps: int = 3, **kwargs: Any) -> Fleet:
    own = [
        Member(name="a", steps=steps, evaluate_every=2, keep="best"),
        Member(name="b", steps=steps, lr=0.1),
    ]
    return Fleet(own, task(MLP), model=double, backend="stacked", log_every=1, out=out, **kwargs)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    fleet(tmp_path).fit()
    return tmp_path


def refused(message: str, folder: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fleet(folder).fit(resume=True)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "5", "null", '"a"', "", "{", "\x00", "[" * 100_000, '{"round": 1, "members": []}'],
)
def test_facts_that_are_of_no_fleet(saved: Path, text: str) -> None:
    (saved / "saves" / "000000003" / "fleet.json").write_text(text)
    refused("fleet.json: it (does not tell of a fleet|can't be read)", saved)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("round",), -1, "`round`: Input should be greater than or equal to 0"),
        (("log",), None, "`log`: Input should be a valid integer"),
        (("members", "a", "step"), "x", "`members.a.step`: Input should be a valid integer"),
        (("members", "a", "status"), "done", "`members.a.status`: Input should be 'running'"),
        (("members", "a"), 5, "`members.a`"),
        (("kept",), ["z"], "it has no member `z`"),
        (("groups",), [{"kind": "stacked", "members": ["z"]}], "it has no member `z`"),
        (("groups",), [{"kind": "stack", "members": []}], "`groups.0.kind`"),
        (("choices",), {"a": 5}, "`choices.a`"),
        (("choices",), {"a": {"kind": "stacked", "size": -5, "seconds": {}}}, "`choices.a.size`"),
        (("callbacks",), [5], "`callbacks.0`"),
        (("never",), {"b": "x"}, "`never.b`"),
    ],
)
def test_a_fact_of_another_kind_is_named(
    saved: Path, place: tuple[str, ...], value: Any, message: str
) -> None:
    path = saved / "saves" / "000000003" / "fleet.json"
    facts = json.loads(path.read_text())
    inner = facts
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(facts))
    refused(f"fleet.json: it does not tell of a fleet: {message}", saved)


def test_tensors_that_are_another_members(saved: Path) -> None:
    path = saved / "saves" / "000000003" / "a.safetensors"
    own, about = load_file(path), {"step": "3"}

    def replaced(change: dict[str, Any], metadata: dict[str, str] | None, message: str) -> None:
        tensors = {name: t for name, t in (own | change).items() if t is not None}
        save_file(tensors, path, metadata)
        refused(rf"a.safetensors: it {message}", saved)

    replaced({}, None, "can't be read")
    replaced({}, {"step": "x"}, "can't be read")
    replaced({"plain": torch.zeros(1)}, about, "can't be read")
    replaced({"other:first.weight": torch.zeros(1)}, about, "can't be read")
    replaced({"moment99999999:first.weight": torch.zeros(1)}, about, "can't be read")
    replaced({"parameter:first.weight": None}, about, "is not this member's: it has no `first.weight`")
    replaced({"parameter:more": torch.zeros(1)}, about, "is not this member's: `more` is none of its tensors")
    replaced({"moment0:second.bias": torch.zeros(4)}, about, r"is not this member's: `second.bias` is \(4,\)")
    replaced(
        {"parameter:first.bias": own["parameter:first.bias"].float()},
        about,
        r"is not this member's: `first.bias` is \(16,\) in torch.float32",
    )
    path.unlink()
    refused("a.safetensors: it can't be read", saved)
    path.mkdir()
    refused("a.safetensors: it can't be read", saved)


def test_a_save_that_is_refused_leaves_the_fleet_as_it_was(saved: Path) -> None:
    (saved / "saves" / "000000003" / "b.safetensors").unlink()
    whole = fleet(saved)
    with pytest.raises(InputError):
        whole.fit(resume=True)
    assert whole.round == 0
    assert whole.status == {"a": "running", "b": "running"}
    assert whole.state("a").step == 0


def test_what_others_keep_beside_saves_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    living = f".000000002.{os.getppid()}"
    for name in ("mine", "000000001", f".000000002.{ended.pid}", living):
        (tmp_path / "saves" / name).mkdir(parents=True)
    (tmp_path / "saves" / "notes.txt").write_text("mine")
    fleet(tmp_path).fit()
    found = sorted(p.name for p in (tmp_path / "saves").iterdir())
    assert found == [living, "000000003", "mine", "notes.txt"]
    (tmp_path / "saves" / "000000003" / "notes.txt").write_text("mine")
    assert set(fleet(tmp_path).fit(resume=True).status.values()) == {"finished"}


def test_a_folder_that_another_process_trains_into_is_refused(tmp_path: Path) -> None:
    code = f"""
import sys, torch
sys.path.insert(0, {str(HERE)!r})
from test_store import fleet
class Wait:
    def on_round(self, fleet, validated):
        if fleet.round == 2:
            print("trains", flush=True)
            sys.stdin.readline()
fleet({str(tmp_path)!r}, save_every=1).fit(callbacks=[Wait()])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "trains\n"
    for resume in (True, False):
        with pytest.raises(InputError, match="another fleet is training there right now") as caught:
            fleet(tmp_path).fit(resume=resume)
        assert str(tmp_path) in str(caught.value)
    other.communicate("\n")
    assert other.returncode == 0
    assert fleet(tmp_path).fit(resume=True).history == fleet(None).fit().history


def test_a_folder_that_trains_is_refused_in_the_same_process_too(tmp_path: Path) -> None:
    class Other:
        def on_round(self, own: Fleet, validated: object) -> None:
            with pytest.raises(InputError, match="another fleet is training there right now"):
                fleet(tmp_path).fit()

    fleet(tmp_path).fit(callbacks=[Other()])


@pytest.mark.parametrize("line", ["[]", "5", "null", "{}", '{"member": 5}', '{"member"', "\\xff"])
def test_a_line_of_the_log_that_is_no_record(saved: Path, line: str) -> None:
    path = saved / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[1] = line + " " * (len(lines[1]) - len(line))
    path.write_text("\n".join(lines) + "\n")
    refused("metrics.jsonl: line 2 is no record of a member", saved)


def test_a_log_that_is_shorter_than_its_save_knows(saved: Path) -> None:
    path = saved / "metrics.jsonl"
    path.write_text(path.read_text()[:50])
    refused("metrics.jsonl: it has 50 bytes, its save knows of", saved)
    path.unlink()
    path.mkdir()
    refused("metrics.jsonl: it could not be written", saved)


def test_values_of_the_log_may_be_of_any_kind(saved: Path) -> None:
    path, more = saved / "metrics.jsonl", '{"member": "a", "step": 1, "list": [1]}\n'
    facts_path = saved / "saves" / "000000003" / "fleet.json"
    facts = json.loads(facts_path.read_text())
    path.write_text(path.read_text() + more)
    facts_path.write_text(json.dumps(facts | {"log": facts["log"] + len(more)}))
    assert fleet(saved).fit(resume=True).history[-1]["list"] == [1]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("/proc/xx", "/proc/xx: it could not be written"),
        ("/proc/version", "/proc/version: the fleet's folder is a file"),
        ("/dev/null/fleet", "/dev/null/fleet: it could not be written"),
        ("x" * 300, "it can't be a folder: File name too long"),
        ("/tmp/a\0b", "it could not be written: embedded null byte"),
        (5, "`out` is 5"),
    ],
)
def test_a_folder_that_cannot_be(out: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fleet(out).fit()


def test_members_are_not_saved_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trained = fleet(None).fit()
    for folder in (tmp_path / "file", tmp_path / "file" / "inner", Path("/proc/xx")):
        with pytest.raises(InputError, match="it could not be written"):
            trained.save(folder)


def test_members_that_cannot_all_be_saved_leave_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained, real = fleet(None).fit(), Path.write_text

    def full(self: Path, *given: Any, **named: Any) -> int:
        if self.parent.name == "b":
            raise OSError(28, "No space left on device")
        return real(self, *given, **named)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"could not be written: .* No space left"):
        trained.save(tmp_path / "out")
    monkeypatch.undo()
    assert list((tmp_path / "out").iterdir()) == []
    assert [place.name for place in trained.save(tmp_path / "out")] == ["a", "b"]


def test_a_disk_that_fills_while_the_log_is_written_is_told_and_can_be_gone_on_from(tmp_path: Path) -> None:
    code = f"""
import resource, signal, sys, torch
sys.path.insert(0, {str(HERE)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
torch.set_num_threads(1)
from test_store import fleet
from plait.errors import InputError
class Full:
    def on_round(self, fleet, validated):
        if fleet.round == 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    fleet({str(tmp_path)!r}, steps=200, save_every=10).fit(callbacks=[Full()])
except InputError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "metrics.jsonl: it could not be written" in done.stdout
    assert "make room" in done.stdout
    resumed, whole = fleet(tmp_path, steps=200).fit(resume=True), fleet(None, steps=200).fit()
    assert resumed.history == whole.history
