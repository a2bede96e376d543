from __future__ import annotations

from plait.recipe._schema import ModelRef, Module, Recipe, Slice, Source, recipe_models


def recipe(*models: ModelRef, base: ModelRef | None = None) -> Recipe:
    sources = tuple(Source(model) for model in models)
    return Recipe("plait", "paper", "linear", (Module(None, (Slice(sources),)),), base)


def test_model_references_are_hashable_and_compare_by_what_they_name():
    live, other = {"w": 1}, {"w": 1}
    assert ModelRef("a") == ModelRef("a")
    assert len({ModelRef("a"), ModelRef("a"), ModelRef("b")}) == 2
    assert ModelRef("a", live=live) != ModelRef("a", live=other)
    assert len({ModelRef("a", live=live), ModelRef("a", live=other)}) == 2
    assert ModelRef("s", nested=recipe(ModelRef("a"))) == ModelRef("s", nested=recipe(ModelRef("a")))
    assert ModelRef("s", nested=recipe(ModelRef("a"))) != ModelRef("s", nested=recipe(ModelRef("b")))
    assert ModelRef("a") != "a"


def test_the_adapter_is_what_follows_the_plus():
    assert ModelRef("m@r+a@s").adapter == "a@s"
    assert ModelRef("m@r").adapter is None
    assert ModelRef("1+1", live=object()).adapter is None


def test_recipe_models_are_distinct_in_order_with_the_base_first():
    a, b, c = ModelRef("a"), ModelRef("b"), ModelRef("c")
    assert recipe_models(recipe(b, a, b)) == [b, a]
    assert recipe_models(recipe(b, a, base=c)) == [c, b, a]
    assert recipe_models(recipe(b, a, base=a)) == [a, b]
