"""`check_method` passes what keeps plait's invariants, and names those that a method breaks."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from plait.errors import InputError
from plait.methods import METHODS, Method, Option, Settings, Sums
from plait.numerics import absolute, exp, where
from plait.testing import BrokenMethod, check_method


@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_registered_method_keeps_the_invariants(name, conventions):
    check_method(name, conventions=conventions)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ties", {"density": [0.1, 0.5, 1.0], "lambda_": 0.7, "ties": "lowest_index", "scope": "row"}),
        ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
        ("nuslerp", {"nuslerp_flatten": False}),
        ("model_stock", {"filter_wise": True}),
        ("sce", {"masked": False}),
    ],
)
def test_options_are_keywords(name, options):
    check_method(name, conventions="paper", **options)


def halfway(models: Any, base: Any) -> Any:
    return 0.5 * (models[0] + base)


def median(models: Any, base: Any) -> Any:
    return torch.stack(models).median(0).values


def smooth(c: Any) -> Any:
    return c.base + c.delta[0] / (1.0 + exp(-c.delta[0]))


@pytest.mark.parametrize("function", [halfway, median, smooth])
def test_plain_functions_are_methods(function):
    check_method(function)


#: Where a careless method keeps the options of the tensor that it saw last.
LATEST: dict[str, float] = {}


def rule(combine: Callable[[Any], Any], **words: Any) -> Method:
    return Method("mine", "a method", "nowhere", combine, **{"base": "required", "symmetric": False, **words})


def failures(method: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(BrokenMethod) as caught:
        check_method(method, **options)
    return caught.value.failures


def test_a_method_that_is_not_symmetric_must_not_say_so():
    found = failures(rule(lambda c: 0.7 * c.models[0] + 0.3 * c.models[-1], symmetric=True))
    assert list(found) == ["order"]
    assert "a, c, b and as a, b, c, though it is symmetric" in found["order"]


def test_a_running_average_is_not_symmetric():
    def running(c: Any) -> Any:
        found = c.models[0]
        for value in c.models[1:]:
            found = 0.5 * (found + value)
        return found

    assert list(failures(rule(running, symmetric=True))) == ["order"]


def test_a_symmetric_method_whose_options_follow_the_models_is_symmetric():
    weight = Option("weight", 1.0, "factor", per_model=True)
    check_method(rule(METHODS["linear"].combine, options=METHODS["linear"].options, symmetric=True))
    found = failures(rule(lambda c: c.each("weight")[0] * c.base, options=(weight,), symmetric=True))
    assert list(found) == ["order"]


def test_a_rule_may_not_look_at_how_much_it_sees():
    found = failures(rule(lambda c: c.models[0] / c.models[0].numel()))
    assert list(found) == ["compiled"]
    assert "`.numel`" in found["compiled"]


def test_a_rule_may_not_be_another_one_when_compiled():
    def cunning(c: Any) -> Any:
        own = c.models[0]
        return own - own.mean() if isinstance(own, torch.Tensor) else own

    assert "the results differ: `wide`" in failures(rule(cunning))["compiled"]


def test_a_rule_may_not_branch():
    found = failures(rule(lambda c: c.models[0] if c.base > 0 else c.base))
    assert list(found) == ["runs", "compiled"]
    assert "select with `where(condition, a, b)`" in found["compiled"]


def test_a_rule_must_give_as_much_as_it_sees():
    found = failures(rule(lambda c: c.models[0].sum(), whole=lambda settings: True))
    assert list(found) == ["runs"]
    assert "gives [] where [7, 13] is needed" in found["runs"]


def test_equal_models_must_not_give_nan():
    found = failures(rule(lambda c: c.base + c.delta[0] * (c.delta[0] / absolute(c.delta[0]))))
    assert list(found) == ["zeros"]
    assert "all equal give NaN or infinity in `matrix`" in found["zeros"]


def test_draws_without_a_seed_are_found():
    assert "twice with one seed" in failures(rule(lambda c: c.models[0] * random.random()))["seed"]


def test_every_type_must_do():
    def mean(c: Any) -> Any:
        return c.base + torch.dot(c.base.flatten(), torch.ones(c.base.numel()))

    found = failures(rule(mean, whole=lambda settings: True))
    assert list(found) == ["types"]
    assert "fails: RuntimeError" in found["types"]


def test_one_model_must_do_unless_the_method_takes_more():
    second = rule(lambda c: c.models[1])
    assert list(failures(second)) == ["one model"]
    check_method(rule(lambda c: c.models[1], min_models=2))


def test_nan_must_be_refused_by_name_and_not_by_accident():
    def whole_number(sums: Any, settings: Settings) -> dict[str, Any]:
        return {"size": [np.asarray(float(int(sums[0])))]}

    stage = Sums("size", lambda c: [absolute(c.base)], whole_number)
    found = failures(rule(lambda c: c.base / (1.0 + c.stat("size")[0]), stages=lambda settings: [stage]))
    assert list(found) == ["nan"]
    assert "cannot convert float" in found["nan"]


def test_options_must_be_taken_from_the_tensor_at_hand():
    def stages(settings: Settings) -> list[Sums]:
        LATEST.update(settings.shared)
        return []

    power = Option("power", 0.5, "factor", low=0.0, high=1.0)
    found = failures(rule(lambda c: c.base * LATEST["power"], options=(power,), stages=stages))
    assert list(found) == ["options"]
    assert "with `power` 0.25 for `twin` alone and everywhere compiled" in found["options"]


def test_a_method_with_an_optional_base_is_tested_without():
    found = failures(rule(lambda c: c.base + c.delta[0], base="optional"))
    assert list(found) == ["runs", "compiled"]
    assert found["runs"].endswith("(without a base)")


def test_all_that_is_broken_is_told_at_once():
    def bad(c: Any) -> Any:
        d = c.delta[0]
        return c.models[1] + where(d == 0.0, d / d, random.random())

    found = failures(rule(bad, symmetric=True))
    assert {"seed", "order", "zeros", "one model"} <= found.keys()
    with pytest.raises(AssertionError, match=r"`mine` breaks \d+ invariants:\n- compiled: .*\n- blocks: "):
        check_method(rule(bad))


def test_what_is_no_method_and_no_option_is_refused():
    with pytest.raises(InputError, match="did you mean `ties`"):
        check_method("tise")
    with pytest.raises(InputError, match="did you mean `density`"):
        check_method("ties", dense=0.5)
    with pytest.raises(InputError, match="paper or mergekit"):
        check_method("ties", conventions="house")
    with pytest.raises(InputError, match="one of \\(models, base\\)"):
        check_method(lambda a, b, c: a)


def test_it_needs_no_pytest():
    code = "import sys; sys.modules['pytest'] = None; import plait.testing as t; t.check_method('sma')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
