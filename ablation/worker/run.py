"""Trains runs, one or several together, start to end; all that is measured goes to their folders and nowhere else."""

import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch

from ablation.code import NO_FOLDERS, CodeFolders, code_names, metric_code_names
from ablation.datasets import open_dataset
from ablation.errors import CodeChanged, DiskFull, is_no_room
from ablation.executors.interface import Place
from ablation.provenance import provenance
from ablation.records import DeclaredMetric, Epoch, Outcome, PlannedRun, ReportedEpoch, RunResult, Settings
from ablation.stopping import Preempted, stopping
from ablation.storage.recordable_files import keep_recordable_files
from ablation.storage.run_folder import OWN, RunFolder
from ablation.training import Snapshot, TrainingResult, set_precision
from ablation.worker.artifacts import write_configuration, write_curves, write_evaluation
from ablation.worker.devices import can_train_more, device_at, peak_memory_mib, set_up
from ablation.worker.failures import check_is_of_the_run, failure_of
from ablation.worker.own_checkpoints import OwnCheckpoints
from ablation.worker.own_mlflow import own_mlflow_runs
from ablation.worker.own_training import Report, TrainingFunction, load_training, train_own
from ablation.worker.paths import Fusing, Trained, train_alone, train_together
from ablation.worker.setup import Beginning, begin

_has_trained = threading.Event()
"""Whether this process has trained a run to its end."""
CUDNN_TIMED = "cuDNN's algorithms were chosen by timing"
MOST_LEFT_OUT = 5
"""Sentences that a run keeps of what is not recorded of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs to train a run; small and picklable.

    The paths of its folder and of its data are below the place where it is trained; `at` gives them there. `device` is
    the slot's name. `code_digest` is that of the user's code which the run's identity was made from; `carried_code` is
    where that is below a place which is not the coordinator's own, None where there is none. `expected_metrics` are
    what the study needs of a user's training function, `commit` is where the study was begun. With `cudnn_benchmark`,
    cuDNN's algorithms are timed on a GPU. `metrics` are the user's own, which alter nothing of the run, and
    `metric_digest` is that of their code. `study` is the study's name.
    """

    planned: PlannedRun
    settings: Settings
    heldout_split: str
    data_folder: Path | None
    folder: RunFolder
    device: str
    code: CodeFolders = NO_FOLDERS
    code_digest: str | None = None
    carried_code: tuple[str, ...] = ()
    expected_metrics: tuple[str, ...] = ()
    commit: str | None = None
    cudnn_benchmark: bool = False
    metrics: tuple[DeclaredMetric, ...] = ()
    metric_digest: str | None = None
    study: str = ""

    def at(self, place: Place) -> Self:
        """Return the job with its paths, its code and its device as they are where it is trained."""
        return replace(
            self,
            folder=RunFolder(path=place.folder / self.folder.path),
            data_folder=place.folder / self.data_folder if self.data_folder is not None else None,
            code=self.code
            if place.is_home
            else CodeFolders(folders=tuple(place.folder / one for one in self.carried_code)),
            device=device_at(self.device),
        )


def run_jobs(jobs: Sequence[Job], fusing: Fusing | None = None, place: Place | None = None) -> tuple[RunResult, ...]:
    """Train runs on one device, fused where that is wished and can be, from where they were left, if they were.

    Without a place, the jobs have whole paths. An error of a run's own becomes a failed result with its traceback.

    Raises:
        Preempted: this process was asked to end; what can be resumed is kept.
        DiskFull: what was measured could not be written.
        DeviceLost: the device computes nothing more in this process.
        CodeChanged: the user's code is not what the study was planned with.
    """
    where = place or Place(folder=Path())
    here = [job.at(where) for job in jobs]
    device = torch.device(here[0].device)
    for job in here:
        check_code(job)
    records = (
        RunRecord(job, on_change=partial(where.changed, str(sent.folder.path)))
        for job, sent in zip(here, jobs, strict=True)
    )
    try:
        with own_mlflow_runs():
            if fusing is None:
                return tuple(_run_job(record) for record in records)
            together = list(records)
            trained = train_together(together, device, fusing.at(where.folder))
            return tuple(record.finish(_result(record, found)) for record, found in zip(together, trained, strict=True))
    finally:
        if not can_train_more(device):
            stopping.ask(signal.SIGTERM)  # this process takes no other job


def _run_job(record: "RunRecord") -> RunResult:
    if record.job.settings.is_own_training:
        return record.finish(train_own_run(record))
    return record.finish(_result(record, train_alone(record, torch.device(record.job.device))))


def _where_from(job: Job) -> Mapping[str, str]:
    names = [*code_names(job.settings), *metric_code_names(job.metrics)]
    return provenance(job.device, packages=job.code.packages(names), commit=job.commit)


def check_code(job: Job) -> None:
    """See that the user's code is still what the run's identity says.

    Raises:
        CodeChanged: it was edited while the study ran.
    """
    for names, digest in (
        (code_names(job.settings), job.code_digest),
        (metric_code_names(job.metrics), job.metric_digest),
    ):
        if digest is not None and job.code.digest(names) != digest:
            raise CodeChanged(names)


class RunRecord:
    """A job's run as it is recorded in its folder; `on_change` is called when something in that is new.

    `seconds` is how long it was trained before it was interrupted.
    """

    def __init__(self, job: Job, *, on_change: Callable[[], object] = lambda: None) -> None:
        self.job = job
        self._on_change = on_change
        self.folder, self.identity = job.folder, job.planned.identity
        self.epochs: list[Epoch] = []
        self.seconds = 0.0
        self.begun = time.perf_counter()
        self._is_first = not _has_trained.is_set()
        # A training function's run is resumed where it has kept a checkpoint.
        self._is_resumable = not job.settings.is_own_training or job.folder.trained_by() == OWN
        self._classes: tuple[str, ...] = ()
        with self.writing():
            self._owner = job.folder.take_over(_where_from(job), is_resumable=self._is_resumable)
            if not self._is_resumable:
                self.begin_anew()

    def begin(self) -> Beginning:
        job = self.job
        assert job.data_folder is not None
        beginning = begin(
            job.settings,
            data_folder=job.data_folder,
            seed=job.planned.seed,
            device=torch.device(job.device),
            code=job.code,
            metrics=job.metrics,
            cudnn_benchmark=job.cudnn_benchmark,
        )
        self._classes = beginning.shape.classes
        return beginning

    def begin_anew(self) -> None:
        self.epochs, self.seconds = [], 0.0
        with self.writing():
            self.folder.begin_anew()
            if self.job.settings.is_own_training and self._is_resumable:
                self._is_resumable = False
                self.folder.note_resumable(False)

    def go_on(self, snapshot: Snapshot, seconds: float, *, is_latest: bool) -> None:
        self.resume(snapshot.curve, seconds, is_latest=is_latest)

    def resume(self, epochs: Sequence[Epoch], seconds: float, *, is_latest: bool) -> None:
        self.epochs, self.seconds = list(epochs), seconds
        with self.writing():
            self.folder.go_on(self.epochs, is_latest=is_latest)

    def note_resumable(self) -> None:
        if not self._is_resumable:
            self.folder.note_resumable(True)
            self._is_resumable = True

    def check_owned(self) -> None:
        """See that no other process has taken the run over, as it may while this one was suspended.

        Raises:
            Preempted: one has.
        """
        if not self.folder.is_owned_by(self._owner):
            raise Preempted

    def take(self, epoch: Epoch) -> None:
        """Keep what an epoch measured.

        Raises:
            Preempted: another process has taken the run over, or this one was asked to end and cannot do better later.
            DiskFull: it cannot be written.
        """
        self.check_owned()
        with self.writing():
            self.folder.append_epoch(epoch)
        self.epochs.append(epoch)
        if stopping.is_asked and not self._is_resumable:
            raise Preempted

    def told(self, report: Report) -> Report:
        """Return what a training function reports to, for this run."""
        return report

    def called(self, training: TrainingFunction) -> TrainingFunction:
        """Return a training function as it is called for this run."""
        return training

    def write(self, trained: TrainingResult | None = None) -> tuple[str, ...]:
        """Write the run's artifacts and say what is left out; `trained` is what one of our paths made."""
        job = self.job
        with self.writing():
            write_configuration(job.folder, job.planned, job.settings)
            write_curves(job.folder, self.epochs, heldout_split=job.heldout_split)
            if trained is None:
                return ()
            task = job.settings.data.task if job.settings.data is not None else "classification"
            return write_evaluation(job.folder, job.planned, trained, classes=self._classes, task=task)

    def failed(self, error: BaseException, *, error_text: str = "", path: str = "", path_note: str = "") -> RunResult:
        """Return the result of a run that an error ended; `error_text` is given where the error's traceback is gone."""
        return RunResult(
            identity=self.job.planned.identity,
            outcome=Outcome.FAILED,
            metrics={},
            epochs=len(self.epochs),
            error=error_text or "".join(traceback.format_exception(error)),
            failure=failure_of(error),
            path=path,
            path_note=path_note,
        )

    def finish(self, result: RunResult) -> RunResult:
        """Keep how the run ended and what files it left, and return it."""
        self.check_owned()
        with self.writing():
            said = (*result.left_out, *keep_recordable_files(self.folder.artifacts))
            ended = replace(
                result, ended_ms=time.time_ns() // 1_000_000, left_out=_shortened(said), is_first=self._is_first
            )
            self.folder.finish(ended)
        if ended.outcome.is_result:
            _has_trained.set()
        return ended

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
            self._on_change()
        except OSError as error:
            if is_no_room(error):
                raise DiskFull(self.folder.path.parent, error.strerror or str(error)) from error
            raise


def _shortened(sentences: Sequence[str]) -> tuple[str, ...]:
    more = len(sentences) - MOST_LEFT_OUT
    return (*sentences[:MOST_LEFT_OUT], *([f"and {more} more are left out or renamed"] if more > 0 else []))


def _result(record: RunRecord, trained: Trained) -> RunResult:
    """Write what was measured into the run's folder and return it as the run's result."""
    ended, path, note = trained.ended, trained.path, path_note(record.job, trained)
    if isinstance(ended, BaseException):
        return record.failed(ended, error_text=trained.error_text, path=path, path_note=note)
    try:
        return _done(record, trained, ended)
    except DiskFull:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is this run's result, and only this run's
        return record.failed(error, path=path, path_note=note)


def _done(record: RunRecord, trained: Trained, ended: TrainingResult) -> RunResult:
    begun = time.perf_counter()
    left_out = record.write(ended)
    chosen = {"measured_epoch": float(ended.measured_epoch)} if ended.measured_epoch is not None else {}
    return RunResult(
        identity=record.job.planned.identity,
        outcome=ended.outcome,
        metrics={
            **ended.metrics,
            **chosen,
            "peak_memory_mib": trained.peak_memory_mib,
            "total_seconds": record.seconds + trained.seconds + time.perf_counter() - begun,
        },
        epochs=len(record.epochs),
        diverged_epoch=ended.diverged_epoch,
        diverged_step=ended.diverged_step,
        path=trained.path,
        path_note=path_note(record.job, trained),
        left_out=left_out,
    )


def path_note(job: Job, trained: Trained) -> str:
    """Return the note on the path that trained a run, and whether cuDNN's algorithms were timed for it."""
    is_timed = job.cudnn_benchmark and trained.path != "eager" and torch.device(job.device).type == "cuda"
    return "; ".join(filter(None, [trained.note, CUDNN_TIMED if is_timed else ""]))


def train_own_run(record: RunRecord) -> RunResult:
    """Have a user's training function train a run; an error of the run's own becomes a failed result."""
    try:
        return _own_result(record)
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is this run's result, and only this run's
        check_is_of_the_run(error)
        _check_not_asked()
        return record.failed(error)


def _check_not_asked() -> None:
    """See that a training function ended by itself: many end early, in whatever way, where a signal asks them to.

    Raises:
        Preempted: this process was asked to end.
    """
    if stopping.is_asked:
        raise Preempted


def _own_result(record: RunRecord) -> RunResult:
    """Let a user's training function train the run."""
    from threadpoolctl import threadpool_limits  # our own training does without

    job = record.job
    device = torch.device(job.device)
    training = job.settings.function
    set_up(device, threads=training.threads)

    files = job.folder.artifacts / "files"
    files.mkdir()
    states = OwnCheckpoints(record, files=files, device=device)
    report = record.told(
        Report(
            folder=files,
            on_epoch=record.take,
            states=states,
            seed_index=job.planned.seed,
            variant=job.planned.variant,
            study=job.study,
            epochs=[epoch for epoch in record.epochs if isinstance(epoch, ReportedEpoch)],
            left_out=[states.said] if states.said else [],
        )
    )
    function = record.called(load_training(job.settings, job.code))
    set_precision("fp32")  # again: the code may choose another where it is imported, which the next run would not see
    # NumPy's and scikit-learn's own threads, which PyTorch's setting does not reach.
    limits = threadpool_limits(training.threads)
    with record.writing(), limits:
        own = train_own(
            function,
            job.settings,
            seed=job.planned.seed,
            report=report,
            dataset=open_dataset(job.data_folder) if job.data_folder is not None else None,
            device=device,
            code=job.code,
            expected=job.expected_metrics,
            seconds_before=record.seconds,
        )
    _check_not_asked()
    record.write()
    return RunResult(
        identity=job.planned.identity,
        outcome=own.outcome,
        metrics={
            "peak_memory_mib": peak_memory_mib(device),
            "total_seconds": record.seconds + time.perf_counter() - record.begun,
            **own.metrics,
        },
        epochs=len(report.epochs),
        diverged_epoch=len(report.epochs) if own.outcome is Outcome.DIVERGED else None,
        left_out=tuple(dict.fromkeys((*report.left_out, *own.left_out))),
    )
