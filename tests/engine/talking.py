"""Tiny Llamas with real tokenizers of their own, as folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

PROSE = ["the cat sat on the mat", "a bat and a rat sat", "cats and rats chat at the mat"] * 4
CODE = ["def main(argument): return argument", "for index in range(len(words)): print(index)"] * 4
TURNS = ["<|turn|>", "<|end|>"]


def tokenizer(texts: Sequence[str], size: int, added: Sequence[str] = ()) -> Any:
    """A byte-level BPE tokenizer as transformers has it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    made.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    wrapped.add_special_tokens({"additional_special_tokens": list(added)})
    return wrapped


def llama(folder: Path, words: Any, seed: int, *, tied: bool = False, **options: Any) -> Path:
    """Save a Llama with a row for each token, and its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes = {
        "vocab_size": len(words),
        "hidden_size": 8,
        "intermediate_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    LlamaForCausalLM(LlamaConfig(**{**sizes, **options}, tie_word_embeddings=tied)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def stored(folder: str | Path) -> dict[str, np.ndarray]:
    """Every tensor below a folder."""
    found: dict[str, np.ndarray] = {}
    for path in sorted(Path(folder).rglob("*.safetensors")):
        found |= {name: tensor.numpy() for name, tensor in load_file(path).items()}
    return found


def loaded(folder: str | Path) -> tuple[Any, Any]:
    """Model and tokenizer through transformers' own classes; every weight must be in its place."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval(), AutoTokenizer.from_pretrained(folder)
