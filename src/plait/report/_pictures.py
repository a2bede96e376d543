"""The picture that reads at a glance: examples, and which models are right about these and about all."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import MissingExtra
from plait.report._headline import best
from plait.report._results import Picture, Results
from plait.report._table import digits
from plait.tasks import NOTE

#: Labels of up to so many letters have room in a small tile.
_LETTERS = 2


@dataclass(frozen=True)
class Row:
    """What one model says of some pictures.

    Args:
        model: its name.
        right: how many it is right about.
        count: of how many.
        share: what it is right about of all examples that are scored, from 0 to 1; NaN if that is not known.
    """

    model: str
    right: int
    count: int
    share: float

    @property
    def counted(self) -> str:
        """`5/8`, or a dash where it says nothing."""
        return f"{self.right}/{self.count}" if self.count else "–"

    @property
    def all(self) -> str:
        """The share of all in words: `61 %`."""
        return f"{digits(100 * self.share, 0)} %" if math.isfinite(self.share) else ""


@dataclass(frozen=True)
class Block:
    """The pictures of one task.

    Args:
        task: its name.
        label: the same as it is shown.
        pictures: of it.
        rows: for each model.
    """

    task: str
    label: str
    pictures: list[Picture]
    rows: list[Row]

    @property
    def letters(self) -> int:
        """Of the longest label."""
        words = [p.label for p in self.pictures] + [word for p in self.pictures for word in p.said.values()]
        return max(map(len, words), default=0)

    @property
    def wordy(self) -> bool:
        """Whether labels are words, which need wider tiles than letters do."""
        return self.letters > _LETTERS


@dataclass(frozen=True)
class Sheet:
    """Pictures by models.

    Args:
        models: that are compared.
        blocks: the pictures, task by task.
        rows: each model over all blocks; shares are means over tasks.
        examples: how many the shares are of.
        split: that the pictures are of.
        drawn: how the pictures were drawn, in words.
        note: what to know of semi-synthetic tasks, if there are any.
    """

    models: list[str]
    blocks: list[Block]
    rows: list[Row]
    examples: int
    split: str
    drawn: str
    note: str = ""

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return sum(len(block.pictures) for block in self.blocks)

    @property
    def of_these(self) -> str:
        """What the first numbers count."""
        return f"right of these {self.count}"

    @property
    def of_all(self) -> str:
        """What the shares are of; empty if none is known."""
        return f"of all {self.examples:,} {self.split} examples" if self.examples else ""

    @property
    def what(self) -> str:
        """What pictures these are."""
        return f"{self.count} {self.split} pictures{f' {self.drawn}' if self.drawn else ''}"

    @property
    def seen(self) -> str:
        """In words."""
        told = [f"{row.model} is right about {row.right} of {row.count}{_all(row)}" for row in self.rows]
        return f"{self.what}: {', '.join(told)}."

    @property
    def chance(self) -> str:
        """How far the pictures can be believed; empty where there is nothing to hold against them."""
        if not self.examples:
            return ""
        return (
            f"Which model is better is told by its share {self.of_all} (mean over tasks); "
            f"on {self.count} pictures alone, chance may turn the order round."
        )


def _all(row: Row) -> str:
    return f" ({row.all} of all)" if row.all else ""


def sheet(results: Results) -> Sheet | None:
    """The pictures, and of the models: the base, the reference, the best way, the bounds, the experts."""
    if not results.pictures:
        return None
    known = [m for m in results.models if any(m in picture.said for picture in results.pictures)]
    kinds = {kind: [m for m in known if results.kind(m) == kind] for kind in ("base", "joint", "experts")}
    ways = [m for m in (results.reference, best(results)) if m in known]
    models = list(dict.fromkeys([*kinds["base"], *ways, *kinds["joint"], *kinds["experts"]])) or known
    scored = _scored(results)
    drawn = sorted(results.pictures, key=lambda picture: _place(results, picture))
    blocks = []
    for task in dict.fromkeys(picture.task for picture in drawn):
        own = [picture for picture in drawn if picture.task == task]
        rows = [_row(m, own, scored.get((m, task), (math.nan, 0))[0]) for m in models]
        blocks.append(Block(task, results.label(task), own, rows))
    shares = [[block.rows[m].share for block in blocks] for m in range(len(models))]
    rows = [_row(m, drawn, float(np.mean(of))) for m, of in zip(models, shares, strict=True)]
    known_shares = any(math.isfinite(row.share) for row in rows)
    examples = sum(max(n for (_, t), (_, n) in scored.items() if t == b.task) for b in blocks if known_shares)
    note = NOTE if results.semi_synthetic else ""
    return Sheet(models, blocks, rows, examples, results.split, results.drawn, note)


def _scored(results: Results) -> dict[tuple[str, str], tuple[float, int]]:
    """Model and task → the share of examples that it is right about, and how many there are.

    Of the first seed, whose models say what pictures show; only accuracy is such a share.
    """
    rows = (row for row in results.scores[0] if row.metric == "accuracy")
    return {(row.model, row.task): (row.value, row.n) for row in rows}


def _row(model: str, pictures: Sequence[Picture], share: float) -> Row:
    about = [bool(picture.right[model]) for picture in pictures if model in picture.right]
    return Row(model, sum(about), len(about), share)


def _place(results: Results, picture: Picture) -> int:
    return results.tasks.index(picture.task) if picture.task in results.tasks else len(results.tasks)


def data_url(image: NDArray[Any]) -> str:
    """A grey image as a PNG in an address of its own."""
    try:
        from matplotlib.image import imsave
    except ImportError as error:
        raise MissingExtra("matplotlib", "report", "a report") from error
    out = io.BytesIO()
    imsave(out, greys(image), cmap="gray", vmin=0, vmax=1, format="png")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def greys(image: NDArray[Any]) -> NDArray[np.float64]:
    """An image whose numbers are all between black and white."""
    return np.clip(np.nan_to_num(np.asarray(image, dtype=np.float64)), 0, 1)
