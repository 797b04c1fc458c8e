"""Trains one run, start to end: its data, its model, its training, its folder and the upload of what it measured."""

import csv
import io
import queue
import resource
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ablation.code import NO_FOLDERS, CodeFolders, is_code
from ablation.datasets import check_augmentation
from ablation.drawing import write_confusion
from ablation.errors import CodeInvalid, DeviceUnavailable
from ablation.models import build_model
from ablation.results import (
    EVALUATION_FILE,
    DataOutline,
    EpochMetrics,
    Outcome,
    PlannedRun,
    RunEvaluation,
    RunResult,
    epoch_metrics,
)
from ablation.run_data import made_up_data, run_data
from ablation.state import RunFolder
from ablation.streams import Purpose, stream_seed
from ablation.tracking import Tracker
from ablation.training import TrainingResult, TrainingSettings, train

MIB = 1024 * 1024
CLEAR_PEAK = "5"
TIMED_STEPS = 3
SAMPLE_IMAGES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a worker needs to train a run; small and picklable."""

    planned: PlannedRun
    run_id: str
    settings: Mapping[str, Any]
    heldout_split: str
    data_folder: Path
    folder: RunFolder
    tracker: Tracker
    device: str
    provenance: Mapping[str, str]
    code: CodeFolders = NO_FOLDERS


def run_job(job: Job) -> RunResult:
    """Train a run and record it; an error of the run's own becomes a failed result with its traceback.

    Raises:
        TrackingUnavailable: the run is finished and in its folder, but could not be recorded.
    """
    job.folder.begin(job.provenance)
    uploader = _Uploader(job)
    try:
        result = _train_run(job, uploader.put)
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


def upload(folder: RunFolder, result: RunResult, *, tracker: Tracker, run_id: str, heldout_split: str) -> None:
    """Record a finished run from its folder."""
    tracker.log_epochs(run_id, folder.epochs(), heldout_split=heldout_split)
    tracker.finish_run(run_id, result, folder.artifacts)


def resolve_devices(asked: str) -> tuple[str, ...]:
    """Return the devices that `--device` names: `auto` takes every GPU there is, else the CPU.

    Raises:
        DeviceUnavailable: there is no such device.
    """
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if asked in ("auto", "cuda") and gpus:
        return gpus
    if asked in ("auto", "cpu"):
        return ("cpu",)
    if asked not in gpus:
        raise DeviceUnavailable(asked, ("auto", "cpu", *gpus))
    return (asked,)


def estimate_seconds(
    settings: Mapping[str, Any], outline: DataOutline, *, device: str, code: CodeFolders = NO_FOLDERS
) -> float:
    """Estimate how long one run takes, from a few timed steps on made-up data; evaluation is taken as a third.

    The estimate is for a machine with nothing else to do; runs side by side take longer.

    Raises:
        CodeInvalid, DataInvalid: the run's own code, or its augmentation, does not go with the data.
    """
    training, loss = _training_of(settings, code)
    check_augmentation(outline.shape, settings["data"], source=settings["data"]["name"])
    _set_up(torch.device(device), threads=training.pop("threads"))
    timed = TrainingSettings(**{**training, "epochs": 2}, augmentation=settings["data"]["augmentation"])
    count = TIMED_STEPS * timed.batch_size
    model = build_model(settings["model"], outline.shape).to(device)
    data = made_up_data(outline.shape, count, torch.device(device), layout=_layout(settings["model"]))
    *_, last = train(model, data, timed, study_seed=0, seed=0, loss=loss)
    used = min(settings["data"]["limit"] or outline.train_images, outline.train_images)
    validation = settings["data"]["validation"]
    heldout = outline.test_images if validation == "none" else round(used * validation)
    trained = used if validation == "none" else used - heldout
    per_image = last.seconds / count
    evaluated = training["epochs"] * (min(trained, SAMPLE_IMAGES) + heldout) + trained + outline.test_images
    return float(per_image * (training["epochs"] * trained + evaluated / 3))


def _training_of(
    settings: Mapping[str, Any], code: CodeFolders
) -> tuple[dict[str, Any], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Return the `training` section without the loss, and the loss: the user's own, or cross entropy."""
    training = dict(settings["training"])
    name = training.pop("loss", None)
    if not is_code(name):
        return training, functional.cross_entropy
    loss = code.load(name, path="training.loss")
    if isinstance(loss, type):
        raise CodeInvalid(f"{name} is a class; name a function, or a loss made of it in a file", path="training.loss")
    return training, loss


def _layout(model: Mapping[str, Any]) -> torch.memory_format:
    """Keep what a model of the user's own gets and computes contiguous, as code that calls `view` needs it."""
    return torch.contiguous_format if is_code(model.get("name")) else torch.channels_last


def _train_run(job: Job, on_epoch: Callable[[EpochMetrics], None]) -> RunResult:
    begun = time.perf_counter()
    device = torch.device(job.device)
    study_seed, seed = int(job.settings["study_seed"]), job.planned.seed
    training, loss = _training_of(job.settings, job.code)
    _set_up(device, threads=training.pop("threads"))
    settings = TrainingSettings(**training, augmentation=job.settings["data"]["augmentation"])
    data, shape = run_data(
        job.data_folder,
        job.settings["data"],
        study_seed=study_seed,
        seed=seed,
        device=device,
        layout=_layout(job.settings["model"]),
    )
    torch.manual_seed(stream_seed(study_seed, Purpose.INITIALIZATION, seed))
    model = build_model(job.settings["model"], shape).to(device)
    steps = train(model, data, settings, study_seed=study_seed, seed=seed, loss=loss)
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
    _write_artifacts(job, trained, epochs, shape.classes)
    chosen = {"measured_epoch": float(trained.measured_epoch)} if trained.measured_epoch is not None else {}
    costs = {"peak_memory_mib": _peak_memory_mib(device), "total_seconds": time.perf_counter() - begun}
    return RunResult(
        identity=job.planned.identity,
        outcome=trained.outcome,
        metrics={**trained.metrics, **chosen, **costs},
        epochs=len(epochs),
        diverged_epoch=trained.diverged_epoch,
    )


def _set_up(device: torch.device, *, threads: int) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # PyTorch's convolutions are TF32 by default and its products are not; a comparison takes neither silently.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _clear_peak_memory()


def _write_artifacts(job: Job, trained: TrainingResult, epochs: list[EpochMetrics], classes: tuple[str, ...]) -> None:
    folder = job.folder
    folder.write_json(
        "configuration.json", {"identity": job.planned.identity, **job.settings, "seed": job.planned.seed}
    )
    curves = [{"epoch": metrics.epoch, **epoch_metrics(metrics, heldout_split=job.heldout_split)} for metrics in epochs]
    (folder.artifacts / "curves.csv").write_text(_csv(list(curves[0]), [list(row.values()) for row in curves]))
    if trained.outcome is Outcome.DIVERGED:
        return
    confusion = {split: counts.tolist() for split, counts in trained.confusion.items()}
    correct = "".join("01"[is_correct] for is_correct in np.asarray(trained.test_correct).tolist())
    evaluation = RunEvaluation(confusion=confusion, test_correct=correct)
    folder.write_json(EVALUATION_FILE, evaluation.to_json())
    for split, rows in confusion.items():
        named = [[name, *row] for name, row in zip(classes, rows, strict=True)]
        (folder.artifacts / f"confusion_{split}.csv").write_text(_csv(["true \\ predicted", *classes], named))
        title = f"{job.planned.name} on the {split} split"
        write_confusion(folder.artifacts / f"confusion_{split}.png", rows, classes, title=title)
    np.savez_compressed(folder.artifacts / "test_logits.npz", logits=np.asarray(trained.test_logits))
    torch.save(dict(trained.state), folder.artifacts / "model_state.pt")


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()


def _clear_peak_memory() -> None:
    """Let the peak start anew for this run, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    except OSError:
        return


def _peak_memory_mib(device: torch.device) -> float:
    """Return the peak of the device's allocated memory, or of this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Uploader:
    """Records epochs from a thread of its own, so that training does not wait for the tracker.

    What could not be recorded is kept, and tried again with the next epoch and when it is closed.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._epochs: queue.SimpleQueue[EpochMetrics | None] = queue.SimpleQueue()
        self._kept: list[EpochMetrics] = []
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def put(self, metrics: EpochMetrics) -> None:
        self._epochs.put(metrics)

    def close(self) -> None:
        """Wait until all is recorded.

        Raises:
            TrackingUnavailable: some of it still could not be.
        """
        self._epochs.put(None)
        self._thread.join()
        if self._kept:
            self._record(self._kept)

    def _work(self) -> None:
        while (metrics := self._epochs.get()) is not None:
            self._kept.append(metrics)
            try:
                self._record(self._kept)
            except Exception:  # noqa: BLE001, S112 - kept, and raised by `close` if it goes on
                continue
            self._kept = []

    def _record(self, epochs: list[EpochMetrics]) -> None:
        self._job.tracker.log_epochs(self._job.run_id, epochs, heldout_split=self._job.heldout_split)
