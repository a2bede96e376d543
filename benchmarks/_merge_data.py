"""Synthetic Llama-shaped checkpoints, and the time that reading and writing them takes by itself."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

MODELS = ("base", "a", "b", "c")
_HIDDEN, _INNER, _VOCABULARY, _KEYS = 2048, 8192, 32_000, 512
_PIECE = 1 << 22
_LAYER = 60_821_504  # parameters of a layer of this shape


def make_checkpoints(root: Path, parameters: float, dtype: torch.dtype = torch.bfloat16) -> int:
    """Write `base` and three fine-tunes of it, three shards each; how many parameters each has.

    A fine-tune is the base plus normal noise of a twentieth of its spread, rounded: in bfloat16, as in
    real ones, many entries of the task vectors tie.
    """
    layers = max(round((parameters - _HIDDEN * _VOCABULARY) / _LAYER), 1)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in _layer().items()}
    shapes["model.norm.weight"] = (_HIDDEN,)
    for number, model in enumerate(MODELS):
        folder = root / model
        if not (folder / "config.json").exists():
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, number, shapes, layers, dtype)
            _tokenizer(folder)
    return sum(math.prod(shape) for shape in shapes.values())


def _layer() -> dict[str, tuple[int, ...]]:
    return {
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (_KEYS, _HIDDEN),
        "self_attn.v_proj": (_KEYS, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
        "input_layernorm": (_HIDDEN,),
        "post_attention_layernorm": (_HIDDEN,),
    }


def _write(
    folder: Path, number: int, shapes: dict[str, tuple[int, ...]], layers: int, dtype: torch.dtype
) -> None:
    source = torch.randn(_PIECE, generator=torch.Generator().manual_seed(9)) * 0.02
    noise = torch.randn(_PIECE, generator=torch.Generator().manual_seed(number)) * 0.001
    names, place = list(shapes), {}
    third = -(-len(names) // 3)
    for shard in range(3):
        file, tensors = f"model-{shard + 1:05d}-of-00003.safetensors", {}
        for position, name in enumerate(names[shard * third : (shard + 1) * third], shard * third):
            values = torch.empty(math.prod(shapes[name]))
            for start in range(0, len(values), _PIECE):
                part = values[start : start + _PIECE]
                part.copy_(torch.roll(source, position * 7919 + start)[: len(part)])
                if number:
                    part += torch.roll(noise, position * 104_729 + 3 * start)[: len(part)]
            tensors[name] = values.view(shapes[name]).to(dtype)
            place[name] = file
        save_file(tensors, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": dtype.itemsize * sum(map(math.prod, shapes.values()))},
        "weight_map": place,
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "vocab_size": _VOCABULARY,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _tokenizer(folder: Path) -> None:
    """mergekit's last step copies one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    vocabulary = {"<unk>": 0, **{f"w{i}": i for i in range(1, 100)}}
    Tokenizer(WordLevel(vocabulary, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(content), encoding="utf-8")


def io_limit(root: Path, models: Sequence[str], scratch: Path, block: int = 1 << 20) -> float:
    """Seconds to read every byte of these models once and write one model's bytes once, by two threads."""
    files = {model: sorted((root / model).glob("*.safetensors")) for model in models}
    sizes = [path.stat().st_size for path in files[models[0]]]
    ends = np.cumsum([0, *sizes])
    handles = {model: [os.open(path, os.O_RDONLY) for path in paths] for model, paths in files.items()}
    scratch.unlink(missing_ok=True)
    out = os.open(scratch, os.O_RDWR | os.O_CREAT)
    os.truncate(out, int(ends[-1]))
    places = [(i, at, min(block, size - at)) for i, size in enumerate(sizes) for at in range(0, size, block)]

    def work(own: list[tuple[int, int, int]]) -> None:
        source, target = memoryview(bytearray(block)), memoryview(bytearray(block))
        for file, at, count in own:
            for model in models:
                os.preadv(handles[model][file], [source[:count]], at)
            os.pwrite(out, target[:count], int(ends[file]) + at)

    threads = [threading.Thread(target=work, args=(places[i::2],)) for i in range(2)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    for handle in [out, *(h for hs in handles.values() for h in hs)]:
        os.close(handle)
    scratch.unlink()
    return seconds
