"""Language models tried side by side: what they write, how well they read, what their tokenizers lose."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from plait.checkpoint import open_model
from plait.errors import InputError, counted, noted, raise_all
from plait.numerics import usable_device
from plait.tasks._language_model import LanguageModel, load_language_model
from plait.tasks._network import at_rest
from plait.tasks._passages import Fit, default_text, fit_of, read_text
from plait.tasks._round_trip import RoundTrip, round_trip, text_of

PROMPTS = ("The capital of France is", "def add(a, b):", "Once upon a time")
_PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Tried:
    """What one model did.

    Args:
        model: its name.
        architecture: its class in transformers.
        parameters: how many it has.
        completions: what it wrote after each prompt, without special tokens.
        fit: how well it predicts the text.
        tokenizer: what was found of its tokenizer.
        unused: names of tensors in its files that transformers does not load.
    """

    model: str
    architecture: str
    parameters: int
    completions: tuple[str, ...]
    fit: Fit
    tokenizer: RoundTrip
    unused: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in sentences."""
        found = self.tokenizer.problems
        if self.fit.unknown:
            known = self.fit.tokens - self.fit.unknown
            told = f"its tokenizer knows {known} of the text's {self.fit.tokens} tokens"
            found.append(f"{told}, so perplexity and bits per byte are not those of the text")
        if self.unused:
            told = f"{counted(len(self.unused), 'tensor')} of its files are in no part of the model"
            found.append(f"{told}, such as `{self.unused[0]}`")
        return found


@dataclass(frozen=True)
class Trial:
    """Models side by side.

    Args:
        prompts: what was completed.
        tokens: the most that a completion has.
        text: what perplexity was measured on.
        tried: the models.
    """

    prompts: tuple[str, ...]
    tokens: int
    text: str
    tried: tuple[Tried, ...]

    @property
    def same_tokens(self) -> bool:
        """Whether all models predict as many tokens for as many bytes, so that perplexities compare."""
        return len({(each.fit.tokens, each.fit.size) for each in self.tried}) == 1

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        models = [{**asdict(each), "problems": each.problems} for each in self.tried]
        return {"text": self.text, "prompts": list(self.prompts), "tokens": self.tokens, "models": models}


def try_models(
    models: _PathLike | Sequence[_PathLike],
    *,
    prompts: Sequence[str] = PROMPTS,
    tokens: int = 24,
    text: str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Trial:
    """Let language models complete prompts and read a text, and try their tokenizers.

    Models are loaded one after the other, by transformers, in the type that they are stored in.

    Args:
        models: folders of causal language models, hub ids, or adapters (`BASE+ADAPTER`, or the adapter's
            folder); one or several.
        prompts: completed greedily.
        tokens: the most that a completion gets.
        text: a text file to measure on; two chapters of Python's reference if None.
        device: where to compute.

    Raises:
        MissingExtra: transformers is not installed.
        InputError: no model, an empty prompt; a folder that is no sound causal language model with its
            tokenizer; a prompt that the model has no room or no embedding for.
    """
    several = [models] if isinstance(models, str | os.PathLike) else list(models)
    if not several:
        raise InputError("there is no model to try", hint="give a folder")
    _check(prompts, tokens)
    name, content = default_text() if text is None else (str(text), read_text(text))
    place = usable_device(device)
    _check_there([os.fspath(model) for model in several])
    tried = tuple(_one(os.fspath(model), prompts, tokens, content, place) for model in several)
    return Trial(tuple(prompts), tokens, name, tried)


def _check(prompts: Sequence[str], tokens: int) -> None:
    if isinstance(prompts, str) or not prompts:
        raise InputError(f"`prompts` are {prompts!r}", hint='give a list of texts, such as ["Once upon"]')
    for prompt in prompts:
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError(f"the prompt {prompt!r} is empty", hint="give the beginning of a text")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise InputError(f"`tokens` is {tokens!r}", hint="it is a whole number from 1 on")


def _check_there(references: Sequence[str]) -> None:
    """Nothing if all models can be opened; before the first is loaded, which takes its time."""
    problems: list[InputError] = []
    for reference in references:
        with noted(problems):
            _check_no_study(Path(reference))
            open_model(reference)
    raise_all(problems)


def _check_no_study(folder: Path) -> None:
    if (folder / "study.json").is_file() and (folder / "steps").is_dir():
        made = [str(place) for place in sorted(folder.glob("steps/*/model"))]
        such = f", such as {made[0]}" if made else "; there is none yet"
        hint = f"try the model of one of its ways: {folder / 'steps' / 'WAY-…' / 'model'}{such}"
        raise InputError("this is the folder of a study, not of a model", where=str(folder), hint=hint)


def _one(reference: str, prompts: Sequence[str], tokens: int, text: str, device: torch.device) -> Tried:
    model = load_language_model(reference, device)
    prepared = [_prepared(model, prompt, tokens) for prompt in prompts]
    return Tried(
        model=reference,
        architecture=type(model.network).__name__,
        parameters=model.network.num_parameters(),
        completions=tuple(_completed(model, each, tokens) for each in prepared),
        fit=fit_of(model, text),
        tokenizer=round_trip(model.tokenizer, model.rows),
        unused=model.unused,
    )


def _prepared(model: LanguageModel, prompt: str, tokens: int) -> Mapping[str, torch.Tensor]:
    """A prompt as the model's tokenizer gives it."""
    found = model.tokenizer(prompt, return_tensors="pt")
    ids = found["input_ids"][0].tolist()
    if not ids:
        raise InputError(f"its tokenizer makes no token of the prompt {prompt!r}", where=model.name)
    model.check_ids(ids, f"the prompt {prompt!r}")
    if model.context is not None and len(ids) + tokens > model.context:
        what = f"the prompt {prompt!r} has {len(ids)} tokens; {tokens} more do not fit its {model.context}"
        raise InputError(what, where=model.name, hint="ask for fewer tokens, or give a shorter prompt")
    return {name: found[name].to(model.network.device) for name in ("input_ids", "attention_mask")}


def _completed(model: LanguageModel, prompt: Mapping[str, torch.Tensor], tokens: int) -> str:
    """The greedy completion, by transformers' own `generate`."""
    with at_rest(model.network):
        made = model.network.generate(**prompt, do_sample=False, num_beams=1, max_new_tokens=tokens)
    return text_of(model.tokenizer, made[0, prompt["input_ids"].shape[1] :].tolist(), special=False)
