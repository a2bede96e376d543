"""A fleet's members as trials of an Optuna study, dropped by its pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from plait.errors import InputError, MissingExtra
from plait.fleet._callbacks import Callback

if TYPE_CHECKING:
    from plait.fleet._fleet import Fleet


class OptunaPruning(Callback):
    """Lets a study's pruner decide which members go on.

    Many pruners compare a trial with *completed* ones, and a fleet has none while its members train at once.
    So to the pruner every other member that has reported looks like a completed trial with the values that it
    has reported so far. All that are validated in one round report before any is judged.

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

    def on_start(self, fleet: Fleet) -> None:
        higher = {t.task.metric.higher_is_better for t in fleet._roster.trainees.values()}
        wanted = self._optuna.study.StudyDirection.MAXIMIZE
        if higher != {self.study.direction == wanted}:
            way = "maximize" if True in higher else "minimize"
            raise InputError(
                f"the study goes to {self.study.direction.name.lower()}, the members' metric the other way",
                hint=f'optuna.create_study(direction="{way}")',
            )

    def on_round(self, fleet: Fleet, validated: Sequence[Mapping[str, Any]]) -> None:
        for record in validated:
            self._trial(record["member"]).report(record["value"], record["step"])
        for record in validated:
            name = record["member"]
            trial = self._trial(name)
            frozen = self.study._storage.get_trial(trial._trial_id)
            if fleet.status[name] == "running" and self.study.pruner.prune(_View(self.study, trial), frozen):
                fleet.drop(name, f"pruned by {type(self.study.pruner).__name__} at step {record['step']}")

    def on_finish(self, fleet: Fleet, member: str) -> None:
        trainee, state = fleet._roster.trainees[member], self._optuna.trial.TrialState
        trial = self._trial(member)
        if trainee.status == "failed" or trainee.best is None:
            self.study.tell(trial, state=state.FAIL)
        elif trainee.status == "dropped":
            self.study.tell(trial, state=state.PRUNED)
        else:
            self.study.tell(trial, trainee.best)

    def on_end(self, fleet: Fleet) -> None:
        for member in self.trials.keys() & fleet._roster.never.keys():
            failed = self._optuna.trial.TrialState.FAIL
            self.study.tell(self.trials[member], state=failed, skip_if_finished=True)

    def _trial(self, member: str) -> Any:
        if member not in self.trials:
            self.trials[member] = self.study.ask()
            self.trials[member].set_user_attr("member", member)
        return self.trials[member]


class _View:
    """A study in which every trial but one that has reported counts as completed."""

    def __init__(self, study: Any, trial: Any) -> None:
        self._study, self._number = study, trial.number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[Any]:
        """Trials as Optuna's own method gives them, running ones as if they had ended where they are."""
        from optuna.trial import TrialState, create_trial

        found = []
        for trial in self._study.get_trials(deepcopy=deepcopy):
            shown = trial
            if (
                trial.number != self._number
                and trial.state == TrialState.RUNNING
                and trial.intermediate_values
            ):
                values = trial.intermediate_values
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
            if states is None or shown.state in states:
                found.append(shown)
        return found
