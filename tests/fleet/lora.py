"""Small transformers models, members with LoRA that differ in every setting, and two ways to train them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from plait.fleet import Member
from plait.fleet._adapters import Adapters
from plait.fleet._backend import Steps
from plait.fleet._sequential import Sequential
from plait.fleet._trainee import State, Trainee
from plait.tasks import ByKeywords, MeanPooled, NextToken, Ragged, Task, perplexity

VOCABULARY = 50
_CPU = torch.device("cpu")


def llama(dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1, **options)  # fmt: skip
    return LlamaForCausalLM(config).to(dtype)


def gpt2(dtype: torch.dtype = torch.float64, drop: float = 0.1) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1,
                        eos_token_id=1, resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop)  # fmt: skip
    return GPT2LMHeadModel(config).to(dtype)


def bert(dtype: torch.dtype = torch.float64, classes: int = 0, drop: float = 0.1) -> Any:
    """An encoder, or a classifier of so many classes."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                        num_attention_heads=2, max_position_embeddings=64, num_labels=classes or 2,
                        hidden_dropout_prob=drop, attention_probs_dropout_prob=drop)  # fmt: skip
    return (BertForSequenceClassification if classes else BertModel)(config).to(dtype)


def _sequences(seed: int, count: int) -> list[list[int]]:
    """Token ids of lengths of their own."""
    generator = np.random.default_rng(seed)
    return [generator.integers(2, VOCABULARY, generator.integers(3, 12)).tolist() for _ in range(count)]


def next_token(seed: int, count: int = 20) -> Task:
    """Next tokens of made-up sequences, of which some do not count."""
    splits = {"train": _partly_counted(seed, count), "validation": _partly_counted(seed + 1000, count)}
    return Task(f"tokens{seed}", splits, loss=NextToken(), metric=perplexity(), meet=ByKeywords())


def _partly_counted(seed: int, count: int) -> Ragged:
    ids = _sequences(seed, count)
    labels = [[-100, -100, *row[2:]] if number % 3 else row for number, row in enumerate(ids)]
    masks = [[1] * len(row) for row in ids]
    return Ragged({"input_ids": ids, "attention_mask": masks, "labels": labels}, padding={"labels": -100})


def classes(seed: int, count: int, *, head: bool, examples: int = 20) -> Task:
    """Classes of made-up sequences, through a head of the task's own or the model's."""
    ids = _sequences(seed, examples)
    labels = torch.from_numpy(np.random.default_rng(seed + 100).integers(0, count, examples))
    data = Ragged({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}, {"label": labels})
    torch.manual_seed(seed)
    own = nn.Linear(16, count) if head else None
    return Task(f"classes{seed}", {"train": data}, head=own, meet=MeanPooled() if head else ByKeywords())


def config(**options: Any) -> Any:
    from peft import LoraConfig

    return LoraConfig(**options)


def decoders(targets: Sequence[Any], drop: float = 0.0, seed: int = 0) -> list[Member]:
    """Three members that differ in everything that may differ."""
    one, two, three = targets
    return [
        Member(name="a", task=next_token(seed), steps=220, lr=3e-3, seed=seed + 1, batch_size=2,
               schedule="linear", lora=config(r=4, lora_alpha=8, target_modules=one, lora_dropout=drop)),
        Member(name="b", task=next_token(seed + 1), steps=250, lr=4e-3, seed=seed + 2, batch_size=3, clip=0.5,
               accumulate=2, schedule="cosine", warmup=5,
               lora=config(r=2, use_rslora=True, target_modules=two)),
        Member(name="c", task=next_token(seed + 2), steps=300, lr=2e-3, seed=seed + 3, weight_decay=0.1,
               betas=(0.8, 0.95), batch_size=1,
               lora=config(r=3, lora_alpha=1, target_modules=three, lora_dropout=drop / 2,
                           init_lora_weights="gaussian", rank_pattern={"up_proj": 5},
                           alpha_pattern={"v_proj": 6})),
    ]  # fmt: skip


LLAMA_TARGETS = ("all-linear", ["q_proj", "down_proj"], r".*\.(up_proj|v_proj)")
GPT2_TARGETS = ("all-linear", ["c_attn"], r".*mlp\.c_proj")


def encoders(*, head: bool, drop: float = 0.0, counts: Sequence[int] = (3, 5, 2)) -> list[Member]:
    """Three members with classes of their own number."""
    targets = (["query", "value"], ["intermediate.dense"], ["query", "key", "output.dense"])
    return [
        Member(name=f"m{i}", task=classes(i, count, head=head), steps=250, lr=1e-3 * (i + 1), seed=i,
               batch_size=i + 1, lora=config(r=2 + i, target_modules=target, lora_dropout=drop,
                                             task_type=None if head else "SEQ_CLS"))
        for i, (count, target) in enumerate(zip(counts, targets, strict=True))
    ]  # fmt: skip


def made(kind: type[Adapters] | type[Sequential], base: nn.Module, members: Sequence[Member]) -> Any:
    """A backend of members that start."""
    trainees = [Trainee(m, m.task, base, m.length(1)) for m in members]  # type: ignore[arg-type]
    return kind(trainees, [t.initial() for t in trainees], _CPU)


def advance(backend: Any, steps: int) -> list[Steps]:
    found = []
    for _ in range(steps):
        found.append(backend.step())
        for trainee in backend.trainees:
            trainee.step += 1
    return found


def states(backend: Any) -> list[State]:
    return [backend.state(index) for index in range(len(backend.trainees))]


def assert_equal(found: Sequence[State], expected: Sequence[State], within: float) -> None:
    """Weights and moments agree to so many parts of their largest entry."""
    for one, other in zip(found, expected, strict=True):
        assert one.step == other.step
        assert len(one.moments) == len(other.moments)
        pairs = [(one.parameters, other.parameters), *zip(one.moments, other.moments, strict=True)]
        for a, b in pairs:
            assert a.keys() == b.keys()
            scale = max(float(tensor.abs().max()) for tensor in b.values())
            worst = max(float((a[name] - b[name]).abs().max()) for name in b)
            assert worst <= within * scale, (worst, scale)
