"""A language model with its tokenizer, as transformers loads them from a folder; never code from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.checkpoint import Checkpoint, load_into, open_model
from plait.errors import InputError, MissingExtra
from plait.tasks._network import at_rest

_FEW = 3
#: Files of tokenizers; without any, transformers may make one up.
_TOKENIZERS = ("*token*", "vocab*", "*.model", "tekken*")


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model.

    Args:
        name: as the user wrote it.
        network: of transformers, at rest.
        tokenizer: its.
        unused: names of tensors in its files that transformers does not load.
    """

    name: str
    network: Any
    tokenizer: Any
    unused: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many tokens it has an embedding for."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def context(self) -> int | None:
        """The longest text in tokens; None if its config does not say."""
        config = self.network.config.get_text_config()
        found = getattr(config, "max_position_embeddings", None)
        return found if isinstance(found, int) and found > 0 else None

    def check_ids(self, ids: Sequence[int], what: str) -> None:
        """Nothing, if the model has an embedding for each of some tokens.

        Raises:
            InputError: it has none; `what` says whose they are.
        """
        beyond = max(ids, default=0)
        if beyond >= self.rows:
            token = self.tokenizer.convert_ids_to_tokens(beyond)
            told = f"{what} has the token `{token}`, number {beyond}, and the model has {self.rows} rows"
            hint = "merge with `tokenizer: union`, or give the model the tokenizer that it was trained with"
            raise InputError(told, where=self.name, hint=hint)


def load_language_model(reference: str | Path, device: torch.device | str = "cpu") -> LanguageModel:
    """A model's folder, or an adapter over its base (`BASE+ADAPTER`, or the adapter's folder alone).

    Args:
        reference: of a model, as everywhere in plait; it must have a config and a tokenizer.
        device: where to compute.

    Raises:
        MissingExtra: transformers is not installed.
        InputError: there is no such folder; no tokenizer; its config or files are broken; it is no causal
            language model; weights are missing, or hold NaN or infinities.
    """
    transformers = _transformers()
    name = str(reference)
    checkpoint = open_model(reference)
    folder = checkpoint.folder
    if folder is None or not (folder / "config.json").is_file():
        hint = "give a folder with config.json, weights and a tokenizer, such as `plait merge` writes"
        raise InputError("there is no config that says what model this is", where=name, hint=hint)
    with _quiet(transformers):
        network, unused = _network(transformers, folder, name)
        if checkpoint.adapter is not None:
            network = load_into(network, checkpoint)
        tokenizer = _tokenizer(transformers, checkpoint, folder, name)
    _check_numbers(network, name)
    network = network.to(device).eval()
    _check_causal(network, name)
    return LanguageModel(name, network, tokenizer, unused)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "trying a language model") from error
    return transformers


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """transformers without its bars and reports: what is wrong is told as an error."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _loaded(make: Callable[..., Any], folder: Path, what: str, where: str, hint: str, **options: Any) -> Any:
    """What transformers makes of a folder, from its files alone."""
    try:
        return make(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # whatever a folder's files make transformers raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise InputError(f"{what} can't be loaded: {lines[0][:300]}", where=where, hint=hint) from error


def _network(transformers: Any, folder: Path, where: str) -> tuple[nn.Module, tuple[str, ...]]:
    hint = "`plait inspect` lists what the folder holds; only causal language models complete text"
    make = transformers.AutoModelForCausalLM.from_pretrained
    options = {"dtype": "auto", "output_loading_info": True}
    network, told = _loaded(make, folder, "the model", where, hint, **options)
    missing: list[str] = sorted(told.get("missing_keys") or ())
    if missing:
        what = f"weights that a {type(network).__name__} needs are not there: {_few(missing)}"
        raise InputError(what, where=where, hint="such a model would answer by chance")
    return network, tuple(sorted(told.get("unexpected_keys") or ()))


def _tokenizer(transformers: Any, checkpoint: Checkpoint, folder: Path, where: str) -> Any:
    """The adapter's own tokenizer if it has one, else the model's."""
    own = checkpoint.adapter
    place = own if own is not None and (own / "tokenizer_config.json").is_file() else folder
    if not any(path for pattern in _TOKENIZERS for path in place.glob(pattern)):
        hint = "copy the tokenizer's files of the model that it was made from into the folder"
        raise InputError("there is no tokenizer", where=where, hint=hint)
    hint = "copy the tokenizer's files anew from the model that it was made from"
    return _loaded(transformers.AutoTokenizer.from_pretrained, place, "its tokenizer", where, hint)


def _check_numbers(network: nn.Module, where: str) -> None:
    broken = [
        name
        for name, parameter in network.named_parameters()
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all())
    ]
    if broken:
        hint = "merge again from sound models; `plait diff` shows which tensors differ from a base's"
        raise InputError(f"weights hold NaN or infinities: {_few(broken)}", where=where, hint=hint)


def _check_causal(network: nn.Module, where: str) -> None:
    """Nothing, if what comes later does not change what is said of earlier tokens."""
    device = next(network.parameters()).device
    first = torch.tensor([[0, 1, 0, 1]], device=device)
    second = torch.tensor([[0, 1, 0, 0]], device=device)
    try:
        with at_rest(network):
            one, two = (network(input_ids=ids).logits[0, :-1].float() for ids in (first, second))
    except Exception as error:  # whatever a network that wants more than tokens raises
        reason = str(error).strip().partition("\n")[0]
        what = f"a {type(network).__name__} does not take text alone: {reason}"
        raise InputError(what, where=where, hint="give a causal language model") from error
    if not torch.allclose(one, two, rtol=1e-2, atol=1e-2 * float(one.abs().max())):
        what = f"a {type(network).__name__} looks at what comes later: it is no causal language model"
        raise InputError(what, where=where, hint="models that fill in masked words complete no text")


def _few(names: Sequence[str]) -> str:
    told = ", ".join(f"`{name}`" for name in names[:_FEW])
    return told + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
