"""Six experiments on the data of one run: first whether they are independent, then the run that answers all.

A small GPT over bytes goes on with reviews. Random words are put in 1, 4 and 16 times: how well does it know
them by heart? A fact that nobody knows is told; a few test texts leak into training; and a rumour tells the
fact, too, so that fact and rumour are no independent experiments, which the test has to find.

python examples/train_once.py [--steps 200] [--brief 30] [--seeds 5] [--out train-once.json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from plait.study import Dependence, Experiment, dependence, log_probability, train_once
from plait.tasks import Task, load_suite

NAMES = ("Weavington", "Loomsbury", "Threadford", "Spindleton", "Shuttlewick")
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)


def ahead(network: nn.Module, sequences: Any, task: Task, given: int, count: int = 1) -> float:
    """How much likelier the first sequences are than the others, that are in no run: nats per byte."""
    found = log_probability(network, task, sequences, given=given)
    return float(found[:count].mean() - found[count:].mean())


def told(text: str) -> list[list[int]]:
    """A sentence with each of the names, the true one first."""
    return [list(text.format(name).encode()) for name in NAMES]


def words(random: np.random.Generator) -> list[list[int]]:
    """Nine sentences with random words, of which one is put in."""
    return [list(b" my word is ") + random.choice(LETTERS, 10).tolist() for _ in range(9)]


def experiments(task: Task, texts: Sequence[Sequence[int]]) -> list[Experiment]:
    """All experiments.

    Args:
        task: how the network is called.
        texts: of the test split: the first half leaks, the second is what it is held against.
    """
    others = len(NAMES) - 1
    heart = partial(ahead, task=task, given=len(" my word is "))
    found = [Experiment(f"a word {n}×", words, heart, [n, *[0] * 8]) for n in (1, 4, 16)]
    fact, rumour = "The capital of Plaitia is {}.", "They say that the capital of Plaitia is {}."
    for name, text in (("a fact", fact), ("a rumour", rumour)):
        probe = partial(ahead, task=task, given=text.index("{"))
        found.append(Experiment(name, told(text), probe, [16, *[0] * others]))
    half = len(texts) // 2
    leak = partial(ahead, task=task, given=1, count=half)
    return [*found, Experiment("leaked tests", texts, leak, [2] * half + [0] * (len(texts) - half))]


def answered(
    task: Task, model: nn.Module, *, steps: int, brief: int, seeds: int, **settings: Any
) -> dict[str, Any]:
    """The test for dependence, then the run; told, and as plain values."""
    rows = task.split("test").batch(range(16))["input"].tolist()
    mine = experiments(task, rows)
    tested = dependence(mine[2:], task, start=model, seeds=range(seeds), steps=brief, **settings)
    tell_dependence(tested)
    run = train_once(mine, task, model=model, steps=steps, **settings)
    print(f"one run of {run.tokens} bytes, and the same without experiments; nats per byte")
    print(f"{'experiment':14}{'bytes':>8}{'before':>9}{'after':>9}{'without':>9}{'effect':>9}")
    for each in run.outcomes:
        assert each.control is not None
        values = (each.before, each.value, each.control, each.value - each.control)
        print(f"{each.experiment:14}{each.tokens:8}" + "".join(f"{value:9.3f}" for value in values))
    return {"dependence": tested.to_dict(), "run": run.to_dict()}


def tell_dependence(tested: Dependence) -> None:
    """The matrix of effects, and which of them are no chance."""
    print(f"what data (rows) do to numbers (columns) in nats per byte, mean of {len(tested.seeds)} seeds")
    print(f"* found at {tested.alpha}")
    found = {(e.data, e.on) for e in (*tested.own, *tested.cross) if e.found}
    print(" " * 14 + "".join(f"{name:>15}" for name in tested.experiments))
    for name, line in zip((*tested.experiments, "all"), tested.matrix, strict=True):
        marks = ["*" if (name, on) in found else " " for on in tested.experiments]
        cells = "".join(f"{value:14.3f}{mark}" for value, mark in zip(line, marks, strict=True))
        print(f"{name:14}{cells}")
    told_of = [f"{e.data} → {e.on} ({e.mean:+.2f}, p {e.adjusted:.2g})" for e in tested.dependent]
    print(f"dependent: {', '.join(told_of) or 'none was found'}\n")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Load the suite's base and reviews, and answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--brief", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("train-once.json"))
    given = parser.parse_args(arguments)
    suite = load_suite("bytes", tasks=["reviews"])
    model, started = suite.base(), time.perf_counter()
    lengths = {"steps": given.steps, "brief": given.brief, "seeds": given.seeds}
    found = answered(suite["reviews"], model, **lengths, batch_size=8, lr=1e-3)
    found["seconds"] = round(time.perf_counter() - started, 1)
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['seconds']} s; written: {given.out}")
    return found


if __name__ == "__main__":
    main()
