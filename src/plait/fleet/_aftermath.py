"""What follows from members' steps and ends: records, validations, failures, callbacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from plait.errors import InputError
from plait.fleet._adapter import put
from plait.fleet._due import Part
from plait.fleet._records import Records
from plait.fleet._saving import Saving
from plait.fleet._signals import cuts, undisturbed
from plait.fleet._trainee import Trainee
from plait.fleet._turn import of_members
from plait.fleet._validate import better, counts, validate
from plait.fleet._warnings import warn

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class Aftermath:
    """Does the parts of `Due`, each once, also if a fit is cut off in one and the next goes on.

    A part stays in the queue until it is done: what it changes, its leaving, and the parts that follow from
    it are one. Only then may what it hands out (a record, a warning) raise.

    Args:
        fleet: whose parts they are.
        records: where its records go.
        saving: for what was trained if nobody is left.
    """

    def __init__(self, fleet: Fleet, records: Records, saving: Saving) -> None:
        self.fleet, self.roster, self.records, self.saving = fleet, fleet._roster, records, saving
        self.due = fleet._due
        self._models: dict[str, nn.Module] = {}

    def drain(self) -> None:
        """Do all parts, and those that follow from them."""
        while self.due.parts:
            self.due.parts[0](self)

    def add_told(self, hook: str, *arguments: Any) -> None:
        """Callbacks are to be told of something."""
        self.due.parts.append(_told(hook, *arguments))

    def add_end(self, trainee: Trainee) -> None:
        """A member has ended."""
        self.due.parts.append(partial(Aftermath.end, trainee=trainee))

    def _done(self, *then: Part) -> None:
        """The first part is done; these follow from it."""
        parts = self.due.parts
        if not then:
            parts.popleft()
            return
        with undisturbed():
            parts.popleft()
            parts.extendleft(reversed(then))

    # ---- parts

    def account(self, *, trainee: Trainee, loss: float, norm: float, taken: bool) -> None:
        """Write a step down, validate if it is time, and see whether the member is done."""
        member = trainee.member
        step = trainee.step if taken else trainee.step + 1
        lr = member.learning_rate(step - 1, trainee.steps)
        record = {"member": member.name, "step": step, "loss": loss, "lr": lr, "norm": norm}
        if not taken:
            self._not_taken(trainee, record)
            return
        last = step >= trainee.steps
        then = [partial(Aftermath.write, record=record)] if step % self.fleet.log_every == 0 or last else []
        if any(hasattr(callback, "on_step") for callback in self.fleet.callbacks):
            then += [_told("on_step", self.fleet, record)]
        due = member.evaluate_every and step % member.evaluate_every == 0
        if (due or last) and "validation" in trainee.task.splits:
            then += [partial(Aftermath.validate, trainee=trainee)]
        self._done(*then, *([partial(Aftermath.finish, trainee=trainee)] if last else []))

    def _not_taken(self, trainee: Trainee, record: Mapping[str, Any]) -> None:
        """A member can't go on: its step gave no number."""
        name = trainee.member.name
        if not math.isfinite(record["loss"]) and not counts(trainee, self.fleet[name]):
            hint = "look at its labels, and at what the loss leaves out"
            what = "no example of its step counts: the loss gave each the weight 0"
            self.fail(errors={name: InputError(what, where=f"member `{name}`", hint=hint)})
            return
        part = "gradient" if math.isfinite(record["loss"]) else "loss"
        why = f"its {part} was not finite at step {record['step']}; it keeps the weights before that"
        with undisturbed():
            self.roster.end(name, "failed", why)
            self._done(partial(Aftermath.write, record={**record, "failed": why}))

    def fail(self, *, errors: Mapping[str, Exception], what: str = "a step failed") -> None:
        """Members fail, and the others go on; if none is left, or nothing has been trained yet, all ends."""
        if self._ends_all(errors):
            with undisturbed():  # they stay as they are, to be mended
                self.due.close()
                self._done()
            self._raise(what, errors)
        records, trainees = list[Part](), self.roster.trainees
        with undisturbed():
            for name, error in errors.items():
                told = of_members([name], what, error)
                why = f"{what}: {told}" if told is error else told.what
                self.roster.end(name, "failed", why)
                record = {"member": name, "step": trainees[name].step + 1, "failed": why}
                records.append(partial(Aftermath.write, record=record))
            self._done(*records)

    def _ends_all(self, errors: Mapping[str, Exception]) -> bool:
        trainees = self.roster.trainees
        left = [name for name, t in trainees.items() if t.status != "failed" and name not in errors]
        return self.fleet.round == 0 or not (left or self.roster.waiting)

    def _raise(self, what: str, errors: Mapping[str, Exception]) -> None:
        if self.fleet.round:
            self.saving.save(self.records)
        first = next(iter(errors.values()))
        raise of_members(list(errors), what, first) from first

    def validate(self, *, trainee: Trainee) -> None:
        """A member's validation; it fails if that does."""
        fleet, member, metric = self.fleet, trainee.member, trainee.task.metric
        where = f"member `{member.name}`, task `{trainee.task.name}`"
        try:
            value = validate(self._network(trainee), trainee.task, seed=trainee.data_seed, where=where)
        except Exception as error:
            errors, what = {member.name: error}, "its validation failed"
            if self._ends_all(errors):  # the part stays, to be done once what fails is mended
                self._raise(what, errors)
            self.fail(errors=errors, what=what)
            return
        record = {"member": member.name, "step": trainee.step, "metric": metric.name, "value": value}
        is_better = better(value, trainee.best, metric)
        state = fleet.state(member.name) if is_better and member.keep == "best" else None
        with undisturbed():
            trainee.best, trainee.waited = (value, 0) if is_better else (trainee.best, trainee.waited + 1)
            if state is not None:
                self.roster.kept[member.name] = state
            if member.patience is not None and trainee.waited > member.patience:
                self.roster.end(member.name, "stopped", f"no better validation in {trainee.waited}")
            self.due.validated.append(record)
            self._done(partial(Aftermath.write, record=record), _told("on_evaluate", fleet, record))

    def _network(self, trainee: Trainee) -> nn.Module:
        """The member as it is; PEFT's model of an adapter is kept, as making it takes long."""
        name = trainee.member.name
        if trainee.member.lora is None:
            return self.fleet[name]
        if name not in self._models:
            self._models[name] = self.fleet[name]
        return put(self._models[name], self.fleet.state(name).parameters)

    def finish(self, *, trainee: Trainee) -> None:
        """A member has taken its last step."""
        with undisturbed():
            if trainee.running:
                trainee.status = "finished"
            self._done()

    def end(self, *, trainee: Trainee) -> None:
        """What follows from a member's end."""
        name = trainee.member.name
        then: list[Part] = [_told("on_finish", self.fleet, name), partial(Aftermath.start_after, name=name)]
        if trainee.status == "failed":
            then.insert(0, partial(Aftermath.warn, message=f"member `{name}` failed: {trainee.why}"))
        self._models.pop(name, None)
        with undisturbed():
            if trainee.member.keep == "best" and name in self.roster.kept:
                self.roster.states[name] = self.roster.kept.pop(name)
            self.roster.over.add(name)
            self._done(*then)

    def start_after(self, *, name: str) -> None:
        """Those start that waited for a member."""
        self.roster.start_after(name)
        self._done()

    def warn(self, *, message: str) -> None:
        """Warn of a member."""
        self._done()
        warn(message)

    def write(self, *, record: Mapping[str, Any]) -> None:
        """Put down a record."""
        with undisturbed():
            self.fleet.history.append(dict(record))
            self._done()
        self.records.write(record)

    def tell(self, *, hook: str, arguments: tuple[Any, ...], told: list[object]) -> None:
        """Call a hook of those callbacks that have not been told; one that raises has, but by a signal."""
        for callback in self.fleet.callbacks:
            function = getattr(callback, hook, None)
            if function is None or any(callback is other for other in told):
                continue
            before = cuts()
            try:
                function(*arguments)
            except BaseException:
                if cuts() == before:
                    told.append(callback)
                raise
            told.append(callback)
        self._done()


def _told(hook: str, *arguments: Any) -> Part:
    return partial(Aftermath.tell, hook=hook, arguments=arguments, told=[])
