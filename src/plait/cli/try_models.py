"""`plait try MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli._show import print_json, print_table, printable, warn

if TYPE_CHECKING:
    from plait.tasks import Trial

#: Options that take all words up to the next option.
_SEVERAL = ("--against", "--prompt")


def try_models(
    model: Annotated[
        str, typer.Argument(help="A causal language model: a folder, hub id, base+adapter, adapter.")
    ],
    against: Annotated[
        list[str] | None, typer.Option(help="Models to show beside it; several may follow.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to complete; several may follow. Default: three.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most that a completion has.")] = 24,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file to measure perplexity on. Default: a part of Python's reference."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what language models write, how well they read, and what their tokenizers lose, side by side.

    Completions are greedy. Nothing is downloaded for folders, and no code out of them is run.
    """
    from plait.tasks import PROMPTS
    from plait.tasks import try_models as measured

    settings: dict[str, Any] = {"tokens": tokens, "text": text, "device": device}
    trial = measured([model, *(against or [])], prompts=prompt or PROMPTS, **settings)
    print_json(trial.to_dict()) if as_json else _show(trial)
    warn([f"{each.model}: {problem}" for each in trial.tried for problem in each.problems])


def repeated(words: list[str]) -> list[str]:
    """The words with an option before each of its values: `--against A B` as `--against A --against B`."""
    found: list[str] = []
    option, given = "", 0
    for word in words:
        name = word.partition("=")[0]
        if option and (given == 0 or not word.startswith("-")):
            found += [option, word] if given else [word]
            given += 1
            continue
        option, given = (name, int("=" in word)) if name in _SEVERAL else ("", 0)
        found.append(word)
    return found


def _show(trial: Trial) -> None:
    columns = ["model", "parameters", "perplexity", "bits per byte", "tokens", "vocabulary", "rows", "chat"]
    rows = [
        [
            each.model,
            f"{each.parameters:,}",
            each.fit.perplexity,
            each.fit.bits_per_byte,
            each.fit.tokens,
            each.tokenizer.vocabulary,
            each.tokenizer.rows,
            each.tokenizer.chat,
        ]
        for each in trial.tried
    ]
    print_table(f"reading {printable(trial.text)}", columns, rows)
    if not trial.same_tokens:
        print("tokenizers differ: compare bits per byte, not perplexities\n")
    beside = [
        [prompt, *(_line(each.completions[place]) for each in trial.tried)]
        for place, prompt in enumerate(trial.prompts)
    ]
    print_table(
        f"writing, {trial.tokens} tokens at most", ["prompt", *(e.model for e in trial.tried)], beside
    )


def _line(text: str) -> str:
    """A completion in one line."""
    return text.replace("\r", "").replace("\n", " ⏎ ")
