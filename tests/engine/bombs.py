"""Files made to hang, to fill the memory or to mislead."""

from __future__ import annotations

import copy
import io
import pickle
import struct
import zipfile
from collections.abc import Callable

import hostile
import torch
from hostile import DEFAULT, as_json
from safetensors.torch import save
from victims import LAST

#: Damage, the recipe, and words that the message has.
Case = tuple[dict[str, bytes], str, tuple[str, ...]]
WEIGHTS, CONFIG = "victim/model.safetensors", "victim/config.json"
ALIGNED = "merge: linear\nmodels: [sound, victim]\ntokenizer: {source: victim}\n"
ADAPTED = "merge: linear\nmodels: [sound, sound+lora]\n"
DEEP = b"[" * 200_000


def header(text: bytes, data: bytes = b"") -> Case:
    return {WEIGHTS: len(text).to_bytes(8, "little") + text + data}, DEFAULT, ("victim/model.safetensors",)


def deep_header() -> Case:
    return header(b'{"a":' + DEEP)


def endless_name() -> Case:
    """Layers are found in the square of a name's length."""
    return header(b'{"%s":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}' % (b"0." * 1_000_000), b"1")


def number_without_end() -> Case:
    return header(b'{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,1]}}' % (b"9" * 100_000), b"1")


def deep_config() -> Case:
    return {CONFIG: b'{"a":' + DEEP}, DEFAULT, ("victim/config.json",)


def large_config() -> Case:
    return {CONFIG: b'{"a": "' + b"x" * 110_000_000 + b'"}'}, DEFAULT, ("victim/config.json", "at most")


def deep_index() -> Case:
    return {"victim/model.safetensors.index.json": b'{"weight_map": ' + DEEP}, DEFAULT, ("index.json",)


def modules_with_a_null_byte() -> Case:
    return {"victim/modules.json": as_json([{"path": "a\0b"}])}, DEFAULT, ("victim/modules.json",)


def torch_file(content: bytes, *words: str) -> Case:
    recipe = "merge: linear\nmodels: [sound, victim/other.bin]\n"
    return {"victim/other.bin": content}, recipe, ("victim/other.bin", *words)


def zipped(records: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", kind, compresslevel=1) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return made.getvalue()


def compressed_record() -> Case:
    """Half a gigabyte, where two megabytes say how bytes are ordered."""
    return torch_file(zipped({"a/byteorder": bytes(1 << 29)}, zipfile.ZIP_DEFLATED), "compressed")


def record_outside() -> Case:
    content = bytearray(zipped({"a/data.pkl": pickle.dumps({}), "a/byteorder": b"little"}))
    place = content.rfind(b"PK\x01\x02") + 42
    content[place : place + 4] = (2**31).to_bytes(4, "little")
    return torch_file(bytes(content), "corrupt")


def legacy_pickle_of_a_terabyte() -> Case:
    made = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, made, _use_new_zipfile_serialization=False)
    content = made.getvalue().replace(b"K\x02", b"\x8a\x06" + (2**40).to_bytes(6, "little"))
    return torch_file(content, "other.bin")


def pattern_that_backtracks() -> Case:
    config = {"peft_type": "LORA", "r": 2, "rank_pattern": {"(.*)*(.*)*x": 2}}
    return adapter(config, "(.*)*", "adapter_config.json")


def alpha_without_end() -> Case:
    return adapter({"peft_type": "LORA", "r": 2, "lora_alpha": 10**400}, "alpha")


def alpha_that_is_nothing() -> Case:
    return adapter({"peft_type": "LORA", "r": 2, "alpha_pattern": {"q_proj": None}}, "alpha")


def adapter(config: dict[str, object], *words: str) -> Case:
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    factors = {f"{stem}_A.weight": torch.ones(2, 4), f"{stem}_B.weight": torch.ones(4, 2)}
    files = {"lora/adapter_config.json": as_json(config), "lora/adapter_model.safetensors": save(factors)}
    return files, ADAPTED, ("lora", *words)


def block_of_no_numbers() -> Case:
    stored = hostile.tensors(1)
    name = "model.layers.0.mlp.up_proj.weight"
    stored[name] = stored[name].to(torch.float8_e4m3fn)
    stored[f"{name}_scale_inv"] = torch.ones(1, 1)
    quantised = {"quantization_config": {"quant_method": "fp8", "weight_block_size": 7}}
    files = {WEIGHTS: save(stored), CONFIG: as_json({**hostile.CONFIG, **quantised})}
    return files, DEFAULT, ("victim", "7")


def tokenizer(change: Callable[[dict], object]) -> dict[str, bytes]:
    content = copy.deepcopy(hostile.TOKENIZER)
    change(content)
    return {"victim/tokenizer.json": as_json(content)}


def token_id_without_end() -> Case:
    files = tokenizer(lambda t: t["model"]["vocab"].update(z=10**12))
    return files, ALIGNED, ("victim", "gaps")


def token_id_beyond_integers() -> Case:
    files = tokenizer(lambda t: t["model"]["vocab"].update(z=10**30))
    return files, ALIGNED, ("victim", "gaps")


def token_that_is_no_text() -> Case:
    files = tokenizer(lambda t: t["model"]["vocab"].update({"\ud800": 6}))
    return files, ALIGNED, ("victim/tokenizer.json",)


def padding_without_end() -> Case:
    recipe = f"{DEFAULT}tokenizer: {{source: base, pad_to_multiple_of: {10**12}}}\n"
    return {}, recipe, ("pad_to_multiple_of",)


def layers_without_end() -> Case:
    slices = f"[{{sources: [{{model: victim, layer_range: [0, {2**64}]}}]}}]"
    return {}, f"merge_method: passthrough\nslices: {slices}\n", ("victim", "layer_range")


def gguf_file(key: str, number: int) -> Case:
    """A header with an architecture, one number and one tensor."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    pairs += text(key) + struct.pack("<II", 4, number)
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 4, 4, 0, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2) + pairs + tensor
    content = head + bytes(-len(head) % 32 + 64)
    recipe = "merge: linear\nmodels: [victim/other.gguf]\n"
    return {"victim/other.gguf": content}, recipe, ("victim/other.gguf", key)


def blocks_without_end() -> Case:
    return gguf_file("llama.block_count", 2**31)


def experts_without_end() -> Case:
    return gguf_file("llama.expert_count", 2**31)


#: Every case ends with status 2.
REFUSED: list[Callable[[], Case]] = [
    deep_header,
    endless_name,
    number_without_end,
    deep_config,
    large_config,
    deep_index,
    modules_with_a_null_byte,
    compressed_record,
    record_outside,
    legacy_pickle_of_a_terabyte,
    pattern_that_backtracks,
    alpha_without_end,
    alpha_that_is_nothing,
    block_of_no_numbers,
    token_id_without_end,
    token_id_beyond_integers,
    token_that_is_no_text,
    padding_without_end,
    layers_without_end,
    blocks_without_end,
    experts_without_end,
]


def card(front: str) -> dict[str, bytes]:
    return {"victim/README.md": f"---\n{front}\n---\n# A model\n".encode()}


ALIASES = "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 30))
ODD_ROWS = {"added_tokens_decoder": {"²": {"content": "z"}, "9" * 5000: {"content": "y"}, "7": 3}}
#: What is no obstacle, and the recipe.
HARMLESS: dict[str, tuple[dict[str, bytes], str]] = {
    "aliases that multiply in a card": (card(f"a0: &a0 [x]\n{ALIASES}license: *a29\nlanguage: *a29"), LAST),
    "a card that contains itself": (card("license: &a [*a]"), LAST),
    "a date that is none in a card": (card("license: 2024-99-99"), LAST),
    "a card that does not end": ({"victim/README.md": b"---" + b"\n" * 65_000}, LAST),
    "a card that is nested deep": (card("license: " + "[" * 400), LAST),
    "digits that are no number": ({"victim/tokenizer_config.json": as_json(ODD_ROWS)}, ALIGNED),
}
