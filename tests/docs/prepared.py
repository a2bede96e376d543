"""The folder in which the documentation's examples run: tiny models of every kind that they name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

TOKENS = ["<unk>", "<s>", "</s>", "the", "a", "model", "of", "many", "one", *(f"w{i}" for i in range(23))]
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


def prepare(root: Path) -> None:
    """Fill a folder with models."""
    base = llama(len(TOKENS))
    _save(base, root / "base", TOKENS)
    _adapter(base, root / "adapter")
    for seed, name in enumerate(("math", "code", "run/step-1000", "run/step-2000", "run/step-3000"), 1):
        tuned = llama(len(TOKENS))
        tuned.load_state_dict(base.state_dict())
        _save(_changed(tuned, seed), root / name, TOKENS)
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    _save(_changed(llama(len(TOKENS) + 2), 9), root / "chat", [*TOKENS, "<|turn|>", "<|end|>"], template)
    for seed, name in enumerate(("clip-a", "clip-b")):
        _clip(seed).save_pretrained(root / name)
    state = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2)}
    save_file(state, root / "weights.safetensors")
    torch.save({"state_dict": state}, root / "weights.pt")
    _gguf(root / "model.gguf", root / "base")
    _pipeline(root / "pipeline", state)


def llama(vocabulary: int) -> nn.Module:
    """A Llama of four layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **LLAMA))


def _clip(seed: int) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    text = {**TOWER, "vocab_size": 32, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {**TOWER, "image_size": 8, "patch_size": 4}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def _changed(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return model


def _save(model: Any, folder: Path, tokens: list[str], chat_template: str | None = None) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)


def _adapter(base: nn.Module, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    copy = llama(len(TOKENS))
    copy.load_state_dict(base.state_dict())
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(copy, config).save_pretrained(folder)


def _gguf(path: Path, model: Path) -> None:
    """The base as llama.cpp would store it, as far as these sizes need it."""
    import gguf
    from safetensors.torch import load_file

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LLAMA["num_hidden_layers"])
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(LLAMA["num_hidden_layers"])
    writer.add_context_length(LLAMA["max_position_embeddings"])
    writer.add_embedding_length(LLAMA["hidden_size"])
    writer.add_feed_forward_length(LLAMA["intermediate_size"])
    writer.add_head_count(LLAMA["num_attention_heads"])
    writer.add_head_count_kv(LLAMA["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(TOKENS))
    for name, tensor in load_file(model / "model.safetensors").items():
        stem, _, end = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{end}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _pipeline(folder: Path, state: dict[str, torch.Tensor]) -> None:
    for part in ("unet", "vae"):
        (folder / part).mkdir(parents=True)
        save_file(state, folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text("{}")
    index = {"_class_name": "Pipeline", "unet": ["diffusers", "UNet"], "vae": ["diffusers", "VAE"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def copy(prepared: Path, to: Path) -> None:
    """A copy of the folder, for one page."""
    shutil.copytree(prepared, to, dirs_exist_ok=True)
