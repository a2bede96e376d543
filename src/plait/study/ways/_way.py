"""What every way of becoming one has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from torch import nn

from plait.errors import InputError
from plait.recipe import Keys, YamlDocument, validate
from plait.study._training import SETTINGS
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument
    from plait.study._study import Study


class Way(Keys):
    """One way of becoming one. Its fields are the keys that it has in a study's file.

    A kind of way derives from this, and is entered under its key in `WAYS`.
    """

    #: How a report groups it: `merge` or `student`, which compete; `joint`, `ensemble`, `federated`.
    kind: ClassVar[str] = "merge"
    #: Whether there is something to make before it can be measured.
    makes: ClassVar[bool] = True
    #: Whether what it makes is made of the experts.
    of_experts: ClassVar[bool] = True
    #: Whether it has settings that can be chosen on validation examples.
    tunable: ClassVar[bool] = True
    #: Keys that matter only when it is asked: what is made is the same whatever they are.
    asked: ClassVar[frozenset[str]] = frozenset()

    tune: dict[str, list[Any]] = Field(default_factory=dict)

    @property
    def method(self) -> str | None:
        """What its publication is found by: the name of one of plait's methods, or an arXiv number."""
        return None

    @property
    def grid(self) -> list[dict[str, Any]]:
        """All combinations of what is tuned; an empty one if nothing is."""
        return [
            dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())
        ]

    @property
    def tuned(self) -> bool:
        """Whether settings are tried on validation data."""
        return len(self.grid) > 1

    @classmethod
    def place_of(cls, key: str) -> str | None:
        """Which mapping of its keys a setting belongs to; None for a key of its own."""
        known = cls.model_fields
        if key in known:
            return None
        if "settings" in known and ("options" not in known or key in SETTINGS):
            return "settings"
        return "options" if "options" in known else None

    @classmethod
    def needed(cls) -> set[str]:
        """Keys that it can't be without, such as the one that says its kind."""
        return {name for name, entry in cls.model_fields.items() if entry.is_required()}

    def variant(self, setting: Mapping[str, Any]) -> Way:
        """This way with a setting of what is tuned.

        Raises:
            InputError: a key does not take the value, or there is none of that name.
        """
        data: dict[str, Any] = self.model_dump(by_alias=True, exclude_unset=True, exclude={"tune"})
        for key, value in setting.items():
            place = self.place_of(key)
            if place is None:
                data[key] = value
            else:
                data[place] = {**data.get(place, {}), key: value}
        found, problems, _ = validate(type(self), YamlDocument(data, ""), strict=True)
        if found is None or problems:
            raise problems[0].located(lambda _: "")
        return found

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        """What is wrong with it, before anything is run.

        Args:
            study: that it belongs to.
            where: it stands.
        """
        del study, where
        return []

    def problems_of_suite(self, suite: Suite, where: str) -> list[InputError]:
        """What is wrong with it on these tasks, before anything is run."""
        del suite, where
        return []

    def facts(self, at: At) -> dict[str, Any]:
        """What it depends on besides its own fields, the seed and the steps before it."""
        del at
        return {}

    def splits(self, study: Study) -> tuple[str, ...]:
        """The splits that it is made from, besides what its experts learned."""
        del study
        return ()

    def make(self, at: At, folder: Path) -> None:
        """Write what it becomes into a folder; a killed run may have left some of it there.

        Args:
            at: the base, the experts, the suite.
            folder: its own. A checkpoint named `model` in it is what it becomes, if that is one model.
        """
        raise NotImplementedError

    def answers(self, at: At, folder: Path | None) -> Callable[[Task], nn.Module]:
        """What is asked of each task.

        Args:
            at: the base, the experts, the suite.
            folder: what `make` has written; None if there is nothing to make.
        """
        assert folder is not None
        return at.one(folder / "model")
