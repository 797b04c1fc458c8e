"""Schedules a study's runs with Optuna: each planned run is one enqueued trial, claimed when there is room.

Only a few runs wait in Optuna's queue, which is filled up as they are claimed: it can be read at any time. What is
written there is known here by its number, and is claimed and told by that: `Study.ask` and `Study.tell` would read what
waits and what a trial has, for twice the time. What is measured by epoch is in MLflow.

One coordinator per study does this, so nothing is claimed twice. The tracker remembers; Optuna schedules: where the
two disagree about a run the tracker is right, and a schedule can be made again from it at any time.

Whatever fails in the database may be called again. A call that failed may have been committed all the same, its answer
lost: so a record here follows what was committed, and after a failure the queue is read before it is used.
"""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from ablation.commands import commands
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun
from ablation.scheduling.storage import explained, open_storage, trials_in, write_note
from ablation.study.conditions import conditions_of
from ablation.study.design import declared_levels
from ablation.study.level_names import NOT_VARIED, level_text

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
        self._storage = study._storage
        self._waiting = _waiting(study)
        self._asked: deque[_Queued] = deque()
        self._trials: dict[str, int] = {}
        """By identity, the IDs of the trials of claimed runs."""
        self._claimed: deque[PlannedRun] = deque()
        self._alike = alike
        self._is_queue_known = True
        self._is_queue_empty = False
        """Whether it has been seen that nobody else has left anything in the queue."""

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
        trial, is_done = self._trials[run.identity], outcome is Outcome.DONE and value is not None
        with explained(self._url):
            if not is_done:
                with suppress(UpdateFinishedTrialError):
                    self._storage.set_trial_user_attr(trial, OUTCOME, outcome.value)
            _end(self._study, trial, value if is_done else None)
        del self._trials[run.identity], self._planned[run.identity]

    def release(self, run: PlannedRun) -> None:
        """Give a claimed run back, for this execution or a later one to claim."""
        with explained(self._url):
            _end(self._study, self._trials[run.identity], None)
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
        while (queued := self._next_queued()) is not None:
            identity = queued.identity
            if identity in self._finished:
                _end(self._study, queued.trial, _value(self._plan, self._finished[identity]))
            elif identity not in self._planned or identity in self._trials:
                _end(self._study, queued.trial, None)
            else:
                self._trials[identity] = queued.trial
                return self._planned[identity]
        return None

    def _next_queued(self) -> "_Queued | None":
        """Take what waits first, or what was asked for in vain; when that was all, what others have put there."""
        while True:
            self._fill_up()
            if self._asked:
                return self._asked.popleft()
            if not self._waiting and not self._is_queue_empty:
                self._waiting, self._is_queue_empty = _waiting(self._study), True
            if not self._waiting:
                return None
            queued = self._waiting.popleft()
            if self._is_taken(queued):
                return queued
            if (run := self._planned.get(queued.identity)) is not None and queued.identity not in self._trials:
                self._due.appendleft(run)

    def _is_taken(self, queued: "_Queued") -> bool:
        """Claim a trial that waits; say whether nobody else has asked for it."""
        try:
            return self._storage.set_trial_state_values(queued.trial, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False

    def _fill_up(self) -> None:
        while self._due and len(self._waiting) < AHEAD:
            run = self._due[0]
            trial = _waiting_trial(self._plan, run, self._distributions)
            number = self._storage.create_new_trial(self._study._study_id, trial)
            self._waiting.append(_Queued(identity=run.identity, trial=number))
            self._due.popleft()
            self._is_queue_empty = False

    def _read_queue(self) -> None:
        """Read what was enqueued and asked for; a trial that was asked for in vain is taken up."""
        claimed = set(self._trials.values())
        running = map(_queued, trials_in(self._study, TrialState.RUNNING))
        self._asked = deque(one for one in running if one.trial not in claimed)
        self._waiting = _waiting(self._study)
        there = {one.identity for one in (*self._asked, *self._waiting)}
        self._due = deque(run for run in self._due if run.identity not in there)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Queued:
    """A trial in Optuna's queue by its ID, and the run that it is of; `None` of what somebody else has put there."""

    identity: str
    trial: int


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
                _end(study, trial._trial_id, _value(plan, finished[run.identity]))
            else:
                _end(study, trial._trial_id, None)
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
    factors, conditions = declared_levels(plan.study), conditions_of(plan.study.get("factors"))
    absent = dict.fromkeys(conditions, (NOT_VARIED,))
    return {
        path: CategoricalDistribution([_choice(level) for level in (*levels, *absent.get(path, ()))])
        for path, levels in factors.items()
    }


def _parameters(plan: Plan, run: PlannedRun) -> dict[str, Any]:
    return {path: _choice(level) for path, level in plan.variant(run.variant).levels.items()}


def _choice(level: Any) -> Any:
    return level_text(level) if isinstance(level, list | tuple) else level


def _waiting(study: optuna.Study) -> deque[_Queued]:
    """Return what waits in Optuna's queue, in its order."""
    return deque(map(_queued, trials_in(study, TrialState.WAITING)))


def _queued(trial: FrozenTrial) -> _Queued:
    return _Queued(identity=str(trial.user_attrs.get(IDENTITY)), trial=trial._trial_id)


def _latest_trials(study: optuna.Study) -> dict[str, FrozenTrial]:
    return {
        trial.user_attrs[IDENTITY]: trial for trial in study.get_trials(deepcopy=False) if IDENTITY in trial.user_attrs
    }


def _end(study: optuna.Study, trial: int, value: float | None) -> None:
    """End a trial with its value, as failed without one; one that has ended before is left as it is."""
    state, values = (TrialState.FAIL, None) if value is None else (TrialState.COMPLETE, [value])
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_state_values(trial, state, values)


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
