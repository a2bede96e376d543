"""Bad input gets one clear message that names what is at fault, exit status 2, and leaves nothing behind."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plait.cli import main

Case = tuple[str, list[str], list[str]]
DEFAULT = "merge: linear\nmodels: [a, b]\n"


def write(folder: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layers.{i}.w": torch.randn(8, 6, generator=generator) for i in range(3)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"num_hidden_layers": 3}')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed, name in enumerate(("a", "b", "base")):
        write(tmp_path / name, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def shard(folder: Path, places: dict[str, str] | None = None) -> None:
    """The folder's file as two shards and an index, that says `places` on top."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = ({"layers.0.w": tensors.pop("layers.0.w")}, tensors)
    index = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(part, folder / name, {"format": "pt"})
        index |= dict.fromkeys(part, name)
    index |= places or {}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def missing_shard(place: Path) -> Case:
    shard(place / "a")
    (place / "a" / "model-00002-of-00002.safetensors").unlink()
    return DEFAULT, [], ["model-00002-of-00002.safetensors"]


def truncated_shard(place: Path) -> Case:
    shard(place / "a")
    path = place / "a" / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    return DEFAULT, [], ["model-00002-of-00002.safetensors"]


def index_outside(place: Path) -> Case:
    shard(place / "a", {"layers.0.w": "../b/model.safetensors"})
    return DEFAULT, [], ["model.safetensors.index.json", "../b/model.safetensors"]


def index_lies(place: Path) -> Case:
    shard(place / "a", {"layers.9.w": "model-00001-of-00002.safetensors"})
    return DEFAULT, [], ["layers.9.w", "model-00001-of-00002.safetensors"]


def tensor_twice(place: Path) -> Case:
    shard(place / "a")
    path = place / "a" / "model-00002-of-00002.safetensors"
    edit(path, lambda tensors: tensors.update({"layers.0.w": torch.zeros(8, 6)}))
    return DEFAULT, [], ["layers.0.w", "model-00002-of-00002.safetensors"]


def corrupt_header(place: Path) -> Case:
    (place / "a" / "model.safetensors").write_bytes(struct.pack("<Q", 8) + b'{"a": [[' + b"x" * 64)
    return DEFAULT, [], ["model.safetensors"]


def huge_header(place: Path) -> Case:
    (place / "a" / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    return DEFAULT, [], ["model.safetensors"]


def overlapping_tensors(place: Path) -> Case:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    header = json.dumps({"x": entry, "y": entry}).encode()
    (place / "a" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 16)
    return DEFAULT, [], ["model.safetensors"]


def shape_mismatch(place: Path) -> Case:
    edit(place / "b" / "model.safetensors", lambda t: t.update({"layers.1.w": torch.zeros(9, 6)}))
    return DEFAULT, [], ["layers.1.w", "b", "9", "8"]


def rank_mismatch(place: Path) -> Case:
    edit(place / "b" / "model.safetensors", lambda t: t.update({"layers.1.w": torch.zeros(8, 6, 1)}))
    return DEFAULT, [], ["layers.1.w", "b"]


def only_in_some(place: Path) -> Case:
    edit(place / "b" / "model.safetensors", lambda t: t.update({"extra.w": torch.zeros(2)}))
    edit(place / "a" / "model.safetensors", lambda t: t.pop("layers.2.w"))
    return DEFAULT, [], ["extra.w", "layers.2.w", "2 problems"]


def holds_nan(place: Path) -> Case:
    edit(place / "b" / "model.safetensors", lambda t: t["layers.2.w"].view(-1)[-1:].fill_(float("nan")))
    return DEFAULT, [], ["layers.2.w", "b", "NaN", "--allow-nan"]


def holds_infinity(place: Path) -> Case:
    edit(place / "b" / "model.safetensors", lambda t: t["layers.0.w"].view(-1)[:1].fill_(float("-inf")))
    return "merge: ties\nbase: base\nmodels: [a, b]\n", [], ["layers.0.w", "b"]


def missing_model(place: Path) -> Case:
    return "merge: linear\nmodels: [./a, ./nope]\n", [], ["nope"]


def pickle_with_code(place: Path) -> Case:
    (place / "b" / "model.safetensors").unlink()
    torch.save({"w": Path("x"), "f": edit}, place / "b" / "pytorch_model.bin")
    return DEFAULT, [], ["pytorch_model.bin"]


def truncated_config(place: Path) -> Case:
    (place / "a" / "config.json").write_text('{"num_hidden_layers": 3')
    return DEFAULT, [], ["config.json"]


def one_model_twice(place: Path) -> Case:
    return "merge: linear\nmodels: [a, ./a]\n", [], ["`a` and `./a` are one model", "recipe.yml:2"]


def beyond_float16(place: Path) -> Case:
    edit(place / "a" / "model.safetensors", lambda tensors: tensors["layers.1.w"].fill_(6e4))
    recipe = f"{DEFAULT}parameters: {{weight: 2, normalize: false}}\ndtype: float16\n"
    return recipe, [], ["layers.1.w", "range of float16", "bfloat16"]


def beyond_float8(place: Path) -> Case:
    edit(place / "a" / "model.safetensors", lambda tensors: tensors["layers.1.w"].fill_(6e4))
    return f"{DEFAULT}dtype: float8_e4m3fn\n", [], ["layers.1.w", "range of float8_e4m3fn"]


def beyond_float32(place: Path) -> Case:
    weight = "{model: a, weight: 1.0e+300}"
    return f"merge: task_arithmetic\nbase: base\nmodels: [{weight}]\n", [], ["layers.", "infinities"]


def hardly_any_memory(place: Path) -> Case:
    return DEFAULT, ["-o", "out", "--memory", "1"], ["--memory", "1.0 MB"]


def output_is_input(place: Path) -> Case:
    return DEFAULT, ["-o", "a", "--overwrite"], ["one of the inputs", "a"]


def output_is_input_by_another_name(place: Path) -> Case:
    (place / "alias").symlink_to(place / "a", target_is_directory=True)
    return DEFAULT, ["-o", "alias", "--overwrite"], ["one of the inputs", "a"]


def output_in_an_input(place: Path) -> Case:
    return DEFAULT, ["-o", "a/merged"], ["lies in one of the inputs", "a"]


def output_not_empty(place: Path) -> Case:
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("keep")
    return DEFAULT, ["-o", "full"], ["full", "not empty", "--overwrite"]


def output_is_a_file(place: Path) -> Case:
    (place / "taken").write_text("keep")
    return DEFAULT, ["-o", "taken"], ["taken", "is a file"]


def output_below_a_file(place: Path) -> Case:
    (place / "taken").write_text("keep")
    return DEFAULT, ["-o", "taken/out"], ["taken"]


FILES = [
    missing_shard,
    truncated_shard,
    index_outside,
    index_lies,
    tensor_twice,
    corrupt_header,
    huge_header,
    overlapping_tensors,
    shape_mismatch,
    rank_mismatch,
    only_in_some,
    holds_nan,
    holds_infinity,
    missing_model,
    pickle_with_code,
    truncated_config,
    one_model_twice,
    beyond_float16,
    beyond_float8,
    beyond_float32,
    hardly_any_memory,
    output_is_input,
    output_is_input_by_another_name,
    output_in_an_input,
    output_not_empty,
    output_is_a_file,
    output_below_a_file,
]

#: A recipe's text → what the message must name.
RECIPES = {
    "merge: tise\nbase: base\nmodels: [a]": ["tise", "did you mean `ties`"],
    "merge: ties\nmodels: [a, b]": ["ties", "base"],
    "merge: ties\nbase: base\nmodels: [a, b]\nparameters: {densty: 0.3}": ["densty", "`density`"],
    "merge: ties\nbase: base\nmodels: [a, b]\nparameters: {density: 1.3}": ["density", "1.3"],
    "merge: ties\nbase: base\nmodels: [a, b]\nparameters: {density: -0.1}": ["density", "-0.1"],
    "merge: della\nbase: base\nmodels: [a]\nparameters: {density: 0.1, epsilon: 0.2}": ["epsilon", "density"],
    "merge: della\nbase: base\nmodels: [a]\nparameters: {density: 0.95, epsilon: 0.1}": [
        "epsilon",
        "density",
    ],
    "merge: breadcrumbs\nbase: base\nmodels: [a]\nparameters: {gamma: 2}": ["gamma", "2"],
    "merge: linear\nmodels: [a, b]\nparameters: {weight: .nan}": ["weight"],
    "merge: linear\nmodels: [a, b]\nparameters: {weight: .inf}": ["weight"],
    "merge: linear\nmodels: [a, b]\nparameters: {weight: heavy}": ["weight", "heavy"],
    "merge: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: -1}}]": [
        "weight"
    ],
    "merge: linear\nmodels: [a, b]\nmodels: [a]": ["recipe.yml:3", "models"],
    "merge: linear\nmodels: !!python/object/apply:os.system ['true']": ["recipe.yml:2", "python"],
    "merge: linear\nmodels: [a, b\n": ["recipe.yml"],
    "merge: linear\nmodel: [a, b]": ["model", "`models`"],
    "merge: linear\nmodels: [a, b]\ndtype: float13": ["float13"],
    "merge: linear\nmodels: []": ["models"],
    "merge: linear\nmerge_method: linear\nmodels: [a, b]": ["merge_method"],
    "merge: slerp\nbase: base\nmodels: [a, b]\nparameters: {t: 0.5}": ["slerp"],
    "merge: linear\nmodels: [a, b]\nconventions: papr": ["papr", "did you mean `paper`"],
    "merge: linear\nmodels: [a, b]\ntokenizer: unoin": ["unoin", "did you mean `union`"],
    "merge: linear\nslices: [{sources: [{model: a, layer_range: [0, 0]}]}]": ["layer_range", "one layer"],
    "merge: ties\nbase: base\nmodels: [a, b]\n"
    "parameters: {density: [{filter: layers.0.*, value: 0.1}, {value: 0.9}]}": [
        "works on the whole model, and `layers.0.w` and `layers.1.w` have different options",
        "`scope: tensor`",
    ],
    "merge: breadcrumbs\nbase: base\nmodels: [a]\n"
    "parameters: {density: 0.5, scope: model, gamma: [{filter: layers.0.*, value: 0.1}, {value: 0.4}]}": [
        "different options",
    ],
    "merge: ties\nbase: base\nmodels: [a]\n"
    "parameters: {scope: [{filter: layers.0.*, value: tensor}, {value: model}]}": ["different options"],
    "merge: ties\nbase: base\nmodels: [a]\n"
    "parameters: {scope: tensor, zero_sign: [{filter: layers.0.*, value: plus}, {value: majority}]}": [
        "different options"
    ],
    "": ["recipe.yml"],
    "x0: &x0 [1,1,1,1,1,1,1,1,1]\n"
    + "".join(f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 12)): [
        "recipe.yml",
        "alias",
    ],
}


def refused(place: Path, recipe: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command line; the message, after checking that nothing was left or changed."""
    (place / "recipe.yml").write_text(recipe)
    before = {p: p.read_bytes() if p.is_file() else None for p in place.rglob("*")}
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["merge", "recipe.yml", *(words or ["-o", "out"])])
    shown = capsys.readouterr().err
    assert caught.value.code == 2, shown
    assert "Traceback" not in shown
    assert sum(line.startswith("plait:") for line in shown.splitlines()) == 1
    assert {p: p.read_bytes() if p.is_file() else None for p in place.rglob("*")} == before
    return shown


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.__name__)
def test_bad_files_are_named_and_nothing_is_left(place, capsys, case):
    recipe, words, expected = case(place)
    shown = refused(place, recipe, words, capsys)
    for word in expected:
        assert word in shown


@pytest.mark.parametrize("recipe", RECIPES)
def test_bad_recipes_are_named_and_nothing_is_left(place, capsys, recipe):
    shown = refused(place, recipe, [], capsys)
    for word in RECIPES[recipe]:
        assert word in shown


def test_the_recipes_problems_and_the_models_are_told_at_once(place, capsys):
    recipe = (
        "merge: ties\nbase: bse\nmodels: [a, {model: b, density: 4}, nowhere]\n"
        "parameters: {densty: 0.5, normalize: 7, scope: planet}\n"
    )
    shown = refused(place, recipe, ["-o", "out", "--device", "meta"], capsys)
    for word in ("bse", "nowhere", "models[1].parameters.density", "4.0", "densty", "normalize", "planet"):
        assert word in shown
    assert "7 problems" in shown
    assert "device `meta`" in shown


def test_an_error_of_one_tensor_names_it(place, capsys):
    for model, value in (("a", 1.0), ("b", -0.5), ("base", -0.5)):
        edit(place / model / "model.safetensors", lambda tensors, v=value: tensors["layers.1.w"].fill_(v))
    shown = refused(place, "merge: multislerp\nmodels: [{model: a, weight: 2}, b, base]", [], capsys)
    assert "tensor `layers.1.w`: multislerp is undefined" in shown


def test_code_that_leaves_is_at_fault(place, capsys):
    (place / "code.py").write_text("import sys\nsys.exit(5)\n")
    recipe = "merge: own\nmodels: [a, b]\ncode: code.py\n"
    assert "code.py: it fails: SystemExit: 5" in refused(place, recipe, ["-o", "out", "--allow-code"], capsys)


def test_wrong_keys_and_missing_models_are_told_at_once(place, capsys):
    recipe = (
        "merge: ties\nbsae: base\nmodels: [a, {model: nowhere, density: 4}, {modle: b}, gone]\n"
        "dtype: float13\nparameters: {k: 1, scope: [tensor, {value: 1}]}\n"
    )
    shown = refused(place, recipe, [], capsys)
    for word in ("bsae", "modle", "float13", "nowhere (recipe.yml:3)", "gone (recipe.yml:3)", "4.0", "`k`"):
        assert word in shown
    assert "takes" not in shown  # models that are written wrongly are not missing


def test_wrong_keys_of_mergekits_and_missing_models_are_told_at_once(place, capsys):
    recipe = "merge_method: linear\nmodels:\n- model: ./nowhere\n  parameters: {weight: x}\ndtype: float13\n"
    shown = refused(place, recipe, [], capsys)
    for word in ("float13", "./nowhere (recipe.yml:3)", "weight"):
        assert word in shown


def test_wrong_options_and_wrong_shapes_are_told_at_once(place, capsys):
    shape_mismatch(place)
    shown = refused(place, "merge: slerp\nmodels: [a, b]\nparameters: {tt: 1}", [], capsys)
    for word in ("tt", "needs a base", "layers.1.w", "different shapes"):
        assert word in shown


def test_parts_that_do_not_exist_are_all_named(place, capsys):
    parts = "merge: [{sparsify: magnitud}, {consensus: elected_sing}, {scale: huge}]"
    shown = refused(place, f"{parts}\nbase: base\nmodels: [a, b]", [], capsys)
    for word in ("`magnitude`", "`elected_sign`", "`constant`", "3 problems"):
        assert word in shown


def test_many_problems_of_one_kind_are_counted(place, capsys):
    (place / "b" / "config.json").write_text('{"num_hidden_layers": 30}')
    edit(
        place / "b" / "model.safetensors",
        lambda tensors: tensors.update({f"layers.{i}.w": torch.zeros(8, 6) for i in range(3, 30)}),
    )
    shown = refused(place, f"{DEFAULT}parameters: {{weigth: 1}}", [], capsys)
    assert shown.count("is missing here") == 8
    for word in ("28 problems found", "and 19 more like these", "`weight`"):
        assert word in shown


def test_problems_of_all_kinds_are_told_at_once(place, capsys):
    shape_mismatch(place)
    only_in_some(place)
    shown = refused(place, DEFAULT, [], capsys)
    for word in ("layers.1.w", "layers.2.w", "extra.w", "3 problems"):
        assert word in shown
