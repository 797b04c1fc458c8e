"""Trains one replicate of a tuning trial: on the validation split only; hopeless trials are pruned.

The test split is never evaluated, and the model is thrown away: what is kept is the curve on validation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ablation.errors import CarriedError, ObjectiveUndefined
from ablation.executors.interface import Place
from ablation.records import Epoch, EpochMetrics, Outcome, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.training.patience import is_out_of_patience
from ablation.worker.paths import train_alone
from ablation.worker.run import Job, RunRecord, check_code, path_note


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob(Job):
    """A replicate of a tuning trial. `stops_below` gives by epoch what the best so far, more being better, must reach.

    Where the objective is minimized, it holds values with their sign turned.
    """

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
    replicate = _Replicate(job, on_change=partial(where.changed, name))
    return replicate.finish(_trained(replicate))


def objective_curve(epochs: Sequence[Epoch], objective: str) -> tuple[float, ...]:
    """Return what tuning looks at, by epoch: the loss or a score on validation."""
    measured = [epoch for epoch in epochs if isinstance(epoch, EpochMetrics)]
    return tuple(epoch.heldout[objective] for epoch in measured if objective in epoch.heldout)


def is_whole(folder: RunFolder, result: RunResult) -> bool:
    """Whether the curve that tuning looks at can be read to its end, where the result rests on one."""
    return not result.outcome.is_result or len(folder.epochs()) == result.epochs


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
        is_pruned = _is_hopeless(self._job, self.curve)
        if is_pruned or not epoch.is_finite or _is_last(self._job, self.curve):
            raise _Ended(is_pruned=is_pruned)


def _trained(replicate: _Replicate) -> RunResult:
    trained = train_alone(replicate, torch.device(replicate.job.device))
    if not isinstance(trained.ended, _Ended):
        assert isinstance(trained.ended, BaseException)
        note = path_note(replicate.job, trained)
        return replicate.failed(trained.ended, error_text=trained.error_text, path=trained.path, path_note=note)
    replicate.write()
    curve = replicate.curve
    is_diverged = not curve[-1].is_finite
    return RunResult(
        identity=replicate.job.planned.identity,
        outcome=Outcome.DIVERGED if is_diverged else Outcome.DONE,
        metrics={
            "training_seconds": sum(epoch.seconds for epoch in curve),
            "total_seconds": replicate.seconds + trained.seconds,
            "pruned": float(trained.ended.is_pruned and not is_diverged),
        },
        epochs=len(curve),
        diverged_epoch=len(curve) if is_diverged else None,
        path=trained.path,
        path_note=path_note(replicate.job, trained),
    )


def _is_last(job: TuningJob, epochs: Sequence[EpochMetrics]) -> bool:
    """Whether the replicate has come to its last epoch, or ends before it for its patience."""
    training = job.settings.engine
    assert job.settings.data is not None
    patience = None if training.patience == "none" else training.patience
    return len(epochs) == training.epochs or is_out_of_patience(epochs, patience, job.settings.data.task)


def _is_hopeless(job: TuningJob, epochs: Sequence[EpochMetrics]) -> bool:
    """Whether the best value so far is below the median of earlier trials at this epoch, and the end is not reached."""
    if len(epochs) > len(job.stops_below) or _is_last(job, epochs):
        return False
    sign = -1 if job.is_minimized else 1
    best = max(sign * value for value in objective_curve(epochs, job.objective))
    return best < job.stops_below[len(epochs) - 1]
