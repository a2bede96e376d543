"""Why tasks are missing is said once for all that are missing for one reason."""

from __future__ import annotations

import pytest
from torch import nn

from plait.errors import InputError
from plait.tasks import Suite, reasons


def why(name: str) -> str:
    return f"`{name}` can't be had (nothing at /data/{name}. '{name}' isn't on {name[0]} hub)"


def test_names_of_one_reason_are_listed_and_it_is_said_once():
    missing = {"a": why("of/one"), "b": "there is no file `b.csv`", "c": why("of/two"), "d": why("of/two")}
    assert [str(reason) for reason in reasons(missing)] == [
        "`a`, `c`, `d`: `of/one`, `of/two` can't be had (nothing at /data/…. '…' isn't on o hub)",
        "`b`: there is no file `b.csv`",
    ]


def test_a_reason_for_one_data_set_alone_stays_as_it_is():
    missing = {"a": why("one"), "b": why("one"), "c": "for no reason", "d": "`e` is broken (an e)"}
    assert [(reason.tasks, reason.why) for reason in reasons(missing)] == [
        (["a", "b"], why("one")),
        (["c"], "for no reason"),
        (["d"], "`e` is broken (an e)"),
    ]
    assert reasons({}) == []


def test_reasons_that_differ_in_more_than_a_name_stay_apart():
    assert len(reasons({"a": "`x` is gone (1)", "b": "`y` is gone (2)", "c": "`y` is here (1)"})) == 3


@pytest.mark.parametrize(("count", "end"), [(8, "`7`"), (11, "`7` and 3 more")])
def test_of_many_names_the_first_are_told(count, end):
    (reason,) = reasons({str(n): "gone" for n in range(count)})
    assert str(reason) == ", ".join(f"`{n}`" for n in range(7)) + f", {end}: gone"


def test_a_suite_without_tasks_says_why():
    with pytest.raises(InputError, match=r"there is no task\n  hint: `a`, `b`: gone$"):
        Suite("s", (), nn.Identity, missing={"a": "gone", "b": "gone"})
