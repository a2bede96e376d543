"""Where a method is put to the test: which options it gets, how many models, and one way to merge them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from plait.engine import Plan, RunOptions, build_plan, in_memory
from plait.methods import Method, Option, Settings
from plait.recipe import build_recipe
from plait.testing._states import SHAPES, WIDE, Shapes, State, state, tuned

NAMES = "abcdefgh"


@dataclass(frozen=True)
class Bench:
    """A method in one setting.

    Attributes:
        method: the method.
        options: option → value; a list holds one value per model.
        conventions: whose defaults hold.
        count: models besides the base.
        with_base: whether a base is given.
        compiles: whether rules are also tested as compiled loops.
        known: merges that several invariants compare to.
    """

    method: Method
    options: Mapping[str, Any]
    conventions: str
    count: int
    with_base: bool
    compiles: bool = True
    known: dict[bool, State] = field(default_factory=dict, compare=False)

    def base(self, shapes: Shapes = SHAPES) -> State | None:
        """The base, where one is given."""
        return state(0, shapes) if self.with_base else None

    def models(self, shapes: Shapes = SHAPES) -> dict[str, State]:
        """Models a, b, c, …: fine-tunes of one start."""
        start = state(0, shapes)
        return {NAMES[k]: tuned(start, k + 1) for k in range(self.count)}

    def plan(
        self,
        models: Mapping[str, State],
        base: State | None,
        *,
        run: RunOptions | None = None,
        compiled: bool = False,
        dtype: torch.dtype | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The plan of a merge.

        Args:
            models: name → model.
            base: the base, or None.
            run: how to run; None is one thread, and lets values pass that are not finite.
            compiled: run rules compiled, not by torch.
            dtype: the output's type.
            changes: option → value, where it differs from the bench's.
        """
        recipe = build_recipe(
            models,
            method=self.method.combine,
            base=base,
            parameters={**self.options, **(changes or {})},
            per_model={option.name for option in self.method.options if option.per_model},
            dtype=dtype,
            conventions="mergekit" if self.conventions == "mergekit" else "paper",
        )
        plan = build_plan(replace(recipe, method=self.method), run or RunOptions(threads=1, allow_nan=True))
        plan.compiled = compiled
        return plan

    def merge(self, models: Mapping[str, State], base: State | None, **how: Any) -> State:
        """What a merge gives; `how` as in `plan`."""
        return in_memory(self.plan(models, base, **how))

    def usual(self, shapes: Shapes = SHAPES, **how: Any) -> State:
        """The merge of the bench's own models and base."""
        return self.merge(self.models(shapes), self.base(shapes), **how)

    def wide(self, *, compiled: bool = False) -> State:
        """The usual merge over the wide shapes, on one thread."""
        if compiled not in self.known:
            self.known[compiled] = self.usual(WIDE, compiled=compiled)
        return self.known[compiled]

    def of(self, count: int) -> Bench:
        """The bench with so many models; a list of values goes round."""
        options = {
            name: [value[k % len(value)] for k in range(count)] if isinstance(value, list) else value
            for name, value in self.options.items()
        }
        return replace(self, count=count, options=options, known={})

    def settings(self, **changes: Any) -> Settings:
        """The options as a rule over `matrix` gets them."""
        given = {o.name: o.default_for(self.conventions) for o in self.method.options}
        given |= {**self.options, **changes}
        each = {o.name for o in self.method.options if o.per_model}
        shared = {name: value for name, value in given.items() if name not in each}
        lists = {name: _spread(given[name], self.count) for name in each}
        return Settings(shared, lists, self.count, 91, (7, 13))


def _spread(value: Any, count: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * count


def benches(
    method: Method, options: Mapping[str, Any], conventions: Sequence[str], *, bare: bool
) -> Iterator[Bench]:
    """The settings that a method is tested in.

    Args:
        method: the method.
        options: option → value, in place of those that are chosen here.
        conventions: whose defaults hold, one after the other.
        bare: also without a base, where a base is optional.
    """
    lists = [len(value) for value in options.values() if isinstance(value, list)]
    count = max([method.min_models, 2, *lists])
    count = count if method.max_models is None else min(count, method.max_models)
    for words in conventions:
        bench = Bench(method, dict(options), words, count, method.base != "unused")
        bench = replace(bench, options={**_lively(bench), **options})
        bench = replace(bench, compiles=not method.whole(bench.settings()))
        yield bench
        if method.base == "optional" and bare:
            yield replace(bench, with_base=False, known={})


def _lively(bench: Bench) -> dict[str, Any]:
    """Values for options that have none, or whose default, at a bound, may switch off what they do."""
    found: dict[str, Any] = {}
    for option in bench.method.options:
        default = option.default_for(bench.conventions)
        if default is None and not option.optional:
            found[option.name] = _inside(option)
    for option in bench.method.options:
        bounds = option.low, option.high
        if option.kind == "float" and None not in bounds and option.default_for(bench.conventions) in bounds:
            tried = {**found, option.name: _inside(option)}
            found = tried if bench.method.check(bench.settings(**tried)) is None else found
    weight = bench.method.option("weight")
    if weight is not None and weight.per_model and (weight.low, weight.high) == (None, None):
        found["weight"] = [(1.0, 0.5, 2.0)[k % 3] for k in range(bench.count)]
    return found


def _inside(option: Option) -> Any:
    """A value between the bounds."""
    if option.kind == "bool":
        return True
    if option.kind == "str":
        return option.choices[0] if option.choices else ""
    low = 0.0 if option.low is None else option.low
    high = low + 1.0 if option.high is None else option.high
    value = low + 0.4 * (high - low)
    return value if option.kind == "float" else max(int(value), int(low))
