"""What inputs are and outputs look like: stacks, modules, tied heads, adapters, pipelines, commits."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import plait
from plait.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))
from talking import PROSE, llama, loaded, stored, tokenizer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Llamas of four layers, tied and untied."""
    root, words = tmp_path_factory.mktemp("family"), tokenizer(PROSE, 60)
    made = {"a": False, "b": False, "c": False, "tied": True}
    return {
        name: str(llama(root / name, words, seed, tied=tied, num_hidden_layers=4))
        for seed, (name, tied) in enumerate(made.items())
    }


def run(recipe: Mapping[str, Any], out: Path, **options: Any) -> Path:
    plait.run(plait.build_plan(plait.load_recipe(recipe)[-1], plait.RunOptions(**options)), out)
    return out


def slices(*parts: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    """A passthrough of layers on top of each other."""
    listed = [{"sources": [{"model": m, "layer_range": [low, high]}]} for m, low, high in parts]
    return {"merge_method": "passthrough", "slices": listed, **more}


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(3, 12)[None]).logits


def test_stacked_layers_are_a_model_that_runs(family, tmp_path):
    out = run(slices((family["a"], 0, 3), (family["b"], 1, 4), (family["a"], 2, 4)), tmp_path / "out")
    model, _ = loaded(out)
    assert len(model.model.layers) == model.config.num_hidden_layers == 8
    origin, _ = loaded(family["a"])
    other, _ = loaded(family["b"])
    chosen = [*origin.model.layers[0:3], *other.model.layers[1:4], *origin.model.layers[2:4]]
    layers = [copy.deepcopy(layer) for layer in chosen]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    origin.model.layers = torch.nn.ModuleList(layers)
    origin.config.num_hidden_layers = 8
    torch.testing.assert_close(answer(model), answer(origin))


@pytest.mark.parametrize(("first", "last"), [("a", "tied"), ("tied", "a")])
def test_a_stack_ends_in_the_head_of_its_last_model(family, tmp_path, first, last):
    out = run(slices((family[first], 0, 2), (family[last], 2, 4)), tmp_path / "out")
    model, _ = loaded(out)
    assert model.config.tie_word_embeddings is False
    found, start, end = stored(out), stored(family[first]), stored(family[last])
    np.testing.assert_array_equal(found[EMBEDDING], start[EMBEDDING])
    np.testing.assert_array_equal(found[HEAD], end[HEAD] if HEAD in end else end[EMBEDDING])


def test_lists_with_an_entry_per_layer_follow_their_layers(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "pad_token_id": 0}
    torch.manual_seed(0)
    Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads, layer_types=kinds)).save_pretrained(tmp_path / "m")
    out = run(slices((str(tmp_path / "m"), 0, 2), (str(tmp_path / "m"), 1, 3)), tmp_path / "out")
    config = AutoConfig.from_pretrained(out)
    assert config.layer_types == [kinds[0], kinds[1], kinds[1], kinds[2]]
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    assert bool(answer(model).isfinite().all())


def t5(folder: Path, seed: int) -> str:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": 40,
        "d_model": 8,
        "d_kv": 4,
        "d_ff": 12,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    config = T5Config(**sizes, num_layers=3, num_decoder_layers=3)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def test_each_module_is_stacked_on_its_own(tmp_path):
    from transformers import T5ForConditionalGeneration

    a, b = t5(tmp_path / "a", 0), t5(tmp_path / "b", 1)
    recipe = {
        "merge_method": "passthrough",
        "modules": {
            "encoder": {"slices": slices((a, 0, 3), (b, 2, 3))["slices"]},
            "decoder": {"slices": slices((b, 0, 2))["slices"]},
            "shared": {"models": [{"model": a}]},
        },
    }
    out = run(recipe, tmp_path / "out")
    model, info = T5ForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert (len(model.encoder.block), len(model.decoder.block)) == (4, 2)
    found, theirs = stored(out), stored(b)
    name = "block.{}.layer.0.SelfAttention.q.weight"
    np.testing.assert_array_equal(found["encoder." + name.format(3)], theirs["encoder." + name.format(2)])
    np.testing.assert_array_equal(found["decoder." + name.format(1)], theirs["decoder." + name.format(1)])


def test_a_head_that_no_module_names_goes_with_the_embedding(tmp_path):
    a, b = (t5(tmp_path / name, seed) for seed, name in enumerate("ab"))
    for folder in (a, b):  # newer transformers tie it, whatever the config says
        file = Path(folder) / "model.safetensors"
        save_file({**load_file(file), HEAD: torch.randn(40, 8)}, file, {"format": "pt"})
    models = {"models": [{"model": b}]}
    recipe = {
        "merge_method": "passthrough",
        "modules": dict.fromkeys(("encoder", "decoder", "shared"), models),
    }
    recipe["modules"]["shared"] = {"models": [{"model": a}]}
    out = run(recipe, tmp_path / "out")
    assert stored(out).keys() == stored(a).keys()
    np.testing.assert_array_equal(stored(out)[HEAD], stored(a)[HEAD])


def test_tensors_of_no_module_are_an_error_that_names_them(family, tmp_path):
    recipe = {"merge_method": "passthrough", "modules": {"model": {"models": [{"model": family["a"]}]}}}
    run(recipe, tmp_path / "with-head")  # the head goes with the embedding
    recipe["modules"] = {"layers": {"models": [{"model": family["a"]}]}}
    with pytest.raises(InputError, match=r"3 tensors belong to no module of the recipe: `lm_head.weight`"):
        run(recipe, tmp_path / "out")
    recipe["exclude"] = ["lm_head.*", "model.norm.*", "model.embed_tokens.*"]
    assert len(stored(run(recipe, tmp_path / "out"))) == 36


@pytest.mark.parametrize("tied_base", [False, True])
def test_a_tied_model_and_an_untied_one_merge_in_either_order(family, tmp_path, tied_base):
    base, other = family["tied" if tied_base else "a"], family["a" if tied_base else "tied"]
    plait.merge([other], base=base, method="task_arithmetic", weight=0.5, out=tmp_path / "out")
    model, _ = loaded(tmp_path / "out")
    assert model.config.tie_word_embeddings is False
    found = stored(tmp_path / "out")
    heads = [t.get(HEAD, t[EMBEDDING]) for t in (stored(base), stored(other))]
    np.testing.assert_allclose(found[HEAD], (heads[0] + heads[1]) / 2, rtol=1e-5, atol=1e-7)


def test_a_filter_finds_the_head_of_a_tied_model_by_the_heads_name(family, tmp_path):
    weight = [{"filter": "lm_head", "value": 3}, {"value": 1}]
    models = [{"model": family["a"], "parameters": {"weight": 1}}]
    models.append({"model": family["tied"], "parameters": {"weight": weight}})
    found = stored(run({"merge_method": "linear", "models": models}, tmp_path / "out"))
    own, tied = stored(family["a"]), stored(family["tied"])[EMBEDDING]
    np.testing.assert_allclose(found[HEAD], (own[HEAD] + 3 * tied) / 4, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[EMBEDDING], (own[EMBEDDING] + tied) / 2, rtol=1e-5, atol=1e-7)


def adapter(base: str, folder: Path, seed: int, **options: Any) -> Any:
    """Save a LoRA adapter that changes something; the model with it merged in."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    model.save_pretrained(folder)
    return model.merge_and_unload()


@pytest.mark.parametrize("method", ["linear", "ties", "slerp"])
def test_adapters_merge_like_the_weights_with_them_merged_in(family, tmp_path, method):
    base = family["a"]
    shapes = [
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": "all-linear", "use_rslora": True},
    ]
    for number, options in enumerate(shapes):
        adapter(base, tmp_path / f"lora{number}", number, **options).save_pretrained(
            tmp_path / f"full{number}"
        )
    count = 1 if method == "slerp" else 2
    given = {"base": None if method == "linear" else base, "method": method}
    given |= {"ties": {"density": 0.5}, "slerp": {"t": 0.4}}.get(method, {})
    with_adapters = [f"{base}+{tmp_path / f'lora{n}'}" for n in range(count)]
    found = plait.merge(with_adapters, out=tmp_path / "out", **given)
    expected = plait.merge([str(tmp_path / f"full{n}") for n in range(count)], **given)
    assert isinstance(expected, dict)
    assert found == tmp_path / "out"
    loaded(found)
    tensors = stored(found)
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(tensors[name], value.numpy(), rtol=1e-4, atol=1e-6)


COMMITS = {"org/left": "1" * 40, "org/right": "2" * 40, "org/lora": "3" * 40}


def cached(hub: Path, repo: str, source: str, *, revision: str = "main") -> None:
    """Put a folder into the hub's cache, as huggingface_hub would have left it."""
    home = hub / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMITS[repo]
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / revision).write_text(COMMITS[repo])
    for path in Path(source).iterdir():
        (snapshot / path.name).write_bytes(path.read_bytes())


def test_commits_found_on_the_hub_are_pinned(family, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    adapter(family["b"], tmp_path / "lora", 0, target_modules=["q_proj"])
    cached(tmp_path / "hub", "org/left", family["a"])
    cached(tmp_path / "hub", "org/right", family["b"], revision="v2")
    cached(tmp_path / "hub", "org/lora", str(tmp_path / "lora"), revision="best")
    models = ["org/left", "org/right@v2+org/lora@best", family["c"]]
    listed = [{"model": model, "parameters": {"weight": 1}} for model in models]
    out = run({"merge_method": "linear", "models": listed}, tmp_path / "out")
    found = json.loads((out / "plait.json").read_text())["inputs"]
    assert {name: item["revision"] for name, item in found.items()} == {
        models[0]: COMMITS["org/left"],
        models[1]: f"{COMMITS['org/right']}+{COMMITS['org/lora']}",
        models[2]: None,
    }
    loaded(out)


def pipeline(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """A Diffusers folder: a text encoder of transformers', a sharded denoiser, a scheduler."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2}
    config = CLIPTextConfig(**sizes, num_attention_heads=2, max_position_embeddings=16, projection_dim=8)
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    for part in ("unet", "scheduler"):
        (folder / part).mkdir()
    tensors = {f"down.{i}.conv.weight": torch.randn(6, 4, 3, 3) for i in range(4)}
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, names in enumerate((list(tensors)[:2], list(tensors)[2:]), 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / "unet" / file, {"format": "pt"})
        index["weight_map"] |= dict.fromkeys(names, file)
    texts = {
        "unet/diffusion_pytorch_model.safetensors.index.json": index,
        "unet/config.json": {"_class_name": "UNet2DConditionModel"},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "seed": seed},
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
        },
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content))
    return tensors


@pytest.mark.parametrize("shard", [5 << 30, 2000])
def test_a_pipelines_sub_models_are_merged_one_by_one(tmp_path, shard):
    from transformers import CLIPTextModel

    a, b = pipeline(tmp_path / "a", 0), pipeline(tmp_path / "b", 1)
    out, models = tmp_path / "out", [str(tmp_path / "a"), str(tmp_path / "b")]
    plait.merge(models, out=out, options=plait.RunOptions(max_shard_size=shard))
    for name in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert (out / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    assert not list(out.glob("*.safetensors"))
    unet = sorted(path.name for path in (out / "unet").glob("*.safetensors"))
    if shard == 2000:
        assert unet == [f"diffusion_pytorch_model-{i:05d}-of-00002.safetensors" for i in (1, 2)]
        index = json.loads((out / "unet" / "diffusion_pytorch_model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == a.keys()
        files = {name: load_file(out / "unet" / file)[name] for name, file in index["weight_map"].items()}
    else:
        assert unet == ["diffusion_pytorch_model.safetensors"]
        assert not (out / "unet" / "diffusion_pytorch_model.safetensors.index.json").exists()
        files = load_file(out / "unet" / unet[0])
    for name, tensor in files.items():
        torch.testing.assert_close(tensor, (a[name] + b[name]) / 2)
    parts = [
        CLIPTextModel.from_pretrained(folder / "text_encoder")
        for folder in (tmp_path / "a", tmp_path / "b", out)
    ]
    for left, right, merged in zip(*(part.state_dict().values() for part in parts), strict=True):
        torch.testing.assert_close(merged, (left + right) / 2 if merged.is_floating_point() else left)
    assert set(plait.open(out)) == set(plait.open(models[0]))
    assert plait.verify(out).ok
