"""What TorchScript made of functions and modules: they have no Python code that could be looked at."""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from blake3 import blake3
from torch import nn

SCRIPTED = (torch.jit.ScriptFunction, torch.jit.ScriptModule)
#: What names get where one was scripted before in this process.
_NUMBERED = re.compile(r"\.?_*torch_mangle_\d+")


def scripted(value: Any) -> Iterator[tuple[str, Any]]:
    """Name → graphs of a scripted or traced function or module, all it is saved with, and what it is made of.

    A graph has those of all functions called from it within it. Code as it is saved is left out: how it is
    written depends on what else was scripted in the process.
    """
    graphs = _methods(value) if isinstance(value, torch.jit.ScriptModule) else [("", value)]
    yield "graphs", [[name, _NUMBERED.sub("", own.inlined_graph.str(False))] for name, own in graphs]
    yield "saved", list(_saved(value))
    if "_torchdynamo_inline" in vars(value):
        yield "made of", vars(value)["_torchdynamo_inline"]


def outermost(network: nn.Module) -> list[nn.Module]:
    """Scripted modules that are in no other scripted module."""
    if isinstance(network, torch.jit.ScriptModule):
        return [network]
    return [each for child in network.children() for each in outermost(child)]


def _methods(module: Any) -> Iterator[tuple[str, Any]]:
    """Compiled methods of a module and of all in it."""
    for name, own in module.named_modules():
        if isinstance(own, torch.jit.ScriptModule):
            compiled: Any = own._c
            yield from ((f"{name}.{each}", compiled._get_method(each)) for each in compiled._method_names())


def _saved(value: Any) -> Iterator[str]:
    """Attributes, weights and constants, as they would be in a file; nothing of what can't be saved."""
    try:
        saved = value.save_to_buffer()
    except RuntimeError:  # it calls what was left in Python
        return
    with zipfile.ZipFile(io.BytesIO(saved)) as held:
        for name in held.namelist():
            place, own = name.partition("/")[2], held.read(name)
            if place in ("data.pkl", "constants.pkl"):
                told = " ".join(f"{code.name} {argument}" for code, argument, _ in pickletools.genops(own))
                yield f"{place}: {_NUMBERED.sub('', told)}"
            elif place.startswith(("data/", "constants/")):
                yield f"{place}: {blake3(own).hexdigest()}"
