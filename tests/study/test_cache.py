"""What makes a study's steps anew, who may run in its folder, and what goes on after a kill at any time."""

from __future__ import annotations

import functools
import importlib
import json
import shutil
import sys
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import small_study
import torch

from plait.engine._lock import locked
from plait.errors import InputError
from plait.study import run_study
from plait.study._code import code_of
from plait.study._facts import of_examples, of_network
from plait.tasks import Items

STUDY = """
study: cache
suite: suite.yaml
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
bootstrap: 0
ways:
  average: {merge: linear}
  side by side: {concatenate: experts}
"""


def scores(out: Path, folders: dict[str, str], name: str) -> dict[str, np.ndarray]:
    with np.load(out / folders[f"score {name} @0"] / "numbers.npz") as found:
        return {task: found[task] for task in small_study.NAMES}


def test_another_order_of_the_tasks_makes_what_is_named_by_their_places_anew(tmp_path: Path) -> None:
    path = small_study.write(tmp_path, STUDY)
    first = run_study(path, tmp_path / "out").ran
    header, *tasks = (tmp_path / "suite.yaml").read_text().split("\n  - ")
    reordered = "\n  - ".join(part.strip() for part in [header, *reversed(tasks)])
    (tmp_path / "suite.yaml").write_text(reordered + "\n")
    path.write_text(STUDY.replace("bootstrap: 0", "bootstrap: 0\nsplit: validation"))
    again, fresh = (run_study(path, tmp_path / out) for out in ("out", "fresh"))
    assert ["base", *again.ran] == first
    one, two = (
        scores(tmp_path / out, {step.name: step.folder for step in run.steps}, "side by side")
        for out, run in (("out", again), ("fresh", fresh))
    )
    assert all(np.array_equal(one[task], two[task]) for task in small_study.NAMES)


NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.scale = nn.Linear(6, 24), nn.Linear(24, 16), 1.0

    def forward(self, x):
        return torch.tanh(self.second(torch.tanh(self.first(x))) * self.scale)
"""


@pytest.mark.parametrize(("old", "new"), [("torch.tanh(self.first", "torch.relu(self.first"), ("1.0", "0.5")])
def test_other_code_of_the_base_s_network_makes_all_steps_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    path = small_study.write(tmp_path, STUDY)
    suite = (tmp_path / "suite.yaml").read_text().replace("small_study:network", "nets_of_cache:Net")
    (tmp_path / "suite.yaml").write_text(suite)
    monkeypatch.syspath_prepend(str(tmp_path))
    ran = []
    for text in (NETS, NETS, NETS.replace(old, new)):
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        (tmp_path / "nets_of_cache.py").write_text(text)
        monkeypatch.delitem(sys.modules, "nets_of_cache", raising=False)
        ran.append(run_study(path, tmp_path / "out").ran)
    assert ran == [ran[0], [], ran[0]]


HELPED = """
import functools

import torch
from torch import nn

import more_helpers

SCALE = 1.0
CALLS = 0


def outer(x):
    global CALLS
    CALLS += 1
    return inner(x) * SCALE


def inner(x):
    return torch.tanh(x)


def unused(x):
    return x + 1


@functools.lru_cache
def power():
    return 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    @property
    def shift(self):
        return more_helpers.shift()

    def forward(self, x):
        return outer(self.layer(x)) ** power() + self.shift
"""
MORE = """
def shift():
    return 1.0


def other():
    return 3.0
"""


def helped(folder: Path, patch: pytest.MonkeyPatch, text: str, more: str = MORE) -> dict[str, str]:
    """The code of a network whose module says so."""
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    for name, own in (("helped_nets", text), ("more_helpers", more)):
        (folder / f"{name}.py").write_text(own)
        patch.delitem(sys.modules, name, raising=False)
    network = importlib.import_module("helped_nets").Net()
    network(torch.zeros(1, 2))
    return of_network(network)["code"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("torch.tanh(x)", "torch.relu(x)"), ("SCALE = 1.0", "SCALE = 2.0"), ("return 2", "return 3")],
)
def test_functions_and_constants_that_a_network_s_code_names_are_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    one = helped(tmp_path, monkeypatch, HELPED)
    assert helped(tmp_path, monkeypatch, HELPED) == one
    assert helped(tmp_path, monkeypatch, HELPED.replace(old, new)) != one


def test_functions_of_other_modules_are_part_of_the_code_and_what_is_not_named_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    one = helped(tmp_path, monkeypatch, HELPED)
    assert helped(tmp_path, monkeypatch, HELPED, MORE.replace("1.0", "2.0")) != one
    assert helped(tmp_path, monkeypatch, HELPED.replace("x + 1", "x + 2"), MORE.replace("3.0", "4.0")) == one
    assert {name.partition(".")[0] for name in one} == {"helped_nets", "more_helpers"}


REACHED = """
import functools

import torch
from torch import nn

{top}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        {own}

    {body}
"""
#: What stands beside a network, in it, and what it does; each with a value that is no part of their source.
HOLDERS = {
    "a list": ("S = [1.0, make()]", "", "S[1]"),
    "a mapping": ("S = {'k': (make(), 1)}", "", "S['k'][0]"),
    "a tensor": ("S = torch.full((1 << 17,), 1.0)\nS[5] = make()", "", "S[5]"),
    "a mapping of functions": ("def f(): return VALUE\nS = {'f': f}", "", "S['f']()"),
    "partial arguments": ("def f(k): return k\nS = functools.partial(f, make())", "", "S()"),
    "partial keywords": ("def f(k): return k\nS = functools.partial(f, k=make())", "", "S()"),
    "an instance": (
        "class C:\n    def __init__(s, k): s.k = k\n    def __call__(s): return s.k\nS = C(make())",
        "", "S()",
    ),
    "code of an instance": ("class C:\n    def __call__(s): return VALUE\nS = C()", "", "S()"),
    "another class's attribute": ("class C:\n    k = make()", "", "C.k"),
    "a function of torch": ("S = torch.tanh if make() == 2.0 else torch.relu", "", "S(x)"),
    "one of two lambdas": ("f = lambda: 1.0\ng = lambda: VALUE", "", "f() + g()"),
    "what a wrapped function names": (
        "def d(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
        "def inner(): return VALUE\n@d\ndef f(): return inner()", "", "f()",
    ),
    "a wrapper": (
        "def d(k):\n    def c(f):\n        @functools.wraps(f)\n        def w(): return f() * k\n"
        "        return w\n    return c\n@d(make())\ndef f(): return 1.0", "", "f()",
    ),
    "a module's own list": ("", "self.own = [make()]", "self.own[0]"),
    "a module's own functions": ("def f(): return VALUE", "self.own = {'f': f}", "self.own['f']()"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_code_reaches_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    top, own, factor = HOLDERS[kind]
    body = f"def forward(self, x): return self.layer(x) * {factor}"
    _tells(tmp_path, monkeypatch, top, own, body)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_that_others_put_on_modules_are_part_of_the_code(kind: str) -> None:
    def hooked(by: float, partial: bool) -> dict[str, str]:
        def scale(k: float, *_: object) -> float:
            return k * by

        network = torch.nn.Sequential(torch.nn.Linear(2, 2))
        getattr(network[0], kind)(functools.partial(scale, 1.0) if partial else scale)
        return of_network(network)["code"]

    for partial in (False, True):
        assert hooked(2.0, partial) == hooked(2.0, partial) != hooked(3.0, partial)


def test_functions_in_a_module_s_list_are_part_of_the_code() -> None:
    def holding(by: float) -> dict[str, str]:
        network = torch.nn.Linear(2, 2)
        helper = functools.partial(torch.mul, by)
        vars(network)["own"] = [lambda x: helper(x) + 1]
        return of_network(network)["code"]

    assert holding(2.0) == holding(2.0) != holding(3.0)


@pytest.mark.parametrize(
    "body",
    [
        "def forward(self, x, k=make()): return self.layer(x) * k",
        "def forward(self, x, *, k=make()): return self.layer(x) * k",
        "k = make()\n    def forward(self, x): return self.layer(x) * self.k",
        "def g(self, x, k): return x * k\n    f = functools.partialmethod(g, k=make())\n"
        "    def forward(self, x): return self.f(self.layer(x))",
    ],
)
def test_defaults_and_attributes_of_a_class_are_part_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    _tells(tmp_path, monkeypatch, "", "", body)


def _tells(folder: Path, patch: pytest.MonkeyPatch, top: str, own: str, body: str) -> None:
    """Another value, which no source tells, makes other code; the same value the same."""
    patch.syspath_prepend(str(folder))
    given = "from more_helpers import VALUE\ndef make(): return VALUE\n"
    text = REACHED.format(top=given + top, own=own or "pass", body=body)
    one, same, other = (helped(folder, patch, text, f"VALUE = {value}\n") for value in ("2.0", "2.0", "7.0"))
    assert one == same != other
    assert " at 0x" not in json.dumps(one)


def test_what_the_code_itself_counts_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not any(name.endswith("CALLS") for name in helped(tmp_path, monkeypatch, HELPED))


def test_what_closures_hold_is_part_of_the_code() -> None:
    def scaled(by: float) -> FunctionType:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x * by

        return function

    assert code_of([scaled(2.0)]) == code_of([scaled(2.0)]) != code_of([scaled(3.0)])


def test_facts_of_a_network_hold_no_addresses_and_not_where_it_was_read() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4
    )
    network = transformers.BertModel(config)
    one = of_network(network)
    network.config._name_or_path = network.name_or_path = "elsewhere"
    assert of_network(network) == one
    assert " at 0x" not in json.dumps(one)
    network.config.layer_norm_eps = 0.1
    assert of_network(network) != one


class Pictures:
    """Examples that are made when they are asked for."""

    def __init__(self, numbers: torch.Tensor, noise: float = 0) -> None:
        self.numbers, self.noise = numbers, noise

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input": self.numbers[row] + self.noise * torch.rand(3)}


def test_examples_made_on_demand_are_told_by_what_they_hold() -> None:
    numbers, labels = torch.rand(40, 3), torch.arange(40) % 3
    one = of_examples(Items(Pictures(numbers), columns={"label": labels}))
    assert of_examples(Items(Pictures(numbers.clone()), columns={"label": labels})) == one
    assert of_examples(Items(Pictures(numbers.flip(0)), columns={"label": labels})) != one
    assert of_examples(Items(Pictures(numbers), columns={"label": labels.flip(0)})) != one


def test_examples_that_say_what_they_are_made_from_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.arange(40) % 3

    def told(origin: str, labels: torch.Tensor, source: list[str] | None = None) -> str:
        return of_examples(Items(range(40), columns={"label": labels}, source=source, origin=origin))

    monkeypatch.setattr(Items, "batch", None)
    one = told("a", labels)
    assert told("a", labels.clone()) == one
    assert len({one, told("b", labels), told("a", labels.flip(0)), told("a", labels, ["x"] * 40)}) == 4


def test_examples_that_are_others_each_time_are_told_by_labels_and_sources() -> None:
    numbers, labels = torch.rand(40, 3), torch.arange(40) % 3

    def told(labels: torch.Tensor, source: list[str]) -> str:
        return of_examples(Items(Pictures(numbers, 0.1), columns={"label": labels}, source=source))

    one = told(labels, ["a"] * 40)
    assert told(labels, ["a"] * 40) == one
    assert told(labels.flip(0), ["a"] * 40) != one
    assert told(labels, ["b"] * 40) != one


def test_one_run_at_a_time_is_at_work_in_a_folder(tmp_path: Path) -> None:
    path, out = small_study.write(tmp_path, STUDY), tmp_path / "out"

    def again(_: object) -> None:
        with pytest.raises(InputError, match="another run is writing there right now"):
            run_study(path, out)

    run_study(path, out, told=again)
    assert run_study(path, out).ran == []
    with locked(tmp_path / "else" / "run"):
        assert run_study(path, out).ran == []


KILLED = """
study: killed
suite: suite.yaml
base: {train: joint, settings: {steps: 2}}
experts: {backend: sequential, steps: 4, batch_size: 16, lr: 0.01}
bootstrap: 0
ways:
  average: {merge: linear}
  joint: {train: joint}
  student: {distill: ensemble}
  alternating: {alternate: linear, rounds: 2}
  zoo: {zoo: 2}
  side by side: {concatenate: experts}
"""


def test_a_study_goes_on_after_a_kill_between_the_end_of_a_step_s_work_and_its_note(tmp_path: Path) -> None:
    path, out = small_study.write(tmp_path, KILLED), tmp_path / "out"
    first = run_study(path, out)
    kept = {file.relative_to(out): file.read_bytes() for file in out.glob("steps/*/**/*.safetensors")}
    for step in first.steps:
        (out / step.folder / "step.json").unlink()
        (out / step.folder).rename(out / f"{step.folder}.partial")
    assert run_study(path, out, resume=True).ran == first.ran
    assert {file.relative_to(out): file.read_bytes() for file in out.glob("steps/*/**/*.safetensors")} == kept


@pytest.mark.parametrize("text", [None, "{", "[]", '{"first": 3}'])
def test_a_finished_step_without_its_models_list_says_which_folder_to_remove(
    tmp_path: Path, text: str | None
) -> None:
    path, out = small_study.write(tmp_path, STUDY), tmp_path / "out"
    (experts,) = (out / step.folder for step in run_study(path, out).steps if step.name == "experts @0")
    (experts / "models.json").unlink()
    if text is not None:
        (experts / "models.json").write_text(text)
    path.write_text(STUDY.replace("merge: linear", "merge: ties"))
    with pytest.raises(InputError) as caught:
        run_study(path, out)
    told = f"{experts}: it is no finished step: models.json, which says where its models are, can't be read"
    assert told in str(caught.value)
    assert "hint: remove this folder, and the step is done anew" in str(caught.value)
    assert "Errno" not in str(caught.value)
    shutil.rmtree(experts)
    assert run_study(path, out).ran[0] == "experts @0"


def test_all_members_that_diverged_are_named(tmp_path: Path) -> None:
    text = STUDY.replace("lr: 0.01", "lr: 1e9, weight_decay: 1e9")
    with pytest.raises(InputError) as caught:
        run_study(small_study.write(tmp_path, text), tmp_path / "out")
    assert all(f"member `{name}` failed" in str(caught.value) for name in small_study.NAMES)


def test_the_largest_seed_and_a_long_name_are_taken(tmp_path: Path) -> None:
    text = KILLED.replace("bootstrap", f"seeds: [{2**63 - 1}]\nbootstrap")
    text = text.replace("  zoo:", f"  {'very ' * 60}long: {{merge: linear}}\n  zoo:")
    assert run_study(small_study.write(tmp_path, text), tmp_path / "out").report.is_file()


def test_what_a_killed_run_left_of_other_settings_is_removed(tmp_path: Path) -> None:
    path, out = small_study.write(tmp_path, STUDY), tmp_path / "out"
    run_study(path, out)

    def killed(name: str, digest: str) -> Path:
        (place := out / "steps" / f"{name}-{digest}.partial").mkdir()
        return place

    gone = [killed(name, "0123456789ab") for name in ("average-@0", "experts-@0")]
    kept = [killed("very-average-@0", "0123456789ab"), killed("average-@0-more", "0123456789ab")]
    kept.append(killed("average-@0", "no-digest"))
    assert run_study(path, out).ran == []
    assert not any(place.exists() for place in gone)
    assert all(place.is_dir() for place in kept)


def test_what_a_killed_run_left_of_a_step_that_is_called_alike_stays(tmp_path: Path) -> None:
    path, out = small_study.write(tmp_path, STUDY + "  'side-by-side': {merge: ties}\n"), tmp_path / "out"
    run_study(path, out)
    (place := out / "steps" / "side-by-side-@0-0123456789ab.partial").mkdir()
    assert run_study(path, out, resume=True).ran == []
    assert place.is_dir()
