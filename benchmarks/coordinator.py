"""Times what the coordinator of a study costs: milliseconds per run of the thread that plans, asks, starts and tells.

    python -m benchmarks.coordinator --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. The pipeline is the real one, as
`ablation study` calls it, with an MLflow store, an Optuna storage and a state folder that are new, all sqlite files in
one temporary folder. Only the training is none: a worker process writes a run's folder, as a worker does, with made-up
numbers. So workers are faster than the coordinator, and use the same disk. No run lasts long enough for a checkpoint:
its epochs are uploaded together at its end, and not every few seconds.

The coordinator's time is cut at the calls named in PHASES, each without those inside it: wall time, in which it also
waits for the disk, locks, cores and Python's own lock, and CPU time of its thread. `waiting` is for workers, and is no
cost.

Beside it the coordinator's uploading thread records the runs; its time is cut at the calls named in UPLOADING. It may
fall behind runs that take no time: `last uploads` is how long the coordinator waits for it after the last run, before
the report. Neither is in the coordinator's own sum.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ablation.coordinator.conclusion
import ablation.coordinator.execution
import ablation.coordinator.preparation
import ablation.coordinator.recovery
import ablation.coordinator.uploading
import ablation.coordinator.uploads
import ablation.pipeline
import ablation.scheduling
from ablation.api.progress import follow
from ablation.coordinator.execution import Execution
from ablation.coordinator.request import Request
from ablation.coordinator.uploading import Uploader
from ablation.coordinator.uploads import Uploads
from ablation.datasets import open_dataset
from ablation.executors import ProcessExecutor
from ablation.provenance import LIBRARIES
from ablation.records import EVALUATION_FILE, METRICS, EpochMetrics, Outcome, RunEvaluation, RunResult
from ablation.scheduling import Schedule, default_storage
from ablation.storage.databases import sqlite_address
from ablation.storage.state import State
from ablation.study import Study, parse_study
from ablation.tracking import open_mlflow
from ablation.tracking.mlflow.tracker import MlflowTracker
from ablation.worker import Job
from ablation.worker.artifacts import write_curves
from ablation.worker.run import RunRecord
from benchmarks.machine import environment, write_record
from benchmarks.stopwatch import Calls, Stopwatch

EPOCHS = 20
PHASES: Calls = {
    "plan": (
        (ablation.coordinator.preparation, "prepare"),
        (ablation.pipeline, "lock_plan"),
        (MlflowTracker, "open_study"),
        (MlflowTracker, "reconcile"),
        (MlflowTracker, "recorded_runs"),
        (ablation.coordinator.recovery, "recover_ended"),
    ),
    "open schedule": ((ablation.scheduling, "open_schedule"),),
    "claim": ((Schedule, "next_group"),),
    "submit": ((Execution, "_submit"),),
    "settle": ((Execution, "_settle"),),
    "tell": ((Schedule, "tell"),),
    "progress": ((Execution, "_progress"),),
    "waiting": ((ablation.coordinator.execution, "wait"),),
    "last uploads": ((Uploads, "wait"),),
    "report": ((ablation.coordinator.conclusion, "conclude"),),
}
ONCE = ("plan", "open schedule", "report")
APART = (*ONCE, "waiting", "last uploads")
IDLE = "idle"
UPLOADING: Calls = {
    IDLE: ((Uploads, "_work"),),
    "look": ((Uploader, "_try_to_bring"),),
    "start run": ((MlflowTracker, "start_run"),),
    "log run": ((MlflowTracker, "log_run"),),
    "finish run": ((MlflowTracker, "finish_run"),),
    "keep folder": ((State, "keep"),),
}
POLLS = 60 / ablation.coordinator.execution.POLL_S
"""Looks at what is running in a run of 60 seconds."""
LOOKS = 60 / ablation.coordinator.uploading.EVERY_S
"""Looks of the uploading thread into a run's folder in the same time."""


class IdleExecutor(ProcessExecutor):
    """Worker processes that record what they are given to train, and train nothing."""

    def submit(  # type: ignore[override]
        self, _function: Callable[..., Any], jobs: Sequence[Job], _fusing: None
    ) -> Future[tuple[RunResult, ...]]:
        from benchmarks.coordinator import record_made_up_runs  # workers know nothing of the main module

        return super().submit(record_made_up_runs, jobs)


def main() -> None:
    options = parse_options()
    if options.runs % options.variants:
        raise SystemExit(f"--runs {options.runs} is no multiple of --variants {options.variants}")
    where = environment(options, libraries=(*LIBRARIES, "sqlalchemy"))
    print(json.dumps(where, indent=1))
    results = []
    for _ in range(options.turns):
        results.append(timed_study(options))
        print_result(results[-1])
    if options.output is not None:
        write_record(options.output, {"environment": where, "results": results}, name="coordinator", kind="sqlite")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--variants", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--turns", type=int, default=1, help="how often the study is run, each time anew")
    parser.add_argument("--folder", type=Path, help="folder whose disk the stores are on")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def make_study(*, runs: int, variants: int) -> Study:
    document = {
        "name": "many-runs",
        "data": {"name": "digits", "limit": 60, "validation": "none"},
        "model": {"name": "cnn", "depth": 1, "width": 2, "dense": [8], "normalization": "none"},
        "training": {"epochs": EPOCHS},
        "factors": {"training.weight_decay": [round(0.001 * level, 3) for level in range(variants)]},
        "seeds": runs // variants,
    }
    return parse_study(json.dumps(document).encode(), source="the benchmark's study")


def timed_study(options: argparse.Namespace) -> dict[str, Any]:
    """Run the study in new stores and return what each phase took."""
    study = make_study(runs=options.runs, variants=options.variants)
    watch, uploading = Stopwatch(whole=ONCE), Stopwatch()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.folder))).resolve()
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(watch.cutting(PHASES))
        stack.enter_context(uploading.cutting(UPLOADING))
        executor = stack.enter_context(IdleExecutor(slots=("cpu",) * options.workers))
        lines = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        with watch.phase("other"):
            steps = ablation.pipeline.run_study(
                Request(
                    study=study,
                    tracker=open_mlflow(sqlite_address(folder / "mlflow.db")),
                    executor=executor,
                    storage_url=default_storage(folder),
                    state=State(folder=folder),
                )
            )
            outcome = follow(steps, study=study, is_quiet=False)
    if outcome.ended != {Outcome.DONE: options.runs}:
        raise SystemExit(f"not all runs are done: {outcome.ended}\n{lines.getvalue()[-1000:]}")
    return summary(watch, uploading, runs=options.runs)


def record_made_up_runs(jobs: Sequence[Job]) -> tuple[RunResult, ...]:
    return tuple(record_made_up_run(job) for job in jobs)


def record_made_up_run(job: Job) -> RunResult:
    """Do what a worker does with a run, but for the training; numbers that two seeds share would be remarked on."""
    accuracy = 0.7 + int(job.planned.identity[-8:], 16) / 2**36
    metrics = {**dict.fromkeys(METRICS, accuracy), "peak_memory_mib": 800.0, "total_seconds": 1.0}
    result = RunResult(identity=job.planned.identity, outcome=Outcome.DONE, metrics=metrics, epochs=EPOCHS)
    assert job.data_folder is not None
    dataset = open_dataset(job.data_folder)
    count = len(dataset.facts.shape.classes)
    diagonal = tuple(tuple(int(true == guess) for guess in range(count)) for true in range(count))
    evaluation = RunEvaluation(
        confusion={"train": diagonal, "test": diagonal}, test_correct="1" * dataset.facts.test_images
    )
    record = RunRecord(job)
    record.begin_anew()
    for epoch in range(1, EPOCHS + 1):
        record.take(made_up_epoch(epoch, accuracy))
    write_curves(job.folder, record.epochs, heldout_split=job.heldout_split)
    job.folder.write_json(EVALUATION_FILE, evaluation.to_json())
    return record.finish(result)


def made_up_epoch(epoch: int, accuracy: float) -> EpochMetrics:
    rise = 1 - 0.8**epoch
    return EpochMetrics(
        epoch=epoch,
        train_loss=2.3 - 1.7 * rise,
        train_accuracy=0.1 + 0.7 * rise,
        sample_loss=2.2 - 1.7 * rise,
        sample_accuracy=0.12 + 0.7 * rise,
        heldout_loss=2.3 - 1.3 * rise,
        heldout_accuracy=0.1 + (accuracy - 0.1) * rise,
        learning_rate=1e-3,
        seconds=0.05,
        images_per_second=1000.0,
        timestamp_ms=1_700_000_000_000 + 50 * epoch,
    )


def summary(watch: Stopwatch, uploading: Stopwatch, *, runs: int) -> dict[str, Any]:
    """Return the milliseconds per run of each phase, and what they come to."""
    phases, uploads = per_run(watch, runs=runs), per_run(uploading, runs=runs)
    coordinator = total(phases, without=APART)
    poll, look = watch.spent["progress"], uploading.spent["look"]
    poll_ms, look_ms = 1e3 * poll.wall_s / poll.calls, 1e3 * look.cpu_s / look.calls
    once_ms = sum(phases[name]["wall_ms"] for name in ONCE)
    uploader = {"wall_ms": total(uploads, without=(IDLE,))["wall_ms"], "cpu_ms": total(uploads)["cpu_ms"]}
    return {
        "runs": runs,
        "phases": phases,
        "coordinator": coordinator,
        "poll_ms": poll_ms,
        "share_of_60_s": (once_ms + coordinator["wall_ms"] + POLLS * poll_ms) / 60_000,
        "uploads": uploads,
        "uploader": uploader,
        "look_cpu_ms": look_ms,
        "last_uploads_s": watch.spent["last uploads"].wall_s,
        "uploader_cpu_share_of_60_s": (uploader["cpu_ms"] + LOOKS * look_ms) / 60_000,
    }


def per_run(watch: Stopwatch, *, runs: int) -> dict[str, dict[str, float]]:
    return {
        name: {"calls": spent.calls, "wall_ms": 1e3 * spent.wall_s / runs, "cpu_ms": 1e3 * spent.cpu_s / runs}
        for name, spent in watch.spent.items()
    }


def total(phases: Mapping[str, Mapping[str, float]], *, without: Sequence[str] = ()) -> dict[str, float]:
    counted = [phases[name] for name in phases if name not in without]
    return {unit: sum(phase[unit] for phase in counted) for unit in ("wall_ms", "cpu_ms")}


def print_result(result: Mapping[str, Any]) -> None:
    print(f"\n{result['runs']} runs; milliseconds per run\n{'':<16}{'calls':>8}{'wall':>9}{'CPU':>9}")
    for name in (*(name for name in PHASES if name not in APART), "other"):
        print_row(name, result["phases"][name])
    print_row("coordinator", result["coordinator"])
    print()
    for name in APART:
        print_row(name, result["phases"][name])
    print()
    for name in result["uploads"]:
        print_row(name, result["uploads"][name])
    print_row("uploader", result["uploader"])
    print(f"\na look at what is running: {result['poll_ms']:.2f} ms")
    print(f"a look into a run's folder: {result['look_cpu_ms']:.2f} ms of CPU")
    print(f"share of a run of 60 s, beginning and report included: {result['share_of_60_s']:.2%}")
    print(f"CPU of the uploading thread, share of the same: {result['uploader_cpu_share_of_60_s']:.2%}")
    print(f"waited for the last uploads: {result['last_uploads_s']:.1f} s", flush=True)


def print_row(name: str, phase: Mapping[str, Any]) -> None:
    print(f"{name:<16}{phase.get('calls', ''):>8}{phase['wall_ms']:>9.1f}{phase['cpu_ms']:>9.1f}")


if __name__ == "__main__":
    main()
