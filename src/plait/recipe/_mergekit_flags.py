"""The flags of `mergekit-yaml` and `mergekit-multi`: what each is here, or why it has no effect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """One spelling of a flag of mergekit's.

    Attributes:
        takes_value: the next word (or what follows `=`) is its value.
        ours: the words that say the same here; `{}` stands for the value. Empty if nothing needs saying.
        note: the sentence to print when the flag is given; None where it simply works.
    """

    takes_value: bool = False
    ours: tuple[str, ...] = ()
    note: str | None = None


def _size(text: str) -> str:
    """mergekit's `5B` is 5·10⁹ bytes, and `M` and `K` are their 10⁶ and 10³; other words stay as they are."""
    unit = {"b": "GB", "m": "MB", "k": "KB"}.get(text[-1:].lower())
    return text if unit is None or not text[:-1].isdigit() else text[:-1] + unit


_STREAMS = "plait streams every tensor through a bounded memory anyway"
_STAGES = "what stages make lies beside the output while the run lasts"
_AUTO = "plait computes on the CPU unless a device is named, as the disk is what limits a merge"
_NO_CODE = "plait never runs code that comes with a model"

#: Every spelling → what it means here.
MERGEKIT_FLAGS: dict[str, Flag] = {
    "--cuda": Flag(ours=("--device", "cuda")),
    "--no-cuda": Flag(),
    "--device": Flag(True, ("--device", "{}")),
    "--out-shard-size": Flag(True, ("--max-shard-size", "{}")),
    "--random-seed": Flag(True, ("--seed", "{}")),
    "--num-threads": Flag(True, ("--threads", "{}")),
    "-j": Flag(True, ("--threads", "{}")),
    "--quiet": Flag(ours=("--quiet",)),
    "--no-quiet": Flag(),
    "-v": Flag(note="plait prints what matters and writes the rest to its log"),
    "--copy-tokenizer": Flag(),
    "--no-copy-tokenizer": Flag(note="the tokenizer is always copied, so that the output loads"),
    "--write-model-card": Flag(),
    "--no-write-model-card": Flag(note="the model card is always written"),
    "--safe-serialization": Flag(),
    "--no-safe-serialization": Flag(note="plait writes safetensors only"),
    "--clone-tensors": Flag(note="layers that occur several times are always written each for itself"),
    "--no-clone-tensors": Flag(),
    "--lazy-unpickle": Flag(note="tensors of PyTorch files are always read one by one"),
    "--no-lazy-unpickle": Flag(),
    "--low-cpu-memory": Flag(note=_STREAMS),
    "--no-low-cpu-memory": Flag(),
    "--read-to-gpu": Flag(note=_STREAMS),
    "--no-read-to-gpu": Flag(),
    "--multi-gpu": Flag(
        ours=("--device", "cuda"), note="a merge runs on one device; the disk is what limits it"
    ),
    "--no-multi-gpu": Flag(),
    "--gpu-rich": Flag(ours=("--device", "cuda"), note="it means `--device cuda` here; " + _STREAMS),
    "--async-write": Flag(note="reading, computing and writing always overlap"),
    "--no-async-write": Flag(),
    "--write-threads": Flag(True, note="writing takes its threads from `--threads`"),
    "--trust-remote-code": Flag(note=_NO_CODE),
    "--no-trust-remote-code": Flag(),
    "--allow-crimes": Flag(
        note="models are aligned by the names and shapes of their tensors, so none is needed"
    ),
    "--no-allow-crimes": Flag(),
    "--unsafe-truncate-embeddings": Flag(
        note="vocabularies are never cut; say in the recipe's `tokenizer` how to align them"
    ),
    "--no-unsafe-truncate-embeddings": Flag(),
    "--transformers-cache": Flag(
        True, note="downloads go to huggingface_hub's cache; set HF_HUB_CACHE to move it"
    ),
    "--lora-merge-cache": Flag(True, note="adapters are applied while reading and nothing is stored"),
    "--lora-merge-dtype": Flag(True, note="adapters are applied in float32 while reading"),
    "--out-path": Flag(True, ("--out", "{}")),
    "--intermediate-dir": Flag(True, note=_STAGES),
    "-I": Flag(True, note=_STAGES),
    "--lazy": Flag(note=_STAGES),
    "--no-lazy": Flag(),
}

_VALUES: dict[str, Callable[[str], str]] = {"--out-shard-size": _size}


def translate_mergekit_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line for `mergekit-yaml` as one for `plait merge`.

    Args:
        words: the words after the command's name.

    Returns:
        The words for `plait merge`, and one sentence for each flag that does less here than its name
        says. Words that are no flag of mergekit's stay as they are.
    """
    out: list[str] = []
    notes: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*out, word, *rest], notes
        name, equals, value = word.partition("=")
        if word[:2] == "-v" and set(word[1:]) == {"v"}:
            name = "-v"
        elif word[:2] == "-j" and word[2:].isdigit():
            name, equals, value = "-j", "=", word[2:]
        flag = MERGEKIT_FLAGS.get(name)
        if flag is None:
            out.append(word)
            continue
        if flag.takes_value and not equals:
            if not rest:
                return [*out, word], notes
            value = rest.pop(0)
        if (name, value) == ("--device", "auto"):
            notes.append(f"`--device auto`: {_AUTO}")
            continue
        value = _VALUES.get(name, str)(value)
        out += [piece.format(value) for piece in flag.ours]
        if flag.note is not None and f"`{name}`: {flag.note}" not in notes:
            notes.append(f"`{name}`: {flag.note}")
    return out, notes
