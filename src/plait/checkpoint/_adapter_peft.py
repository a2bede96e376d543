"""The tensors of a PEFT LoRA adapter, put together by module and matched with a base's names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from plait.checkpoint._adapter_config import AdapterConfig
from plait.checkpoint._json import some
from plait.checkpoint._lora_tensors import Factors, LowRankTensor, RowsReplaced, renamed, with_bias
from plait.checkpoint._tensor import LazyTensor, Shape, numel
from plait.errors import InputError, raise_all

_PART = re.compile(
    r"(?P<module>.+)\.(?:"
    r"(?P<role>lora_[AB])(?:\.default)?\.(?P<kind>weight|bias)"
    r"|(?P<embedding>lora_embedding_[AB])(?:\.default)?"
    r"|(?P<magnitude>lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
    r"|token_adapter\.(?P<tokens>trainable_tokens_delta)(?:\.default)?"
    r")$"
)
_WRAPPERS = re.compile(r"\.base_layer(?=\.)|\.modules_to_save\.[^.]+(?=\.)")

Source = Callable[[str], LazyTensor]


@dataclass(frozen=True)
class PeftTensors:
    """An adapter's tensors by what they are for.

    Attributes:
        parts: module → role (`lora_A`, `lora_B`, `lora_B.bias`, `lora_embedding_A`, …) → tensor.
        replaced: tensor name → tensor that takes its place.
        file_names: module or tensor name → the names in the adapter's file, for messages.
    """

    parts: Mapping[str, Mapping[str, LazyTensor]]
    replaced: Mapping[str, LazyTensor]
    file_names: Mapping[str, list[str]]


def sort_tensors(tensors: Mapping[str, LazyTensor]) -> PeftTensors:
    """Read what each tensor is for from its name."""
    parts: defaultdict[str, dict[str, LazyTensor]] = defaultdict(dict)
    replaced: dict[str, LazyTensor] = {}
    file_names: defaultdict[str, list[str]] = defaultdict(list)
    for key, tensor in tensors.items():
        plain = _WRAPPERS.sub("", key.removeprefix("base_model.model."))
        found = _PART.match(plain)
        if found is None:
            replaced[plain] = tensor
            file_names[plain].append(key)
            continue
        role = found["embedding"] or found["magnitude"] or found["tokens"] or found["role"]
        parts[found["module"]][f"{role}.bias" if found["kind"] == "bias" else role] = tensor
        file_names[found["module"]].append(key)
    return PeftTensors(parts, replaced, file_names)


def match_names(modules: Iterable[str], names: Collection[str]) -> dict[str, str]:
    """Which of the base's weights each module is.

    Names may differ by one leading component, as between a model and the same model under a head
    (`layers.0…` and `model.layers.0…`); it must be the same for all modules.

    Returns:
        module → name of its weight, for those found.
    """
    wanted = list(modules)
    # most frequent first, so that the body's name is tried before a head's
    heads = [head for head, _ in Counter(name.split(".", 1)[0] for name in names).most_common()]
    shifts: list[Callable[[str], str]] = [lambda module: module, lambda module: module.partition(".")[2]]
    shifts += [lambda module, head=head: f"{head}.{module}" for head in heads]
    best: dict[str, str] = {}
    for shift in shifts:
        found = {module: name for module in wanted if (name := _weight_of(shift(module), names))}
        if len(found) > len(best):
            best = found
        if len(best) == len(wanted):
            break
    return best


def _weight_of(module: str, names: Collection[str]) -> str | None:
    # an attention block of torch keeps query, key and value in one parameter of its own
    return next((n for n in (f"{module}.weight", f"{module}.in_proj_weight") if n in names), None)


def change_tensors(
    adapter: PeftTensors, config: AdapterConfig, names: Collection[str], source: Source, where: str
) -> dict[str, LazyTensor]:
    """The tensors that the adapter changes or adds, lazily.

    Args:
        adapter: its tensors.
        config: its options.
        names: every name of the base, aliases of tied tensors included.
        source: the base's tensor of a name.
        where: the adapter, for messages.

    Raises:
        InputError: tensors that match nothing in the base, or whose shapes don't fit; all at once.
    """
    matched = match_names(adapter.parts, names)
    plain = _match_replaced(adapter.replaced, matched, names)
    lost = [key for module in adapter.parts if module not in matched for key in adapter.file_names[module]]
    lost += [key for name in adapter.replaced if name not in plain and not config.saved(name)
             for key in adapter.file_names[name]]  # fmt: skip
    problems: list[InputError] = []
    if lost:
        hint = "is this the adapter's base? its adapter_config.json names it"
        problems.append(InputError(f"{some(lost)} match nothing in the base", where=where, hint=hint))
    changed: dict[str, LazyTensor] = {}
    for name, tensor in adapter.replaced.items():
        target = plain.get(name)
        if target is None:
            changed[name] = renamed(tensor, name)
        elif tensor.shape == source(target).shape:
            changed[target] = renamed(tensor, target, source(target).dtype)
        else:
            problems.append(_shape_error(where, adapter.file_names[name][0], tensor.shape, source(target)))
    votes = _orientations(adapter, matched, source)
    for module, target in matched.items():
        part = _Module(module, adapter.parts[module], config, votes, where)
        result = part.attempt(target, lambda name: changed.get(name) or source(name), names)
        if isinstance(result, InputError):
            problems.append(result)
        else:
            changed.update((tensor.name, tensor) for tensor in result)
    raise_all(problems)
    return changed


def _match_replaced(
    replaced: Mapping[str, LazyTensor], matched: Mapping[str, str], names: Collection[str]
) -> dict[str, str]:
    """Whole tensors by name, shifted as the modules were."""
    shift = next(((m, w) for m, w in matched.items() if w.rpartition(".")[0] != m), None)
    found: dict[str, str] = {}
    for name in replaced:
        options = [name]
        if shift is not None:
            module, weight = shift
            head = weight.rpartition(".")[0].removesuffix(module)
            options.append(f"{head}{name}" if head != weight.rpartition(".")[0] else name.partition(".")[2])
        elif not matched:
            options += [f"{head}.{name}" for head in dict.fromkeys(n.split(".", 1)[0] for n in names)]
        target = next((option for option in options if option in names), None)
        if target is not None:
            found[name] = target
    return found


def _orientations(adapter: PeftTensors, matched: Mapping[str, str], source: Source) -> dict[str, bool]:
    """Module → whether its weight is stored as `(in, out)`, where its shape alone tells."""
    votes: dict[str, bool] = {}
    for module, target in matched.items():
        roles, shape = adapter.parts[module], source(target).shape
        if "lora_A" in roles and "lora_B" in roles and len(shape) == 2 and shape[0] != shape[1]:
            straight = (roles["lora_B"].shape[0], numel(roles["lora_A"].shape[1:]))
            if shape in (straight, straight[::-1]):
                votes[module] = shape != straight
    return votes


def _shape_error(where: str, key: str, shape: Shape, target: LazyTensor) -> InputError:
    what = f"`{key}` is {list(shape)}, and `{target.name}` in the base is {list(target.shape)}"
    return InputError(f"{what}: they don't fit together", where=where)


@dataclass(frozen=True)
class _Module:
    """One module's part of an adapter."""

    module: str
    roles: Mapping[str, LazyTensor]
    config: AdapterConfig
    votes: Mapping[str, bool]
    where: str

    def attempt(self, target: str, source: Source, names: Collection[str]) -> list[LazyTensor] | InputError:
        """What `apply` gives, or what is wrong, so that all modules' problems can be told together."""
        try:
            return self.apply(target, source, names)
        except InputError as error:
            return error

    def apply(self, target: str, source: Source, names: Collection[str]) -> list[LazyTensor]:
        """The base's weight (and bias) with this part applied."""
        base = source(target)
        if not base.dtype.is_floating_point:
            raise InputError(f"`{target}` is {base.dtype}, and an adapter needs floats", where=self.where)
        if "trainable_tokens_delta" in self.roles:
            return [self._rows(base, self.roles["trainable_tokens_delta"])]
        factors, by_column = self._factors(base)
        magnitude = self.roles.get("lora_magnitude_vector")
        if self.config.use_dora and magnitude is None:
            raise self._error("`use_dora` is set, and there is no lora_magnitude_vector")
        if magnitude is not None and numel(magnitude.shape) != factors.shape[int(by_column)]:
            raise _shape_error(self.where, f"{self.module}.lora_magnitude_vector", magnitude.shape, base)
        out: list[LazyTensor] = [LowRankTensor(base, factors, magnitude, by_column)]
        extra = self.roles.get("lora_B.bias")
        if extra is not None:
            bias = f"{target.rpartition('.')[0]}.bias"
            if bias not in names:
                raise self._error(f"it has a bias, and the base has no `{bias}` to add it to")
            if source(bias).shape != extra.shape:
                raise _shape_error(self.where, f"{self.module}.lora_B.bias", extra.shape, source(bias))
            out.append(with_bias(source(bias), extra, factors.scale))
        return out

    def _factors(self, base: LazyTensor) -> tuple[Factors, bool]:
        """The change as a matrix of the base's shape, and whether outputs are its columns."""
        embedding = "lora_embedding_A" in self.roles or "lora_embedding_B" in self.roles
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
        missing = [name for name in names if name not in self.roles]
        if missing:
            raise self._error(f"{some(missing)} is missing beside its partner")
        a, b = (self.roles[name] for name in names)
        if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[0] != b.shape[1]:
            raise self._error(f"lora_A is {list(a.shape)} and lora_B is {list(b.shape)}: their ranks differ")
        if a.shape[0] != self.config.rank(self.module):
            expected = self.config.rank(self.module)
            raise self._error(f"its factors have rank {a.shape[0]}, and adapter_config.json says {expected}")
        transposed = embedding or self._transposed(base.shape)
        left, right = (a, b) if transposed else (b, a)
        factors = Factors(left, right, transposed, self.config.scale(self.module))
        inner = numel(b.shape[2:]) == 1 and (len(a.shape) == 2 or a.shape[1:] == base.shape[1:])
        if not base.shape or factors.shape != (base.shape[0], numel(base.shape[1:])) or not inner:
            raise _shape_error(self.where, f"{self.module}: lora_B @ lora_A", factors.shape, base)
        return factors, transposed

    def _transposed(self, shape: Shape) -> bool:
        """Whether the weight is stored as `(in, out)`.

        `fan_in_fan_out` is one flag for all modules, and PEFT itself corrects it module by module; so
        the shape decides, for a square weight the shapes of the modules nearest to it, then the flag.
        """
        if len(shape) != 2:
            return False
        if self.module in self.votes:
            return self.votes[self.module]
        if shape[0] == shape[1]:
            parent = self.module
            while parent:
                parent = parent.rpartition(".")[0]
                near = {vote for module, vote in self.votes.items() if module.startswith(f"{parent}.")}
                if len(near) == 1:
                    return near.pop()
                if near:
                    break
        return self.config.fan_in_fan_out

    def _rows(self, base: LazyTensor, values: LazyTensor) -> LazyTensor:
        """The base with the trained tokens' rows."""
        indices = self.config.trainable_token_indices
        rows = next(
            (r for name, r in indices.items() if f".{self.module}".endswith(f".{name}")), indices.get("")
        )
        if rows is None:
            raise self._error("its trainable tokens are not listed in `trainable_token_indices`")
        if len(base.shape) != 2 or values.shape != (len(rows), base.shape[1]):
            raise _shape_error(self.where, f"{self.module}.trainable_tokens_delta", values.shape, base)
        bad = [row for row in rows if not isinstance(row, int) or not 0 <= row < base.shape[0]]
        if bad:
            raise self._error(f"token {bad[0]!r} is not one of the base's {base.shape[0]}")
        return RowsReplaced(base, rows, values)

    def _error(self, what: str) -> InputError:
        return InputError(f"module `{self.module}`: {what}", where=self.where)
