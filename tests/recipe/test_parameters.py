"""Values by level, filter and layer, held against a slow reading of the same rules."""

from __future__ import annotations

import fnmatch
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.errors import InputError, InputErrors
from plait.recipe import (
    MISSING,
    ModelRef,
    Module,
    Part,
    Recipe,
    Resolver,
    Setting,
    Slice,
    Source,
    layer_position,
    used_keys,
)

NAMES = ["model.embed", "model.layers.1.mlp.w", "model.layers.10.mlp.w", "model.layers.1.attn.w", "head"]

numbers = st.floats(-10, 10) | st.integers(-10, 10)
gradients = st.lists(numbers, min_size=2, max_size=5).map(tuple)


def settings(filters):
    one = st.builds(Setting, numbers | gradients, st.none() | st.sampled_from(filters))
    return st.lists(one, max_size=3).map(tuple)


def a_recipe(grammar, source, inner, module, whole, *, method="ties"):
    levels = [{"p": values} if values else {} for values in (source, inner, module, whole)]
    of = Source(ModelRef("a"), levels[0])
    run = Slice((of, Source(ModelRef("b"))), levels[1])
    part = Module("m", (run,), levels[2])
    return Recipe(grammar, "paper", method, (part,), parameters=levels[3]), part, run, of


def slow(levels, grammar, name, t):
    """The rules in words: levels from the inside, settings in order, a polyline over the layers."""
    for values in levels:
        for setting in values:
            if setting.filter is None:
                hit = True
            elif grammar == "mergekit":
                hit = setting.filter in name
            else:
                hit = fnmatch.fnmatchcase(name, setting.filter)
            if not hit:
                continue
            if not isinstance(setting.value, tuple):
                return setting.value
            knots = [index / (len(setting.value) - 1) for index in range(len(setting.value))]
            for left in range(len(knots) - 1):
                if knots[left] <= t <= knots[left + 1]:
                    share = (t - knots[left]) / (knots[left + 1] - knots[left])
                    low, high = setting.value[left : left + 2]
                    return low + share * (high - low)
    return None


@pytest.mark.parametrize(
    ("grammar", "filters"),
    [("mergekit", ["mlp", "layers.1", "head"]), ("plait", ["*.mlp.*", "*.1.*", "head"])],
)
def test_values_are_those_of_the_innermost_level_that_has_one(grammar, filters):
    @given(st.tuples(*[settings(filters)] * 4), st.floats(0, 1))
    def check(levels, t):
        recipe, module, run, source = a_recipe(grammar, *levels)
        resolver = Resolver(recipe)
        look = resolver.lookup("p", module=module, slice=run, source=source)
        shared = resolver.lookup("p", module=module, slice=run)
        for name in NAMES:
            own, all_models = (None if v is MISSING else v for v in (look(name, t), shared(name, t)))
            assert own == pytest.approx(slow(levels, grammar, name, t), abs=1e-12)
            assert all_models == pytest.approx(slow(levels[1:], grammar, name, t), abs=1e-12)

    check()


@given(gradients, st.integers(1, 40))
def test_a_gradient_passes_through_its_ends_and_stays_between_its_values(values, count):
    recipe, module, run, source = a_recipe("plait", (Setting(values),), (), (), ())
    look = Resolver(recipe, {"p": float}).lookup("p", module=module, slice=run, source=source)
    found = [look("w", layer_position(i, count)) for i in range(count)]
    assert found[-1] == values[-1]
    assert count == 1 or found[0] == values[0]
    slack = 1e-9
    assert min(values) - slack <= min(found) <= max(found) <= max(values) + slack


def test_layer_positions():
    assert [layer_position(i, 5) for i in range(5)] == [0, 0.25, 0.5, 0.75, 1]
    assert layer_position(0, 1) == 1.0


def resolve(grammar, value, kind, t=0.0):
    recipe, module, run, source = a_recipe(grammar, (Setting(value),), (), (), ())
    return Resolver(recipe, {"p": kind}).lookup("p", module=module, slice=run, source=source)("w", t)


def test_gradients_of_booleans_and_text_are_steps():
    assert [resolve("plait", (True, False, True), bool, t) for t in (0, 0.49, 0.5, 0.99, 1)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert resolve("plait", ("keep", "drop"), str, 0.7) == "keep"
    assert resolve("mergekit", (0, 1), bool, 0.7) is False


def test_values_take_the_type_of_their_parameter():
    assert type(resolve("plait", 1, float)) is float
    assert type(resolve("plait", 2.0, int)) is int
    assert resolve("plait", (0, 4), int, 0.5) == 2
    assert resolve("mergekit", True, float) == 1.0
    assert resolve("mergekit", "Yes", bool) is True
    assert resolve("mergekit", 0, bool) is False


@pytest.mark.parametrize(
    ("grammar", "value", "kind", "message"),
    [
        ("plait", "high", float, "is `'high'`, and it must be a number"),
        ("plait", True, float, "is `True`, and it must be a number"),
        ("plait", 1, bool, "must be true or false"),
        ("plait", 0.5, int, "must be a whole number"),
        ("plait", (1, "x"), float, "is `[1, 'x']`, and it must be a number"),
        ("plait", 3, str, "must be text"),
        ("mergekit", "high", float, "must be a number"),
        ("mergekit", 2, bool, "must be true or false"),
        ("mergekit", "maybe", bool, "must be true or false"),
    ],
)
def test_a_value_of_the_wrong_type_is_quoted_with_its_path(grammar, value, kind, message):
    with pytest.raises(InputError) as caught:
        resolve(grammar, value, kind)
    assert message in str(caught.value)
    assert "`modules.m.models[0].parameters.p`" in str(caught.value)


def test_a_gradient_of_whole_numbers_must_hit_whole_numbers():
    with pytest.raises(InputError, match="must be a whole number"):
        resolve("plait", (0, 1), int, 0.5)


def test_all_wrong_values_are_reported_together():
    recipe, *_ = a_recipe("plait", (Setting("x"),), (Setting("y"),), (), ())
    with pytest.raises(InputErrors) as caught:
        Resolver(recipe, {"p": float})
    assert len(caught.value.problems) == 2


def test_a_parts_options_come_after_the_models_and_before_the_recipes():
    part = Part("sparsify", "trim", {"p": (Setting(2),)})
    for source, whole in product([(), (Setting(1),)], [(), (Setting(3),)]):
        recipe, module, run, of = a_recipe("plait", source, (), (), whole, method=(part,))
        resolver = Resolver(recipe)
        own = resolver.lookup("p", module=module, slice=run, source=of, part=part)
        assert own("w", 0) == (1 if source else 2)
        assert resolver.lookup("p", module=module, slice=run)("w", 0) == (3 if whole else MISSING)


def test_used_keys_say_where_and_whether_the_value_varies():
    part = Part("sparsify", "trim", {"q": (Setting(2),)})
    recipe, *_ = a_recipe("plait", (Setting((1, 2)),), (), (Setting(1, "x"),), (Setting(3),), method=(part,))
    found = used_keys(recipe)
    assert [(use.path, use.level, use.varies) for use in found["p"]] == [
        ("parameters.p", "recipe", False),
        ("modules.m.parameters.p", "module", True),
        ("modules.m.models[0].parameters.p", "source", True),
    ]
    assert [(use.path, use.level) for use in found["q"]] == [("merge[0].q", "part")]
