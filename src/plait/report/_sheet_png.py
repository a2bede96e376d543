"""The picture that reads at a glance as a PNG: a table of all, below it a block for each task."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

from plait.report._palette import LIGHT
from plait.report._pictures import Block, Row, Sheet, greys, sheet
from plait.report._results import Results

#: Inches, except where it says otherwise.
_LINE, _NAME, _COUNT, _GAP = 0.27, 1.35, 0.42, 0.3
_PICTURE = 0.36
_LEGEND = (
    "✓ on blue: right. On orange: what it said instead. Below names: the share of all examples that is right."
)
#: From the top of a block to its first model.
_HEAD = 0.86
#: All blocks that stand side by side.
_WIDEST = 10.0
#: Letters of a model's name, and of a label in a wide tile.
_LONGEST, _WORD = 17, 9


@dataclass(frozen=True)
class _Place:
    """Where a block begins, and how wide a tile is, in inches from the upper left corner."""

    left: float
    top: float
    tile: float


def sheet_png(results: Results) -> bytes | None:
    """The pictures as a PNG; None if there are none."""
    shown = sheet(results)
    if shown is None:
        return None
    out = io.BytesIO()
    canvas = sheet_canvas(shown)
    canvas.savefig(out, format="png", dpi=150, metadata={"Description": shown.seen})
    return out.getvalue()


def sheet_canvas(shown: Sheet) -> Any:
    """The pictures as a figure of matplotlib's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    tile = 0.72 if any(block.wordy for block in shown.blocks) else 0.38
    widest = _NAME + tile * max(len(block.pictures) for block in shown.blocks) + _COUNT
    across = max(1, min(len(shown.blocks), int((_WIDEST + _GAP) // (widest + _GAP))))
    high = _HEAD + _LINE * len(shown.models) + 0.1
    first = 0.45 + _LINE * (len(shown.models) + 0.5)
    down = math.ceil(len(shown.blocks) / across)
    width = max(2 * _GAP + across * widest + (across - 1) * _GAP, 7.2)
    height = first + down * high + 0.5
    canvas = Canvas(figsize=(width, height), facecolor=LIGHT["page"])
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.axis("off")
    _tally(axes, shown)
    for place, block in enumerate(shown.blocks):
        left = _GAP + place % across * (widest + _GAP)
        _block(axes, block, _Place(left, first + place // across * high, tile))
    for place, text in enumerate(filter(None, (_LEGEND, shown.note))):
        _write(axes, _GAP, height - 0.4 + 0.2 * place, text, color=LIGHT["muted"], fontsize=8)
    # Images set the limits of their axes, so these come last.
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return canvas


def _tally(axes: Any, shown: Sheet) -> None:
    """Each model over all tasks; the shares as bars, since they are what counts."""
    bars, wide = _GAP + 3.6, 2.0
    _write(axes, _GAP + 2.8, 0.3, shown.of_these, ha="center", color=LIGHT["muted"])
    _write(axes, bars, 0.3, shown.of_all, color=LIGHT["muted"])
    for place, row in enumerate(shown.rows):
        y = 0.3 + _LINE * (place + 1)
        _write(axes, _GAP, y, _cut(row.model, 2 * _LONGEST), fontweight="bold")
        _write(axes, _GAP + 2.8, y, row.counted, ha="center")
        if row.all:
            _tile(axes, bars, y - 0.08, wide, 0.16, LIGHT["line"])
            _tile(axes, bars, y - 0.08, wide * min(max(row.share, 0.0), 1.0), 0.16, LIGHT["right"])
            _write(axes, bars + wide + 0.1, y, row.all)


def _block(axes: Any, block: Block, at: _Place) -> None:
    tiles = at.left + _NAME
    _write(axes, at.left, at.top + 0.42, _cut(block.label, _LONGEST), fontweight="bold")
    for column, picture in enumerate(block.pictures):
        middle = tiles + (column + 0.5) * at.tile
        x, y = (middle - _PICTURE / 2, middle + _PICTURE / 2), (at.top + 0.62, at.top + 0.26)
        axes.imshow(greys(picture.image), cmap="gray", vmin=0, vmax=1, extent=(*x, *y), aspect="auto")
        _write(axes, middle, at.top + 0.74, _label(block, picture.label), ha="center", fontsize=8)
    for place, row in enumerate(block.rows):
        _row(axes, block, row, _Place(at.left, at.top + _HEAD + place * _LINE, at.tile))


def _row(axes: Any, block: Block, row: Row, at: _Place) -> None:
    tiles, y = at.left + _NAME, at.top + _LINE / 2
    _write(axes, at.left, y - 0.055 if row.all else y, _cut(row.model, _LONGEST), fontsize=8)
    if row.all:
        _write(axes, at.left, y + 0.07, f"{row.all} of all", color=LIGHT["muted"], fontsize=6)
    for column, picture in enumerate(block.pictures):
        if row.model not in picture.said:
            continue
        right = picture.right.get(row.model, False)
        word = "right" if right else "wrong"
        left, colour = tiles + column * at.tile, LIGHT[f"on-{word}"]
        _tile(axes, left + 0.015, at.top + 0.015, at.tile - 0.03, _LINE - 0.03, LIGHT[word])
        # No mark stands beside a label: one that is written from right to left would swap places with it.
        text = "✓" if right else _label(block, picture.said[row.model])
        _write(axes, left + at.tile / 2, y, text, ha="center", color=colour, fontsize=8)
    _write(axes, tiles + len(block.pictures) * at.tile + 0.08, y, row.counted)


def _label(block: Block, text: str) -> str:
    return _cut(text, _WORD if block.wordy else block.letters)


def _write(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    plain: dict[str, Any] = {"va": "center", "fontsize": 9, "color": LIGHT["text"], "parse_math": False}
    axes.text(x, y, text, **plain | style)


def _tile(axes: Any, x: float, y: float, width: float, height: float, colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="none"))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
