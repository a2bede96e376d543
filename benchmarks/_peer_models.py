"""Tiny real models for the comparison with mergekit: Llama, GPT-2, T5, Mistral 3, adapters, tokenizers."""

from __future__ import annotations

import copy
import inspect
import json
import shutil
import textwrap
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]
_LAYERS = 12  # so that the filter `layers.1` also hits layers 10 and 11
_TURNS = ["<|turn|>", "<|end|>"]
_TEMPLATES = {
    "chat": "{% for m in messages %}<|turn|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}",
    "tongue": "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}",
}


def make_models(root: Path) -> None:
    """Write every model that the recipes name below `root`; nothing if they are there."""
    done = root / "models.json"
    if done.exists():
        return
    root.mkdir(parents=True, exist_ok=True)
    prose, source = _prose(), _source()
    plain, tongue = _bpe(prose, 330), _bpe(source, 410)
    pieces = _unigram(prose, 300)
    names = [
        *_llamas(root, plain, tongue, pieces),
        *_others(root, plain),
        *_with_heads(root),
        *_formats(root, plain),
        *_wide(root, plain),
        *_adapters(root),
    ]
    done.write_text(json.dumps(names), encoding="utf-8")


def _prose() -> list[str]:
    texts = [inspect.getdoc(value) or "" for value in vars(textwrap).values() if callable(value)]
    return [*texts, *(inspect.getdoc(value) or "" for value in (str, dict, list, bytes, int, object, type))]


def _source() -> list[str]:
    return [inspect.getsource(module) for module in (textwrap, types)]


def _bpe(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer)


def _unigram(texts: Sequence[str], size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, special_tokens=_SPECIAL, unk_token="<unk>")
    tokenizer.train_from_iterator(texts, trainer)
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), _SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _llama(rows: int, *, seed: int = 0, tied: bool = False, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    given = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
        **options,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=rows, tie_word_embeddings=tied, **given))


def _tuned(model: nn.Module, seed: int, scale: float = 0.01) -> Any:
    """A copy whose every parameter is a little off; its embedding may grow afterwards."""
    generator = torch.Generator().manual_seed(seed)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=scale)
    return changed


def _llamas(root: Path, plain: Any, tongue: Any, pieces: Any) -> list[str]:
    chat = copy.deepcopy(plain)
    chat.add_special_tokens({"additional_special_tokens": _TURNS})
    chat.add_tokens(["zebra"])
    chat.chat_template = _TEMPLATES["chat"]
    tongue.chat_template = _TEMPLATES["tongue"]
    origin, tied = _llama(len(plain)), _llama(len(plain), seed=51, tied=True)
    grown = _tuned(origin, 5)
    grown.resize_token_embeddings(len(chat), mean_resizing=False)
    tied_grown = _tuned(tied, 7)
    tied_grown.resize_token_embeddings(len(chat), mean_resizing=False)
    padded = _tuned(origin, 8)
    padded.resize_token_embeddings(-(-len(plain) // 64) * 64, mean_resizing=False)
    made: dict[str, tuple[Any, Any]] = {
        "origin": (origin, plain),
        "math": (_tuned(origin, 1), plain),
        "code": (_tuned(origin, 2), plain),
        "poems": (_tuned(origin, 3), plain),
        "other": (_llama(len(plain), seed=50), plain),
        "opposite": (_mirrored(origin, 1), plain),
        "chat": (grown, chat),
        "padded": (padded, plain),
        "tongue": (_like(origin, len(tongue), 6), tongue),
        "pieces": (_like(origin, len(pieces), 9), pieces),
        "tied": (tied, plain),
        "tied-math": (_tuned(tied, 4), plain),
        "tied-chat": (tied_grown, chat),
        "half": (_tuned(origin, 10).to(torch.bfloat16), plain),
        "half-math": (_tuned(origin, 11).to(torch.bfloat16), plain),
    }
    return _save_all(root, made)


def _mirrored(origin: Any, seed: int) -> Any:
    """A model on the other side of the origin: its task vectors are the negatives of another's."""
    other = _tuned(origin, seed)
    with torch.no_grad():
        for parameter, start in zip(other.parameters(), origin.parameters(), strict=True):
            parameter.copy_(2 * start - parameter)
    return other


def _like(origin: Any, rows: int, seed: int) -> Any:
    """Fine-tuned, but with a vocabulary of its own."""
    other = _tuned(origin, seed)
    fresh = _llama(rows, seed=seed)
    with torch.no_grad():
        other.resize_token_embeddings(rows, mean_resizing=False)
        other.model.embed_tokens.weight.copy_(fresh.model.embed_tokens.weight)
        other.lm_head.weight.copy_(fresh.lm_head.weight)
    return other


def _others(root: Path, plain: Any) -> list[str]:
    from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(20)
    gpt = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(plain),
            n_embd=32,
            n_layer=4,
            n_head=4,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    sizes: dict[str, Any] = {
        "vocab_size": len(plain),
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 4,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "decoder_start_token_id": 3,
        "feed_forward_proj": "gated-gelu",  # the only form that mergekit knows
    }
    t5 = T5ForConditionalGeneration(T5Config(**sizes))
    made = {}
    for name, model in (("gpt", gpt), ("t5", t5), ("see", _seeing(len(plain)))):
        made |= {name: model, f"{name}-a": _tuned(model, 21), f"{name}-b": _tuned(model, 22)}
    return _save_all(root, {name: (model, plain) for name, model in made.items()})


def _with_heads(root: Path) -> list[str]:
    """T5 with a head of its own; newer transformers tie it, whatever the config says."""
    for seed, name in enumerate(("t5-head-a", "t5-head-b")):
        shutil.copytree(root / name.replace("-head", ""), root / name)
        file = root / name / "model.safetensors"
        tensors = load_file(file)
        head = torch.randn(tensors["shared.weight"].shape, generator=torch.Generator().manual_seed(70 + seed))
        save_file({**tensors, "lm_head.weight": head}, file, {"format": "pt"})
    return ["t5-head-a", "t5-head-b"]


def _seeing(rows: int) -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    text = {
        "model_type": "mistral",
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    config = Mistral3Config(
        text_config=text, vision_config=vision, image_token_index=5, tie_word_embeddings=False
    )
    return Mistral3ForConditionalGeneration(config)


def _formats(root: Path, plain: Any) -> list[str]:
    """Other files and another class, with the tensors of the Llamas."""
    from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

    origin = AutoModelForCausalLM.from_pretrained(root / "origin")
    pickled, sharded, windy = (_tuned(origin, seed) for seed in (61, 62, 63))
    _save_all(root, {"pickled": (pickled, plain)})
    torch.save(pickled.state_dict(), root / "pickled" / "pytorch_model.bin")
    (root / "pickled" / "model.safetensors").unlink()
    sharded.save_pretrained(root / "sharded", max_shard_size="200KB")
    plain.save_pretrained(root / "sharded")
    config = {k: v for k, v in origin.config.to_dict().items() if k not in ("model_type", "architectures")}
    other = MistralForCausalLM(MistralConfig(**config, sliding_window=None))
    other.load_state_dict(windy.state_dict())
    return ["pickled", "sharded", *_save_all(root, {"windy": (other, plain)})]


def _wide(root: Path, plain: Any) -> list[str]:
    """Matrices large enough to compare what random methods make of them by their distribution."""
    wide = _llama(len(plain), hidden_size=512, intermediate_size=1024, num_hidden_layers=1)
    made = {"wide": (wide, plain), "wide-a": (_tuned(wide, 31), plain), "wide-b": (_tuned(wide, 32), plain)}
    return _save_all(root, made)


def _save_all(root: Path, made: dict[str, tuple[Any, Any]]) -> list[str]:
    for name, (model, tokenizer) in made.items():
        model.eval().save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return list(made)


def _adapters(root: Path) -> list[str]:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    given: dict[str, dict[str, Any]] = {
        "adapter": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]},
        "adapter-patterns": {
            "r": 4,
            "lora_alpha": 6,
            "use_rslora": True,
            "target_modules": "all-linear",
            "rank_pattern": {"up_proj": 6},
            "alpha_pattern": {"layers.1.mlp.up_proj": 3},
            "modules_to_save": ["lm_head"],
        },
    }
    for seed, (name, options) in enumerate(given.items()):
        base = AutoModelForCausalLM.from_pretrained(root / "origin")
        model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options))
        generator = torch.Generator().manual_seed(40 + seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        model.save_pretrained(root / name)
    return list(given)
