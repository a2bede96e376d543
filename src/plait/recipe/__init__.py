"""The typed recipe: what to merge, read from mergekit's grammar, plait's own, or Python."""

from plait.recipe._aligned_tables import align_tables
from plait.recipe._alignment import Alignment, align_vocabularies
from plait.recipe._chat_template import CHAT_TEMPLATES, read_chat_template, resolve_chat_template
from plait.recipe._document import Keys, refuse, validate
from plait.recipe._dump import recipe_to_dict, recipe_to_yaml
from plait.recipe._filters import filter_warnings
from plait.recipe._load import load_recipe, read_recipe
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
from plait.recipe._tokenizer_files import (
    TOKENIZER_FILES,
    read_vocabulary,
    write_chat_template,
    write_tokenizer,
)
from plait.recipe._values import Kind, layer_position
from plait.recipe._vocabulary import AddedToken, Vocabulary
from plait.recipe._yaml import YamlDocument, parse_yaml, read_yaml

__all__ = [
    "CHAT_TEMPLATES",
    "MERGEKIT_FLAGS",
    "MISSING",
    "PART_KINDS",
    "TOKENIZER_FILES",
    "AddedToken",
    "Alignment",
    "Flag",
    "Keys",
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
    "Vocabulary",
    "YamlDocument",
    "align_tables",
    "align_vocabularies",
    "build_recipe",
    "filter_warnings",
    "layer_position",
    "load_recipe",
    "parse_yaml",
    "read_chat_template",
    "read_recipe",
    "read_vocabulary",
    "read_yaml",
    "recipe_models",
    "recipe_to_dict",
    "recipe_to_yaml",
    "refuse",
    "resolve_chat_template",
    "translate_mergekit_flags",
    "used_keys",
    "validate",
    "write_chat_template",
    "write_tokenizer",
]
