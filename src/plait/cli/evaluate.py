"""`plait evaluate MODEL …`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli._show import print_json, print_table, warn
from plait.errors import InputError, nearest

if TYPE_CHECKING:
    from plait.tasks import Average, Difference, Score, Scores

REGRESSION = 3
_TYPES = ("float32", "float64", "bfloat16", "float16")


def evaluate(
    models: Annotated[list[str], typer.Argument(help="What to score: paths, hub ids, base+adapter.")],
    suite: Annotated[
        str | None, typer.Option(help="A suite's name (`plait suites` lists them) or YAML file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which part of each task.")] = "test",
    task: Annotated[
        list[str] | None, typer.Option(help="One of the suite's tasks; may be repeated. Default: all.")
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            help="TASK=FOLDER with the task's head.safetensors, may be repeated; or a folder with such a "
            "folder for each task. Default: the heads in the models' folders, or else the suite's."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A folder where data sets are looked for first.")] = None,
    lm_tasks: Annotated[
        list[Path] | None,
        typer.Option(help="A task file of lm-eval, instead of a suite; may be repeated."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="A model to compare with, or a .json file that --json printed for one."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="By how much a score may be worse than the baseline's, in the metric's unit."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="In which type to compute: float32, float64, bfloat16, float16.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples at a time.")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="How often examples are drawn for the intervals; 0 for none.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that compute.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Score models on a suite of tasks, or language models on lm-eval's task files.

    Each score has a 95 % interval by bootstrap over examples. The exit status is 3 if a score is worse than
    the baseline's by more than --max-drop.
    """
    if (suite is None) == (not lm_tasks):
        raise InputError("give a suite or lm-eval's task files", hint="--suite NAME, or --lm-tasks FILE")
    if max_drop is not None and baseline is None:
        raise InputError("there is no baseline to drop from", where="--max-drop", hint="give --baseline")
    settings: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed}
    if batch_size is not None:
        settings["batch_size"] = batch_size
    if lm_tasks:
        given = {"--task": task, "--heads": heads, "--data": data, "--threads": threads}
        _refuse(given | {"--split": None if split == "test" else split})
        settings |= {"device": device or "cpu", "dtype": _type_name(dtype) or "auto"}
        score = _on_files(lm_tasks, settings)
    else:
        settings |= {"device": device, "dtype": _type(dtype), "threads": threads, "data": data}
        settings |= {"split": split, "tasks": task or None, "heads": _heads(heads)}
        score = _on_suite(str(suite), settings)
    if max_drop is not None and not math.isfinite(max_drop):
        raise InputError(f"`{max_drop}` is no drop", where="--max-drop", hint="give a number from 0 on")
    old = _saved(baseline)  # before what takes long
    scores = score(models)
    if old is None and baseline is not None:
        old = score([baseline])
    differences, worse = _compared(scores, old, max_drop)
    if as_json:
        more = {"differences": differences, "regressions": worse} if baseline is not None else {}
        print_json(scores.to_dict() | {name: [d.to_dict() for d in each] for name, each in more.items()})
    else:
        _show(scores, differences)
    warn([_told(d, max_drop) for d in worse])
    return REGRESSION if worse else 0


def _on_suite(suite: str, settings: dict[str, Any]) -> Any:
    from plait.tasks import evaluate as score

    return lambda models: score(models, suite, **settings)


def _on_files(files: list[Path], settings: dict[str, Any]) -> Any:
    from plait.tasks import evaluate_lm

    return lambda models: evaluate_lm(models, files, **settings)


def _refuse(given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if value:
            raise InputError(f"{option} is for suites, not for lm-eval's task files", hint="leave it out")


def _type_name(name: str | None) -> str | None:
    if name is not None and name not in _TYPES:
        raise InputError(f"`{name}` is no type to compute in", where="--dtype", hint=nearest(name, _TYPES))
    return name


def _type(name: str | None) -> Any:
    import torch

    return None if _type_name(name) is None else getattr(torch, str(name))


def _heads(words: Sequence[str] | None) -> dict[str, str] | str | None:
    """A folder of heads, or task → folder."""
    if not words:
        return None
    if len(words) == 1 and "=" not in words[0]:
        return words[0]
    wrong = next((word for word in words if "=" not in word), None)
    if wrong is not None:
        raise InputError(f"`{wrong}` names no task", where="--heads", hint="write TASK=FOLDER")
    return dict(word.split("=", 1) for word in words)


def _saved(baseline: str | None) -> Scores | None:
    """The baseline's table, if it is one that was printed before."""
    if baseline is None or not baseline.endswith(".json"):
        return None
    from plait.tasks import read_scores

    try:
        return read_scores(Path(baseline).read_text(encoding="utf-8"), baseline)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError("there is no such file", where=baseline, hint="--json prints one") from error


def _compared(
    scores: Scores, old: Scores | None, max_drop: float | None
) -> tuple[list[Difference], list[Difference]]:
    """All differences, and those that are regressions."""
    if old is None:
        return [], []
    from plait.tasks import compare, regressions

    return compare(scores, old), [] if max_drop is None else regressions(scores, old, max_drop)


def _show(scores: Scores, differences: Sequence[Difference]) -> None:
    from plait.tasks import notes

    averages = [each for each in scores.averages() if each.tasks > 1]
    for model in scores.models:
        rows = [row for row in scores if row.model == model]
        lines: list[list[object]] = [[r.label, r.metric, r.value, *_ends(r), r.n] for r in rows]
        means = [each for each in averages if each.model == model]
        lines += [["average", a.metric, a.value, *_ends(a), None] for a in means]
        columns = ["task", "metric", "score", "low", "high", "n"]
        print_table(f"{model} on {rows[0].suite}", columns, lines)
    if differences:
        columns = ["model", "task", "metric", "new", "old", "difference", "low", "high"]
        lines = [[d.model, d.label, d.metric, d.new, d.old, d.value, *_ends(d)] for d in differences]
        print_table(f"against {differences[0].baseline}", columns, lines)
    for note in notes(scores):
        print(note)


def _ends(row: Score | Average | Difference) -> list[float | None]:
    """The interval; None where there is none."""
    return [None if math.isnan(end) else end for end in (row.low, row.high)]


def _told(difference: Difference, max_drop: float | None) -> str:
    d = difference
    how = "no number" if math.isnan(d.new) else f"worse by {d.drop:.4g}, more than {max_drop:g}"
    return f"regression: `{d.model}` on {d.label}: {d.metric} {d.new:.4g}, the baseline's {d.old:.4g}: {how}"
