"""The forward and backward pass of one member, and of all at once by vmap."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from plait.errors import InputError
from plait.fleet._attention_masks import unconditional
from plait.fleet._batches import Stack
from plait.fleet._dropout import dropout
from plait.fleet._filled_heads import wider
from plait.fleet._heads import classes_of
from plait.fleet._refused import HINT
from plait.fleet._trainee import Tensors, Trainee
from plait.tasks import Batch

#: Gradients of the mean loss (or of the sum, see `Trainee.mean`), sums of losses and of weights, and buffers
#: afterwards; `(members, …)` each.
Found = tuple[list[Tensor], Tensor, Tensor, Tensors]


class Pass:
    """What one step computes for stacked members: a pure function of tensors.

    Args:
        trainees: the members; the first one's network, loss and meeting serve all.
        device: where it runs.
    """

    def __init__(self, trainees: Sequence[Trainee], device: torch.device) -> None:
        first = trainees[0]
        self.task = first.task
        self.mean = first.mean
        self.network, self.classes = widest_network(trainees, device)
        self._left: Tensors = {}
        self._watched()
        #: Whether the network drops anything; True until it has run.
        self.drops = True

    def apart(self) -> Pass:
        """A pass like this one, whose network it alone changes."""
        made = copy.copy(self)
        self._watch.remove()
        try:
            made.network, made._left = copy.deepcopy(self.network), {}
        finally:
            self._watched()
        made._watched()
        return made

    def _watched(self) -> None:
        self._watch = self.network.register_forward_hook(functools.partial(_leave, self._left))

    def __call__(
        self, parameters: Tensors, frozen: Tensors, buffers: Tensors, stack: Stack, keys: Tensor
    ) -> Found:
        """One pass of every member."""

        def one(
            own: Tensors, fixed: Tensors, held: Tensors, batch: Batch, rows: Any, key: Tensor, classes: Any
        ) -> Any:
            def total(trained: Tensors) -> tuple[Tensor, tuple[Tensor, Tensor, Tensors]]:
                return self._total({**fixed, **trained}, held, batch, rows, key, classes)

            gradients, (loss, weight, after) = grad(total, has_aux=True)(own)
            return list(gradients.values()), loss, weight, after

        every = (0, 0, 0, None if stack.shared else 0, _dim(stack.rows), 0, _dim(self.classes))
        arguments = (parameters, frozen, buffers, stack.batch, stack.rows, keys, self.classes)
        try:
            with _no_advice():
                return vmap(one, in_dims=every)(*arguments)
        except InputError:
            raise
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> InputError:
        """What torch.func could not take: the innermost module that was running, and what PyTorch said."""
        names = {id(module): name for name, module in self.network.named_modules()}
        place, trace = "", error.__traceback__
        kind = type(self.network).__name__
        while trace is not None:
            module = trace.tb_frame.f_locals.get("self")
            if id(module) in names:
                place, kind = names[id(module)], type(module).__name__
            trace = trace.tb_next
        said = _told(str(error))
        running = self.network.get_submodule(place)
        if said == _RANDOM and isinstance(running, nn.RNNBase) and running.dropout:
            said = "a recurrent layer's own dropout draws numbers that members would share"
        where = f"module `{place}` ({kind})" if place else f"the network ({kind})"
        return InputError(f"{where} can't be stacked: {said}", hint=HINT)

    def _total(
        self, weights: Tensors, buffers: Tensors, batch: Batch, rows: Any, key: Tensor, classes: Any
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensors]]:
        """What gradients are of, and with it one member's sum of losses, its weight, and its buffers.

        Networks that change buffers change copies, or put new ones.
        """
        after = {name: buffer.clone() for name, buffer in buffers.items()}

        def call(*args: Any, **kwargs: Any) -> Any:
            found = functional_call(self.network, {**weights, **after}, args, kwargs)
            after.update(self._taken(buffers))
            return found

        with dropout(key, plain_attention=True) as mode:
            outputs = self.task.outputs(call, batch)
        self.drops = mode.calls > 0
        if classes is not None:
            outputs = outputs.masked_fill(~classes, -torch.inf)
        values, counts = self.task.loss(outputs, batch)
        if rows is not None:
            values, counts = values * rows.to(values.dtype), counts * rows.to(counts.dtype)
        whole, count = values.sum(), counts.sum()
        return whole / count if self.mean else whole, (whole, count, after)

    def _taken(self, buffers: Tensors) -> Tensors:
        """The buffers that a call left.

        Raises:
            InputError: they are not those that there were before it.
        """
        left = dict(self._left)
        self._left.clear()
        now, before = _kinds(left), _kinds(buffers)
        what = ""
        if changed := sorted(now.keys() ^ before.keys()):
            what = f"it makes or takes away its buffer `{changed[0]}` as it runs"
        elif changed := sorted(name for name, kind in now.items() if kind != before[name]):
            what = f"its buffer `{changed[0]}` changes its shape or type as it runs"
        if what:
            kind = type(self.network).__name__
            raise InputError(f"the network ({kind}) can't be stacked: {what}", hint=HINT)
        return left


def _kinds(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _leave(left: Tensors, network: nn.Module, *_: Any) -> None:
    """Note a network's buffers while they are still in it."""
    left.update(network.named_buffers())


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Without vmap's warnings that it takes members one by one, which ask to file an issue with PyTorch.

    Not by a filter of `warnings`: to change those makes Python forget what it has warned of once.
    """
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    advises = functorch._set_vmap_fallback_warning_enabled
    advises(False)
    try:
        yield
    finally:
        advises(True)


_RANDOM = "it draws random numbers other than dropout's, which members would share"
#: What vmap says of what it can't do, and how to say it to someone who never called it.
_WORDS = {
    "called random operation": _RANDOM,
    "dynamic shape": "how much it computes depends on numbers in a tensor (`x[x != 0]`, `nonzero`)",
    "access data pointer": "it takes the numbers in a tensor out of it (`.tolist()`, `.numpy()`)",
    "data-dependent control flow": "what it does depends on numbers in a tensor (`if x.all():`, `.item()`)",
}


def _told(said: str) -> str:
    """An error of torch.func in a line."""
    known = next((words for part, words in _WORDS.items() if part in said), None)
    first = (said.strip().splitlines() or ["it raised an error"])[0]
    return known or (first if len(first) <= 200 else first[:200].rsplit(" ", 1)[0] + " …")


def _dim(tensor: Tensor | None) -> int | None:
    return None if tensor is None else 0


def widest_network(trainees: Sequence[Trainee], device: torch.device) -> tuple[nn.Module, Tensor | None]:
    """A network with the structure of all, its head as wide as the widest.

    Returns:
        the network, and which outputs each member's head has, `(members, classes)`, if they differ.
    """
    network = unconditional(copy.deepcopy(trainees[0].network).to(device))
    counts = [classes_of(t) for t in trainees]
    if len(set(counts)) == 1:
        return network, None
    network.head = wider(network.get_submodule("head"), max(counts))
    widest = torch.arange(max(counts), device=device)
    return network, widest < torch.tensor(counts, device=device).unsqueeze(1)
