"""What travels with a model and lies in no file of its own: a GGUF's tokenizer, a live model's settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

_log = logging.getLogger(__name__)


def gguf_extras(path: Path) -> Callable[[Path], None]:
    """Writes the tokenizer in a GGUF file, chat template included, as transformers reads it."""
    return partial(_write_tokenizer, path)


def _write_tokenizer(path: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    try:
        AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name).save_pretrained(str(folder))
    except Exception as error:  # whatever transformers says of a tokenizer that it can't convert
        reason = str(error).strip().partition("\n")[0]
        _log.warning("%s: its tokenizer can't be written (%s); add one yourself", path, reason)


def live_extras(module: nn.Module) -> Callable[[Path], None] | None:
    """Writes how a live transformers model generates; None where it does not say."""
    generation: Any = getattr(module, "generation_config", None)
    return partial(_save, generation) if hasattr(generation, "save_pretrained") else None


def _save(generation: Any, folder: Path) -> None:
    generation.save_pretrained(str(folder))
