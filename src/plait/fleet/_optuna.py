"""A fleet's members as trials of an Optuna study, dropped by its pruner."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plait.errors import InputError, MissingExtra
from plait.fleet._callbacks import Callback

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


#: What a trial's attribute is called that says which folder its fleet trains into.
_FOLDER = "fleet"


class OptunaPruning(Callback):
    """Lets a study's pruner decide which members go on.

    Many pruners compare a trial with *completed* ones, and a fleet has none while its members train at once.
    So to the pruner every other member that has reported looks like a completed trial with the values that it
    has reported so far. All that are validated in one round report before any is judged. A fleet that is
    resumed goes on with its trials if the study is kept in a storage.

    Args:
        study: whose pruner is asked, and which is told how members ended; its direction must fit the metric.
        trials: member → trial that its settings came from; a trial is asked for where there is none.

    Raises:
        InputError: it is no study of one objective.
        MissingExtra: Optuna is not installed.
    """

    def __init__(self, study: Any, trials: Mapping[str, Any] | None = None) -> None:
        try:
            import optuna
        except ImportError as error:
            raise MissingExtra("optuna", "tune", "pruning with Optuna") from error
        if not isinstance(study, optuna.Study):
            hint = "give what optuna.create_study made"
            raise InputError(f"a {type(study).__name__} is no study", hint=hint)
        if len(study.directions) > 1:
            what = f"the study has {len(study.directions)} objectives, a member one metric"
            raise InputError(what, hint='make it with one: optuna.create_study(direction="…")')
        self._optuna: Any = optuna
        self.study: Any = study
        self.trials = dict(trials or {})
        self._told: set[str] = set()
        self._folder: str | None = None

    def on_start(self, fleet: Fleet) -> None:
        higher = {t.task.metric.higher_is_better for t in fleet._roster.trainees.values()}
        wanted = self._optuna.study.StudyDirection.MAXIMIZE
        if higher != {self.study.direction == wanted}:
            way = "maximize" if True in higher else "minimize"
            raise InputError(
                f"the study goes to {self.study.direction.name.lower()}, the members' metric the other way",
                hint=f'optuna.create_study(direction="{way}")',
            )
        self._told = {name for name, t in fleet._roster.trainees.items() if not t.running}
        self._folder = None if fleet.out is None else str(fleet.out.resolve())
        if self._folder is not None:
            self._leave_no_ghosts(self._folder)

    def _leave_no_ghosts(self, folder: str) -> None:
        """Trials that a run into this folder left when it was killed fail: to the pruner they'd be rivals."""
        own = {trial.number for trial in self.trials.values()}
        for trial in self.trials.values():
            if not self._frozen(trial).state.is_finished():
                trial.set_user_attr(_FOLDER, folder)
        for trial in self.study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState.RUNNING,)):
            if trial.user_attrs.get(_FOLDER) == folder and trial.number not in own:
                self.study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def on_round(self, fleet: Fleet, validated: Sequence[Mapping[str, Any]]) -> None:
        for record in validated:
            trial, step = self._trial(record["member"]), record["step"]
            frozen = self._frozen(trial)
            # What a run had reported, or told, after the save that this one goes on from stands.
            if not frozen.state.is_finished() and step not in frozen.intermediate_values:
                trial.report(record["value"], step)
        for record in validated:
            name = record["member"]
            if fleet.status[name] == "running" and self._behind(fleet, self._trial(name), record["step"]):
                fleet.drop(name, f"pruned by {type(self.study.pruner).__name__} at step {record['step']}")

    def _behind(self, fleet: Fleet, trial: Any, step: int) -> bool:
        frozen = self._frozen(trial)
        if frozen.state.is_finished():
            pruned = frozen.state == self._optuna.trial.TrialState.PRUNED
            return pruned and step >= (frozen.last_step or 0)
        trainees = fleet._roster.trainees
        steps = {
            t.number: trainees[n].step for n, t in self.trials.items() if n in trainees.keys() - self._told
        }
        return self.study.pruner.prune(_View(self.study, trial, steps), _until(frozen, step))

    def on_finish(self, fleet: Fleet, member: str) -> None:
        trainee, state = fleet._roster.trainees[member], self._optuna.trial.TrialState
        trial, best = self._trial(member), trainee.best
        self._told.add(member)
        if trainee.status == "failed" or best is None or math.isnan(best):
            self.study.tell(trial, state=state.FAIL, skip_if_finished=True)
        elif trainee.status == "dropped":
            self.study.tell(trial, state=state.PRUNED, skip_if_finished=True)
        else:
            self.study.tell(trial, best, skip_if_finished=True)

    def on_end(self, fleet: Fleet) -> None:
        for member in self.trials.keys() & fleet._roster.never.keys():
            failed = self._optuna.trial.TrialState.FAIL
            self.study.tell(self.trials[member], state=failed, skip_if_finished=True)

    def facts(self) -> dict[str, Any]:
        numbers = {member: trial.number for member, trial in self.trials.items()}
        return {"study": self.study.study_name, "trials": numbers}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Members keep their trials; a study that lived in the memory of another process has them no more."""
        if facts["study"] != self.study.study_name:
            return
        ids = {trial.number: trial._trial_id for trial in self.study.get_trials(deepcopy=False)}
        for member, number in facts["trials"].items():
            if member not in self.trials and number in ids:
                self.trials[member] = self._optuna.trial.Trial(self.study, ids[number])

    def _trial(self, member: str) -> Any:
        if member not in self.trials:
            self.trials[member] = self.study.ask()
            self.trials[member].set_user_attr("member", member)
            if self._folder is not None:
                self.trials[member].set_user_attr(_FOLDER, self._folder)
        return self.trials[member]

    def _frozen(self, trial: Any) -> Any:
        """A trial as the study has it now."""
        return self.study._storage.get_trial(trial._trial_id)


class _View:
    """A study in which every trial but one that has reported counts as completed.

    Args:
        study: it.
        trial: the one.
        steps: trial's number → the step that its member is at, for members that have not ended: what a run
            that was killed had reported after that is yet to come.
    """

    def __init__(self, study: Any, trial: Any, steps: Mapping[int, int]) -> None:
        self._study, self._number, self._steps = study, trial.number, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[Any]:
        """Trials as Optuna's own method gives them, running ones as if they had ended where they are."""
        found = [self._shown(trial) for trial in self._study.get_trials(deepcopy=deepcopy)]
        return [trial for trial in found if states is None or trial.state in states]

    def _shown(self, trial: Any) -> Any:
        from optuna.trial import TrialState, create_trial

        if trial.number in self._steps:
            trial = _until(trial, self._steps[trial.number])
            trial.state = TrialState.RUNNING
        values = trial.intermediate_values
        if trial.number == self._number or trial.state != TrialState.RUNNING or not values:
            return trial
        shown = create_trial(
            state=TrialState.COMPLETE,
            value=values[max(values)],
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=values,
            user_attrs=trial.user_attrs,
            system_attrs=trial.system_attrs,
        )
        shown.number = trial.number
        return shown


def _until(trial: Any, step: int) -> Any:
    """A copy of a trial with what it has reported up to a step."""
    shown = copy.copy(trial)
    shown.intermediate_values = {s: v for s, v in trial.intermediate_values.items() if s <= step}
    return shown
