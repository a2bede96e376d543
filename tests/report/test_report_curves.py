"""Lines of training can be told apart by colour or dash, in both themes and to eyes of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from sample_results import TASKS, sample

from plait.report import Curve
from plait.report._figures import figures
from plait.report._palette import DARK, LIGHT, MEMBERS
from plait.report._plotly import spec
from plait.report._png import png
from plait.report._shapes import Lines

#: What linear light becomes to those who lack a kind of cone (Machado et al. 2009, severity 1).
EYES = {
    "all cones": np.eye(3),
    "no long cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no middle cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no short cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def light_of(colour):
    """sRGB as linear light (IEC 61966-2-1)."""
    code = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)


def oklab(light):
    """Linear light in coordinates in which distances are about as large as they look (Ottosson 2020)."""
    cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    seen = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    return seen @ np.cbrt(cones @ np.clip(light, 0, 1))


def closest(colours, eye):
    places = [oklab(EYES[eye] @ light_of(colour)) for colour in colours]
    return min(np.linalg.norm(p - q) for i, p in enumerate(places) for q in places[:i])


def contrast(one, other):
    """Of luminances, as WCAG 2.1 defines it."""
    low, high = sorted(light_of(c) @ np.array([0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def drawn(curves):
    (figure,) = (each for each in figures(sample(1, curves=curves)) if each.name == "curves")
    return figure


def lines_of(figure):
    """Of its only panel."""
    assert isinstance(figure.shape, Lines)
    (lines,) = figure.shape.panels.values()
    return lines


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("eye", "least"), [(eye, 0.15 if eye == "all cones" else 0.075) for eye in EYES])
def test_colours_of_members_are_told_apart_by_all_eyes(palette, eye, least):
    """What is asked for is well above 0.02, about what is just noticed where two colours touch."""
    colours = [palette[f"member{i}"] for i in range(MEMBERS)]
    assert len(colours) >= 9
    assert closest(colours, eye) > least


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_stand_out_from_the_page(palette):
    """3 to 1 is what WCAG 2.1 asks of graphics."""
    assert min(contrast(palette[f"member{i}"], palette["page"]) for i in range(MEMBERS)) >= 3


def test_as_many_lines_as_the_demo_draws_have_a_colour_each_and_a_way_is_dashed():
    names = [*TASKS, "joint"]
    figure = drawn([Curve(name, np.arange(3), np.ones(3)) for name in names])
    lines = lines_of(figure)
    assert len({line.colour for line in lines}) == 9
    assert [line.dash for line in lines] == ["solid"] * 8 + ["dash"]
    assert "Dashed: joint." in figure.notes
    assert [trace["line"]["dash"] for trace in spec(figure.shape)["data"]] == ["solid"] * 8 + ["dash"]


@pytest.mark.parametrize("ways_first", [False, True])
def test_no_two_of_many_lines_are_of_one_colour_and_dash(ways_first):
    members = [f"member {i}" for i in range(25)]
    ways = ["joint", "average: a", "average: b"]
    names = [*ways, *members] if ways_first else [*members, *ways]
    figure = drawn([Curve(name, np.arange(3), np.ones(3)) for name in names])
    lines = lines_of(figure)
    assert len({(line.colour, line.dash) for line in lines}) == len(lines) == 28
    assert not any("Dashed" in note for note in figure.notes)
    assert png(figure).startswith(b"\x89PNG")


def test_where_only_ways_train_none_is_dashed():
    figure = drawn([Curve(name, np.arange(3), np.ones(3)) for name in ("joint", "average: a")])
    lines = lines_of(figure)
    assert [line.dash for line in lines] == ["solid", "solid"]


@pytest.mark.parametrize("length", [1, 19, 60])
def test_names_below_a_picture_are_not_cut_off(length, monkeypatch):
    from matplotlib.figure import Figure as Canvas

    many = [Curve(f"{n}".rjust(length, "m"), np.arange(3), np.ones(3)) for n in range(11)]
    found, save = [], Canvas.savefig

    def noted(canvas, *args, **kwargs):
        save(canvas, *args, **kwargs)
        (legend,) = canvas.legends
        found.append((legend.get_window_extent(), canvas.bbox))

    monkeypatch.setattr(Canvas, "savefig", noted)
    png(drawn(many))
    ((legend, page),) = found
    assert legend.x0 >= page.x0
    assert legend.x1 <= page.x1
