"""Eight LoRA adapters on SmolLM2-135M, trained at once on one base in memory.

    python examples/fleet_adapters.py OUT [--steps 40] [--members 8]

Each member reads the sources of another part of Python's standard library; the model comes out of a package.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from plait import Fleet, Member, Task
from plait.tasks import language_task
from plait.tasks.suites.smollm2 import model_folder

PARTS = ("email", "json", "asyncio", "unittest", "logging", "http", "importlib", "xml")


def sources(part: str) -> dict[str, list[dict[str, str]]]:
    """Documents of a part of the standard library: every fourth file is for validation."""
    files = sorted((Path(sysconfig.get_path("stdlib")) / part).rglob("*.py"))
    texts = [text for file in files if len(text := file.read_text(encoding="utf-8", errors="ignore")) > 400]
    rows = [{"text": text[:4000]} for text in texts]
    return {"train": [r for i, r in enumerate(rows) if i % 4], "validation": rows[::4]}


def fleet(
    base: nn.Module, tokenizer: object, parts: tuple[str, ...], *, steps: int, length: int = 64
) -> Fleet:
    """A member for each part; ranks differ, to show that they may."""
    tasks: list[Task] = [language_task(p, sources(p), tokenizer, max_length=length) for p in parts]
    members = [
        Member(
            name=task.name,
            task=task,
            steps=steps,
            batch_size=1,
            lr=2e-4,
            schedule="cosine",
            warmup=0.1,
            clip=1.0,
            seed=place,
            lora=LoraConfig(r=4 + 4 * (place % 2), lora_alpha=16, target_modules="all-linear"),
        )
        for place, task in enumerate(tasks)
    ]
    return Fleet(members, model=base, backend="adapters")


def main(arguments: list[str] | None = None) -> None:
    """Train, tell the losses, save PEFT folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--members", type=int, default=len(PARTS))
    given = parser.parse_args(arguments)
    folder = model_folder()
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trained = fleet(base, tokenizer, PARTS[: given.members], steps=given.steps).fit()
    for name in trained:
        values = [
            record["value"] for record in trained.history if record["member"] == name and "value" in record
        ]
        print(json.dumps({"member": name, "bits per byte": values[-1]}))
    for path in trained.save(given.out, base=str(folder)):
        print(path)


if __name__ == "__main__":
    main()
