"""What `adapter_config.json` says, as far as it changes the weights; the rest is refused by name."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import gt
from pathlib import Path
from typing import Any

from plait.checkpoint._json import read_json
from plait.errors import InputError, raise_all

CONFIG = "adapter_config.json"

#: Options under which `base + scale * B @ A` is not what the adapter does; none can be merged by it.
_OTHER_MEANINGS = {
    "alora_invocation_tokens": "it acts on some tokens only, so no weights equal it",
    "arrow_config": "it routes between adapters, so no weights equal it",
    "kasa_config": "it truncates the base and adds singular values",
    "layer_replication": "it repeats the base's layers",
    "monteclora_config": "it samples its weights",
    "target_parameters": "its factors belong to parameters that may be stored otherwise on disk",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "it pools the inputs",
}
#: Initialisations that change the base as well; peft repeats them on loading.
_BASE_CHANGING = re.compile(r"pissa|olora|corda|loftq|lora_ga")


#: Repeats, optional parts, groups, choices and characters that a pattern may have, so that matching it ends.
_MOST = (3, 8, 8, 32, 1000)


@dataclass(frozen=True)
class AdapterConfig:
    """The options of a LoRA adapter that its full weights depend on, named as PEFT names them."""

    r: int = 8
    lora_alpha: float = 8
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    modules_to_save: tuple[str, ...] = ()
    trainable_token_indices: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    ensure_weight_tying: bool = False
    base: str | None = None
    revision: str | None = None

    def rank(self, module: str) -> int:
        """The rank that the config gives a module."""
        return self.rank_pattern.get(_pattern(self.rank_pattern, module), self.r)

    def scale(self, module: str) -> float:
        """What a module's product of factors is multiplied with."""
        alpha = self.alpha_pattern.get(_pattern(self.alpha_pattern, module), self.lora_alpha)
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def saved(self, tensor: str) -> bool:
        """Whether a tensor belongs to one of `modules_to_save`."""
        return any(f".{name}." in f".{tensor}" for name in self.modules_to_save)


def _pattern(patterns: Mapping[str, object], module: str) -> str:
    """The first key that is the module's name, or the end of it after a dot, as a regular expression."""
    for key in patterns:
        if re.match(rf"(.*\.)?({key})$", module):
            return key
    return module


def read_adapter_config(folder: Path) -> AdapterConfig:
    """The options of the PEFT adapter in a folder.

    Raises:
        InputError: no such file, not JSON, another kind of adapter than LoRA, or options under which
            the adapter can't be written as full weights; all problems at once.
    """
    path = folder / CONFIG
    raw = read_json(path)
    where = str(path)
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise InputError(
            f"`peft_type` is {kind!r}, and plait merges LoRA adapters only",
            where=where,
            hint="merge it into its base with peft (`merge_and_unload`) and use the result",
        )
    problems = [
        InputError(f"`{key}` is set: {why}", where=where, hint="merge it into its base with peft first")
        for key, why in _OTHER_MEANINGS.items()
        if raw.get(key)
    ]
    start = raw.get("init_lora_weights")
    if isinstance(start, str) and _BASE_CHANGING.match(start):
        hint = "save it with peft's `path_initial_model_for_weight_conversion`, or merge it with peft first"
        problems.append(
            InputError(f"`init_lora_weights: {start}` changes the base too", where=where, hint=hint)
        )
    problems += _mistyped(raw, where)
    raise_all(problems)
    return _typed(raw)


def _mistyped(raw: Mapping[str, Any], where: str) -> list[InputError]:
    problems: list[InputError] = []
    expected: tuple[tuple[str, type | tuple[type, ...]], ...] = (
        ("r", int),
        ("lora_alpha", (int, float)),
        ("rank_pattern", dict),
        ("alpha_pattern", dict),
        ("modules_to_save", list),
        ("trainable_token_indices", (list, dict)),
        ("base_model_name_or_path", str),
        ("revision", str),
    )
    for key, types in expected:
        value = raw.get(key)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            problems.append(InputError(f"`{key}` is {value!r:.80}, a {type(value).__name__}", where=where))
    tokens = raw.get("trainable_token_indices")
    rows = tokens.values() if isinstance(tokens, dict) else ()
    bad = [value for value in rows if not isinstance(value, list)]
    problems += [InputError(f"tokens are {value!r:.80}, not a list of ids", where=where) for value in bad]
    ranks, alphas = (raw.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    patterns = [key for table in (ranks, alphas) if isinstance(table, dict) for key in table]
    problems += [
        InputError(f"the pattern {key!r:.80} {why}", where=where, hint="write the modules' names out")
        for key in patterns
        if (why := _broken(key))
    ]
    if isinstance(ranks, dict):
        numbers = [raw.get("r", 8), *ranks.values()]
        bad = [n for n in numbers if not isinstance(n, int) or n < 1]
        problems += [InputError(f"a rank is {n!r:.40}, and must be at least 1", where=where) for n in bad]
    if isinstance(alphas, dict):
        own = raw.get("lora_alpha")
        bad = [n for n in (8 if own is None else own, *alphas.values()) if not _is_number(n)]
        problems += [InputError(f"an alpha is {n!r:.40}, not a finite number", where=where) for n in bad]
    return problems


def _is_number(value: object) -> bool:
    """Whether it is a number that a float can be; JSON has NaN, infinities and integers of any length."""
    return isinstance(value, (int, float)) and abs(value) <= sys.float_info.max


def _broken(pattern: str) -> str | None:
    """Why a pattern can't be used; matching some takes longer than anyone lives, and nothing can stop it."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return "is not a regular expression"
    # escapes and classes stand for one character
    bare = re.sub(r"\\.|\[\^?\]?[^\]]*\]", "x", pattern, flags=re.DOTALL).replace("(?:", "(")
    counts = len(re.findall(r"[*+{]", bare)), bare.count("?"), bare.count("("), bare.count("|"), len(bare)
    if "(?" in bare or re.search(r"\)[*+{]", bare) or any(map(gt, counts, _MOST)):
        return "repeats a group, or has too many repeats or choices, so matching it may take forever"
    return None


def _typed(raw: Mapping[str, Any]) -> AdapterConfig:
    tokens = raw.get("trainable_token_indices") or {}
    # a plain list is PEFT's shorthand for the input embeddings
    tokens = {"": tokens} if isinstance(tokens, list) else tokens
    return AdapterConfig(
        r=raw.get("r") or 8,
        lora_alpha=raw["lora_alpha"] if raw.get("lora_alpha") is not None else 8,
        rank_pattern=raw.get("rank_pattern") or {},
        alpha_pattern=raw.get("alpha_pattern") or {},
        use_rslora=bool(raw.get("use_rslora")),
        use_dora=bool(raw.get("use_dora")),
        fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
        modules_to_save=tuple(raw.get("modules_to_save") or ()),
        trainable_token_indices={str(name): tuple(rows) for name, rows in tokens.items()},
        ensure_weight_tying=bool(raw.get("ensure_weight_tying")),
        base=raw.get("base_model_name_or_path") or None,
        revision=raw.get("revision") or None,
    )
