"""Pictures at a glance: right counts, shares of all examples beside them, nothing turned round."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from sample_results import TASKS, pictures, sample, scores

import plait.study
from plait.report import Picture, write_report
from plait.report._palette import LIGHT
from plait.report._pictures import Sheet, sheet
from plait.report._sheet_png import sheet_canvas
from plait.study import load_study
from plait.tasks import NOTE


@pytest.fixture(scope="module")
def results():
    """Eight pictures of each task."""
    return sample(1, pictures=pictures(8), trials=(), drawn="drawn by a rule")


def glance(results) -> Sheet:
    shown = sheet(results)
    assert shown is not None
    return shown


def page_of(results, tmp_path):
    return write_report(results, tmp_path).read_text(encoding="utf-8").split('<section id="pictures">')[1]


def test_every_count_and_share_is_that_of_the_pictures_and_the_scores(results):
    shown = glance(results)
    assert [block.task for block in shown.blocks] == list(TASKS)
    assert shown.count == 64
    assert len(shown.models) == 5
    for place, model in enumerate(shown.models):
        own = [p for p in results.pictures if p.right[model]]
        accuracy = {row.task: row.value for row in results.scores[0] if row.model == model}
        assert (shown.rows[place].right, shown.rows[place].count) == (len(own), 64)
        assert shown.rows[place].share == pytest.approx(sum(accuracy.values()) / 8, abs=1e-12)
        for block in shown.blocks:
            row = block.rows[place]
            assert (row.model, row.right) == (model, sum(p.task == block.task for p in own))
            assert row.share == accuracy[block.task]
    assert shown.of_all == "of all 1,600 test examples"


def test_the_page_tells_counts_and_shares_of_every_model_and_task(results, tmp_path):
    shown = glance(results)
    text = page_of(results, tmp_path)
    tally, *blocks = re.findall(r"<table.*?</table>", text, re.DOTALL)[:9]
    for row in shown.rows:
        (line,) = re.findall(rf'<tr><th scope="row">{row.model}</th>.*?</tr>', tally, re.DOTALL)
        assert f">{row.right}/64<" in line
        assert f" {100 * row.share:.0f} %</td>" in line
    for block, table in zip(shown.blocks, blocks, strict=True):
        lines = re.findall(r"<tr><th scope=\"row\">.*?</tr>", table, re.DOTALL)
        assert len(lines) == 5
        for row, line in zip(block.rows, lines, strict=True):
            assert f"{row.model}<small>{100 * row.share:.0f} % of all</small>" in line
            assert line.count('class="right"') == row.right
            assert line.count('class="wrong"') == 8 - row.right
            assert f">{row.right}/8<" in line
    assert "64 test pictures drawn by a rule. " in text
    assert "chance may turn the order round" in text


def test_the_png_has_a_tile_for_each_answer_and_the_same_numbers(results):
    shown = glance(results)
    axes = sheet_canvas(shown).axes[0]
    colours = [to_hex(patch.get_facecolor()) for patch in axes.patches]
    right = sum(row.right for row in shown.rows)
    assert colours.count(LIGHT["wrong"]) == 5 * 64 - right
    assert colours.count(LIGHT["right"]) == right + 5
    texts = [text.get_text() for text in axes.texts]
    for block in shown.blocks:
        for row in block.rows:
            assert f"{100 * row.share:.0f} % of all" in texts
            assert f"{row.right}/8" in texts
    assert {f"{row.right}/64" for row in shown.rows} <= set(texts)
    assert len(axes.images) == 64
    assert NOTE in texts


def test_all_of_the_png_lies_on_it(results):
    for count, label in ((8, "A"), (3, "a sign with a name"), (1, "Å"), (14, "B")):
        shown = glance(replace(results, pictures=[replace(p, label=label) for p in pictures(count)]))
        canvas = sheet_canvas(shown)
        canvas.draw_without_rendering()
        width, height = canvas.bbox.width, canvas.bbox.height
        for text in canvas.axes[0].texts:
            box = text.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= width, text.get_text()
            assert 0 <= box.y0 < box.y1 <= height, text.get_text()


def test_no_mark_shares_a_text_with_a_letter_that_is_written_from_right_to_left(results):
    said = ("ש", "ל", "ק")
    odd = [replace(p, label="ש", said=dict.fromkeys(p.said, said[i % 3])) for i, p in enumerate(pictures(8))]
    texts = [text.get_text() for text in sheet_canvas(glance(replace(results, pictures=odd))).axes[0].texts]
    leftward = [t for t in texts if any(unicodedata.bidirectional(c) in ("R", "AL") for c in t)]
    assert {*said} <= {*leftward}
    assert all(len(text) == 1 for text in leftward)
    assert "✓" in texts


def test_what_was_said_is_read_out_whole_even_where_it_is_cut(results, tmp_path):
    long = "a sign with a name"
    odd = [replace(p, said=dict.fromkeys(p.said, long)) for p in pictures(1)]
    text = html.unescape(page_of(replace(results, pictures=odd), tmp_path))
    assert text.count(long) >= 5 * 8
    assert 'class="sheet wordy"' in text
    assert 'class="sheet wordy"' not in page_of(results, tmp_path)


def test_where_no_score_is_a_share_that_is_right_none_is_told(results, tmp_path):
    table = results.scores[0]
    rows = tuple(replace(row, metric="macro F1") for row in table)
    behind = {(m, t, "macro F1"): held for (m, t, _), held in table.evidence.items()}
    other = replace(results, scores=[replace(table, rows=rows, evidence=behind)])
    shown = glance(other)
    assert all(np.isnan(row.share) for row in shown.rows)
    assert (shown.of_all, shown.chance, shown.examples) == ("", "", 0)
    told = page_of(other, tmp_path).split("</section>")[0]
    assert "of all" not in told
    assert f"{shown.rows[0].right}/64" in told


def test_shares_are_of_the_seed_whose_models_speak(results):
    both = replace(results, scores=[scores(0), scores(1)], seeds=[0, 1])
    alone = {row.model: row.share for row in glance(results).rows}
    assert {row.model: row.share for row in glance(both).rows if row.model in alone}.items() <= alone.items()


def test_a_picture_of_a_task_without_scores_has_counts_alone(results):
    odd = Picture("elsewhere", np.full((1, 1), np.nan), "x", {"base": "y"}, {"base": False})
    shown = glance(replace(results, pictures=[*pictures(2), odd]))
    assert shown.blocks[-1].task == "elsewhere"
    base = shown.blocks[-1].rows[shown.models.index("base")]
    assert (base.counted, base.all) == ("0/1", "")
    assert shown.blocks[-1].rows[-1].counted == "–"
    assert sheet_canvas(shown) is not None


def test_the_demo_shows_enough_pictures_that_chance_rarely_turns_the_order_round():
    study = load_study(Path(plait.study.__file__).parent / "demo.yaml")
    assert study.pictures * len(study.suite.tasks) >= 64
