"""Models as steps leave them: folders of a body and heads, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from plait.checkpoint import load_into, open_model
from plait.tasks import Batch, SquaredError, Suite, Task, with_head

#: Task → folder of its expert, in the folder of a step that trained some.
INDEX = "models.json"


def save_body(body: Any, folder: Path) -> None:
    """Write a network as a checkpoint that everything in plait opens."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(body, "save_pretrained"):
        body.save_pretrained(folder)
    else:
        save_model(body, str(folder / "model.safetensors"))


def body(suite: Suite, folder: Path) -> nn.Module:
    """The suite's network with a folder's weights."""
    return load_into(suite.base(), open_model(str(folder))).eval()


def filled(suite: Suite, state: Mapping[str, Tensor]) -> nn.Module:
    """The suite's network with a merge's weights."""
    return load_into(suite.base(), open_model(dict(state))).eval()


def trained(seed: int) -> str:
    """The step that trains experts."""
    return f"experts @{seed}"


def experts(needs: Mapping[str, Path], seed: int) -> dict[str, Path]:
    """Task → its expert's folder, in that of the step that trained them."""
    folder = needs[trained(seed)]
    found = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return {task: folder / own for task, own in found.items()}


def on_task(network: nn.Module, task: Task, heads: Mapping[str, Path]) -> nn.Module:
    """A body with a task's head, which is that of its expert."""
    own = heads[task.name] if task.head is not None else None
    return with_head(network, task, own, own=False, where="the model")


class Ensemble(nn.Module):
    """Several bodies asked at once, each through the task's head: the mean of their probabilities.

    Outputs are logarithms of the mean, so that losses and metrics take them as logits; numbers of a
    regression are averaged as they are.

    Args:
        bodies: of the members.
        task: what they are asked.
        heads: folder of each task's head.
    """

    def __init__(self, bodies: Sequence[nn.Module], task: Task, heads: Mapping[str, Path]) -> None:
        super().__init__()
        self.members = nn.ModuleList([on_task(each, task, heads) for each in bodies])
        self.headed, self.numbers = task.head is not None, isinstance(task.loss, SquaredError)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = [_logits(member(*args, **kwargs)) for member in self.members]
        if self.numbers:
            found = torch.stack(outputs).mean(0)
        else:
            logs = torch.stack([each.float().log_softmax(-1) for each in outputs])
            found = logs.logsumexp(0) - torch.tensor(float(len(outputs))).log()
        return found if self.headed else {"logits": found}


def _logits(given: Any) -> Tensor:
    return given if isinstance(given, Tensor) else given["logits"]


def said(network: nn.Module, task: Task, rows: Sequence[int]) -> list[int]:
    """The classes that a network (with the task's head) finds for some test examples."""
    batch: Batch = task.split("test").batch(rows)
    with torch.no_grad():
        return _logits(task.outputs(network.eval(), batch)).argmax(-1).tolist()
