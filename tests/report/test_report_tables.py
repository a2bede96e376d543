"""Every number of a table equals what another way of computing it gives."""

from __future__ import annotations

import ast
import csv
import io
import itertools
import math
import re
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from sample_results import MADE, MODELS, TASKS, costs, sample, similarity
from scipy import stats

from plait.errors import InputError
from plait.report import Reached, _table, write_report
from plait.report._figures import figures
from plait.report._headline import caveats
from plait.report._shares import _judged, averages, expectations, holm, paired_tests, seed_averages
from plait.report._table import Number, Table
from plait.report._tables import tables
from plait.tasks import NOTE, Score, Scores


def table(results, name):
    return next(each for each in tables(results) if each.name == name)


def read(results, name):
    return list(csv.reader(io.StringIO(table(results, name).csv())))


RESULTS = sample()
VALUE = {(s, row.model, row.task): row.value for s, scores in enumerate(RESULTS.scores) for row in scores}


def test_scores_are_means_and_deviations_over_seeds():
    head, *lines = read(RESULTS, "scores")
    assert head[1:3] == ["mnist: accuracy", "mnist: accuracy sd"]
    assert head[-2] == "shapes †: accuracy"
    for line, model in zip(lines, MODELS, strict=True):
        assert line[0] == model
        for t, task in enumerate(TASKS):
            of = [VALUE[s, model, task] for s in range(3)]
            assert float(line[1 + 2 * t]) == pytest.approx(sum(of) / 3, rel=1e-12)
            mean = sum(of) / 3
            assert float(line[2 + 2 * t]) == pytest.approx(
                math.sqrt(sum((v - mean) ** 2 for v in of) / 2), rel=1e-9
            )


def test_shares_are_of_the_experts_of_the_same_seed():
    _, *lines = read(RESULTS, "normalised")
    for line, model in zip(lines, MODELS, strict=True):
        for t, task in enumerate(TASKS):
            of = [100 * VALUE[s, model, task] / VALUE[s, "experts", task] for s in range(3)]
            assert float(line[1 + 2 * t]) == pytest.approx(np.mean(of), rel=1e-12)
            assert float(line[2 + 2 * t]) == pytest.approx(stdev(of), rel=1e-9, abs=1e-9)


def test_averages_of_a_seed_are_those_of_the_scores():
    for found, scores in zip(seed_averages(RESULTS), RESULTS.scores, strict=True):
        experts = {task: scores.score("experts", task).value for task in TASKS}
        for each in scores.averages(experts):
            mine = found[each.model]
            assert (mine.value, mine.low, mine.high) == pytest.approx(
                (each.value, each.low, each.high), rel=1e-12
            )
            assert mine.semi_synthetic == len(MADE)


def test_averages_over_seeds_and_their_intervals():
    _, *lines = read(RESULTS, "averages")
    for line, model in zip(lines, MODELS, strict=True):
        shares = np.array([[VALUE[s, model, t] / VALUE[s, "experts", t] for t in TASKS] for s in range(3)])
        draws = np.zeros(300)
        for s, t in itertools.product(range(3), TASKS):
            behind = RESULTS.scores[s].evidence[model, t, "accuracy"].draws
            draws += behind / VALUE[s, "experts", t] / (3 * len(TASKS))
        assert float(line[2]) == pytest.approx(100 * shares.mean(), rel=1e-12)
        assert [float(v) for v in line[3:5]] == pytest.approx(
            100 * np.quantile(draws, [0.025, 0.975]), rel=1e-9
        )
        assert float(line[5]) == pytest.approx(100 * stdev(shares.mean(axis=1)), abs=1e-9)
        if model == "experts":  # 100 by definition, on every task
            assert line[6:8] == ["–", "–"]
        else:
            assert float(line[6]) == pytest.approx(100 * shares.mean(axis=0).min())
        plain = [VALUE[s, model, t] for s, t in itertools.product(range(3), TASKS)]
        assert float(line[8]) == pytest.approx(np.mean(plain))


def test_the_test_is_paired_over_examples_and_corrected():
    head, *lines = read(RESULTS, "tests")
    assert head[:4] == [
        "model",
        "difference, points †",
        "difference, points † low",
        "difference, points † high",
    ]
    assert [line[0] for line in lines] == [m for m in MODELS if m not in ("average", "experts")]
    ps = []
    for line in lines:
        shares = np.zeros((3, len(TASKS)))
        draws = np.zeros(300)
        for s, (t, task) in itertools.product(range(3), enumerate(TASKS)):
            expert = VALUE[s, "experts", task]
            shares[s, t] = (VALUE[s, line[0], task] - VALUE[s, "average", task]) / expert
            evidence = RESULTS.scores[s].evidence
            a, b = (evidence[m, task, "accuracy"].draws for m in (line[0], "average"))
            draws += (a - b) / expert / (3 * len(TASKS))
        assert float(line[1]) == pytest.approx(100 * shares.mean(), rel=1e-9)
        reach = stats.norm.ppf(0.975) * draws.std()
        ends = [100 * (shares.mean() - reach), 100 * (shares.mean() + reach)]
        assert [float(v) for v in line[2:4]] == pytest.approx(ends, rel=1e-9)
        assert line[4] == f"{(shares.mean(axis=0) > 0).sum()} of 8"
        assert line[5] == f"{(shares.mean(axis=1) > 0).sum()} of 3"
        ps.append(2 * stats.norm.sf(abs(shares.mean()) / draws.std()))
        assert float(line[6]) == pytest.approx(ps[-1], rel=1e-6)
    corrected = [float(line[7]) for line in lines]
    order = np.argsort(ps)
    stepped = np.maximum.accumulate([min(1, ps[i] * (len(ps) - k)) for k, i in enumerate(order)])
    assert [corrected[i] for i in order] == pytest.approx(list(stepped), rel=1e-6)


def test_what_was_expected_is_tested_as_a_family_of_its_own():
    results = replace(RESULTS, expected=[("experts", "base"), ("average", MODELS[2]), (MODELS[2], "average")])
    found = expectations(results)
    known = {each.model: each for each in paired_tests(RESULTS)}[MODELS[2]]
    assert found[2].test.value == pytest.approx(known.value)
    assert found[2].test.p == pytest.approx(known.p)
    assert found[1].test.value == pytest.approx(-known.value)
    assert [each.test.corrected for each in found] == pytest.approx(holm([each.test.p for each in found]))
    gap = [VALUE[s, "experts", t] - VALUE[s, "base", t] for s in range(3) for t in TASKS]
    of = [VALUE[s, "experts", t] for s in range(3) for t in TASKS]
    assert found[0].test.value == pytest.approx(np.mean(np.divide(gap, of)))
    assert found[0].outcome == "holds"
    assert {found[1].outcome, found[2].outcome} in ({"holds", "the opposite"}, {"not shown"})
    _, *lines = read(results, "expected")
    assert [line[0] for line in lines] == [f"{a} > {b}" for a, b in results.expected]
    assert [line[-1] for line in lines] == [each.outcome for each in found]
    assert found[0].told.startswith("experts > base: holds (+")


def test_an_expectation_of_no_model_is_refused():
    with pytest.raises(InputError, match="`expected` is `expert`, which has no scores"):
        replace(RESULTS, expected=[("expert", "base")])


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, math.nan, 0.005]) == pytest.approx(
        [0.03, 0.06, 0.06, math.nan, 0.02], nan_ok=True
    )


def test_equal_models_differ_by_nothing():
    scores = RESULTS.scores[0]
    rows = [replace(r, model="twin") for r in scores if r.model == "average"]
    behind = {("twin", *k[1:]): v for k, v in scores.evidence.items() if k[0] == "average"}
    both = replace(scores, rows=(*scores.rows, *rows), evidence={**scores.evidence, **behind})
    found = {each.model: each for each in paired_tests(sample(1, scores=[both], seeds=[0]))}
    assert (found["twin"].value, found["twin"].p, found["twin"].corrected) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(40))
def test_an_interval_leaves_out_zero_just_where_p_is_below_its_level(seed: int) -> None:
    """Few examples and few draws, where counting draws and a normal variable disagree."""
    random = np.random.default_rng(seed)
    kept = random.random((2, 12)) < np.array([[0.75], [0.4]])
    value, numbers = kept.mean(1), kept.astype(float)
    drawn = numbers[:, random.integers(12, size=(60, 12))].mean(2)
    low, high, p = _judged(float(value[0] - value[1]), drawn[0] - drawn[1])
    assert (low > 0 or high < 0) == (p < 0.05)


def test_a_difference_that_no_draw_changes_has_no_test() -> None:
    """All examples say the same: how far the difference may be off is not known."""
    assert all(map(math.isnan, _judged(1.0, np.ones(50))))
    assert _judged(0.0, np.zeros(50)) == (0.0, 0.0, 1.0)


def test_tuning_tells_choice_and_sensitivity():
    head, *lines = read(RESULTS, "tuning")
    assert head[-1] == "sensitivity sd"
    for line in lines:
        of = [[t for t in RESULTS.trials if t.way == line[0] and t.seed == s] for s in range(3)]
        values = np.array([[t.value for t in seed] for seed in of])
        chosen = [next(t for t in seed if t.chosen) for seed in of]
        assert line[1] == "8"
        scales = {f"{t.options['scale']:g}" for t in chosen}
        assert all(scale in line[2] for scale in scales)
        means = [np.mean([t.value for t in chosen]), values.min(1).mean(), values.max(1).mean()]
        assert [float(line[i]) for i in (3, 5, 7)] == pytest.approx(means)
        assert float(line[9]) == pytest.approx(np.mean(values.max(1) - values.min(1)))
        assert float(line[10]) == pytest.approx(stdev(values.max(1) - values.min(1)))


def test_other_tables_hold_what_was_given():
    assert [
        [float(v) for v in line[1:]] for line in read(RESULTS, "cosine")[1:]
    ] == similarity().cosine.tolist()
    conflict = [float(line[1]) for line in read(RESULTS, "conflict")[1:]]
    assert conflict == pytest.approx(list(100 * similarity().conflict))
    told = [
        (line[0], float(line[1]), float(line[2]), line[3] == "cached") for line in read(RESULTS, "costs")[1:]
    ]
    assert told == [(c.step, c.seconds, c.peak_mb, c.cached) for c in costs()]
    assert read(RESULTS, "missing")[1:] == [["flowers", "the package that holds it can't be had here"]]
    tidy = read(RESULTS, "scores_by_seed")[1:]
    of = [(r.model, r.label, s, r.value, r.low, r.high) for s, t in enumerate(RESULTS.scores) for r in t]
    assert [(x[0], x[1], int(x[3]), *map(float, x[4:7])) for x in tidy] == of


def test_the_mark_stands_beside_every_semi_synthetic_score():
    for name in (
        "scores",
        "normalised",
        "averages",
        "averages_by_seed",
        "tests",
        "tuning",
        "trials",
        "scores_by_seed",
    ):
        found = table(RESULTS, name)
        assert "†" in "".join(found.columns) + "".join(str(row[1]) for row in found.rows), name
        assert f"{NOTE}." in found.notes
    plain = [replace(s, rows=tuple(replace(r, semi_synthetic=False) for r in s)) for s in RESULTS.scores]
    assert not any("†" in each.markdown() for each in tables(sample(scores=plain)))


def one(model, value, task="t", metric="perplexity", higher=False):
    return Score(model, "s", task, metric, value, 10, higher_is_better=higher)


def test_lower_is_better_turns_the_share():
    rows = (one("experts", 2.0), one("average", 8.0), one("ties", 4.0), one("magmax", math.nan))
    results = sample(1, scores=[Scores(rows)], seeds=[0], pictures=(), missing={})
    _, *lines = read(results, "normalised")
    assert [line[1] for line in lines] == ["100.0", "25.0", "50.0", "nan"]
    scores = table(results, "scores")
    assert scores.columns[1] == "t: perplexity ↓"
    assert [row[0] for row in scores.rows if row[1].best] == ["ties"]
    assert str(scores.rows[3][1]) == "NaN"
    assert averages(results)["ties"].value == 0.5


def test_a_task_counts_once_however_many_metrics_it_has():
    of = {"experts": (0.5, 0.9), "average": (0.25, 0.9)}
    rows = [
        one(m, v, "t", name, True)
        for m, vs in of.items()
        for name, v in zip(("f1", "accuracy"), vs, strict=True)
    ]
    results = sample(1, scores=[Scores(tuple(rows))], seeds=[0], pictures=())
    assert averages(results)["average"].value == 0.5
    assert len(table(results, "scores").columns) == 3


def test_one_seed_has_no_deviation():
    results = sample(1)
    assert not any(" sd" in name for name in read(results, "scores")[0])
    assert not any("±" in each.markdown() for each in tables(results))


def test_tables_escape_what_their_languages_read():
    odd = Table(
        "odd", "a|b", ["<b>&_%", "n\n#"], [["x_1 {50%} $~^\\", Number(-1.5, 0.25, digits=2, best=True)]]
    )
    assert odd.markdown().splitlines()[2] == r"| &lt;b&gt;&amp;\_% | n # |"
    assert odd.markdown().splitlines()[4] == r"| x\_1 {50%} $~^\\ | **−1.50 ± 0.25** |"
    latex = odd.latex()
    assert r"\textless{}b\textgreater{}\&\_\% & n \#" in latex
    assert (
        r"x\_1 \{50\%\} \$\textasciitilde{}\textasciicircum{}\textbackslash{} & \textbf{$-$1.50 $\pm$ 0.25}"
        in latex
    )
    assert latex.count(r"\toprule") == latex.count(r"\midrule") == latex.count(r"\bottomrule") == 1
    assert list(csv.reader(io.StringIO(odd.csv()))) == [
        ["<b>&_%", "n\n#", "n\n# sd"],
        ["x_1 {50%} $~^\\", "-1.5", "0.25"],
    ]


def test_a_row_of_latex_may_begin_with_what_the_end_of_the_row_before_takes():
    odd = Table(
        "odd", "What is odd", ["[a]", "b"], [["[1cm]", "x"], ["*", "y"], ["c", "[z]"]], ["One.", "Two."]
    )
    lines = odd.latex().splitlines()
    assert r"{}[a] & b \\" in lines
    assert [line for line in lines if "&" in line][1:] == [r"{}[1cm] & x \\", r"{}* & y \\", r"c & [z] \\"]
    assert r"\caption{What is odd. One. Two.}" in lines
    assert r"\caption{What is odd}" in replace(odd, notes=()).latex()


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "NaN"), (math.inf, "∞"), (-0.0001, "0.000"), (-2, "−2.000")]
)
def test_numbers_are_told(value, text):
    assert str(Number(value)) == text


def test_simulated_times_are_means_over_seeds_and_all_is_the_latest():
    times = {"fast": [(3.0, 5.0), (4.0, 9.0)], "slow": [(7.0, 6.0), (8.0, math.nan)]}
    found = [
        Reached(way, task, 0.8, time, seed)
        for way, seeds in times.items()
        for seed, row in enumerate(seeds)
        for task, time in zip(TASKS[:2], row, strict=True)
    ]
    results = sample(reached=found)
    _, fast, slow = read(results, "reached")
    assert [float(cell) for cell in fast[1:]] == pytest.approx(
        [3.5, stdev([3, 4]), 7, stdev([5, 9]), 7, stdev([5, 9])]
    )
    assert [float(cell) for cell in slow[1:3]] == pytest.approx([7.5, stdev([7, 8])])
    assert slow[3:] == ["– (1 of 2 seeds)", "", "– (1 of 2 seeds)", ""]
    for text in (table(results, "reached").markdown(), table(results, "reached").latex()):
        assert "NaN" not in text
        assert text.count(" (1 of 2 seeds)") == 2
    alone = sample(1, reached=[each for each in found if each.seed == 1])
    assert read(alone, "reached")[2] == ["slow", "8.0", "–", "–"]
    notes = table(results, "reached").notes
    assert notes[0] == f"Wanted on validation examples: {TASKS[0]} 0.8, {TASKS[1]} 0.8."
    other = [replace(each, target=0.9) if each.model == "slow" else each for each in found]
    notes = table(sample(reached=other), "reached").notes
    assert notes[:2] == [
        f"Wanted on validation examples of fast: {TASKS[0]} 0.8, {TASKS[1]} 0.8.",
        f"Wanted on validation examples of slow: {TASKS[0]} 0.9, {TASKS[1]} 0.9.",
    ]


def test_without_targets_there_is_no_table_of_times():
    assert not any(each.name == "reached" for each in tables(RESULTS))


def written(results, folder):
    """All that a report says, in each of its languages."""
    write_report(results, folder)
    of = [p for p in folder.rglob("*") if p.suffix in (".md", ".tex", ".csv")]
    page = re.sub(r"<script>/\*\*.*?</script>", "", (folder / "report.html").read_text(), flags=re.DOTALL)
    return "\n".join([page, *(p.read_text() for p in of)])


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_split_that_was_scored_is_told_everywhere(split, tmp_path):
    told = written(sample(split=split), tmp_path)
    other = {"test": "validation", "validation": "test"}[split]
    assert f"Score of every model on every task's {split} examples" in told
    assert f"16 {split} pictures" in told
    for wrong in (
        "task's {} examples",
        "over {} examples",
        "same {} scores",
        "{} pictures",
    ):
        assert wrong.format(other) not in told
    assert ("none of test examples" in told) == (split == "validation")


def test_settings_chosen_by_what_is_scored_are_said_to_be_favoured(tmp_path):
    told = written(sample(split="validation"), tmp_path)
    assert "never on" not in told
    assert table(sample(split="validation"), "tuning").title.startswith(
        "Tuning on validation examples, the same that are scored"
    )
    assert "are favoured" in " ".join(caveats(sample(split="validation")))
    for fair in (
        sample(),
        sample(split="validation", trials=()),
        sample(split="validation", tuned_on="calibration"),
    ):
        assert "are favoured" not in " ".join(caveats(fair))
    other = table(sample(split="validation", tuned_on="calibration"), "tuning")
    assert other.title.startswith("Tuning on calibration examples, never on validation examples")


def test_settings_without_a_number_are_counted_and_named():
    of = [t for t in RESULTS.trials if t.way in ("ties", "magmax")]
    of = [
        replace(t, value=math.nan) if t.way == "ties" and t.options["scale"] in (0.1, 0.8) else t for t in of
    ]
    results = sample(trials=of)
    found = table(results, "tuning")
    places = {name: i for i, name in enumerate(found.columns)}
    ties, magmax = found.rows
    assert (ties[places["no number"]], magmax[places["no number"]]) == ("6 of 24", "–")
    assert any("NaN or infinite" in note for note in found.notes)
    (drawn,) = (figure for figure in figures(results) if figure.name == "tuning")
    assert "ties: scale=0.1, density=0.2; ties: scale=0.8, density=0.2." in " ".join(drawn.notes)
    assert "no number" not in table(RESULTS, "tuning").columns


def test_a_metric_that_is_a_mean_already_is_not_called_the_mean_of_means():
    rows = [
        one(model, value, metric="mean squared error") for model, value in (("experts", 1.0), ("ties", 2.0))
    ]
    results = sample(1, scores=[Scores(tuple(rows))], seeds=[0], reference=None, pictures=(), missing={})
    assert table(results, "averages").columns[-1] == "mean squared error, averaged"
    assert table(RESULTS, "averages").columns[-1] == "mean accuracy †"


def test_the_base_is_tested_against_the_reference_like_all_others():
    assert "base" in [each.model for each in paired_tests(RESULTS)]
    assert "base" not in [each.model for each in paired_tests(sample(reference="base"))]
    others = [replace(each, value=each.value) for each in paired_tests(RESULTS)]
    assert [each.corrected for each in others] == holm([each.p for each in others])


def test_tables_for_latex_are_of_ascii_alone():
    reached = [
        Reached(way, task, 0.8, time, seed)
        for way, time in (("average", 2.0), ("ties", math.nan))
        for task in TASKS[:2]
        for seed in range(3)
    ]
    failed = [replace(each, value=math.nan, failed="its loss diverged") for each in RESULTS.trials[:2]]
    expected = [("joint", "average"), ("average", "joint")]
    trials = [*failed, *RESULTS.trials[2:]]
    for results in (replace(RESULTS, expected=expected, reached=reached, trials=trials), sample(1)):
        told = {each.name: each.latex() for each in tables(results)}
        assert {"costs", "averages", "tests", "tuning", "missing"} <= told.keys()
        assert [name for name, text in told.items() if not text.isascii()] == []
    assert r"MB: 10$^{6}$ bytes" in told["costs"]
    assert "MB: 10⁶ bytes" in table(RESULTS, "costs").markdown()


@pytest.mark.parametrize(
    "module", ["_notes", "_score_tables", "_settings", "_shares", "_table", "_tables", "_tuning"]
)
def test_latex_has_a_word_for_all_that_plait_says_in_tables(module):
    tree = ast.parse(Path(_table.__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    own = (
        each.body[0]
        for each in ast.walk(tree)
        if isinstance(each, ast.Module | ast.FunctionDef | ast.ClassDef)
    )
    docs = {id(first.value) for first in own if isinstance(first, ast.Expr)}
    told = [
        each.value
        for each in ast.walk(tree)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docs
    ]
    assert told
    assert [text for text in told if not Table("of", text, [text], [[text]], [text]).latex().isascii()] == []
