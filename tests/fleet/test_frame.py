"""A model per group of a table: training, routed prediction, and training again what changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from plait.errors import InputError
from plait.fleet import After, Fleet, Member
from plait.tasks import SquaredError


def net(outputs: int = 1) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, outputs))


def table(rows: int = 600, groups: int = 7, *, seed: int = 0) -> pd.DataFrame:
    """Groups of unequal size, each with a rule of its own."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, groups + 1) / np.arange(1, groups + 1).sum()
    frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["x", "y", "z"])
    frame["tenant"] = rng.choice([f"t{i}" for i in range(groups)], rows, p=share)
    rules = {f"t{i}": rng.normal(size=3) for i in range(groups)}
    frame["goal"] = [
        float(r @ rules[t]) for r, t in zip(frame[["x", "y", "z"]].to_numpy(), frame["tenant"], strict=True)
    ]
    return frame


def made(frame: pd.DataFrame, **settings: Any) -> Fleet:
    common: dict[str, Any] = {
        "by": "tenant",
        "target": "goal",
        "model": net,
        "epochs": 60,
        "lr": 0.02,
        "backend": "stacked",
    }
    return Fleet.from_frame(frame, **(common | settings))


def fitted(frame: pd.DataFrame, **settings: Any) -> Fleet:
    return made(frame, **settings).fit()


def test_each_group_learns_its_own_rule_and_rows_are_routed() -> None:
    frame = table()
    fleet = fitted(frame)
    assert set(fleet.members) == set(frame["tenant"])
    found = fleet.predict(frame)
    assert found.shape == (len(frame),)
    assert np.mean((found - frame["goal"]) ** 2) < 0.1 * np.var(frame["goal"])
    x = torch.from_numpy(frame[["x", "y", "z"]].to_numpy(np.float32, copy=True))
    for name, rows in frame.groupby("tenant").indices.items():
        with torch.no_grad():
            wanted = fleet[str(name)](x[rows]).squeeze(-1).numpy()
        np.testing.assert_allclose(found[rows], wanted, atol=1e-5)


def test_rows_may_name_their_member() -> None:
    frame = table()
    fleet = fitted(frame, epochs=2)
    x = frame[["x", "y", "z"]].to_numpy(np.float32)
    ids = ["t6", "t0", "t6", "t3"]
    found = fleet.predict(x[:4], member=ids)
    for row, name in enumerate(ids):
        with torch.no_grad():
            assert found[row] == pytest.approx(fleet[name](torch.tensor(x[row : row + 1])).item(), abs=1e-5)
    np.testing.assert_allclose(fleet.predict(x[:2], member="t2"), fleet.predict(x[:2], member=["t2", "t2"]))


def test_classes_come_back_as_they_are_in_the_table() -> None:
    frame = table()
    frame["goal"] = np.where(frame["goal"] > 0, "yes", "no")
    fleet = fitted(frame, model=lambda: net(2), validation=0.2)
    found = fleet.predict(frame)
    assert set(found) == {"yes", "no"}
    assert np.mean(found == frame["goal"]) > 0.85
    assert fleet.outputs(frame).shape == (len(frame), 2)


def test_refit_trains_what_changed_and_nothing_else() -> None:
    frame = table()
    fleet = fitted(frame, epochs=5)
    before = {name: fleet.state(name).parameters for name in fleet}
    changed = frame.copy()
    changed.loc[changed["tenant"] == "t2", "goal"] *= -1
    new = pd.DataFrame(
        {"x": [0.1, 0.2], "y": [1.0, 2.0], "z": [0.0, 1.0], "tenant": "new", "goal": [1.0, 2.0]}
    )
    assert sorted(fleet.refit(pd.concat([changed, new], ignore_index=True))) == ["new", "t2"]
    for name, parameters in before.items():
        same = all(torch.equal(parameters[n], fleet.state(name).parameters[n]) for n in parameters)
        assert same == (name != "t2")
    assert fleet.status["new"] == "finished"
    assert fleet.refit(pd.concat([changed, new], ignore_index=True)) == []


def test_a_group_that_can_not_be_made_anew_keeps_the_model_it_has() -> None:
    frame, broken = table(), False

    def model() -> nn.Module:
        if broken:
            raise RuntimeError("no more")
        return net()

    fleet = fitted(frame, model=model, epochs=2)
    before, names = fleet.predict(frame), list(fleet)
    broken, changed = True, frame.copy()
    changed.loc[changed["tenant"] == "t2", "goal"] *= -1
    with pytest.raises(InputError, match="no more"):
        fleet.refit(changed)
    assert list(fleet) == names
    np.testing.assert_array_equal(fleet.predict(frame), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_refit_makes_all_successors_or_none(error: type[BaseException]) -> None:
    frame, left = table(), -1

    def model() -> nn.Module:
        nonlocal left
        left -= 1
        if left == 0:
            raise error("no more")
        return net()

    fleet = fitted(frame, model=model, epochs=2)
    before, status = fleet.predict(frame), fleet.status
    left, changed = 3, frame.copy()
    changed["goal"] *= -1
    new = frame[frame["tenant"] == "t5"].assign(tenant="new")
    with pytest.raises((InputError, KeyboardInterrupt), match="no more"):
        fleet.refit(pd.concat([new, changed], ignore_index=True))
    assert fleet.status == status
    np.testing.assert_array_equal(fleet.predict(frame), before)
    assert sorted(fleet.refit(changed)) == sorted(fleet)


def test_a_refit_after_a_stop_keeps_what_the_others_have() -> None:
    class Stop:
        def on_round(self, fleet: Fleet, validated: object) -> None:
            if fleet.round == 5:
                raise KeyboardInterrupt

    frame = table()
    fleet = made(frame, epochs=20)
    with pytest.raises(KeyboardInterrupt):
        fleet.fit(callbacks=[Stop()])
    changed = frame.copy()
    changed.loc[changed["tenant"] == "t2", "goal"] *= -1
    assert fleet.refit(changed) == ["t2"]
    assert set(fleet.status.values()) == {"finished"}
    whole = fitted(changed, epochs=20)
    np.testing.assert_allclose(fleet.predict(changed), whole.predict(changed), atol=1e-4)


def test_a_group_whose_member_never_started() -> None:
    frame = table()
    fleet = made(frame, epochs=2)
    fleet.add(
        Member(name="t9", task=next(iter(fleet._roster.trainees.values())).task, start=After("t1"), steps=1)
    )
    fleet.drop("t9", "no longer wanted")
    fleet.fit()
    new = frame[frame["tenant"] == "t5"].assign(tenant="t9")
    with pytest.raises(InputError, match="`t9` never started: it is dropped\n  hint: no longer wanted"):
        fleet.refit(pd.concat([frame, new], ignore_index=True))


def test_the_order_of_rows_between_groups_changes_nothing() -> None:
    frame = table()
    first = fitted(frame, epochs=3)
    second = fitted(frame.sort_values("tenant", kind="stable"), epochs=3)
    for name in first:
        one, two = first.state(name).parameters, second.state(name).parameters
        assert all(torch.allclose(one[n], two[n], atol=1e-6) for n in one)


def test_several_columns_name_a_group() -> None:
    frame = table()
    frame["kind"] = np.where(frame["x"] > 0, 1, 2)
    fleet = fitted(frame, by=["tenant", "kind"], features=["x", "y", "z"], epochs=1)
    assert "t3, 1" in fleet.members
    assert fleet.predict(frame).shape == (len(frame),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.rename(columns={"tenant": "tennant"}), "no column `tenant`\n.*`tennant`"),
        (lambda f: f.assign(x="a"), "column `x` is .*, no numbers"),
        (lambda f: f.assign(y=np.nan), "column `y` is nan in row 0"),
        (lambda f: f.assign(goal=np.inf), "column `goal` is inf in row 0"),
        (lambda f: f.iloc[:0], "the frame has no rows"),
        (lambda f: f[["tenant", "goal"]], "no column to learn from"),
    ],
)
def test_tables_that_cannot_be_learned_from(change: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fitted(change(table()))


def words(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose target is a word."""
    return frame.assign(goal=np.where(frame["goal"] > 0, "yes", "no"))


TWO: dict[str, Any] = {"model": lambda: net(2), "epochs": 1}


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("column", ["goal", "tenant", "x"])
def test_values_that_are_missing_are_counted(column: str, missing: Any) -> None:
    frame = words(table(60, 3)).astype({column: object})
    frame.loc[[1, 4], column] = missing
    with pytest.raises(InputError, match=f"column `{column}` has no value in 2 of 60 rows"):
        made(frame, **TWO)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lrr": 1}, "members have no setting `lrr`\n  hint: did you mean `lr`"),
        ({"name": "a"}, "`name` is each group's own"),
        ({"features": ["x", "goal"]}, "`features` has the target `goal`"),
        ({"by": "goal"}, "`by` has the target `goal`"),
        ({"by": []}, "`by` names no column"),
        ({"features": []}, "no column to learn from"),
        ({"features": ["x", "x"]}, "`features` names a column twice"),
        (
            {"loss": nn.MSELoss()},
            "`loss` is a MSELoss, no loss of plait\n.*plait.tasks.CrossEntropy",
        ),
        ({"loss": SquaredError}, "`loss` is the class SquaredError"),
        ({"metric": "r2"}, "`metric` is 'r2', no metric of plait\n.*mean_squared_error"),
        ({"validation": "x"}, "`validation` is 'x'"),
        ({"model": "x"}, "`model` is 'x'"),
    ],
)
def test_settings_of_a_table_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(table(60, 3), **settings)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.concat([table(9, 2), table(9, 2)[["x"]]], axis=1), "the frame has two columns `x`"),
        (table(9, 2).assign(**{"1": 0.0}).rename(columns={"x": 1}), "the frame has two columns `1`"),
        ([1, 2], "a list is no table"),
        (None, "a NoneType is no table"),
        ({"x": [1.0], "tenant": ["a", "b"], "goal": [1.0, 2.0]}, "unequal length: `x` 1, `tenant` 2"),
        ({"x": 1.0, "tenant": ["a"], "goal": [1.0]}, "column `x` is a float"),
        ({"x": [[1.0]], "tenant": ["a"], "goal": [1.0]}, "column `x` has 2 dimensions"),
        ({"x": [1e300], "tenant": ["a"], "goal": [1.0]}, r"column `x` is 1e\+300 in row 0"),
        ({"x": [1.0, 2.0], "tenant": ["a", "a"], "goal": ["a", 5]}, "values of several kinds: int, str"),
        (pd.DataFrame({"x": [1, 2], "tenant": "a", "goal": ["a", 5]}), "values of several kinds: int, str"),
    ],
)
def test_frames_that_are_none(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(frame)


def test_columns_may_be_numbers_and_a_frame_a_dict() -> None:
    frame = table(60, 3)
    wanted = fitted(frame, epochs=2).predict(frame)
    numbered = frame.set_axis(range(5), axis=1)
    found = fitted(numbered, by=3, target=4, features=[0, 1, 2], epochs=2)
    np.testing.assert_array_equal(found.predict(numbered), wanted)
    plain: Any = {name: frame[name].tolist() for name in frame}
    np.testing.assert_array_equal(fitted(plain, epochs=2).predict(plain), wanted)
    assert made(frame, features="x", model=lambda: nn.Linear(1, 1)).members == fitted(frame, epochs=1).members


def test_numbers_that_may_be_missing_are_numbers() -> None:
    frame = table(60, 3)
    assert set(fitted(frame.assign(goal=(frame["goal"] > 0).astype("Int64")), **TWO).predict(frame)) == {0, 1}
    nullable = fitted(frame.astype({"goal": "Float64", "x": "Float64"}), epochs=2)
    np.testing.assert_allclose(nullable.predict(frame), fitted(frame, epochs=2).predict(frame), atol=1e-6)


def test_groups_that_would_have_one_name() -> None:
    frame = table(60, 2).assign(g=["a, b", "a"] * 30, h=["c", "b, c"] * 30)
    with pytest.raises(InputError, match="two groups would be called `a, b, c`"):
        made(frame, by=["g", "h"], features=["x", "y", "z"])


@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_rows_in_another_order_have_not_changed(validation: float) -> None:
    frame = table(60, 3)
    fleet = fitted(frame, epochs=1, validation=validation)
    assert fleet.refit(frame.sample(frac=1, random_state=1)) == []
    other = frame.copy()
    other.loc[[0, 1], "goal"] = other.loc[[1, 0], "goal"].to_numpy()
    assert set(fleet.refit(other)) == set(frame.loc[[0, 1], "tenant"])


def test_refit_of_classes() -> None:
    frame = words(table(60, 3))
    fleet = fitted(frame, **TWO)
    assert fleet.refit(frame) == []
    changed = frame.copy()
    changed.loc[changed["tenant"] == "t1", "goal"] = "yes"
    assert fleet.refit(changed) == ["t1"]
    assert set(fleet.predict(frame)) <= {"yes", "no"}
    with pytest.raises(InputError, match="column `goal` holds `maybe`, a class that the fleet was not made"):
        fleet.refit(frame.assign(goal="maybe"))
    with pytest.raises(InputError, match=r"column `goal` is .*, no numbers\n.*made to learn numbers"):
        fitted(table(60, 3), epochs=1).refit(frame)


def test_rows_without_a_member() -> None:
    frame = table(60, 2)
    fleet = fitted(frame, epochs=1)
    with pytest.raises(InputError, match="there is no member `t9`"):
        fleet.predict(np.zeros((1, 3)), member=["t9"])
    with pytest.raises(InputError, match="1 members for 2 rows"):
        fleet.predict(np.zeros((2, 3)), member=["t1"])
    with pytest.raises(InputError, match="rows of which members"):
        fleet.predict(np.zeros((2, 3)))
    with pytest.raises(InputError, match="was not made from a table"):
        Fleet_without_table().refit(frame)


def Fleet_without_table() -> Fleet:
    from networks import MLP, task

    from plait.fleet import Member

    return Fleet([Member(name="a", steps=1)], task(MLP), model=lambda: MLP().double())


def test_refit_goes_on_in_the_fleets_own_folder(tmp_path) -> None:
    frame = table(200, 3)
    fleet = made(frame, epochs=2, out=tmp_path).fit(quiet=True)
    assert fleet.refit(frame, quiet=True) == []
    changed = frame.copy()
    changed.loc[changed["tenant"] == "t1", "goal"] += 1
    assert fleet.refit(changed, quiet=True) == ["t1"]
    again = made(changed, epochs=2, out=tmp_path)
    assert set(again.fit(resume=True, quiet=True).status.values()) == {"finished"}
    for name in fleet:
        for key, value in fleet.state(name).parameters.items():
            assert torch.equal(again.state(name).parameters[key], value)
    with pytest.raises(InputError, match="a fleet was saved here"):
        made(changed, epochs=2, out=tmp_path).fit(quiet=True)


def test_a_table_takes_what_a_fleet_takes(tmp_path) -> None:
    class Kept:
        def __init__(self) -> None:
            self.records: list[Any] = []

        def write(self, record: Any) -> None:
            self.records.append(dict(record))

        def close(self) -> None:
            pass

    class Saves:
        def __init__(self) -> None:
            self.rounds: list[int] = []

        def on_save(self, fleet: Fleet, folder: object) -> None:
            self.rounds.append(fleet.round)

    writer, saves = Kept(), Saves()
    own: dict[str, Any] = {"steps": 6, "epochs": None, "out": tmp_path, "save_every": 3, "log_every": 2}
    fleet = made(table(groups=2), **own, writers=[writer]).fit(callbacks=[saves])
    assert saves.rounds == [3, 6, 6]
    assert [r["step"] for r in writer.records if r["member"] == fleet.members[0]] == [2, 4, 6]
    with pytest.raises(InputError, match="the device `nowhere` can't be used"):
        made(table(), device="nowhere")


def test_groups_that_vanish_from_the_table_stay() -> None:
    frame = table()
    fleet = fitted(frame, epochs=2)
    gone = fleet.members[0]
    before = fleet.state(gone).parameters
    assert fleet.refit(frame[frame["tenant"] != gone]) == []
    assert gone in fleet
    assert all(torch.equal(tensor, before[name]) for name, tensor in fleet.state(gone).parameters.items())
    rows = frame[frame["tenant"] == gone]
    assert len(fleet.predict(rows)) == len(rows)
