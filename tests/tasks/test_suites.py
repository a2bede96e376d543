"""The suites that ship with plait: real data, splits that share no source, bases made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from plait.errors import InputError
from plait.fleet import Fleet, Member
from plait.tasks import SPLITS, Columns, Suite, Task, load_suite, suite_names
from plait.tasks._networks import ByteGPT, PictureNet
from plait.tasks._trained import Recipe, trained
from plait.tasks.suites._django import messages
from plait.tasks.suites._domains import pieces
from plait.tasks.suites._glyphs import SCRIPTS, glyph_task
from plait.tasks.suites._pictures import digits_task
from plait.tasks.suites._texts import SHARES, Item, chosen, split_of
from plait.tasks.suites.bytes import decode

SIZES = {"train": 200, "validation": 20, "test": 60, "calibration": 20, "adaptation": 20}


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def greek(own_cache) -> Task:
    """A few Greek letters, drawn from fonts that pip installed."""
    return glyph_task("greek", SCRIPTS["greek"], features=192, sizes=SIZES)


def test_letters_are_drawn_from_fonts_and_no_font_is_in_two_splits(greek):
    assert {name: len(split) for name, split in greek.splits.items()} == SIZES
    fonts: Mapping[str, set[str]] = {name: set(split.source) for name, split in greek.splits.items()}
    assert sum(map(len, fonts.values())) == len(set().union(*fonts.values()))
    assert greek.semi_synthetic
    batch = greek.split("train").batch(range(200))
    assert batch["input"].shape == (200, 1, 28, 28)
    assert batch["input"].min() >= 0
    assert batch["input"].max() <= 1
    assert len(batch["label"].unique()) == greek.head.out_features == 49


def test_unlabelled_splits_have_no_labels(greek):
    for name in SPLITS:
        assert ("label" in greek.split(name).batch([0])) == (name not in ("calibration", "adaptation"))


def test_pictures_are_drawn_once_and_are_the_same_wherever_they_are_drawn(greek, own_cache, monkeypatch):
    kept = {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.safetensors")}
    again = glyph_task("greek", SCRIPTS["greek"], features=192, sizes=SIZES)
    assert {path: path.stat().st_mtime_ns for path in own_cache.rglob("*.safetensors")} == kept
    monkeypatch.setenv("PLAIT_CACHE", str(own_cache / "other"))
    for task in (again, glyph_task("greek", SCRIPTS["greek"], features=192, sizes=SIZES)):
        for name in SPLITS:
            wanted, found = (made.split(name).batch(range(20))["input"] for made in (greek, task))
            assert torch.equal(wanted, found)


def test_an_expert_learns_real_digits_within_seconds(own_cache):
    """scikit-learn's, of people that it has not seen in training."""
    task = digits_task(192)
    assert not task.semi_synthetic
    member = Member(name="digits", task=task, steps=60, batch_size=32, lr=1e-3)
    torch.manual_seed(0)
    model = Fleet([member], model=PictureNet(), backend="sequential").fit()["digits"].eval()
    batch = task.split("test").batch(range(len(task.split("test"))))
    with torch.no_grad():
        outputs = task.outputs(model, batch)
    assert float((outputs.argmax(1) == batch["label"]).double().mean()) > 0.5


def test_a_base_is_trained_once_for_its_data_and_settings(greek, own_cache):
    recipe = Recipe(steps=2, batch_size=4)
    code = str(Path(__file__))
    bases = [trained("b", PictureNet, greek, recipe, code).state_dict() for _ in range(2)]
    assert len(list((own_cache / "bases").glob("b-*"))) == 1
    assert all(torch.equal(bases[0][name], bases[1][name]) for name in bases[0])
    torch.manual_seed(5)
    trained("b", PictureNet, greek, replace(recipe, steps=1), code)
    smaller = replace(greek, splits={"train": greek.split("validation")})
    trained("b", PictureNet, smaller, recipe, code)
    assert len(list((own_cache / "bases").glob("b-*"))) == 3


def test_training_a_base_does_not_touch_the_callers_random_numbers(greek):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    trained("b", PictureNet, greek, Recipe(steps=1, batch_size=2), __file__)
    assert torch.equal(torch.rand(1), wanted)


def test_a_byte_gpt_sees_nothing_of_what_comes():
    torch.manual_seed(0)
    model, tokens = ByteGPT(width=16, depth=2, heads=2, length=12).eval(), torch.randint(0, 256, (2, 12))
    before = model(tokens)
    tokens[:, 7:] = (tokens[:, 7:] + 1) % 256
    after = model(tokens)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7], after[:, 7])


def test_texts_of_one_source_lie_in_one_split_and_classes_in_turns():
    items = [Item(f"text {i}", i % 3, f"source {i % 90}") for i in range(2000)]
    found = chosen(items, dict.fromkeys(SHARES, 90))
    for name, part in found.items():
        assert all(split_of(item.source) == name for item in part)
        assert len(part) <= 90
    counts = [sum(item.label == label for item in found["train"]) for label in range(3)]
    assert counts == [30, 30, 30]


def test_a_text_that_comes_twice_is_taken_once():
    items = [Item("The same", 0, "a"), Item("the  same", 1, "b"), Item("another", 0, "c")]
    found = chosen(items, dict.fromkeys(SHARES, 9))
    assert sum(map(len, found.values())) == 2


def test_about_the_promised_share_of_sources_lies_in_each_split():
    places = [split_of(f"source {i}") for i in range(20000)]
    for name, share in SHARES.items():
        assert places.count(name) / 20000 == pytest.approx(share, abs=0.01)


def test_pieces_lie_in_one_document_and_have_their_size():
    documents = [(f"d{i}", "äbc" * (i + 5)) for i in range(50)]
    found = pieces(documents, 10, dict.fromkeys(SHARES, 1000))
    for name, part in found.items():
        for source, content in part:
            assert len(content) == 10
            assert split_of(source) == name
            assert content in dict(documents)[source].encode()


def test_messages_are_read_out_of_a_po_file():
    content = (
        'msgid ""\nmsgstr ""\n"Language: de\\n"\n\n'
        'msgid "Hello"\nmsgstr "Hallo"\n\n'
        'msgid ""\n"A long "\n"message"\nmsgstr ""\n"Eine \\"lange\\" "\n"Nachricht"\n\n'
        '#, fuzzy\nmsgid "Old"\nmsgstr "Alt"\n\n'
        'msgid "one"\nmsgid_plural "many"\nmsgstr[0] "eins"\nmsgstr[1] "viele"\n\n'
        'msgid "Untold"\nmsgstr ""\n'
    )
    assert list(messages(content)) == [("Hello", "Hallo"), ("A long message", 'Eine "lange" Nachricht')]


def test_bytes_are_read_as_text_even_where_a_letter_is_cut_apart():
    whole = "ein schönes Haus".encode()
    assert decode(list(whole)) == "ein schönes Haus"
    assert decode(list(whole[:8])) == "ein sch\ufffd"


def test_the_names_of_suites_are_told():
    assert suite_names() == sorted(suite_names())
    assert {"glyphs", "text", "bytes", "smollm2"} <= set(suite_names())


def check(suite: Suite, base: nn.Module) -> None:
    """Every task has five splits that share nothing, and a base that its batches fit."""
    for task in suite.tasks:
        assert tuple(task.splits) == SPLITS
        sources = [set(getattr(split, "source", ())) for split in task.splits.values()]
        assert all(sources)
        assert sum(map(len, sources)) == len(set().union(*sources))
        model = task.with_body(base, copy_body=False).eval()
        batch = task.split("test").batch([0, 1])
        with torch.no_grad():
            values, _ = task.loss(task.outputs(model, batch), batch)
        assert values.isfinite().all()
        assert task.about


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("glyphs", 8), ("text", 6), ("bytes", 4), ("smollm2", 4)])
def test_a_suite_is_whole(name, least):
    suite = load_suite(name)
    assert len(suite.tasks) >= least
    assert not suite.missing
    check(suite, suite.base())


@pytest.mark.slow
def test_a_suite_goes_on_without_debian_and_says_so(monkeypatch, tmp_path):
    """With an empty cache and no apt-get, what pip brings is left."""
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    monkeypatch.setattr("plait.tasks._packages.shutil.which", lambda name: None)
    suite = load_suite("glyphs")
    assert len(suite.tasks) >= 8
    assert sorted(suite.missing) == ["arabic", "hebrew", "shoes and others", "tops"]
    assert "there is no apt-get" in suite.missing["tops"]
    with pytest.raises(InputError, match="task `tops` is missing"):
        suite["tops"]


@pytest.mark.parametrize(("suite", "name"), [("glyphs", "digits"), ("bytes", "reviews"), ("text", "films")])
def test_a_shipped_suite_makes_what_is_asked_for(suite, name):
    """And nothing else, which takes a fraction of the time."""
    found = load_suite(suite, tasks=[name])
    assert [task.name for task in found.tasks] == [name]
    assert name not in found.left_out
    assert len(found.left_out) > 3
    with pytest.raises(InputError, match=f"suite `{suite}`: there is no task `nothing`"):
        load_suite(suite, tasks=["nothing"])


def test_labels_of_columns_are_checked_with_the_head():
    split = {"train": Columns({"input": torch.zeros(1, 1, 28, 28), "label": torch.tensor([10])})}
    with pytest.raises(InputError, match="label 10 is out of range"):
        Task("digits", split, head=nn.Linear(192, 10))
