"""The parts of the documentation that are made from the code.

    python docs/pages.py

A part stands between `<!-- made: NAME -->` and `<!-- end -->`; a test fails when one is out of date.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from plait.cli._app import app
from plait.methods import CONSENSUS, METHODS, SPARSIFY, Method, Option

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "merge.json"
_PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def made(text: str) -> str:
    """A page with all its made parts as they should be."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n{found[3]}", text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(_cell(value) for value in line)} |\n" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.2f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _source(text: str) -> str:
    """References to arXiv and to web pages as links."""
    text = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    return re.sub(r"^([a-z]+\.[a-z]+/\S+)$", r"[\1](https://\1)", text)


def _values(option: Option) -> str:
    words = option.allowed.removesuffix(" per model")
    return " \\| ".join(f"`{c}`" for c in option.choices) if option.choices else words


def _default(option: Option, conventions: str) -> str:
    found = option.default_for(conventions)
    if found is None:
        return "optional" if option.optional else "must be set"
    return f"`{str(found).lower() if isinstance(found, bool) else found}`"


def _options(options: Iterable[Option]) -> str:
    rows = [
        (
            f"`{o.name}`{' *' if o.per_model else ''}",
            _values(o),
            _default(o, "paper"),
            _default(o, "mergekit"),
            o.doc,
        )
        for o in options
    ]
    lines = table(("option", "values", "default", "in mergekit's grammar", "meaning"), rows)
    return lines.replace("\\\\|", "\\|")


def _needs(method: Method) -> str:
    low, high = method.min_models, method.max_models
    count = f"{low} or more" if high is None else f"{low}" if low == high else f"{low} to {high}"
    models = f"{count} model{'' if count == '1' else 's'}"
    base = {"required": " and a base", "optional": "; a base is optional", "unused": ""}[method.base]
    return models + base


def methods() -> str:
    """Every method with its options."""
    rows = [(f"[`{m.name}`](#{m.name})", m.summary, _needs(m)) for m in METHODS.values()]
    text = table(("method", "what it does", "takes"), rows)
    for method in METHODS.values():
        text += f"\n### `{method.name}` {{ #{method.name} }}\n\n"
        text += f"{method.summary[0].upper()}{method.summary[1:]}. Takes {_needs(method)}. "
        order = "" if method.symmetric else " The order of the models matters."
        text += f"Source: {_source(method.reference)}.{order}\n\n"
        text += _options(method.options) if method.options else "It has no options.\n"
    return text


def parts() -> str:
    """The parts that a recipe's pipeline may name."""
    text = ""
    for kind, named in (("sparsify", SPARSIFY), ("consensus", CONSENSUS)):
        for part in named.values():
            text += f"\n### `{kind}: {part.name}` {{ #{kind}-{part.name} }}\n\n"
            text += f"{part.summary[0].upper()}{part.summary[1:]}.\n\n"
            text += _options(part.options) if part.options else "It has no options.\n"
    return text.lstrip("\n")


def conventions() -> str:
    """Where defaults of papers and mergekit differ."""
    rows = []
    for method in METHODS.values():
        for option in method.options:
            if option.default_for("paper") != option.default_for("mergekit"):
                where = f"[`{method.name}`](method-table.md#{method.name})", f"`{option.name}`"
                rows.append((*where, _default(option, "paper"), _default(option, "mergekit")))
    return table(("method", "option", "the papers'", "mergekit's"), rows)


def commands() -> str:
    """Every command with its arguments and options."""
    text = ""
    for command in app.registered_commands:
        function = command.callback
        if function is None:
            continue
        name = command.name or function.__name__
        fields = list(_fields(function))
        text += f"\n## `plait {name}` {{ #{name} }}\n\n{inspect.getdoc(function)}\n\n"
        text += f"`{' '.join(['plait', name, *_synopsis(fields)])}`\n\n"
        rows = [(f"`{n}`", "" if d in (None, False) else f"`{d}`", h) for n, _, _, d, h in fields]
        text += table(("argument or option", "default", "meaning"), rows)
    return text.lstrip("\n")


def _synopsis(fields: Iterable[tuple[str, bool, bool, Any, str]]) -> Iterable[str]:
    """Arguments, those that may be left out in brackets; then the options that may not."""
    fields = list(fields)
    yield from (f"[{name}]" if optional else name for name, argument, optional, _, _ in fields if argument)
    for words, argument, optional, _, _ in fields:
        if not argument and not optional:
            spellings, _, value = words.rpartition(" ")
            yield f"{min(spellings.split(', '), key=len)} {value}"


def _fields(function: Any) -> Iterable[tuple[str, bool, bool, Any, str]]:
    """Name, is it an argument, may it be left out, default and help of each parameter of a command."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name], None)
        optional = parameter.default is not inspect.Parameter.empty
        default = parameter.default if optional else None
        if isinstance(info, ArgumentInfo):
            yield name.upper(), True, optional, default, info.help or ""
        elif isinstance(info, OptionInfo):
            # In an annotation, typer keeps the first of several spellings in the default's place.
            given = (*([info.default] if isinstance(info.default, str) else ()), *(info.param_decls or ()))
            words = ", ".join(given) or f"--{name.replace('_', '-')}"
            value = "" if kind is bool else f" {name.removesuffix('_option').upper()}"
            yield words + value, False, optional, default, info.help or ""


def benchmarks() -> str:
    """The numbers that the repository keeps, or where they would come from."""
    if not RESULTS.is_file():
        return (
            "No run is kept in this copy. `make bench` measures and writes `benchmarks/results/merge.json`.\n"
        )
    found: Mapping[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    machine = found["machine"]
    text = f"Measured on {found['date']} on {machine.get('processor')}, {machine.get('cores')} cores, "
    text += f"{machine.get('memory_gb')} GB, {machine.get('system')}, torch {machine.get('torch')}; "
    text += f"a base and three fine-tunes of {found['parameters'] / 1e9:.2f} B parameters each, bfloat16.\n"
    for title, rows in _benchmark_tables(found):
        if rows:
            columns = list(dict.fromkeys(column for row in rows for column in row))
            text += f"\n**{title}**\n\n" + table(columns, ([row.get(c) for c in columns] for row in rows))
    return text


def _benchmark_tables(found: Mapping[str, Any]) -> Iterable[tuple[str, list[Mapping[str, Any]]]]:
    """Title and rows of each table; a wide one is cut in two, so that it fits a page."""
    whole = ("process s", "mergekit s", "× faster", "mergekit GB")
    merges = found["merges"]
    yield "Merges", [{k: v for k, v in row.items() if k not in whole} for row in merges]
    peers = [row for row in merges if row.get("mergekit s") is not None]
    yield "Whole processes, against mergekit", [{k: row.get(k) for k in ("method", *whole)} for row in peers]
    numbers = found.get("numbers", [])
    exact = [row for row in numbers if "changed" not in row]
    yield "Results against mergekit's, in float32, relative to each tensor's largest entry", exact
    drawn = [row for row in numbers if "changed" in row]
    yield "Random methods by distribution: plait's / mergekit's", drawn
    yield "Planning and starting", [*found.get("planning", []), *found.get("processes", [])]


def fleets() -> str:
    """What `benchmarks/fleet.py` found."""
    path = RESULTS.with_name("fleet.json")
    if not path.is_file():
        return "No run is kept in this copy. `python benchmarks/fleet.py` measures.\n"
    found = json.loads(path.read_text(encoding="utf-8"))
    machine, rows = found["machine"], found["fleets"]
    stacked = [row for row in rows if row["tokens"] is None]
    counts = sorted({row["members"] for row in stacked})
    kinds = list(dict.fromkeys((row["method"], row["batch"]) for row in stacked))
    dates = " and ".join(sorted({row["date"] for row in rows}))
    text = f"Measured on {dates} on {machine.get('processor')}, {machine.get('cores')} cores, torch "
    text += f"{machine.get('torch')}.\n"
    for loop, column in (("the loop", "× faster"), ("a loop that is written by hand", "× plain")):
        ratios = {(row["method"], row["batch"], row["members"]): row[column] for row in stacked}
        text += f"\n**Stacked members against {loop}: × faster, by their number**\n\n"
        text += table(
            ["network", "batch each", *counts],
            (
                [*kind, *(_times(ratios.get((*kind, n))) for n in counts)]
                for kind in kinds
                if any(ratios.get((*kind, n)) for n in counts)
            ),
        )
    text += "\n**The most members of each, and adapters on one base**\n\n"
    most = [row for row in stacked if row["members"] == counts[-1]] + [r for r in rows if r["tokens"]]
    columns = {
        "network": "method",
        "members": "members",
        "batch": "batch",
        "tokens": "tokens",
        "loop ms": "loop ms",
        "fleet ms": "fleet ms",
        "× faster": "× faster",
        "auto": "auto",
        "share of peak": "peak share",
        "memory MB": "peak MB",
    }
    text += table(list(columns), ([_rounded(row[key]) for key in columns.values()] for row in most))
    worst = min(rows, key=lambda row: row["auto / best"])
    behind = sum(row["auto / best"] < 0.97 for row in rows)
    text += (
        f"\n`auto` was within 3 % of the fastest way in {len(rows) - behind} of {len(rows)} rows, and never "
    )
    text += f"below {worst['auto / best']:.2f} of it ({worst['method']}, {worst['members']} members of "
    text += f"{worst['batch']}).\n"
    if not found["tenants"]:
        return text
    return (
        text
        + "\n**Small models of a table's groups, at once against one by one**\n\n"
        + table(list(found["tenants"][0]), ([_rounded(v) for v in r.values()] for r in found["tenants"]))
    )


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _rounded(value: object) -> object:
    return float(f"{value:.3g}") if isinstance(value, float) else value


def suites() -> str:
    """What `benchmarks/suites.py` found."""
    path = RESULTS.with_name("suites.json")
    if not path.is_file():
        return "No run is kept in this copy. `python benchmarks/suites.py` measures.\n"
    text = ""
    for name, found in json.loads(path.read_text(encoding="utf-8")).items():
        settings, machine = found["settings"], found["machine"]
        text += f"\n### `{name}`\n\nExperts: {settings['steps']} steps of {settings['batch_size']}, learning "
        text += f"rate {settings['lr']:g}, AdamW along a cosine. Measured on {found['date']}, "
        text += f"{machine.get('cores')} cores, torch {machine.get('torch')}.\n\n"
        columns = list(found["tasks"][0])
        text += table(columns, ([row.get(c) for c in columns] for row in found["tasks"]))
        text += f"\n{found['verdict'][0].upper()}{found['verdict'][1:]}.\n"
        if found["missing"]:
            text += f"\nMissing in this run: {', '.join(found['missing'])}.\n"
    return text.lstrip("\n")


def federated() -> str:
    """What `benchmarks/federated.py` found."""
    path = RESULTS.with_name("federated.json")
    if not path.is_file():
        return "No run is kept in this copy. `python benchmarks/federated.py` measures.\n"
    whole = json.loads(path.read_text(encoding="utf-8"))
    text = f"Simulated on {whole['date']}, torch {whole['machine'].get('torch')}.\n"
    for name, found in whole["studies"].items():
        text += f"\n**`examples/studies/{name}.yaml`: until targets were reached, mean of "
        text += f"{found['seeds']} seeds**\n\n"
        columns = list(found["times"][0])
        text += table(columns, ([_one_place(row[c]) for c in columns] for row in found["times"]))
        text += "\n**Until all were reached, one way over another: geometric mean, 95 % interval**\n\n"
        columns = list(found["ratios"][0])
        text += table(columns, ([_or_not(row.get(c)) for c in columns] for row in found["ratios"]))
    return text


def _or_not(value: object) -> object:
    """What was measured, or that there was nothing to measure."""
    return "not reached" if value is None else value


def _one_place(value: object) -> object:
    return f"{value:.1f}" if isinstance(value, float) else _or_not(value)


PARTS = {
    "methods": methods,
    "parts": parts,
    "conventions": conventions,
    "commands": commands,
    "benchmarks": benchmarks,
    "fleets": fleets,
    "federated": federated,
    "suites": suites,
}


def main() -> None:
    """Bring every page up to date."""
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = made(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"made anew: {page.name}")


if __name__ == "__main__":
    main()
