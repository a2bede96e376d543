"""Ways that train: alternating with merging, distillation, concatenated representations, a zoo."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import small_study
import torch
from safetensors.torch import load_file
from small_study import step
from torch import nn
from torch.nn import functional as F

import plait
from plait.errors import InputError
from plait.study import load_study, run_study
from plait.study._at import made, trained
from plait.study._distillation import DistillationLoss
from plait.study._probe import probed
from plait.study._results import _curves
from plait.study.ways._zoo import drawn
from plait.tasks import TASK, Batch, CrossEntropy, NextToken, SquaredError, Task, mixture

SETTINGS = "{backend: sequential, optimizer: sgd, steps: 12, batch_size: 120, lr: 0.1, weight_decay: 0}"
STUDY = f"""
study: ways
suite: suite.yaml
experts: {SETTINGS}
bootstrap: 0
ways:
  one round: {{alternate: linear, rounds: 1}}
  average: {{merge: linear}}
  alternating: {{alternate: linear, rounds: 12}}
  of experts: {{distill: experts, temperature: 2, settings: {{optimizer: adamw, lr: 0.01, steps: 60}}}}
  of ensemble: {{distill: ensemble, alpha: 1, settings: {{optimizer: adamw, lr: 0.01, steps: 60}}}}
  side by side: {{concatenate: experts}}
  zoo: {{zoo: 2, settings: {{optimizer: adamw, lr: 0.01, steps: 40}}}}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ways")
    return small_study.ran(folder, STUDY)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = plait.open(str(folder))
    return {name: found[name].read().double() for name in found}


def tasks(folder: Path) -> Iterator[Task]:
    yield from load_study(folder / "study.yaml").suite.tasks


# ---- alternating


def descend(network: nn.Module, gradients: Iterable[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.sub_(gradient, alpha=0.1)


def test_one_round_of_alternating_is_the_merge_of_the_experts(ran: Path) -> None:
    one, two = (
        weights(step(ran, "one-round-@0") / "model"),
        weights(step(ran, "average-@0") / "model"),
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_rounds_of_one_full_step_are_gradient_descent_on_the_mean_loss(ran: Path) -> None:
    """ATM, proposition 1: with α = 1 a round of one full-batch step is a step on the mean of the losses."""
    body, known = small_study.network().double(), list(tasks(ran))
    heads = [torch.nn.Linear(16, 3).double() for _ in known]
    for head, task in zip(heads, known, strict=True):
        assert task.head is not None
        head.load_state_dict({n: t.double() for n, t in task.head.state_dict().items()})
    batches = [task.split("train").batch(range(120)) for task in known]
    for _ in range(12):
        losses = [
            F.cross_entropy(head(body(batch["input"].double())), batch["label"])
            for head, batch in zip(heads, batches, strict=True)
        ]
        shared = torch.autograd.grad(sum(losses) / 3, list(body.parameters()), retain_graph=True)
        own = [
            torch.autograd.grad(loss, list(head.parameters()), retain_graph=True)
            for loss, head in zip(losses, heads, strict=True)
        ]
        descend(body, shared)
        for head, gradients in zip(heads, own, strict=True):
            descend(head, gradients)
    found = weights(step(ran, "alternating-@0") / "model")
    for name, wanted in body.state_dict().items():
        torch.testing.assert_close(found[name], wanted, atol=1e-6, rtol=1e-5)


def test_alternating_takes_the_steps_that_the_experts_took(ran: Path) -> None:
    lines = (step(ran, "alternating-@0") / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [r["step"] for r in records if r["member"] == "second" and "loss" in r]
    assert steps == list(range(1, 13))


def test_curves_of_ways_are_told_from_those_of_experts_and_students_losses_from_all(ran: Path) -> None:
    study = load_study(ran / "study.yaml")
    steps = [trained(0), *(made(way, 0) for way in study.ways)]
    found = _curves(study, 0, {name: step(ran, name) for name in steps})
    names = [curve.member for curve in found]
    assert len(set(names)) == len(names)
    assert {"first", "alternating: first", "of experts"} <= set(names)
    kinds = {curve.member: curve.kind for curve in found}
    assert kinds["of experts"] == "loss in “of experts”"
    assert kinds["first"] == kinds["alternating: first"] == "loss"


def test_alternating_goes_on_after_a_kill_with_the_round_it_was_in(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from plait.study.ways import _alternating

    path, calls, whole = small_study.write(tmp_path, STUDY), [0], _alternating.fit

    def killed(*given: object, **more: object) -> object:
        calls[0] += 1
        if calls[0] == 7:  # the first way has one round, so it is the sixth of the other
            raise InputError("killed")
        return whole(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(_alternating, "fit", killed)
        with pytest.raises(InputError, match="step `alternating @0` failed: killed"):
            run_study(path, tmp_path / "out")
        run_study(path, tmp_path / "out", resume=True)
    assert calls[0] == 7 + 7
    one, two = (
        weights(step(ran, "alternating-@0") / "model"),
        weights(step(tmp_path, "alternating-@0") / "model"),
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


# ---- distillation


class Fixed(nn.Module):
    """A teacher that knows its answers by heart."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.answers[given[:, 0].long()]


def two_tasks() -> tuple[Task, Task, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = np.arange(8, dtype=np.float32)[:, None].repeat(4, 1)
    one = Task("one", {"train": (x, rng.integers(0, 3, 8))})
    two = Task("two", {"train": (x + 0.5, rng.integers(0, 3, 8))})
    return one, two, torch.from_numpy(rng.normal(size=(2, 8, 3)) * 3)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.5), (4.0, 0.9), (20.0, 1.0), (2.0, 0.0)])
def test_the_loss_is_hinton_s_for_each_task_s_own_teacher(temperature: float, alpha: float) -> None:
    one, two, said = two_tasks()
    loss = DistillationLoss(
        CrossEntropy(), [one, two], [Fixed(said[0]), Fixed(said[1])], temperature, alpha, False
    )
    batch = mixture([one, two]).split("train").batch([1, 9, 4, 15])
    logits = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values, counts = loss(logits, batch)
    for place in range(4):
        teacher = said[int(batch[TASK][place])][int(batch["input"][place, 0])].numpy()
        soft = np.exp(teacher / temperature) / np.exp(teacher / temperature).sum()
        student = logits[place].numpy()
        log = student / temperature - np.log(np.exp(student / temperature).sum())
        hard = -(student[batch["label"][place]] - np.log(np.exp(student).sum()))
        wanted = alpha * temperature**2 * -(soft * log).sum() + (1 - alpha) * hard
        assert values[place].item() == pytest.approx(wanted, rel=1e-5)
    assert counts.tolist() == [1, 1, 1, 1]


def soft_gradient(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    one, _, _ = two_tasks()
    loss = DistillationLoss(CrossEntropy(), [one], [Fixed(teacher)], temperature, 1.0, False)
    batch: Batch = {**one.split("train").batch(range(8)), TASK: torch.zeros(8, dtype=torch.long)}
    own = student.clone().requires_grad_()
    loss(own, batch)[0].sum().backward()
    assert own.grad is not None
    return own.grad


def test_a_student_that_says_the_same_learns_nothing_more() -> None:
    said = two_tasks()[2][0]
    assert soft_gradient(said, said, 3.0).abs().max() < 1e-6


def test_at_a_high_temperature_logits_are_matched() -> None:
    """Hinton et al., equation 4: the gradient tends to (z − v) / N, here with the T² that the loss brings."""
    said = two_tasks()[2]
    student, teacher = (each - each.mean(1, keepdim=True) for each in said)
    wanted = (student - teacher) / 3
    torch.testing.assert_close(soft_gradient(student, teacher, 500.0), wanted, atol=0.02, rtol=0.02)


def test_numbers_and_next_tokens_are_distilled_too() -> None:
    numbers = Task("n", {"train": (np.zeros((4, 2), np.float32), np.ones(4))}, loss=SquaredError())
    loss = DistillationLoss(SquaredError(), [numbers], [Fixed(torch.full((1, 1), 3.0))], 2.0, 0.25, False)
    batch = {**numbers.split("train").batch([0, 1]), TASK: torch.zeros(2, dtype=torch.long)}
    assert loss(torch.zeros(2, 1), batch)[0].tolist() == pytest.approx([0.25 * 9 + 0.75 * 1] * 2)

    labels = torch.tensor([[5, 1, -100, 2]])
    ids = {
        "input": torch.zeros(1, 4, dtype=torch.long),
        "labels": labels,
        TASK: torch.zeros(1, dtype=torch.long),
    }
    words = Task("w", {"train": (np.zeros((1, 4)), np.zeros(1))}, loss=NextToken())
    teacher, student = torch.randn(2, 1, 4, 6, generator=torch.Generator().manual_seed(0))
    values, counts = DistillationLoss(NextToken(), [words], [Fixed(teacher)], 1.0, 1.0, False)(student, ids)
    parts = -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)[0]
    assert values.item() == pytest.approx((parts[0] + parts[2]).item(), rel=1e-5)
    assert counts.item() == 2


@pytest.mark.parametrize("name", ["experts", "ensemble"])
def test_a_student_answers_as_its_teacher_does(ran: Path, name: str) -> None:
    student, index = step(ran, f"of-{name}-@0") / "model", experts(ran)
    body = network(student)
    for task in tasks(ran):
        batch = task.split("test").batch(range(50))
        own = body(batch["input"].double()) @ head(student / task.name).T + head(student / task.name, "bias")
        asked = [index[task.name]] if name == "experts" else list(index.values())
        weight, bias = head(index[task.name]), head(index[task.name], "bias")
        said = [(network(one)(batch["input"].double()) @ weight.T + bias).softmax(-1) for one in asked]
        teacher = torch.stack(said).mean(0)
        assert (own.argmax(-1) == teacher.argmax(-1)).double().mean() >= 0.75


def experts(folder: Path) -> dict[str, Path]:
    index = json.loads((step(folder, "experts-@0") / "models.json").read_text())
    return {task: step(folder, "experts-@0") / own for task, own in index.items()}


def network(folder: Path) -> nn.Module:
    body = small_study.network().double()
    body.load_state_dict(weights(folder))
    return body


def head(folder: Path, name: str = "weight") -> torch.Tensor:
    return load_file(folder / "head.safetensors")[name].double()


# ---- concatenated representations


def test_concatenated_features_are_read_by_the_best_linear_head(ran: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    task = next(each for each in tasks(ran) if each.name == "second")
    found = {split: task.split(split).batch(range(len(task.split(split)))) for split in ("train", "test")}
    blocks = {"train": [], "test": []}
    for own in experts(ran).values():
        features = {
            split: network(own)(batch["input"].double()).detach().numpy() for split, batch in found.items()
        }
        scale = np.sqrt((features["train"] ** 2).mean())
        for split in blocks:
            blocks[split].append(features[split] / scale)
    side = {split: np.concatenate(each, 1) for split, each in blocks.items()}
    # scikit-learn has C · Σ loss + ‖w‖² / 2, so that a ridge r of the mean loss over n is C = 1 / (n r).
    model = LogisticRegression(C=1 / (120 * 1e-3), max_iter=5000, tol=1e-8)
    model.fit(side["train"], found["train"]["label"].numpy())
    wanted = model.predict(side["test"]) == found["test"]["label"].numpy()
    with np.load(step(ran, "score-side-by-side-@0") / "numbers.npz") as numbers:
        assert (numbers["second"][:, 0] == wanted).mean() > 0.97
    held = load_file(step(ran, "side-by-side-@0") / "head-1.safetensors")
    assert np.abs(held["weight"].numpy() - model.coef_).max() < 1e-2


def test_a_probe_of_more_features_is_no_worse_on_what_it_learned() -> None:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 8, generator=rng), torch.randint(0, 3, (60,), generator=rng)

    def loss(features: torch.Tensor) -> float:
        with torch.no_grad():
            return F.cross_entropy(probed(features, y, 3, 1e-6, classes=True)(features), y).item()

    assert loss(x) <= loss(x[:, :4]) + 1e-6
    # The same features twice are no more than once (but for the ridge).
    assert loss(torch.cat([x, x], 1)) == pytest.approx(loss(x), abs=1e-3)


def test_a_probe_of_numbers_is_ridge_regression() -> None:
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 5)), rng.normal(size=(50, 2)) + 3
    wanted = Ridge(alpha=0.3 * 50).fit(x, y)
    found = probed(torch.from_numpy(x), torch.from_numpy(y), 2, 0.3, classes=False)
    np.testing.assert_allclose(found.weight.detach().numpy(), wanted.coef_, atol=1e-5)
    np.testing.assert_allclose(found.bias.detach().numpy(), wanted.intercept_, atol=1e-5)


# ---- the zoo


def test_each_network_of_a_zoo_learns_the_newest_task_and_some_before(ran: Path) -> None:
    learned = json.loads((step(ran, "zoo-@0") / "learned.json").read_text())
    assert [each[0] for each in learned] == ["first", "second", "third"]
    assert [len(each) for each in learned] == [1, 2, 2]
    assert all(len(set(each)) == len(each) for each in learned)
    assert learned[2][1] in ("first", "second")


def test_curves_of_a_zoo_are_named_once_by_their_way(ran: Path) -> None:
    page = (ran / "out" / "report" / "report.html").read_text()
    assert all(f"zoo: member {number}" in page for number in (1, 2, 3))
    assert "zoo: zoo" not in page


def test_a_zoo_answers_with_the_mean_of_those_that_learned_the_task(ran: Path) -> None:
    place = step(ran, "zoo-@0")
    learned = json.loads((place / "learned.json").read_text())
    task = next(each for each in tasks(ran) if each.name == "first")
    batch = task.split("test").batch(range(50))
    found = []
    for number, names in enumerate(learned):
        if "first" in names:
            own = place / f"member-{number}" / "model"
            features = network(own)(batch["input"].double())
            found.append(F.linear(features, head(own / "first"), head(own / "first", "bias")))
    assert len(found) >= 2
    wanted = torch.stack([each.softmax(-1) for each in found]).mean(0).argmax(-1) == batch["label"]
    with np.load(step(ran, "score-zoo-@0") / "numbers.npz") as numbers:
        assert numbers["first"][:, 0].tolist() == wanted.double().tolist()


def test_hard_tasks_are_drawn_more_often() -> None:
    losses = {"easy": 0.5, "fair": 1.0, "hard": 3.0}
    mean = 1.5
    raw = np.exp([(loss - mean) / mean for loss in losses.values()])
    counts = dict.fromkeys(losses, 0)
    for seed in range(4000):
        counts[drawn(losses, 1, seed=[seed])[0]] += 1
    np.testing.assert_allclose(np.array(list(counts.values())) / 4000, raw / raw.sum(), atol=0.03)


def test_a_draw_takes_no_more_than_there_are() -> None:
    assert drawn({}, 3, seed=[0]) == []
    assert drawn({"a": 1.0}, 0, seed=[0]) == []
    assert sorted(drawn({"a": 0.0, "b": 0.0}, 5, seed=[0])) == ["a", "b"]


# ---- the base


def test_a_study_trains_its_base(tmp_path: Path) -> None:
    base = "base: {train: joint, tasks: [first, second], settings: {optimizer: adamw, lr: 0.01, steps: 50}}\n"
    ways = "ways:\n  average: {merge: linear}\n"
    text = STUDY[: STUDY.index("ways:\n")] + base + ways
    run_study(small_study.write(tmp_path, text), tmp_path / "out")
    found, start = weights(step(tmp_path, "base") / "model"), small_study.network().state_dict()
    assert not torch.allclose(found["0.weight"], start["0.weight"].double(), atol=1e-3)
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("steps: 50", "steps: 51"))
    again = run_study(path, tmp_path / "out").ran
    assert {"base", "experts @0", "average @0"} <= set(again)


def test_a_study_takes_another_checkpoint_as_its_base(ran: Path, tmp_path: Path) -> None:
    other = step(ran, "average-@0") / "model"
    text = STUDY[: STUDY.index("ways:\n")] + f"base: {other}\nways:\n  average: {{merge: linear}}\n"
    run_study(small_study.write(tmp_path, text), tmp_path / "out")
    one, two = weights(step(tmp_path, "base") / "model"), weights(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds: 12", "rounds: 13", "12 steps can't be shared by 13 rounds"),
        ("rounds: 12", "rounds: 0", "must be at least 1"),
        ("alternate: linear, rounds: 12", "alternate: linaer", "no method `linaer`"),
        ("alternate: linear, rounds: 12", "alternate: linear, options: {lamda: 1}", "no option `lamda`"),
        ("distill: experts,", "distill: parrots,", "experts or ensemble"),
        ("temperature: 2", "temperature: 0", "must be above 0"),
        ("alpha: 1", "alpha: 1.5", "must be at most 1"),
        ("concatenate: experts", "concatenate: experts, ridge: 0", "must be above 0"),
        ("zoo: 2", "zoo: 0", "must be at least 1"),
        (
            "zoo: 2, settings: {optimizer: adamw",
            "zoo: 2, settings: {optimiser: adamw",
            "no setting `optimiser`",
        ),
        ("zoo: 2,", "zoos: 2,", "needs exactly one of"),
        ("bootstrap: 0", "base: nowhere\nbootstrap: 0", "nowhere"),
        ("bootstrap: 0", "base: {train: joint, tasks: [forth]}\nbootstrap: 0", "no task `forth`"),
        ("bootstrap: 0", "base: {train: solo}\nbootstrap: 0", "base"),
    ],
)
def test_faulty_ways_are_refused_before_the_first_step(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in STUDY
    with pytest.raises(InputError, match=said):
        run_study(small_study.write(tmp_path, STUDY.replace(old, new)), tmp_path / "out")
    assert not (tmp_path / "out").exists()
