"""How soon does Ctrl-C end a command, and what does it leave? At moments drawn evenly over each run.

    python benchmarks/interrupt.py [--moments 20] [--elements 2e8] [--only ties …]

Each command runs to its end once, which gives its time; then it is started again and again and gets SIGINT
(every fifth time SIGTERM) at a random moment. `seconds` is from the signal to the end of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _harness import save, show
from rich.console import Console

_CLI = [sys.executable, "-c", "from plait.cli import main; main()"]
_ALLOWED = {130: "interrupted", 143: "interrupted", 0: ""}
#: Before this much of a process has passed, it is the interpreter that starts and not plait.
_START = 0.3
CASES: dict[str, dict[str, Any]] = {
    "linear": {"merge": "linear"},
    "ties over the model": {"merge": "ties"},
    "ties over tensors": {"merge": "ties", "parameters": {"scope": "tensor"}},
    "della": {"merge": "della", "parameters": {"density": 0.5, "epsilon": 0.1}},
    "slerp": {"merge": "slerp", "models": ["a"], "parameters": {"t": 0.5}},
    "arcee_fusion": {"merge": "arcee_fusion", "models": ["a"], "memory": "24GB"},
    "kernels compiled": {"merge": "dare_ties", "parameters": {"density": 0.5}, "cold": True},
    "overwrite": {"merge": "linear", "overwrite": True},
    "many tensors": {"merge": "linear", "models": ["many-b"], "base": "many"},
    "a large file beside": {"merge": "linear", "models": ["plain"], "base": "beside"},
}
OTHERS = {
    "diff": ["diff", "a", "b"],
    "verify": ["verify", "done"],
    "extract-lora": ["extract-lora", "a", "--base", "base", "--rank", "16", "-o", "adapter"],
}


def make(place: Path, elements: int) -> None:
    """Models of one huge tensor and one of many; and an output to check."""
    from safetensors.torch import save_file

    for seed, name in enumerate(("base", "a", "b")):
        (place / name).mkdir()
        generator = torch.Generator().manual_seed(seed)
        row = torch.randn(4096, 4096, generator=generator).bfloat16()
        rows = max(elements // 4096 // 4096, 1)
        tensors = {"big.weight": row.repeat(rows, 1), "m.weight": row[:2048]}
        save_file(tensors, place / name / "model.safetensors")
        (place / name / "config.json").write_text("{}")
    (place / "many").mkdir()
    names = (f"model.layers.{i // 500}.experts.{i % 500}.w" for i in range(50_000))
    save_file({name: torch.zeros(2, 2) for name in names}, place / "many" / "model.safetensors")
    shutil.copytree(place / "many", place / "many-b")
    (place / "beside").mkdir()
    save_file({"w": torch.zeros(2, 2)}, place / "beside" / "model.safetensors")
    shutil.copytree(place / "beside", place / "plain")
    with (place / "beside" / "notes.txt").open("wb") as file:
        file.truncate(4 << 30)


def command(name: str, place: Path) -> list[str]:
    """The command of a case, with its recipe written."""
    if name in OTHERS:
        return OTHERS[name]
    case = {"base": "base", "models": ["a", "b"], **CASES[name]}
    options = [word for key in ("memory",) if key in case for word in (f"--{key}", case.pop(key))]
    options += ["--overwrite"] * bool(case.pop("overwrite", False))
    case.pop("cold", None)
    if case["merge"] == "linear":
        case["models"] = [case.pop("base"), *case["models"]]
    (place / "recipe.yml").write_text(json.dumps(case))
    return ["merge", "recipe.yml", "out", "--threads", "2", *options]


def prepare(name: str, place: Path) -> dict[str, str]:
    """What is there before each run, and its environment."""
    for path in (*place.glob(".out*"), place / "out", place / "adapter", place / "cache"):
        shutil.rmtree(path, ignore_errors=True)
    if CASES.get(name, {}).get("overwrite"):
        shutil.copytree(place / "done", place / "out")
    cold = {"PLAIT_CACHE": str(place / "cache")} if CASES.get(name, {}).get("cold") else {}
    return {**os.environ, **cold}


def moment(name: str, place: Path, words: list[str], after: float, number: int) -> dict[str, Any]:
    """One run, ended after some time."""
    before = {path.name for path in place.iterdir()}
    environment = prepare(name, place)
    started = time.perf_counter()
    process = subprocess.Popen(
        _CLI + words, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    time.sleep(max(after - (time.perf_counter() - started), 0))
    sent = time.perf_counter()
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    seconds = time.perf_counter() - sent
    left = {path.name for path in place.iterdir()} - before - {".out.plait", "cache"}
    lines = [line for line in told.splitlines() if line.startswith("plait:")]
    finished = process.returncode == 0
    ok = process.returncode in (128 + number, 0) and "Traceback" not in told
    ok = ok and (finished or (len(lines) == 1 and _ALLOWED[process.returncode] in lines[0]))
    ok = ok and (finished or not left - ({"out"} if "overwrite" in name else set()))
    return {
        "after": after,
        "seconds": seconds,
        "ok": ok,
        "status": process.returncode,
        "left": sorted(left),
        "told": told,
    }


def measure_case(name: str, place: Path, moments: int) -> dict[str, Any]:
    """One command's row."""
    words = command(name, place)
    environment = prepare(name, place)
    started = time.perf_counter()
    subprocess.run(_CLI + words, cwd=place, env=environment, check=name != "diff", capture_output=True)
    whole = time.perf_counter() - started
    draw = random.Random(7)
    found = [
        moment(
            name,
            place,
            words,
            draw.uniform(_START, max(whole, _START)),
            signal.SIGTERM if k % 5 == 4 else signal.SIGINT,
        )
        for k in range(moments)
    ]
    ended = [one["seconds"] for one in found if one["status"]]
    return {
        "command": name,
        "whole s": whole,
        "ended": len(ended),
        "median s": statistics.median(ended) if ended else None,
        "largest s": max(ended, default=None),
        "wrong": [one for one in found if not one["ok"]],
    }


def main() -> None:
    """Run what was asked for, print it, and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--elements", type=float, default=2e8, help="of the huge tensor")
    parser.add_argument("--only", nargs="*", choices=[*CASES, *OTHERS], default=[*CASES, *OTHERS])
    parser.add_argument("--dir", type=Path, help="where checkpoints are made")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "interrupt.json")
    given = parser.parse_args()
    console = Console(width=150)
    with tempfile.TemporaryDirectory(prefix="plait-interrupt-", dir=given.dir) as folder:
        place = Path(folder)
        make(place, int(given.elements))
        subprocess.run(_CLI + command("linear", place), cwd=place, check=True, capture_output=True)
        (place / "out").rename(place / "done")
        rows = []
        for name in given.only:
            rows.append(measure_case(name, place, given.moments))
            show("signals", [{**row, "wrong": len(row["wrong"])} for row in rows[-1:]], console)
            for one in rows[-1]["wrong"]:
                console.print(one)
    save(given.json, {"moments": given.moments, "elements": given.elements, "rows": rows})
    show("signals", [{**row, "wrong": len(row["wrong"])} for row in rows], console)


if __name__ == "__main__":
    main()
