"""A run that dies at any operation on files leaves the target absent, whole or as it was, and is continued.

Points of a run at which it touches a file are tried in turn, writes torn in two included: every one of them
in `make chaos`, every third here.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import crashing
import pytest
import torch
from safetensors.torch import save_file

import plait
from plait.engine import _merge, _publish, _work, build_plan
from plait.errors import InputError
from plait.methods import Method, Sums
from plait.recipe import build_recipe

STEP = 1 if os.environ.get("PLAIT_CHAOS") else 3


def write(folder: Path, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    tensors = {f"layers.{i}.w": torch.randn(8, 6, generator=generator) for i in range(3)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"num_hidden_layers": 3}')
    (folder / "tokenizer.json").write_text("{}")
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [write(folder / name, seed) for seed, name in enumerate(("base", "a", "b"))]


def merge(models: list[str], out: Path, method: str = "ties", **options: bool) -> None:
    """TIES in its paper's conventions: a stage over the whole model, then the tensors, in two shards."""
    chosen = plait.RunOptions(threads=1, max_shard_size=500, **options)
    plait.merge(models[1:], base=models[0], method=method, out=out, options=chosen)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def journalled(out: Path) -> tuple[set[str], set[str]]:
    """Tensors and stages whose lines in the journal are whole."""
    journal = out.parent / f".{out.name}.plait" / "journal.jsonl"
    if not journal.exists():
        return set(), set()
    lines = [line for line in journal.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    entries = [json.loads(line) for line in lines]
    return {e["tensor"] for e in entries if "tensor" in e}, {e["stage"] for e in entries if "stage" in e}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[str]]:
    """Tensors and stages that this process computes."""
    tensors: list[str] = []
    stages: list[str] = []
    finish_tensor, finish_stage = _work.Work.finish_tensor, _work.Work.finish_stage

    def noted_tensor(work: _work.Work, name: str, digest: str) -> None:
        tensors.append(name)
        finish_tensor(work, name, digest)

    def noted_stage(work: _work.Work, name: str, stats: object) -> None:
        stages.append(name)
        finish_stage(work, name, stats)

    monkeypatch.setattr(_work.Work, "finish_tensor", noted_tensor)
    monkeypatch.setattr(_work.Work, "finish_stage", noted_stage)
    return tensors, stages


def deaths(
    place: Path, work: Callable[[], object], prepare: Callable[[], object], step: int = STEP
) -> Iterator[int]:
    """Points at which a run can die, after it died there; each with what `prepare` makes first."""
    point = 1 - step
    while True:
        point += step
        for path in list(place.iterdir()):
            shutil.rmtree(path)
        prepare()
        if not crashing.dies_at(point, place, work):
            break
        yield point
    assert point > 30


def test_a_new_output_is_absent_or_whole_and_resumes_without_repeating_work(models, tmp_path, computed):
    whole, place = tmp_path / "whole", tmp_path / "place"
    merge(models, whole)
    place.mkdir()
    out = place / "out"
    tensors, stages = computed
    for point in deaths(place, lambda: merge(models, out), lambda: None):
        assert not out.exists() or content(out) == content(whole), point
        done, known = journalled(out)
        tensors.clear()
        stages.clear()
        merge(models, out, resume=True)
        assert content(out) == content(whole), point
        assert [path.name for path in place.iterdir()] == ["out"], point
        assert not done & set(tensors), point
        assert not known & set(stages), point


@pytest.mark.parametrize("in_one_step", [True, False], ids=["exchange", "two renames"])
def test_an_old_output_is_never_lost_and_comes_back_by_itself(models, tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(_publish, "exchange", lambda one, other: False)
    old, new, place = tmp_path / "old", tmp_path / "new", tmp_path / "place"
    merge(models, old, method="model_soup")
    merge(models, new)
    place.mkdir()
    out, absent = place / "out", 0
    versions = (content(old), content(new))
    # The moment between two renames is one point, which steps could pass over.
    step = STEP if in_one_step else 1
    run, prepare = partial(merge, models, out, overwrite=True), partial(shutil.copytree, old, out)
    for point in deaths(place, run, prepare, step):
        absent += not out.exists()
        assert not out.exists() or content(out) in versions, point
        with pytest.raises(InputError, match="not empty"):
            merge(models, out)
        assert content(out) in versions, point
        merge(models, out, overwrite=True, resume=True)
        assert content(out) == versions[1], point
        assert [path.name for path in place.iterdir()] == ["out"], point
    assert absent == 0 if in_one_step else absent > 0


def interrupted(models: list[str], out: Path, stop_after: int) -> Path:
    """A run into `out` that stopped after some tensors; its journal."""
    count = 0

    class Stop(Exception):
        pass

    finish = _work.Work.finish_tensor

    def counted(work: _work.Work, name: str, digest: str) -> None:
        nonlocal count
        finish(work, name, digest)
        count += 1
        if count == stop_after:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_work.Work, "finish_tensor", counted)
        with pytest.raises(Stop):
            merge(models, out)
    return out.parent / f".{out.name}.plait" / "journal.jsonl"


def test_a_journal_that_is_cut_or_damaged_anywhere_is_continued(models, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    merge(models, whole)
    journal = interrupted(models, out, 2)
    kept, saved = tmp_path / "kept", journal.read_bytes()
    shutil.copytree(journal.parent, kept)
    variants = [saved[:length] for length in range(0, len(saved), 7)]
    variants += [
        saved[:-40] + bytes(40),
        saved + b"\xff\xfe\n",
        saved + b"[]\n",
        saved.replace(b"tensor", b"x"),
    ]
    for variant in variants:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(kept, journal.parent, dirs_exist_ok=True)
        journal.write_bytes(variant)
        merge(models, out, resume=True)
        assert content(out) == content(whole)


def test_bytes_that_a_power_cut_took_are_computed_again(models, tmp_path, computed):
    whole, out = tmp_path / "whole", tmp_path / "out"
    merge(models, whole)
    journal = interrupted(models, out, 2)
    first, second, *_ = sorted(journalled(out)[0])  # another thread may have finished a third
    for path in (journal.parent / "out").glob("*.safetensors"):
        data = path.read_bytes()
        place = data.find(plait.open(whole)[first].read_flat(0, 48).numpy().tobytes())
        if place >= 0:
            path.write_bytes(data[:place] + bytes(192) + data[place + 192 :])
    computed[0].clear()
    merge(models, out, resume=True)
    assert content(out) == content(whole)
    assert first in computed[0]
    assert second not in computed[0]


def test_resume_takes_other_threads_and_memory(models, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    merge(models, whole)
    interrupted(models, out, 2)
    options = plait.RunOptions(threads=3, memory=5000, max_shard_size=500, resume=True)
    plait.merge(models[1:], base=models[0], method="ties", out=out, options=options)
    assert content(out) == content(whole)


def changed_weights(models: list[str]) -> None:
    path = Path(models[1], "model.safetensors")
    path.write_bytes(path.read_bytes())


def changed_config(models: list[str]) -> None:
    Path(models[0], "config.json").write_text('{"num_hidden_layers": 3, "vocab_size": 9}')


def changed_file_beside(models: list[str]) -> None:
    Path(models[0], "tokenizer.json").write_text('{"other": 1}')


@pytest.mark.parametrize("change", [changed_weights, changed_config, changed_file_beside])
def test_inputs_that_changed_are_not_continued_from_and_not_up_to_date(tmp_path, change):
    models = [write(tmp_path / name, seed) for seed, name in enumerate(("base", "a", "b"))]
    out, done = tmp_path / "out", tmp_path / "done"
    merge(models, done)
    journal = interrupted(models, out, 2)
    before = content(journal.parent)
    change(models)
    with pytest.raises(InputError, match="other inputs"):
        merge(models, out, resume=True)
    assert content(journal.parent) == before
    assert not out.exists()
    merge(models, out)
    assert plait.verify(out).ok
    plan = json.loads((done / "plait.json").read_text())["plan"]
    merge(models, done, overwrite=True, if_changed=True)
    assert json.loads((done / "plait.json").read_text())["plan"] != plan


def test_another_recipe_and_another_version_are_not_continued(models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(models, out, 2)
    with pytest.raises(InputError, match="another recipe"):
        merge(models, out, method="dare_ties", resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(plait, "__version__", "0.0.0")
        with pytest.raises(InputError, match="another version"):
            merge(models, out, resume=True)
    with monkeypatch.context() as patch:
        patch.setattr(_merge, "run_identity", lambda plan: {"plan": plan.digest, "torch": "1.0"})
        with pytest.raises(InputError, match="other libraries"):
            merge(models, out, resume=True)
    merge(models, out, resume=True)
    assert plait.verify(out).ok


def test_models_in_memory_count_by_their_values(tmp_path):
    out = tmp_path / "out"
    options = plait.RunOptions(if_changed=True, overwrite=True)
    for value, changed in ((1.0, True), (1.0, False), (2.0, True)):
        live = {name: {"w": torch.full((4, 4), value)} for name in "ab"}
        stamp = (out / "plait.json").stat().st_ino if out.exists() else None
        plait.merge(live, out=out, options=options)
        assert ((out / "plait.json").stat().st_ino != stamp) == changed


def test_a_function_counts_by_its_code(tmp_path):
    out = tmp_path / "out"
    options = plait.RunOptions(if_changed=True, overwrite=True)
    live = {name: {"w": torch.full((4, 4), 2.0)} for name in "ab"}
    plait.merge(live, method=lambda models, base: models[0], out=out, options=options)
    plait.merge(live, method=lambda models, base: models[0] * 3, out=out, options=options)
    assert plait.open(out)["w"].read_flat(0, 1).item() == 6.0


def test_a_function_counts_by_what_it_closes_over():
    def digest(factor, *, default=1.0):
        def method(models, base, also=default):
            return models[0] * factor * also

        live = {name: {"w": torch.full((4, 4), 2.0)} for name in "ab"}
        return build_plan(build_recipe(live, method=method)).digest

    assert digest(2.0) == digest(2.0)
    assert digest(2.0) != digest(3.0)
    assert digest(2.0) != digest(2.0, default=2.0)
    assert digest(torch.ones(3)) == digest(torch.ones(3))
    assert digest(torch.ones(3)) != digest(torch.zeros(3))
    assert digest({"a": [1, math.sqrt]}) != digest({"a": [1, math.exp]})


def test_a_method_counts_by_its_stages():
    def digest(factor):
        method = Method(
            "own", "own", "nobody", lambda c: c.models[0] * c.stat("whole")[0],
            stages=lambda settings: [
                Sums("whole", lambda c: [c.models[0]], lambda sums, settings: {"whole": [sums[0] * factor]})
            ],
        )  # fmt: skip
        live = {name: {"w": torch.full((4, 4), 2.0)} for name in "ab"}
        return build_plan(replace(build_recipe(live, method=method.combine), method=method)).digest

    assert digest(1.0) == digest(1.0)
    assert digest(1.0) != digest(2.0)


def test_a_run_that_was_done_when_it_was_killed_needs_no_second_one(models, tmp_path, computed):
    out = tmp_path / "out"
    merge(models, out)
    (tmp_path / ".out.plait").mkdir()
    computed[0].clear()
    merge(models, out, resume=True)
    assert computed[0] == []
    assert not (tmp_path / ".out.plait").exists()


def test_an_up_to_date_output_with_missing_or_cut_files_is_made_anew(models, tmp_path):
    out = tmp_path / "out"
    merge(models, out)
    whole = content(out)
    for name in ("config.json", next(name for name in whole if name.endswith(".safetensors"))):
        (out / name).unlink()
        merge(models, out, overwrite=True, if_changed=True)
        assert content(out) == whole
        (out / name).write_bytes(whole[name][:-1])
        if name.endswith(".safetensors"):
            merge(models, out, overwrite=True, if_changed=True)
            assert content(out) == whole
        else:
            (out / name).write_bytes(whole[name])
