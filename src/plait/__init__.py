"""plait: train many models at once, weave them into one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plait.checkpoint import open_checkpoint as open  # noqa: A004
    from plait.engine import RunOptions, build_plan, extract_lora, merge, push, run, verify
    from plait.engine import diff_checkpoints as diff
    from plait.engine import inspect_checkpoint as inspect
    from plait.fleet import After, Fleet, Member
    from plait.recipe import load_recipe
    from plait.study import load_study, run_study
    from plait.tasks import Suite, Task, compare, evaluate, load_suite, regressions, try_models

__version__ = "0.1.0"

#: Public name → where it lives; imported on first use, so that the command line starts without torch.
_HOMES = {
    "After": ("plait.fleet", "After"),
    "Fleet": ("plait.fleet", "Fleet"),
    "Member": ("plait.fleet", "Member"),
    "Suite": ("plait.tasks", "Suite"),
    "Task": ("plait.tasks", "Task"),
    "load_suite": ("plait.tasks", "load_suite"),
    "RunOptions": ("plait.engine", "RunOptions"),
    "build_plan": ("plait.engine", "build_plan"),
    "compare": ("plait.tasks", "compare"),
    "diff": ("plait.engine", "diff_checkpoints"),
    "evaluate": ("plait.tasks", "evaluate"),
    "extract_lora": ("plait.engine", "extract_lora"),
    "inspect": ("plait.engine", "inspect_checkpoint"),
    "load_recipe": ("plait.recipe", "load_recipe"),
    "load_study": ("plait.study", "load_study"),
    "merge": ("plait.engine", "merge"),
    "open": ("plait.checkpoint", "open_checkpoint"),
    "push": ("plait.engine", "push"),
    "regressions": ("plait.tasks", "regressions"),
    "run": ("plait.engine", "run"),
    "run_study": ("plait.study", "run_study"),
    "try_models": ("plait.tasks", "try_models"),
    "verify": ("plait.engine", "verify"),
}

#: Rooms that documentation names, imported on first use too: `plait.tasks.evaluate_lm`.
_ROOMS = (
    "checkpoint", "engine", "errors", "fleet", "methods", "recipe", "report", "study", "tasks", "testing"
)  # fmt: skip

__all__ = [
    "After",
    "Fleet",
    "Member",
    "RunOptions",
    "Suite",
    "Task",
    "__version__",
    "build_plan",
    "compare",
    "diff",
    "evaluate",
    "extract_lora",
    "inspect",
    "load_recipe",
    "load_study",
    "load_suite",
    "merge",
    "open",
    "push",
    "regressions",
    "run",
    "run_study",
    "try_models",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"plait.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _HOMES[name]
    return getattr(import_module(module), own)


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
