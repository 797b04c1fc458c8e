"""Times what recording costs a run: shares of the training thread's time, of a core beside it, and seconds at the end.

    python -m benchmarks.tracking --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. A run is trained by
`ablation.worker.run_jobs`, as a study's worker trains it, with checkpoints as often as by default; its images are made
up. Beside it, in the same process, a thread brings the run's folder to a fresh MLflow store in an SQLite file, as a
process beside the coordinator does. Of each run are told:

- the share of its epochs' time, from the begin of the first to that of what follows the last, that its thread spends
  outside training and evaluation: on files, which is the epoch's line in the run's folder, and on checkpoints, from
  the copy of the model and the optimizer to the file on the disk; and the seconds of one checkpoint;
- the CPU time of the uploading thread as a share of the same: of one core, for each run that is trained at a time;
- the seconds from the end of training and evaluation to the end of the job, in which its artifacts and its result are
  written, and from there until all of it is recorded, for which a worker does not wait.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ablation.coordinator.lease import Lease
from ablation.coordinator.planning import plan_of
from ablation.coordinator.uploading import Report, Uploader
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.datasets import Dataset, prepare
from ablation.executors import Place
from ablation.provenance import LIBRARIES
from ablation.records import Outcome, Plan, PlannedRun
from ablation.storage.databases import sqlite_address
from ablation.storage.state import State
from ablation.study import Study, parse_study
from ablation.tracking import open_mlflow
from ablation.tracking.mlflow.tracker import MlflowTracker
from ablation.training import Checkpoints, EpochsTogether, Snapshot
from ablation.worker import Job, run_jobs
from ablation.worker import paths as paths
from benchmarks.arrays import write_arrays
from benchmarks.machine import environment, write_record
from benchmarks.turns import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Moments of one run, in seconds of one clock, and the CPU seconds of uploading."""

    resumed: list[float] = field(default_factory=list)
    """When training went on; the last is for what is measured at the end."""
    yielded: list[float] = field(default_factory=list)
    """When it gave something up: an epoch, and last the result."""
    due: list[float] = field(default_factory=list)
    kept: list[float] = field(default_factory=list)
    """When a checkpoint was begun, and when it was on the disk."""
    uploads: list[tuple[float, float]] = field(default_factory=list)
    """When the uploading thread had done something, and the CPU seconds of it."""

    def watched(self, train: Callable[..., EpochsTogether]) -> Callable[..., EpochsTogether]:
        def steps(*args: object, checkpoints: Checkpoints, **kwargs: object) -> EpochsTogether:
            watched = WatchedCheckpoints(checkpoints, self)
            return self._steps(train(*args, checkpoints=watched, **kwargs))

        return steps

    def _steps(self, steps: EpochsTogether) -> EpochsTogether:
        while True:
            self.resumed.append(time.perf_counter())
            try:
                metrics = next(steps)
            except StopIteration as end:
                self.yielded.append(time.perf_counter())
                return end.value
            self.yielded.append(time.perf_counter())
            yield metrics


class WatchedCheckpoints:
    """Checkpoints of which each is timed, from when it is due to when it is kept."""

    def __init__(self, checkpoints: Checkpoints, watch: Watch) -> None:
        self._checkpoints, self._watch = checkpoints, watch

    def load(self) -> Sequence[Snapshot] | None:
        return self._checkpoints.load()

    def is_due(self) -> bool:
        now = time.perf_counter()
        is_due = self._checkpoints.is_due()
        if is_due:
            self._watch.due.append(now)
        return is_due

    def save(self, snapshots: Sequence[Snapshot]) -> None:
        self._checkpoints.save(snapshots)
        self._watch.kept.append(time.perf_counter())


@contextmanager
def uploads_watched(watch: Watch) -> Iterator[None]:
    """Have runs recorded by a thread, and note its CPU time."""
    bring, elsewhere = Uploader._try_to_bring, MlflowTracker.elsewhere

    def watched(uploader: Uploader, state: Any) -> list[Report]:
        begun = time.thread_time()
        reports = bring(uploader, state)
        watch.uploads.append((time.perf_counter(), time.thread_time() - begun))
        return reports

    Uploader._try_to_bring = watched  # type: ignore[method-assign]
    MlflowTracker.elsewhere = lambda _: None  # type: ignore[method-assign,assignment,return-value]
    try:
        yield
    finally:
        Uploader._try_to_bring = bring  # type: ignore[method-assign]
        MlflowTracker.elsewhere = elsewhere  # type: ignore[method-assign]


def main() -> None:
    options = parse_options()
    where = environment(options, libraries=(*LIBRARIES, "sqlalchemy"))
    print(json.dumps(where, indent=1), flush=True)
    runs = []
    with TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        write_arrays(path / "arrays", train=options.train_images, test=options.test_images)
        study = make_study(path / "arrays", options)
        dataset = prepare(study.variants[0].settings.data, cache=path / "data", code=study.code)
        for seed in range(options.runs):
            runs.append(timed_run(study, dataset, path / f"run-{seed}", seed=seed))
            print(json.dumps(runs[-1]), flush=True)
    found = {name: spread([one[name] for one in runs]) for name in runs[0]}
    print_result(found)
    if options.output is not None:
        result = {"runs": runs, "spread": found}
        write_record(options.output, {"environment": where, "result": result}, name="tracking", kind="sqlite")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-images", type=int, default=2_000, help="2,000 take about 2 s an epoch")
    parser.add_argument("--test-images", type=int, default=500)
    parser.add_argument("--model", default="cnn", help="name of a model: cnn, torchvision:resnet18")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3, help="runs that are timed, one after the other")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def make_study(arrays: Path, options: argparse.Namespace) -> Study:
    document = {
        "name": "tracking",
        "data": {"name": "benchmarks.arrays:load", "root": str(arrays), "validation": "none"},
        "model": {"name": options.model},
        "training": {"epochs": options.epochs},
        "factors": {"training.learning_rate": [0.001, 0.002]},
        "seeds": max(options.runs, 2),
    }
    return parse_study(json.dumps(document).encode(), source="the benchmark's study")


def timed_run(study: Study, dataset: Dataset, folder: Path, *, seed: int) -> dict[str, float]:
    """Train the baseline with a seed in a fresh store and state, and return shares and seconds."""
    folder.mkdir()
    watch, state = Watch(), State(folder=folder / "state")
    tracker = open_mlflow(sqlite_address(folder / "mlflow.db"))
    plan = plan_of(study, data=dataset.facts)
    state.folder.mkdir()
    lease = Lease(plan.name, tracker=tracker, state_folder=state.folder)
    lease.open(plan)
    planned = next(one for one in plan.runs if one.variant == study.variants[0].name and one.seed == seed)
    job = make_job(planned, plan, study, dataset, state)
    with uploads_watched(watch):
        uploads = Uploads(tracker, lease)
        upload_run(uploads, planned, job.folder, plan=plan, state=state)
        with training_watched(watch):
            place = Place(folder=state.folder, changed=lambda _: uploads.changed(planned))
            (result,) = run_jobs([job], None, place)
        ended = time.perf_counter()
        uploads.end(planned)
        if result.outcome is not Outcome.DONE or not uploads.wait():
            raise SystemExit(f"the run ended as {result.outcome}:\n{result.error or uploads.problem}")
        recorded = time.perf_counter()
        uploads.close()
    parameters = plan.summaries[planned.variant].parameters
    return {"parameters": parameters, **shares(watch, ended=ended, recorded=recorded)}


def make_job(planned: PlannedRun, plan: Plan, study: Study, dataset: Dataset, state: State) -> Job:
    return Job(
        planned=planned,
        settings=plan.variant(planned.variant).settings,
        heldout_split=plan.heldout_split,
        data_folder=dataset.folder,
        folder=state.begun(study.name, planned.identity),
        device="cpu",
        code=study.code,
    )


@contextmanager
def training_watched(watch: Watch) -> Iterator[None]:
    """Let the worker's training be timed where it gives up its thread and gets it again."""
    train = paths.train_eager
    paths.train_eager = watch.watched(train)
    try:
        yield
    finally:
        paths.train_eager = train


def shares(watch: Watch, *, ended: float, recorded: float) -> dict[str, float]:
    *yielded, trained = watch.yielded
    begun, until = watch.resumed[0], max([watch.resumed[-1], *watch.kept])
    seconds = until - begun
    files = [later - earlier for earlier, later in zip(yielded, watch.resumed[1:], strict=True)]
    checkpoints = [kept - due for due, kept in zip(watch.due, watch.kept, strict=True)]
    uploaded = [cpu for moment, cpu in watch.uploads if begun <= moment <= until]
    return {
        "epoch_s": seconds / len(yielded),
        "recording_share": (sum(files) + sum(checkpoints)) / seconds,
        "files_share": sum(files) / seconds,
        "longest_ms": 1000 * max(files),
        "checkpoints": len(checkpoints),
        "checkpoint_share": sum(checkpoints) / seconds,
        "checkpoint_s": sum(checkpoints) / max(len(checkpoints), 1),
        "longest_checkpoint_s": max(checkpoints, default=0.0),
        "uploader_cpu_share": sum(uploaded) / seconds,
        "uploader_cpu_s": sum(cpu for _, cpu in watch.uploads),
        "end_s": ended - trained,
        "recorded_s": recorded - ended,
    }


def print_result(found: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{'':<42}{'median':>9}{'lowest':>9}{'highest':>9}")
    for name, label, factor in (
        ("parameters", "parameters, millions", 1e-6),
        ("epoch_s", "an epoch, s", 1),
        ("recording_share", "of it in files and checkpoints, %", 100),
        ("files_share", "in files, %", 100),
        ("longest_ms", "in the slowest epoch, ms", 1),
        ("checkpoint_share", "in checkpoints, %", 100),
        ("checkpoints", "checkpoints", 1),
        ("checkpoint_s", "a checkpoint, s", 1),
        ("longest_checkpoint_s", "the slowest, s", 1),
        ("uploader_cpu_share", "CPU of the uploading thread, %", 100),
        ("uploader_cpu_s", "the same, to the end, s", 1),
        ("end_s", "end: artifacts and result written, s", 1),
        ("recorded_s", "until all is recorded, s", 1),
    ):
        values = [factor * found[name][key] for key in ("median", "lowest", "highest")]
        print(f"{label:<42}" + "".join(f"{value:>9.3f}" for value in values))


if __name__ == "__main__":
    main()
