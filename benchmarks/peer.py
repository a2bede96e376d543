"""Does plait do what mergekit does? Every recipe of `mergekit_recipes` through both, held together.

    python benchmarks/peer.py --peer PATH/TO/ENVIRONMENT/bin [--only ties …] [--dir DIR] [--json FILE]

A recipe says in its first comments what it covers, and what differs on purpose and why:

    # covers: what part of the grammar it is about
    # flags: --random-seed 7
    # compare: distribution
    # differs ASPECT: the reason
    # may differ ASPECT: the same, where it depends on mergekit's luck

Exit status 1 if anything else differs, or something that should differ no longer does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import _peer_compare as compare
from _harness import save, show
from _peer_models import make_models
from rich.console import Console

from plait.recipe import MERGEKIT_FLAGS

RECIPES = Path(__file__).parent / "mergekit_recipes"


@dataclass(frozen=True)
class Case:
    """A recipe and what its first comments say.

    Attributes:
        name: its file's name without the suffix.
        path: its file.
        covers: what it is about.
        flags: words for the command line, the same for both.
        random: compare distributions, not entries.
        differs: what differs on purpose (a glob) → why.
        may: those of them that need not differ.
        stages: it has several documents.
        refused: mergekit refuses it.
    """

    name: str
    path: Path
    covers: str
    flags: tuple[str, ...] = ()
    random: bool = False
    differs: dict[str, str] = field(default_factory=dict)
    may: frozenset[str] = frozenset()
    stages: bool = False
    refused: bool = False


def read_case(path: Path) -> Case:
    """Read a recipe's first comments."""
    text = path.read_text(encoding="utf-8")
    said: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        key, colon, value = line[1:].partition(":")
        if not colon:
            raise SystemExit(f"{path}: `{line}` is not `# KEY: VALUE`")
        said[key.strip()] = value.strip()
    differs = {key[8:]: value for key, value in said.items() if key.startswith("differs ")}
    may = {key[11:]: value for key, value in said.items() if key.startswith("may ")}
    return Case(
        path.stem,
        path,
        said["covers"],
        tuple(said.get("flags", "").split()),
        said.get("compare") == "distribution",
        differs | may,
        frozenset(may),
        "\n---" in text,
        "refused" in path.parts,
    )


def run_peer(cases: Sequence[Case], peer: Path, root: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Run every recipe through mergekit, in one process, in the folder of the models."""
    jobs = []
    for case in cases:
        # A card's writer asks the hub for every name.
        words = [str(case.path), str(out / case.name), "--no-write-model-card", *case.flags]
        if case.stages:
            words[1:2] = ["--out-path", str(out / case.name), "-I", str(out / f"{case.name}-stages")]
        jobs.append({"name": case.name, "words": words, "stages": case.stages})
    plan, results = out / "jobs.json", out / "results.jsonl"
    plan.write_text(json.dumps(jobs), encoding="utf-8")
    driver = Path(__file__).parent / "_peer_driver.py"
    with (out / "log.txt").open("w") as log:
        subprocess.run(
            [str(peer / "python"), str(driver), str(plan), str(results)],
            cwd=root,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    lines = results.read_text(encoding="utf-8").splitlines()
    return {found["name"]: found for found in map(json.loads, lines)}


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_plait(case: Case, root: Path, out: Path) -> dict[str, Any]:
    """Run a recipe through `plait merge`, in this process, in the folder of the models."""
    from plait.cli import main

    words = ["merge", str(case.path), str(out / case.name), *case.flags]
    said, started = io.StringIO(), time.perf_counter()
    with _inside(root), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as done:
            status = done.code
    return {"status": status, "said": said.getvalue(), "seconds": time.perf_counter() - started}


def hold(case: Case, ours: Path, theirs: Path, root: Path) -> tuple[dict[str, str], float]:
    """What differs between the two outputs, and the largest distance."""
    if case.random:
        import yaml

        base = yaml.safe_load(case.path.read_text(encoding="utf-8"))["base_model"]
        found, worst = compare.distribution(ours, theirs, root / base)
    else:
        found, worst = compare.weights(ours, theirs)
    found |= compare.config(ours, theirs)
    found |= compare.tokenizer(ours, theirs)
    found |= compare.loads(ours)
    return found, worst


def judge(case: Case, found: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The verdict, and what was not expected."""
    known = {aspect for aspect in found if any(fnmatch(aspect, glob) for glob in case.differs)}
    wrong = {aspect: text for aspect, text in found.items() if aspect not in known}
    for glob in case.differs:
        if glob not in case.may and not any(fnmatch(aspect, glob) for aspect in found):
            wrong[glob] = "should differ and does not"
    return ("DIFFERS" if wrong else "as documented" if known else "equal"), wrong


def row(case: Case, mine: dict[str, Any], peer: dict[str, Any], out: Path, root: Path) -> dict[str, Any]:
    """One recipe's row of the table."""
    base = {"recipe": case.name, "covers": case.covers}
    seconds = {"plait s": mine["seconds"], "mergekit s": peer["seconds"]}
    if case.refused:
        found = {} if mine["status"] == 2 else {"accepted": f"status {mine['status']}"}
        if peer["error"] is None:
            found["accepted by mergekit"] = "it is in the folder of those that it refuses"
        verdict, wrong = judge(case, found)
        verdict = "both refuse" if verdict == "equal" else verdict
        told = {"mergekit says": peer["error"], "plait says": mine["said"][-400:], "differs": case.differs}
        return {**base, "distance": None, "verdict": verdict, **seconds, "wrong": wrong, **told}
    if mine["status"] or peer["error"]:
        wrong = {"failed": f"plait: {mine['status']} {mine['said'][-600:]} / mergekit: {peer['error']}"}
        return {**base, "distance": None, "verdict": "FAILED", **seconds, "wrong": wrong}
    found, worst = hold(case, out / "plait" / case.name, out / "mergekit" / case.name, root)
    verdict, wrong = judge(case, found)
    seen = {k: v for k, v in found.items() if k not in wrong}
    return {
        **base,
        "distance": f"{worst:.1f} σ" if case.random else f"{worst:.0e}",
        "verdict": verdict,
        **seconds,
        "wrong": wrong,
        "differs": case.differs,
        "seen": seen,
    }


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description="Every recipe of mergekit_recipes through both.")
    parser.add_argument("--peer", type=Path, required=True, help="the folder of mergekit-yaml")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "plait-peer")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "peer.json")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    cases = [read_case(path) for path in sorted(RECIPES.rglob("*.yml"))]
    cases = [case for case in cases if not given.only or any(fnmatch(case.name, o) for o in given.only)]
    root, out = given.dir / "models", given.dir / "out"
    make_models(root)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(root / "adapters", ignore_errors=True)
    (out / "mergekit").mkdir(parents=True)
    peer = run_peer(cases, given.peer, root, out / "mergekit")
    rows = [row(case, run_plait(case, root, out / "plait"), peer[case.name], out, root) for case in cases]
    unknown = sorted(set(peer[""]["flags"]) - MERGEKIT_FLAGS.keys())
    report(json.loads(_without_places(json.dumps(rows), given.dir)), unknown, given.json)
    sys.exit(bool(unknown) or any(r["verdict"].isupper() for r in rows))


def _without_places(text: str, folder: Path) -> str:
    """Messages without this machine's folders."""
    for place in (RECIPES, folder):
        text = text.replace(f"{place}/", "")
    return text


def report(rows: Sequence[dict[str, Any]], unknown: Sequence[str], path: Path) -> None:
    """Print the table and what stands behind it, and keep both."""
    console = Console(width=150)
    columns = ("recipe", "covers", "distance", "verdict", "plait s", "mergekit s")
    show("plait and mergekit", [{c: r[c] for c in columns} for r in rows], console)
    for r in rows:
        for glob, reason in r.get("differs", {}).items():
            console.print(f"{r['recipe']}: {glob} differs: {reason}", markup=False)
    for r in rows:
        for aspect, text in r["wrong"].items():
            console.print(f"{r['recipe']}: {aspect}: {text}", style="red", markup=False)
    console.print(f"flags of mergekit's that plait does not know: {', '.join(unknown) or 'none'}")
    save(path, {"recipes": list(rows), "unknown flags": list(unknown)})


if __name__ == "__main__":
    main()
