"""When federated training is good enough, in simulated time: FedAST against rounds, MAS against one by one.

    python benchmarks/federated.py [--seeds N]

It runs the ways of `examples/studies/fedast.yaml` and `mas.yaml` with several seeds, and holds each way's
time until all tasks have reached their targets against that of the ways that wait.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from _harness import save, show
from rich.console import Console
from scipy import stats

from plait.study import load_study, run_study

HERE = Path(__file__).parent
STUDIES = HERE.parent / "examples" / "studies"
WORK = Path("bench-out") / "federated"
RESULTS = HERE / "results" / "federated.json"
#: Study → (way, the way that it is held against).
PAIRS = {
    "fedast": [
        ("FedAST", "rounds"),
        ("FedAST", "rounds of the first half"),
        ("FedAST", "one after another"),
    ],
    "mas": [("two groups", "one after another"), ("two groups", "all in one")],
}


def main(
    seeds: Annotated[int, typer.Option(help="How many seeds.")] = 3,
    only: Annotated[str, typer.Option(help="One study: fedast or mas.")] = "",
) -> None:
    torch.set_num_threads(1)
    console, found = Console(width=150), {}
    if RESULTS.is_file():
        found = json.loads(RESULTS.read_text(encoding="utf-8"))["studies"]
    for name in [only] if only else PAIRS:
        runs = simulated(name, list(range(seeds)), console)
        times = [row(way, each) for way, each in runs.items()]
        ratios = [ratio(runs, one, other) for one, other in PAIRS[name]]
        show(f"{name}: simulated time until a task's target, mean of {seeds} seeds", times, console)
        show(f"{name}: simulated time until all targets, one way's over another's", ratios, console)
        found[name] = {"seeds": seeds, "times": times, "ratios": ratios, "runs": runs}
    save(RESULTS, {"studies": found})


def simulated(name: str, seeds: list[int], console: Console) -> dict[str, list[dict[str, Any]]]:
    """Way → what its runs left, seed by seed; experts are not trained long, since nothing here needs them."""
    study = load_study(STUDIES / f"{name}.yaml")
    short = {**study.experts, "steps": 1}
    study = replace(study, seeds=tuple(seeds), experts=short, bootstrap=0, pictures=0, reference=None)
    out = WORK / name
    shutil.rmtree(out, ignore_errors=True)
    run = run_study(study, out, told=lambda done: console.log(f"{done.name}: {done.seconds:.0f} s"))
    folders = {done.name: out / done.folder for done in run.steps}
    return {way: [_left(folders[f"{way} @{seed}"]) for seed in seeds] for way in study.ways}


def _left(folder: Path) -> dict[str, Any]:
    told = json.loads((folder / "simulated.json").read_text(encoding="utf-8"))
    return {key: told[key] for key in ("reached", "end", "updates", "groups")}


def row(way: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A way's mean times; None where a target was not reached with every seed."""
    tasks = {task: [_number(run["reached"][task]) for run in runs] for task in runs[0]["reached"]}
    means = {task: _known(float(np.mean(times))) for task, times in tasks.items()}
    updates = float(np.mean([run["updates"] for run in runs]))
    return {"method": way, **means, "all": _known(float(np.mean(latest(runs)))), "updates": updates}


def latest(runs: Sequence[dict[str, Any]]) -> list[float]:
    """When the last task reached its target, for each run; NaN if one never did."""
    return [float(np.max([_number(time) for time in run["reached"].values()])) for run in runs]


def ratio(runs: dict[str, list[dict[str, Any]]], one: str, other: str) -> dict[str, Any]:
    """The geometric mean over seeds of one way's time over another's, with its 95 % t interval.

    None if one of them did not reach all targets with every seed.
    """
    logs = np.log(latest(runs[one])) - np.log(latest(runs[other]))
    middle, found = float(np.mean(logs)), {"method": one, "against": other}
    if math.isnan(middle):
        return {**found, "ratio": None, "low": None, "high": None, "seeds": len(logs)}
    if len(logs) < 2:
        return {**found, "ratio": math.exp(middle)}
    half = float(stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / math.sqrt(len(logs)))
    ends = {"low": math.exp(middle - half), "high": math.exp(middle + half)}
    return {**found, "ratio": math.exp(middle), **ends, "seeds": len(logs)}


def _number(time: float | None) -> float:
    return math.nan if time is None else time


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


if __name__ == "__main__":
    typer.run(main)
