"""A few steps of training and a loss, for each of the two real models."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from stdlib_text import DOMAINS, described, texts
from torch import Tensor, nn

_STEPS = 4


def tune_minilm(base: Path, out: Path) -> None:
    """One fine-tune per domain: a function's name shall lie near its own description."""
    for domain, modules in DOMAINS.items():
        model, tokenizer = load_minilm(base)
        pairs = described(modules)[:32]
        _descend(model, lambda m=model, t=tokenizer, p=pairs: minilm_loss(m, t, p), rate=2e-5)
        shutil.copytree(base, out / domain)
        model.save_pretrained(out / domain)


def load_minilm(folder: str | Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    return AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def embed(model: nn.Module, tokenizer: Any, sentences: list[str]) -> Tensor:
    """Mean of the tokens' states, of length one: what the model's own pooling does."""
    batch = tokenizer(sentences, padding=True, truncation=True, max_length=48, return_tensors="pt")
    states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def minilm_loss(model: nn.Module, tokenizer: Any, pairs: list[tuple[str, str]]) -> Tensor:
    """How surprised the model is at which description belongs to which name (nats)."""
    names, sentences = (embed(model, tokenizer, list(side)) for side in zip(*pairs, strict=True))
    return nn.functional.cross_entropy(20 * names @ sentences.T, torch.arange(len(pairs)))


def tune_smollm2(base: Path, out: Path) -> None:
    """One fine-tune per text, in float32, saved in bfloat16."""
    from transformers import AutoTokenizer

    for domain, text in texts().items():
        model, tokenizer = load_smollm2(base, torch.float32), AutoTokenizer.from_pretrained(base)
        _descend(model, lambda m=model, t=tokenizer, x=text: smollm2_loss(m, t, x), rate=2e-5)
        model.to(torch.bfloat16).save_pretrained(out / domain)
        tokenizer.save_pretrained(out / domain)


def load_smollm2(folder: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def smollm2_loss(model: Any, tokenizer: Any, text: str, length: int = 96) -> Tensor:
    """Mean surprise per token of a text's beginning (nats)."""
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)["input_ids"]
    return model(input_ids=ids, labels=ids).loss


def _descend(model: nn.Module, loss: Any, *, rate: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.eval()  # no dropout: the result depends on nothing but the text
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def tune_lora(base: str, out: Path) -> None:
    """One adapter per text."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    for domain, text in texts().items():
        torch.manual_seed(0)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(load_smollm2(base), config)
        _descend(model, lambda m=model, x=text: smollm2_loss(m, tokenizer, x), rate=1e-3)
        model.save_pretrained(out / domain)
