"""A suite's YAML file: tasks of tables and datasets; whatever it gets wrong is told with its line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from plait.errors import InputError
from plait.tasks import Items, NextToken, SquaredError, Unavailable, evaluate, load_suite, suite_names

HEAD = "suite: mine\nbase: {call: 'test_suite_file:body'}\nwidth: 4\ntasks:\n"
CSV = "  - {name: t, classes: 2, input: x, data: {csv: t.csv, shares: {train: 0.5, test: 0.5}}}\n"


def body() -> nn.Module:
    return nn.Linear(1, 4)


def words(folder: Path) -> None:
    """A tokenizer of three words, in the folder's `words`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "?": 3}, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=plain).save_pretrained(folder / "words")


@pytest.fixture
def write(tmp_path):
    """Text of a suite → its path, beside a table of ten rows in every format."""
    rows = [{"x": float(i), "label": i % 2, "person": f"p{i // 2}"} for i in range(10)]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    columns = {"x": np.arange(10.0).reshape(10, 1), "label": np.arange(10) % 2}
    np.savez(tmp_path / "t.npz", **columns)

    def written(text: str) -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return written


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz"])
def test_a_task_of_a_table(write, kind):
    suite = load_suite(write(HEAD + CSV.replace("csv", kind).replace("input: x", "input: x")))
    task = suite["t"]
    assert {name: len(split) for name, split in task.splits.items()} == {"train": 5, "test": 5}
    seen = torch.cat([task.splits[name].batch(range(5))["input"].flatten() for name in ("train", "test")])
    assert sorted(seen.tolist()) == list(range(10))
    batch = task.split("train").batch([0])
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [int(batch["input"].item()) % 2]
    assert suite.base().out_features == 4
    assert task.head is not None


def test_a_table_is_cut_by_source(write):
    data = "{csv: t.csv, shares: {train: 0.6, test: 0.4}, source: person}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    people = {
        name: {int(x) // 2 for x in split.batch(range(len(split)))["input"].flatten()}
        for name, split in suite["t"].splits.items()
    }
    assert people["train"] | people["test"] == set(range(5))
    assert not people["train"] & people["test"]


def test_splits_may_have_files_of_their_own_and_those_without_labels_need_none(write, tmp_path):
    (tmp_path / "raw.csv").write_text("x\n1.5\n2.5\n")
    data = "{csv: {train: t.csv, calibration: raw.csv}}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    assert list(suite["t"].split("calibration").batch([0])) == ["input"]


def test_a_regression(write):
    text = HEAD + CSV.replace("classes: 2", "loss: squared_error")
    task = load_suite(write(text))["t"]
    assert isinstance(task.loss, SquaredError)
    assert task.metric.name == "mean squared error"
    assert task.split("train").batch([0])["label"].dtype == torch.float32


def test_a_dataset_that_lies_on_this_disk(write, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "t.csv").rename(tmp_path / "set" / "train.csv")
    data = f"{{dataset: '{tmp_path / 'set'}', parts: {{train: 'train[:60%]', test: 'train[60%:]'}}}}"
    suite = load_suite(write(HEAD + f"  - {{name: t, classes: 2, input: x, data: {data}}}\n"))
    assert {name: len(split) for name, split in suite["t"].splits.items()} == {"train": 6, "test": 4}
    assert suite["t"].split("test").batch([0])["input"].tolist() == [[6.0]]


def test_text_becomes_tokens_with_the_bytes_they_stand_for(write, tmp_path):
    words(tmp_path)
    (tmp_path / "text.jsonl").write_text('{"x": "one two three"}\n{"x": "two one"}\n')
    head = "suite: s\nbase: {call: 'test_suite_file:body'}\nreads: text\nprocessor: words\nmeet: logits\n"
    task = "tasks:\n  - {name: t, input: x, loss: next_token, data: {jsonl: {train: text.jsonl}}}\n"
    suite = load_suite(write(head + task))
    made = suite["t"]
    assert suite.decode is not None
    assert suite.decode([2, 1, 0]) == "three two one"
    assert isinstance(made.loss, NextToken)
    assert made.metric.name == "bits per byte"
    batch = made.split("train").batch([0, 1])
    assert batch["input_ids"].tolist() == [[0, 1, 2], [1, 0, 0]]
    assert batch["labels"].tolist() == [[0, 1, 2], [1, 0, -100]]
    assert batch["bytes"].tolist() == [len("two three"), len("one")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + CSV.replace("classes", "clases"), r"suite\.yaml:5: unknown key `clases`(.|\n)*`classes`"),
        (HEAD + CSV.replace("classes: 2, ", ""), "needs `classes`"),
        (HEAD + CSV.replace("csv: t.csv", "csv: t.csv, npz: t.npz"), "exactly one of `csv`"),
        (HEAD + CSV.replace(", shares: {train: 0.5, test: 0.5}", ""), "needs `shares`"),
        (HEAD + CSV.replace("train: 0.5", "tran: 0.5"), "`tran` is no split"),
        (HEAD + CSV.replace("train: 0.5", "train: 0.7"), "sum to 1"),
        (HEAD + CSV.replace("input: x", "input: y"), "there is no column `y`"),
        (HEAD + CSV.replace("classes: 2", "classes: 1"), r"t\.csv:\d+: `label` is 1, no class"),
        (HEAD + CSV.replace("train: 0.5", "train: -0.5"), "shares are above 0"),
        (HEAD + CSV.replace("input: x", "input: []"), "`input` names no column"),
        (HEAD + CSV.replace("input: x", "input: [x, z]"), "there is no column `z`"),
        (
            HEAD + CSV.replace("input: x, ", ""),
            r"t\.csv:\d+: `person` is 'p\d', no number(.|\n)*`input` names",
        ),
        (HEAD + CSV.replace("classes: 2", "loss: next_token"), "needs `reads: text`"),
        (
            "reads: images\nprocessor: p\n" + HEAD + CSV.replace("input: x", "input: [x, y]"),
            "takes one column",
        ),
        (HEAD + CSV.replace("input: x", "input: person"), "column"),
        (HEAD + CSV + CSV, "two tasks have one name"),
        (HEAD.replace("width: 4\n", "") + CSV, "needs `width`"),
        (HEAD.replace("call: 'test_suite_file:body'", "") + CSV, "needs `model`"),
        (HEAD, "`tasks`"),
        ("suite: [", "not valid YAML"),
    ],
)
def test_what_a_file_gets_wrong_is_told(write, text, message):
    with pytest.raises(InputError, match=message):
        load_suite(write(text))


def test_a_function_that_is_not_there_is_told_when_the_base_is_made(write):
    suite = load_suite(write(HEAD.replace("body'", "bodies'") + CSV))
    with pytest.raises(InputError, match="`test_suite_file:bodies`"):
        suite.base()


def fails() -> nn.Module:
    raise RuntimeError("no such\nweights")


def leaves() -> nn.Module:
    raise SystemExit(3)


def tells() -> nn.Module:
    raise InputError("the user's own", hint="as they like it")


def number() -> int:
    return 3


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "test_suite_file:fails",
            "`test_suite_file:fails`, which raised RuntimeError: no such\nweights\n  hint: ",
        ),
        (
            "test_suite_file:leaves",
            "`test_suite_file:leaves`, which raised SystemExit: 3\n  hint: raised in ",
        ),
        ("test_suite_file:number", "`test_suite_file:number`, which gives a int, no module"),
        ("test_suite_file:HEAD", "test_suite_file.py has no function `HEAD`"),
        (
            "broken_module:f",
            "`broken_module:f`, whose module raised ZeroDivisionError: division by zero\n  hint",
        ),
        ("wanting_module:f", "whose module raised ModuleNotFoundError: No module named 'not_there'"),
        ("not_there:f", "`not_there:f`, and there is no module `not_there`"),
    ],
)
def test_what_a_function_of_the_users_raises_is_theirs(write, tmp_path, call, told):
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "wanting_module.py").write_text("import not_there\n")
    path = write(HEAD.replace("test_suite_file:body", call) + CSV)
    with pytest.raises(InputError) as error:
        load_suite(path).base()
    assert str(error.value).startswith(f"{path}:2: `call` names ")
    assert told in str(error.value)
    if call == "broken_module:f":
        assert str(error.value).endswith(f"raised in {tmp_path / 'broken_module.py'}, line 1")


def test_an_error_in_plaits_words_stays_as_it_is(write):
    with pytest.raises(InputError, match=r"^the user's own\n  hint: as they like it$"):
        load_suite(write(HEAD.replace("file:body", "file:tells") + CSV)).base()


def test_the_suite_goes_on_without_a_file_that_is_not_there(write):
    text = HEAD + CSV + CSV.replace("name: t", "name: u").replace("t.csv", "gone.csv")
    suite = load_suite(write(text))
    assert [task.name for task in suite.tasks] == ["t"]
    assert "there is no file `gone.csv`" in suite.missing["u"]


def test_only_the_tasks_that_are_asked_for_are_made(write):
    broken = CSV.replace("name: t", "name: u").replace("input: x", "input: gone")
    gone = CSV.replace("name: t", "name: v").replace("t.csv", "gone.csv")
    path = write(HEAD + CSV + broken + gone)
    suite = load_suite(path, tasks=["t"])
    assert [task.name for task in suite.tasks] == ["t"]
    assert (suite.left_out, dict(suite.missing)) == (("u", "v"), {})
    for tasks, message in (
        (["u"], "there is no column `gone`"),
        (["t", "v"], "suite `mine`: task `v` is missing: there is no file `gone.csv`"),
        (["tt"], "suite `mine`: there is no task `tt`\n  hint: did you mean `t`"),
        ([], r"`tasks` is \[\]"),
        ("t", "`tasks` is 't'\n  hint: give a list of names"),
    ):
        with pytest.raises(InputError, match=message):
            load_suite(path, tasks=tasks)
    with pytest.raises(InputError, match="task `u` was left out"):
        suite["u"]


def test_evaluation_makes_only_the_tasks_that_it_scores(write):
    path = write(HEAD + CSV + CSV.replace("name: t", "name: u").replace("input: x", "input: gone"))
    heads = {name: nn.Linear(4, 2) for name in "tu"}
    assert evaluate(body(), path, tasks=["t"], heads=heads, bootstrap=0).tasks == ["t"]
    with pytest.raises(InputError, match="there is no task `w`"):
        evaluate(body(), path, tasks=["t"], heads={"w": heads["t"]})


@pytest.mark.parametrize("name", ["clip-8", "clip-14", "clip-20", "mergebench"])
def test_suites_of_the_hub_say_what_cannot_be_had(name, monkeypatch):
    """They ship with plait; without the hub, each is one message that names its data."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert name in suite_names()
    with pytest.raises(Unavailable, match="hub"):
        load_suite(name)


def test_a_suite_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(InputError, match="did you mean `glyphs`"):
        load_suite("gylphs")


def rows_of(suite, name: str = "t") -> torch.Tensor:
    """The inputs of all splits."""
    splits = suite[name].splits.values()
    return torch.cat([split.batch(range(len(split)))["input"] for split in splits])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "npz"])
@pytest.mark.parametrize("named", ["", "input: [b, a, c], "])
def test_features_are_all_columns_but_label_and_source_or_those_that_are_named(tmp_path, write, kind, named):
    table = {"a": np.arange(10), "b": np.arange(10) / 4, "label": np.arange(10) % 2, "c": -np.arange(10)}
    table["who"] = np.array([f"p{row}" for row in range(10)])
    rows = [
        dict(zip(table, row, strict=True)) for row in zip(*(c.tolist() for c in table.values()), strict=True)
    ]
    (tmp_path / "f.csv").write_text(
        "\n".join([",".join(table), *(",".join(map(str, r.values())) for r in rows)])
    )
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    np.savez(tmp_path / "f.npz", **table)
    data = f"{{{kind}: f.{kind}, shares: {{train: 0.5, test: 0.5}}, source: who}}"
    found = rows_of(load_suite(write(HEAD + f"  - {{name: t, classes: 2, {named}data: {data}}}\n")))
    assert found.dtype == torch.float32
    wanted = np.stack([table[name] for name in ("bac" if named else "abc")], axis=1)
    assert sorted(found.tolist()) == sorted(wanted.tolist())


def test_one_column_of_arrays_is_the_input_as_it_is(tmp_path, write):
    rows = [{"tokens": [row, row + 1], "label": row % 2} for row in range(10)]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = rows_of(
        load_suite(write(HEAD + CSV.replace("input: x, ", "").replace("csv: t.csv", "jsonl: f.jsonl")))
    )
    assert found.dtype == torch.int64
    assert sorted(found.tolist()) == [row["tokens"] for row in rows]


def test_features_of_files_are_taken_by_name(tmp_path, write):
    (tmp_path / "a.csv").write_text("a,b,label\n1,2,0\n3,4,1\n")
    (tmp_path / "b.csv").write_text("label,b,a\n0,6,5\n1,8,7\n")
    task = "  - {name: t, classes: 2, data: {csv: {train: a.csv, test: b.csv}}}\n"
    assert rows_of(load_suite(write(HEAD + task))).tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("9,", "`label` is missing"),
        ("9,nan", "`label` is 'nan', no finite number"),
        ("9,0.5", "`label` is 0.5, no class"),
        ("9,cat", "`label` is 'cat', no number\n  hint: classes are whole numbers from 0 to 1"),
        ("9,2", "`label` is 2, no class"),
        ("9,-100", "`label` is -100, no class"),
        (",1", "`x` is missing\n  hint: fill or drop such rows"),
        ("nan,1", "`x` is 'nan', no finite number"),
        ("inf,1", "`x` is 'inf', no finite number"),
        ("cat,1", "`x` is 'cat', no number"),
        ("9", "1 values stand under a header of 2 columns"),
        ("9,1,1", "3 values stand under a header of 2 columns"),
    ],
)
def test_a_row_of_a_csv_that_is_wrong_is_told_with_its_line(tmp_path, write, row, message):
    rows = ["x,label", '"0\n",0', "", *(f"{i},{i % 2}" for i in range(1, 9)), row, "10,1"]
    (tmp_path / "odd.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError) as caught:
        load_suite(write(HEAD + CSV.replace("t.csv", "odd.csv")))
    assert str(caught.value).startswith(f"{tmp_path / 'odd.csv'}:13: {message}")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1, 2]", "a row is a list"),
        ("3", "a row is a int"),
        ('{"x": 1', "this is no JSON"),
        ('{"x": 1}', "`label` is missing"),
        ('{"x": null, "label": 1}', "`x` is missing"),
        ('{"x": NaN, "label": 1}', "`x` is missing"),
        ('{"x": "a", "label": 1}', "`x` is 'a', no number"),
        ('{"x": {"a": 1}, "label": 1}', "`x` is {'a': 1}, no number"),
        ('{"x": [1, 2], "label": 1}', "`x` has the shape (2,), and () before"),
        ('{"x": 1, "label": null}', "`label` is missing"),
    ],
)
def test_a_row_of_json_lines_that_is_wrong_is_told_with_its_line(tmp_path, write, row, message):
    rows = ['{"x": 1, "label": 0, "more": "a\u2028b"}', "", '{"x": 2, "label": 1}', row]
    (tmp_path / "odd.jsonl").write_text("\n".join(rows), encoding="utf-8")
    task = "  - {name: t, classes: 2, input: x, data: {jsonl: {train: odd.jsonl}}}\n"
    with pytest.raises(InputError) as caught:
        load_suite(write(HEAD + task))
    assert str(caught.value).startswith(f"{tmp_path / 'odd.jsonl'}:4: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no archive"),
        (b"PK\x05\x06" + bytes(18), "no rows"),
        ({"x": np.arange(3), "label": np.arange(2)}, "unequal length: `x` 3, `label` 2"),
        ({"x": np.array([object()] * 2), "label": np.arange(2)}, "can't be read as npz"),
        ({"x": np.array([1, np.nan]), "label": np.arange(2)}, "row 1: `x` is missing"),
        ({"x": np.array(["a", "b"]), "label": np.arange(2)}, "row 0: `x` is .*no number"),
    ],
)
def test_an_archive_that_is_wrong_is_told(tmp_path, write, content, message):
    if isinstance(content, bytes):
        (tmp_path / "odd.npz").write_bytes(content)
    else:
        np.savez(tmp_path / "odd.npz", **content)
    task = "  - {name: t, classes: 2, input: x, data: {npz: {train: odd.npz}}}\n"
    with pytest.raises(InputError, match=message):
        load_suite(write(HEAD + task))


def test_texts_are_texts(tmp_path, write):
    rows = ['{"x": "one"}', '{"x": null}']
    (tmp_path / "text.jsonl").write_text("\n".join(rows))
    head = "suite: s\nbase: {call: 'test_suite_file:body'}\nreads: text\nprocessor: words\nmeet: logits\n"
    task = "tasks:\n  - {name: t, input: x, loss: next_token, data: {jsonl: {train: text.jsonl}}}\n"
    words(tmp_path)
    with pytest.raises(InputError, match=r"text\.jsonl:2: `x` is missing"):
        load_suite(write(head + task))


def test_one_file_for_two_splits_is_refused(tmp_path, write):
    (tmp_path / "copy.csv").write_bytes((tmp_path / "t.csv").read_bytes())
    (tmp_path / "link.csv").symlink_to(tmp_path / "t.csv")
    task = "  - {name: t, classes: 2, input: x, data: {csv: {train: t.csv, test: OTHER}}}\n"
    for other, message in (
        ("t.csv", "splits `train` and `test` are one file, `t.csv`\n  hint: .*`shares`"),
        ("./t.csv", "splits `train` and `test` are one file"),
        ("link.csv", "splits `train` and `test` are one file"),
        ("copy.csv", "splits `train` and `test` hold the same numbers: 10 of 10"),
    ):
        with pytest.raises(InputError, match=message):
            load_suite(write(HEAD + task.replace("OTHER", other)))


@pytest.mark.parametrize(
    "parts", ["{train: 'train[:60%]', test: 'train[50%:]'}", "{train: train, test: train}"]
)
def test_parts_of_a_dataset_that_overlap_are_refused(write, tmp_path, parts):
    (tmp_path / "set").mkdir()
    (tmp_path / "t.csv").rename(tmp_path / "set" / "train.csv")
    task = f"  - {{name: t, classes: 2, input: x, data: {{dataset: set, parts: {parts}}}}}\n"
    with pytest.raises(InputError, match="splits `train` and `test` overlap: `train"):
        load_suite(write(HEAD + task))


def test_pictures_keep_their_source(tmp_path, write, monkeypatch):
    class Processor:
        def __call__(self, images, return_tensors):
            return {"pixel_values": torch.tensor(images, dtype=torch.float32)[None]}

    monkeypatch.setattr("plait.tasks._suite_file._processor", lambda *_: Processor())
    for name, who in (("a", [0, 0, 1]), ("b", [2, 1, 3])):
        pixels = np.full((3, 2, 2), who[0])
        np.savez(tmp_path / f"{name}.npz", input=pixels, label=np.arange(3) % 2, who=np.array(who))
    head = HEAD.replace("tasks:", "reads: images\nprocessor: p\ntasks:")
    task = "  - {name: t, classes: 2, data: {npz: {train: a.npz, test: b.npz}, source: who}}\n"
    with pytest.raises(InputError, match="splits `train` and `test` share `1`"):
        load_suite(write(head + task))
    task = load_suite(write(head + task.replace(", test: b.npz", "")))["t"]
    batch = task.split("train").batch([2, 0])
    assert batch["pixel_values"].shape == (2, 2, 2)
    assert batch["label"].tolist() == [0, 0]


class Shrinking:
    """A processor that says what it is."""

    def __init__(self, by: int = 1) -> None:
        self.by = by

    def to_dict(self) -> dict[str, int]:
        return {"by": self.by}

    def __call__(self, images, return_tensors):
        return {"pixel_values": torch.tensor(np.asarray(images, dtype=np.float32))[None] / self.by}


def test_pictures_of_archives_are_told_by_their_arrays_and_what_prepares_them(tmp_path, write, monkeypatch):
    head = HEAD.replace("tasks:", "reads: images\nprocessor: p\ntasks:")
    shares = "shares: {train: 0.5, test: 0.5}, seed: SEED"
    task = f"  - {{name: t, classes: 2, data: {{npz: a.npz, {shares}}}}}\n"

    def origin(pixels, by=1, seed=0):
        monkeypatch.setattr("plait.tasks._suite_file._processor", lambda *_: Shrinking(by))
        np.savez(tmp_path / "a.npz", input=pixels, label=np.arange(8) % 2)
        split = load_suite(write(head + task.replace("SEED", str(seed))))["t"].split("train")
        assert isinstance(split, Items)
        return split.origin

    pixels = np.random.default_rng(0).integers(0, 255, (8, 2, 2))
    one = origin(pixels)
    assert origin(pixels.copy()) == one
    other = pixels.copy()
    other[7, 1, 1] += 1
    assert len({one, origin(other), origin(pixels, by=2), origin(pixels, seed=1), origin(pixels * 1.0)}) == 5


@pytest.mark.slow
def test_pictures_of_datasets_are_told_by_fingerprints_that_follow_their_files(tmp_path, write, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("datasets")
    monkeypatch.setattr("plait.tasks._suite_file._processor", lambda *_: Shrinking())
    for split, place in itertools.product(("train", "test"), range(6)):
        (tmp_path / "set" / split / str(place % 2)).mkdir(parents=True, exist_ok=True)
        image.new("L", (3, 3), 9 * place).save(tmp_path / "set" / split / str(place % 2) / f"{place}.png")
    head = HEAD.replace("tasks:", "reads: images\nprocessor: p\ntasks:")
    parts = "{train: 'train[:50%]', validation: 'train[50%:]', test: test}"
    path = write(
        head + f"  - {{name: t, classes: 2, input: image, data: {{dataset: set, parts: {parts}}}}}\n"
    )

    def origins():
        return [each.origin for each in load_suite(path)["t"].splits.values()]

    one = origins()
    assert None not in one
    assert len(set(one)) == 3
    assert origins() == one
    image.new("L", (3, 3), 200).save(tmp_path / "set" / "train" / "1" / "1.png")
    assert origins()[0] != one[0]


def test_a_base_that_is_no_module_is_told(write):
    suite = load_suite(write(HEAD.replace("test_suite_file:body", "builtins:dict") + CSV))
    with pytest.raises(InputError, match="gives a dict, no module"):
        suite.base()
    suite = load_suite(write(HEAD.replace("test_suite_file:body", ":f") + CSV))
    with pytest.raises(InputError, match="`call` names `:f`"):
        suite.base()
