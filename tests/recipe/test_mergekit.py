"""Recipes of our own that together use every feature of mergekit's grammar, and what they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from plait.errors import InputError
from plait.recipe import (
    ModelRef,
    Setting,
    Tokenizer,
    TokenSource,
    filter_warnings,
    load_recipe,
    recipe_models,
    recipe_to_dict,
    recipe_to_yaml,
)

FOLDER = Path(__file__).parent / "mergekit"
#: The recipes that `make bench-peer` runs through mergekit as well.
PEER = Path(__file__).parents[2] / "benchmarks" / "mergekit_recipes"
RECIPES = [*sorted(FOLDER.glob("*.yaml")), *sorted(PEER.glob("*.yml"))]


def load(name: str):
    return load_recipe(FOLDER / f"{name}.yaml")[-1]


def sources(recipe, module=0, index=0):
    return recipe.modules[module].slices[index].sources


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_comes_back_equal_as_dict_and_as_yaml(path: Path):
    recipe = load_recipe(path)[-1]
    assert recipe.grammar == recipe.conventions == "mergekit"
    assert load_recipe(recipe_to_dict(recipe))[-1] == recipe
    assert load_recipe(recipe_to_yaml(recipe))[-1] == recipe


def test_models_with_weights_revisions_and_adapters():
    recipe = load("linear_models")
    assert recipe.method == "linear"
    assert [s.model.text for s in sources(recipe)] == [
        "org/first",
        "org/second@v1.2",
        "org/third+some/adapter",
    ]
    assert sources(recipe)[2].model.adapter == "some/adapter"
    assert sources(recipe)[2].parameters == {"weight": (Setting(-0.1),)}
    assert recipe.parameters == {"normalize": (Setting(False),)}
    assert (recipe.dtype, recipe.out_dtype) == ("float32", "bfloat16")
    assert all(s.layer_range is None for s in sources(recipe))


def test_gradients_filters_and_numbers_in_scientific_notation():
    first, second, base = sources(load("ties_filters"))
    assert first.parameters["density"] == (Setting((0.9, 0.5, 0.1)),)
    assert first.parameters["weight"] == (
        Setting((0.2, 0.1), "self_attn"),
        Setting(0.7, "mlp"),
        Setting(0.5),
    )
    assert second.parameters == {"density": (Setting(0.4),), "weight": (Setting(0.5),)}
    assert (base.model.text, base.parameters) == ("org/base", {})


def test_a_base_that_is_listed_is_not_added_again():
    recipe = load("slerp_base_listed")
    assert [s.model.text for s in sources(recipe)] == ["org/left", "org/right"]
    assert recipe.base == ModelRef("org/left")


def test_layers_are_stacked_from_slices():
    recipe = load("passthrough_stack")
    (module,) = recipe.modules
    assert [s.sources[0].layer_range for s in module.slices] == [(0, 8), (4, 12), (8, 12)]
    assert module.slices[1].sources[0].parameters["scale"][0] == Setting(0.0, "o_proj")
    assert recipe_models(recipe) == [ModelRef("org/lower"), ModelRef("org/upper")]


def test_slices_keep_their_levels_and_their_own_base():
    recipe = load("slices_levels")
    first, second = recipe.modules[0].slices
    assert first.parameters == {"weight": (Setting(0.3),)}
    assert len(first.sources) == 3
    assert second.base == ModelRef("org/other")
    assert any("residual_weight` has no effect" in text for text in recipe.warnings)


def test_modules_are_merged_each_by_its_own_rule():
    text, vision = load("modules_two_towers").modules
    assert (text.name, vision.name) == ("text_decoder", "vision_tower")
    assert text.parameters == {"weight": (Setting(0.25),)}
    assert [s.model.text for s in vision.slices[0].sources] == ["org/read", "org/seen"]


def test_the_tokenizer_section():
    chat, base = ModelRef("org/chat"), ModelRef("org/base")
    recipe = load("tokenizer_union")
    assert recipe.tokenizer == Tokenizer(
        "union",
        {
            "<|turn|>": TokenSource("model", chat),
            "<|end|>": TokenSource("model", chat, force=True),
            "<|blank|>": TokenSource("zero"),
            "<|alias|>": TokenSource("model_token", chat, token="<|turn|>"),
            "<|seven|>": TokenSource("model_token", base, token_id=7),
            "<|plain|>": TokenSource("default"),
        },
        64,
    )
    assert recipe.chat_template == "chatml"
    assert load("tokenizer_source").tokenizer == Tokenizer(ModelRef("org/b@main"))
    assert load("tokenizer_base").tokenizer == Tokenizer("base")


def test_references_written_as_mappings():
    recipe = load("reference_mappings")
    assert [s.model.text for s in sources(recipe)] == ["dir with space/a@v2+adapters/x", "plain", "other"]
    (warning,) = recipe.warnings
    assert "override_architecture` has no effect" in warning


def test_a_stage_stands_for_an_earlier_document():
    soup, shifted, final = load_recipe(FOLDER / "stages.yaml")
    assert (soup.name, shifted.name, final.name) == ("soup", "shifted", None)
    assert sources(shifted)[0].model.nested == soup
    assert final.base is not None
    assert final.base.nested == soup
    assert final.tokenizer is not None
    assert final.tokenizer.source == ModelRef("soup", nested=soup)
    assert [m.text for m in recipe_models(final)] == ["soup", "shifted"]


def test_keys_that_mergekit_ignores_are_named_with_what_may_be_meant():
    recipe = load("ignored_keys")
    text = "\n".join(recipe.warnings)
    assert len(recipe.warnings) == 5
    assert "ignored_keys.yaml:3: `description` is ignored" in text
    assert "`models[0].weight` is ignored, as in mergekit (if it is a parameter, it belongs under" in text
    assert "`models[1].layer_range` is ignored" in text
    assert "filtr` is ignored, as in mergekit (did you mean `filter`?)" in text
    assert "mergekit ignores `exclude`; plait honours it" in text
    assert recipe.exclude == ("*.bias",)


def document(**changes):
    plain = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    return {key: value for key, value in {**plain, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ...}, "exactly one of `models`, `slices` and `modules`, and this has none"),
        (
            {"slices": [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]},
            "and this has `models` and `slices`",
        ),
        ({"models": [{"parameters": {}}]}, "`models[0].model` is missing"),
        ({"models": [{"model": 3}]}, "`models[0].model` is `3`, and it must name a model"),
        ({"models": [{"model": "a@b@c"}]}, "`model@revision+adapter@revision`"),
        ({"models": [{"model": "a+b+c"}]}, "`model@revision+adapter@revision`"),
        ({"models": [{"model": "a"}, {"model": "a"}]}, "has the model `'a'` twice"),
        ({"models": [{"model": {"merge": "linear"}}]}, "has no nested recipes"),
        ({"models": "a"}, "`models` is `'a'`, and it must be a list"),
        ({"models": ["a"]}, "`models[0]` is `'a'`, and it must be a mapping"),
        ({"merge_method": 3}, "`merge_method` is `3`"),
        ({"dtype": "bf16"}, "`dtype` is `'bf16'`, and it must be the name of a floating-point type"),
        ({"parameters": {"weight": None}}, "`parameters.weight` is `None`, and it must be a number"),
        ({"parameters": {"weight": float("nan")}}, "must be a finite number"),
        ({"parameters": {"weight": 10**400}}, "is too large"),
        ({"parameters": {"weight": [1, {"value": 2}]}}, "mixes plain values with `filter` entries"),
        ({"parameters": {"weight": {"filter": "x"}}}, "needs a `value`"),
        ({"parameters": {"weight": {"filter": 3, "value": 1}}}, "its filter `3` must be text"),
        ({"parameters": {"weight": {"value": []}}}, "at least one value"),
        ({"tokenizer": {}, "tokenizer_source": "base"}, "exclude each other"),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, "`tokenizer.pad_to_multiple_of` is `0`"),
        ({"tokenizer": {"tokens": {"x": {"source": {"kind": "one"}}}}}, "`zero` or `model_token`"),
        (
            {"tokenizer": {"tokens": {"x": {"source": {"kind": "model_token", "model": "a"}}}}},
            "either `token`",
        ),
    ],
)
def test_what_mergekit_refuses_is_an_error(changes, message):
    with pytest.raises(InputError) as caught:
        load_recipe(document(**changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"model": "a"}], "`slices[0].sources[0].layer_range` is missing"),
        ([{"model": "a", "layer_range": [4, 2]}], "it must be [first, last + 1]"),
        ([{"model": "a", "layer_range": [-1, 2]}], "it must be [first, last + 1]"),
        ([], "`slices[0].sources`"),
        (
            [{"model": "a", "layer_range": [0, 2]}, {"model": "b", "layer_range": [0, 3]}],
            "merges different numbers of layers: 2 of `'a'`, 3 of `'b'`",
        ),
    ],
)
def test_slices_that_cannot_be_are_errors(sources, message):
    with pytest.raises(InputError) as caught:
        load_recipe(document(models=..., slices=[{"sources": sources}]))
    assert message in str(caught.value)


def test_all_problems_are_reported_at_once_with_their_lines(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "merge_method: linear\nmodels:\n  - model: 3\n"
        "  - model: b\n    parameters:\n      w: .inf\ndtype: x\n"
    )
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    text = str(caught.value)
    assert "3 problems" in text
    assert f"{path}:3: `models[0].model`" in text
    assert f"{path}:6: `models[1].parameters.w`" in text
    assert f"{path}:7: `dtype`" in text


def names(layers: int) -> list[str]:
    return [f"model.layers.{i}.{part}.weight" for i in range(layers) for part in ("mlp", "self_attn")]


def filtered(*patterns: str):
    settings = [{"filter": pattern, "value": 1} for pattern in patterns]
    return load_recipe(document(parameters={"weight": settings}))[-1]


def test_a_substring_that_cuts_a_layer_number_is_warned_of():
    (warning,) = filter_warnings(filtered("layers.1"), names(12))
    assert "`parameters.weight`: the filter `layers.1` is a substring" in warning
    assert (
        "also hits `layers.10`, `layers.11`; for that one alone, end it with the dot: `layers.1.`" in warning
    )
    (warning,) = filter_warnings(filtered("1.mlp"), names(12))
    assert "also hits `11.mlp`" in warning


def test_filters_that_mean_one_thing_are_not_warned_of():
    assert filter_warnings(filtered("layers.1"), names(10)) == []
    assert filter_warnings(filtered("layers.1.", "mlp", "*"), names(12)) == []


def test_a_filter_that_matches_nothing_is_warned_of():
    (warning,) = filter_warnings(filtered("attention"), names(3))
    assert "the filter `attention` matches no tensor" in warning


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\n{}\n---\nname: a\n{}\n", "the stage `'a'` is here twice"),
        ("{}\n---\n{}\n", "a second stage has no `name`"),
        (
            "name: a\n{b}\n---\nname: b\n{a}\n",
            "in a circle: `'a'` → `'b'` → `'a'`",
        ),
    ],
)
def test_stages_that_cannot_be_linked_are_errors(text, message):
    for model in ("", "a", "b"):
        text = text.replace(f"{{{model}}}", f"merge_method: linear\nmodels: [{{model: {model or 'x'}}}]")
    with pytest.raises(InputError) as caught:
        load_recipe(text)
    assert message in str(caught.value)


def test_a_stage_that_nothing_uses_is_warned_of():
    body = "merge_method: linear\nmodels: [{model: x}]\n"
    assert load_recipe(f"name: a\n{body}---\n{body}")[-1].warnings == (
        "the stage `a` is not part of the output",
    )
