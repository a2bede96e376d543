"""Kinds of files that get damaged: a model with such a file, how it is merged, how the file is damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import damage
import hostile
import numpy as np
import torch
from hostile import DEFAULT, World, as_json
from hypothesis import strategies as st
from safetensors.torch import save

#: The victim's config and files are the output's.
LAST = "merge: linear\nmodels: [victim, sound]\n"
STACKED = (
    "merge_method: passthrough\nslices:\n- sources: [{model: victim, layer_range: [0, 2]}]\n"
    "- sources: [{model: victim, layer_range: [1, 3]}]\ndtype: bfloat16\n"
)
ALIGNED = tuple(
    f"{DEFAULT}tokenizer: {{source: {source}}}\nchat_template: auto\n" for source in ("union", "victim")
)
ADAPTED = ("merge: linear\nmodels: [sound, sound+victim]\n",)


@dataclass(frozen=True)
class Victim:
    """A file that gets damaged.

    Attributes:
        file: its path.
        make: sets the world up, and gives what the file holds: bytes, or a JSON document.
        damaged: from that to damaged files.
        recipes: how it is merged.
    """

    file: str
    make: Callable[[World], Any]
    damaged: Callable[[Any], st.SearchStrategy[bytes]]
    recipes: tuple[str, ...] = (DEFAULT,)


def whole(place: World) -> bytes:
    """One safetensors file."""
    return place.files["victim/model.safetensors"]


def sharded(place: World) -> dict[str, object]:
    """Two shards and an index."""
    tensors = hostile.tensors(1)
    homes = {name: f"model-0000{1 + k % 2}-of-00002.safetensors" for k, name in enumerate(tensors)}
    for home in sorted(set(homes.values())):
        part = {name: tensor for name, tensor in tensors.items() if homes[name] == home}
        place.put(f"victim/{home}", save(part, {"format": "pt"}))
    place.drop("victim/model.safetensors")
    return {"metadata": {"total_size": 1}, "weight_map": homes}


def pickled(place: World, *, zipped: bool) -> bytes:
    """A file of torch.save, with a head that is tied and a weight that is transposed."""
    tensors = hostile.tensors(1)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].T
    made = io.BytesIO()
    torch.save(tensors, made, _use_new_zipfile_serialization=zipped)
    place.drop("victim/model.safetensors")
    return made.getvalue()


def adapter(place: World) -> tuple[dict[str, object], bytes]:
    """A LoRA adapter in the victim's place: its config and its weights."""
    parts = ("self_attn.q_proj", "mlp.up_proj")
    stems = [f"base_model.model.model.layers.{k}.{part}" for k in range(hostile.LAYERS) for part in parts]
    factors = {f"{stem}.lora_A.weight": torch.ones(2, hostile.WIDTH) for stem in stems}
    factors |= {f"{stem}.lora_B.weight": torch.ones(hostile.WIDTH, 2) for stem in stems}
    factors["base_model.model.lm_head.weight"] = torch.ones(len(hostile.TOKENS), hostile.WIDTH)
    config: dict[str, object] = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "base_model_name_or_path": "sound",
        "rank_pattern": {"up_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 3},
        "modules_to_save": ["lm_head"],
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "trainable_token_indices": None,
        "init_lora_weights": True,
        "revision": None,
    }
    place.drop("victim/model.safetensors")
    place.put("victim/adapter_config.json", as_json(config))
    place.put("victim/adapter_model.safetensors", save(factors))
    return config, save(factors)


def quantised(place: World) -> dict[str, object]:
    """FP8 weights with a scale per block; the config."""
    tensors = hostile.tensors(1)
    for name in [name for name in tensors if ".layers." in name]:
        tensors[name] = tensors[name].to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = torch.ones(1, 1)
    place.put("victim/model.safetensors", save(tensors, {"format": "pt"}))
    groups = {"group": {"weights": {"block_structure": [4, 4]}}}
    said = {"quant_method": "fp8", "weight_block_size": [4, 4], "config_groups": groups}
    return {**hostile.CONFIG, "quantization_config": said}


def llama_cpp(place: World) -> bytes:
    """A GGUF file of one layer."""
    import gguf

    width, rows = 8, 4
    path = place.root / "made.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(rows)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(rows)])
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (rows, width), "output_norm": (width,)}
    shapes |= {f"blk.0.{part}": (width,) for part in ("attn_norm", "ffn_norm")}
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes |= {f"blk.0.{part}": (width, width) for part in matrices}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = path.read_bytes()
    path.unlink()
    return content


def modules(place: World) -> list[dict[str, object]]:
    """A list of modules in sub-folders."""
    place.put("victim/1_Pooling/config.json", b"{}")
    return [{"idx": 0, "path": "", "type": "a"}, {"idx": 1, "path": "1_Pooling", "type": "b"}]


def front_matter(content: bytes) -> bytes:
    return b"---\n" + content + b"\n---\n# A model\n"


CARD = "license: other\nlicense_name: x\nlicense_link: y\nlanguage: [en, de]\nlibrary_name: z\ntags: [a]\n"
_JSON = damage.json_files
VICTIMS = {
    "header": Victim("victim/model.safetensors", whole, damage.safetensors_files),
    "index": Victim("victim/model.safetensors.index.json", sharded, _JSON),
    "config": Victim("victim/config.json", lambda place: hostile.CONFIG, _JSON, (LAST, STACKED)),
    "quantised": Victim("victim/config.json", quantised, _JSON),
    "tokenizer": Victim("victim/tokenizer.json", lambda place: hostile.TOKENIZER, _JSON, ALIGNED),
    "its config": Victim(
        "victim/tokenizer_config.json", lambda place: hostile.TOKENIZER_CONFIG, _JSON, ALIGNED
    ),
    "adapter": Victim(
        "victim/adapter_model.safetensors", lambda p: adapter(p)[1], damage.safetensors_files, ADAPTED
    ),
    "adapter config": Victim("victim/adapter_config.json", lambda p: adapter(p)[0], _JSON, ADAPTED),
    "archive": Victim("victim/pytorch_model.bin", partial(pickled, zipped=True), damage.torch_files),
    "old pickle": Victim("victim/pytorch_model.bin", partial(pickled, zipped=False), damage.damaged),
    "modules": Victim("victim/modules.json", modules, _JSON),
    "card": Victim(
        "victim/README.md",
        lambda place: CARD,
        lambda text: damage.recipes(text).map(front_matter),
        (LAST,),
    ),
    "GGUF": Victim(
        "victim.gguf",
        llama_cpp,
        lambda content: damage.damaged(content, last=1600),
        ("merge: linear\nmodels: [victim.gguf]\n",),
    ),
}

#: Recipes in plait's own grammar, which name the models that mergekit's do.
OWN = [
    "merge: {sparsify: {name: magnitude, density: 0.2}, consensus: sign, scale: 0.5}\nbase: origin\n"
    "models: [math, {model: code, weight: -0.5}]\nparameters: {density: [0.1, 0.9]}\nseed: 3\n"
    "exclude: ['*.steps']\ndtype: bfloat16\n",
    "merge: linear\nmodels:\n- {model: {merge: linear, models: [math, code]}}\n- poems\n",
    "merge: [{sparsify: random, density: 0.3}, {consensus: sum}]\nbase: origin\nmodels: [math, code]\n",
    "merge: ties\nbase: origin\nconventions: mergekit\nslices:\n"
    "- sources: [{model: math, layer_range: [0, 2]}, {model: code, layer_range: [0, 2], weight: 0.3}]\n"
    "- sources: [{model: math, layer_range: [1, 3]}, {model: code, layer_range: [1, 3]}]\n",
]
PEERS = Path(__file__).parents[2] / "benchmarks" / "mergekit_recipes"
#: What the recipes of the comparison with mergekit call their models.
NAMES = ("origin", "math", "code", "poems", "chat", "tongue", "tied", "half", "t5-a", "t5-b", "see")


def recipes() -> list[str]:
    """Real recipes, in both grammars."""
    return [path.read_text(encoding="utf-8") for path in sorted(PEERS.rglob("*.yml"))] + OWN
