"""Runs end to end: the same bytes always, and bad input or a kill leaves nothing half done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import plait
from plait.errors import InputError, PlaitWarning

CONFIG = {"model_type": "llama", "num_hidden_layers": 3, "tie_word_embeddings": False}


def write(folder: Path, seed: int, *, dtype: torch.dtype = torch.bfloat16, rows: int = 40) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {"model.embed_tokens.weight": torch.randn(rows, 16, generator=generator).to(dtype)}
    for layer in range(3):
        tensors[f"model.layers.{layer}.mlp.weight"] = torch.randn(24, 16, generator=generator).to(dtype)
        tensors[f"model.layers.{layer}.norm.weight"] = torch.randn(16, generator=generator).to(dtype)
    tensors["steps"] = torch.tensor([seed])
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(write(folder / name, seed)) for seed, name in enumerate(("base", "a", "b", "c"))]


def weights(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.safetensors")))


@pytest.mark.parametrize("conventions", ["paper", "mergekit"])
@pytest.mark.parametrize(
    "method", ["linear", "ties", "dare_ties", "della", "breadcrumbs", "sce", "model_stock"]
)
def test_bytes_do_not_depend_on_threads_memory_or_order(models, tmp_path, method, conventions):
    base, *experts = models
    given = {} if method == "linear" else {"base": base}
    first = tmp_path / "first"
    plait.merge(experts, method=method, conventions=conventions, out=first, **given)
    for threads, memory, order in ((1, 4000, experts), (3, 10**9, experts[::-1])):
        out = tmp_path / f"{threads}"
        options = plait.RunOptions(threads=threads, memory=memory)
        plait.merge(order, method=method, conventions=conventions, out=out, options=options, **given)
        assert weights(out) == weights(first)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "slerp", "sce"])
def test_compiled_rules_give_the_bits_of_torch(models, tmp_path, monkeypatch, method):
    base, *experts = models
    given = {"linear": {}, "slerp": {"base": base, "t": 0.4}}.get(method, {"base": base})
    chosen = experts[:1] if method == "slerp" else experts
    expected = plait.merge(chosen, method=method, conventions="mergekit", **given)
    monkeypatch.setattr("plait.engine._plan.COMPILED_FROM", 0)
    monkeypatch.setenv("PLAIT_CACHE", str(tmp_path))
    found = plait.merge(chosen, method=method, conventions="mergekit", **given)
    for name, tensor in expected.items():
        if method in ("linear", "ties"):
            assert torch.equal(found[name], tensor)
        else:  # sums may differ in their last bit
            torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-2)
    assert list((tmp_path / "kernels").glob("rule_*.py"))


def test_integer_buffers_are_copied_from_the_base(models):
    out = plait.merge(models[1:], base=models[0], method="task_arithmetic")
    assert out["steps"].tolist() == [0]


def test_a_finished_output_verifies_and_damage_is_found(models, tmp_path):
    out = tmp_path / "out"
    plait.merge(models[1:], out=out)
    assert plait.verify(out).ok
    path = out / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = plait.verify(out)
    assert not report.ok
    assert len(report.problems) == 1


def test_a_second_run_into_a_full_folder_is_refused(models, tmp_path):
    out = tmp_path / "out"
    plait.merge(models[1:], out=out)
    with pytest.raises(InputError, match="not empty"):
        plait.merge(models[1:], out=out)
    plait.merge(models[1:], out=out, method="model_soup", options=plait.RunOptions(overwrite=True))
    assert json.loads((out / "plait.json").read_text())["method"] == "model_soup"


def test_what_the_cli_prints_as_warnings_python_warns_of():
    whole = {"w": torch.ones(3, 2), "phase": torch.ones(2, dtype=torch.complex64)}
    other = {"w": torch.zeros(3, 2), "phase": torch.zeros(2, dtype=torch.complex64)}
    with pytest.warns(PlaitWarning, match=r"`phase` is a copy of `models\[0\]`"):
        merged = plait.merge([whole, other])
    assert merged["phase"].equal(whole["phase"])
    assert merged["w"].equal(torch.full((3, 2), 0.5))


def test_models_without_names_may_be_listed_in_any_order():
    generator = torch.Generator().manual_seed(0)
    base, *models = [{"w": torch.randn(40, 50, generator=generator)} for _ in range(4)]
    for method, given in (("linear", {}), ("dare_linear", {"base": base, "density": 0.5}),
                          ("della", {"base": base, "density": 0.5})):  # fmt: skip
        first = plait.merge(models, method=method, **given)["w"]
        assert plait.merge(models[::-1], method=method, **given)["w"].equal(first), method


def test_a_base_that_is_not_merged_and_files_that_are_no_weights_are_told(tmp_path):
    folders = [str(write(tmp_path / name, seed)) for seed, name in enumerate("ab")]
    for name in ("consolidated", "head"):  # a task's head is known
        save_file({"x": torch.ones(1)}, tmp_path / "a" / f"{name}.safetensors")
    with pytest.warns(PlaitWarning) as told:
        plait.merge(folders[:1], base=folders[1])
    words = " ".join(str(one.message) for one in told)
    assert "`linear` merges the listed models alone" in words
    assert "not part of its weights: `consolidated.safetensors`" in words
    assert "head.safetensors" not in words


def test_sizes_may_be_words_and_wrong_ones_are_told(models, tmp_path):
    options = plait.RunOptions(memory="64MiB", max_shard_size="2kB")
    plait.merge(models, out=tmp_path / "out", options=options)
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert options.memory == 64 * 2**20
    for wrong in ({"memory": "much"}, {"memory": 0.5}, {"max_shard_size": None}, {"threads": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            plait.RunOptions(**wrong)


def test_layers_of_different_models_are_not_ranked_together(models, tmp_path):
    base, a, b, _ = models
    slices = [{"sources": [{"model": m, "layer_range": span}]} for m, span in ((a, [0, 1]), (b, [1, 3]))]
    recipe = {"merge": "ties", "base": base, "slices": slices}
    with pytest.raises(InputError, match="different models"):
        plait.build_plan(plait.load_recipe(recipe)[-1])
    plan = plait.build_plan(plait.load_recipe({**recipe, "parameters": {"scope": "tensor"}})[-1])
    assert len(plan.outputs) == 8


def test_options_of_the_run_are_not_the_methods(models, tmp_path):
    with pytest.raises(InputError, match=r"options=plait.RunOptions\(overwrite=True\)"):
        plait.merge(models, out=tmp_path / "out", overwrite=True)


def test_overwrite_replaces_models_and_nothing_else(models, tmp_path):
    out = tmp_path / "papers"
    out.mkdir()
    (out / "precious.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds no model \(`precious.txt`\), and would be deleted"):
        plait.merge(models[1:], out=out, method="model_soup", options=plait.RunOptions(overwrite=True))
    assert (out / "precious.txt").read_text() == "years of work"


def test_if_changed_leaves_an_up_to_date_output_alone(models, tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"merge: linear\nmodels: {json.dumps(models[1:])}\n")
    options = plait.RunOptions(if_changed=True, overwrite=True)
    plan = plait.build_plan(plait.load_recipe(recipe)[-1], options)
    assert not plait.run(plan, tmp_path / "out").unchanged
    assert plait.run(plan, tmp_path / "out").unchanged


def test_check_goes_by_content_not_by_time(models, tmp_path):
    copy = tmp_path / "copy"
    write(copy, 1)
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(f"merge: linear\nmodels: [{copy}, {models[2]}]\n")
    digests = []
    for _ in range(2):
        by_time, by_content = (
            plait.build_plan(plait.load_recipe(recipe)[-1], plait.RunOptions(check=check)).digest
            for check in (False, True)
        )
        digests.append((by_time, by_content))
        os.utime(copy / "model.safetensors", (1, 1))
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] == digests[1][1]


def test_nan_is_refused_by_name_and_leaves_nothing(models, tmp_path):
    bad = write(tmp_path / "bad", 9)
    tensors = load_file(bad / "model.safetensors")
    tensors["model.layers.1.mlp.weight"][0, 0] = float("nan")
    save_file(tensors, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"bad: the tensor `model.layers.1.mlp.weight` holds NaN"):
        plait.merge([models[1], str(bad)], out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]
    plait.merge([models[1], str(bad)], out=tmp_path / "out", options=plait.RunOptions(allow_nan=True))


def test_an_output_that_is_an_input_is_refused(models):
    with pytest.raises(InputError, match="one of the inputs"):
        plait.merge(models[1:], out=models[1], options=plait.RunOptions(overwrite=True))


def test_every_problem_is_told_at_once(models, tmp_path):
    other = write(tmp_path / "other", 5, rows=44)
    tensors = load_file(other / "model.safetensors")
    del tensors["model.layers.0.norm.weight"]
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError) as caught:
        plait.merge([models[1], str(other)], out=tmp_path / "out")
    assert "model.embed_tokens.weight" in str(caught.value)
    assert "model.layers.0.norm.weight" in str(caught.value)


def test_excluded_tensors_are_named(models, tmp_path):
    plait.merge(models[1:], exclude="*.norm.weight", out=tmp_path / "out")
    assert len(json.loads((tmp_path / "out" / "plait.json").read_text())["excluded"]) == 3
    assert not any("norm" in name for name in plait.open(tmp_path / "out"))


def test_slices_stack_layers(models, tmp_path):
    recipe = tmp_path / "recipe.yml"
    recipe.write_text(
        f"slices:\n- sources: [{{model: {models[1]}, layer_range: [0, 2]}}]\n"
        f"- sources: [{{model: {models[2]}, layer_range: [1, 3]}}]\nmerge_method: passthrough\n"
    )
    plait.run(plait.build_plan(plait.load_recipe(recipe)[-1]), tmp_path / "out")
    out, a, b = (plait.open(p) for p in (tmp_path / "out", models[1], models[2]))
    sources = [(a, 0), (a, 1), (b, 1), (b, 2)]
    for index, (model, layer) in enumerate(sources):
        found = out[f"model.layers.{index}.mlp.weight"].read()
        assert torch.equal(found, model[f"model.layers.{layer}.mlp.weight"].read())
    assert out.config["num_hidden_layers"] == 4


def test_nested_recipes_run_first(models, tmp_path):
    recipe = {
        "merge": "linear",
        "models": [{"model": {"merge": "linear", "models": models[1:3]}}, models[3]],
    }
    plait.run(plait.build_plan(plait.load_recipe(recipe)[-1]), tmp_path / "out")
    inner = plait.merge(models[1:3])
    expected = plait.merge({"inner": inner, "c": models[3]})
    found = plait.open(tmp_path / "out")
    for name, tensor in expected.items():
        assert torch.equal(found[name].read(), tensor)


def test_a_killed_run_is_resumed_to_the_same_bytes(models, tmp_path):
    plait.merge(models[1:], base=models[0], method="ties", out=tmp_path / "whole")
    script = (
        "import sys, time, plait\n"
        "from plait.engine import _work\n"
        "finish = _work.Work.finish_tensor\n"
        "def slow(self, name, digest):\n"
        "    finish(self, name, digest); print(name, flush=True); time.sleep(0.3)\n"
        "_work.Work.finish_tensor = slow\n"
        "plait.merge(sys.argv[3:], base=sys.argv[2], method='ties', out=sys.argv[1],\n"
        "            options=plait.RunOptions(threads=1))\n"
    )
    out = tmp_path / "out"
    words = [sys.executable, "-c", script, str(out), *models]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    finished = process.stdout.readline().strip()
    with pytest.raises(InputError, match="another run"):
        plait.merge(models[1:], base=models[0], method="ties", out=out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    journal = tmp_path / ".out.plait" / "journal.jsonl"
    assert finished in journal.read_text()
    plait.merge(models[1:], base=models[0], method="ties", out=out, options=plait.RunOptions(resume=True))
    assert weights(out) == weights(tmp_path / "whole")
    assert not (tmp_path / ".out.plait").exists()


def test_what_is_excluded_need_not_be_in_every_model() -> None:
    base = {"w": torch.ones(2, 2), "buffer.position_ids": torch.arange(3)}
    tuned = {"w": torch.zeros(2, 2)}
    found = plait.merge({"a": tuned}, base=base, method="task_arithmetic", exclude="*.position_ids")
    assert list(found) == ["w"]
    assert torch.equal(found["w"], torch.zeros(2, 2))
