"""For any checkpoints, method and options: how a run is done changes no byte, and no tensor is lost."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import plait
from plait.methods import METHODS

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn)
OTHERS = (torch.int64, torch.uint8, torch.bool)
SHAPES = ((), (0,), (1,), (7,), (1, 9), (9, 1), (5, 6), (0, 4), (3, 2, 5), (40, 130))
#: Options by which methods of one kind differ; the method takes those that it has.
OPTIONS: dict[str, st.SearchStrategy[Any]] = {
    "density": st.sampled_from((0.0, 0.3, 0.5, 1.0)),
    "weight": st.sampled_from((-0.5, 0.3, 1.0, 2.0)),
    "scope": st.sampled_from(("row", "tensor", "model")),
    "ties": st.sampled_from(("keep", "lowest_index")),
    "rescale": st.sampled_from(("none", "probability", "l1")),
    "normalize": st.booleans(),
}


@dataclass(frozen=True)
class Case:
    """One merge."""

    method: str
    conventions: str
    given: dict[str, Any]
    models: int
    tensors: dict[str, tuple[tuple[int, ...], torch.dtype]]
    exclude: list[str]
    seed: int

    def write(self, root: Path) -> tuple[list[str], dict[str, str]]:
        names = [f"m{i}" for i in range(self.models)]
        for number, name in enumerate(["base", *names]):
            (root / name).mkdir()
            generator = torch.Generator().manual_seed(self.seed + number)
            tensors = {
                key: (torch.randn(shape, generator=generator) * 4)
                .round()
                .div(4 if t.is_floating_point else 1)
                .to(t)
                for key, (shape, t) in self.tensors.items()
            }
            save_file(tensors, root / name / "model.safetensors", {"format": "pt"})
        base = {} if METHODS[self.method].base == "unused" else {"base": str(root / "base")}
        return [str(root / name) for name in names], base

    def run(self, models: list[str], base: dict[str, str], out: Path, options: plait.RunOptions) -> Path:
        given = {**self.given, "exclude": self.exclude, "conventions": self.conventions}
        plait.merge(models, method=self.method, out=out, options=options, **base, **given)
        return out


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(sorted(METHODS)))
    method = METHODS[name]
    own = {option.name: option for option in method.options}
    chosen = {}
    for key, values in OPTIONS.items():
        if key in own and draw(st.booleans()):
            value = draw(values)
            option = own[key]
            if (not option.choices or value in option.choices) and not (name == "linear" and key == "weight"):
                chosen[key] = value
    for key, option in own.items():
        if option.default_for("paper") is None and not option.optional:
            chosen[key] = 0.25
    count = draw(st.integers(method.min_models, min(method.max_models or 3, 3)))
    kinds = st.sampled_from(FLOATS) | st.sampled_from(OTHERS)
    tensors = draw(
        st.dictionaries(
            st.sampled_from(
                [f"layers.{i}.{part}" for i in range(3) for part in ("w", "b")] + ["embed", "head"]
            ),
            st.tuples(st.sampled_from(SHAPES), kinds),
            min_size=2,
            max_size=6,
        )
    )
    exclude = (
        ["layers.1.*"] if draw(st.booleans()) and any(not n.startswith("layers.1") for n in tensors) else []
    )
    conventions = draw(st.sampled_from(("paper", "mergekit")))
    return Case(name, conventions, chosen, count, tensors, exclude, draw(st.integers(0, 1000)))


def same_bytes(a: Path, b: Path) -> bool:
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(), threads=st.sampled_from((1, 2, 3)), backwards=st.booleans())
def test_bytes_do_not_depend_on_how_a_run_is_done_and_no_tensor_is_lost(case, threads, backwards):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models, base = case.write(root)
        one = case.run(models, base, root / "one", plait.RunOptions(threads=1, memory=512 * 10**6))
        order = models[::-1] if backwards and METHODS[case.method].symmetric else models
        other = case.run(order, base, root / "other", plait.RunOptions(threads=threads, memory=4 * 10**9))
        assert same_bytes(one, other)
        written = load_file(one / "model.safetensors")
        known = json.loads((one / "plait.json").read_text())
        assert set(written) == set(known["tensors"])
        assert set(case.tensors) == set(written) | set(known["excluded"])
        assert not set(written) & set(known["excluded"])
        lead = load_file(Path(base.get("base", models[0])) / "model.safetensors")
        for name, (shape, dtype) in case.tensors.items():
            if name in written:
                assert tuple(written[name].shape) == shape
                assert written[name].dtype == dtype
                copied = not dtype.is_floating_point
                assert known["tensors"][name]["how"] == ("copy" if copied else "merge")
                assert not copied or torch.equal(written[name], lead[name])
