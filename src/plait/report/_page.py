"""The page: everything in one file, which asks nothing of any network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from plait.errors import MissingExtra
from plait.report._entry import Entry
from plait.report._headline import caveats, headline
from plait.report._palette import DARK, LIGHT
from plait.report._pictures import data_url, sheet
from plait.report._plotly import spec
from plait.report._results import Results
from plait.report._shapes import Figure
from plait.report._table import Number, Table

#: Anchor, heading, figures, tables shown, tables folded away.
_ORDER = (
    ("averages", "Averages", ("averages",), ("averages",), ("averages_by_seed",)),
    ("tasks", "Task by task", ("normalised",), (), ("normalised", "scores", "scores_by_seed")),
    ("tests", "Tests", (), ("expected", "tests"), ()),
    ("vectors", "Task vectors", ("cosine", "conflict"), (), ("cosine", "conflict")),
    ("training", "Training", ("curves",), ("reached",), ()),
    ("tuning", "Tuning", ("tuning",), ("tuning",), ("trials",)),
    ("costs", "Time and memory", ("costs",), (), ("costs",)),
    ("missing", "Missing tasks", (), ("missing",), ()),
)
#: Longer tables are in the files alone.
_LONGEST = 400


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    anchor: str
    title: str
    figures: Sequence[Figure]
    tables: Sequence[Table]
    folded: Sequence[Table]


def page(
    results: Results, tables: Sequence[Table], figures: Sequence[Figure], cited: Mapping[Entry, Sequence[str]]
) -> str:
    """The report as HTML.

    Raises:
        MissingExtra: plotly is not installed.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_read("page.html"))
    return template.render(
        results=results,
        headline=headline(results),
        caveats=caveats(results),
        sections=_sections(tables, figures),
        sheet=sheet(results),
        cited=cited,
        image=data_url,
        is_number=lambda cell: isinstance(cell, Number),
        download=_download,
        bibtex="\n".join(entry.bibtex() for entry in cited),
        light=_colours(LIGHT),
        dark=_colours(DARK),
        style=Markup(_read("page.css")),
        script=Markup(_read("page.js")),
        specs=_json({figure.name: spec(figure.shape) for figure in figures}),
        plotly=Markup(_plotly()),
    )


def _sections(tables: Sequence[Table], figures: Sequence[Figure]) -> list[Section]:
    table = {each.name: each for each in tables}
    found = []
    for anchor, title, drawn, shown, folded in _ORDER:
        section = Section(
            anchor,
            title,
            [f for f in figures if f.name in drawn or f.name.rpartition("_")[0] in drawn],
            [table[name] for name in shown if name in table],
            [table[name] for name in folded if name in table and len(table[name].rows) <= _LONGEST],
        )
        if section.figures or section.tables or section.folded:
            found.append(section)
    return found


def _read(name: str) -> str:
    return files("plait.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    """plotly's own script, whole."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtra("plotly", "report", "a report") from error
    return str(get_plotlyjs()).replace("</script", r"<\/script")


def _json(value: object) -> Markup:
    """JSON that ends no script, whatever its texts hold."""
    text = json.dumps(value, allow_nan=False)
    return Markup("".join({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026"}.get(c, c) for c in text))


def _colours(palette: Mapping[str, str]) -> Markup:
    return Markup("".join(f"--{name}: {colour}; " for name, colour in palette.items()))


def _download(text: str, kind: str) -> str:
    """A file as an address of its own."""
    return f"data:text/{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
