"""How much work a request is: the multiplications that it takes, counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from plait.study.federated._local import Local
from plait.tasks import Task, at_rest

#: Examples that are looked at; their mean counts, since texts are of unequal length.
_ROWS = 8
#: A backward pass takes twice what a forward pass takes.
_STEP = 3


def forward_work(task: Task, body: nn.Module) -> float:
    """Floating-point operations of one example's way through body and head."""
    network, examples = task.with_body(body), task.split("train")
    rows = range(min(_ROWS, len(examples)))
    counter = FlopCounterMode(display=False)
    with at_rest(network), counter:
        task.outputs(network, examples.batch(rows))
    return max(counter.get_total_flops() / len(rows), 1.0)


def work_of(
    tasks: Sequence[str], forward: Mapping[str, float], local: Local, probe_every: int | None = None
) -> float:
    """The work of a request; 1 is what it is on average for one of the suite's tasks alone.

    A batch of several tasks goes through the body once, and each example through its own task's head. A
    probe takes each task's gradient, the losses before it, and all losses again after each task's step.

    Args:
        tasks: that a model learns together.
        forward: every task of the suite → its forward work.
        local: how clients train.
        probe_every: of how many local batches one is probed; None for no probes.
    """
    shares = local.shares(len(tasks))
    batch = sum(share * forward[task] for task, share in zip(tasks, shares, strict=True))
    probes = 0 if probe_every is None else local.steps // probe_every
    alone = local.batch_size * sum(forward.values()) / len(forward)
    return batch * (local.steps * _STEP + probes * (_STEP + len(tasks))) / (alone * local.steps * _STEP)
