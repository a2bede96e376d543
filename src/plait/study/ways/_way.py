"""What every way of becoming one has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from plait.errors import InputError
from plait.recipe import Keys
from plait.tasks import Suite, Task

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument

#: What was tried, in a way's folder: setting, validation score of each task, and whether it was taken.
TRIALS = "trials.json"


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

    @property
    def method(self) -> str | None:
        """What its publication is found by: the name of one of plait's methods, or an arXiv number."""
        return None

    @property
    def tuned(self) -> bool:
        """Whether settings are tried on validation data."""
        return False

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
