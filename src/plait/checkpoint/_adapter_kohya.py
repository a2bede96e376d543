"""LoRA files of kohya's trainers and of Diffusers: one file, names flattened or dotted, alphas inside.

kohya joins a component's short name and a module's name with underscores (`lora_unet_mid_block_…`), so
names are compared with the base's names flattened the same way. The scale is alpha / rank, and 1 where
there is no alpha.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping

from plait.checkpoint._json import some
from plait.checkpoint._lora_tensors import Factors, LowRankTensor
from plait.checkpoint._tensor import LazyTensor, numel
from plait.errors import InputError, raise_all

_PART = re.compile(
    r"(?P<module>.+?)\.(?:(?P<a>lora_down|lora_A|lora\.down)\.weight"
    r"|(?P<b>lora_up|lora_B|lora\.up)\.weight"
    r"|(?P<alpha>alpha)|(?P<magnitude>dora_scale))$"
)
#: Older Diffusers files: `attn1.processor.to_q_lora.down` is the attention's own `to_q`.
_OLD = re.compile(r"\.processor\.(to_\w+)_lora\.(down|up)\.weight$")
#: kohya's short names of components, and what a base may call them: Diffusers, then original files.
_COMPONENTS = {
    "unet": ("unet", "model_diffusion_model"),
    "te": ("text_encoder", "te", "cond_stage_model_transformer"),
    "te1": ("text_encoder", "conditioner_embedders_0_transformer"),
    "te2": ("text_encoder_2", "conditioner_embedders_1_model"),
    "te3": ("text_encoder_3",),
    "text_encoder_2": ("text_encoder_2",),
    "text_encoder": ("text_encoder",),
    "transformer": ("transformer",),
}


def is_kohya(names: Collection[str]) -> bool:
    """Whether these tensors' names are those of a kohya or Diffusers LoRA file."""
    return any(
        name.endswith((".lora_down.weight", ".lora.down.weight", "_lora.down.weight"))
        or (name.endswith(".lora_A.weight") and not name.startswith("base_model."))
        for name in names
    )


def change_tensors(
    tensors: Mapping[str, LazyTensor], base: Mapping[str, LazyTensor], where: str
) -> dict[str, LazyTensor]:
    """The base's tensors that the file changes, lazily.

    Args:
        tensors: the file's.
        base: the base's.
        where: the file, for messages.

    Raises:
        InputError: tensors of an unknown kind, without a partner, that match nothing or don't fit.
    """
    modules: defaultdict[str, dict[str, LazyTensor]] = defaultdict(dict)
    unknown: list[str] = []
    for name, tensor in tensors.items():
        found = _PART.match(_OLD.sub(r".\1.lora.\2.weight", name))
        if found is None or found["magnitude"]:
            unknown.append(name)
        else:
            role = "A" if found["a"] else "B" if found["b"] else "alpha"
            modules[found["module"]][role] = tensor
    problems: list[InputError] = []
    if unknown:
        what = f"{some(unknown)}: plait reads lora_down, lora_up and alpha in such a file, nothing else"
        hint = "LoHa, LoKr, Tucker and DoRA parts can be merged with their trainer's own script"
        problems.append(InputError(what, where=where, hint=hint))
    flat = _flattened(base)
    matched = {module: target for module in modules if (target := _find(module, flat))}
    lost = [module for module in modules if module not in matched]
    if lost:
        hint = "is this the model that it was trained for?"
        problems.append(InputError(f"{some(lost)} match nothing in the base", where=where, hint=hint))
    changed: dict[str, LazyTensor] = {}
    for module, target in matched.items():
        result = _changed(module, modules[module], base[target], where)
        if isinstance(result, InputError):
            problems.append(result)
        elif target in changed:
            problems.append(InputError(f"two modules change `{target}`", where=where))
        else:
            changed[target] = result
    raise_all(problems)
    return changed


def _flattened(base: Collection[str]) -> dict[str, str]:
    """Flattened module name → weight; a name that two weights share is left out."""
    flat: defaultdict[str, list[str]] = defaultdict(list)
    for name in base:
        if name.endswith(".weight"):
            flat[_flatten(name.removesuffix(".weight"))].append(name)
    return {key: names[0] for key, names in flat.items() if len(names) == 1}


def _flatten(name: str) -> str:
    return name.replace(".", "_").replace("/", "_")


def _find(module: str, flat: Mapping[str, str]) -> str | None:
    """The base's weight of one module: under its component's names, or without any."""
    plain = _flatten(module.removeprefix("lora_"))
    options = [plain]
    for short, names in _COMPONENTS.items():
        if plain.startswith(f"{short}_"):
            rest = plain.removeprefix(f"{short}_")
            options += [f"{name}_{rest}" for name in names] + [rest]
    # a list of a layer and its dropout, which older files don't count
    options += [f"{option}_0" for option in options if option.endswith("_to_out")]
    return next((flat[option] for option in options if option in flat), None)


def _changed(
    module: str, roles: Mapping[str, LazyTensor], base: LazyTensor, where: str
) -> LazyTensor | InputError:
    missing = [name for name, role in (("lora_down", "A"), ("lora_up", "B")) if role not in roles]
    if missing:
        return InputError(f"module `{module}`: {some(missing)} is missing beside its partner", where=where)
    a, b = roles["A"], roles["B"]
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[0] != b.shape[1] or numel(b.shape[2:]) != 1:
        what = f"lora_down is {list(a.shape)} and lora_up is {list(b.shape)}: they can't be multiplied"
        return InputError(f"module `{module}`: {what}", where=where)
    if not base.dtype.is_floating_point:
        return InputError(f"`{base.name}` is {base.dtype}, and an adapter needs floats", where=where)
    alpha = roles.get("alpha")
    if alpha is not None and numel(alpha.shape) != 1:
        return InputError(f"module `{module}`: alpha is {list(alpha.shape)}, not one number", where=where)
    scale = float(alpha.read().double()) / a.shape[0] if alpha is not None else 1.0
    factors = Factors(b, a, False, scale)
    if not base.shape or factors.shape != (base.shape[0], numel(base.shape[1:])):
        found, expected = f"lora_up @ lora_down is {list(factors.shape)}", list(base.shape)
        what = f"{found}, and `{base.name}` in the base is {expected}"
        return InputError(f"module `{module}`: {what}", where=where)
    return LowRankTensor(base, factors)
