"""A table, once, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "{}$&#_%"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "†": r"\textdagger{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\to$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "·": r"$\cdot$",
    "√": r"$\surd$",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    **{power: f"$^{{{digit}}}$" for digit, power in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    "⁻": "$^{-}$",
    "\n": " ",
}
_MARKDOWN = {**{c: f"\\{c}" for c in "\\|*_`[]"}, "<": "&lt;", ">": "&gt;", "&": "&amp;", "\n": " "}


@dataclass(frozen=True)
class Number:
    """A number in a table.

    Args:
        value: in the unit that the column's name tells.
        sd: its standard deviation over seeds; None with one seed.
        low, high: of its 95 % interval; NaN if there is none.
        digits: after the point.
        best: whether it is the best of its column.
        tiny: whether one that rounds to 0 is told as less than what doesn't, as p-values are.
    """

    value: float
    sd: float | None = None
    low: float = math.nan
    high: float = math.nan
    digits: int = 3
    best: bool = False
    tiny: bool = False

    def __str__(self) -> str:
        if self.tiny and 0 <= self.value < 10**-self.digits:
            return f"< {10**-self.digits:.{self.digits}f}"
        text = digits(self.value, self.digits)
        if self.sd is not None:
            text += f" ± {digits(self.sd, self.digits)}"
        if not math.isnan(self.low):
            text += f" [{digits(self.low, self.digits)}, {digits(self.high, self.digits)}]"
        return text


def digits(value: float, count: int) -> str:
    """A number to so many digits after the point, with a true minus."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{count}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def spread(values: Iterable[float], digits: int = 3, scale: float = 1.0, best: bool = False) -> Number:
    """Mean over seeds and, of several, their standard deviation."""
    array = np.asarray(list(values), dtype=np.float64) * scale
    with np.errstate(invalid="ignore"):
        sd = float(array.std(ddof=1)) if len(array) > 1 else None
    return Number(float(array.mean()), sd, digits=digits, best=best)


def places_of(values: Iterable[float]) -> int:
    """How many digits after the point a column's numbers need."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=1.0)
    return 3 if largest < 10 else 2 if largest < 100 else 1


Cell = str | Number


@dataclass(frozen=True)
class Table:
    """Columns and rows.

    Args:
        name: of its files.
        title: what it shows, in a sentence.
        columns: their names, with units.
        rows: of words and numbers.
        notes: what to know to read it.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def right(self, column: int) -> bool:
        """Whether a column holds numbers, which stand to the right."""
        return any(isinstance(row[column], Number) for row in self.rows)

    def markdown(self) -> str:
        """As Markdown."""
        rule = ["---:" if self.right(i) else "---" for i in range(len(self.columns))]
        body = [[_strong(cell, "**{}**", _MARKDOWN) for cell in row] for row in self.rows]
        lines = [[_escaped(c, _MARKDOWN) for c in self.columns], rule, *body]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        below = "".join(f"\n\n{_escaped(note, _MARKDOWN)}" for note in self.notes)
        return f"{_escaped(self.title, _MARKDOWN)}\n\n{text}{below}\n"

    def csv(self) -> str:
        """As CSV, numbers in full; its `sd`, `low` and `high` have columns of their own."""
        parts = [_parts([row[i] for row in self.rows]) for i in range(len(self.columns))]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        heads = (
            [name, *(f"{name} {p}" for p in more)] for name, more in zip(self.columns, parts, strict=True)
        )
        writer.writerow([each for head in heads for each in head])
        for row in self.rows:
            writer.writerow([v for cell, more in zip(row, parts, strict=True) for v in _values(cell, more)])
        return out.getvalue()

    def latex(self) -> str:
        """As LaTeX; needs the package booktabs."""
        places = "".join("r" if self.right(i) else "l" for i in range(len(self.columns)))
        head = " & ".join(_escaped(name, _LATEX) for name in self.columns)
        body = [" & ".join(_strong(cell, r"\textbf{{{}}}", _LATEX) for cell in row) for row in self.rows]
        notes = "".join(f" {_escaped(note, _LATEX)}" for note in self.notes)
        stop = "." if notes and not self.title.endswith((".", "!", "?")) else ""
        lines = [
            r"\begin{table}",
            r"\centering",
            f"\\caption{{{_escaped(self.title, _LATEX)}{stop}{notes}}}",
            f"\\label{{tab:{self.name}}}",
            f"\\begin{{tabular}}{{{places}}}",
            r"\toprule",
            f"{_guarded(head)} \\\\",
            r"\midrule",
            *(f"{_guarded(line)} \\\\" for line in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _escaped(text: str, how: dict[str, str]) -> str:
    return "".join(how.get(character, character) for character in text)


def _guarded(line: str) -> str:
    r"""A row for LaTeX, where `\\` before it, or a rule, would take `[` or `*` at its start for its own."""
    return f"{{}}{line}" if line.lstrip().startswith(("[", "*")) else line


def _strong(cell: Cell, pattern: str, how: dict[str, str]) -> str:
    text = _escaped(str(cell), how)
    return pattern.format(text) if isinstance(cell, Number) and cell.best else text


def _parts(column: Sequence[Cell]) -> list[str]:
    """Which further numbers a column has."""
    numbers = [cell for cell in column if isinstance(cell, Number)]
    sd = ["sd"] if any(cell.sd is not None for cell in numbers) else []
    return sd + (["low", "high"] if any(not math.isnan(cell.low) for cell in numbers) else [])


def _values(cell: Cell, parts: Sequence[str]) -> list[str]:
    if isinstance(cell, str):
        return [cell, *("" for _ in parts)]
    return ["" if v is None else repr(float(v)) for v in (cell.value, *(getattr(cell, p) for p in parts))]
