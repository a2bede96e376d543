"""One step for many members, against PyTorch's optimizers one member at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from plait.fleet._update import Kind, Optimizer, Rates, _shares

MEMBERS = 4
#: Each member's own: lr, decay, beta1, beta2, eps, momentum, clip (of the mean gradient's norm).
SETTINGS = np.array(
    [
        [1e-2, 0.1, 0.9, 0.999, 1e-8, 0.9, np.inf],
        [3e-2, 0.0, 0.8, 0.99, 1e-6, 0.0, 1.5],
        [1e-3, 0.3, 0.0, 0.9, 1e-3, 0.5, 0.2],
        [5e-2, 0.02, 0.95, 0.0, 1e-8, 0.99, 100.0],
    ]
)
WEIGHT = np.array([1.0, 8.0, 32.0, 5.0])
SHAPES = ((3, 5), (5,), (), (2, 3, 2), (1, 1))
#: Twenty steps of float32 differ by some roundings of 6e-8 each; float64 by as many of 1e-16.
CLOSE = {torch.float32: {"rtol": 2e-5, "atol": 2e-6}, torch.float64: {"rtol": 1e-12, "atol": 1e-14}}


def rates(step: int, *, members: int = MEMBERS, active: Sequence[bool] | None = None) -> Rates:
    lr, decay, beta1, beta2, eps, momentum, clip = SETTINGS[:members].T
    return Rates(
        weight=WEIGHT[:members],
        lr=lr / step,
        decay=decay,
        beta1=beta1,
        beta2=beta2,
        eps=eps,
        momentum=momentum,
        clip=clip,
        step=np.full(members, float(step)),
        active=np.ones(members, dtype=bool) if active is None else np.array(active),
    )


def tensors(shapes: Sequence[tuple[int, ...]], seed: int, dtype: torch.dtype, members: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(members, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [each.to(dtype) for each in drawn]


def alone(kind: str, k: int, start: list[Tensor], decays: Sequence[bool], nesterov: bool) -> Any:
    """Member k's own parameters, and PyTorch's optimizer of them."""
    own = [torch.nn.Parameter(p[k].clone()) for p in start]
    lr, decay, beta1, beta2, eps, momentum, _ = (float(value) for value in SETTINGS[k])
    groups = [
        {"params": [p for p, d in zip(own, decays, strict=True) if d == wanted], "weight_decay": value}
        for wanted, value in ((True, decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if kind == "adamw":
        return own, torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, foreach=False)
    momentum = momentum if kind == "momentum" else 0.0
    return own, torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, foreach=False)


def check(
    kind: str,
    dtype: torch.dtype,
    *,
    compiled: bool,
    nesterov: bool = False,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    members: int = MEMBERS,
    steps: int = 20,
) -> None:
    """Stacked members after some steps are what PyTorch makes of each."""
    parameters = tensors(shapes, 0, dtype, members)
    decays = [len(shape) > 1 for shape in shapes]
    singles = [alone(kind, k, parameters, decays, nesterov) for k in range(members)]
    name: Kind = "adamw" if kind == "adamw" else "sgd"
    stacked = Optimizer(name, parameters, decays, momentum=kind == "momentum", nesterov=nesterov)
    assert stacked._compiled is not None
    if not compiled:
        stacked._compiled = None
    for step in range(1, steps + 1):
        gradients = tensors(shapes, step, dtype, members)
        norms, taken = stacked.step(gradients, rates(step, members=members))
        assert taken.all()
        for k, (own, optimizer) in enumerate(singles):
            for p, g in zip(own, gradients, strict=True):
                p.grad = g[k] / WEIGHT[k]
            norm = torch.nn.utils.clip_grad_norm_(own, float(SETTINGS[k, -1]), foreach=False)
            assert norms[k] == pytest.approx(float(norm), rel=1e-5)
            for group in optimizer.param_groups:
                group["lr"] = float(SETTINGS[k, 0]) / step
            optimizer.step()
    for k, (own, _) in enumerate(singles):
        for stack, p in zip(parameters, own, strict=True):
            torch.testing.assert_close(stack[k], p.detach(), **CLOSE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "tensors"])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "momentum"])
def test_every_member_is_what_pytorch_makes_of_it_alone(kind, compiled, dtype):
    check(kind, dtype, compiled=compiled)


def test_nesterov_is_pytorchs_where_there_is_a_momentum(monkeypatch):
    monkeypatch.setitem(globals(), "SETTINGS", SETTINGS[[0, 2, 3, 0]])  # PyTorch refuses it without momentum
    for compiled in (True, False):
        check("momentum", torch.float64, compiled=compiled, nesterov=True)


@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4),
    members=st.integers(1, MEMBERS),
    kind=st.sampled_from(["adamw", "sgd", "momentum"]),
    compiled=st.booleans(),
)
def test_any_shapes(shapes, members, kind, compiled):
    check(kind, torch.float64, compiled=compiled, shapes=shapes, members=members, steps=3)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "momentum"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_and_tensor_steps_are_one_formula(kind, dtype):
    made = []
    for compiled in (True, False):
        parameters = tensors(SHAPES, 0, dtype, MEMBERS)
        decays = [len(shape) > 1 for shape in SHAPES]
        optimizer = Optimizer(
            "adamw" if kind == "adamw" else "sgd", parameters, decays, momentum=kind == "momentum"
        )
        if not compiled:
            optimizer._compiled = None
        for step in range(1, 6):
            optimizer.step(tensors(SHAPES, step, dtype, MEMBERS), rates(step))
        made.append(parameters + [each for moment in optimizer.moments for each in moment])
    assert len(made[0]) == len(SHAPES) * {"adamw": 3, "sgd": 1, "momentum": 2}[kind]
    close = {torch.float32: 1e-6, torch.float64: 1e-14}[dtype]
    for one, two in zip(*made, strict=True):
        torch.testing.assert_close(one, two, rtol=close, atol=close)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "tensors"])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "momentum"])
def test_a_gradient_that_is_not_finite_leaves_its_member_untouched_and_no_other(kind, compiled, bad):
    def after(wrong: bool) -> tuple[list[Tensor], np.ndarray, np.ndarray]:
        parameters = tensors(SHAPES, 0, torch.float32, MEMBERS)
        optimizer = Optimizer(
            "adamw" if kind == "adamw" else "sgd",
            parameters,
            [True] * len(SHAPES),
            momentum=kind == "momentum",
        )
        if not compiled:
            optimizer._compiled = None
        optimizer.step(tensors(SHAPES, 1, torch.float32, MEMBERS), rates(1))
        before = [each.clone() for each in held(optimizer)]
        gradients = tensors(SHAPES, 2, torch.float32, MEMBERS)
        if wrong:
            gradients[3][2, 1, 0, 1] = bad
        norms, taken = optimizer.step(gradients, rates(2))
        if wrong:
            assert all(torch.equal(now[2], old[2]) for now, old in zip(held(optimizer), before, strict=True))
        return held(optimizer), norms, taken

    def held(optimizer: Optimizer) -> list[Tensor]:
        return optimizer.parameters + [each for moment in optimizer.moments for each in moment]

    (fine, norms, took), (broken, other_norms, taken) = after(False), after(True)
    assert took.all()
    assert taken.tolist() == [True, True, False, True]
    assert not np.isfinite(other_norms[2])
    others = [0, 1, 3]
    assert np.array_equal(norms[others], other_norms[others])
    assert all(torch.equal(one[others], two[others]) for one, two in zip(fine, broken, strict=True))


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "tensors"])
def test_who_is_not_active_takes_no_step(compiled):
    parameters = tensors(SHAPES, 0, torch.float64, MEMBERS)
    before = [p.clone() for p in parameters]
    optimizer = Optimizer("adamw", parameters, [True] * len(SHAPES))
    if not compiled:
        optimizer._compiled = None
    active = [True, False, True, False]
    _, taken = optimizer.step(tensors(SHAPES, 1, torch.float64, MEMBERS), rates(1, active=active))
    assert taken.tolist() == active
    for now, old in zip(parameters, before, strict=True):
        moved = (now != old).reshape(MEMBERS, -1).all(1)
        assert moved.tolist() == active


def test_a_clip_makes_the_mean_gradients_norm_what_it_says():
    shapes = ((40,), (7, 3))
    parameters = tensors(shapes, 0, torch.float64, MEMBERS)
    before = [p.clone() for p in parameters]
    gradients = tensors(shapes, 1, torch.float64, MEMBERS)
    plain = rates(1)
    bare = Rates(**{**vars(plain), "decay": np.zeros(MEMBERS), "lr": np.ones(MEMBERS)})
    norms, _ = Optimizer("sgd", parameters, [True, True]).step(gradients, bare)
    steps = torch.cat([(old - now).flatten(1) for old, now in zip(before, parameters, strict=True)], 1)
    lengths = steps.norm(dim=1).numpy()
    assert norms == pytest.approx(
        torch.cat([g.flatten(1) for g in gradients], 1).norm(dim=1).numpy() / WEIGHT
    )
    assert lengths == pytest.approx(np.minimum(norms, plain.clip), rel=1e-5)
    assert (lengths < norms * 0.99).tolist() == [False, False, True, False]


def test_threads_change_no_bit():
    made = []
    for threads in (1, 2):
        shapes = ((300, 200), (7,), (33, 11))
        parameters = tensors(shapes, 0, torch.float32, MEMBERS)
        optimizer = Optimizer("adamw", parameters, [True, False, True], threads=threads)
        assert (optimizer._compiled.pool is not None) == (threads > 1)
        for step in (1, 2):
            optimizer.step(tensors(shapes, step, torch.float32, MEMBERS), rates(step))
        made.append(parameters)
    assert all(torch.equal(one, two) for one, two in zip(*made, strict=True))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 5))
def test_threads_share_all_pieces_and_none_twice(pieces, threads):
    shares = _shares(np.array(pieces, dtype=np.int64), threads)
    taken = [piece for start, stop in shares for piece in range(start, stop)]
    assert taken == list(range(len(pieces)))
    assert len(shares) <= threads


#: Of whole vectors, as PyTorch's `add` rounds once more in what is left over of narrow types.
WHOLE = ((4, 16), (64,), (2, 32), (128, 1), (192,))
#: Types of their tensors, in turns.
MIXED = [
    (torch.bfloat16, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float64, torch.float32),
    (torch.float32, torch.float64),
    (torch.bfloat16,),
    (torch.float16, torch.bfloat16, torch.float64),
]


@pytest.mark.parametrize("types", MIXED)
@pytest.mark.parametrize("kind", ["adamw", "sgd", "momentum"])
def test_parameters_of_several_types_step_as_pytorchs_do(kind, types, monkeypatch):
    """Narrow types nearly always to the last bit, as PyTorch rounds after each operation."""
    settings = SETTINGS.copy()
    settings[:, 4] = 1e-4  # float16 would make 0 of less, and PyTorch divide by it
    settings[1] = settings[0]  # a decay of 0 is left out by PyTorch
    settings[1, -1] = 0.5
    monkeypatch.setitem(globals(), "SETTINGS", settings)
    dtypes = [types[i % len(types)] for i in range(len(WHOLE))]

    def drawn(seed: int) -> list[Tensor]:
        exact = tensors(WHOLE, seed, torch.float64, MEMBERS)
        return [each.to(dtype) for each, dtype in zip(exact, dtypes, strict=True)]

    parameters, decays = drawn(0), [len(shape) > 1 for shape in WHOLE]
    singles = [alone(kind, k, parameters, decays, False) for k in range(MEMBERS)]
    stacked = Optimizer(
        "adamw" if kind == "adamw" else "sgd", parameters, decays, momentum=kind == "momentum"
    )
    assert stacked._compiled is None
    for step in range(1, 21):
        gradients = drawn(step)
        norms, taken = stacked.step(gradients, rates(step))
        assert taken.all()
        for k, (own, optimizer) in enumerate(singles):
            for p, g in zip(own, gradients, strict=True):
                p.grad = g[k] / WEIGHT[k]
            norm = torch.nn.utils.get_total_norm([p.grad for p in own], foreach=False).item()
            assert norms[k] == pytest.approx(norm, rel=1e-6)
            if norm > SETTINGS[k, -1]:
                for p in own:
                    p.grad *= SETTINGS[k, -1] / (norms[k] + 1e-6)
            for group in optimizer.param_groups:
                group["lr"] = float(SETTINGS[k, 0]) / step
            optimizer.step()
    for k, (own, optimizer) in enumerate(singles):
        for i, p in enumerate(own):
            held = [parameters[i], *(moment[i] for moment in stacked.moments)]
            keys = {"adamw": ["exp_avg", "exp_avg_sq"], "momentum": ["momentum_buffer"], "sgd": []}[kind]
            for found, wanted in zip(held, [p.detach(), *(optimizer.state[p][x] for x in keys)], strict=True):
                if p.dtype in CLOSE:
                    torch.testing.assert_close(found[k], wanted, **CLOSE[p.dtype])
                else:  # float32's last bit decides where two neighbours are equally near
                    assert (found[k] == wanted).double().mean() > 0.97
                    ulp = torch.finfo(p.dtype).eps
                    torch.testing.assert_close(found[k], wanted, rtol=2 * ulp, atol=ulp)
