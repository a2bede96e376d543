"""Methods of whole matrices in the engine: memory, bytes, resume, and what is a matrix."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import plait
from plait.engine._matrix import Room, as_matrices
from plait.engine._work import Work
from plait.errors import InputError
from plait.methods import Matrix, Method

METHODS = ["tsv", "iso_c", "iso_cts"]
every = pytest.mark.parametrize("method", METHODS)
#: 8 bytes × (base, task vector, one more + 3 of the factorisation, 7 squares of the smaller side)
LARGEST = 8 * (6 * 24 * 16 + 7 * 16 * 16)


def write(folder: Path, seed: int, **changed: torch.Tensor) -> str:
    generator = torch.Generator().manual_seed(seed)
    shapes = {f"layers.{i}.mlp.weight": (24, 16) for i in range(4)}
    shapes |= {"conv.weight": (6, 2, 3, 3), "experts.up": (3, 8, 9), "norm": (16,), "gate": (1, 16)}
    tensors = {key: torch.randn(shape, generator=generator).bfloat16() for key, shape in shapes.items()}
    folder.mkdir(parents=True)
    save_file({**tensors, "steps": torch.tensor([seed]), **changed}, folder / "model.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [write(folder / name, seed) for seed, name in enumerate(("base", "a", "b", "c"))]


def weights(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


def plan(models: list[str], method: str, **options: Any) -> plait.Plan:
    recipe = {"merge": method, "base": models[0], "models": models[1:]}
    return plait.build_plan(plait.load_recipe(recipe)[-1], plait.RunOptions(**options))


@pytest.mark.parametrize(
    ("name", "shape", "seen"),
    [
        ("mlp.weight", (24, 16), (1, 24, 16)),
        ("conv.weight", (6, 2, 3, 3), (1, 6, 18)),
        ("conv1d.weight", (6, 2, 3), (1, 6, 6)),
        ("patch.weight", (6, 2, 2, 3, 3), (1, 6, 36)),
        ("mlp.experts.gate_up_proj", (4, 8, 9), (4, 8, 9)),
        ("block_sparse_moe.input_linear.weight", (4, 8, 9), (4, 8, 9)),
        ("mamba.conv1d.weight", (8, 1, 4), (1, 8, 4)),
        ("pos_embed", (1, 5, 8), None),
        ("experts.gate_up_proj_bias", (4, 8), (1, 4, 8)),
        ("shared_expert_gate.weight", (1, 16), None),
        ("column", (16, 1), None),
        ("norm.weight", (16,), None),
        ("scale", (), None),
        ("empty", (0, 4), None),
        ("empty", (4, 0), None),
    ],
)
def test_what_is_a_matrix_is_seen_from_shape_and_name(name, shape, seen):
    assert as_matrices(name, shape) == seen


@every
def test_bytes_do_not_depend_on_threads_memory_or_order(models, tmp_path, method):
    base, *experts = models
    for threads, memory, order in (
        (1, 10**9, experts),
        (1, LARGEST, experts),
        (2, LARGEST, experts[::-1]),
        (2, 3 * LARGEST, experts),
        (4, 10**9, experts[::-1]),
    ):
        out = tmp_path / f"{threads}-{memory}"
        options = plait.RunOptions(threads=threads, memory=memory)
        assert plait.merge(order, base=base, method=method, out=out, options=options) == out
        assert weights(out) == weights(tmp_path / "1-1000000000")


@every
def test_what_needs_more_than_the_budget_is_refused_before_anything_is_read(models, method, monkeypatch):
    monkeypatch.setattr("plait.checkpoint.FileTensor.read_flat", lambda *_: pytest.fail("it was read"))
    with pytest.raises(InputError) as error:
        plan(models, method, memory=LARGEST - 1)
    assert f"({LARGEST} bytes), and the budget is" in str(error.value)
    assert "raise --memory, or copy it from the base with `keep: [layers.3.mlp.weight]`" in str(error.value)
    assert len(re.findall("must hold matrices of", str(error.value))) == 4
    assert plan(models, method, memory=LARGEST).largest == (LARGEST, "layers.3.mlp.weight")


def test_a_dry_run_says_what_a_tensor_takes(models):
    found = plan(models, "tsv")
    assert f"of which `layers.3.mlp.weight` takes {LARGEST / 1000:.1f} kB" in found.summary()
    told = found.to_dict()
    assert told["held"] == LARGEST
    assert told["tensors"]["experts.up"]["matrices"] == [3, 8, 9]
    assert "matrices" not in told["tensors"]["norm"]
    streamed = plan(models, "task_arithmetic")
    assert streamed.to_dict()["held"] is None
    assert "of which" not in streamed.summary()


def test_all_ways_to_ask_give_the_same(models, tmp_path):
    base, *experts = models
    plait.merge(experts, base=base, method="iso_cts", out=tmp_path / "python", lambda_=0.5)
    plaits = {"merge": "iso_cts", "base": base, "models": experts, "parameters": {"lambda": 0.5}}
    mergekits = {"merge_method": "iso_cts", "base_model": base, "dtype": "bfloat16",
                 "models": [{"model": m} for m in experts], "parameters": {"lambda": 0.5}}  # fmt: skip
    for name, recipe in (("plait", plaits), ("mergekit", mergekits)):
        (tmp_path / f"{name}.yml").write_text(json.dumps(recipe))
        command = f"from plait.cli import main; main(['merge', '{name}.yml', '-o', '{name}'])"
        done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=False, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"iso_cts" in done.stdout
        assert weights(tmp_path / name) == weights(tmp_path / "python")
        assert plait.verify(tmp_path / name).ok
    told = json.loads((tmp_path / "plait" / "plait.json").read_text())
    assert told["reference"] == "arXiv:2502.04959"
    assert told["tensors"]["conv.weight"]["matrices"] == [1, 6, 18]
    assert told["tensors"]["conv.weight"]["options"] == {
        "lambda": 0.5, "matrix": True, "common_space_fraction": 0.8,
    }  # fmt: skip
    assert load_file(tmp_path / "plait" / "model.safetensors")["steps"].tolist() == [0]


@every
def test_an_interrupted_run_is_resumed_to_the_same_bytes(models, tmp_path, monkeypatch, method):
    base, *experts = models
    plait.merge(experts, base=base, method=method, out=tmp_path / "whole")
    finish, done = Work.finish_tensor, list[str]()

    def interrupted(self: Work, name: str, digest: str) -> None:
        finish(self, name, digest)
        done.append(name)
        if len(done) == 2:
            raise KeyboardInterrupt

    def again(self: Work, name: str, digest: str) -> None:
        assert name not in done
        finish(self, name, digest)

    monkeypatch.setattr(Work, "finish_tensor", interrupted)
    options = plait.RunOptions(threads=1)
    with pytest.raises(KeyboardInterrupt):
        plait.merge(experts, base=base, method=method, out=tmp_path / "out", options=options)
    monkeypatch.setattr(Work, "finish_tensor", again)
    options = plait.RunOptions(threads=2, resume=True)
    plait.merge(experts, base=base, method=method, out=tmp_path / "out", options=options)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@every
@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
@pytest.mark.parametrize("who", ["base", "a"])
def test_nan_and_infinity_are_refused_or_spoil_their_matrix_alone(tmp_path, method, value, word, who):
    spoilt = torch.ones(3, 8, 9).bfloat16()
    spoilt[1, 2, 3] = value
    base, *experts = (
        write(tmp_path / name, i, **({"experts.up": spoilt} if name == who else {}))
        for i, name in enumerate(("base", "a", "b"))
    )
    with pytest.raises(InputError, match=f"`experts.up` holds .*{word}") as error:
        plait.merge(experts, base=base, method=method)
    assert str(tmp_path / who) in str(error.value)
    found = plait.merge(experts, base=base, method=method, options=plait.RunOptions(allow_nan=True))
    assert isinstance(found, dict)
    assert [bool(x.isnan().all()) for x in found["experts.up"]] == [False, True, False]
    assert all(bool(x.isfinite().all()) for key, x in found.items() if key != "experts.up")
    assert bool(found["experts.up"][::2].isfinite().all())


def test_room_is_never_given_away_twice_and_comes_back():
    room, taken, most, count = Room(10), [0], [0], threading.Lock()

    def work(size: int) -> None:
        for _ in range(50):
            with room.take(size):
                with count:
                    taken[0] += size
                    most[0] = max(most[0], taken[0])
                with count:
                    taken[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in (1, 3, 7, 10, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert taken == [0]
    assert most[0] <= 10
    with pytest.raises(KeyError), room.take(10):
        raise KeyError
    with room.take(10):
        pass


_MEASURED = """
import sys, torch, plait
def kept(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
folder, rows, cols, method = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
small = [{"w": torch.randn(40, 50)} for _ in range(3)]
plait.merge(small[1:], base=small[0], method=method, out=folder + "/small")
recipe = {"merge": method, "base": folder + "/0", "models": [folder + "/1", folder + "/2"]}
plan = plait.build_plan(plait.load_recipe(recipe)[-1], plait.RunOptions(threads=1))
open("/proc/self/clear_refs", "w").write("5")
before = kept("VmRSS")
plait.run(plan, folder + "/out")
print(plan.largest[0], kept("VmHWM") - before)
"""


@every
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("rows", "cols"), [(900, 900), (400, 2400), (2400, 400)])
def test_a_matrix_takes_no_more_memory_than_the_plan_says(tmp_path, method, rows, cols):
    generator = torch.Generator().manual_seed(0)
    for name in "012":
        (tmp_path / name).mkdir()
        tensors = {"w": torch.randn(rows, cols, generator=generator).bfloat16()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    words = [sys.executable, "-c", _MEASURED, str(tmp_path), str(rows), str(cols), method]
    # what is freed goes back to the system at once, so that the peak is what was in use
    allocator = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=allocator)
    planned, used = map(int, done.stdout.split())
    assert 0.5 * planned < used < planned + 16 * 2**20  # buffers of libraries


def own(merge: Any) -> Method:
    return Method(
        "own", "mine", "me", lambda c: c.base + c.delta[0], base="required",
        matrix=Matrix(merge, lambda settings: settings.numel),
    )  # fmt: skip


def test_a_method_of_ones_own_may_take_matrices():
    base, one = ({"w": torch.full((4, 3), x), "b": torch.full((3,), x)} for x in (1.0, 3.0))
    doubled = own(lambda deltas, settings: 2 * sum(deltas))
    found = plait.merge([one, one], base=base, method=doubled)
    assert isinstance(found, dict)
    assert found["w"].unique().tolist() == [9.0]
    assert found["b"].unique().tolist() == [3.0]
    with pytest.raises(InputError, match=r"gives \[3, 4\] for \[4, 3\]"):
        plait.merge([one], base=base, method=own(lambda deltas, settings: next(iter(deltas)).T))


def test_matrices_of_task_vectors_need_a_base():
    with pytest.raises(ValueError, match="`own` merges matrices' task vectors"):
        replace(own(lambda deltas, settings: sum(deltas)), base="optional")


def test_a_run_knows_methods_apart_by_their_matrix_rule(models):
    digests = set()
    for rule in (lambda d, s: sum(d), lambda d, s: -sum(d)):
        recipe = plait.load_recipe({"merge": "tsv", "base": models[0], "models": models[1:]})[-1]
        digests.add(plait.build_plan(replace(recipe, method=own(rule))).digest)
    assert len(digests) == 2
