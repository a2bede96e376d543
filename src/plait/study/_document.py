"""What a study's YAML says, as typed documents; see `docs/studies.md` for the grammar in words."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from plait.recipe import Keys, refuse

KINDS = ("merge", "train", "ensemble")


class WayDocument(Keys):
    """One way of becoming one: exactly one of `merge`, `train` and `ensemble`."""

    merge: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    tune: dict[str, list[Any]] = Field(default_factory=dict)
    train: Literal["joint"] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, float] | None = None
    ensemble: Literal["probabilities"] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> WayDocument:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise refuse(f"it needs exactly one of {', '.join(f'`{kind}`' for kind in KINDS)}")
        allowed = {"merge": {"options", "tune"}, "train": {"settings", "weights"}, "ensemble": set()}[
            given[0]
        ]
        extra = self.model_fields_set - {given[0]} - allowed
        if extra:
            raise refuse(f"`{sorted(extra)[0]}` does not go with `{given[0]}`")
        return self

    @property
    def kind(self) -> str:
        """Which of the three it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


class TuningDocument(Keys):
    """How options of merges are chosen: on which split, and how many settings each way may try."""

    budget: int = Field(default=8, ge=1)
    split: Literal["validation", "calibration", "adaptation"] = "validation"


class StudyDocument(Keys):
    """The whole file."""

    study: str = Field(min_length=1)
    suite: str
    tasks: list[str] | None = None
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    experts: dict[str, Any]
    ways: dict[str, WayDocument] = Field(min_length=1)
    tuning: TuningDocument = Field(default_factory=TuningDocument)
    split: Literal["test", "validation"] = "test"
    bootstrap: int = Field(default=1000, ge=0)
    reference: str | None = None
    pictures: int = Field(default=1, ge=0)
    about: str = ""
