"""Trains one replicate of a tuning trial: on the validation split only; hopeless trials are pruned.

The test split is never evaluated, and the model is thrown away: what is kept is the curve on validation.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ablation.errors import CarriedError, ObjectiveUndefined
from ablation.executors.interface import Place
from ablation.records import Epoch, EpochMetrics, Outcome, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.training.patience import is_out_of_patience
from ablation.worker.own_training import Report, TrainingFunction
from ablation.worker.own_trials import TrialReport, judged
from ablation.worker.paths import train_alone
from ablation.worker.run import Job, RunRecord, check_code, path_note, train_own_run


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob(Job):
    """A replicate of a tuning trial. `stops_below` gives by epoch what the best so far, more being better, must reach.

    Where the objective is minimized, it holds values with their sign turned. `variant` is the one that is tuned.
    """

    variant: str
    objective: str
    stops_below: tuple[float, ...]
    is_minimized: bool


def run_tuning_job(job: TuningJob, place: Place | None = None) -> RunResult:
    """Train a replicate; one that was finished before an interruption is taken from its folder.

    Raises:
        Preempted: this process was asked to end; what can be resumed is kept.
        DiskFull: what was measured could not be written.
        CodeChanged: the user's code is not what the study was planned with.
    """
    where = place or Place(folder=Path())
    name, job = str(job.folder.path), job.at(where)
    check_code(job)
    result = job.folder.result()
    if result is not None and is_whole(job.folder, result):
        return result
    kind = _OwnReplicate if job.settings.is_own_training else _Replicate
    replicate = kind(job, on_change=partial(where.changed, name))
    return replicate.finish(replicate.trained())


def objective_curve(epochs: Sequence[Epoch], objective: str) -> tuple[float, ...]:
    """Return what tuning looks at, by epoch that has it: the loss, a score, or what a user's function reports."""
    values = (epoch.heldout if isinstance(epoch, EpochMetrics) else epoch.metrics for epoch in epochs)
    return tuple(each[objective] for each in values if objective in each)


def is_whole(folder: RunFolder, result: RunResult) -> bool:
    """Whether the curve that tuning looks at can be read to its end, where the result rests on one."""
    return not result.outcome.is_result or len(folder.epochs()) == result.epochs


def trial_value(job: TuningJob, result: RunResult, curve: Sequence[float]) -> float | None:
    """Return what a replicate has reached; None where it has no value."""
    if job.settings.is_own_training:
        return result.metrics.get(job.objective)
    return objective_value(curve, job.settings.engine.epoch_choice, is_minimized=job.is_minimized) if curve else None


def objective_value(curve: Sequence[float], epoch_choice: str, *, is_minimized: bool) -> float:
    """Return a curve's last value, or its best where the study measures the best epoch on validation."""
    return MEASURED[epoch_choice](curve, min if is_minimized else max)


MEASURED: Mapping[str, Callable[[Sequence[float], Callable[[Sequence[float]], float]], float]] = {
    "last": lambda curve, _best: curve[-1],
    "best-validation": lambda curve, best: best(curve),
}
"""A curve's value at the epoch that is measured, by the choice of that epoch."""


class _Ended(CarriedError):
    """A replicate has come as far as it is worth."""

    def __init__(self, *, is_pruned: bool) -> None:
        super().__init__()
        self.is_pruned = is_pruned


class _Replicate(RunRecord):
    """A replicate as it is recorded, up to where it ends."""

    def __init__(self, job: TuningJob, *, on_change: Callable[[], object]) -> None:
        super().__init__(job, on_change=on_change)
        self._job = job

    @property
    def curve(self) -> list[EpochMetrics]:
        return [epoch for epoch in self.epochs if isinstance(epoch, EpochMetrics)]

    def take(self, epoch: Epoch) -> None:
        """Record an epoch.

        Raises:
            _Ended: it was the last, whose model is not measured on test, or the last that is worth it.
            ObjectiveUndefined: what tuning looks at has no value.
        """
        assert isinstance(epoch, EpochMetrics)
        super().take(epoch)
        if epoch.is_finite and self._job.objective not in epoch.heldout:
            raise ObjectiveUndefined(self._job.objective, epoch.epoch)
        is_last = _is_last(self._job, self.curve)
        is_pruned = not is_last and _is_hopeless(self._job, objective_curve(self.epochs, self._job.objective))
        if is_pruned or is_last or not epoch.is_finite:
            raise _Ended(is_pruned=is_pruned)

    def trained(self) -> RunResult:
        """Train the replicate and return how it ended."""
        trained = train_alone(self, torch.device(self.job.device))
        if not isinstance(trained.ended, _Ended):
            assert isinstance(trained.ended, BaseException)
            note = path_note(self.job, trained)
            return self.failed(trained.ended, error_text=trained.error_text, path=trained.path, path_note=note)
        self.write()
        curve = self.curve
        is_diverged = not curve[-1].is_finite
        return RunResult(
            identity=self.job.planned.identity,
            outcome=Outcome.DIVERGED if is_diverged else Outcome.DONE,
            metrics={
                "training_seconds": sum(epoch.seconds for epoch in curve),
                "total_seconds": self.seconds + trained.seconds,
                "pruned": float(trained.ended.is_pruned and not is_diverged),
            },
            epochs=len(curve),
            diverged_epoch=len(curve) if is_diverged else None,
            path=trained.path,
            path_note=path_note(self.job, trained),
        )


class _OwnReplicate(RunRecord):
    """A replicate that a user's training function trains, up to where it ends or is ended."""

    def __init__(self, job: TuningJob, *, on_change: Callable[[], object]) -> None:
        super().__init__(job, on_change=on_change)
        self._job = job
        self._ended: _Ended | None = None
        self._report: TrialReport | None = None
        self._trained_from = time.perf_counter()

    def told(self, report: Report) -> Report:
        """Return a report that takes what tuning looks at, and begin to count the time of the training."""
        self._trained_from = time.perf_counter()
        self._report = TrialReport.of(report, objective=self._job.objective, variant=self._job.variant)
        return self._report

    def called(self, training: TrainingFunction) -> TrainingFunction:
        assert self._report is not None
        return judged(training, self._report)

    def take(self, epoch: Epoch) -> None:
        """Record an epoch.

        Raises:
            _Ended: it is not worth it to go on; again where the function has caught that, and reports more.
        """
        if self._ended is None:
            super().take(epoch)
            is_pruned = _is_hopeless(self._job, objective_curve(self.epochs, self._job.objective))
            is_diverged = self._report is not None and self._report.is_diverged
            if is_pruned or is_diverged:
                self._ended = _Ended(is_pruned=not is_diverged)
        if self._ended is not None:
            raise self._ended

    def trained(self) -> RunResult:
        """Have the function train, and return how it ended; of its files nothing is kept."""
        result = train_own_run(self)
        if self._report is not None:
            shutil.rmtree(self._report.folder, ignore_errors=True)
        if self._ended is None:
            return replace(result, metrics={**result.metrics, "pruned": 0.0} if result.outcome.is_result else {})
        self.write()
        return RunResult(
            identity=self.job.planned.identity,
            outcome=Outcome.DONE if self._ended.is_pruned else Outcome.DIVERGED,
            metrics={
                "training_seconds": self.seconds + time.perf_counter() - self._trained_from,
                "total_seconds": self.seconds + time.perf_counter() - self.begun,
                "pruned": float(self._ended.is_pruned),
            },
            epochs=len(self.epochs),
            diverged_epoch=None if self._ended.is_pruned else len(self.epochs),
        )


def _is_last(job: TuningJob, epochs: Sequence[EpochMetrics]) -> bool:
    """Whether the replicate has come to its last epoch, or ends before it for its patience."""
    training = job.settings.engine
    assert job.settings.data is not None
    patience = None if training.patience == "none" else training.patience
    return len(epochs) == training.epochs or is_out_of_patience(epochs, patience, job.settings.data.task)


def _is_hopeless(job: TuningJob, curve: Sequence[float]) -> bool:
    """Whether the best value so far is below the median of earlier trials after as many epochs."""
    if not curve or len(curve) > len(job.stops_below):
        return False
    sign = -1 if job.is_minimized else 1
    return max(sign * value for value in curve) < job.stops_below[len(curve) - 1]
