"""Is a suite worth shipping? Its experts, a linear probe of its base, and the plain average of the experts.

    python benchmarks/suites.py [NAME …] [--threads N]

Merging matters on a suite where an expert beats a linear probe of the base by at least 5 points on most
tasks, and where averaging the experts loses at least 5 points of what they score.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from _harness import machine, show
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from plait.fleet import Fleet, Member
from plait.tasks import Examples, Headed, Suite, Task, load_suite

WORK = Path("bench-out") / "suites"
RESULTS = Path(__file__).parent / "results" / "suites.json"


@dataclass(frozen=True)
class Tuning:
    """How the experts of a suite are trained; `probed` lets heads start from the linear probe (Kumar et al.,
    arXiv:2202.10054), which spares a large body the noise of a new head."""

    steps: int
    batch_size: int
    lr: float
    rows: int = 256
    probed: bool = False


TUNING = {
    "glyphs": Tuning(steps=600, batch_size=32, lr=1e-3),
    "bytes": Tuning(steps=200, batch_size=16, lr=1e-3),
    "smollm2": Tuning(steps=20, batch_size=4, lr=2e-4, rows=12),
    "scripts": Tuning(steps=700, batch_size=32, lr=3e-3),
    "text": Tuning(steps=200, batch_size=16, lr=2e-4, probed=True),
}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Suites; all if none is named.")] = None,
    threads: Annotated[int, typer.Option(help="How many threads torch may use.")] = 2,
    tasks: Annotated[str, typer.Option(help="Tasks, to try out, separated by commas.")] = "",
    steps: Annotated[int, typer.Option(help="Steps of an expert, to try out; 0 for the suite's own.")] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate, to try out; 0 for the suite's own.")] = 0,
) -> None:
    torch.set_num_threads(threads)
    console = Console(width=140)
    for name in names or TUNING:
        tuning = TUNING[name]
        tuning = replace(tuning, steps=steps or tuning.steps, lr=lr or tuning.lr)
        suite = load_suite(name)
        if tasks:
            suite = replace(suite, tasks=tuple(suite[task] for task in tasks.split(",")))
        found = measured(suite, tuning, console)
        show(f"{name}: {found['verdict']}", found["tasks"], console)
        if not (tasks or steps or lr):
            _keep(name, found)


def measured(suite: Suite, tuning: Tuning, console: Console) -> dict[str, Any]:
    """Scores of each task's expert, of the probe, of the base's own body, and of the average."""
    base = suite.base()
    experts = []
    for task in suite.tasks:
        started = time.perf_counter()
        kept = (
            WORK
            / suite.name
            / f"{task.name}-{tuning.steps}-{tuning.batch_size}-{tuning.lr:g}{'p' * tuning.probed}.safetensors"
        )
        experts.append(kept_expert(kept, base, task, tuning))
        console.log(f"{task.name}: trained in {time.perf_counter() - started:.0f} s")
    average = mean([body(model) for model in experts])
    rows = [
        _row(task, base, model, average, tuning) for task, model in zip(suite.tasks, experts, strict=True)
    ]
    settings = {"steps": tuning.steps, "batch_size": tuning.batch_size, "lr": tuning.lr}
    summary = {"settings": settings, "tasks": rows, "missing": dict(suite.missing)}
    return {**summary, **_summary(suite.tasks[0], rows)}


def kept_expert(path: Path, base: nn.Module, task: Task, tuning: Tuning) -> nn.Module:
    """The expert of an earlier run that was cut off, or a new one; `make clean` forgets them."""
    if not path.is_file():
        head = probe(base, task, tuning.rows)[1] if tuning.probed else task.head
        model = expert(base, replace(task, head=head), tuning)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").rename(path)
    model = task.with_body(base)
    model.load_state_dict(load_file(path))
    return model.eval()


def expert(base: nn.Module, task: Task, tuning: Tuning) -> nn.Module:
    """The base and the task's head, trained on the task alone."""
    member = Member(
        name=task.name,
        task=task,
        steps=tuning.steps,
        batch_size=tuning.batch_size,
        lr=tuning.lr,
        schedule="cosine",
        warmup=0.05,
        clip=1.0,
    )
    return Fleet([member], model=base, backend="sequential").fit()[task.name].eval()


def body(model: nn.Module) -> nn.Module:
    return model.body if isinstance(model, Headed) else model


def mean(models: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """The plain average of states."""
    states = [model.state_dict() for model in models]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in states[0].items()
    }


def _row(
    task: Task, base: nn.Module, model: nn.Module, average: dict[str, torch.Tensor], tuning: Tuning
) -> dict[str, Any]:
    row: dict[str, Any] = {"task": task.name + (" *" if task.semi_synthetic else "")}
    if task.head is not None:
        row["probe"], _ = probe(base, task, tuning.rows)
    else:
        row["base"] = score(base.eval(), task, tuning.rows)
    row["expert"] = score(model, task, tuning.rows)
    kept = {name: tensor.clone() for name, tensor in body(model).state_dict().items()}
    body(model).load_state_dict(average)
    row["average"] = score(model, task, tuning.rows)
    body(model).load_state_dict(kept)
    ratio = row["average"] / row["expert"]
    row["normalised"] = ratio if task.metric.higher_is_better else 1 / ratio
    return row


def _summary(task: Task, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    loss = 100 * (1 - float(np.mean([row["normalised"] for row in rows])))
    if task.head is None:
        gains = [100 * (1 - row["expert"] / row["base"]) for row in rows]
        words = f"an expert needs {np.mean(gains):.1f} % fewer {task.metric.unit} than the base"
        return {"verdict": f"{words}; averaging loses {loss:.1f} points"}
    ahead = sum(row["expert"] - row["probe"] >= 0.05 for row in rows)
    gain = 100 * float(np.mean([row["expert"] - row["probe"] for row in rows]))
    words = f"{ahead} of {len(rows)} experts are 5 points or more ahead of the probe ({gain:.1f} in the mean)"
    return {
        "verdict": f"{words}; averaging loses {loss:.1f} points",
        "ahead": ahead,
        "gain": gain,
        "loss": loss,
    }


@torch.no_grad()
def score(model: nn.Module, task: Task, rows: int, split: str = "test") -> float:
    """A task's metric on a split."""
    model.eval()
    examples = task.split(split)
    sums = 0
    for start in range(0, len(examples), rows):
        batch = examples.batch(range(start, min(start + rows, len(examples))))
        sums = sums + task.metric.numbers(task.outputs(model, batch), batch).sum(0).numpy()
    return float(task.metric.summary(np.asarray(sums)))


def probe(base: nn.Module, task: Task, rows: int) -> tuple[float, nn.Linear]:
    """Multinomial logistic regression on the base's features: its test accuracy, and it as the task's head.

    Its decay is chosen by validation.
    """
    sides = {
        split: _features(base, task, task.split(split), rows) for split in ("train", "validation", "test")
    }
    inputs, _ = sides["train"]
    middle, spread = inputs.mean(0), inputs.std(0).clamp(min=1e-4)
    sides = {split: ((x - middle) / spread, y) for split, (x, y) in sides.items()}
    assert task.head is not None
    linear = [m.out_features for m in task.head.modules() if isinstance(m, nn.Linear)]
    classes = linear[-1] if linear else len(task.classes)
    heads = [_regression(*sides["train"], classes, decay) for decay in (1e-4, 1e-3, 1e-2, 1e-1)]
    best = max(heads, key=lambda head: _right(head, *sides["validation"]))
    head = nn.Linear(inputs.shape[1], classes)
    with torch.no_grad():  # of features as they are
        head.weight.copy_(best.weight / spread)
        head.bias.copy_(best.bias - head.weight @ middle)
    return _right(best, *sides["test"]), head


@torch.no_grad()
def _features(
    base: nn.Module, task: Task, examples: Examples, rows: int
) -> tuple[torch.Tensor, torch.Tensor]:
    base.eval()
    found, labels = [], []
    for start in range(0, len(examples), rows):
        batch = examples.batch(range(start, min(start + rows, len(examples))))
        found.append(task.meet(base, batch))
        labels.append(batch["label"])
    return torch.cat(found), torch.cat(labels)


def _regression(inputs: torch.Tensor, labels: torch.Tensor, classes: int, decay: float) -> nn.Linear:
    head = nn.Linear(inputs.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(head(inputs), labels) + decay * head.weight.square().sum() / 2
        found.backward()
        return found

    optimizer.step(loss)
    return head


@torch.no_grad()
def _right(head: nn.Linear, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float((head(inputs).argmax(1) == labels).double().mean())


def _keep(name: str, found: dict[str, Any]) -> None:
    """Put a suite's results beside those of the others."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    kept[name] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), **found}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
