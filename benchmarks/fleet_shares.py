"""Where does a step of stacked members spend its time?

    python benchmarks/fleet_shares.py [--network ViT] [--batch 8] [--members 16] [--steps 40]

A profile of steps, as shares: PyTorch's operators by kind, the optimizer's own kernels, and what is left
(above all Python). On a machine that has other work to do take several, as they differ by some per cent.
`share of peak` says how fast the matrix products are beside one large product.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from _harness import show
from rich.console import Console
from torch.profiler import ProfilerActivity, profile, record_function

from fleet import SIZES, stack
from plait.fleet._groups import Place, make

_OPTIMIZER = "plait::optimizer"
_KINDS = {
    "matrix products": ("bmm", "mm", "addmm", "baddbmm"),
    "GELU, layer norm, softmax": ("gelu", "native_layer_norm", "_softmax", "_log_softmax"),
    "sums, additions, products": ("add", "add_", "mul", "mul_", "sub", "sum", "div"),
    "copies": ("copy_", "cat", "clone", "_to_copy", "stack", "index_select", "gather", "fill_"),
}


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=list(SIZES), default="ViT")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    trainees = stack(given.network, given.batch, given.members)
    place = Place(torch.device("cpu"), torch.get_num_threads())
    backend: Any = make("stacked", trainees, [t.initial() for t in trainees], place)
    optimizer = backend.optimizer.step

    def recorded(*arguments: Any) -> Any:
        with record_function(_OPTIMIZER):
            return optimizer(*arguments)

    backend.optimizer.step = recorded
    for _ in range(5):
        backend.step()
    rows = shares(backend, given.steps)
    title = f"{given.network}, {given.members} members of {given.batch}, {place.threads} threads"
    show(title, rows, Console(width=140))


def shares(backend: Any, steps: int) -> list[dict[str, Any]]:
    """Each kind of work, and its share of all seconds of so many steps."""
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as found:
        started = time.perf_counter()
        for _ in range(steps):
            backend.step()
        whole = time.perf_counter() - started
    events = {event.key: event for event in found.key_averages()}
    seconds = dict.fromkeys([*_KINDS, "other operators", "optimizer"], 0.0)
    for key, event in events.items():
        seconds[_kind(key)] += event.self_cpu_time_total / 1e6
    rows = [{"method": kind, "share": value / whole} for kind, value in seconds.items()]
    rows.append({"method": "outside of operators", "share": 1 - sum(seconds.values()) / whole})
    products = sum(event.flops for key, event in events.items() if _kind(key) == "matrix products")
    if products:
        rows[0]["share of peak"] = products / seconds["matrix products"] / _peak()
    return rows


def _kind(key: str) -> str:
    if key == _OPTIMIZER:
        return "optimizer"
    name = key.removeprefix("aten::").removesuffix("_data").removesuffix("_backward")
    return next((kind for kind, names in _KINDS.items() if name in names), "other operators")


def _peak() -> float:
    """Operations a second of a large matrix product: the mean of many, beside other work as the step was."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    taken = []
    for _ in range(60):
        started = time.perf_counter()
        torch.mm(a, b)
        taken.append(time.perf_counter() - started)
    return 2 * 1024**3 * len(taken) / sum(taken)


if __name__ == "__main__":
    main()
