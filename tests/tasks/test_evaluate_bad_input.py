"""What is wrong with what evaluation is given is said in one message."""

from __future__ import annotations

import digit_tasks
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import nn

from plait.errors import InputError
from plait.tasks import Columns, Items, SquaredError, Task, evaluate, mean_squared_error, measure


@pytest.fixture(scope="module")
def suite():
    return digit_tasks.suite({"kuzushiji": "its package can't be had"})


def message(*arguments, **settings) -> str:
    with pytest.raises(InputError) as caught:
        evaluate(*arguments, **settings)
    return str(caught.value)


def test_a_checkpoint_of_another_architecture(suite, tmp_path):
    other = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Dropout(), nn.Linear(16, 12), nn.Linear(12, 8))
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    said = message(tmp_path, suite)
    assert str(tmp_path) in said
    assert "has `4.bias`, `4.weight`" in said
    assert "`3.weight` is [12, 16] and not [8, 16]" in said
    state = {
        f"0{name}" if name == "3.bias" else name: value for name, value in suite.base().state_dict().items()
    }
    said = message(state, suite)
    assert "lacks `3.bias`; has `03.bias`" in said
    assert "for `3.bias`: did you mean `03.bias`?" in said


def test_a_module_of_another_architecture(suite):
    said = message(nn.Linear(3, 8), suite)
    assert said.startswith("model `Linear`, task `digit`: the model can't take this task's batches")
    assert "mat1 and mat2 shapes cannot be multiplied" in said


@pytest.mark.parametrize(
    "raised", [AssertionError("not for me"), ZeroDivisionError("division"), OSError("gone")]
)
def test_whatever_a_module_raises_is_its_own(suite, raised):
    class Own(nn.Linear):
        def forward(self, _):
            raise raised

    said = message(Own(3, 8), suite)
    assert said.startswith("model `Own`, task `digit`: the model can't take this task's batches")
    assert f"{type(raised).__name__}: {raised}" in said


def test_what_is_no_model(suite):
    said = message(LogisticRegression(), suite)
    assert "a LogisticRegression can't be evaluated" in said
    assert "use its own `score`" in said
    assert "no such file or folder" in message("./nothing-here", suite)
    assert "there is no model" in message([], suite)
    assert "a task alone has no base" in message(suite.base().state_dict(), suite["odd"])


def test_names_that_are_not_there(suite):
    assert "`tst` is no split\n  hint: did you mean `test`?" in message(suite.base(), suite, split="tst")
    assert "there is no split `calibration`" in message(suite.base(), suite, split="calibration")
    said = message(suite.base(), suite, tasks=["digits"])
    assert "there is no task `digits`\n  hint: did you mean `digit`?" in said
    assert "`kuzushiji` is missing: its package can't be had" in message(
        suite.base(), suite, tasks=["kuzushiji"]
    )
    assert "there is no task `ood`" in message(suite.base(), suite, heads={"ood": digit_tasks.head(2)})
    assert "a int is no suite" in message(suite.base(), 3)
    for asked in ([], 3, [3], [None], b"odd"):
        said = message(suite.base(), suite, tasks=asked)
        assert said == f"`tasks` is {asked!r}\n  hint: give a list of names, or leave it out for all tasks"
    said = message(suite.base(), suite, tasks="digit")
    assert "`tasks` is 'digit'\n  hint: give a list of names" in said


def test_heads_that_do_not_fit(suite, tmp_path):
    assert "there is no head" in message(suite.base(), suite, heads=tmp_path)
    assert "a int is no head" in message(suite.base(), suite, heads={"odd": 3})
    save_file(digit_tasks.head(3).state_dict(), tmp_path / "head.safetensors")
    assert "`bias` is [3] and not [2]" in message(suite.base(), suite, heads={"odd": tmp_path})
    headless = Task("plain", {"test": suite["odd"].split("test")})
    assert "a head is given for a task that has none" in message(
        suite.base(), headless, heads={"plain": digit_tasks.head(2)}
    )


def test_labels_that_a_head_has_no_output_for(suite):
    said = message(suite.base(), suite["digit"], heads={"digit": digit_tasks.head(7)})
    assert "task `digit`, split `test`, example 7: label 9 is out of range: the head has 7 outputs" in said
    assert "labels go from 0 to 6" in said
    X, _ = digit_tasks.pictures()
    for label in (-1, 2):
        labels = [label if row == 30 else 0 for row in range(40)]
        pairs = Items(
            list(zip(X, labels, strict=False)), prepare=lambda pair: {"input": pair[0], "label": pair[1]}
        )
        said = message(suite.base(), Task("pairs", {"test": pairs}, head=digit_tasks.head(2)), batch_size=16)
        assert f"example 30: label {label} is" in said


def test_outputs_that_are_not_as_many_as_labels():
    numbers = Columns({"input": torch.zeros(5, 64), "label": torch.zeros(5)})
    task = Task("numbers", {"test": numbers}, loss=SquaredError(), metric=mean_squared_error())
    said = message({"wide": nn.Linear(64, 3)}, task)
    assert said.startswith("model `wide`, task `numbers`, split `test`: a network gives outputs of size 3")
    assert "labels of size 1" in said
    with pytest.raises(InputError, match="task `numbers`, split `test`: a network gives outputs of size 3"):
        measure(nn.Linear(64, 3), task, "test")


def test_a_split_that_has_become_empty(suite):
    pairs = [(np.zeros(64, dtype=np.float32), 0)]
    task = Task("pairs", {"test": Items(pairs)}, head=digit_tasks.head(2))
    pairs.clear()
    assert "task `pairs`: split `test` is empty" in message(suite.base(), task)


def test_a_split_without_labels(suite):
    inputs = Columns({"input": torch.zeros(5, 64)})
    task = Task("unlabelled", {"calibration": inputs}, head=digit_tasks.head(2))
    said = message(suite.base(), task, split="calibration")
    assert "accuracy needs a column 'label'" in said
    assert "its examples have `input`" in said


def test_numbers_and_devices_that_there_are_not(suite):
    for name in ("batch_size", "threads"):
        assert f"`{name}` is 0" in message(suite.base(), suite, **{name: 0})
    assert "`bootstrap` is -1" in message(suite.base(), suite, bootstrap=-1)
    assert "there is no device `cudda`" in message(suite.base(), suite, device="cudda")
