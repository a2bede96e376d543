"""The typed recipe: what to merge, read from mergekit's grammar, plait's own, or Python."""

from plait.recipe._dump import recipe_to_dict, recipe_to_yaml
from plait.recipe._filters import filter_warnings
from plait.recipe._load import load_recipe
from plait.recipe._mergekit_flags import MERGEKIT_FLAGS, Flag, translate_mergekit_flags
from plait.recipe._parameters import MISSING, Missing, Resolver, Use, used_keys
from plait.recipe._python import build_recipe
from plait.recipe._schema import (
    PART_KINDS,
    ModelRef,
    Module,
    Parameters,
    Part,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    Tokenizer,
    TokenSource,
    recipe_models,
)
from plait.recipe._values import Kind, layer_position

__all__ = [
    "MERGEKIT_FLAGS",
    "MISSING",
    "PART_KINDS",
    "Flag",
    "Kind",
    "Missing",
    "ModelRef",
    "Module",
    "Parameters",
    "Part",
    "Recipe",
    "Resolver",
    "Scalar",
    "Setting",
    "Slice",
    "Source",
    "TokenSource",
    "Tokenizer",
    "Use",
    "build_recipe",
    "filter_warnings",
    "layer_position",
    "load_recipe",
    "recipe_models",
    "recipe_to_dict",
    "recipe_to_yaml",
    "translate_mergekit_flags",
    "used_keys",
]
