"""Made-up but plausible results: 8 tasks, 11 models, 3 seeds. None of the numbers is a measurement."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from plait.report import Cost, Curve, Picture, Results, Setting, Similarity
from plait.tasks import Evidence, Score, Scores

TASKS = ("mnist", "kmnist", "letters", "greek", "weather", "animals", "clothes", "shapes")
MADE = ("shapes",)
KINDS = {"base": "base", "joint": "joint", "ensemble": "ensemble", "experts": "experts"}
MODELS = (
    "base",
    "average",
    "task arithmetic",
    "ties",
    "dare ties",
    "breadcrumbs",
    "model stock",
    "magmax",
    "joint",
    "ensemble",
    "experts",
)
SKILL = (0.22, 0.70, 0.78, 0.81, 0.79, 0.77, 0.73, 0.68, 0.93, 0.90, 0.96)
METHODS = {
    "average": "linear",
    "task arithmetic": "task_arithmetic",
    "ties": "ties",
    "dare ties": "dare_ties",
    "breadcrumbs": "breadcrumbs",
    "model stock": "model_stock",
    "magmax": "magmax",
}


def ratio(sums: Any) -> Any:
    """Right of all."""
    return sums[..., 0] / sums[..., 1]


def scores(
    seed: int,
    models: tuple[str, ...] = MODELS,
    tasks: tuple[str, ...] = TASKS,
    *,
    n: int = 200,
    bootstrap: int = 300,
    missing: dict[str, str] | None = None,
) -> Scores:
    """Every model's accuracy on every task, with draws that all share."""
    random = np.random.default_rng(seed)
    rows, evidence = [], {}
    for t, task in enumerate(tasks):
        drawn = np.random.default_rng(100 + t).integers(n, size=(bootstrap, n))
        hard = np.random.default_rng(200 + t).uniform(size=n)
        for model in models:
            skill = SKILL[MODELS.index(model)] - 0.05 * np.sin(t) + random.normal(0, 0.01)
            right = (hard + random.normal(0, 0.1, n) < skill).astype(float)
            numbers = np.stack([right, np.ones(n)], axis=1)
            draws = right[drawn].mean(axis=1)
            low, high = np.quantile(draws, (0.025, 0.975))
            value = float(right.mean())
            row = Score(model, "sample", task, "accuracy", value, n, float(low), float(high), task in MADE)
            rows.append(row)
            evidence[row.key] = Evidence(numbers, ratio, draws)
    return Scores(tuple(rows), missing or {}, evidence, bootstrap, 0)


def pictures(count: int = 2) -> list[Picture]:
    """Blobs, and what five models say."""
    random, found = np.random.default_rng(5), []
    names = "ABCDEFGHJK"
    for task in TASKS:
        for _ in range(count):
            image = np.zeros((28, 28))
            y, x = np.mgrid[:28, :28]
            for _ in range(3):
                cy, cx = random.uniform(6, 22, 2)
                image += np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 14)
            label = names[random.integers(10)]
            right = {m: bool(random.uniform() < s) for m, s in zip(MODELS, SKILL, strict=True)}
            said = {m: label if ok else names[(names.index(label) + 1) % 10] for m, ok in right.items()}
            found.append(Picture(task, np.clip(image, 0, 1), label, said, right))
    return found


def trials(seeds: int) -> list[Setting]:
    """Eight settings of each way."""
    random, found = np.random.default_rng(6), []
    for place, way in enumerate(("task arithmetic", "ties", "dare ties", "breadcrumbs", "magmax")):
        for seed in range(seeds):
            scale = [round(0.1 + 0.1 * i, 1) for i in range(8)]
            values = [0.8 - (0.2 + 0.3 * place) * (s - 0.4) ** 2 + random.normal(0, 0.004) for s in scale]
            for s, v in zip(scale, values, strict=True):
                setting = {"scale": s, "density": 0.2} if "t" in way else {"scale": s}
                found.append(Setting(way, setting, float(v), "mean accuracy", v == max(values), seed))
    return found


def curves(seeds: int) -> list[Curve]:
    """Losses and accuracies of every expert."""
    random, found = np.random.default_rng(7), []
    for t, task in enumerate(TASKS):
        for seed in range(seeds):
            step = np.arange(10, 610, 10)
            loss = (2.3 + 0.1 * t) * np.exp(-step / (80 + 15 * t)) + 0.08 + random.normal(0, 0.02, 60)
            found.append(Curve(task, step, np.abs(loss), "loss", seed))
            found.append(
                Curve(
                    task,
                    step[5::6],
                    0.96 - 0.6 * np.exp(-step[5::6] / (60 + 20 * t + 5 * seed)),
                    "validation accuracy",
                    seed,
                )
            )
    return found


def similarity() -> Similarity:
    """Task vectors that are nearly orthogonal."""
    random = np.random.default_rng(8)
    k = len(TASKS)
    noise = random.normal(0.1, 0.08, (k, k))
    cosine = np.clip((noise + noise.T) / 2, -1, 1)
    np.fill_diagonal(cosine, 1)
    layers = [f"blocks.{i}.{part}.weight" for i in range(6) for part in ("attention", "mlp")]
    return Similarity(TASKS, cosine, ["patch.weight", *layers], 0.35 + 0.1 * random.uniform(size=13))


def costs() -> list[Cost]:
    """What a run of minutes takes."""
    steps = (
        "data",
        "base",
        "experts",
        "joint",
        "similarity",
        "merge average",
        "tune ties",
        "evaluate",
        "report",
    )
    seconds = (3.2, 41.0, 63.5, 58.2, 1.1, 0.4, 22.8, 17.3, 4.0)
    peak = (310.0, 620.0, 1480.0, 640.0, 410.0, 350.0, 380.0, 700.0, 520.0)
    of = zip(steps, seconds, peak, strict=True)
    return [Cost(step, s, mb, cached=i < 3) for i, (step, s, mb) in enumerate(of)]


#: Names as long as those of shipped studies.
LONG = {
    "task arithmetic": "task arithmetic, tuned",
    "dare ties": "DARE-TIES, density 0.5",
    "breadcrumbs": "Breadcrumbs with TIES' signs",
    "model stock": "Model Stock (no options)",
    "joint": "joint training, thrice as long",
    "ensemble": "ensemble of all eight experts",
    "mnist": "devanagari digits",
    "kmnist": "cursive hiragana",
    "letters": "old english letters",
    "greek": "polytonic greek",
}


def wide() -> Results:
    """As much as the demo shows: eight tasks, twelve models, long names, tuning with edges and failures."""
    of = scores(0)
    twin = [replace(row, model="TIES, another seed") for row in of if row.model == "ties"]
    behind = {("TIES, another seed", *key[1:]): held for key, held in of.evidence.items() if key[0] == "ties"}
    rows = [replace(r, model=LONG.get(r.model, r.model), task=LONG.get(r.task, r.task)) for r in (*of, *twin)]
    known = {**of.evidence, **behind}
    evidence = {(LONG.get(m, m), LONG.get(t, t), k): held for (m, t, k), held in known.items()}
    shown = [
        replace(
            p,
            task=LONG.get(p.task, p.task),
            label="a sign with a name",
            said={LONG.get(m, m): "a sign with a name" for m in p.said},
            right={LONG.get(m, m): right for m, right in p.right.items()},
        )
        for p in pictures(3)
    ]
    settings = [replace(each, way=LONG.get(each.way, each.way)) for each in trials(1)]
    settings[3] = replace(settings[3], value=np.nan, failed="member `it` failed: its loss was not finite")
    return sample(
        1,
        scores=[replace(of, rows=tuple(rows), evidence=evidence)],
        groups={LONG.get(name, name): kind for name, kind in KINDS.items()},
        methods={LONG.get(name, name): method for name, method in METHODS.items()},
        pictures=shown,
        trials=settings,
        expected=[("experts", "base"), ("ties", "average")],
    )


def sample(seeds: int = 3, /, **changes: Any) -> Results:
    """All of it."""
    parts: dict[str, Any] = {
        "title": "Eight small tasks, one network",
        "about": "A made-up example: none of these numbers was measured.",
        "scores": [scores(seed) for seed in range(seeds)],
        "seeds": list(range(seeds)),
        "reference": "average",
        "groups": KINDS,
        "methods": METHODS,
        "trials": trials(seeds),
        "budget": 8,
        "curves": curves(seeds),
        "similarity": similarity(),
        "costs": costs(),
        "pictures": pictures(),
        "missing": {"flowers": "the package that holds it can't be had here"},
        "notes": ["Heads are frozen: each task's own head is used by every model."],
    }
    return Results(**(parts | changes))
