"""A fleet, and models with heads, on a whole suite: each task is met with the head that its model brings."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import Any

import digit_tasks
import pytest
import torch
from safetensors.torch import save_file

import plait
from plait.errors import InputError, PlaitWarning
from plait.tasks import Headed, Task, evaluate


@pytest.fixture(scope="module")
def suite():
    return digit_tasks.suite()


@pytest.fixture(scope="module")
def fleet(suite):
    members = [plait.Member(name=f"on {t.name}", task=t.name, steps=40, lr=0.005) for t in suite.tasks]
    return plait.Fleet(members, suite, backend="sequential").fit(quiet=True)


def values(scores):
    return {(row.model, row.task): row.value for row in scores}


def wanted(fleet, suite, bodies):
    """What `heads` gives, asked for by hand."""
    heads = {task.name: fleet[f"on {task.name}"].head for task in suite.tasks}
    return values(evaluate(bodies, suite, heads=heads, bootstrap=0))


def test_a_fleet_is_scored_on_all_tasks_with_each_task_s_trained_head(fleet, suite):
    bodies = {name: fleet[name].body for name in fleet}
    by_hand = wanted(fleet, suite, bodies)
    assert values(evaluate(fleet, suite, bootstrap=0)) == by_hand
    assert values(evaluate({name: fleet[name] for name in fleet}, suite, bootstrap=0)) == by_hand
    odd = evaluate(fleet, suite, tasks=["odd"], bootstrap=0)
    assert values(odd) == {key: value for key, value in by_hand.items() if key[1] == "odd"}


def test_a_body_beside_a_fleet_meets_the_fleet_s_heads(fleet, suite):
    merged = plait.merge([fleet[name].body for name in fleet], method="linear")
    scores = evaluate({name: fleet[name] for name in fleet} | {"merged": merged}, suite, bootstrap=0)
    found = {key: value for key, value in values(scores).items() if key[0] == "merged"}
    assert found == wanted(fleet, suite, {"merged": merged})
    assert scores.untrained == ()


def test_a_head_of_no_known_task_is_that_of_its_model_s_name(suite):
    models = {
        t.name: Headed(suite.base(), digit_tasks.head(t.head.out_features, 7), t.meet) for t in suite.tasks
    }
    heads = {name: model.head for name, model in models.items()}
    bodies = {name: model.body for name, model in models.items()}
    by_hand = values(evaluate(bodies, suite, heads=heads, bootstrap=0))
    assert values(evaluate(models, suite, bootstrap=0)) == by_hand
    with pytest.raises(InputError, match="model `a`: it brings a head that is not that of task `digit`"):
        evaluate({"a": models["digit"], "b": models["odd"]}, suite)


def test_given_heads_go_before_those_that_models_bring(fleet, suite):
    given = {"odd": digit_tasks.head(2, seed=3)}
    found = values(evaluate(fleet, suite, heads=given, bootstrap=0))
    bodies = {name: fleet[name].body for name in fleet}
    own = {task.name: fleet[f"on {task.name}"].head for task in suite.tasks}
    assert found == values(evaluate(bodies, suite, heads=own | given, bootstrap=0))


def test_two_models_of_one_task_keep_their_heads_and_a_third_is_told(fleet, suite):
    first = fleet["on odd"]
    second = copy.deepcopy(first)
    with torch.no_grad():
        second.head.weight.neg_()
        second.head.bias.neg_()
    both = values(evaluate({"first": first, "second": second}, suite["odd"], bootstrap=0))
    assert both["first", "odd"] == pytest.approx(1 - both["second", "odd"])
    with pytest.raises(InputError, match="model `body`: `first` and `second` bring a head of task `odd`"):
        evaluate({"first": first, "second": second, "body": first.body}, suite["odd"])
    named = {"odd": first, "second": second, "body": first.body}
    scores = values(evaluate(named, suite["odd"], bootstrap=0))
    assert scores["body", "odd"] == scores["odd", "odd"] == both["first", "odd"]


def test_a_head_of_another_task_is_not_asked(fleet, suite):
    with pytest.raises(InputError, match="model `digit`: it brings a head that is not that of task `odd`"):
        evaluate({"digit": fleet["on digit"]}, suite, tasks=["odd"])


def test_a_task_without_a_head_is_asked_of_the_body(fleet, suite):
    plain = Task("plain", {"test": suite["odd"].split("test")})
    both = plait.Suite("both", (plain, suite["digit"]), suite.base)
    found = values(evaluate(fleet["on digit"], both, bootstrap=0))
    bare = values(evaluate({"Headed": fleet["on digit"].body}, plain, bootstrap=0))
    assert found["Headed", "plain"] == bare["Headed", "plain"]


def test_members_that_learn_several_tasks_keep_their_own_heads(suite):
    pair = [suite["digit"], digit_tasks.task("odd", lambda X, y: y % 2, 2, plait.tasks.macro_f1(2))]
    members = [
        plait.Member(name="joint", task=["digit", "odd"], steps=20),
        plait.Member(name="odd", steps=20, task="odd"),
        plait.Member(name="digit", steps=20, task="digit"),
    ]
    fleet = plait.Fleet(members, pair, model=suite.base, backend="sequential").fit(quiet=True)
    both = plait.Suite("both", tuple(pair), suite.base)
    found = values(evaluate(fleet, both, bootstrap=0))
    joint: Any = fleet["joint"]
    own = {name: joint.head.of(name) for name in ("digit", "odd")}
    alone = values(evaluate({"joint": joint.body}, both, heads=own, bootstrap=0))
    assert {key: value for key, value in found.items() if key[0] == "joint"} == alone


def test_the_folders_of_a_fleet_are_scored_as_the_fleet_is(fleet, suite, tmp_path):
    folders = dict(zip(fleet, map(str, fleet.save(tmp_path / "saved")), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PlaitWarning)  # of heads that lie beside the bodies
        merged = {"merged": plait.merge(list(folders.values()), method="linear")}
    by_hand = values(evaluate({name: fleet[name] for name in fleet} | merged, suite, bootstrap=0))
    assert values(evaluate(folders | merged, suite, bootstrap=0)) == by_hand
    assert values(evaluate({"one": folders["on odd"]}, suite, tasks=["odd"], bootstrap=0)) == {
        ("one", "odd"): by_hand["on odd", "odd"]
    }


@pytest.mark.parametrize(
    "names",
    [
        ("a/b", "c"),
        ("日本", "c"),
        ("..", "c"),
        ("x y", "model"),
        ("model.safetensors", "member.json"),
        ("head.safetensors", "config.json"),
        ("日本" * 50, "日本" * 51),
    ],
)
def test_heads_of_tasks_with_odd_names_are_found_in_folders(suite, tmp_path, names):
    tasks = tuple(task.renamed(name) for task, name in zip(suite.tasks[:2], names, strict=True))
    odd = replace(suite, tasks=tasks)
    member = plait.Member(name="joint", task=list(names), steps=60, lr=0.005)
    fleet = plait.Fleet([member], odd, backend="sequential").fit(quiet=True)
    (folder,) = fleet.save(tmp_path / "saved")
    save_file({name: torch.zeros_like(t) for name, t in tasks[0].head.state_dict().items()},
              folder.parent / "head.safetensors")  # fmt: skip
    wanted = {task: value for (_, task), value in values(evaluate(fleet, odd, bootstrap=0)).items()}
    for heads in (None, str(folder), dict.fromkeys(names, str(folder))):
        found = values(evaluate({"joint": str(folder)}, odd, heads=heads, bootstrap=0))
        assert {task: value for (_, task), value in found.items()} == wanted


def test_a_network_of_two_types_gets_its_inputs_as_they_are(suite):
    class Mixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
            self.body = suite.base()

        def forward(self, x):
            assert x.dtype == torch.float32
            return self.body(x) * self.scale.float()

    model, plain = Mixed(), suite.base()
    plain.load_state_dict(model.body.state_dict())
    task = suite.tasks[0]
    one, two = (
        evaluate({"m": Headed(body, task.head, task.meet, task.name)}, task, bootstrap=0)
        for body in (model, plain)
    )
    assert values(one) == values(two)
