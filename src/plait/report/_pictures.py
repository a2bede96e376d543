"""The picture that reads at a glance: examples, and which models are right about them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.errors import MissingExtra
from plait.report._headline import best
from plait.report._palette import LIGHT
from plait.report._results import Picture, Results


@dataclass(frozen=True)
class Sheet:
    """Pictures by models.

    Args:
        models: the columns.
        rows: the pictures, those of a task together.
        right: model → how many it is right about, and of how many.
        split: that the pictures are of.
    """

    models: list[str]
    rows: list[Picture]
    right: dict[str, tuple[int, int]]
    split: str

    @property
    def seen(self) -> str:
        """In words."""
        shares = [f"{model} is right about {good} of {count}" for model, (good, count) in self.right.items()]
        return f"{len(self.rows)} {self.split} pictures: {', '.join(shares)}."


def sheet(results: Results) -> Sheet | None:
    """The pictures, and of the models: the base, the reference, the best way, the bounds, the experts."""
    if not results.pictures:
        return None
    known = [m for m in results.models if any(m in picture.said for picture in results.pictures)]
    kinds = {kind: [m for m in known if results.kind(m) == kind] for kind in ("base", "joint", "experts")}
    ways = [m for m in (results.reference, best(results)) if m in known]
    models = list(dict.fromkeys([*kinds["base"], *ways, *kinds["joint"], *kinds["experts"]])) or known
    rows = sorted(results.pictures, key=lambda picture: _place(results, picture))
    about = {m: [bool(p.right[m]) for p in rows if m in p.right] for m in models}
    return Sheet(models, rows, {m: (sum(of), len(of)) for m, of in about.items()}, results.split)


def _place(results: Results, picture: Picture) -> int:
    return results.tasks.index(picture.task) if picture.task in results.tasks else len(results.tasks)


def data_url(image: NDArray[Any]) -> str:
    """A grey image as a PNG in an address of its own."""
    try:
        from matplotlib.image import imsave
    except ImportError as error:
        raise MissingExtra("matplotlib", "report", "a report") from error
    out = io.BytesIO()
    imsave(
        out,
        np.clip(np.nan_to_num(np.asarray(image, dtype=np.float64)), 0, 1),
        cmap="gray",
        vmin=0,
        vmax=1,
        format="png",
    )
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def picture_sheet(results: Results) -> bytes | None:
    """The same as a PNG."""
    shown = sheet(results)
    if shown is None:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    count, width = len(shown.rows), len(shown.models)
    canvas = Canvas(figsize=(2.5 + 1.05 * width, 0.9 + 0.42 * count), facecolor=LIGHT["page"])
    FigureCanvasAgg(canvas)
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.axis("off")
    plain: dict[str, Any] = {"va": "center", "fontsize": 8, "color": LIGHT["text"], "parse_math": False}
    for column, model in enumerate(shown.models):
        axes.text(column + 0.5, -0.5, _cut(model, 14), ha="center", fontweight="bold", **plain)
    for row, picture in enumerate(shown.rows):
        if row == 0 or shown.rows[row - 1].task != picture.task:
            axes.text(-2.3, row + 0.5, _cut(results.label(picture.task), 20), **plain)
        axes.text(-0.3, row + 0.5, _cut(picture.label, 8), ha="center", **plain)
        image = np.clip(np.nan_to_num(np.asarray(picture.image, dtype=np.float64)), 0, 1)
        axes.imshow(
            image, cmap="gray", vmin=0, vmax=1, extent=(-0.95, -0.59, row + 0.94, row + 0.06), aspect="auto"
        )
        for column, model in enumerate(shown.models):
            if model in picture.said:
                right = picture.right.get(model, False)
                word = "right" if right else "wrong"
                axes.add_patch(_tile(column, row, LIGHT[word]))
                text = f"{'✓' if right else '✗'} {_cut(picture.said[model], 10)}"
                axes.text(
                    column + 0.5, row + 0.5, text, ha="center", **{**plain, "color": LIGHT[f"on-{word}"]}
                )
    axes.set_xlim(-2.4, width)
    axes.set_ylim(count, -1.4)
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=150, metadata={"Description": shown.seen})
    return out.getvalue()


def _tile(column: int, row: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column + 0.04, row + 0.07), 0.92, 0.86, facecolor=colour, edgecolor="none")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
