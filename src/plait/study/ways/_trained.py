"""What ways have in common that train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from plait.errors import InputError
from plait.study._training import joined, problems_of_settings, seen
from plait.study.ways._way import Way

if TYPE_CHECKING:
    from plait.study._at import At
    from plait.study._document import StudyDocument
    from plait.study._study import Study


class Trained(Way):
    """A way that trains; its `settings` go before the experts'."""

    settings: dict[str, Any] = Field(default_factory=dict)

    def problems(self, study: StudyDocument, where: str) -> list[InputError]:
        return problems_of_settings(self.joined(study.experts), where)

    def facts(self, at: At) -> dict[str, Any]:
        return {"settings": self.joined(at.study.experts)}

    def splits(self, study: Study) -> tuple[str, ...]:
        return seen(self.joined(study.experts))

    def joined(self, experts: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of its members."""
        return joined(experts, self.settings)
