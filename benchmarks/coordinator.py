"""Times what the coordinator of a study costs: milliseconds per run of the thread that plans, asks, starts and tells.

    python -m benchmarks.coordinator --output benchmarks/results
    python -m benchmarks.coordinator --under-way 6400

It needs the project's requirements, no data, and is run from the repository's root. The pipeline is the real one, as
`ablation study` calls it, with an MLflow store, an Optuna storage and a state folder that are new, all sqlite files in
one temporary folder. Only the training is none: an executor in memory writes a run's folder, as a worker does, with
made-up numbers, and its job has ended when it is submitted. No run lasts long enough for a checkpoint: its epochs are
uploaded together at its end, and not every few seconds.

With `--under-way` so many other runs are begun first and stay under way; with each run that ends, some of them have
news. When the last run has ended the study is interrupted.

The coordinator's time is cut at the calls named in PHASES, each without those inside it: wall time, in which it also
waits for the disk, locks, cores and Python's own lock, and CPU time of its thread. `made up` is the executor's work,
and `waiting` for jobs; neither is a cost.

Beside it a process records the runs. It falls behind runs that take no time: `last uploads` is how long the coordinator
waits for it after the last run, before the report. Its wall time per run is taken from the first run's end to when all
are recorded, its CPU time includes its start. `--in-thread` has a thread do it, whose time is cut at UPLOADING.

From these costs a study of 10,000 runs of 10 s on 200 slots is simulated: see `simulated`.
"""

import argparse
import contextlib
import heapq
import io
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
from ablation.coordinator.conclusion import StudyOutcome
from ablation.coordinator.execution import Execution
from ablation.coordinator.progress import Progress
from ablation.coordinator.request import Request
from ablation.coordinator.uploading import Uploader
from ablation.coordinator.uploads import Uploads
from ablation.datasets import open_dataset
from ablation.executors import Files, Place
from ablation.provenance import LIBRARIES
from ablation.records import EVALUATION_FILE, TASKS, EpochMetrics, Outcome, RunEvaluation, RunResult
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
NEWS = 8
"""Runs under way that have news for each one that ends: what 6,400 that tell an epoch a minute have at 14 a second."""
SLOTS, RUN_S, MANY, GOAL_S = 200, 10.0, 10_000, 720.0
"""What is simulated, and within which time all is to be recorded."""
HERE = sys.modules[__name__]
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
    "waiting": ((ablation.coordinator.execution, "next_done"),),
    "made up": ((HERE, "record_made_up_run"), (HERE, "begin_made_up_run")),
    "last uploads": ((Uploads, "wait"),),
    "report": ((ablation.coordinator.conclusion, "conclude"),),
}
ONCE = ("plan", "open schedule", "report")
APART = (*ONCE, "made up", "waiting", "last uploads")
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
NOTHING = {"calls": 0, "wall_ms": 0.0, "cpu_ms": 0.0}


class MemoryExecutor:
    """Has each job ended when it is submitted, but for the first ones, which stay under way and have news."""

    is_on_gpu, is_here = False, True

    def __init__(self, *, under_way: int) -> None:
        self.slots = ("cpu",) * (under_way + 1)
        self._under_way = under_way
        self._telling: list[Callable[[], object]] = []
        self._news: Iterator[Callable[[], object]] = iter(())
        self.ended = 0

    @property
    def is_full(self) -> bool:
        """Whether all runs are under way that shall be."""
        return len(self._telling) == self._under_way

    def submit(
        self, _function: Callable[..., Any], jobs: Sequence[Job], _fusing: None, *, files: Files
    ) -> Future[tuple[RunResult, ...]]:
        future: Future[tuple[RunResult, ...]] = Future()
        here = [job.at(Place(folder=files.home)) for job in jobs]
        if not self.is_full:
            begin_made_up_run(here[0])
            self._telling.append(lambda: files.on_change(files.leaves[0]))
            self._news = itertools.cycle(self._telling)
            return future
        future.set_result(tuple(record_made_up_run(job) for job in here))
        files.on_change(files.leaves[0])
        self.ended += 1
        for tell in itertools.islice(self._news, NEWS):
            tell()
        return future

    def require(self, check: Callable[[str], object]) -> None:
        check("cpu")

    def take_notes(self) -> list[str]:
        return []

    def stop(self) -> None:
        """What is under way is not begun."""


def main() -> None:
    options = parse_options()
    if (options.runs + options.under_way) % options.variants:
        raise SystemExit(f"--runs and --under-way are together no multiple of --variants {options.variants}")
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
    parser.add_argument("--under-way", type=int, default=0, help="other runs, which stay under way")
    parser.add_argument("--in-thread", action="store_true", help="record in a thread, and time what that does")
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
    study = make_study(runs=options.runs + options.under_way, variants=options.variants)
    watch, uploading = Stopwatch(whole=ONCE), Stopwatch()
    executor, recording = MemoryExecutor(under_way=options.under_way), Recording()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.folder))).resolve()
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(watch.cutting(PHASES))
        if options.in_thread:
            stack.enter_context(uploading.cutting(UPLOADING))
            stack.callback(setattr, MlflowTracker, "elsewhere", MlflowTracker.elsewhere)
            MlflowTracker.elsewhere = lambda _: None  # type: ignore[method-assign,assignment,return-value]
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
            watched = measured(steps, executor, watch, recording, runs=options.runs, is_whole=not options.under_way)
            outcome = follow(watched, study=study, is_quiet=False) if not options.under_way else exhausted(watched)
    if outcome is not None and outcome.ended != {Outcome.DONE: options.runs}:
        raise SystemExit(f"not all runs are done: {outcome.ended}\n{lines.getvalue()[-1000:]}")
    return summary(watch, uploading, recording, runs=options.runs)


@dataclass(slots=True, kw_only=True)
class Recording:
    """When the first run had ended and when all were recorded, and what the recording process took of a core."""

    begun: float = 0.0
    ended: float = 0.0
    cpu_s: float = 0.0


def measured(
    steps: Generator[Progress, None, StudyOutcome],
    executor: MemoryExecutor,
    watch: Stopwatch,
    recording: Recording,
    *,
    runs: int,
    is_whole: bool,
) -> Generator[Progress, None, StudyOutcome | None]:
    """Pass a study's steps on, measured from the first run's end; to the last run's, unless it is measured whole."""
    children = children_s()
    try:
        while executor.ended < 1:
            yield next(steps)
        watch.forget()
        recording.begun = time.perf_counter()
        while is_whole or executor.ended < runs:
            yield next(steps)
    except StopIteration as end:
        recording.ended, recording.cpu_s = time.perf_counter() - watch.spent["report"].wall_s, children_s() - children
        outcome: StudyOutcome = end.value
        return outcome
    steps.close()
    return None


def exhausted(steps: Generator[Progress, None, StudyOutcome | None]) -> StudyOutcome | None:
    """Take all steps and show none: the view has a line for each run under way."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: StudyOutcome | None = end.value
            return outcome


def children_s() -> float:
    """Return the seconds of a core that processes took which this one had started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def begin_made_up_run(job: Job) -> None:
    record = RunRecord(job)
    record.begin_anew()
    record.take(made_up_epoch(1, 0.5))


def record_made_up_run(job: Job) -> RunResult:
    """Do what a worker does with a run, but for the training; numbers that two seeds share would be remarked on."""
    accuracy = 0.7 + int(job.planned.identity[-8:], 16) / 2**36
    metrics = {
        **dict.fromkeys(TASKS["classification"].metrics, accuracy),
        "peak_memory_mib": 800.0,
        "total_seconds": 1.0,
    }
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


def summary(watch: Stopwatch, uploading: Stopwatch, recording: Recording, *, runs: int) -> dict[str, Any]:
    """Return the milliseconds per run of each phase, and what they come to."""
    phases = per_run(watch, runs=runs)
    coordinator = total(phases, without=APART)
    poll = watch.spent["progress"]
    poll_ms = 1e3 * poll.wall_s / poll.calls
    once_ms = sum(phases[name]["wall_ms"] for name in ONCE if name in phases)
    found = {
        "runs": runs,
        "phases": phases,
        "coordinator": coordinator,
        "poll_ms": poll_ms,
        "share_of_60_s": (once_ms + coordinator["wall_ms"] + POLLS * poll_ms) / 60_000,
        "uploads": per_run(uploading, runs=runs),
    }
    if recording.ended:
        upload_ms = 1e3 * (recording.ended - recording.begun) / runs
        found |= {
            "uploader": {"wall_ms": upload_ms, "cpu_ms": 1e3 * recording.cpu_s / runs},
            "last_uploads_s": watch.spent["last uploads"].wall_s,
            "simulated_s": simulated(main_s=coordinator["wall_ms"] / 1e3, upload_s=upload_ms / 1e3),
        }
    return found


def simulated(*, main_s: float, upload_s: float) -> dict[str, float]:
    """Return after which seconds MANY runs of RUN_S on SLOTS have been trained, and recorded, from what each costs.

    The coordinator's thread takes runs as they end, one by one, and begins the next in the same slot; the process that
    records takes them as they have ended, one by one. What it does of runs under way, while none has ended, is left
    out: it spares as much later.
    """
    ends = [RUN_S + main_s * slot for slot in range(SLOTS)]
    is_free_at = recorded_at = trained_at = 0.0
    for number in range(MANY):
        trained_at = max(heapq.heappop(ends), is_free_at)
        is_free_at = trained_at + main_s
        recorded_at = max(recorded_at, trained_at) + upload_s
        if number + SLOTS < MANY:
            heapq.heappush(ends, is_free_at + RUN_S)
    return {"trained": trained_at, "recorded": recorded_at}


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
        print_row(name, result["phases"].get(name, NOTHING))
    print_row("coordinator", result["coordinator"])
    print()
    for name in (*APART, *result["uploads"], "uploader"):
        if row := {**result, **result["phases"], **result["uploads"]}.get(name):
            print_row(name, row)
    print(f"\na look at what is running: {result['poll_ms']:.2f} ms")
    print(f"share of a run of 60 s, beginning and report included: {result['share_of_60_s']:.2%}")
    if "simulated_s" in result:
        found, minutes = result["simulated_s"], GOAL_S / 60
        print(f"waited for the last uploads: {result['last_uploads_s']:.1f} s")
        print(
            f"{MANY} runs of {RUN_S:.0f} s on {SLOTS} slots, simulated: trained after {found['trained'] / 60:.1f} min,"
        )
        print(f"recorded after {found['recorded'] / 60:.1f} min (goal: {minutes:.0f})", flush=True)


def print_row(name: str, phase: Mapping[str, Any]) -> None:
    print(f"{name:<16}{phase.get('calls', ''):>8}{phase['wall_ms']:>9.1f}{phase['cpu_ms']:>9.1f}")


if __name__ == "__main__":
    main()
