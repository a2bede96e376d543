"""How much memory does a merge take whose one tensor is larger than the budget?

    python benchmarks/memory.py [--elements 3e8] [--memory 512MB] [--only ties …]

Each method merges two float32 models of one matrix into a folder, in a process of its own. `above` is the
most that it held resident beyond what an interpreter holds that has imported torch and numba. (Linux)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _harness import measure, save, show
from rich.console import Console
from safetensors.torch import save_file

_COLUMNS = 3000
CASES: dict[str, dict[str, Any]] = {
    "linear": {},
    "slerp": {"t": 0.5},
    "ties (model)": {"scope": "model"},
    "ties (tensor)": {"scope": "tensor"},
    "ties (row)": {"scope": "row"},
    "breadcrumbs (row)": {"scope": "row"},
    "dare_linear (l1)": {"density": 0.5, "rescale": "l1"},
    "della": {"density": 0.5},
    "sce": {"select_topk": 0.3},
    "model_stock": {},
}


def _peak() -> int:
    """Bytes resident at most since the last `_forget`: a child begins with what its parent had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def make(root: Path, shape: tuple[int, int]) -> None:
    """A base and two models of one matrix."""
    for seed, name in enumerate(("base", "a", "b")):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        (root / name).mkdir()
        save_file({"w": values}, root / name / "model.safetensors", {"format": "pt"})


def worker(case: str, root: Path, memory: int, threads: int) -> None:
    """Merge, and print the bytes held at most, before and after."""
    import numba  # noqa: F401

    import plait

    method = case.partition(" ")[0]
    tuned = [str(root / name) for name in ("a", "b")][: 1 if method == "slerp" else 2]
    base = {} if method == "linear" else {"base": str(root / "base")}
    options = plait.RunOptions(memory=memory, threads=threads, overwrite=True)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak()
    plait.merge(tuned, method=method, out=root / "out", options=options, **base, **CASES[case])
    print(_peak() - before)


def main() -> None:
    """Make the models, measure every method, print the table and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--elements", type=float, default=3e8)
    parser.add_argument("--memory", type=int, default=512 * 10**6, help="bytes")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        case, root, threads = given.worker
        worker(case, Path(root), given.memory, int(threads))
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="plait-memory-") as folder:
        shape = (int(given.elements) // _COLUMNS, _COLUMNS)
        make(Path(folder), shape)
        for case in given.only:
            row: dict[str, Any] = {"method": case, "tensor MB": 4 * shape[0] * shape[1] / 1e6}
            for threads in (1, 2):
                command = [sys.executable, __file__, "--memory", str(given.memory), "--worker", case, folder]
                used = measure([*command, str(threads)])
                row[f"above MB, {threads} threads"] = int(used.output.split()[-1]) / 1e6
            rows.append(row)
    show(f"a budget of {given.memory / 1e6:.0f} MB", rows, Console(width=120))
    save(given.json, {"budget": given.memory, "rows": rows})


if __name__ == "__main__":
    main()
