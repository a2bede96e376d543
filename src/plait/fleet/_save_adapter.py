"""A member's adapter as PEFT writes it: a folder that `PeftModel.from_pretrained` and `plait.open` load."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path

from plait.checkpoint import save_tensors
from plait.errors import InputError
from plait.fleet._adapter import HEAD, Adapter
from plait.fleet._trainee import State
from plait.tasks import HEAD_FILE, folder_name

_FORMAT = {"format": "pt"}


def save_adapter(
    state: State,
    adapter: Adapter,
    folder: str | Path,
    base: str | None = None,
    *,
    heads: Sequence[str] = (),
) -> Path:
    """Write a member's adapter; a task's head lies beside it, where PEFT does not look at it.

    Args:
        state: the member's.
        adapter: what its trainee says of it (`trainee.adapter`).
        folder: made if it is not there; files of the same names are replaced, each in one step.
        base: the base's path or name; what its config says if None.
        heads: tasks of a mixture, whose heads are written into folders of their names.

    Returns:
        the folder.

    Raises:
        InputError: the state holds no adapter, or the base has no name.
    """
    config = copy.deepcopy(adapter.config)
    name = base or config.base_model_name_or_path
    if not name:
        raise InputError("the base has no path or name that the adapter could point to", where=str(folder),
                         hint="give base=")  # fmt: skip
    weights = {n: t.contiguous().cpu() for n, t in state.parameters.items() if not n.startswith(HEAD)}
    head = {
        n.removeprefix(HEAD): t.contiguous().cpu() for n, t in state.parameters.items() if n.startswith(HEAD)
    }
    if weights.keys() != adapter.initial.keys():
        raise InputError("these are not this adapter's weights", where=str(folder),
                         hint="give state and adapter of one member")  # fmt: skip
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(weights, folder / "adapter_model.safetensors", _FORMAT)
    for number, task in enumerate(heads):
        own = {
            n.removeprefix(f"each.{number}."): t for n, t in head.items() if n.startswith(f"each.{number}.")
        }
        if own:
            (folder / folder_name(task)).mkdir(exist_ok=True)
            save_tensors(own, folder / folder_name(task) / HEAD_FILE, _FORMAT)
    if head and not heads:
        save_tensors(head, folder / HEAD_FILE, _FORMAT)
    config.base_model_name_or_path, config.inference_mode = str(name), True
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
    }
    _write_text(json.dumps(plain, indent=2, sort_keys=True, default=str), folder / "adapter_config.json")
    return folder


def _write_text(text: str, path: Path) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
