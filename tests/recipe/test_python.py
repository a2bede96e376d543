from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plait.errors import InputError
from plait.recipe import ModelRef, Part, Setting, Tokenizer, build_recipe, load_recipe, recipe_to_dict

PER_MODEL = {"weight", "density"}


def sources(recipe):
    return recipe.modules[0].slices[0].sources


def test_paths_a_base_and_options():
    recipe = build_recipe(
        ["a", Path("dir/b")], base="c", method="ties", parameters={"density": 0.3}, dtype=torch.bfloat16
    )
    assert [s.model.text for s in sources(recipe)] == ["a", str(Path("dir/b"))]
    assert (recipe.base, recipe.method, recipe.dtype) == (ModelRef("c"), "ties", "bfloat16")
    assert (recipe.grammar, recipe.conventions) == ("python", "paper")
    assert recipe.parameters == {"density": (Setting(0.3),)}


def test_a_list_has_one_value_per_model_and_a_gradient_says_so():
    given = {"weight": [0.5, np.float32(0.25)], "density": {"value": (0.1, 0.2, 0.3)}, "t": [0, 1]}
    recipe = build_recipe(["a", "b"], method="ties", parameters=given, per_model=PER_MODEL)
    assert [s.parameters for s in sources(recipe)] == [
        {"weight": (Setting(0.5),)},
        {"weight": (Setting(0.25),)},
    ]
    assert recipe.parameters == {"density": (Setting((0.1, 0.2, 0.3)),), "t": (Setting((0, 1)),)}


def test_a_list_of_another_length_than_the_models_is_refused():
    with pytest.raises(InputError, match="`weight` has 3 values for 2 models") as caught:
        build_recipe(["a", "b"], method="linear", parameters={"weight": [1, 2, 3]}, per_model=PER_MODEL)
    assert "weight={'value': [1, 2, 3]}" in str(caught.value)


def test_a_models_value_may_be_a_gradient_or_filtered():
    given = {"weight": [[0, 1], {"filter": "*mlp*", "value": 2}]}
    recipe = build_recipe(["a", "b"], method="linear", parameters=given, per_model=PER_MODEL)
    assert [s.parameters["weight"] for s in sources(recipe)] == [(Setting((0, 1)),), (Setting(2, "*mlp*"),)]
    filtered = {"weight": [{"filter": "x", "value": 1}, {"value": 2}]}
    recipe = build_recipe(["a", "b"], method="linear", parameters=filtered, per_model=PER_MODEL)
    assert recipe.parameters == {"weight": (Setting(1, "x"), Setting(2))}


def test_live_models_keep_their_identity_and_get_names():
    module, state = torch.nn.Linear(2, 2), {"w": torch.zeros(1)}
    recipe = build_recipe([module, state], base=module, method="linear")
    first, second = (s.model for s in sources(recipe))
    assert (first.text, second.text) == ("models[0]", "models[1]")
    assert first.live is module
    assert recipe.base == first
    recipe = build_recipe({"math": module, "code": state}, method="linear")
    assert [s.model.text for s in sources(recipe)] == ["math", "code"]


def test_recipes_may_be_models():
    inner = load_recipe({"merge": "linear", "models": ["x", "y"]})[-1]
    recipe = build_recipe([inner, "z"], method="slerp")
    assert sources(recipe)[0].model.nested == inner


def test_methods_may_be_functions_or_parts():
    def mine(base, experts):
        return base

    assert build_recipe(["a"], method=mine).method is mine
    parts = (Part("sparsify", "trim"), Part("consensus", "sum"))
    assert build_recipe(["a"], method=parts).method == parts
    assert build_recipe(["a"], method=[{"sparsify": "trim"}, {"consensus": "sum"}]).method == parts


def test_a_recipe_from_python_is_recorded_in_plaits_grammar():
    recipe = build_recipe(
        ["a", "b"], base="c", method="ties", parameters={"k": 2}, exclude="x*", tokenizer="base"
    )
    again = load_recipe(recipe_to_dict(recipe))[-1]
    assert again.modules == recipe.modules
    assert (again.base, again.parameters, again.exclude) == (recipe.base, recipe.parameters, ("x*",))
    assert again.tokenizer == recipe.tokenizer == Tokenizer("base")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": "a"}, "`models` is `'a'`, and it must be a list of models"),
        ({"models": []}, "there are no models to merge"),
        ({"models": ["a", "a"]}, "the model `'a'` is there twice"),
        ({"models": ["a", 3]}, "`models[1]` is `3`, and it must be a model or the path of one"),
        ({"models": ["a", ""]}, "`models[1]` is empty"),
        ({"parameters": {"weight": [1, None]}}, "`weight[1]` is `None`"),
        ({"parameters": {"weight": {"vale": 1}}}, "`weight` is `{'vale': 1}`, and it needs a `value`"),
        ({"parameters": {"weight": {"value": 1, "filtr": "x"}}}, "its key `filtr` is unknown"),
        ({"parameters": {"k": float("inf")}}, "must be a finite number"),
        ({"method": 3}, "`method` is `3`"),
        ({"method": [Part("consensus", "sum"), Part("sparsify", "x")]}, "must come before"),
        ({"dtype": "bf16"}, "did you mean `bfloat16`?"),
        ({"seed": 1.5}, "`seed` is `1.5`"),
        ({"conventions": "mine"}, "`conventions` is `'mine'`"),
        ({"tokenizer": {"sorce": "base"}}, "did you mean `source`?"),
        ({"tokenizer": 3}, "`tokenizer` is `3`"),
    ],
)
def test_bad_arguments_are_refused_with_the_users_words(arguments, message):
    with pytest.raises(InputError) as caught:
        build_recipe(**{"models": ["a", "b"], "method": "linear", "per_model": PER_MODEL, **arguments})
    assert message in str(caught.value)


def test_all_problems_of_a_call_are_reported_together():
    with pytest.raises(InputError, match="3 problems"):
        build_recipe(["a", 3], method=4, seed="x")  # type: ignore[arg-type]
