"""A real browser opens the page: all figures are drawn, nothing fails, nothing is asked of a network."""

from __future__ import annotations

from dataclasses import replace

import browser
import pytest
from sample_results import MODELS, pictures, sample, scores, wide

from plait.report import write_report

BINARY = browser.found()
pytestmark = pytest.mark.skipif(BINARY is None, reason="no Chromium: `apt-get install chromium` brings one")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.page(str(BINARY), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(sample(), tmp_path_factory.mktemp("report") / "out")


@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_the_page_is_drawn_without_errors_or_requests(page, report, width, dark):
    page.events.clear()
    page.look(width, 900, dark)
    page.open(report)
    for what, least in (("svg .trace, svg .heatmaplayer image", 1), ("svg text", 6)):
        count = f"[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('{what}').length)"
        counts = page.evaluate(count)
        assert len(counts) == 7
        assert min(counts) >= least, (what, counts)
    images = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.evaluate(images)
    assert page.problems() == []
    assert page.requests() == [report.as_uri()]
    across = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across[0] <= across[1]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 24, 28)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", [320, 360, 390, 768])
def test_as_much_as_the_demo_shows_scrolls_within_its_tables_and_never_the_page(page, tmp_path, width):
    page.look(width, 800)
    page.open(write_report(wide(), tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    across = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert across[0] == across[1] <= width
    wider = "[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(wider)


#: How far to the right things may reach, and reach.
REACH = "(es => Math.max(...[...es].map(e => e.getBoundingClientRect().right)))"


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_all_columns_of_pictures_are_seen(page, tmp_path, width):
    page.look(width, 800)
    page.open(write_report(sample(1, pictures=pictures(8)), tmp_path))
    edge = page.evaluate("document.querySelector('#pictures figure').getBoundingClientRect().right")
    for what in ("#pictures img", "#pictures td", "#pictures .share"):
        assert page.evaluate(f"{REACH}(document.querySelectorAll('{what}'))") <= edge + 0.5, what
    scrolls = "[...document.querySelectorAll('#pictures .scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{scrolls}.length") == 0
    assert (
        page.evaluate("document.querySelectorAll('#pictures td.right, #pictures td.wrong').length") == 5 * 64
    )


@pytest.mark.parametrize("names", [sample, wide])
@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_heat_maps_are_seen_whole_with_their_colours(page, tmp_path, names, dark):
    page.look(360, 800, dark)
    page.open(write_report(names(), tmp_path))
    ends = "(e => (r => [r.left, r.right, r.bottom])(e.getBoundingClientRect()))"
    texts = ((".annotation-text", 64), (".xtick text", 8), (".ytick text", 8), (".cbaxis text", 3))
    for name in ("normalised", "cosine"):
        plot = f"document.querySelector('#plot-{name}')"
        assert page.evaluate(f"{plot}.scrollWidth <= {plot}.clientWidth"), name
        left, right, bottom = page.evaluate(f"{ends}({plot}.querySelector('svg'))")
        for what, least in (*texts, (".cbfills rect", 1)):
            found = page.evaluate(f"[...{plot}.querySelectorAll('{what}')].map({ends})")
            assert len(found) >= least, (name, what)
            assert min(box[0] for box in found) >= left - 0.5, (name, what)
            assert max(box[1] for box in found) <= right + 0.5, (name, what)
            assert max(box[2] for box in found) <= bottom + 0.5, (name, what)


def test_what_scrolls_shows_that_there_is_more(page, tmp_path):
    page.look(360, 800)
    page.open(write_report(wide(), tmp_path))
    hint = "getComputedStyle(document.querySelector('#averages .scroll')).backgroundAttachment"
    assert page.evaluate(hint) == "local, scroll"


def test_figures_follow_the_theme_and_the_width(page, report):
    page.look(1100, 900)
    page.open(report)
    ink = "getComputedStyle(document.querySelector('#plot-averages .ytick text')).fill"
    assert page.evaluate(ink) == "rgb(28, 33, 38)"
    page.look(600, 900, dark=True)
    page.wait(f"{ink} === 'rgb(232, 236, 240)'")
    page.wait("document.querySelector('#plot-averages svg').clientWidth < 600")


def test_odd_names_are_shown_as_they_are(page, tmp_path):
    page.events.clear()
    odd = "<i>&_%$x$</i>"
    path = write_report(
        sample(title=odd, similarity=None, curves=(), costs=(), trials=(), reference="ties"), tmp_path
    )
    page.open(path)
    assert page.evaluate("document.title") == odd
    assert page.evaluate("document.querySelector('h1').textContent") == odd
    assert page.problems() == []


def test_titles_below_a_narrow_figure_beside_long_names_are_whole(page, tmp_path):
    long = "a way whose name is longer than most are"
    names = {model: long if model == "ties" else model for model in MODELS}
    tables = [renamed(scores(0), names)]
    path = write_report(sample(1, scores=tables, trials=(), reference="average"), tmp_path)
    page.look(380, 800)
    page.open(path)
    ends = "(e => { const r = e.getBoundingClientRect(); return [r.left, r.right, r.top, r.bottom]; })"
    left, right, _, bottom = page.evaluate(f"{ends}(document.querySelector('#plot-averages .xtitle'))")
    outer = page.evaluate(f"{ends}(document.querySelector('#plot-averages svg'))")
    assert outer[0] <= left < right <= outer[1]
    assert bottom <= outer[3]


def renamed(table, names):
    rows = tuple(replace(row, model=names[row.model]) for row in table)
    evidence = {(names[model], *rest): of for (model, *rest), of in table.evidence.items()}
    return replace(table, rows=rows, evidence=evidence)
