"""A merge of the experts; options may be tried on validation data."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from plait.engine import RunOptions, merge
from plait.errors import InputError, PlaitWarning, nearest
from plait.methods import METHODS, Option
from plait.study.ways._way import TRIALS, Way
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

_RUN = RunOptions(overwrite=True)


class Merge(Way):
    """`merge: METHOD`; `options` are fixed, of `tune` the best combination is taken."""

    merge: str
    options: dict[str, Any] = Field(default_factory=dict)
    tune: dict[str, list[Any]] = Field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.merge

    @property
    def tuned(self) -> bool:
        return len(self.grid) > 1

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All settings that are tried; an empty one if nothing is tuned."""
        return [
            dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())
        ]

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        problems = problems_of_method(self.merge, self.options, where)
        if self.merge not in METHODS:
            return problems
        for key, values in self.tune.items():
            if key in self.options:
                problems.append(InputError(f"`{key}` is both set and tuned", where=where))
            elif not values:
                problems.append(InputError(f"`{key}` has no value to try", where=where))
            else:
                for value in values:
                    problems += problems_of_method(self.merge, {key: value}, where)
        budget = study.tuning.budget
        if len(self.grid) > budget:
            what = f"it tries {len(self.grid)} settings, and each way may try {budget}"
            problems.append(InputError(what, where=where, hint="try fewer, or raise tuning.budget for all"))
        return problems

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        if self.merge not in METHODS:
            return []
        settings = {**self.options, **dict.fromkeys(self.tune)}
        return problems_of_models(self.merge, settings, len(suite.tasks), where)

    def facts(self, at: At) -> dict[str, Any]:
        return {"split": at.study.tuning.split} if self.tuned else {}

    def make(self, at: At, folder: Path) -> None:
        grid, trials = self.grid, []
        bounds = at.bounds if self.tuned else {}
        for setting in grid if self.tuned else ():
            network = at.filled(self.merged(at, setting, None))
            split = at.study.tuning.split
            scores = {t.name: at.measured(at.on_task(network, t), t, split) for t in at.suite.tasks}
            shares = [_share(t, scores[t.name], bounds[t.name]) for t in at.suite.tasks]
            trials.append({"setting": dict(setting), "scores": scores, "value": float(np.mean(shares))})
        best = max(range(len(trials)), key=lambda i: _or_least(trials[i]["value"]), default=0)
        for place, trial in enumerate(trials):
            trial["chosen"] = place == best
        self.merged(at, grid[best], folder / "model")
        (folder / TRIALS).write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")

    def merged(self, at: At, setting: Mapping[str, Any], out: Path | None) -> Any:
        """The experts, merged with a setting of what is tuned."""
        return woven(self.merge, {**self.options, **setting}, at.experts, at.base, at.seed, out)


def woven(
    method: str,
    options: Mapping[str, Any],
    models: Mapping[str, Path],
    base: Path,
    seed: int,
    out: Path | None,
) -> Any:
    """A merge of folders.

    Args:
        method: of merging.
        options: its.
        models: name → folder.
        base: used where the method has one.
        seed: of methods that draw.
        out: where to, in place of what a killed run left there; in memory if None.
    """
    own = str(base) if METHODS[method].base != "unused" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlaitWarning)
        named = {name: str(path) for name, path in models.items()}
        return merge(named, base=own, method=method, out=out, seed=seed, options=_RUN, **options)


def problems_of_method(method: str, options: Mapping[str, Any], where: str) -> list[InputError]:
    """A method that is not there, options that it has not, and values that they don't take."""
    if method not in METHODS:
        return [InputError(f"there is no method `{method}`", where=where, hint=nearest(method, METHODS))]
    known = {option.name: option for option in METHODS[method].options}
    problems = []
    for key, value in options.items():
        if key not in known:
            what = f"method `{method}` has no option `{key}`"
            problems.append(InputError(what, where=where, hint=nearest(key, known)))
        elif isinstance(value, list) and known[key].per_model:
            wrong = [each for each in value if not _fits(known[key], each)]
            hint = f"give {known[key].allowed}"
            problems += [InputError(f"`{key}` has {each!r}", where=where, hint=hint) for each in wrong[:1]]
        elif not _fits(known[key], value):
            hint = f"give {known[key].allowed}"
            problems.append(InputError(f"`{key}` is {value!r}", where=where, hint=hint))
    return problems


def problems_of_models(method: str, options: Mapping[str, Any], count: int, where: str) -> list[InputError]:
    """Options that a method must be given, and a number of models that it does not take."""
    known, problems = METHODS[method], list[InputError]()
    low, high = known.min_models, known.max_models
    if count < low or (high is not None and count > high):
        wants = f"{low} and more" if high is None else f"{low}" if low == high else f"{low} to {high}"
        wants += (" model" if high == 1 else " models") + (
            " besides the base" if known.base != "unused" else ""
        )
        what = f"method `{method}` takes {wants}, and there are {count} experts"
        problems.append(InputError(what, where=where, hint="choose `tasks`, or another method"))
    problems += [
        InputError(f"method `{method}` needs the option `{option.name}`", where=where, hint=option.doc)
        for option in known.options
        if option.default is None and not option.optional and option.name not in options
    ]
    problems += [
        InputError(f"`{name}` has {len(value)} values for {count} experts", where=where)
        for name, value in options.items()
        if isinstance(value, list) and len(value) != count
    ]
    return problems


def _fits(option: Option, value: Any) -> bool:
    """Whether an option takes a value."""
    if option.choices:
        return value in option.choices
    if option.kind == "str":
        return isinstance(value, str)
    if option.kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low, high = option.low, option.high
    return (low is None or value >= low) and (high is None or value <= high)


def _share(task: Task, score: float, bound: float) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.divide(score, bound) if task.metric.higher_is_better else np.divide(bound, score))


def _or_least(value: float) -> float:
    return -np.inf if np.isnan(value) else value
