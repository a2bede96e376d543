"""How fast are merges? Each method against the I/O limit and against mergekit, in one run.

    python benchmarks/merge.py --peer PATH/TO/mergekit-yaml [--params 1.24e9] [--only ties …]

`run / limit` takes the second merge in a process, when the compiled kernels are loaded; `first` is the first
one, and `process` a whole `plait merge` from the command line. The limit is reading every input byte once and
writing the output once, by two threads, page cache warm.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from _harness import measure, save, show
from _merge_data import io_limit, make_checkpoints
from rich.console import Console

MEMORY = 10**9
#: name shown, method, models besides the base, parameters, conventions.
CASES: dict[str, dict[str, Any]] = {
    "linear": {"method": "linear", "models": "abc", "weight": 0.3},
    "task_arithmetic": {"method": "task_arithmetic", "models": "abc", "weight": 0.4},
    "slerp": {"method": "slerp", "models": "a", "t": 0.3},
    "nuslerp": {"method": "nuslerp", "models": "ab", "weight": 0.5},
    "magmax": {"method": "magmax", "models": "abc", "conventions": "paper"},
    "dare_linear (l1)": {"method": "dare_linear", "models": "abc", "weight": 0.4, "density": 0.5},
    "dare_linear (1/p)": {
        "method": "dare_linear",
        "models": "abc",
        "weight": 0.4,
        "density": 0.5,
        "conventions": "paper",
    },
    "dare_ties (l1)": {"method": "dare_ties", "models": "abc", "weight": 0.4, "density": 0.5},
    "ties (tensor)": {"method": "ties", "models": "abc", "weight": 1.0, "density": 0.3},
    "ties (model)": {"method": "ties", "models": "abc", "density": 0.3, "conventions": "paper"},
    "breadcrumbs (tensor)": {
        "method": "breadcrumbs",
        "models": "abc",
        "weight": 0.4,
        "density": 0.9,
        "gamma": 0.01,
    },
    "breadcrumbs (row)": {
        "method": "breadcrumbs",
        "models": "abc",
        "density": 0.9,
        "gamma": 0.01,
        "conventions": "paper",
    },
    "della": {"method": "della", "models": "abc", "weight": 0.4, "density": 0.5, "epsilon": 0.1},
    "sce": {"method": "sce", "models": "abc", "select_topk": 0.3},
    "model_stock": {"method": "model_stock", "models": "abc"},
}
_PER_MODEL = ("weight", "density", "gamma", "epsilon")
_RANDOM = ("dare_linear", "dare_ties", "della")
#: In float32: relative to the largest entry of the tensor.
TOLERANCE = 1e-5
#: Entries that may lie further apart: equals at a threshold.
TIED = 1e-6


def recipe(case: dict[str, Any], root: Path, dtype: str) -> dict[str, Any]:
    """The case in mergekit's grammar."""
    own = {k: v for k, v in case.items() if k in _PER_MODEL}
    shared = {k: v for k, v in case.items() if k not in (*_PER_MODEL, "method", "models", "conventions")}
    models = [{"model": str(root / m), **({"parameters": own} if own else {})} for m in case["models"]]
    made: dict[str, Any] = {"merge_method": case["method"], "models": models, "dtype": dtype}
    if case["method"] == "slerp":
        made["models"] = [{"model": str(root / "base")}, *models]
    if case["method"] != "linear":
        made["base_model"] = str(root / "base")
    if shared:
        made["parameters"] = shared
    return made


def worker(case: dict[str, Any], root: Path, out: Path) -> dict[str, Any]:
    """Merge twice in this process."""
    import plait

    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe(case, root, "bfloat16")), encoding="utf-8")
    options = plait.RunOptions(memory=MEMORY)
    found: dict[str, Any] = {}
    for name in ("first", "run"):
        shutil.rmtree(out, ignore_errors=True)
        started, cpu = time.perf_counter(), time.process_time()
        if case.get("conventions") == "paper":
            given = {k: v for k, v in case.items() if k not in ("method", "models")}
            models = [str(root / m) for m in case["models"]]
            base = str(root / "base")
            plait.merge(models, base=base, method=case["method"], out=out, options=options, **given)
        else:
            plait.run(plait.build_plan(plait.load_recipe(path)[-1], options), out)
        found[name] = time.perf_counter() - started
        found["cpu"] = time.process_time() - cpu
    found["peak"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - empty) * 1024
    return found


def time_case(name: str, root: Path, scratch: Path, peer: str | None, repeat: int) -> dict[str, Any]:
    """One method's row."""
    case = CASES[name]
    out = scratch / "out"
    inputs = [*([] if case["method"] == "linear" else ["base"]), *case["models"]]
    limits, runs = [], []
    for _ in range(repeat):
        limits.append(io_limit(root, inputs, scratch / "limit"))
        used = measure([sys.executable, __file__, "--worker", name, "--dir", str(root), "--out", str(out)])
        runs.append(json.loads(used.output.splitlines()[-1]))
    limit = statistics.median(limits)
    best = min(runs, key=lambda found: found["run"])
    row = {
        "method": name,
        "limit s": limit,
        "run s": best["run"],
        "run / limit": best["run"] / limit,
        "first s": best["first"],
        "cpu s": best["cpu"],
        "peak GB": best["peak"] / 1e9,
    }
    if "conventions" in case:
        return row
    path = scratch / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(case, root, "bfloat16")), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    plait = [str(Path(sys.executable).parent / "plait"), "merge", str(path), str(out), "--memory", "1GB"]
    row["process s"] = measure(plait).wall
    shutil.rmtree(out, ignore_errors=True)
    if peer is not None:
        used = measure([peer, str(path), str(out)])
        row |= {"mergekit s": used.wall, "mergekit GB": used.peak / 1e9}
        row["× faster"] = used.wall / row["process s"]
        shutil.rmtree(out, ignore_errors=True)
    return row


def numbers(name: str, root: Path, scratch: Path, peer: str) -> dict[str, Any]:
    """The same recipe through both, in float32: how far apart the results are."""
    case, outs = CASES[name], {}
    path = scratch / "numbers.yaml"
    path.write_text(yaml.safe_dump(recipe(case, root, "float32")), encoding="utf-8")
    commands = {
        "plait": [str(Path(sys.executable).parent / "plait"), "merge", str(path)],
        "mergekit": [peer, str(path)],
    }
    for who, command in commands.items():
        outs[who] = scratch / f"numbers-{who}"
        shutil.rmtree(outs[who], ignore_errors=True)
        measure([*command, str(outs[who])])
    row = compare(outs["plait"], outs["mergekit"], root / "base", random=case["method"] in _RANDOM)
    for out in outs.values():
        shutil.rmtree(out)
    return {"method": name, **row}


def compare(ours: Path, theirs: Path, base: Path, *, random: bool) -> dict[str, Any]:
    """Tensor by tensor: distances relative to its largest entry, or distributions (plait / mergekit)."""
    import plait

    a, b, c = (plait.open(str(path)) for path in (ours, theirs, base))
    worst, apart, total, kept, spread = 0.0, 0, 0, [0.0, 0.0], [0.0, 0.0]
    weights = [name for name in a if len(a[name].shape) > 1]
    for name in a if not random else weights:
        x, y = (t[name].read_flat(0, _numel(t[name])).double() for t in (a, b))
        if not random:
            distances = (x - y).abs() / y.abs().max().clamp_min(1e-30)
            beyond = distances > TOLERANCE
            apart, total = apart + int(beyond.sum()), total + len(x)
            worst = max(worst, float(distances[~beyond].max()))
            continue
        start = c[name].read_flat(0, _numel(c[name])).double()
        for i, values in enumerate((x, y)):
            kept[i] += float((values != start).double().mean()) / len(weights)
            spread[i] += float((values - start).std()) / len(weights)
    if random:
        return {
            "changed": f"{kept[0]:.5f} / {kept[1]:.5f}",
            "spread": f"{spread[0]:.4g} / {spread[1]:.4g}",
        }
    # Entries of equal magnitude at a threshold: mergekit keeps any of them, plait those that come first.
    ok = apart <= total * TIED
    return {
        "tensors": len(a),
        "entries": total,
        "largest distance": f"{worst:.0e}",
        "apart": apart,
        "ok": str(ok),
    }


def _numel(tensor: Any) -> int:
    count = 1
    for length in tensor.shape:
        count *= length
    return count


def planning() -> list[dict[str, Any]]:
    """100,000 tensors: opening and planning, without and with a filter over all of them."""
    weights = [[{"filter": "*.experts.7*", "value": 0.3}, {"value": 1.0}], 1.0]
    tasks = {"plan 100,000 tensors": {}, "the same, with a filter": {"weight": weights}}
    used = {
        name: measure([sys.executable, __file__, "--plan", json.dumps(parameters)])
        for name, parameters in tasks.items()
    }
    rows = [{"task": name, "seconds": float(u.output.splitlines()[-1])} for name, u in used.items()]
    started = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    # how fast Python is just now, as a shared machine's speed changes by a factor of two
    return [*rows, {"task": "10,000,000 additions in Python", "seconds": time.perf_counter() - started}]


def plan_worker(parameters: dict[str, Any]) -> float:
    """Seconds to plan a linear merge of two live models of 100,000 tensors."""
    from plait.engine import build_plan
    from plait.recipe import build_recipe

    names = [f"model.layers.{i // 1000}.experts.{i % 1000}.w.weight" for i in range(100_000)]
    models = {who: {name: torch.zeros(2, 2) for name in names} for who in "ab"}
    started = time.perf_counter()
    build_plan(build_recipe(models, method="linear", parameters=parameters, per_model={"weight"}))
    return time.perf_counter() - started


def processes(scratch: Path) -> list[dict[str, Any]]:
    """Whole processes: how long little work takes."""
    from safetensors.torch import save_file

    for who in "ab":
        save_file({"w": torch.randn(8, 8)}, scratch / f"{who}.safetensors")
    plait = str(Path(sys.executable).parent / "plait")
    recipe_path = scratch / "tiny.yaml"
    models = [{"model": str(scratch / f"{who}.safetensors"), "parameters": {"weight": 0.5}} for who in "ab"]
    recipe_path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}), encoding="utf-8")
    tiny = [plait, "merge", str(recipe_path), str(scratch / "tiny"), "--overwrite"]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "plait merge (tiny)": tiny,
        "plait --help": [plait, "--help"],
    }
    measure(tiny)
    walls = {name: [measure(command).wall for _ in range(3)] for name, command in commands.items()}
    return [{"task": name, "seconds": statistics.median(found)} for name, found in walls.items()]


def main() -> None:
    """Run what was asked for, print it, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=float, default=1.24e9, help="parameters of each checkpoint")
    parser.add_argument("--dir", type=Path, help="where checkpoints are kept; default: a temporary folder")
    parser.add_argument("--peer", help="the mergekit-yaml to compare with")
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--peers", nargs="*", choices=list(CASES), default=list(CASES), help="what mergekit is timed with"
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "merge.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(CASES[given.worker], given.dir, given.out)))
        return
    if given.plan is not None:
        print(plan_worker(json.loads(given.plan)))
        return
    console = Console(width=170)
    with tempfile.TemporaryDirectory(prefix="plait-bench-", dir=given.dir) as folder:
        scratch = Path(folder)
        results = everything(given, scratch, console)
    save(given.json, results)
    console.print(f"kept in {given.json}")


def everything(given: argparse.Namespace, scratch: Path, console: Console) -> dict[str, Any]:
    """All tables."""
    root = (
        given.dir or scratch
    ) / f"llama-{given.params / 1e9:.2f}b"  # mergekit takes what follows a plus for an adapter
    count = make_checkpoints(root, given.params)
    console.print(f"base and three fine-tunes, {count / 1e9:.2f} B parameters each, bfloat16")
    rows = []
    for name in given.only:
        rows.append(time_case(name, root, scratch, given.peer if name in given.peers else None, given.repeat))
        console.print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()})
    show("merges, --memory 1GB", rows, console)
    found: dict[str, Any] = {"parameters": count, "merges": rows}
    if given.peer:
        small = scratch / "numbers"
        make_checkpoints(small, 1, torch.float32)
        names = [name for name in given.only if "conventions" not in CASES[name]]
        compared = [numbers(name, small, scratch, given.peer) for name in names]
        for random in (False, True):
            part = [row for row in compared if ("changed" in row) == random]
            if part:
                show("against mergekit, " + ("by distribution" if random else "in float32"), part, console)
        found["numbers"] = compared
    found["planning"] = planning()
    found["processes"] = processes(scratch)
    show("planning and starting", [*found["planning"], *found["processes"]], console)
    return found


if __name__ == "__main__":
    main()
