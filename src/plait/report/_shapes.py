"""The four shapes of figures, free of who draws them.

Colours are roles of the palette.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Heat:
    """Numbers as colours.

    Args:
        x, y: names of columns and rows; the first row is drawn on top.
        values: `(rows, columns)`; NaN is left blank.
        text: `(rows, columns)`, what is written into each cell.
        scale: `rising` from little to much, or `signed` from −1 through 0 to 1.
        low, high: of the scale.
        unit: of the values.
    """

    x: Sequence[str]
    y: Sequence[str]
    values: NDArray[Any]
    text: Sequence[Sequence[str]]
    scale: Literal["rising", "signed"]
    low: float
    high: float
    unit: str


@dataclass(frozen=True)
class Dot:
    """A point in a row; `low` and `high` are the ends of its interval, if it has one."""

    row: str
    value: float
    low: float | None = None
    high: float | None = None
    told: str = ""

    @property
    def reach(self) -> tuple[float, float]:
        """How far its interval goes down and up; 0 where an interval of few draws lies beyond it."""
        down = 0.0 if self.low is None else self.value - self.low
        up = 0.0 if self.high is None else self.high - self.value
        return max(0.0, down), max(0.0, up)


@dataclass(frozen=True)
class Series:
    """Points of one meaning.

    Args:
        name: in the legend.
        colour: role.
        dots: the points.
        mark: `full` for what counts, `ring` for what is behind it, `diamond` for what was chosen.
    """

    name: str
    colour: str
    dots: Sequence[Dot]
    mark: Literal["full", "ring", "diamond"] = "full"


@dataclass(frozen=True)
class Dots:
    """Rows of points on one axis.

    Args:
        rows: names, the first on top.
        series: the points.
        unit: of the axis.
        lines: values to compare with.
    """

    rows: Sequence[str]
    series: Sequence[Series]
    unit: str
    lines: Sequence[float] = ()


@dataclass(frozen=True)
class Bars:
    """Lying bars, in one panel or several that share the rows.

    Args:
        rows: names, the first on top.
        panels: unit → a value for each row.
        hollow: rows that are drawn as outlines.
        hollow_name, full_name: what that means; empty where nothing is.
    """

    rows: Sequence[str]
    panels: Mapping[str, Sequence[float]]
    hollow: Sequence[bool] = ()
    full_name: str = ""
    hollow_name: str = ""


@dataclass(frozen=True, eq=False)
class Line:
    """One line: its name in the legend, its colour's role, its points."""

    name: str
    colour: str
    dash: Literal["solid", "dash", "dot", "dashdot"]
    x: NDArray[Any]
    y: NDArray[Any]

    @property
    def single(self) -> bool:
        """Whether there is but one point, which no line shows."""
        x, y = (np.asarray(each, dtype=np.float64) for each in (self.x, self.y))
        return int((np.isfinite(x) & np.isfinite(y)).sum()) == 1


@dataclass(frozen=True)
class Lines:
    """Panels of lines, one above the other.

    Args:
        panels: name of the upright axis → lines.
        x: name of the lying axis.
        levels: name of the upright axis → values to compare with.
    """

    panels: Mapping[str, Sequence[Line]]
    x: str
    levels: Mapping[str, Sequence[float]] = field(default_factory=dict)


Shape = Heat | Dots | Bars | Lines


@dataclass(frozen=True)
class Figure:
    """A shape with its words.

    Args:
        name: of its file.
        title: what it shows.
        seen: what is to be seen in it, for those who look and for those who can't.
        shape: the figure.
        notes: how to read it.
    """

    name: str
    title: str
    seen: str
    shape: Shape
    notes: Sequence[str] = field(default=())
