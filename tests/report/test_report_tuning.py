"""What is told of settings that were tried: how much ways depend on them, what failed, and edges of grids."""

from __future__ import annotations

import math
import re
from statistics import stdev

import pytest
from sample_results import sample

from plait.report import Setting, edges, write_report
from plait.report._figures import figures
from plait.report._headline import caveats
from plait.report._tables import tables


def tried(way, *seeds, option="scale", chosen=None):
    """Settings 1, 2, … of a way: a list of scores for each seed, of which the largest is chosen."""
    found = []
    for seed, values in enumerate(seeds):
        best = max((v for v in values if not math.isnan(v)), default=math.nan)
        for place, value in enumerate(values):
            taken = value == best if chosen is None else place == chosen
            found.append(Setting(way, {option: place + 1}, value, "accuracy", taken, seed))
    return found


def told(*settings, seeds=2, **changes):
    """The table of ways as way → column → cell, and the figure."""
    of = [each for each in settings for each in each]
    results = sample(seeds, trials=of, **changes)
    table = next(each for each in tables(results) if each.name == "tuning")
    figure = next(each for each in figures(results) if each.name == "tuning")
    columns = [name.removesuffix(" †") for name in table.columns]
    rows = {str(row[0]): dict(zip(columns, row, strict=True)) for row in table.rows}
    return rows, table, figure


def test_the_caption_names_the_way_that_depends_most_by_the_table_and_not_by_pooled_seeds():
    """Seeds differ by 0.4 for `ties`, which hardly depends on its setting; `magmax` does, in every seed."""
    rows, _, figure = told(tried("ties", [0.5, 0.6], [0.9, 1.0]), tried("magmax", [0.5, 0.8], [0.5, 0.7]))
    assert rows["ties"]["sensitivity"].value == pytest.approx(0.1)
    assert rows["magmax"]["sensitivity"].value == pytest.approx(0.25)
    assert rows["magmax"]["sensitivity"].sd == pytest.approx(stdev([0.3, 0.2]))
    wanted = "magmax depends most on its setting: best − worst score is 0.250, mean over 2 seeds."
    assert figure.seen == wanted


def test_a_way_of_which_one_setting_is_left_has_no_sensitivity_and_the_reason_is_told(tmp_path):
    lost = [
        Setting(
            "ties", {"scale": 9}, math.nan, "accuracy", False, seed, failed="its loss was not finite\n hint"
        )
        for seed in range(2)
    ]
    settings = [tried("ties", [0.5], [0.6]), lost, tried("magmax", [0.5, 0.6], [0.5, 0.6])]
    rows, table, figure = told(*settings)
    assert (rows["ties"]["worst"], rows["ties"]["sensitivity"]) == ("failed", "–")
    assert rows["ties"]["best"].value == pytest.approx(0.55)
    assert rows["magmax"]["sensitivity"].value == pytest.approx(0.1)
    assert any("no sensitivity" in note for note in table.notes)
    assert figure.seen.startswith(
        "Some settings of ties have no score. How much magmax depends on its setting: "
    )
    assert any("Not drawn" in note and "ties: scale=9." in note for note in figure.notes)
    results = sample(2, trials=[each for each in settings for each in each])
    every = next(each for each in tables(results) if each.name == "trials")
    why = {(row[0], row[2]): (row[4], row[-1]) for row in every.rows}
    assert why["ties", "scale=9"] == ("failed", "its loss was not finite\n hint")
    assert why["magmax", "scale=1"][1] == "–"
    assert every.columns[-1] == "why it failed"
    write_report(results, tmp_path)
    assert "its loss was not finite" in (tmp_path / "report.html").read_text()
    assert "its loss was not finite" in (tmp_path / "tables" / "trials.md").read_text()


def test_a_score_that_is_no_number_is_the_worst_without_being_called_failed():
    rows, _, figure = told(tried("ties", [0.5, math.nan, 0.7], [0.4, 0.5, 0.6]))
    assert (rows["ties"]["worst"], rows["ties"]["sensitivity"]) == ("no number", "–")
    assert "No way's sensitivity is known" in figure.seen


def test_a_way_without_any_number_has_neither_best_nor_sensitivity():
    rows, _, _ = told(tried("ties", [math.nan, math.nan], [0.5, 0.6]))
    assert (rows["ties"]["best"], rows["ties"]["sensitivity"]) == ("–", "–")


def test_one_setting_alone_has_no_sensitivity():
    rows, _, figure = told(tried("ties", [0.5], [0.6]), tried("magmax", [0.5, 0.6], [0.5, 0.6]))
    assert rows["ties"]["sensitivity"] == "–"
    assert rows["ties"]["worst"].value == pytest.approx(0.55)
    assert figure.seen == (
        "How much magmax depends on its setting: best − worst score is 0.100, mean over 2 seeds."
    )


def test_where_lower_scores_are_better_the_worst_is_the_largest():
    of = [
        Setting("ties", {"scale": i}, v, "loss", i == 0, higher_is_better=False)
        for i, v in enumerate([1.5, 4.0])
    ]
    rows, _, _ = told(of, seeds=1)
    assert [rows["ties"][name].value for name in ("worst", "best", "sensitivity")] == [4.0, 1.5, 2.5]


def test_a_choice_at_the_edge_of_its_grid_is_told_in_table_figure_and_caveats():
    settings = [
        tried("ties", [0.7, 0.6, 0.5], [0.7, 0.6, 0.5]),  # the lowest, in both seeds
        tried("magmax", [0.5, 0.6, 0.7], [0.5, 0.7, 0.6]),  # the highest, in one
        tried("breadcrumbs", [0.5, 0.7, 0.6], [0.5, 0.7, 0.6]),  # within
    ]
    rows, table, figure = told(*settings)
    of = {way: row["at the edge"] for way, row in rows.items()}
    assert of == {"ties": "scale lowest", "magmax": "scale highest (1 of 2 seeds)", "breadcrumbs": "–"}
    assert any(note.startswith("At the edge: ") and "may lie outside" in note for note in table.notes)
    wanted = "lowest tried: ties scale=1; highest tried: magmax scale=3 (1 of 2 seeds)."
    assert any(note.endswith(f"a better value may lie outside: {wanted}") for note in figure.notes)
    every = [each for way in settings for each in way]
    (caveat,) = (each for each in caveats(sample(2, trials=every)) if "edge" in each)
    assert caveat.endswith("at the edge of those tried, so a better one may lie outside: ties, magmax.")
    assert [each.told for each in edges(every)][1] == "magmax: scale=3, the highest tried (1 of 2 seeds)"
    inside = settings[2]
    assert "at the edge" not in told(inside)[1].columns
    assert not any("edge" in each for each in caveats(sample(2, trials=inside)))


def test_words_and_options_of_one_value_have_no_edge():
    of = [
        Setting("ties", {"schedule": word, "scale": 0.5, "deep": deep}, value, "accuracy", value == 0.9)
        for word, deep, value in (("cosine", True, 0.9), ("linear", False, 0.8))
    ]
    assert edges(of) == []


def test_an_edge_is_that_of_all_that_was_tried_failed_settings_included():
    of = [*tried("ties", [0.5, 0.7])]
    of.append(Setting("ties", {"scale": 3}, math.nan, "accuracy", False, failed="it diverged"))
    assert edges(of) == []
    assert [(each.option, each.value, each.side) for each in edges(of[:2])] == [("scale", 2.0, "highest")]


def test_which_ways_were_tuned_and_with_how_many_settings_stands_below_the_averages():
    of = [*tried("ties", [0.5, 0.6]), *tried("magmax", [0.5, 0.6]), *tried("dare ties", [0.5, 0.6, 0.7])]
    results = sample(1, trials=of, budget=3)
    notes = {each.name: " ".join(each.notes) for each in tables(results)}
    rest = "average, task arithmetic, breadcrumbs, model stock, joint, ensemble."
    tuned = "ties, magmax (2 settings each); dare ties (3 settings each), at most 3 for any way and seed."
    assert f"Tuned on validation examples: {tuned} Not tuned, as given: {rest}" in notes["averages"]
    budget = "Budget: at most 3 settings for each way and seed."
    assert notes["tuning"].startswith(f"{budget} Not tuned, as given: {rest}")
    untuned = sample(1, trials=())
    assert not any(re.search("[Tt]uned", note) for each in tables(untuned) for note in each.notes)
