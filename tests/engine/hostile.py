"""A place with two tiny models, and damage to any file in it: whatever the file says, plait ends well.

Ends well: exit status 0 with an output that verifies, or 2 with a message that names what is at fault, no
traceback, and every file as it was. CPU time and memory are bounded, so that a bomb is a failure and no wait.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from safetensors.torch import save

import plait
from plait.cli import main

#: CPU seconds that an example may take (it takes some hundredths), and the bytes that it may add.
SECONDS, BYTES = 30, 1 << 30
LAYERS, WIDTH = 3, 4
TOKENS = ("<unk>", "<s>", "a", "b", "ab", "c")
DEFAULT = "merge: linear\nmodels: [sound, victim]\n"


class Bomb(BaseException):
    """An example took more CPU time than it may."""


@dataclass
class World:
    """A folder with models in it, which every example finds as it was.

    Attributes:
        root: the folder, in which the command line runs.
        files: relative path → content, as it should be.
        changed: the files that an example wrote.
    """

    root: Path
    files: dict[str, bytes] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def put(self, name: str, content: bytes) -> None:
        """Write a file that stays."""
        self.files[name] = content
        self.damage(name, content)

    def damage(self, name: str, content: bytes) -> None:
        """Write a file until the example's end."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.changed.add(name)

    def drop(self, name: str) -> None:
        """Take a file away for good."""
        (self.root / name).unlink()
        del self.files[name]

    def mend(self) -> None:
        """Make everything as it was."""
        for name in self.changed:
            path = self.root / name
            if name in self.files:
                path.write_bytes(self.files[name])
            else:
                path.unlink(missing_ok=True)
        self.changed.clear()

    def content(self) -> dict[str, bytes]:
        """Every file that is there."""
        found = (path for path in self.root.rglob("*") if not path.is_dir())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in found}


def tensors(seed: int) -> dict[str, torch.Tensor]:
    """A tiny Llama's, with a buffer of integers."""
    generator = torch.Generator().manual_seed(seed)
    found = {"model.embed_tokens.weight": torch.randn(len(TOKENS), WIDTH, generator=generator)}
    for layer in range(LAYERS):
        for part in ("self_attn.q_proj", "mlp.up_proj"):
            name = f"model.layers.{layer}.{part}.weight"
            found[name] = torch.randn(WIDTH, WIDTH, generator=generator)
    return {**found, "lm_head.weight": found["model.embed_tokens.weight"] + 1, "steps": torch.tensor([seed])}


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "vocab_size": len(TOKENS),
    "torch_dtype": "float32",
    "tie_word_embeddings": False,
    "rope_scaling": None,
    "layer_types": ["full"] * LAYERS,
    "text_config": {"vocab_size": len(TOKENS), "num_hidden_layers": LAYERS},
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": row, "content": token, "special": True, **dict.fromkeys(_FLAGS, False)}
        for row, token in enumerate(TOKENS[:2])
    ],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "BPE",
        "unk_token": "<unk>",
        "vocab": {token: row for row, token in enumerate(TOKENS)},
        "merges": [["a", "b"]],
    },
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "added_tokens_decoder": {"0": {"content": "<unk>", "special": True}, "1": {"content": "<s>"}},
    "chat_template": "{{ messages }}",
}
CARD = "---\nlicense: mit\nlanguage: [en]\ntags: [x]\n---\n# A model\n"


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def world(root: Path, names: tuple[str, ...] = ("sound", "victim")) -> World:
    """Models of these names in a folder."""
    made = World(root)
    for seed, name in enumerate(names):
        made.put(f"{name}/model.safetensors", save(tensors(seed), {"format": "pt"}))
        made.put(f"{name}/config.json", as_json(CONFIG))
        made.put(f"{name}/tokenizer.json", as_json(TOKENIZER))
        made.put(f"{name}/tokenizer_config.json", as_json(TOKENIZER_CONFIG))
        made.put(f"{name}/README.md", CARD.encode())
    made.changed.clear()
    return made


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: its exit status.
        message: what it said on stderr.
        wrong: what is wrong with that; empty if it ended well.
    """

    status: object
    message: str
    wrong: str


def ending(place: World, damage: Mapping[str, bytes], recipe: str | bytes = DEFAULT, *named: str) -> Ending:
    """How a merge of damaged files ends.

    Args:
        place: the models.
        damage: relative path → what it holds for once.
        recipe: the recipe.
        named: words of which a message must have one.
    """
    for name, content in damage.items():
        place.damage(name, content)
    place.damage("recipe.yml", recipe if isinstance(recipe, bytes) else recipe.encode())
    before = place.content()
    try:
        status, message = merge(place.root)
        return Ending(status, message, _wrong(place, before, status, message, named or ("victim",)))
    finally:
        shutil.rmtree(place.root / "out", ignore_errors=True)
        shutil.rmtree(place.root / ".out.plait", ignore_errors=True)
        place.mend()


def merge(root: Path) -> tuple[object, str]:
    """Run the command line in a folder: the exit status and what it said on stderr."""
    said, here = io.StringIO(), Path.cwd()
    words = ["merge", "recipe.yml", "-o", "out", "--quiet", "--threads", "1", "--memory", "1MB"]
    os.chdir(root)
    try:
        with contextlib.redirect_stderr(said), _bounded():
            main(words)
    except SystemExit as error:
        return error.code, said.getvalue()
    except Bomb:
        return "more CPU time than it may take", said.getvalue()
    except BaseException as error:
        return f"{type(error).__name__}: {error}", said.getvalue()
    finally:
        os.chdir(here)
    return "no status", said.getvalue()


def _wrong(
    place: World, before: Mapping[str, bytes], status: object, shown: str, named: tuple[str, ...]
) -> str:
    if status == 0:
        report = plait.verify(place.root / "out")
        left = {name: data for name, data in place.content().items() if not name.startswith("out/")}
        return "" if report.ok and left == before else f"a bad output: {report.problems}"
    if status != 2 or "Traceback" in shown or "bug in plait" in shown:
        return f"status {status}: {shown}"
    if place.content() != before:
        return f"files were left or changed: {sorted(set(place.content()) - set(before))}"
    if shown.count("plait: ") != 1 or not any(word in shown for word in named):
        return f"the message names none of {named}: {shown}"
    return ""


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Only so much more memory and CPU time, in this process."""

    def over(number: int, frame: FrameType | None) -> None:
        raise Bomb

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, hard))
    handler = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
