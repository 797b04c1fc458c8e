"""Trains one run, start to end: its training, its folder and the upload of what it measured."""

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.datasets import make_split, open_dataset
from ablation.errors import CodeChanged
from ablation.results import Epoch, EpochMetrics, Outcome, PlannedRun, RunResult
from ablation.state import RunFolder
from ablation.study.spec import code_names
from ablation.tracking import Tracker
from ablation.training import TrainingResult
from ablation.worker.artifacts import write_configuration, write_curves, write_evaluation
from ablation.worker.beginning import begin_training
from ablation.worker.devices import peak_memory_mib, set_up
from ablation.worker.own_training import Report, load_training, split_data, train_own
from ablation.worker.uploads import Uploader


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs to train a run; small and picklable.

    `code_digest` is that of the user's code which the run's identity was made from; `expected_metrics` are what the
    study needs of a training function of the user's.
    """

    planned: PlannedRun
    run_id: str
    settings: Mapping[str, Any]
    heldout_split: str
    data_folder: Path | None
    folder: RunFolder
    tracker: Tracker
    device: str
    provenance: Mapping[str, str]
    code: CodeFolders = NO_FOLDERS
    code_digest: str | None = None
    expected_metrics: tuple[str, ...] = ()


def run_job(job: Job) -> RunResult:
    """Train a run and record it; an error of the run's own becomes a failed result with its traceback.

    Raises:
        TrackingUnavailable: the run is finished and in its folder, but could not be recorded.
        CodeChanged: the user's code is not what the study was planned with.
    """
    check_code(job)
    job.folder.begin(job.provenance)
    uploader = Uploader(job.tracker, job.run_id, heldout_split=job.heldout_split)
    try:
        is_own = "name" in job.settings["training"]
        result = _train_own(job, uploader.put) if is_own else _train_run(job, uploader.put)
    except Exception:  # noqa: BLE001 - whatever it was, it is this run's result, and only this run's
        result = RunResult(
            identity=job.planned.identity,
            outcome=Outcome.FAILED,
            metrics={},
            epochs=len(job.folder.epochs()),
            error=traceback.format_exc(),
        )
    job.folder.finish(result)
    uploader.close()
    job.tracker.finish_run(job.run_id, result, job.folder.artifacts)
    return result


def check_code(job: Job) -> None:
    """See that the user's code is still what the run's identity says.

    Raises:
        CodeChanged: it was edited while the study ran.
    """
    names = code_names(job.settings)
    if job.code_digest is not None and job.code.digest(names) != job.code_digest:
        raise CodeChanged(names)


def upload(folder: RunFolder, result: RunResult, *, tracker: Tracker, run_id: str, heldout_split: str) -> None:
    """Record a finished run from its folder."""
    tracker.log_epochs(run_id, folder.epochs(), heldout_split=heldout_split)
    tracker.finish_run(run_id, result, folder.artifacts)


def _train_run(job: Job, on_epoch: Callable[[Epoch], None]) -> RunResult:
    begun = time.perf_counter()
    device = torch.device(job.device)
    assert job.data_folder is not None
    steps, shape = begin_training(
        job.settings, data_folder=job.data_folder, seed=job.planned.seed, device=device, code=job.code
    )
    epochs: list[EpochMetrics] = []
    while True:
        try:
            metrics = next(steps)
        except StopIteration as end:
            trained: TrainingResult = end.value
            break
        job.folder.append_epoch(metrics)
        epochs.append(metrics)
        on_epoch(metrics)
    write_configuration(job.folder, job.planned, job.settings)
    write_curves(job.folder, epochs, heldout_split=job.heldout_split)
    write_evaluation(job.folder, job.planned, trained, shape.classes)
    chosen = {"measured_epoch": float(trained.measured_epoch)} if trained.measured_epoch is not None else {}
    return RunResult(
        identity=job.planned.identity,
        outcome=trained.outcome,
        metrics={**trained.metrics, **chosen, **_costs(device, begun)},
        epochs=len(epochs),
        diverged_epoch=trained.diverged_epoch,
    )


def _train_own(job: Job, on_epoch: Callable[[Epoch], None]) -> RunResult:
    """Let a training function of the user's train the run."""
    begun = time.perf_counter()
    device = torch.device(job.device)
    threads = int(job.settings["training"]["threads"])
    set_up(device, threads=threads)

    def record(epoch: Epoch) -> None:
        job.folder.append_epoch(epoch)
        on_epoch(epoch)

    function = load_training(job.settings["training"]["name"], job.code)
    report = Report(folder=job.folder.artifacts / "files", on_epoch=record)
    report.folder.mkdir()
    data = None
    if job.data_folder is not None:
        dataset, study_seed = open_dataset(job.data_folder), int(job.settings["study_seed"])
        split = make_split(dataset, job.settings["data"], study_seed=study_seed, seed=job.planned.seed)
        data = split_data(dataset, split)
    with threadpool_limits(threads):  # NumPy's and scikit-learn's own, which PyTorch's setting does not reach
        outcome, metrics = train_own(
            function, job.settings, seed=job.planned.seed, report=report, data=data, expected=job.expected_metrics
        )
    write_configuration(job.folder, job.planned, job.settings)
    write_curves(job.folder, report.epochs, heldout_split=job.heldout_split)
    return RunResult(
        identity=job.planned.identity,
        outcome=outcome,
        metrics={**metrics, **_costs(device, begun)},
        epochs=len(report.epochs),
        diverged_epoch=len(report.epochs) if outcome is Outcome.DIVERGED else None,
    )


def _costs(device: torch.device, begun: float) -> dict[str, float]:
    return {"peak_memory_mib": peak_memory_mib(device), "total_seconds": time.perf_counter() - begun}
