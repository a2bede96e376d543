from __future__ import annotations

from pathlib import Path

import pytest

from plait.errors import InputError
from plait.recipe import (
    ModelRef,
    Part,
    Setting,
    Source,
    Tokenizer,
    filter_warnings,
    load_recipe,
    recipe_models,
    recipe_to_dict,
    recipe_to_yaml,
)

FULL = """
name: everything
merge:
  - sparsify: trim
    density: [0.2, 1e-1]
    scope: model
  - consensus: {name: elected_sign, zero_sign: plus}
  - scale: 0.5
conventions: mergekit
base: path/to/base
models:
  - path/to/a
  - {model: path/to/b, weight: -0.5, density: {filter: "*.mlp.*", value: 0.3}}
  - model: path/to/c
    weight: [0, 1]
    parameters: {density: 0.7}
  - model:
      merge_method: slerp
      base_model: x
      models: [{model: x}, {model: y}]
      parameters: {t: 0.5}
    weight: 2
parameters: {density: 0.5}
exclude: ["lm_head.*", "*.bias"]
keep: "*.norm.*"
dtype: bfloat16
tokenizer: union
chat_template: auto
seed: 7
code: methods/mine.py
"""


def load(text: str):
    return load_recipe(text)[-1]


def test_everything_that_the_grammar_has():
    recipe = load(FULL)
    (module,) = recipe.modules
    (run,) = module.slices
    assert (recipe.grammar, recipe.conventions, recipe.name, recipe.seed) == (
        "plait",
        "mergekit",
        "everything",
        7,
    )
    assert recipe.method == (
        Part("sparsify", "trim", {"density": (Setting((0.2, 0.1)),), "scope": (Setting("model"),)}),
        Part("consensus", "elected_sign", {"zero_sign": (Setting("plus"),)}),
        Part("scale", "constant", {"factor": (Setting(0.5),)}),
    )
    assert run.sources[0] == Source(ModelRef("path/to/a"))
    assert run.sources[1].parameters == {
        "weight": (Setting(-0.5),),
        "density": (Setting(0.3, "*.mlp.*"),),
    }
    assert run.sources[2].parameters == {"weight": (Setting((0, 1)),), "density": (Setting(0.7),)}
    nested = run.sources[3].model.nested
    assert nested is not None
    assert (nested.grammar, nested.method) == ("mergekit", "slerp")
    assert recipe.exclude == ("lm_head.*", "*.bias")
    assert recipe.keep == ("*.norm.*",)
    assert recipe.tokenizer == Tokenizer("union")
    assert recipe.code == Path("methods/mine.py")
    assert recipe.warnings == ()
    assert [m.text for m in recipe_models(recipe)][:3] == ["path/to/base", "path/to/a", "path/to/b"]


def test_a_recipe_comes_back_equal_from_dict_and_yaml():
    recipe = load(FULL)
    assert load_recipe(recipe_to_dict(recipe))[-1] == recipe
    assert load(recipe_to_yaml(recipe)) == recipe


@pytest.mark.parametrize(
    "merge",
    [
        "[{sparsify: trim, density: 0.2}, {consensus: sum}]",
        "[{sparsify: {name: trim, density: 0.2}}, {consensus: {name: sum}}]",
        "{sparsify: {name: trim, density: 0.2}, consensus: sum}",
        "{consensus: sum, sparsify: {name: trim, density: 0.2}}",
    ],
)
def test_parts_may_be_written_as_a_list_or_a_mapping(merge: str):
    assert load(f"merge: {merge}\nmodels: [a]").method == (
        Part("sparsify", "trim", {"density": (Setting(0.2),)}),
        Part("consensus", "sum"),
    )


def test_the_papers_conventions_are_the_default():
    assert load("merge: ties\nmodels: [a]\nbase: b").conventions == "paper"


def test_slices_and_modules_take_short_forms_too():
    recipe = load(
        "merge: passthrough\nmodules:\n  text:\n    slices:\n"
        "      - sources: [{model: a, layer_range: [0, 2], scale: 0.5}]\n        base: b\n"
        "  vision:\n    models: [c]\n"
    )
    text, vision = recipe.modules
    assert text.slices[0].sources == (Source(ModelRef("a"), {"scale": (Setting(0.5),)}, (0, 2)),)
    assert text.slices[0].base == ModelRef("b")
    assert vision.slices[0].sources == (Source(ModelRef("c")),)
    assert load(recipe_to_yaml(recipe)) == recipe


def test_the_base_is_no_source_unless_it_is_listed():
    recipe = load("merge: ties\nbase: b\nmodels: [a]\n")
    assert [s.model.text for s in recipe.modules[0].slices[0].sources] == ["a"]


def test_a_nested_recipe_is_called_after_what_it_says():
    def text(models: str) -> str:
        recipe = load(
            f"merge: linear\nmodels: [{{model: {{merge: ties, base: z, models: [{models}]}}}}, q]\n"
        )
        return recipe.modules[0].slices[0].sources[0].model.text

    assert text("x, y").startswith("ties(z, x, y)#")
    assert text("x, y") == text("{model: x}, {model: y}")
    assert text("x, y") != text("x, {model: y, weight: 2}")


def test_stages_work_with_adapters_and_come_back_equal():
    first = "name: s\nmerge: linear\nmodels: [a, b]\n"
    recipe = load(f"{first}---\nmerge: linear\nmodels: [s, s+adapter, c]\n")
    refs = [source.model for source in recipe.modules[0].slices[0].sources]
    assert refs[0].nested == refs[1].nested == load(first)
    assert (refs[1].adapter, refs[2].nested) == ("adapter", None)
    assert load_recipe(recipe_to_dict(recipe))[-1] == recipe


def test_a_glob_without_signs_that_matches_nothing_gets_a_hint():
    recipe = load("merge: linear\nmodels: [a]\nparameters: {weight: [{filter: mlp, value: 1}, {value: 2}]}\n")
    (warning,) = filter_warnings(recipe, ["layers.1.mlp.w"])
    assert "perhaps `*mlp*` is meant" in warning


def test_an_exclusion_that_excludes_nothing_is_warned_of():
    recipe = load("merge: linear\nmodels: [a]\nexclude: ['*.bias', head]\n")
    assert filter_warnings(recipe, ["layers.0.bias"]) == ["`exclude`: the glob `head` matches no tensor"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge: ties\nmodels: [a]\nbsae: b", ":3: unknown key `bsae`\n  hint: did you mean `base`?"),
        ("merge: ties\nmodels:\n  - {modle: a}", ":3: unknown key `modle` in `models[0]`"),
        ("merge: ties\nmodels:\n  - {model: a, paramters: {weight: 1}}", "did you mean `parameters`?"),
        ("merge: ties\nmerge_method: ties\nmodels: [a]", "it mixes mergekit's grammar"),
        ("base: a\nmodels: [a]", "a recipe needs `merge` (plait's grammar) or `merge_method` (mergekit's)"),
        ("merg: ties\nmodels: [a]", "this has `merg`\n  hint: did you mean `merge`?"),
        ("merge_methd: ties\nmodels: [a]", "did you mean `merge_method`?"),
        ("merge: {sparsfy: trim}\nmodels: [a]", "did you mean `sparsify`?"),
        ("merge: [{sparsfy: trim}]\nmodels: [a]", "did you mean `sparsify`?"),
        ("merge: [trim]\nmodels: [a]", "must be a mapping such as {sparsify: NAME}"),
        ("merge: [{consensus: a}, {consensus: b}]\nmodels: [a]", "more than one `consensus`"),
        ("merge: [{sparsify: a}, {sparsify: b}]\nmodels: [a]", "more than one `sparsify`"),
        ("merge: [{scale: 0.5}, {scale: 0.25}]\nmodels: [a]", "more than one `scale`"),
        (
            "merge: [{consensus: a}, {sparsify: b}]\nmodels: [a]",
            "`sparsify` must come before its `consensus`",
        ),
        ("merge: {scale: true}\nmodels: [a]", "its `scale` `True` must be a name"),
        ("merge: {scale: {factor: 3}}\nmodels: [a]", "its `scale` needs a `name`"),
        ("merge: []\nmodels: [a]", "a method's name, a mapping or a list of parts"),
        ("merge: ties\nmodels: []", "and this has none of them"),
        ("merge: ties\nmodels: [a, a]", "has the model `'a'` twice"),
        ("merge: ties\nmodels:\n  - {model: a, weight: 1, parameters: {weight: 2}}", "unknown key `weight`"),
        ("merge: ties\nmodels: [a]\nparameters: {weight: []}", "at least one value"),
        ("merge: ties\nmodels: [a]\nconventions: papers", "`conventions` is `'papers'`"),
        ("merge: ties\nmodels: [a]\nseed: -1", "`seed` is `-1`"),
        ("merge: ties\nmodels: [a]\nseed: true", "`seed` is `True`"),
        ("merge: ties\nmodels: [a]\nexclude: 3", "`exclude` is `3`, and it must be a list"),
        ("merge: ties\nmodels: [a]\ntokenizer: {sorce: base}", "unknown key `sorce` in `tokenizer`"),
        ("merge: ties\nmodels: [{model: {merge: linear, modles: [b]}}]", "`modles` in `models[0].model`"),
        ("merge: ties\nmodels: [{model: {base: b}}]", "a recipe needs `merge`"),
        ("merge: ties\nmodels: [{model: [b]}]", "`models[0].model` is `['b']`, and it must name a model"),
        ("merge: ties\nmodels: [a]\nstages: 3", "`stages` must be a list of recipes"),
    ],
)
def test_bad_recipes_are_refused_with_the_users_words(text: str, message: str):
    with pytest.raises(InputError) as caught:
        load(text + "\n")
    assert message in str(caught.value)


def test_problems_inside_a_nested_recipe_name_its_line():
    with pytest.raises(InputError) as caught:
        load(
            "merge: ties\nmodels:\n"
            "  - model:\n      merge: linear\n      models:\n        - 3\n"
            "  - {model: 4}\n"
        )
    assert "the recipe:6: `models[0].model.models[0]` is `3`" in str(caught.value)
    assert "the recipe:7: `models[1].model` is `4`" in str(caught.value)


def test_recipes_nested_without_end_are_refused():
    inner: dict = {"merge": "linear", "models": ["a"]}
    for _ in range(40):
        inner = {"merge": "linear", "models": [{"model": inner}]}
    with pytest.raises(InputError, match="nested deeper"):
        load_recipe(inner)


def test_mappings_from_python_may_hold_paths_and_tuples_and_nothing_else():
    recipe = load_recipe({"merge": "linear", "models": (Path("a"), {"model": "b", "weight": (0, 1)})})[-1]
    assert recipe.modules[0].slices[0].sources[1].parameters == {"weight": (Setting((0, 1)),)}
    with pytest.raises(InputError, match=r"`models\[0\]` is .* plain values only"):
        load_recipe({"merge": "linear", "models": [object()]})
    with pytest.raises(InputError, match="the key `3`"):
        load_recipe({"merge": "linear", "models": ["a"], 3: 4})  # type: ignore[dict-item]
