"""Shapes as what plotly draws: plain data, whose colours `var(--role)` the page fills in."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from plait.report._palette import RISING, SIGNED
from plait.report._shapes import Bars, Dots, Heat, Line, Lines, Shape

Spec = dict[str, Any]
_SYMBOLS = {"full": ("circle", 9), "ring": ("circle-open", 7), "diamond": ("diamond", 10)}
_SHOWN = 34


def spec(shape: Shape) -> Spec:
    """Traces, layout, height in pixels and the least width; a narrower page scrolls."""
    if isinstance(shape, Heat):
        return {**_heat(shape), "least": 90 + 24 * len(shape.x)}
    if isinstance(shape, Dots):
        return {**_dots(shape), "least": 0}
    return {**(_bars(shape) if isinstance(shape, Bars) else _lines(shape)), "least": 0}


def _role(name: str) -> str:
    return f"var(--{name})"


def _told(text: str) -> str:
    """plotly reads tags in its texts."""
    return html.escape(text, quote=False)


def _short(text: str) -> str:
    return _told(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _numbers(values: Any) -> list[float | None]:
    """JSON has neither NaN nor infinity."""
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, dtype=np.float64)]


def _rows(names: Sequence[str], **more: Any) -> Spec:
    """An axis of names, the first on top; by places, so that two of one name stay two."""
    count = len(names)
    every = 1 + (count - 1) // 60
    places = list(range(0, count, every))
    return {
        "tickvals": places,
        "ticktext": [_short(names[i]) for i in places],
        "range": [count - 0.5, -0.5],
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        **more,
    }


def _heat(shape: Heat) -> Spec:
    colours = RISING if shape.scale == "rising" else SIGNED
    span = shape.high - shape.low or 1.0
    cells = [
        {
            "x": i,
            "y": j,
            "text": _told(shape.text[j][i]),
            "showarrow": False,
            "font": {"color": ink(shape, float(shape.values[j][i]), span)},
        }
        for j in range(len(shape.y))
        for i in range(len(shape.x))
    ]
    hover = [
        [f"{_told(y)}, {_told(x)}: {_told(t)}" for x, t in zip(shape.x, of, strict=True)]
        for y, of in zip(shape.y, shape.text, strict=True)
    ]
    trace = {
        "type": "heatmap",
        "z": [_numbers(row) for row in shape.values],
        "zmin": shape.low,
        "zmax": shape.high,
        "colorscale": [[i / (len(colours) - 1), c] for i, c in enumerate(colours)],
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "xgap": 2,
        "ygap": 2,
        "colorbar": {
            "title": {"text": _told(shape.unit), "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
        },
    }
    x = {**_rows(shape.x, side="top"), "range": [-0.5, len(shape.x) - 0.5], "tickangle": -40}
    layout = {
        "xaxis": x,
        "yaxis": _rows(shape.y),
        "annotations": cells,
        "margin": {"t": 10, "r": 10, "b": 10},
    }
    return {"data": [trace], "layout": layout, "height": 150 + 32 * len(shape.y), "heat": True}


def ink(shape: Heat, value: float, span: float) -> str:
    """Dark on light cells, light on dark ones; of the text's colour on a blank one."""
    if not math.isfinite(value):
        return _role("text")
    part = (value - shape.low) / span
    dark = part > 0.6 if shape.scale == "rising" else not 0.12 < part < 0.85
    return "#ffffff" if dark else "#1c2126"


def _dots(shape: Dots) -> Spec:
    places = {name: i for i, name in enumerate(shape.rows)}
    traces = []
    for series in shape.series:
        symbol, size = _SYMBOLS[series.mark]
        dots = series.dots
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": _short(series.name),
            "x": _numbers([dot.value for dot in dots]),
            "y": [places[dot.row] for dot in dots],
            "text": [
                _told(f"{dot.row}: {dot.value:.4g}" + (f" — {dot.told}" if dot.told else "")) for dot in dots
            ],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"symbol": symbol, "size": size, "color": _role(series.colour)},
        }
        if any(dot.low is not None for dot in dots):
            down, up = zip(*(dot.reach for dot in dots), strict=True)
            trace["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": _numbers(up),
                "arrayminus": _numbers(down),
                "color": _role(series.colour),
                "thickness": 2,
                "width": 4,
            }
        traces.append(trace)
    lines = [_ruled({"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}) for x in shape.lines]
    layout = {
        "xaxis": {"title": {"text": _told(shape.unit)}, "zeroline": False, "automargin": True},
        "yaxis": _rows(shape.rows, showgrid=True),
        "shapes": lines,
        "showlegend": True,
    }
    return {"data": traces, "layout": layout, "height": 130 + 30 * len(shape.rows)}


def _bars(shape: Bars) -> Spec:
    hollow = list(shape.hollow) or [False] * len(shape.rows)
    layout: Spec = {"yaxis": _rows(shape.rows), "barmode": "overlay", "showlegend": any(hollow)}
    count, traces = len(shape.panels), []
    for place, (unit, values) in enumerate(shape.panels.items()):
        axis = "" if place == 0 else str(place + 1)
        gap = 0.06 if count > 1 else 0.0
        domain = [
            place / count + (gap if place else 0),
            (place + 1) / count - (gap if place < count - 1 else 0),
        ]
        layout[f"xaxis{axis}"] = {
            "title": {"text": _told(unit)},
            "domain": domain,
            "zeroline": False,
            "rangemode": "tozero",
            "nticks": 4,
            "tickangle": 0,
        }
        for which, name in ((False, shape.full_name), (True, shape.hollow_name)):
            rows = [i for i, each in enumerate(hollow) if each is which]
            if not rows:
                continue
            fill = _role("page") if which else _role("merge")
            traces.append(
                {
                    "type": "bar",
                    "orientation": "h",
                    "name": _told(name or unit),
                    "showlegend": place == 0,
                    "legendgroup": name,
                    "x": _numbers([values[i] for i in rows]),
                    "y": rows,
                    "width": 0.66,
                    "text": [_told(f"{shape.rows[i]}: {values[i]:.4g}") for i in rows],
                    "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                    "xaxis": f"x{axis}",
                    "marker": {"color": fill, "line": {"color": _role("merge"), "width": 1.5}},
                }
            )
    return {
        "data": traces,
        "layout": layout,
        "height": 110 + max(7, min(26, 900 // len(shape.rows))) * len(shape.rows),
    }


def _lines(shape: Lines) -> Spec:
    count, traces, told = len(shape.panels), [], set()
    layout: Spec = {"showlegend": True, "shapes": []}
    for place, (unit, lines) in enumerate(shape.panels.items()):
        axis = "" if place == 0 else str(place + 1)
        high = 1 - place / count
        layout[f"yaxis{axis}"] = {
            "title": {"text": _told(unit)},
            "domain": [high - 1 / count + (0.08 if place < count - 1 else 0), high],
            "zeroline": False,
            "automargin": True,
        }
        layout[f"xaxis{axis}"] = {"anchor": f"y{axis}", "zeroline": False}
        if place:
            layout[f"xaxis{axis}"]["matches"] = "x"
        if place == count - 1:
            layout[f"xaxis{axis}"]["title"] = {"text": _told(shape.x)}
        for line in lines:
            traces.append(_line(line, axis, line.name not in told, shape.x))
            told.add(line.name)
        for y in shape.levels.get(unit, ()):
            across = {"x0": 0, "x1": 1, "xref": "paper", "y0": y, "y1": y, "yref": f"y{axis}"}
            layout["shapes"].append(_ruled(across))
    return {"data": traces, "layout": layout, "height": 120 + 240 * count}


def _ruled(place: Spec) -> Spec:
    """A thin dotted line to compare with."""
    return {"type": "line", **place, "line": {"color": _role("muted"), "width": 1, "dash": "dot"}}


def _line(line: Line, axis: str, first: bool, counted: str) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers" if line.single else "lines",
        "name": _short(line.name),
        "legendgroup": line.name,
        "showlegend": first,
        "x": _numbers(line.x),
        "y": _numbers(line.y),
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "hovertemplate": f"%{{y:.4g}} at {counted} %{{x:.6g}}",
        "line": {"color": _role(line.colour), "width": 1.6, "dash": line.dash},
        "marker": {"color": _role(line.colour), "size": 7},
    }
