"""Extracted adapters, loaded by peft over the base, are the fine-tuned model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from plait.checkpoint import open_checkpoint
from plait.checkpoint._adapter import open_adapter
from plait.engine._extract import ExtractReport, extract_lora
from plait.errors import InputError

WIDTH = 24


def llama(**changes: Any) -> torch.nn.Module:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": 2, "vocab_size": 51}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **heads, **changes}))


def gpt2() -> torch.nn.Module:
    config = transformers.GPT2Config(
        n_embd=WIDTH, n_layer=2, n_head=4, vocab_size=51, n_positions=16, tie_word_embeddings=False
    )
    return transformers.GPT2LMHeadModel(config)


def bert() -> torch.nn.Module:
    sizes = {"hidden_size": WIDTH, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 51}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 16, "tie_word_embeddings": False}
    config = transformers.BertConfig(**sizes, **heads)
    return transformers.BertForMaskedLM(config)


def finetune(folder: Path, build: Callable[[], torch.nn.Module], part: str = "") -> torch.nn.Module:
    """Save a base, and a copy whose parameters with `part` in their name have moved."""
    torch.manual_seed(0)
    model = build()
    model.save_pretrained(folder / "base")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    model.save_pretrained(folder / "tuned")
    return model.eval()


def extract(folder: Path, **options: Any) -> ExtractReport:
    tuned, base = open_checkpoint(folder / "tuned"), open_checkpoint(folder / "base")
    return extract_lora(tuned, base, folder / "adapter", **{"rank": WIDTH, **options})


def through_peft(folder: Path, model: torch.nn.Module) -> Any:
    base = type(model).from_pretrained(folder / "base")
    return peft.PeftModel.from_pretrained(base, folder / "adapter").eval()


MODELS = {
    "llama": (llama, ("*norm",)),
    "gpt2": (gpt2, ("ln_*",)),
    "bert": (bert, ("*LayerNorm",)),
}


@pytest.mark.parametrize(("build", "norms"), MODELS.values(), ids=list(MODELS))
@pytest.mark.parametrize("alpha", [None, 7.0])
def test_at_full_rank_peft_rebuilds_the_fine_tune(
    tmp_path: Path, build: Callable[[], torch.nn.Module], norms: tuple[str, ...], alpha: float | None
) -> None:
    tuned = finetune(tmp_path, build)
    # GPT-2's token embedding is 51 x 24, so 24 is every matrix's full rank
    report = extract(tmp_path, modules_to_save=norms, alpha=alpha)
    assert report.left == ()
    assert max(module.error for module in report.modules) < 1e-5
    tokens = torch.arange(12).reshape(1, 12)
    adapted = through_peft(tmp_path, tuned)
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, tuned(tokens).logits, rtol=1e-4, atol=1e-4)
    merged = adapted.merge_and_unload().state_dict()
    for name, value in tuned.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-5)
    ours = open_adapter(open_checkpoint(tmp_path / "base"), tmp_path / "adapter")
    for name in ours:
        torch.testing.assert_close(ours[name].read(), tuned.state_dict()[name], rtol=1e-5, atol=1e-5)


def test_the_error_is_the_tail_of_the_singular_values(tmp_path: Path) -> None:
    finetune(tmp_path, llama, "proj")
    report = extract(tmp_path, rank=3)
    base, tuned = open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "tuned")
    assert {module.module.rpartition(".")[2] for module in report.modules} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    for module in report.modules:
        name = f"{module.module}.weight"
        values = torch.linalg.svdvals((tuned[name].read() - base[name].read()).double())
        expected = (values[3:].square().sum() / values.square().sum()).sqrt()
        assert module.error == pytest.approx(float(expected), rel=1e-4)


def test_what_is_not_carried_is_reported(tmp_path: Path) -> None:
    finetune(tmp_path, llama)
    report = extract(tmp_path, rank=2, target_modules=["q_proj", "model.layers.1.mlp.*"])
    left = {item.name: item for item in report.left}
    assert left["model.norm.weight"].why == "not a matrix"
    assert left["model.norm.weight"].change == pytest.approx(0.05, rel=0.5)
    assert left["lm_head.weight"].why == "not among the targets"
    modules = {module.module for module in report.modules}
    assert modules == {
        *(f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)),
        *(f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")),
    }
    adapted = through_peft(tmp_path, llama())
    assert set(adapted.targeted_module_names) == modules
    assert report.unchanged == 0
    json.dumps(report.to_dict())


def test_a_tied_embedding_is_left_unless_it_is_named(tmp_path: Path) -> None:
    tuned = finetune(tmp_path, lambda: llama(tie_word_embeddings=True))
    report = extract(tmp_path, modules_to_save=["*norm"])
    assert [item.name for item in report.left] == ["model.embed_tokens.weight"]
    (tmp_path / "adapter").rename(tmp_path / "first")
    with pytest.raises(InputError, match=r"embed_tokens.*tied"):
        extract(tmp_path, modules_to_save=["embed_tokens"])
    tokens = torch.arange(12).reshape(1, 12)
    extract(tmp_path, modules_to_save=["*norm"], target_modules=["*_proj", "embed_tokens"])
    adapted = through_peft(tmp_path, tuned)
    with torch.no_grad():
        torch.testing.assert_close(adapted(tokens).logits, tuned(tokens).logits, rtol=1e-4, atol=1e-4)
    ours = open_adapter(open_checkpoint(tmp_path / "base"), tmp_path / "adapter")
    assert "lm_head.weight" not in ours
    name = "model.embed_tokens.weight"
    torch.testing.assert_close(ours[name].read(), tuned.state_dict()[name], rtol=1e-5, atol=1e-5)


def test_an_encoder_without_a_head_has_its_embeddings_factored(tmp_path: Path) -> None:
    def encoder() -> torch.nn.Module:
        return transformers.BertModel(bert().config)

    tuned = finetune(tmp_path, encoder)
    report = extract(tmp_path, modules_to_save=["*LayerNorm"])
    assert report.left == ()
    assert {m.module for m in report.modules if m.kind == "embedding"} == {
        f"embeddings.{name}_embeddings" for name in ("word", "position", "token_type")
    }
    merged = through_peft(tmp_path, tuned).merge_and_unload().state_dict()
    for name, value in tuned.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-5, atol=1e-5)


def test_unchanged_matrices_get_no_factors(tmp_path: Path) -> None:
    finetune(tmp_path, llama, "layers.1.self_attn.v_proj")
    report = extract(tmp_path, rank=2)
    assert [module.module for module in report.modules] == ["model.layers.1.self_attn.v_proj"]
    assert report.left == ()
    assert report.unchanged == len(open_checkpoint(tmp_path / "tuned")) - 1
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["model.layers.1.self_attn.v_proj"]
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == str(tmp_path / "base")


def test_a_rank_above_a_matrixs_own_is_cut(tmp_path: Path) -> None:
    tuned = finetune(tmp_path, llama, "k_proj")
    report = extract(tmp_path, rank=500, alpha=16)
    assert {module.rank for module in report.modules} == {12}
    merged = through_peft(tmp_path, tuned).merge_and_unload().state_dict()
    name = "model.layers.0.self_attn.k_proj.weight"
    torch.testing.assert_close(merged[name], tuned.state_dict()[name], rtol=1e-5, atol=1e-5)


def test_bfloat16_models_give_bfloat16_factors(tmp_path: Path) -> None:
    finetune(tmp_path, lambda: llama().bfloat16(), "q_proj")
    extract(tmp_path, rank=4)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}


def test_threads_do_not_change_a_byte(tmp_path: Path) -> None:
    finetune(tmp_path, llama)
    tuned, base = open_checkpoint(tmp_path / "tuned"), open_checkpoint(tmp_path / "base")
    for threads in (1, 3):
        extract_lora(tuned, base, tmp_path / str(threads), rank=3, threads=threads)
    one, three = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("1", "3"))
    assert one == three


def test_a_resized_embedding_is_left_or_saved(tmp_path: Path) -> None:
    finetune(tmp_path, llama, "q_proj")
    weights = load_file(tmp_path / "tuned" / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(60, WIDTH)
    save_file(weights, tmp_path / "tuned" / "model.safetensors", metadata={"format": "pt"})
    report = extract(tmp_path, rank=2)
    assert [(item.name, item.why) for item in report.left] == [
        ("lm_head.weight", f"[60, {WIDTH}], and in the base [51, {WIDTH}]")
    ]
    (tmp_path / "adapter").rename(tmp_path / "first")
    report = extract(tmp_path, rank=2, modules_to_save=["lm_head"])
    assert report.left == ()
    assert report.saved == ("lm_head.weight",)


def test_bad_requests_end_in_a_message_and_leave_nothing(tmp_path: Path) -> None:
    finetune(tmp_path, llama, "q_proj")
    with pytest.raises(InputError, match="rank is 0"):
        extract(tmp_path, rank=0)
    with pytest.raises(InputError, match=r"q_prj.*\n.*q_proj"):
        extract(tmp_path, target_modules=["q_prj"])
    tuned = open_checkpoint(tmp_path / "tuned")
    with pytest.raises(InputError, match="are equal"):
        extract_lora(tuned, tuned, tmp_path / "adapter", rank=2)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine").write_text("")
    with pytest.raises(InputError, match="something is there"):
        extract(tmp_path)
    weights = load_file(tmp_path / "tuned" / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"][3, 4] = float("nan")
    save_file(weights, tmp_path / "tuned" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"q_proj.*NaN"):
        extract_lora(
            open_checkpoint(tmp_path / "tuned"), open_checkpoint(tmp_path / "base"), tmp_path / "b", rank=2
        )
    assert {path.name for path in tmp_path.iterdir()} == {"base", "tuned", "adapter"}
