"""Tunes variants before they are compared: equal budgets, on validation data and seed indices of tuning's own.

Each variant's trials follow one another; variants are tuned side by side, as many as the executor has slots.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from statistics import fmean
from typing import Any

from ablation.coordinator.data import facts_of
from ablation.coordinator.execution import Execution, next_done
from ablation.coordinator.losses import Losses, result_of_lost_worker
from ablation.coordinator.progress import Progress
from ablation.errors import TuningFailed, ValidationMissing
from ablation.executors import NodeLost, WorkerLost
from ablation.records import (
    SIGNS,
    TASKS,
    DeclaredMetric,
    Direction,
    Epoch,
    Outcome,
    PlannedRun,
    RunResult,
    TaskName,
    TunedVariant,
    TuningTrial,
    Variant,
)
from ablation.report.numbers import reported
from ablation.report.prose import more_budget_text
from ablation.scheduling import Suggestion, TuningSchedule, open_tuning
from ablation.stopping import Preempted, stopping
from ablation.storage.run_folder import About, RunFolder
from ablation.study import Study
from ablation.study.search_spaces import FIRST_TUNING_SEED
from ablation.worker import TuningJob, is_whole, objective_curve, run_tuning_job, trial_value

RUN_ID_S = 2.0
"""Seconds that a trial's end waits for the tracker's names of its runs."""


@dataclass(slots=True, kw_only=True)
class _Trial:
    """A trial under way: what is tried, in which slot, and its replicates so far."""

    schedule: TuningSchedule
    suggestion: Suggestion
    variant: Variant
    slot: str
    job: TuningJob | None = None
    folder: RunFolder | None = None
    losses: Losses = field(default_factory=Losses)
    results: list[RunResult] = field(default_factory=list)
    curves: list[tuple[float, ...]] = field(default_factory=list)
    replicates: list[PlannedRun] = field(default_factory=list)
    latest: Epoch | None = None
    """Of the last replicate, as it was when its folder had news last."""


@dataclass(slots=True, kw_only=True)
class VariantTuning:
    """The tuning of a study's variants that have not been tuned yet."""

    study: Study
    execution: Execution
    storage_url: str
    running: dict[Future[RunResult], _Trial] = field(default_factory=dict)
    ended: Counter[Outcome] = field(default_factory=Counter)
    _done: SimpleQueue[Future[RunResult]] = field(default_factory=SimpleQueue)

    def tune(self, targets: Sequence[Variant]) -> Generator[Progress, None, tuple[TunedVariant, ...] | None]:
        """Tune variants named as in the design; yield where it stands.

        No trial is begun once the study's budget is spent; then there is None, and the next execution resumes.

        Raises:
            TuningFailed: no trial of a variant has a value; the error of one is told.
        """
        tuning = self.study.spec.tune
        assert tuning is not None
        self._recover()
        waiting = deque((self._open(variant), variant) for variant in targets)
        found: dict[str, TunedVariant] = {}
        yield self._progress(len(targets))
        budget, begun = self.execution.budget, self.execution.budget.now()
        while waiting or self.running:
            while waiting and not budget.is_gone and (slot := self.execution.slots.first_free()):
                schedule, variant = waiting.popleft()
                suggestion = yield from self.execution.stored(schedule.next_trial)
                if suggestion is None:
                    found[variant.name] = yield from self.execution.stored(partial(self._result, schedule))
                    continue
                self.execution.slots.take(slot)
                self._submit(_Trial(schedule=schedule, suggestion=suggestion, variant=variant, slot=slot))
            if not self.running:
                if waiting and budget.is_gone:
                    yield self._progress(len(targets), note=self._end_for_budget(len(targets), since=begun))
                    return None
                if waiting:
                    yield from self.execution.await_slot()
                continue
            done = next_done(self._done)
            if stopping.is_asked:
                raise KeyboardInterrupt
            self.execution.uploads.check()
            for future in done:
                trial = self.running.pop(future)
                if self._settle(future, trial):
                    continue
                self.execution.slots.give_back(trial.slot)
                yield from self._tell(trial)
                waiting.appendleft((trial.schedule, trial.variant))
                yield self._progress(len(targets), latest=trial)
            yield self._progress(len(targets))
            for note in self.execution.executor.take_notes():
                yield self._progress(len(targets), note=note)
        return tuple(found[variant.name] for variant in targets)

    def _end_for_budget(self, variants: int, *, since: float) -> str:
        """Note that the budget is spent before all variants are tuned, and return that in words."""
        budget, tuning, ended = self.execution.budget, self.study.spec.tune, sum(self.ended.values())
        assert tuning is not None
        left = max(0, variants * tuning.trials * tuning.seeds - ended)
        forecast = (budget.now() - since) / ended * left if ended else None
        out = budget.end(forecast)
        return f"out of budget: it is spent before all variants are tuned; {more_budget_text(out)}"

    def interrupt(self) -> None:
        """Mark what was under way as ended without a result, where the tracker still can."""
        self.execution.executor.stop()
        for trial in self.running.values():
            self.execution.uploads.leave(trial.replicates[-1])

    @property
    def _objective(self) -> tuple[str, Direction]:
        spec = self.study.spec
        return spec.validation_metric or objective_of(spec.metric.name, spec.task, spec.own_metrics)

    def _open(self, variant: Variant) -> TuningSchedule:
        spec, tuning = self.study.spec, self.study.spec.tune
        assert tuning is not None
        objective, direction = self._objective
        looked_at = {name for space in tuning.spaces.values() for name in space.when}
        plain = variant.settings.plain()
        settings = {path: _at(plain, path) for path in {*tuning.spaces, *looked_at}}
        given = {**settings, **variant.levels}
        tried = {path: settings[path] for path, space in tuning.spaces.items() if space.is_drawn(given)}
        start = tried if all(tuning.spaces[path].holds(value) for path, value in tried.items()) else {}
        basis = self._identity(variant, seed=FIRST_TUNING_SEED)
        return open_tuning(
            self.storage_url,
            name=spec.name,
            variant=variant.name,
            tuning=tuning,
            whole=self.study.whole_settings(),
            start=start,
            given=given,
            direction=direction,
            study_seed=spec.study_seed,
            basis=f"{basis}/{objective}/{direction}" if self.study.is_own_training else basis,
        )

    def _identity(self, variant: Variant, *, seed: int) -> str:
        digest = facts_of(variant, self.execution.jobs.datasets).digest
        return self.study.identity(variant, data_digest=digest, seed=seed)

    def _submit(self, trial: _Trial) -> None:
        """Train the trial's next replicate, or take it as it was finished before an interruption."""
        variant = self.study.with_settings(trial.variant, trial.suggestion.settings)
        seed = FIRST_TUNING_SEED + len(trial.results)
        identity = self._identity(variant, seed=seed)
        name = f"tuning/{trial.variant.name}/trial-{trial.suggestion.number}"
        planned = PlannedRun(identity=identity, variant=name, seed=seed)
        folder = trial.folder = self.execution.state.tuning(self.study.name, identity)
        about = {"variant": trial.variant.name, "trial": trial.suggestion.number, "seed": seed}
        self._upload(planned, folder, {**about, **trial.suggestion.settings})
        trial.replicates.append(planned)
        trial.latest = None
        trial.job = TuningJob(
            planned=planned,
            study=self.study.name,
            variant=trial.variant.name,
            settings=variant.settings,
            heldout_split="validation",
            data_folder=self.execution.jobs.data_folder(variant),
            folder=RunFolder(path=self.execution.jobs.below(folder.path)),
            device=trial.slot,
            code=self.study.code,
            code_digest=self.study.code_digest(variant),
            carried_code=self.execution.jobs.carried_code,
            objective=self._objective[0],
            expected_metrics=(self._objective[0],),
            commit=self.execution.jobs.commit,
            cudnn_benchmark=self.execution.jobs.cudnn_benchmark,
            metrics=self.execution.jobs.metrics,
            metric_digest=self.execution.jobs.metric_digest,
            stops_below=trial.suggestion.stops_below,
            is_minimized=SIGNS[self._objective[1]] < 0,
        )
        placeholder: Future[RunResult] = Future()
        self.running[placeholder] = trial
        files = self.execution.jobs.files([trial.job], self.execution.note_change)
        future = self.execution.executor.submit(run_tuning_job, trial.job, files=files)
        self.running[future] = self.running.pop(placeholder)
        future.add_done_callback(self._done.put)

    def _upload(self, planned: PlannedRun, folder: RunFolder, settings: Mapping[str, Any]) -> None:
        folder.note_about(About(identity=planned.identity, name=planned.variant, settings=dict(settings)))
        self.execution.uploads.begin(
            planned,
            folder,
            heldout_split="validation",
            settings=settings,
            on_recorded=partial(folder.note_about, None),
        )

    def _recover(self) -> None:
        """Have replicates recorded that ended in an execution which could not."""
        for folder, about in self.execution.state.unrecorded_tuning(self.study.name):
            planned = PlannedRun(identity=about.identity, variant=about.name, seed=about.seed)
            self._upload(planned, folder, about.settings)
            self.execution.uploads.end(planned)

    def _settle(self, future: Future[RunResult], trial: _Trial) -> bool:
        """Take a replicate's result; say whether the trial goes on with another job."""
        job, folder, error = trial.job, trial.folder, future.exception()
        assert job is not None
        assert folder is not None
        if error is not None and not isinstance(error, WorkerLost | NodeLost | Preempted):
            raise error
        if error is None:
            result = future.result()
        elif (finished := folder.ended()) is not None and is_whole(folder, finished):
            result = finished  # it died after its work was done
        elif trial.losses.are_too_many(error, job.planned, folder):
            result = result_of_lost_worker(job.planned, error)
            folder.finish(result)
        else:
            self.execution.uploads.leave(trial.replicates.pop())
            self._submit(trial)
            return True
        self.execution.uploads.end(job.planned)
        trial.results.append(result)
        trial.curves.append(objective_curve(folder.epochs(), job.objective))
        trial.losses = Losses()
        self.ended[result.outcome] += 1
        if result.failure == "metrics" and not any(self.ended[outcome] for outcome in Outcome if outcome.is_result):
            raise ValidationMissing(self.study.name, job.planned.name, job.objective, result.error or "")
        tuning = self.study.spec.tune
        if result.outcome is Outcome.DONE and not _was_pruned(result) and tuning and len(trial.results) < tuning.seeds:
            self._submit(trial)
            return True
        return False

    def _tell(self, trial: _Trial) -> Generator[Progress, None, None]:
        assert trial.job is not None
        ids = [self.execution.uploads.run_id(replicate, wait_s=RUN_ID_S) for replicate in trial.replicates]
        ended = _ended(trial, trial.job, run_ids=tuple(found for found in ids if found is not None))
        yield from self.execution.stored(lambda: trial.schedule.tell(ended))

    def _result(self, schedule: TuningSchedule) -> TunedVariant:
        found = schedule.result()
        if found is None:
            raise TuningFailed(self.study.name, schedule.variant)
        return found

    def _progress(self, variants: int, *, latest: _Trial | None = None, note: str | None = None) -> Progress:
        tuning = self.study.spec.tune
        assert tuning is not None
        changed = set(self.execution.take_changed())
        for trial in self.running.values():
            if trial.folder is not None and trial.replicates[-1] in changed:
                trial.latest = trial.folder.latest_epoch()
        return Progress(
            planned=variants * tuning.trials * tuning.seeds,
            ended=dict(self.ended),
            running=tuple((trial.replicates[-1], trial.latest) for trial in self.running.values()),
            note=_told(latest) if latest is not None else note,
            budget=self.execution.budget.text(),
        )


def objective_of(metric: str, task: TaskName, own: Sequence[DeclaredMetric] = ()) -> tuple[str, Direction]:
    """Return what tuning looks at on the validation split where a study compares on a metric, and which way is better.

    Raises:
        KeyError: the metric is none of the engine's, whose runs alone are tuned, nor one of those of the user's `own`.
    """
    if (declared := next((each for each in own if each.name == metric), None)) is not None:
        return declared.name, declared.direction
    objective = TASKS[task].metrics[metric].tuned_by
    assert objective is not None  # what the engine measures has one
    return objective, TASKS[task].direction_of(objective)


def _ended(trial: _Trial, job: TuningJob, *, run_ids: tuple[str, ...]) -> TuningTrial:
    last = trial.results[-1]
    outcome = "pruned" if _was_pruned(last) else last.outcome.value
    is_whole = outcome == "done"
    ended = zip(trial.results, trial.curves, strict=True)
    values = [value for result, curve in ended if (value := trial_value(job, result, curve)) is not None]
    return TuningTrial(
        number=trial.suggestion.number,
        settings=dict(trial.suggestion.settings),
        outcome=outcome,  # type: ignore[arg-type]
        value=fmean(values) if is_whole else None,
        curve=trial.curves[0],
        seconds=sum(result.metrics.get("training_seconds", 0.0) for result in trial.results),
        run_ids=run_ids,
    )


def _was_pruned(result: RunResult) -> bool:
    return bool(result.metrics.get("pruned"))


def _told(trial: _Trial) -> str:
    last = trial.results[-1]
    settings = ", ".join(
        f"{path.rpartition('.')[2]} {_short(value)}" for path, value in trial.suggestion.settings.items()
    )
    curve = trial.curves[-1]
    how = "stopped early" if _was_pruned(last) else last.outcome.value
    reached = f": validation {reported(curve[-1])}" if curve else ""
    return f"tuning {trial.variant.name}, trial {trial.suggestion.number + 1} ({settings}) {how}{reached}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _at(settings: Mapping[str, Any], path: str) -> Any:
    section, *keys = path.split(".")
    value = settings.get(section)
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
