"""What a study's YAML says, as typed documents; see `docs/studies.md` for the grammar in words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, TypeAdapter, ValidationInfo

from plait.errors import nearest
from plait.recipe import Keys, refuse
from plait.study._numbers import is_number
from plait.study.ways import WAYS, Way


def _way(value: Any, info: ValidationInfo) -> Way:
    """The way that one of a mapping's keys says."""
    if not isinstance(value, dict):
        raise refuse("it must be a mapping", f"such as {{{next(iter(WAYS))}: linear}}")
    kinds = [key for key in value if key in WAYS]
    if len(kinds) != 1:
        close = next((near for key in value if (near := nearest(str(key), WAYS))), "")
        raise refuse(f"it needs exactly one of {', '.join(f'`{kind}`' for kind in WAYS)}", close)
    _check_tuned(value.get("tune"))
    return WAYS[kinds[0]].model_validate(value, context=info.context)


def _check_tuned(tune: Any) -> None:
    """Nothing if no value to try is a number in quotes, which some keys would take and others not."""
    for key, values in tune.items() if isinstance(tune, dict) else ():
        for value in values if isinstance(values, list) else ():
            if is_number(value):
                raise refuse(f"to try {value!r} for `{key}` is to try text", "write a number without quotes")


class TuningDocument(Keys):
    """How options of merges are chosen: on which split, and how many settings each way may try."""

    budget: int = Field(default=8, ge=1)
    split: Literal["validation", "calibration", "adaptation"] = "validation"


class BaseDocument(Keys):
    """A base that the study trains itself: the suite's network on all tasks (or some) at once."""

    train: Literal["joint"]
    tasks: list[str] | None = Field(default=None, min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)


def _base(value: Any, info: ValidationInfo) -> str | BaseDocument | None:
    """A checkpoint, or how a base is trained; told apart here, so that faults are told of the one meant."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise refuse("it must be a checkpoint, or a mapping", "such as {train: joint}")
    return BaseDocument.model_validate(value, context=info.context)


_SHARES = TypeAdapter(dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]])


def _start(value: Any) -> str | dict[str, float]:
    """A word or a task, or experts with their weights."""
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        hint = "base, posterior, a task, or a mapping such as {TASK: 1, OTHER: 2}"
        raise refuse("it must say where the expert starts", hint)
    if not value:
        raise refuse("it names no expert")
    return _SHARES.validate_python(value)


class BranchDocument(Keys):
    """Where an expert starts that is trained after others: the base, one of them, or a merge of them."""

    start: Annotated[str | dict[str, float], PlainValidator(_start)] = Field(alias="from")


class StudyDocument(Keys):
    """The whole file."""

    study: str = Field(min_length=1)
    suite: str
    tasks: list[str] | None = Field(default=None, min_length=1)
    seeds: list[Annotated[int, Field(strict=True)]] = Field(default_factory=lambda: [0], min_length=1)
    base: Annotated[str | BaseDocument | None, PlainValidator(_base)] = None
    experts: dict[str, Any]
    branch: dict[str, BranchDocument] = Field(default_factory=dict)
    ways: dict[str, Annotated[Way, PlainValidator(_way)]] = Field(min_length=1)
    tuning: TuningDocument = Field(default_factory=TuningDocument.model_construct)
    split: Literal["test", "validation"] = "test"
    bootstrap: int = Field(default=1000, ge=0)
    reference: str | None = None
    expect: list[str] = Field(default_factory=list)
    pictures: int = Field(default=8, ge=0)
    about: str = ""
