"""Is a rule one expression for every coordinate, and how exactly do two evaluations of it agree?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from plait.engine import TraceCell
from plait.methods import Settings, Stage, Sums
from plait.numerics import Expr, RuleError
from plait.testing._bench import Bench

#: What torch and a compiler round differently.
_ROUGH = {"exp", "tanh"}


def exact(bench: Bench) -> bool:
    """Whether compiled rules must give the bits of torch: nothing is added up, and no operation is rough."""
    sums = any(isinstance(stage, Sums) for stage in bench.method.stages(bench.settings()))
    return not sums and not operations(bench) & _ROUGH


def operations(bench: Bench) -> set[str]:
    """The operations that the method's rules use.

    Raises:
        RuleError: a rule is none: it asks for a truth value, or for what no expression has.
    """
    used: set[str] = set()

    def traced(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def both(c: Any) -> Any:
            found = rule(TraceCell(c.job, c.stats))
            used.update(_walk(found if isinstance(found, list | tuple) else [found]))
            return rule(c)

        return both

    def stages(settings: Settings) -> list[Stage]:
        return [replace(stage, rule=traced(stage.rule)) for stage in bench.method.stages(settings)]

    method = replace(bench.method, combine=traced(bench.method.combine), stages=stages)
    replace(bench, method=method).usual()
    return used


def _walk(results: Iterable[object]) -> set[str]:
    found, seen, left = set(), set(), list(results)
    while left:
        value = left.pop()
        if not isinstance(value, Expr):
            raise RuleError(f"a rule gives a {type(value).__name__}, not a value made of its cell's")
        if id(value) not in seen:
            seen.add(id(value))
            found.add(value.op)
            left += [part for part in value.args if isinstance(part, Expr)]
    return found
