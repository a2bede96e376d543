"""What a suite's YAML file says, as typed documents; see `docs/suites.md` for the grammar in words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from plait.recipe import Keys, refuse
from plait.tasks._task import SPLITS

Kind = Literal["csv", "jsonl", "npz", "dataset"]
KINDS: tuple[Kind, ...] = ("csv", "jsonl", "npz", "dataset")


class DataDocument(Keys):
    """Where a task's examples come from: exactly one of `csv`, `jsonl`, `npz` and `dataset`.

    With `files` (or a dataset's `parts`) every split has a file (part) of its own; with `shares` one table is
    cut, by `source` where that is given.
    """

    csv: str | dict[str, str] | None = None
    jsonl: str | dict[str, str] | None = None
    npz: str | dict[str, str] | None = None
    dataset: str | None = None
    config: str | None = None
    revision: str | None = None
    parts: dict[str, str] | None = None
    shares: dict[str, float] | None = None
    source: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_kind(self) -> DataDocument:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise refuse(f"it needs exactly one of {', '.join(f'`{kind}`' for kind in KINDS)}")
        whole = isinstance(getattr(self, given[0]), str) and self.parts is None
        if whole == (self.shares is None):
            told = "`shares` of its splits" if whole else "no `shares`, since its splits are named one by one"
            raise refuse(f"it needs {told}", "shares: {train: 0.8, test: 0.2}" if whole else "")
        for split in (*(self.shares or {}), *(self.parts or {}), *self._files):
            if split not in SPLITS:
                raise refuse(f"`{split}` is no split", f"splits are {', '.join(SPLITS)}")
        shares = (self.shares or {}).values()
        if not all(share > 0 for share in shares) or not sum(shares) <= 1 + 1e-9:
            raise refuse("shares are above 0 and sum to 1 at most")
        return self

    @property
    def kind(self) -> Kind:
        """Which of the four it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def _files(self) -> dict[str, str]:
        given = getattr(self, self.kind)
        return given if isinstance(given, dict) else {}


class TaskDocument(Keys):
    """One task; what it leaves out, the suite says.

    `input` left out is the column of that name, or, for numbers, all columns but label and source.
    """

    name: str
    data: DataDocument
    input: str | list[str] | None = None
    label: str = "label"
    classes: int | None = Field(default=None, ge=1)
    loss: Literal["cross_entropy", "squared_error", "next_token"] = "cross_entropy"
    metric: Literal["accuracy", "macro_f1", "mean_squared_error", "bits_per_byte", "perplexity"] | None = None
    expert: str | None = None
    semi_synthetic: bool = False
    about: str = ""

    @model_validator(mode="after")
    def _has_classes(self) -> TaskDocument:
        if self.input == []:
            raise refuse("`input` names no column")
        if self.loss == "cross_entropy" and self.classes is None:
            raise refuse("it needs `classes`: how many there are")
        return self


class BaseDocument(Keys):
    """The network that tasks start from: a transformers model, or what a function of the user's gives."""

    model: str | None = None
    type: str = "AutoModel"
    call: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> BaseDocument:
        if (self.model is None) == (self.call is None):
            raise refuse("it needs `model` (a folder or hub id) or `call` (`package.module:function`)")
        if self.call is not None and self.call.count(":") != 1:
            raise refuse("`call` names a function as `package.module:function`")
        return self


class SuiteDocument(Keys):
    """The whole file."""

    suite: str
    base: BaseDocument
    tasks: list[TaskDocument] = Field(min_length=1)
    reads: Literal["numbers", "text", "images"] = "numbers"
    processor: str | None = None
    length: int = Field(default=128, ge=1)
    width: int | None = Field(default=None, ge=1)
    meet: Literal["input", "mean_pooled", "pooled", "logits"] = "input"
    run_by_plait: bool = True
    about: str = ""

    @model_validator(mode="after")
    def _fits(self) -> SuiteDocument:
        if self.reads != "numbers" and not (self.processor or self.base.model):
            raise refuse(f"reading {self.reads} needs a `processor`")
        for task in self.tasks:
            if self.reads != "numbers" and isinstance(task.input, list):
                raise refuse(f"reading {self.reads} takes one column, task `{task.name}` names several")
            if self.reads != "text" and task.loss == "next_token":
                raise refuse(f"task `{task.name}` predicts tokens, which needs `reads: text`")
        if self.width is None and any(task.loss != "next_token" for task in self.tasks):
            raise refuse("it needs `width`: how many features the base gives to heads")
        return self
