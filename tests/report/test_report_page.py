"""The page: one file that asks for nothing, says what came out, and leaves out what there is none of."""

from __future__ import annotations

import io
import math
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread
from sample_results import KINDS, MODELS, SKILL, TASKS, curves, pictures, sample, scores, similarity, trials

from plait.errors import InputError, MissingExtra
from plait.methods import METHODS as ALL
from plait.report import Cost, Curve, Picture, Setting, Similarity, bibtex, write_report
from plait.report._figures import figures
from plait.report._headline import caveats, headline
from plait.report._plotly import spec
from plait.report._png import png
from plait.report._publications import KNOWN
from plait.report._references import references
from plait.report._tables import tables
from plait.study.ways import WAYS
from plait.tasks import Scores

ODD = "<b>&_%'\"$x$"


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def parsed(path):
    tags = Tags()
    tags.feed(without_plotly(path))
    return tags


def without_plotly(path):
    text = path.read_text(encoding="utf-8")
    found = re.sub(r"<script>/\*\*.*?</script>", "<script></script>", text, count=1, flags=re.DOTALL)
    assert len(found) < len(text) - 10**6
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(sample(), tmp_path_factory.mktemp("report") / "out")


def test_page_tables_figures_and_references_are_written(report):
    folder = report.parent
    assert report.name == "report.html"
    names = {p.name for p in (folder / "figures").iterdir()}
    shown = ("averages", "normalised", "cosine", "conflict", "curves", "tuning", "costs", "pictures")
    assert names == {f"{name}.png" for name in shown}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in (folder / "figures").iterdir())
    for kind in ("csv", "md", "tex"):
        assert {p.stem for p in (folder / "tables").glob(f"*.{kind}")} >= {
            "scores",
            "averages",
            "tests",
            "tuning",
        }
    assert sorted(p.name for p in folder.iterdir()) == ["figures", "references.bib", "report.html", "tables"]


def test_nothing_is_asked_of_a_network(report):
    for tag, attributes in parsed(report).tags:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            value = attributes.get(name) or ""
            if tag == "a" and name == "href":
                assert value.startswith(("#", "data:", "https://arxiv.org/abs/"))
            else:
                assert value.startswith("data:") or not value, (tag, name, value[:80])
    text = without_plotly(report)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    policy = next(
        a["content"] for t, a in parsed(report).tags if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_every_figure_and_picture_says_what_is_seen(report):
    tags = parsed(report).tags
    plots = [a for t, a in tags if a.get("class") == "plot"]
    assert len(plots) == 7
    assert all(len(a["aria-label"]) > 40 for a in plots)
    assert sum(t == "figcaption" for t, _ in tags) == 8
    images = [a for t, a in tags if t == "img"]
    assert len(images) == 16
    assert all(a["alt"] for a in images)


def test_names_can_hold_anything(tmp_path):
    def odd(name):
        return ODD if name in ("mnist", "ties") else name

    tables = []
    for each in sample().scores:
        rows = tuple(replace(row, model=odd(row.model), task=odd(row.task)) for row in each)
        behind = {(odd(m), odd(t), k): v for (m, t, k), v in each.evidence.items()}
        tables.append(replace(each, rows=rows, evidence=behind))
    shown = [replace(p, task=odd(p.task), said={odd(m): ODD for m in p.said}) for p in pictures()]
    told = [replace(t, way=odd(t.way)) for t in trials(3)]
    results = sample(
        title=ODD,
        about=ODD,
        notes=[ODD, "</script><script>alert(1)</script>"],
        scores=tables,
        pictures=shown,
        trials=told,
        methods={ODD: "ties"},
        missing={ODD: ODD},
        curves=[Curve(ODD, np.arange(3), np.ones(3)), *curves(1)],
        similarity=replace(similarity(), names=[odd(t) for t in TASKS]),
        costs=[Cost(ODD, 1.0, 2.0), Cost(ODD, math.nan, 2.0)],
    )
    tags = parsed(write_report(results, tmp_path / "out"))
    assert "".join(tags.text).count(ODD) > 20
    assert sum(t == "script" for t, _ in tags.tags) == 3


def bare(**changes):
    """Scores alone."""
    empty = {"groups": {}, "methods": {}, "trials": (), "curves": (), "similarity": None, "costs": ()}
    return sample(
        1, **({**empty, "budget": None, "pictures": (), "missing": {}, "notes": (), "about": ""} | changes)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reference": None},
        {"scores": [scores(0, ("base", "average", "experts"), ("mnist",))]},
        {"scores": [replace(scores(0), evidence={})]},
        {"similarity": Similarity(["a"], np.ones((1, 1)))},
        {"pictures": [Picture("elsewhere", np.full((1, 1), math.nan), "", {}, {})]},
        {
            "trials": [Setting("ties", {}, math.nan, "accuracy", True)],
            "costs": [Cost("all", math.nan, math.nan, True)],
        },
        {
            "curves": [
                Curve("a", np.zeros(0), np.zeros(0)),
                Curve("b", np.arange(2), np.array([math.nan, math.inf])),
            ]
        },
    ],
    ids=[
        "scores",
        "no reference",
        "one task",
        "no examples",
        "one expert",
        "odd picture",
        "no numbers",
        "odd curves",
    ],
)
def test_what_there_is_none_of_is_left_out(tmp_path, changes):
    results = bare(**changes)
    path = write_report(results, tmp_path / "out")
    tags = parsed(path)
    for part in ("vectors", "training", "tuning", "costs", "pictures"):
        given = {"vectors": "similarity", "training": "curves"}.get(part, part)
        if given not in changes and not (part == "tuning" and "trials" in changes):
            assert not any(a.get("id") == part for _, a in tags.tags), part


def test_all_scores_may_be_no_numbers(tmp_path):
    rows = tuple(replace(row, value=math.nan, low=math.nan, high=math.nan, nan=3) for row in scores(0))
    results = bare(scores=[Scores(rows)])
    assert headline(results) == "No way of merging has a score that is a number."
    assert any("gave NaN for 3 of 200" in caveat for caveat in caveats(results))
    assert "NaN" in write_report(results, tmp_path / "out").read_text()


def test_the_headline_says_what_the_tables_say():
    said = headline(sample())
    assert re.match(
        r"ties keeps 8\d\.\d % † \[[\d., ]+\] of the experts’ accuracy \(mean of 8 tasks, 3 seeds", said
    )
    assert "beats average by" in said
    assert "in 3 of 3 seeds (p < 0.001)" in said
    assert re.search(r"the yardstick, joint training on all tasks, keeps 9\d\.\d % †", said)
    assert re.search(r"; the base alone keeps 2\d\.\d % † \[[\d., ]+\]; ", said)
    other = headline(sample(groups=KINDS | {"magmax": "base"}))
    assert "the base alone (magmax) keeps 7" in other
    without = [scores(seed, MODELS[1:]) for seed in range(3)]
    assert "base" not in headline(sample(scores=without))


def test_the_headline_claims_no_more_than_was_found():
    few = [scores(s, ("base", "magmax", "average", "experts"), TASKS[:2], n=12) for s in range(3)]
    assert "that it beats magmax is not shown: " in headline(sample(scores=few, reference="magmax"))
    assert "no other single model made of the experts has a higher mean" in headline(sample(reference="ties"))
    assert "there is no test" in headline(sample(scores=[replace(s, evidence={}) for s in sample().scores]))
    assert "average" not in headline(sample(reference=None))
    assert any("One seed" in each for each in caveats(sample(1)))
    assert any("slightly too good" in each for each in caveats(sample()))


def test_an_interval_of_one_draw_may_lie_beyond_the_mean(tmp_path):
    results = sample(1, scores=[scores(0, bootstrap=1)], trials=(), pictures=())
    write_report(results, tmp_path / "out")
    dots = [dot for series in figures(results)[0].shape.series for dot in series.dots]
    assert any(dot.low > dot.value or dot.high < dot.value for dot in dots)
    for trace in spec(figures(results)[0].shape)["data"]:
        assert min(trace["error_x"]["array"] + trace["error_x"]["arrayminus"]) >= 0


def test_a_model_for_each_task_competes_with_no_single_model():
    best = max(MODELS, key=lambda model: -1 if model in ("experts", "joint", "ensemble") else skill(model))
    assert headline(sample()).startswith(f"{best} keeps")
    kinds = KINDS | {best: "federated", "magmax": "student"}
    results = sample(groups=kinds)
    assert not headline(results).startswith(f"{best} keeps")
    assert results.competes("magmax")
    found = {each.name: each for each in tables(results)}
    for name in ("averages", "scores", "normalised"):
        assert not any(getattr(cell, "best", False) for cell in row_of(found[name], best))
        assert "Bold: the best single model made of the experts." in " ".join(found[name].notes)
    shown = {series.name: series for series in figures(results)[0].shape.series}
    assert [dot.row for dot in shown["federated"].dots] == [best]
    assert [dot.row for dot in shown["student"].dots] == ["magmax"]
    assert len({each.colour for each in shown.values()}) == len(shown)


def test_where_nothing_competes_none_is_called_the_best():
    kinds = {model: KINDS.get(model, "federated") for model in MODELS}
    said = headline(sample(groups=kinds))
    assert said.startswith("No single model made of the experts is here; average (federated) keeps ")
    assert "joint (joint) keeps" in said
    assert "; the base alone keeps 2" in said
    two = [scores(seed, ("base", "experts")) for seed in range(3)]
    assert headline(sample(scores=two, reference=None)) == "No single model made of the experts is here."


def skill(model):
    return dict(zip(MODELS, SKILL, strict=True))[model]


def row_of(table, model):
    return next(row for row in table.rows if row[0] == model)


def test_every_method_of_plait_has_a_reference():
    found = references(sample(methods={f"m{i}": name for i, name in enumerate(ALL)}))
    assert {name for models in found.values() for name in models} == {f"m{i}" for i in range(len(ALL))}
    for entry in found:
        text = entry.bibtex()
        assert text.count("{") == text.count("}")
        assert "title" in entry.fields
    keys = [entry.key for entry in found]
    assert len(set(keys)) == len(keys)
    ties = next(e for e, models in references(sample()).items() if models == ["ties"])
    assert ties.told.startswith("Yadav et al. TIES-Merging")
    with pytest.raises(InputError, match="no merge method `tie`"):
        references(sample(methods={"ties": "tie"}))


#: A way of each kind of study, by its key.
ONE_OF_EACH: dict[str, list[object]] = {
    "merge": ["ties"],
    "train": ["joint"],
    "ensemble": ["probabilities"],
    "alternate": ["linear"],
    "distill": ["experts", "ensemble"],
    "concatenate": ["experts"],
    "zoo": [2],
    "federate": ["fedast", "synchronous", "sequential"],
    "split": [2],
    "posterior": ["ensemble", "average"],
    "clusters": [2],
}


def test_every_arxiv_number_of_a_method_or_way_has_its_authors_title_and_year():
    assert set(ONE_OF_EACH) == set(WAYS)
    ways = [WAYS[key].model_construct(**{key: v}).method for key, vs in ONE_OF_EACH.items() for v in vs]
    named = [method.reference for method in ALL.values()] + [way for way in ways if way is not None]
    numbers = {number for name in named for number in re.findall(r"arXiv:(\d{4}\.\d{4,5})", name)}
    assert {"2412.00081", "2502.04959", "2411.03055"} <= numbers
    assert numbers <= set(KNOWN)
    for number in numbers:
        fields = KNOWN[number].fields
        assert fields["eprint"] == number
        assert re.fullmatch(r"[^,]+, [^,]+( and [^,]+, [^,]+)*", fields["author"])
        assert re.fullmatch(r"\{[^{}]{10,}\}", fields["title"])
        assert not re.search(r"\d{4}\.\d{4}", fields["title"])
        assert 1990 < int(fields["year"]) < 2100
    assert "@inproceedings{gargiulo2025tsv" in bibtex("tsv")
    assert "Isotropic Model Merging" in bibtex("iso_c")


def test_an_earlier_report_is_replaced_whole_and_other_files_stay(tmp_path):
    write_report(sample(), tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    write_report(bare(), tmp_path)
    assert not (tmp_path / "figures/tuning.png").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 5


def test_what_no_report_wrote_is_not_replaced(tmp_path):
    (tmp_path / "figures").mkdir()
    with pytest.raises(InputError, match="`figures`, which no report wrote"):
        write_report(bare(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder"):
        write_report(bare(), tmp_path / "file")
    with pytest.raises(InputError, match="can't be written"):
        write_report(bare(), tmp_path / "file" / "below")


def test_a_report_that_fails_half_way_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = write_report(bare(title="first"), tmp_path)
    rename = type(path).rename

    def failing(self, target):
        if self.name == "report.html" and self.parent.name == "new":
            raise OSError(28, "no space is left")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", failing)
    with pytest.raises(InputError, match="no space is left"):
        write_report(sample(title="second"), tmp_path)
    assert "<title>first</title>" in path.read_text()
    assert not (tmp_path / "figures/tuning.png").exists()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("package", ["plotly", "matplotlib"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"`{package}`[\s\S]*plait\[report\]"):
        write_report(bare(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": []}, "there are no scores"),
        ({"seeds": [1]}, "3 tables of scores and 1 seeds"),
        ({"experts": "expert"}, "did you mean `experts`"),
        ({"reference": "averag"}, "did you mean `average`"),
        ({"scores": [scores(0), scores(1), scores(2, MODELS[1:])]}, "not every seed has a score for base"),
        ({"scores": [scores(0), scores(1), replace(scores(2), seed=4)]}, "drawn differently"),
        ({"curves": [Curve("a", np.zeros(2), np.zeros(3))]}, "curve of `a`"),
        ({"pictures": [Picture("t", np.zeros((2, 2, 3)), "", {}, {})]}, r"shape is \(2, 2, 3\)"),
        ({"similarity": Similarity(["a"], np.zeros((2, 2)))}, "1 names"),
        ({"similarity": Similarity(["a"], np.ones((1, 1)), ["l"])}, "1 layers"),
    ],
)
def test_what_does_not_belong_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        sample(**changes)


def test_curves_over_simulated_time_have_a_figure_of_their_own(tmp_path):
    own = [Curve("fedast", np.array([0.0, 2.5]), np.array([0.1, 0.7]), "accuracy", x="simulated time")]
    both = {each.name: each for each in figures(sample(curves=[*curves(1), *own]))}
    assert both["curves"].shape.x == "step"
    assert {line.name for lines in both["curves"].shape.panels.values() for line in lines} == {
        sample().label(task) for task in TASKS
    }
    other = both["curves_2"]
    assert other.shape.x == "simulated time"
    assert "over simulated time" in other.title
    ((line,),) = other.shape.panels.values()
    assert line.x.tolist() == [0.0, 2.5]
    alone = {each.name: each for each in figures(sample(curves=own))}
    assert alone["curves"].shape.x == "simulated time"
    assert "curves_2" not in alone
    page = write_report(sample(curves=[*curves(1), *own]), tmp_path / "out")
    assert (page.parent / "figures" / "curves_2.png").is_file()
    assert "over simulated time" in without_plotly(page)


def test_targets_are_lines_across_the_curves_that_should_reach_them(tmp_path):
    time, value = np.array([0.0, 2.5]), np.array([0.1, 0.7])
    own = [
        Curve("fedast", time, value, "accuracy: a", x="simulated time", target=0.6),
        Curve("rounds", time, value, "accuracy: a", x="simulated time", target=0.6),
        Curve("fedast", time, value, "accuracy: b", x="simulated time", target=0.5),
        Curve("fedast", time, value, "accuracy: c", x="simulated time"),
    ]
    figure = {each.name: each for each in figures(sample(curves=own))}["curves"]
    assert figure.shape.levels == {"accuracy: a": [0.6], "accuracy: b": [0.5], "accuracy: c": []}
    assert any("wanted" in note for note in figure.notes)
    drawn = spec(figure.shape)
    assert [(each["y0"], each["y1"], each["yref"]) for each in drawn["layout"]["shapes"]] == [
        (0.6, 0.6, "y"),
        (0.5, 0.5, "y2"),
    ]
    assert all("at simulated time" in trace["hovertemplate"] for trace in drawn["data"])
    assert not any("wanted" in note for each in figures(sample(curves=curves(1))) for note in each.notes)
    drawings = []
    for each in (own, [replace(curve, target=None) for curve in own]):
        page = write_report(sample(curves=each), tmp_path / str(len(drawings)))
        drawings.append((page.parent / "figures" / "curves.png").read_bytes())
    assert drawings[0] != drawings[1]


def test_of_many_steps_the_longest_are_drawn_and_the_rest_summed_up():
    of = [Cost(f"step {i}", float((i * 37) % 65), 100.0 + i, i % 2 == 0) for i in range(65)]
    results = sample(costs=of)
    (figure,) = (each for each in figures(results) if each.name == "costs")
    shape = figure.shape
    longest = [c for c in of if c.seconds >= 35]
    assert list(shape.rows) == [*(c.step for c in longest), "35 shorter steps"]
    rest = [c for c in of if c.seconds < 35]
    assert shape.panels["seconds"][-1] == sum(c.seconds for c in rest)
    assert shape.panels["peak MB"][-1] == max(c.peak_mb for c in rest)
    assert "of the 35 others, seconds are summed" in figure.notes[0]
    axis = spec(shape)["layout"]["yaxis"]
    assert axis["ticktext"] == list(shape.rows)
    assert f"{sum(not c.cached for c in of)} steps were run" in figure.seen
    assert len(next(t for t in tables(results) if t.name == "costs").rows) == 65
    (few,) = (each for each in figures(sample(costs=of[:31])) if each.name == "costs")
    assert list(few.shape.rows) == [c.step for c in of[:31]]
    assert not few.notes


def test_a_curve_of_one_point_is_a_marker():
    one = Curve("one", np.array([5]), np.array([1.0]))
    lost = Curve("lost", np.array([5, 6]), np.array([math.nan, 2.0]))
    two = Curve("two", np.array([5, 6]), np.array([1.0, 2.0]))
    (figure,) = (each for each in figures(sample(curves=[one, lost, two])) if each.name == "curves")
    assert [trace["mode"] for trace in spec(figure.shape)["data"]] == ["markers", "markers", "lines"]
    empty = replace(one, value=np.array([math.nan]))
    alone, none = (
        next(each for each in figures(sample(curves=[curve])) if each.name == "curves")
        for curve in (one, empty)
    )
    assert ink_of(png(alone)) > ink_of(png(none)) + 20


def ink_of(picture):
    """How many pixels of a picture are of a strong colour, such as lines and markers have."""
    image = imread(io.BytesIO(picture))[..., :3]
    return int((image.max(-1) - image.min(-1) > 0.3).sum())
