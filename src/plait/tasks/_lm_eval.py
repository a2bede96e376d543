"""Scores of a language model's folder on lm-eval's task files: lm-eval runs them, plait adds intervals."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from plait.errors import InputError, MissingExtra, nearest
from plait.tasks._bootstrap import draws, interval
from plait.tasks._evaluate import check_device, check_numbers
from plait.tasks._metrics import Floats, Summary
from plait.tasks._scores import Evidence, Score, Scores

SUITE = "lm-eval"
_PathLike = str | os.PathLike[str]


def evaluate_lm(
    models: _PathLike | Sequence[_PathLike] | Mapping[str, _PathLike],
    tasks: _PathLike | Sequence[_PathLike],
    *,
    include: _PathLike | None = None,
    batch_size: int = 8,
    bootstrap: int = 1000,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "auto",
    limit: int | None = None,
) -> Scores:
    """Score folders of language models with lm-eval, on task files that lie here.

    A task file may read its data from files that lie here, too (`dataset_path: json`, and `data_files`
    relative to the folder that plait runs in); then nothing needs a network.

    Args:
        models: folders that transformers loads; one, several, or by name.
        tasks: task files (YAML), or names of tasks in `include`.
        include: a folder of task files.
        batch_size: requests at a time.
        bootstrap: how often examples are drawn for the intervals; 0 for none.
        seed: of the draws.
        device: where to compute.
        dtype: in which type; `auto` for the folder's own.
        limit: how many examples of each task; all if None.

    Returns:
        a row for each model, task and metric. Metrics that are no mean, perplexity or bits per byte have no
        interval.

    Raises:
        MissingExtra: lm-eval is not installed.
        InputError: there is no such folder or task, or lm-eval can't run it.
    """
    numbers = {"batch_size": (batch_size, 1), "bootstrap": (bootstrap, 0), "seed": (seed, 0)}
    check_numbers(**numbers if limit is None else numbers | {"limit": (limit, 1)})
    check_device(device)  # lm-eval takes the processor for a device that it does not know
    named = _named(models)
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtra("lm-eval", "lm-eval", "evaluating on lm-eval's task files") from error
    files = [Path(task) for task in _several(tasks) if Path(task).is_file()]
    folders = {str(path.parent.resolve()): None for path in files}
    if include is not None:
        folders[str(_folder(include, "task files"))] = None
    manager = TaskManager(include_path=list(folders), include_defaults=False)
    names = [_task_name(task, manager.all_tasks, include) for task in _several(tasks)]
    settings = {"tasks": names, "task_manager": manager, "batch_size": batch_size, "limit": limit}
    rows: list[Score] = []
    evidence: dict[tuple[str, str, str], Evidence] = {}
    for name, folder in named.items():
        found = _run(name, {"pretrained": str(folder), "dtype": dtype}, device, settings)
        for row, behind in _rows(name, found, bootstrap, seed):
            rows.append(row)
            if behind is not None:
                evidence[row.key] = behind
    return Scores(tuple(rows), {}, evidence, bootstrap, seed)


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _named(models: Any) -> dict[str, Path]:
    named = models if isinstance(models, Mapping) else {str(model): model for model in _several(models)}
    return {str(name): _folder(folder, "a model") for name, folder in named.items()}


def _folder(path: Any, of: str) -> Path:
    if not isinstance(path, str | os.PathLike) or not Path(path).is_dir():
        raise InputError(f"there is no folder of {of}", where=str(path))
    return Path(path).resolve()


def _task_name(task: _PathLike, known: Sequence[str], include: _PathLike | None) -> str:
    """The name that a file gives its task, or the name itself."""
    path = Path(task)
    if not path.is_file():
        if str(task) in known:
            return str(task)
        if include is None or path.suffix in (".yaml", ".yml"):
            raise InputError("there is no such task file", where=str(task))
        raise InputError(f"there is no task `{task}`", where=str(include), hint=nearest(str(task), known))
    try:
        # Composed, not constructed: task files name functions by tags of their own.
        content = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"this is no YAML: {error}", where=str(path)) from error
    entries = content.value if isinstance(content, yaml.MappingNode) else []
    found = next((value.value for key, value in entries if key.value == "task"), None)
    if not isinstance(found, str) or found not in known:
        raise InputError(
            "this is no task file of lm-eval", where=str(path), hint="it needs a name under `task`"
        )
    return found


def _run(name: str, arguments: dict[str, Any], device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval import simple_evaluate

    try:
        run: Any = simple_evaluate  # its decorator hides its arguments from type checkers
        found = run("hf", model_args=arguments, device=device, bootstrap_iters=0, **settings)
    except Exception as error:  # whatever a task's file, its data or the model's own code may raise
        reason = str(error) or "it gives no reason"
        raise InputError(
            f"lm-eval can't run {', '.join(settings['tasks'])}: {type(error).__name__}: {reason}",
            where=f"model `{name}`",
            hint="a model is a folder that transformers loads, its tokenizer included",
        ) from error
    assert found is not None  # only workers beside the first get nothing
    return dict(found)


def _rows(
    model: str, found: Mapping[str, Any], bootstrap: int, seed: int
) -> list[tuple[Score, Evidence | None]]:
    made = []
    for task, samples in sorted(found["samples"].items()):
        for column, value in sorted(found["results"][task].items()):
            metric, _, filter_ = column.partition(",")
            if not filter_ or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            name = metric if filter_ == "none" else f"{metric} ({filter_})"
            better = bool(found["higher_is_better"].get(task, {}).get(metric, True))
            chosen = [each for each in samples if each["filter"] == filter_]
            behind = _evidence(metric, [each.get(metric) for each in chosen], value)
            ends = math.nan, math.nan
            if behind is not None:
                (drawn,) = draws([behind.numbers], behind.summary, task, resamples=bootstrap, seed=seed)
                behind, ends = replace(behind, draws=drawn), interval(drawn)
            row = Score(model, SUITE, task, name, float(value), len(chosen), *ends, higher_is_better=better)
            made.append((row, behind))
    return made


def _ratio(sums: Floats) -> Floats:
    return sums[..., 0] / sums[..., 1]


def _perplexity(sums: Floats) -> Floats:
    return np.exp(-_ratio(sums))


def _bits(sums: Floats) -> Floats:
    return -_ratio(sums) / math.log(2)


#: Metrics for which lm-eval keeps a log-likelihood and a length for each example.
_OF_PAIRS: dict[str, Summary] = {
    "word_perplexity": _perplexity,
    "byte_perplexity": _perplexity,
    "bits_per_byte": _bits,
}


def _evidence(metric: str, kept: Sequence[Any], value: float) -> Evidence | None:
    """What each example adds, if a formula that plait knows makes of it the value that lm-eval tells."""
    numbers = _numbers(kept, metric in _OF_PAIRS)
    if numbers is None or not numbers[:, 1].sum() > 0:
        return None
    for summary in [_OF_PAIRS[metric]] if metric in _OF_PAIRS else [_ratio, _perplexity]:
        if math.isclose(float(summary(numbers.sum(0))), value, rel_tol=1e-9, abs_tol=1e-12):
            return Evidence(numbers, summary, np.empty(0))
    return None


def _numbers(kept: Sequence[Any], pairs: bool) -> Floats | None:
    try:
        found = np.asarray(kept, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if pairs:
        return found if found.ndim == 2 and found.shape[1] == 2 else None
    return np.stack([found, np.ones(len(found))], axis=1) if found.ndim == 1 and len(found) else None
