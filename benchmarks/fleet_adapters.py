"""LoRA members on one base: a step of the adapters' backend beside the loop over PEFT models, in one run.

    python benchmarks/fleet_adapters.py FOLDER [--members 8] [--tokens 32 128] [--rows 1] [--threads 2]

FOLDER holds a transformers model: a causal one is trained on next tokens, an encoder on classes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.fleet import Member
from plait.fleet._adapters import Adapters
from plait.fleet._sequential import Sequential
from plait.fleet._trainee import Trainee
from plait.tasks import ByKeywords, MeanPooled, NextToken, Ragged, Task, perplexity

_EXAMPLES = 64


def task(base: Any, seed: int, tokens: int) -> Task:
    """Made-up tokens, which cost what real ones do: the next of them, or a class for an encoder."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(10, base.config.vocab_size, (_EXAMPLES, tokens)).tolist()
    sequences = {"input_ids": ids, "attention_mask": [[1] * tokens] * _EXAMPLES}
    if base.get_output_embeddings() is not None:
        examples = Ragged({**sequences, "labels": ids}, padding={"labels": -100})
        return Task(f"t{seed}", {"train": examples}, loss=NextToken(), metric=perplexity(), meet=ByKeywords())
    labels = torch.from_numpy(generator.integers(0, 4, _EXAMPLES))
    head = nn.Linear(base.config.hidden_size, 4)
    return Task(f"t{seed}", {"train": Ragged(sequences, {"label": labels})}, head=head, meet=MeanPooled())


def measure(
    base: Any, *, members: int, tokens: int, rows: int = 1, threads: int = 2, rounds: int = 5
) -> dict[str, float]:
    """Seconds of a step of all members either way, the least of some rounds that take turns.

    Args:
        base: a transformers model, in memory once.
        members: each with rank 8 on every linear layer.
        tokens: in a row of a member's batch.
        rows: in that batch.
        threads: of this process.
        rounds: after one to warm up.

    Returns:
        `adapters`, `sequential` (seconds) and `gain`.
    """
    from peft import LoraConfig

    torch.set_num_threads(threads)
    settings = [
        Member(name=f"m{seed}", task=task(base, seed, tokens), steps=100, lr=1e-4 * (seed + 1), seed=seed,
               batch_size=rows, lora=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
        for seed in range(members)
    ]  # fmt: skip
    trainees = [Trainee(m, m.task, base, 100) for m in settings]  # type: ignore[arg-type]
    states = [t.initial() for t in trainees]
    backends: list[Any] = [
        Adapters(trainees, states, torch.device("cpu"), threads),
        Sequential(trainees, states, torch.device("cpu")),
    ]
    best = {backend.name: float("inf") for backend in backends}
    for number in range(rounds + 1):
        for backend in backends:
            started = time.perf_counter()
            backend.step()
            if number:
                best[backend.name] = min(best[backend.name], time.perf_counter() - started)
    return best | {"gain": best["sequential"] / best["adapters"]}


def main() -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    causal = "CausalLM" in (AutoConfig.from_pretrained(given.folder).architectures or [""])[0]
    kind = AutoModelForCausalLM if causal else AutoModel
    base = kind.from_pretrained(given.folder, dtype=torch.float32)
    for tokens in given.tokens:
        found = measure(base, members=given.members, tokens=tokens, rows=given.rows, threads=given.threads,
                        rounds=given.rounds)  # fmt: skip
        shape = f"{given.members} members, {given.rows} × {tokens} tokens each"
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(f"{shape}: {told}", flush=True)


if __name__ == "__main__":
    main()
