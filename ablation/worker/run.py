"""Trains runs, one or several together, start to end: training, folders, and the upload of what was measured."""

import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.datasets import make_split, open_dataset
from ablation.errors import CodeChanged, TrackingUnavailable
from ablation.results import Epoch, Outcome, PlannedRun, RunResult
from ablation.state import RunFolder
from ablation.study.spec import code_names
from ablation.tracking import RunDescription, Tracker
from ablation.training import TrainingResult
from ablation.worker.artifacts import write_configuration, write_curves, write_evaluation
from ablation.worker.beginning import Beginning, begin
from ablation.worker.devices import peak_memory_mib, set_up
from ablation.worker.ladder import Fusing, Trained, train_alone, train_together
from ablation.worker.own_training import Report, load_training, split_data, train_own
from ablation.worker.uploads import Uploader


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs to train a run; small and picklable.

    `code_digest` is that of the user's code which the run's identity was made from; `expected_metrics` are what the
    study needs of a training function of the user's. A run without a `description` has been described already.
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
    description: RunDescription | None = None


def run_job(job: Job) -> RunResult:
    """Train a run and record it; an error of the run's own becomes a failed result with its traceback.

    Raises:
        TrackingUnavailable: the run is finished and in its folder, but could not be recorded.
        CodeChanged: the user's code is not what the study was planned with.
    """
    check_code(job)
    record = RunRecord(job)
    if "name" in job.settings["training"]:
        result = _train_own(record)
    else:
        device = torch.device(job.device)
        result = _result(record, train_alone(record, device))
    record.finish(result)
    return result


def run_jobs(jobs: Sequence[Job], fusing: Fusing | None) -> tuple[RunResult, ...]:
    """Train runs on one device, fused where that is wished and can be, and record each as `run_job` does.

    Raises:
        TrackingUnavailable: all are finished and in their folders, but one could not be recorded.
        CodeChanged: the user's code is not what the study was planned with.
    """
    if fusing is None:
        return tuple(run_job(job) for job in jobs)
    for job in jobs:
        check_code(job)
    records = [RunRecord(job) for job in jobs]
    trained = train_together(records, torch.device(jobs[0].device), fusing)
    results = [_result(record, found) for record, found in zip(records, trained, strict=True)]
    unrecorded: TrackingUnavailable | None = None
    for record, result in zip(records, results, strict=True):
        try:
            record.finish(result)
        except TrackingUnavailable as error:
            unrecorded = error
    if unrecorded is not None:
        raise unrecorded
    return tuple(results)


def check_code(job: Job) -> None:
    """See that the user's code is still what the run's identity says.

    Raises:
        CodeChanged: it was edited while the study ran.
    """
    names = code_names(job.settings)
    if job.code_digest is not None and job.code.digest(names) != job.code_digest:
        raise CodeChanged(names)


def upload(
    folder: RunFolder,
    result: RunResult,
    *,
    tracker: Tracker,
    run_id: str,
    description: RunDescription,
    heldout_split: str,
) -> None:
    """Record a finished run from its folder."""
    tracker.describe_run(run_id, description)
    tracker.log_epochs(run_id, folder.epochs(), heldout_split=heldout_split)
    tracker.finish_run(run_id, result, folder.artifacts)


class RunRecord:
    """A job's run as it is recorded: in its folder first, then, from another thread, in the tracker."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.epochs: list[Epoch] = []
        self.begun = time.perf_counter()
        job.folder.begin(job.provenance)
        self._uploader = Uploader(job.tracker, job.run_id, heldout_split=job.heldout_split, description=job.description)
        self._classes: tuple[str, ...] = ()

    def begin(self) -> Beginning:
        job = self.job
        assert job.data_folder is not None
        beginning = begin(
            job.settings,
            data_folder=job.data_folder,
            seed=job.planned.seed,
            device=torch.device(job.device),
            code=job.code,
        )
        self._classes = beginning.shape.classes
        return beginning

    def take(self, epoch: Epoch) -> None:
        self.job.folder.append_epoch(epoch)
        self.epochs.append(epoch)
        self._uploader.put(epoch)

    def write(self, trained: TrainingResult | None = None) -> None:
        """Write the run's artifacts; `trained` is what one of our paths made."""
        job = self.job
        write_configuration(job.folder, job.planned, job.settings)
        write_curves(job.folder, self.epochs, heldout_split=job.heldout_split)
        if trained is not None:
            write_evaluation(job.folder, job.planned, trained, self._classes)

    def failed(self, error: Exception, *, path: str = "", path_note: str = "") -> RunResult:
        return RunResult(
            identity=self.job.planned.identity,
            outcome=Outcome.FAILED,
            metrics={},
            epochs=len(self.job.folder.epochs()),
            error="".join(traceback.format_exception(error)),
            path=path,
            path_note=path_note,
        )

    def finish(self, result: RunResult) -> None:
        self.job.folder.finish(result)
        self._uploader.close()
        self.job.tracker.finish_run(self.job.run_id, result, self.job.folder.artifacts)


def _result(record: RunRecord, trained: Trained) -> RunResult:
    """Write what was measured into the run's folder and return it as the run's result."""
    ended, path, note = trained.ended, trained.path, trained.note
    if isinstance(ended, Exception):
        return record.failed(ended, path=path, path_note=note)
    begun = time.perf_counter()
    try:
        record.write(ended)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this run's result, and only this run's
        return record.failed(error, path=path, path_note=note)
    chosen = {"measured_epoch": float(ended.measured_epoch)} if ended.measured_epoch is not None else {}
    return RunResult(
        identity=record.job.planned.identity,
        outcome=ended.outcome,
        metrics={
            **ended.metrics,
            **chosen,
            "peak_memory_mib": trained.peak_memory_mib,
            "total_seconds": trained.seconds + time.perf_counter() - begun,
        },
        epochs=len(record.epochs),
        diverged_epoch=ended.diverged_epoch,
        path=path,
        path_note=note,
    )


def _train_own(record: RunRecord) -> RunResult:
    try:
        return _own_result(record)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this run's result, and only this run's
        return record.failed(error)


def _own_result(record: RunRecord) -> RunResult:
    """Let a training function of the user's train the run."""
    job = record.job
    device = torch.device(job.device)
    threads = int(job.settings["training"]["threads"])
    set_up(device, threads=threads)

    function = load_training(job.settings["training"]["name"], job.code)
    report = Report(folder=job.folder.artifacts / "files", on_epoch=record.take)
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
    record.write()
    return RunResult(
        identity=job.planned.identity,
        outcome=outcome,
        metrics={
            **metrics,
            "peak_memory_mib": peak_memory_mib(device),
            "total_seconds": time.perf_counter() - record.begun,
        },
        epochs=len(report.epochs),
        diverged_epoch=len(report.epochs) if outcome is Outcome.DIVERGED else None,
    )
