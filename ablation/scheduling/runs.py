"""Schedules a study's runs with Optuna: each planned run is one enqueued trial, asked for when there is room.

Only a few runs wait in Optuna's queue, which is filled up as it is asked: at every ask Optuna reads all that wait, and
with hundreds of them that takes longer than all else that is done for a run. What is measured by epoch is in MLflow.

One coordinator per study does this, so nothing is claimed twice. The tracker remembers; Optuna schedules: where the
two disagree about a run the tracker is right, and a schedule can be made again from it at any time.

Whatever fails in the database may be called again. A call that failed may have been committed all the same, its answer
lost: so a record here follows what was committed, and after a failure the queue is read before it is used.
"""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ablation.commands import commands
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun
from ablation.scheduling.storage import explained, open_storage, trials_in, write_note
from ablation.study.design import declared_levels
from ablation.study.level_names import level_text

IDENTITY = "identity"
SEED = "seed"
"""No parameter: a trial has only what its variant is, so that an importance is of factors alone."""
OUTCOME = "outcome"
DISTRIBUTIONS = "distributions"
AHEAD = 4
"""Runs that wait in Optuna's queue at a time."""


class Schedule:
    """The runs of a plan that have no result yet, in plan order; made by `open_schedule`, used by one thread.

    The plan's runs are those that are asked for by now; `extend` takes those of a later look.

    Each method raises StorageUnavailable where the database fails, and can then be called again with the same
    arguments: no run is claimed or told twice and none is lost, whatever had been done before.
    """

    def __init__(
        self,
        url: str,
        study: optuna.Study,
        plan: Plan,
        finished: Mapping[str, RecordedRun],
        *,
        due: Iterable[PlannedRun],
        alike: Callable[[PlannedRun], Hashable],
        note: str | None = None,
    ) -> None:
        self.note = note
        """That Optuna contradicted the tracker, in words, where it did."""
        self._url = url
        self._study = study
        self._plan = plan
        self._finished = finished
        self._planned = {run.identity: run for run in plan.runs_to_train()}
        self._distributions = _distributions(plan)
        self._due = deque(due)
        self._waiting = _waiting(study)
        self._asked: deque[Trial] = deque()
        self._trials: dict[str, Trial] = {}
        self._claimed: deque[PlannedRun] = deque()
        self._alike = alike
        self._is_queue_known = True

    def next_run(self) -> PlannedRun | None:
        """Claim the next run, or return None where all are claimed."""
        with explained(self._url):
            return self._claimed.popleft() if self._claimed else self._claim()

    def next_group(self, limit: int) -> tuple[PlannedRun, ...]:
        """Claim the next run and those that follow it and are alike, at most `limit`; nothing where all are claimed."""
        with explained(self._url):
            while len(self._claimed) < limit and self._are_alike() and (run := self._claim()) is not None:
                self._claimed.append(run)
        group = tuple(itertools.islice(itertools.takewhile(self._is_like_first, self._claimed), limit))
        for _ in group:
            self._claimed.popleft()
        return group

    def tell(self, run: PlannedRun, *, outcome: Outcome, value: float | None) -> None:
        """Record how a claimed run ended, its metric as the value; a trial that has ended before is left as it is."""
        trial = self._trials[run.identity]
        with explained(self._url):
            if outcome is Outcome.DONE and value is not None:
                self._study.tell(trial, value, skip_if_finished=True)
            else:
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr(OUTCOME, outcome.value)
                self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        del self._trials[run.identity], self._planned[run.identity]

    def release(self, run: PlannedRun) -> None:
        """Give a claimed run back, for this execution or a later one to claim."""
        with explained(self._url):
            self._study.tell(self._trials[run.identity], state=TrialState.FAIL, skip_if_finished=True)
        del self._trials[run.identity]
        self._due.appendleft(run)

    def extend(self, runs: Sequence[PlannedRun]) -> None:
        """Have further runs claimed after those that are left: nothing of them is in Optuna yet."""
        new = [run for run in runs if run.identity not in self._planned and run.identity not in self._finished]
        self._planned |= {run.identity: run for run in new}
        self._due.extend(_together(new, self._alike))

    def _are_alike(self) -> bool:
        return all(map(self._is_like_first, self._claimed))

    def _is_like_first(self, run: PlannedRun) -> bool:
        return self._alike(run) == self._alike(self._claimed[0])

    def _claim(self) -> PlannedRun | None:
        if not self._is_queue_known:
            self._read_queue()
        self._is_queue_known = False
        run = self._next_planned()
        self._is_queue_known = True
        return run

    def _next_planned(self) -> PlannedRun | None:
        self._fill_up()
        while self._asked or self._waiting:
            trial = self._asked.popleft() if self._asked else self._study.ask(self._distributions)
            identity = str(trial.user_attrs.get(IDENTITY))
            if identity in self._waiting:
                self._waiting.remove(identity)
            else:  # somebody else has used the queue
                self._waiting = _waiting(self._study)
            if identity in self._finished:
                _tell_finished(self._study, trial.number, self._plan, self._finished[identity])
            elif identity not in self._planned or identity in self._trials:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._trials[identity] = trial
                return self._planned[identity]
            self._fill_up()
        return None

    def _fill_up(self) -> None:
        while self._due and len(self._waiting) < AHEAD:
            self._study.add_trial(_waiting_trial(self._plan, self._due[0], self._distributions))
            self._waiting.add(self._due.popleft().identity)

    def _read_queue(self) -> None:
        """Read what was enqueued and asked for; a trial that was asked for in vain is taken up."""
        claimed = {trial.number for trial in self._trials.values()}
        running = [trial for trial in trials_in(self._study, TrialState.RUNNING) if trial.number not in claimed]
        self._asked = deque(Trial(self._study, trial._trial_id) for trial in running)
        self._waiting = _waiting(self._study)
        queued = self._waiting | {str(trial.user_attrs.get(IDENTITY)) for trial in running}
        self._due = deque(run for run in self._due if run.identity not in queued)


def open_schedule(
    url: str,
    plan: Plan,
    recorded: Sequence[RecordedRun],
    *,
    alike: Callable[[PlannedRun], Hashable] = lambda run: run.identity,
    report: Path | None = None,
) -> Schedule:
    """Open a plan's schedule in Optuna's storage, brought in line with what the tracker has.

    Where Optuna calls a run done with another value than the tracker, or one that the tracker does not have, its study
    is made anew: what has ended cannot be changed there. `alike` gives what runs have in common that one job may train;
    these follow one another. `report` is where the report will be, for whoever reads the trials.

    Raises:
        StorageUnavailable: the storage cannot be opened.
    """
    finished = {run.planned.identity: run for run in recorded if run.outcome is not None}
    with explained(url):
        storage = open_storage(url)
        study = _open_study(storage, plan)
        note = _contradiction(study, plan, finished)
        if note is not None:
            optuna.delete_study(study_name=plan.name, storage=storage)
            study = _open_study(storage, plan)
        write_note(study, _note_text(plan.name, report))
        due = _together(_reconcile(study, plan, finished), alike)
        return Schedule(url, study, plan, finished, due=due, alike=alike, note=note)


def _together(runs: Sequence[PlannedRun], alike: Callable[[PlannedRun], Hashable]) -> list[PlannedRun]:
    """Order runs so that those that are alike follow one another, at the place of the first."""
    groups: dict[Hashable, list[PlannedRun]] = {}
    for run in runs:
        groups.setdefault(alike(run), []).append(run)
    return [run for group in groups.values() for run in group]


def _contradiction(study: optuna.Study, plan: Plan, finished: Mapping[str, RecordedRun]) -> str | None:
    """Say of how many runs Optuna has another value than the tracker, and of the first which; None mostly."""
    names = {run.identity: run.name for run in plan.runs_to_train()}
    told = {
        name: (trial.value, _value(plan, finished[identity]) if identity in finished else None)
        for trial in trials_in(study, TrialState.COMPLETE)
        if (name := names.get(identity := str(trial.user_attrs.get(IDENTITY)))) is not None
    }
    wrong = {name: pair for name, pair in told.items() if pair[0] != pair[1]}
    if not wrong:
        return None
    first, (its, recorded) = next(iter(wrong.items()))
    others = f", and of {len(wrong) - 1} others" if len(wrong) > 1 else ""
    return (
        f"Optuna has {its!r} of {first}{others}, and MLflow {'no result' if recorded is None else repr(recorded)}: "
        "MLflow counts, and Optuna's study was made anew from it"
    )


def _reconcile(study: optuna.Study, plan: Plan, finished: Mapping[str, RecordedRun]) -> list[PlannedRun]:
    """Bring Optuna's trials in line with the results there are; return the runs that have neither one nor a trial."""
    trials = _latest_trials(study)
    due = []
    for run in plan.runs_to_train():
        trial = trials.get(run.identity)
        if trial is not None and trial.state is TrialState.RUNNING:  # its coordinator is gone: this one holds the lock
            if run.identity in finished:
                _tell_finished(study, trial.number, plan, finished[run.identity])
            else:
                study.tell(trial.number, state=TrialState.FAIL)
                due.append(run)
        elif run.identity in finished:
            is_given_back = trial is not None and trial.state is TrialState.FAIL  # though it has ended
            if trial is None or (is_given_back and _value(plan, finished[run.identity]) is not None):
                study.add_trial(_finished_trial(plan, finished[run.identity]))
        elif trial is None or trial.state is not TrialState.WAITING:
            due.append(run)
    return due


def _open_study(storage: RDBStorage, plan: Plan) -> optuna.Study:
    """Load the plan's Optuna study; one whose factors or levels have since changed is made anew.

    Optuna refuses levels added to a categorical parameter, and the finished runs are added again from the tracker. In
    studies of earlier versions the seed was a parameter.
    """
    direction = plan.locked.metric.direction
    wanted = {name: repr(distribution) for name, distribution in _distributions(plan).items()}
    try:
        study = optuna.create_study(
            storage=storage, study_name=plan.name, direction=direction, sampler=optuna.samplers.RandomSampler(seed=0)
        )
    except DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=plan.name, sampler=optuna.samplers.RandomSampler(seed=0))
        if study.user_attrs.get(DISTRIBUTIONS) != wanted:
            optuna.delete_study(study_name=plan.name, storage=storage)
            return _open_study(storage, plan)
    study.set_user_attr(DISTRIBUTIONS, wanted)
    return study


def _note_text(name: str, report: Path | None) -> str:
    where = f"`{report}`, or " if report is not None else ""
    return (
        f"Each trial is one run of the ablation study {name}: a variant with one seed. The best trial is no answer, as "
        f"one seed says little. The answers, over all seeds, are in the report: {where}"
        f"`{commands.shown('summarize', name)}`."
    )


def _distributions(plan: Plan) -> dict[str, BaseDistribution]:
    """Return the parameters of a trial: each factor by its path."""
    factors = declared_levels(plan.study)
    return {path: CategoricalDistribution([_choice(level) for level in levels]) for path, levels in factors.items()}


def _parameters(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    return {path: _choice(level) for path, level in plan.variant(run.variant).levels.items()}


def _choice(level: Any) -> Any:
    return level_text(level) if isinstance(level, list | tuple) else level


def _waiting(study: optuna.Study) -> set[str]:
    """Return the identities of what waits in Optuna's queue, `None` for what somebody else has put there."""
    return {str(trial.user_attrs.get(IDENTITY)) for trial in trials_in(study, TrialState.WAITING)}


def _latest_trials(study: optuna.Study) -> dict[str, FrozenTrial]:
    return {
        trial.user_attrs[IDENTITY]: trial for trial in study.get_trials(deepcopy=False) if IDENTITY in trial.user_attrs
    }


def _tell_finished(study: optuna.Study, number: int, plan: Plan, recorded: RecordedRun) -> None:
    value = _value(plan, recorded)
    if value is None:
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, value)


def _waiting_trial(plan: Plan, run: PlannedRun, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a run as a trial with its parameters: asked for, nothing more of it is left to be written."""
    return create_trial(
        state=TrialState.WAITING,
        params=_parameters(plan, run),
        distributions=distributions,
        user_attrs={IDENTITY: run.identity, SEED: run.seed},
    )


def _finished_trial(plan: Plan, recorded: RecordedRun) -> FrozenTrial:
    value = _value(plan, recorded)
    outcome = recorded.outcome.value if recorded.outcome else None
    run = recorded.planned
    return create_trial(
        state=TrialState.FAIL if value is None else TrialState.COMPLETE,
        value=value,
        params=_parameters(plan, run),
        distributions=_distributions(plan),
        user_attrs={IDENTITY: run.identity, SEED: run.seed, OUTCOME: outcome},
    )


def _value(plan: Plan, recorded: RecordedRun) -> float | None:
    return recorded.metrics.get(plan.locked.metric.name) if recorded.outcome is Outcome.DONE else None
