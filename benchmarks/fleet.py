"""How fast do fleets train? Each against the plain loop over its members, in one run.

    python benchmarks/fleet.py [--only MLP ViT …] [--members 1 8 32] [--lora-members 8] [--json FILE]

A row is a process of its own. Loop and fleet take turns of some steps each, and the shortest of these counts.
The loop is plait's `sequential`; `plain` is one as anyone would write it, which looks neither at the norms of
gradients nor for NaN. `auto` is what plait would choose, `auto / best` how fast that is as a share of the
fastest. `peak share` is the work of all members' matrix products, forward and backward, over what one large
product reaches in the same process. Memory is what the process holds at most with the fleet alone, above the
members' starts. A row during which the time of that product, or of a copy in memory, changed by more than a
tenth is taken again, up to five times: the machine had other work to do. What is not measured this time stays
in the file, if it comes from the same machine and versions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _harness import machine, measure, save, show
from rich.console import Console

SIZES = {"MLP": (8, 32, 128), "CNN": (8, 32), "ViT": (8, 32), "GPT": (4, 16)}
MEMBERS = (1, 2, 4, 8, 16, 32, 64)
LORA = (("SmolLM2", 1, 32), ("SmolLM2", 1, 128), ("MiniLM", 1, 32), ("MiniLM", 4, 32), ("MiniLM", 16, 32))
#: Change of the machine's speed during a row, from its slower to its faster end, up to which the row counts.
_CALM, _TRIES = 1.1, 5
#: Seconds, and two steps at least, that each way has in a turn.
_TURN = 0.25
RESULTS = Path(__file__).parent / "results" / "fleet.json"


def main() -> None:
    """Time what was asked for, print tables, keep them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=[*SIZES, "SmolLM2", "MiniLM"], default=None)
    parser.add_argument("--members", nargs="*", type=int, default=list(MEMBERS))
    parser.add_argument("--lora-members", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each row")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--tenants", type=int, default=200, help="models of a table; 0 leaves them out")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        from plait.fleet._memory import memory_kept

        with memory_kept():  # as in `Fleet.fit`
            print(json.dumps(row(**json.loads(given.row))))
        return
    console = Console(width=140)
    wanted = [
        {"network": n, "batch": b, "members": m} for n in SIZES for b in SIZES[n] for m in given.members
    ]
    wanted += [{"network": n, "batch": b, "tokens": t, "members": given.lora_members} for n, b, t in LORA]
    kept = _kept(given.json)
    rows = {_order(row): row for row in kept["fleets"]}
    measured = []
    for parameters in wanted:
        if given.only is not None and parameters["network"] not in given.only:
            continue
        timed = _timed(parameters | {"seconds": given.seconds})
        alone = _run(parameters | {"seconds": 0})
        measured.append({**timed, "peak MB": alone["peak MB"], "date": time.strftime("%Y-%m-%d")})
        console.print(measured[-1])
        rows[_order(measured[-1])] = measured[-1]
        kept["fleets"] = [row for _, row in sorted(rows.items())]
        save(given.json, kept)
    show("fleets against the loop", measured, console)
    if given.tenants:
        kept["tenants"] = tenants(given.tenants)
        show("models of a table", kept["tenants"], console)
        save(given.json, kept)


def _kept(path: Path) -> dict[str, Any]:
    """What other runs on this machine have found; those of these are measured anew that are asked for."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = found.get("machine") == machine()
    return {key: found.get(key, []) if same else [] for key in ("fleets", "tenants")}


def _order(row: dict[str, Any]) -> tuple[int, ...]:
    networks = [*SIZES, *dict.fromkeys(name for name, _, _ in LORA)]
    return networks.index(row["method"]), row["tokens"] or 0, row["batch"], row["members"]


def tenants(count: int, epochs: int = 20) -> list[dict[str, Any]]:
    """Small models of a table's groups: all trained and asked at once, against one after another."""
    import torch

    sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
    from fleet_tenants import network, table
    from plait import Fleet

    frame = table(count, count * 200)

    def trained(backend: Any) -> tuple[float, Fleet]:
        fleet = Fleet.from_frame(
            frame, by="tenant", target="y", model=network, epochs=epochs, lr=0.01, backend=backend
        )
        started = time.perf_counter()
        fleet.fit(quiet=True)
        return time.perf_counter() - started, fleet

    alone, _ = trained("sequential")
    together, fleet = min((trained("auto") for _ in range(2)), key=lambda pair: pair[0])
    networks = {name: fleet[name] for name in fleet.members}
    columns = [c for c in frame.columns if c.startswith("x")]
    rows = frame.sample(20_000, random_state=0, replace=True)
    values = torch.tensor(rows[columns].to_numpy(), dtype=torch.float32)
    owners = rows["tenant"].astype(str).to_numpy()

    def one_by_one() -> None:
        with torch.no_grad():
            for name, own in networks.items():
                own(values[torch.from_numpy(owners == name)])

    best = _turns({"loop": one_by_one, "fleet": lambda: fleet.predict(rows)}, 3.0)
    train = {"task": f"train {count} models", "loop s": alone, "fleet s": together}
    ask = {"task": f"{len(rows)} rows routed", "loop s": best["loop"], "fleet s": best["fleet"]}
    return [row | {"× faster": row["loop s"] / row["fleet s"]} for row in (train, ask)]


def _timed(parameters: dict[str, Any]) -> dict[str, Any]:
    """The first row during which the machine stayed as fast as it was; of five, the one nearest to that."""
    rows = []
    for _ in range(_TRIES):
        rows.append(_run(parameters))
        if rows[-1]["unrest"] <= _CALM:
            break
    return min(rows, key=lambda row: row["unrest"])


def _run(parameters: dict[str, Any]) -> dict[str, Any]:
    used = measure([sys.executable, __file__, "--row", json.dumps(parameters)])
    return json.loads(used.output.strip().splitlines()[-1])


def row(network: str, batch: int, members: int, seconds: float, tokens: int = 0) -> dict[str, Any]:
    """One row; without seconds, the fleet alone takes a few steps, and its memory is told."""
    import resource
    import warnings

    import torch

    from plait.fleet._auto import apart, choose
    from plait.fleet._groups import Place, make

    warnings.simplefilter("ignore")
    trainees = _adapters(network, batch, tokens, members) if tokens else stack(network, batch, members)
    place = Place(torch.device("cpu"), torch.get_num_threads())
    states = [t.initial() for t in trainees]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fleet = make("adapters" if tokens else "stacked", trainees, states, place)
    for _ in range(3):
        fleet.step()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    found: dict[str, Any] = {"method": network, "members": members, "batch": batch}
    found |= {"tokens": tokens or None, "peak MB": peak}
    if not seconds:
        return found
    speeds = [_speeds()]
    loop = make("sequential", [apart(t) for t in trainees], [t.initial() for t in trainees], place)
    loop.step()
    ways = {"loop": loop.step, "fleet": fleet.step}
    if not tokens:
        ways["plain"] = _plain(trainees)
        ways["plain"]()
    best = _turns(ways, seconds)
    choice = choose(trainees, lambda t: t.initial(), place)
    whole = choice.kind != "sequential" and choice.size >= members
    share = min(best["loop"], best["fleet"]) / best["fleet" if whole else "loop"]
    if choice.kind != "sequential" and not whole:
        parts = [trainees[i : i + choice.size] for i in range(0, members, choice.size)]
        backends = [make(choice.kind, part, [t.initial() for t in part], place) for part in parts]
        for _ in range(3):
            _all(backends)
        # Against each other once more, in turns: only times of one moment compare.
        again = _turns({"auto": lambda: _all(backends), "loop": loop.step, "fleet": fleet.step}, seconds)
        share = min(again.values()) / again["auto"]
        best |= {k: min(best[k], again[k]) for k in ("loop", "fleet")}
    speeds.append(_speeds())
    work = _flops(trainees[0]) * members
    return found | {
        "plain ms": best["plain"] * 1e3 if not tokens else None,
        "loop ms": best["loop"] * 1e3,
        "fleet ms": best["fleet"] * 1e3,
        "× faster": best["loop"] / best["fleet"],
        "× plain": best["plain"] / best["fleet"] if not tokens else None,
        "auto": f"{choice.kind} × {choice.size}",
        "auto / best": share,
        "peak share": work / best["fleet"] / max(speed["product"] for speed in speeds),
        "unrest": max(max(a / b, b / a) for a, b in zip(*(s.values() for s in speeds), strict=True)),
    }


def _plain(trainees: list[Any]) -> Callable[[], None]:
    """A step of every member as anyone would write it, with nothing of plait's but the batches."""
    import torch

    from plait.fleet._auto import apart

    networks = [apart(trainee).network.train() for trainee in trainees]
    optimizers = [torch.optim.AdamW(network.parameters(), lr=1e-3) for network in networks]

    def step() -> None:
        for trainee, network, optimizer in zip(trainees, networks, optimizers, strict=True):
            batch = trainee.batch(0)
            values, _ = trainee.task.loss(trainee.task.outputs(network, batch), batch)
            optimizer.zero_grad()
            values.mean().backward()
            optimizer.step()

    return step


def _all(backends: list[Any]) -> None:
    for backend in backends:
        backend.step()


def _turns(steps: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The shortest of each, in turns in which each has memory and caches for itself for a while."""
    best = dict.fromkeys(steps, math.inf)
    started, turns = time.perf_counter(), 0
    while time.perf_counter() - started < seconds or turns < 2:
        turns += 1
        for name, step in steps.items():
            begun, taken = time.perf_counter(), 0
            while time.perf_counter() - begun < _TURN or taken < 2:
                before = time.perf_counter()
                step()
                taken += 1
                best[name] = min(best[name], time.perf_counter() - before)
    return best


def _speeds() -> dict[str, float]:
    """Operations a second of a large matrix product, and bytes a second of a copy that no cache holds."""
    import torch

    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    long, copy = torch.zeros(1 << 25), torch.empty(1 << 25)
    taken = _turns({"product": lambda: a @ b, "copy": lambda: copy.copy_(long)}, 0.5)
    return {"product": 2 * 1024**3 / taken["product"], "copy": long.nbytes / taken["copy"]}


def _flops(trainee: Any) -> int:
    """Operations of one member's step, as PyTorch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    from plait.fleet._adapter import adapted

    member, task, network = trainee.member, trainee.task, trainee.network
    if member.lora is not None:
        network = adapted(member, network, task, trainee.initial().parameters)
    batch = trainee.batch(0)
    with FlopCounterMode(display=False) as counter:
        values, _ = task.loss(task.outputs(network, batch), batch)
        values.sum().backward()
    return counter.get_total_flops()


def stack(network: str, batch: int, members: int) -> list[Any]:
    from _fleet_networks import NETWORKS, task

    from plait.fleet import Member
    from plait.fleet._build import build

    learned = task(network)
    settings = [
        Member(name=f"m{i}", steps=10_000, batch_size=batch, lr=1e-3 * (1 + i / members), seed=i)
        for i in range(members)
    ]
    return [build(member, learned, NETWORKS[network]) for member in settings]


def _adapters(network: str, batch: int, tokens: int, members: int) -> list[Any]:
    import torch
    from peft import LoraConfig

    from plait.fleet import Member
    from plait.fleet._build import build_adapter
    from plait.tasks import ByKeywords, Columns, MeanPooled, NextToken, Task, perplexity

    base = _base(network)
    made = []
    for i in range(members):
        ids = torch.randint(0, 30_000, (64, tokens), generator=torch.Generator().manual_seed(i))
        columns = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if network == "MiniLM":
            data = Columns(columns | {"label": torch.arange(64) % 4})
            task = Task(f"t{i}", {"train": data}, head=torch.nn.Linear(384, 4), meet=MeanPooled())
        else:
            data = Columns(columns | {"labels": ids})
            task = Task(f"t{i}", {"train": data}, NextToken(), perplexity(), meet=ByKeywords())
        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        member = Member(name=f"m{i}", task=task, steps=1000, batch_size=batch, lr=1e-4, seed=i, lora=lora)
        made.append(build_adapter(member, task, base))
    return made


def _base(network: str) -> Any:
    if network == "MiniLM":
        from plait.tasks.suites.text import base
    else:
        from plait.tasks.suites.smollm2 import base
    return base()


if __name__ == "__main__":
    main()
