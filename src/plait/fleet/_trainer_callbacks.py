"""transformers' `TrainerCallback`s in a fleet: each member looks to them like a run of a `Trainer`."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.errors import InputError, MissingExtra
from plait.fleet._callbacks import Callback
from plait.fleet._trainee import Trainee
from plait.fleet._validate import better

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from plait.fleet._fleet import Fleet


class TrainerCallbacks(Callback):
    """Calls transformers' callbacks for every member: begin, step's end, log, evaluation, save and end.

    Metrics are called `eval_` and the task's metric, with underscores; `args.metric_for_best_model` is that.
    Where a callback sets `control.should_training_stop`, its member stops and the others go on. A fleet logs,
    validates and saves when its own settings say so, whatever a control asks for.

    Beginning, evaluation, save and end come with `model`: the member's network as it is at that moment,
    a copy, so that what is done to it does not reach the member. Other events have no `model` (a copy costs
    more than many a step), and none has an `optimizer`, as there may be none for one member alone.

    Args:
        callbacks: one or several, copied for each member, as many count what they see; or a function that
            makes a member's from its name.

    Raises:
        InputError: they are no callbacks of transformers.
        MissingExtra: transformers is not installed.
    """

    def __init__(
        self, callbacks: TrainerCallback | Sequence[TrainerCallback] | Callable[[str], Sequence[Any]]
    ) -> None:
        try:
            from transformers import TrainerCallback
        except ImportError as error:
            raise MissingExtra("transformers", "hf", "calling transformers' callbacks") from error
        given: Any = callbacks
        makes = callable(given) and not isinstance(given, type | TrainerCallback)
        self._given: Any = given if makes else _checked(given)
        self._runs: dict[str, _Run] = {}
        self._kept: dict[str, Any] = {}

    def of(self, member: str) -> list[Any]:
        """A member's own callbacks, to see what they have kept."""
        return self._runs[member].callbacks

    def _run(self, fleet: Fleet, member: str) -> _Run:
        if member not in self._runs:
            given = self._given
            own = _checked(given(member)) if callable(given) else [copy.deepcopy(each) for each in given]
            self._runs[member] = run = _Run(fleet, fleet._roster.trainees[member], own)
            run.call("on_init_end")
            run.show("on_train_begin")
            run.restore(self._kept.pop(member, None))
        return self._runs[member]

    def on_start(self, fleet: Fleet) -> None:
        for member, trainee in fleet._roster.trainees.items():
            if trainee.running:
                self._run(fleet, member)

    def on_step(self, fleet: Fleet, record: Mapping[str, Any]) -> None:
        member = record["member"]
        run = self._run(fleet, member)
        run.state.global_step = record["step"]
        run.state.epoch = run.epochs(record["step"])
        run.call("on_step_begin")
        run.call("on_step_end")
        if run.control.should_log or record["step"] % fleet.log_every == 0 or record["step"] == run.steps:
            logs = {"loss": record["loss"], "grad_norm": record["norm"], "learning_rate": record["lr"]}
            run.log(logs)
        self._stop(fleet, run)

    def on_evaluate(self, fleet: Fleet, record: Mapping[str, Any]) -> None:
        run = self._run(fleet, record["member"])
        metrics = {metric_name(record["metric"]): record["value"], "epoch": run.state.epoch}
        run.log(metrics)
        run.show("on_evaluate", metrics=metrics)
        run.best(record["value"])
        self._stop(fleet, run)

    def on_save(self, fleet: Fleet, folder: Path) -> None:
        for member, trainee in fleet._roster.trainees.items():
            if trainee.running and member in self._runs:
                self._runs[member].show("on_save", checkpoint=str(folder))

    def on_finish(self, fleet: Fleet, member: str) -> None:
        run = self._run(fleet, member)
        run.show("on_train_end")

    def _stop(self, fleet: Fleet, run: _Run) -> None:
        if run.control.should_training_stop and run.trainee.running:
            fleet.stop(run.trainee.member.name, "a callback of transformers")

    def facts(self) -> dict[str, Any]:
        """What callbacks with a state of their own, and the best metric, need to go on."""
        return {
            member: {
                "best": [run.state.best_metric, run.state.best_global_step],
                "callbacks": [each.state() if hasattr(each, "state") else None for each in run.callbacks],
            }
            for member, run in self._runs.items()
        }

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Members' callbacks take theirs up when they are called first."""
        self._kept = dict(facts)


class _Run:
    """What a member's callbacks see: arguments, state and control of its own."""

    def __init__(self, fleet: Fleet, trainee: Trainee, callbacks: list[Any]) -> None:
        from transformers import TrainerControl, TrainerState

        self.fleet, self.trainee, self.callbacks, self.steps = fleet, trainee, callbacks, trainee.steps
        self.args = _arguments(fleet, trainee)
        self.state = TrainerState(
            max_steps=trainee.steps,
            global_step=trainee.step,
            logging_steps=fleet.log_every,
            eval_steps=trainee.member.evaluate_every,
            num_train_epochs=max(round(self.epochs(trainee.steps)), 1),
            train_batch_size=trainee.member.batch_size,
            epoch=self.epochs(trainee.step),
        )
        self.control = TrainerControl()

    def epochs(self, step: int) -> float:
        """Epochs after so many steps."""
        member = self.trainee.member
        return step * member.accumulate / member.batches(len(self.trainee.examples))

    def call(self, event: str, **kwargs: Any) -> None:
        """An event of every callback; one may give back another control."""
        for each in self.callbacks:
            found = getattr(each, event)(self.args, self.state, self.control, **kwargs)
            self.control = self.control if found is None else found

    def show(self, event: str, **kwargs: Any) -> None:
        """An event with `model`, the member's network as it is: a copy, made if a callback looks on."""
        from transformers import TrainerCallback

        inherited = getattr(TrainerCallback, event)
        if any(getattr(type(each), event, None) is not inherited for each in self.callbacks):
            self.call(event, model=self.fleet[self.trainee.member.name], **kwargs)

    def log(self, logs: dict[str, Any]) -> None:
        logs = {"epoch": self.state.epoch, **logs}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control.should_log = False
        self.call("on_log", logs=logs)

    def best(self, value: float) -> None:
        """Keep the best validation, as a `Trainer` does after its evaluation."""
        if better(value, self.state.best_metric, self.trainee.task.metric):
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step

    def restore(self, facts: Mapping[str, Any] | None) -> None:
        """Go on from a save."""
        if facts is None:
            return
        self.state.best_metric, self.state.best_global_step = facts["best"]
        for each, held in zip(self.callbacks, facts["callbacks"], strict=True):
            for name, value in (held or {}).get("attributes", {}).items():
                setattr(each, name, value)


def _checked(callbacks: Any) -> list[Any]:
    """Callbacks of transformers; one alone is a list of one.

    Raises:
        InputError: they are none.
    """
    from transformers import TrainerCallback

    hint = "give instances of transformers.TrainerCallback"
    if isinstance(callbacks, TrainerCallback):
        return [callbacks]
    several = isinstance(callbacks, Iterable) and not isinstance(callbacks, str | type)
    found = list(callbacks) if several else [callbacks]
    for each in found:
        if isinstance(each, type):
            made = f"give one that is made: {each.__name__}(…)"
            raise InputError(f"the callback {each.__name__} is a class", hint=made)
        if not isinstance(each, TrainerCallback):
            raise InputError(f"a {type(each).__name__} is no callback of transformers", hint=hint)
    return found


def metric_name(metric: str) -> str:
    """What a `Trainer` would call a task's metric: `eval_bits_per_byte`."""
    return "eval_" + re.sub(r"\W+", "_", metric)


def _arguments(fleet: Fleet, trainee: Trainee) -> Any:
    """A member's settings as `TrainingArguments`, for callbacks that look at them."""
    from transformers import TrainingArguments

    member, metric = trainee.member, trainee.task.metric
    out = fleet.out if fleet.out is not None else Path(tempfile.gettempdir())
    return TrainingArguments(
        output_dir=str(out / member.name),
        learning_rate=member.lr,
        weight_decay=member.weight_decay,
        per_device_train_batch_size=member.batch_size,
        gradient_accumulation_steps=member.accumulate,
        max_steps=trainee.steps,
        seed=member.seed,
        logging_steps=fleet.log_every,
        eval_strategy="steps" if member.evaluate_every else "no",
        eval_steps=member.evaluate_every or None,
        save_strategy="no",
        metric_for_best_model=metric_name(metric.name),
        greater_is_better=metric.higher_is_better,
        report_to="none",
        use_cpu=fleet.place.device.type == "cpu",
        run_name=member.name,
    )
