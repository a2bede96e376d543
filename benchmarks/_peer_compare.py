"""Two outputs of one recipe held together: weights, config, tokenizer, chat template.

Every function returns what differs, as aspect → what was found; nothing differs where it is empty.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: Distance of two entries relative to the largest of their tensor.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
#: Standard errors that two draws of a random method may lie apart.
ERRORS = 5.0
_TEXTS = (
    "Wrap the single paragraph in text (a string) so it fits in lines of at most width columns.",
    "def f(x):\n    return x  # <|turn|> zebra </s>",
    "äöü 你好 <s>hello<|end|>",
)
_TALK = [{"role": "user", "content": " What? "}, {"role": "assistant", "content": "That."}]
_MACHINE = ("transformers_version", "_name_or_path")


def stored(folder: Path) -> dict[str, Tensor]:
    """Every tensor of an output."""
    import plait

    found = plait.open(str(folder))
    return {name: t.read_flat(0, math.prod(t.shape)).view(t.shape) for name, t in found.items()}


def vocabulary(folder: Path) -> dict[str, int]:
    """Token → row, or nothing where there is no tokenizer."""
    tokenizer = _tokenizer(folder)
    return {} if tokenizer is None else dict(tokenizer.get_vocab())


def _tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def weights(ours: Path, theirs: Path) -> tuple[dict[str, str], float]:
    """What differs tensor by tensor, and the largest distance; rows of tokens are matched by the token."""
    a, b = stored(ours), stored(theirs)
    found = _names(a, b)
    order = _matched(vocabulary(ours), vocabulary(theirs))
    worst = 0.0
    for name in a.keys() & b.keys():
        x, y = a[name], b[name]
        if order is not None and _is_vocabulary(name):
            x, y = x[order[0]], y[order[1]]
        if x.dtype != y.dtype:
            found["dtype"] = f"{_short(x.dtype)} / {_short(y.dtype)}"
        if x.shape != y.shape:
            found[f"shape of {name}"] = f"{list(x.shape)} / {list(y.shape)}"
            continue
        if not x.numel():
            continue
        distances = (x.double() - y.double()).abs() / y.double().abs().max().clamp_min(1e-30)
        worst = max(worst, float(distances.max()))
        coarse = x.dtype if x.dtype.itemsize < y.dtype.itemsize else y.dtype
        beyond = int((distances > TOLERANCE[coarse]).sum())
        if beyond:
            found[f"values of {name}"] = f"{beyond} of {x.numel()}, up to {float(distances.max()):.1e}"
    return found, worst


def _names(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, str]:
    found = {}
    for whose, extra in (("here", a.keys() - b.keys()), ("there", b.keys() - a.keys())):
        if extra:
            found[f"tensors only {whose}"] = ", ".join(sorted(extra)[:3])
    return found


def _matched(ours: Mapping[str, int], theirs: Mapping[str, int]) -> tuple[Tensor, Tensor] | None:
    """Rows of the tokens that both have, in one order; None where every token has one row in both."""
    if ours == theirs:
        return None
    common = sorted(ours.keys() & theirs.keys())
    return torch.tensor([ours[t] for t in common]), torch.tensor([theirs[t] for t in common])


def _is_vocabulary(name: str) -> bool:
    return name.endswith(("embed_tokens.weight", "lm_head.weight", "wte.weight", "shared.weight"))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def distribution(ours: Path, theirs: Path, base: Path) -> tuple[dict[str, str], float]:
    """Whether both draw from one distribution: the share of entries that moved, mean and spread of the moves.

    The number behind the second is the largest distance in standard errors, over all large matrices.
    """
    a, b, start = stored(ours), stored(theirs), stored(base)
    found, worst = _names(a, b), 0.0
    for name in sorted(a.keys() & b.keys()):
        if a[name].numel() < 1 << 16:
            continue
        x, y = ((t[name] - start[name]).double().reshape(-1) for t in (a, b))
        for what, distance in _distances(x, y).items():
            worst = max(worst, distance)
            if distance > ERRORS:
                found[f"{what} of {name}"] = f"{distance:.1f} standard errors"
    return found, worst


def _distances(x: Tensor, y: Tensor) -> dict[str, float]:
    """Moments of two samples, and how far they lie apart in standard errors."""
    moments = {
        "kept": lambda v: (v != 0).double(),
        "mean": lambda v: v,
        "size": torch.abs,
        "square": torch.square,
    }
    found = {}
    for what, moment in moments.items():
        p, q = moment(x), moment(y)
        error = math.sqrt(float(p.var() + q.var()) / len(p))
        found[what] = abs(float(p.mean() - q.mean())) / max(error, 1e-30)
    return found


def config(ours: Path, theirs: Path) -> dict[str, str]:
    """What differs in the config as transformers reads it."""
    from transformers import AutoConfig

    a, b = (AutoConfig.from_pretrained(path).to_dict() for path in (ours, theirs))
    keys = [key for key in sorted(a.keys() | b.keys()) if key not in _MACHINE and a.get(key) != b.get(key)]
    return {f"config {key}": f"{a.get(key)!s:.40} / {b.get(key)!s:.40}" for key in keys}


def tokenizer(ours: Path, theirs: Path) -> dict[str, str]:
    """What differs in tokens, in how text is cut, in special tokens and in rendered chats."""
    a, b = _tokenizer(ours), _tokenizer(theirs)
    if a is None or b is None:
        return {} if a is b else {"tokenizer": f"{_there(a)} / {_there(b)}"}
    found = {}
    extra = a.get_vocab().keys() ^ b.get_vocab().keys()
    if extra:
        found["tokens"] = ", ".join(sorted(extra)[:5])
    elif a.get_vocab() != b.get_vocab():
        moved = [t for t, row in a.get_vocab().items() if b.get_vocab()[t] != row]
        found["ids of tokens"] = f"{len(moved)} of {len(a.get_vocab())}"
    cut = [[t.convert_ids_to_tokens(t(text)["input_ids"]) for text in _TEXTS] for t in (a, b)]
    if cut[0] != cut[1]:
        found["cut of text"] = json.dumps(next([x, y] for x, y in zip(*cut, strict=True) if x != y))[:200]
    if a.special_tokens_map != b.special_tokens_map:
        found["special tokens"] = f"{a.special_tokens_map} / {b.special_tokens_map}"
    flags = [{i.content: repr(i) for i in t.added_tokens_decoder.values()} for t in (a, b)]
    if flags[0] != flags[1]:
        wrong = [t for t in flags[0].keys() | flags[1].keys() if flags[0].get(t) != flags[1].get(t)]
        found["added tokens"] = ", ".join(sorted(wrong)[:5])
    talks = [t.apply_chat_template(_TALK, tokenize=False) if t.chat_template else None for t in (a, b)]
    if talks[0] != talks[1]:
        found["chat"] = f"{talks[0]!r:.100} / {talks[1]!r:.100}"
    return found


def _there(tokenizer: Any) -> str:
    return "none" if tokenizer is None else "one"


def loads(folder: Path) -> dict[str, str]:
    """Whether transformers loads the output with every weight in place, and it runs."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    found = {f"load: {key}": str(sorted(value))[:100] for key, value in info.items() if value}
    tokens = torch.arange(5, 12)[None]
    with torch.no_grad():
        out = model(input_ids=tokens, **({"decoder_input_ids": tokens} if config.is_encoder_decoder else {}))
    if not bool(out.logits.isfinite().all()):
        found["load: logits"] = "not finite"
    return found
