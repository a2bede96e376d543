"""What a study's steps left, as the tidy tables that a report is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plait.report import Cost, Curve, Picture, Reached, Results, Setting, Similarity
from plait.study._at import BASE, SIMILARITY, branched, made, scored, trained
from plait.study._fixed import DIFFERENCES
from plait.study._score import read, read_said, shown
from plait.study._steps import Done
from plait.study._study import Study
from plait.study._training import METRICS, SIMULATED
from plait.study._tuning import TRIALS
from plait.study._whole import as_number
from plait.tasks import Measured, Scores, tabulate

EXPERTS = "experts"


def results(study: Study, out: Path, done: Mapping[str, Done]) -> Results:
    """Everything that the report tells."""
    places = {name: out / each.folder for name, each in done.items()}
    ways = study.ways
    return Results(
        title=study.name,
        about=study.about,
        scores=[_scores(study, seed, places) for seed in study.seeds],
        seeds=list(study.seeds),
        experts=EXPERTS,
        reference=study.reference,
        expected=study.expected,
        groups={name: way.kind for name, way in ways.items()} | {BASE: BASE, EXPERTS: EXPERTS},
        methods={name: way.method for name, way in ways.items() if way.method is not None},
        trials=[trial for seed in study.seeds for trial in _trials(study, seed, places)],
        budget=study.tuning.budget if any(way.tuned for way in ways.values()) else None,
        split=study.split,
        tuned_on=study.tuning.split,
        curves=[curve for seed in study.seeds for curve in _curves(study, seed, places)],
        reached=[each for seed in study.seeds for each in _reached(study, seed, places)],
        similarity=_similarity(places[SIMILARITY]) if len(study.suite.tasks) > 1 else None,
        costs=[Cost(each.name, each.seconds, each.peak_mb, each.cached) for each in done.values()],
        pictures=_pictures(study, places),
        drawn="spread evenly over each task's examples",
        missing=dict(study.suite.missing),
    )


def models(study: Study) -> list[str]:
    """Rows of the report: the base, the ways, the experts."""
    return [BASE, *study.ways, EXPERTS]


def _scores(study: Study, seed: int, places: Mapping[str, Path]) -> Scores:
    measured: Measured = {}
    for model in models(study):
        measured |= read(study, model, places[scored(model, seed)])
    return tabulate(
        models(study), study.suite.name, study.suite.tasks, measured, study.bootstrap, study.seeds[0]
    )


def _trials(study: Study, seed: int, places: Mapping[str, Path]) -> list[Setting]:
    found = []
    metric = "share of the experts' scores"
    for name in study.ways:
        place = places.get(made(name, seed))
        if place is None or not (place / TRIALS).is_file():
            continue
        tried = json.loads((place / TRIALS).read_text(encoding="utf-8"))
        for each in tried:
            value, why = as_number(each["value"]), each.get("failed", "")
            setting = Setting(name, each["setting"], value, metric, each["chosen"], seed, failed=why)
            found.append(setting)
    return found


def _curves(study: Study, seed: int, places: Mapping[str, Path]) -> list[Curve]:
    found = []
    first = [BASE] if seed == study.seeds[0] else []
    later = [branched(task, seed) for task in study.branch]
    ways = {made(way, seed): way for way in study.ways}
    for name in (*first, trained(seed), *later, *ways):
        place, way = places.get(name), ways.get(name)
        if place is None or not (place / METRICS).is_file():
            continue
        lines = (place / METRICS).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        for member in dict.fromkeys(record["member"] for record in records):
            own = [r for r in records if r["member"] == member and isinstance(r.get("loss"), float)]
            step, value = np.array([r["step"] for r in own]), np.array([r["loss"] for r in own])
            shown = member if way in (None, member) else f"{way}: {member}"
            found.append(Curve(shown, step, value, _loss(study, way), seed))
    return found + _simulated_curves(study, seed, places)


def _loss(study: Study, way: str | None) -> str:
    """What a training's curve is of: a student's loss, scaled by T², is on no other's scale."""
    return f"loss in “{way}”" if way is not None and study.ways[way].kind == "student" else "loss"


def _simulated(study: Study, seed: int, places: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Way → what came when in simulated time, of those that simulate clients."""
    files = {way: places[made(way, seed)] / SIMULATED for way in study.ways if made(way, seed) in places}
    return {
        way: json.loads(file.read_text(encoding="utf-8")) for way, file in files.items() if file.is_file()
    }


def _simulated_curves(study: Study, seed: int, places: Mapping[str, Path]) -> list[Curve]:
    found = []
    for way, told in _simulated(study, seed, places).items():
        for task in study.suite.tasks:
            own = [each for each in told["curve"] if each["task"] == task.name]
            time, value = np.array([r["time"] for r in own]), np.array([as_number(r["value"]) for r in own])
            kind = f"validation {task.metric.name}: {task.name}"
            target = told["targets"].get(task.name)
            found.append(Curve(way, time, value, kind, seed, "simulated time", target))
    return found


def _reached(study: Study, seed: int, places: Mapping[str, Path]) -> list[Reached]:
    found = []
    for way, told in _simulated(study, seed, places).items():
        for task, target in told["targets"].items():
            time = told["reached"][task]
            found.append(Reached(way, task, target, np.nan if time is None else time, seed))
    return found


def _similarity(folder: Path) -> Similarity:
    with np.load(folder / DIFFERENCES) as found:
        return Similarity(
            found["names"].tolist(), found["cosine"], found["layers"].tolist(), found["conflict"]
        )


def _pictures(study: Study, places: Mapping[str, Path]) -> Sequence[Picture]:
    """Pictures of each task, and what every model said of them; none if examples are no pictures."""
    seed = study.seeds[0]
    words = {model: read_said(places[scored(model, seed)]) for model in models(study)}
    found = []
    for task in study.suite.tasks:
        rows = shown(study, task)
        batch = task.split(study.split).batch(rows) if rows else {}
        images = batch.get("input")
        if images is None or images.dim() != 4 or images.shape[1] not in (1, 3):
            continue
        for place, image in enumerate(images.float().mean(1).clamp(0, 1).numpy()):
            label = int(batch["label"][place])
            told = {model: own[task.name][place] for model, own in words.items() if own[task.name]}
            found.append(
                Picture(
                    task.name, image, _word(task.classes, label),
                    {model: _word(task.classes, each) for model, each in told.items()},
                    {model: each == label for model, each in told.items()},
                )
            )  # fmt: skip
    return found


def _word(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else str(label)
