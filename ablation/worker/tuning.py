"""Trains one replicate of a tuning trial: on validation alone, and no further than it is worth.

The test split is never evaluated, and the model is thrown away: what is kept is the curve on validation.
"""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ablation.results import Epoch, EpochMetrics, Outcome, RunResult
from ablation.worker.artifacts import write_configuration, write_curves
from ablation.worker.beginning import begin_training
from ablation.worker.run import Job, check_code
from ablation.worker.uploads import Uploader

Objective = Literal["loss", "accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningJob(Job):
    """A replicate of a tuning trial. `stops_below` gives by epoch what the best so far, more being better, must reach.

    Where the objective is minimized, it holds values with their sign turned.
    """

    objective: Objective
    stops_below: tuple[float, ...]
    is_minimized: bool


def run_tuning_job(job: TuningJob) -> RunResult:
    """Train a replicate and record it; one that was finished before an interruption is only recorded again.

    Raises:
        TrackingUnavailable: it is finished and in its folder, but could not be recorded.
        CodeChanged: the user's code is not what the study was planned with.
    """
    check_code(job)
    result = job.folder.result()
    if result is None:
        job.folder.begin(job.provenance)
        uploader = Uploader(job.tracker, job.run_id, heldout_split=job.heldout_split)
        try:
            result = _train(job, uploader)
        except Exception:  # noqa: BLE001 - whatever it was, it is this trial's result, and only this trial's
            error = traceback.format_exc()
            result = RunResult(identity=job.planned.identity, outcome=Outcome.FAILED, metrics={}, epochs=0, error=error)
        job.folder.finish(result)
        uploader.close()
    else:
        job.tracker.log_epochs(job.run_id, job.folder.epochs(), heldout_split=job.heldout_split)
    job.tracker.finish_run(job.run_id, result, job.folder.artifacts)
    return result


def objective_curve(epochs: Sequence[Epoch], objective: Objective) -> tuple[float, ...]:
    """Return what tuning looks at, by epoch: the loss or the accuracy on validation."""
    measured = [epoch for epoch in epochs if isinstance(epoch, EpochMetrics)]
    return tuple(epoch.heldout_loss if objective == "loss" else epoch.heldout_accuracy for epoch in measured)


def objective_value(curve: Sequence[float], epoch_choice: str, *, is_minimized: bool) -> float:
    """Return a curve's last value, or its best where the study measures the best epoch on validation."""
    if epoch_choice == "best-validation":
        return min(curve) if is_minimized else max(curve)
    return curve[-1]


def _train(job: TuningJob, uploader: Uploader) -> RunResult:
    begun = time.perf_counter()
    assert job.data_folder is not None
    steps, _ = begin_training(
        job.settings,
        data_folder=job.data_folder,
        seed=job.planned.seed,
        device=torch.device(job.device),
        code=job.code,
    )
    epochs: list[EpochMetrics] = []
    is_pruned = False
    for _ in range(int(job.settings["training"]["epochs"])):
        epochs.append(next(steps))
        job.folder.append_epoch(epochs[-1])
        uploader.put(epochs[-1])
        is_pruned = _is_hopeless(job, epochs)
        if is_pruned or not _is_finite(epochs[-1]):
            break
    steps.close()
    write_configuration(job.folder, job.planned, job.settings)
    write_curves(job.folder, epochs, heldout_split=job.heldout_split)
    is_diverged = not _is_finite(epochs[-1])
    return RunResult(
        identity=job.planned.identity,
        outcome=Outcome.DIVERGED if is_diverged else Outcome.DONE,
        metrics={
            "training_seconds": sum(epoch.seconds for epoch in epochs),
            "total_seconds": time.perf_counter() - begun,
            "pruned": float(is_pruned and not is_diverged),
        },
        epochs=len(epochs),
        diverged_epoch=len(epochs) if is_diverged else None,
    )


def _is_hopeless(job: TuningJob, epochs: Sequence[EpochMetrics]) -> bool:
    """Whether the best value so far is below the median of earlier trials at this epoch, and the end is not reached."""
    if len(epochs) > len(job.stops_below) or len(epochs) == job.settings["training"]["epochs"]:
        return False
    sign = -1 if job.is_minimized else 1
    best = max(sign * value for value in objective_curve(epochs, job.objective))
    return best < job.stops_below[len(epochs) - 1]


def _is_finite(epoch: EpochMetrics) -> bool:
    return all(abs(value) < float("inf") for value in (epoch.train_loss, epoch.sample_loss, epoch.heldout_loss))
