"""Shapes as PNGs, by matplotlib: plotly would need a browser for that."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.errors import MissingExtra
from plait.report._palette import LIGHT, RISING, SIGNED
from plait.report._plotly import ink
from plait.report._shapes import Bars, Dots, Figure, Heat, Lines

_STYLE: Any = {
    "font.size": 9,
    "text.parse_math": False,
    "text.color": LIGHT["text"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LIGHT["line"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["text"],
    "legend.frameon": False,
}
_MARKS = {"full": ("o", 6), "ring": ("o", 5), "diamond": ("D", 6)}


def png(figure: Figure) -> bytes:
    """A figure as a PNG, 150 dots an inch.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtra("matplotlib", "report", "a report") from error
    draw = {Heat: _heat, Dots: _dots, Bars: _bars, Lines: _lines}[type(figure.shape)]
    with mpl.rc_context(_STYLE):
        canvas = Canvas(layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor=LIGHT["page"])
        FigureCanvasAgg(canvas)
        draw(canvas, figure.shape)
        canvas.suptitle(figure.title, fontsize=11, fontweight="bold", color=LIGHT["text"])
        out = io.BytesIO()
        canvas.savefig(out, format="png", dpi=150, metadata={"Description": figure.seen})
    return out.getvalue()


def _short(text: str) -> str:
    return text if len(text) <= 34 else text[:33] + "…"


def _rows(axes: Any, names: Sequence[str]) -> None:
    every = 1 + (len(names) - 1) // 60
    axes.set_yticks(range(0, len(names), every), [_short(name) for name in names[::every]])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(length=0)


def _heat(canvas: Any, shape: Heat) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    canvas.set_size_inches(max(4.5, 2.4 + 0.62 * len(shape.x)), 1.7 + 0.34 * len(shape.y))
    axes = canvas.subplots()
    colours = LinearSegmentedColormap.from_list("plait", RISING if shape.scale == "rising" else SIGNED)
    span = shape.high - shape.low or 1.0
    image = axes.imshow(shape.values, cmap=colours, vmin=shape.low, vmax=shape.high, aspect="auto")
    _rows(axes, shape.y)
    axes.set_xticks(
        range(len(shape.x)), [_short(name) for name in shape.x], rotation=40, ha="left", color=LIGHT["text"]
    )
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(shape.x) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(shape.y) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=LIGHT["page"], linewidth=2)
    axes.tick_params(which="both", length=0)
    for j in range(len(shape.y)):
        for i in range(len(shape.x)):
            colour = ink(shape, float(shape.values[j][i]), span)
            colour = colour if colour.startswith("#") else LIGHT["text"]
            axes.text(i, j, shape.text[j][i], ha="center", va="center", color=colour, fontsize=8)
    bar = canvas.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label=shape.unit)
    bar.outline.set_visible(False)


def _dots(canvas: Any, shape: Dots) -> None:
    canvas.set_size_inches(7.2, 1.5 + 0.31 * len(shape.rows))
    axes = canvas.subplots()
    places = {name: i for i, name in enumerate(shape.rows)}
    for x in shape.lines:
        axes.axvline(x, color=LIGHT["muted"], linewidth=1, linestyle=":", zorder=1)
    for series in shape.series:
        marker, size = _MARKS[series.mark]
        colour = LIGHT[series.colour]
        x, y = [dot.value for dot in series.dots], [places[dot.row] for dot in series.dots]
        ends = [dot.reach for dot in series.dots]
        fill = "none" if series.mark == "ring" else colour
        style = {
            "marker": marker,
            "markersize": size,
            "markerfacecolor": fill,
            "color": colour,
            "linestyle": "none",
        }
        axes.errorbar(
            x,
            y,
            xerr=np.transpose(ends) if any(map(any, ends)) else None,
            label=_short(series.name),
            capsize=2.5,
            **style,
        )
    _rows(axes, shape.rows)
    axes.grid(axis="both", linewidth=0.7)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(shape.unit)
    _legend(canvas, axes)


def _legend(canvas: Any, *panels: Any) -> None:
    """One entry for each name, whichever panels it is in; as many beside each other as there is room for."""
    known = {}
    for axes in panels:
        handles, names = axes.get_legend_handles_labels()
        known |= dict(zip(names, handles, strict=True))
    for columns in range(min(len(known), 6), 0, -1):
        legend = canvas.legend(
            known.values(), known.keys(), loc="outside lower center", ncols=columns, fontsize=8
        )
        width = legend.get_window_extent(canvas.canvas.get_renderer()).width
        if width <= canvas.bbox.width or columns == 1:
            break
        legend.remove()


def _bars(canvas: Any, shape: Bars) -> None:
    canvas.set_size_inches(7.2, 1.4 + max(0.09, min(0.28, 9 / len(shape.rows))) * len(shape.rows))
    panels = np.atleast_1d(canvas.subplots(1, len(shape.panels), sharey=True))
    hollow = list(shape.hollow) or [False] * len(shape.rows)
    for axes, (unit, values) in zip(panels, shape.panels.items(), strict=True):
        for which, name in ((False, shape.full_name), (True, shape.hollow_name)):
            rows = [i for i, each in enumerate(hollow) if each is which]
            if rows:
                fill = LIGHT["page"] if which else LIGHT["merge"]
                finite = [values[i] if math.isfinite(values[i]) else 0.0 for i in rows]
                axes.barh(rows, finite, 0.66, color=fill, edgecolor=LIGHT["merge"], label=name or None)
        axes.grid(axis="x", linewidth=0.7)
        axes.spines[:].set_visible(False)
        axes.set_xlabel(unit)
    _rows(panels[0], shape.rows)
    for axes in panels:
        axes.tick_params(length=0)
    if any(hollow):
        _legend(canvas, panels[0])


def _lines(canvas: Any, shape: Lines) -> None:
    canvas.set_size_inches(7.2, 1.0 + 2.3 * len(shape.panels))
    panels = np.atleast_1d(canvas.subplots(len(shape.panels), 1, sharex=True))
    styles = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
    for axes, (unit, lines) in zip(panels, shape.panels.items(), strict=True):
        for level in shape.levels.get(unit, ()):
            axes.axhline(level, color=LIGHT["muted"], linewidth=1, linestyle=":", zorder=1)
        for line in lines:
            axes.plot(
                line.x,
                line.y,
                styles[line.dash],
                color=LIGHT[line.colour],
                linewidth=1.1,
                marker="o" if line.single else None,
                markersize=4,
                label=_short(line.name),
            )
        axes.grid(axis="y", linewidth=0.7)
        axes.tick_params(length=0)
        axes.set_ylabel(unit)
    panels[-1].set_xlabel(shape.x)
    _legend(canvas, *panels)
