"""What travels with an output: configs and files of the first model, `plait.json`, the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import plait

CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "torch_dtype": "bfloat16"}


def model(folder: Path, seed: int, *, card: str | None = None, **config: Any) -> str:
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"layers.{k}.w": torch.randn(4, 6, generator=generator).bfloat16() for k in range(2)}
    tensors |= {"head.w": torch.randn(5, 6, generator=generator).bfloat16(), "steps": torch.tensor(seed)}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "chat_template.jinja").write_text(f"{{# {folder.name} #}}")
    if card is not None:
        (folder / "README.md").write_text(card)
    return str(folder)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    return [model(tmp_path / name, seed) for seed, name in enumerate(("base", "a", "b"), 1)]


def known(out: Path) -> dict[str, Any]:
    return json.loads((out / "plait.json").read_text())


def front(out: Path) -> dict[str, Any]:
    return yaml.safe_load((out / "README.md").read_text().split("---\n")[1])


def test_every_file_of_the_base_goes_along_but_weights_and_hidden_ones(tmp_path, models):
    base = Path(models[0])
    extra = ["generation_config.json", "preprocessor_config.json", "LICENSE", "1_Pooling/config.json"]
    for name in [*extra, ".gitattributes", "pytorch_model.bin", "model.onnx", "a/b/notes.txt"]:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(f"{{}} {name}")
    out = plait.merge(models[1:], base=models[0], method="ties", out=tmp_path / "out")
    assert isinstance(out, Path)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    own = {"README.md", "plait.json", "config.json", "model.safetensors", "chat_template.jinja"}
    assert found == {*own, *extra, "a/b/notes.txt"}
    for name in [*extra, "a/b/notes.txt", "chat_template.jinja"]:
        assert (out / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.parametrize("method", ["linear", "karcher", "wma"])
def test_without_a_base_files_come_from_the_model_listed_first_and_weights_do_not(tmp_path, models, method):
    for order in (models, models[::-1]):
        out = tmp_path / f"{Path(order[0]).name}-first"
        plait.merge(order, method=method, out=out)
        assert (out / "chat_template.jinja").read_text() == f"{{# {Path(order[0]).name} #}}"
    weights = [load_file(tmp_path / f"{name}-first" / "model.safetensors") for name in ("base", "b")]
    same = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert same == (method != "wma")


def test_the_config_says_what_the_merge_changed(tmp_path, models):
    plait.merge(models, out=tmp_path / "out", dtype="float16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {**CONFIG, "torch_dtype": "float16"}


def test_a_type_that_was_asked_for_is_in_the_config_though_the_base_says_none(tmp_path):
    plain = [model(tmp_path / name, 1, torch_dtype=None) for name in ("a", "b")]
    plait.merge(plain, out=tmp_path / "out", dtype="float32")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "float32"


RECIPES = {
    "python": {"method": "ties", "density": 0.4, "weight": [0.6, 0.9], "seed": 3},
    "gradient": {
        "method": "task_arithmetic",
        "weight": [{"filter": "head.*", "value": 0.5}, {"value": 0.25}],
    },
    "mergekit": {"method": "dare_ties", "density": 0.5, "conventions": "mergekit", "seed": 11},
    "parts": {"method": [{"sparsify": "magnitude", "density": 0.5}, {"consensus": "sum"}]},
    "stated": {"method": "della", "density": 0.6, "dtype": "float32", "exclude": "steps"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_in_plait_json_makes_the_same_files_again(tmp_path, models, name):
    out, again = tmp_path / "out", tmp_path / "again"
    plait.merge(models[1:], base=models[0], out=out, **RECIPES[name])
    recipe = plait.load_recipe(known(out)["recipe"])[-1]
    plait.run(plait.build_plan(recipe), again)
    for path in out.iterdir():
        if path.name not in ("plait.json", "README.md"):  # they quote the recipe in the form it was given in
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert known(out)["tensors"] == known(again)["tensors"]
    assert known(out)["recipe"] == known(again)["recipe"]


def test_a_nested_recipe_is_in_plait_json_and_makes_the_same_files_again(tmp_path, models):
    recipe = plait.load_recipe(
        {"merge": "linear", "models": [{"model": {"merge": "linear", "models": models[:2]}}, models[2]]}
    )[-1]
    plait.run(plait.build_plan(recipe), tmp_path / "out")
    found = known(tmp_path / "out")
    (stage,) = found["stages"].values()
    assert set(stage["inputs"]) == set(models[:2])
    assert stage["tensors"]["head.w"]["options"]["weight"] == [1.0, 1.0]
    plait.run(plait.build_plan(plait.load_recipe(found["recipe"])[-1]), tmp_path / "again")
    assert known(tmp_path / "again")["tensors"] == found["tensors"]
    assert set(front(tmp_path / "out")["base_model"]) == {"base", "a", "b"}


def test_plait_json_says_what_the_bytes_depend_on(tmp_path, models):
    options = plait.RunOptions(check=True, float64=True, max_shard_size=100)
    plait.merge(models[1:], base=models[0], method="ties", out=tmp_path / "out", options=options, seed=7)
    found = known(tmp_path / "out")
    assert found["versions"]["plait"] == plait.__version__
    assert found["versions"]["torch"] == torch.__version__
    assert set(found["versions"]) == {"plait", "torch", "numpy", "numba", "llvmlite"}
    assert found["options"] == {"float64": True, "allow_nan": False, "max_shard_size": 100}
    assert found["seed"] == 7
    assert set(found["inputs"]) == set(models)
    for entry in found["inputs"].values():
        assert entry["revision"] is None
        assert set(entry["files"]) == {"model.safetensors"}
        assert len(entry["content"]) == 64
    assert len(found["shards"]) == 2
    tensor = found["tensors"]["head.w"]
    assert tensor["how"] == "merge"
    assert tensor["from"] == [f"{folder}: head.w" for folder in models]
    assert tensor["options"]["density"] == [0.2, 0.2]
    assert tensor["options"]["scope"] == "model"
    assert len(tensor["digest"]) == 64
    assert found["tensors"]["steps"] == {**found["tensors"]["steps"], "how": "copy"}


def test_live_models_are_known_by_their_content(tmp_path):
    models = [{"w": torch.full((2, 2), float(k))} for k in range(2)]
    digests = []
    for _ in range(2):
        recipe_options = plait.RunOptions(overwrite=True)
        plait.merge(models, out=tmp_path / "out", options=recipe_options)
        digests.append(known(tmp_path / "out")["plan"])
        models[1]["w"] += 1
    assert digests[0] != digests[1]


CARD = (
    "---\nlicense: {licence}\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# A model\n"
)


def test_the_card_has_the_hubs_front_matter(tmp_path):
    given = [
        model(tmp_path / name, seed, card=CARD.format(licence="apache-2.0"))
        for seed, name in enumerate(("base model", "a"))
    ]
    plait.merge(given, out=tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == ["a", "base-model"]
    assert card.data.to_dict()["base_model_relation"] == "merge"
    assert card.data.tags == ["merge", "plait"]
    assert card.data.pipeline_tag == "text-generation"
    (block,) = (part.split("```")[0] for part in card.content.split("```yaml\n")[1:])
    assert plait.load_recipe(block)[-1].method == "linear"


def test_licences_that_differ_are_named_and_none_is_claimed(tmp_path):
    licences = {"a": "mit", "b": "llama3.1", "c": None}
    given = [
        model(tmp_path / name, seed, card=licence and CARD.format(licence=licence))
        for seed, (name, licence) in enumerate(licences.items())
    ]
    plait.merge(given, out=tmp_path / "out")
    assert "license" not in front(tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"- `{given[0]}`: mit\n" in text
    assert f"- `{given[1]}`: llama3.1\n" in text
    assert f"- `{given[2]}`: its card names no licence\n" in text
    assert "licences differ" in text


def test_a_licence_by_name_keeps_its_name_and_link(tmp_path):
    other = "---\nlicense: other\nlicense_name: my-terms\nlicense_link: LICENSE\n---\n"
    given = [model(tmp_path / name, 1, card=other) for name in ("a", "b")]
    plait.merge(given, out=tmp_path / "out")
    found = front(tmp_path / "out")
    assert (found["license"], found["license_name"], found["license_link"]) == (
        "other",
        "my-terms",
        "LICENSE",
    )


@pytest.mark.parametrize("word", ["org/tiny", "org/tiny@v1", "hf://org/tiny@v1"])
def test_a_hub_model_is_known_by_its_id_its_commit_and_its_card(tmp_path, monkeypatch, word):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit, home = "0123456789abcdef" * 2 + "01234567", tmp_path / "hub" / "models--org--tiny"
    model(home / "snapshots" / commit, 1, card=CARD.format(licence="gemma"))
    (home / "refs").mkdir()
    for revision in ("main", "v1"):
        (home / "refs" / revision).write_text(commit)
    plait.merge([word, model(tmp_path / "a", 2)], out=tmp_path / "out")
    assert known(tmp_path / "out")["inputs"][word]["revision"] == commit
    assert set(front(tmp_path / "out")["base_model"]) == {"org/tiny", "a"}
    assert front(tmp_path / "out")["license"] == "gemma"


@pytest.mark.parametrize(
    "card", ["", "---\n", "---\na: [\n---\n", "---\n- x\n---\n", "no front matter", "\xff"]
)
def test_a_card_that_can_not_be_read_is_no_obstacle(tmp_path, models, card):
    (Path(models[1]) / "README.md").write_bytes(card.encode("latin-1"))
    plait.merge(models, out=tmp_path / "out")
    assert "license" not in front(tmp_path / "out")
