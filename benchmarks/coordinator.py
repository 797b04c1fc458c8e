"""Times what the coordinator of a study costs: milliseconds per run of the thread that plans, asks, starts and tells.

    python -m benchmarks.coordinator --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. The pipeline is the real one, as
`ablation study` calls it, with an MLflow store, an Optuna storage and a state folder that are new, all sqlite files in
one temporary folder. Only the training is none: a worker process writes a run's folder and records it through the
tracker, as a worker does, with made-up numbers. So workers are faster than the coordinator, and use the same disk and
store.

The coordinator's time is cut at the calls named in PHASES, each without those inside it: wall time, in which it also
waits for the disk, locks and cores, and CPU time of its thread. `waiting` is for workers, and is no cost.
"""

import argparse
import contextlib
import functools
import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ablation.execution
import ablation.pipeline
import ablation.scheduling
from ablation.cli.progress import follow
from ablation.datasets import open_dataset
from ablation.execution import Execution
from ablation.executors import ProcessExecutor
from ablation.provenance import LIBRARIES
from ablation.results import EVALUATION_FILE, METRICS, EpochMetrics, Outcome, RunEvaluation, RunResult
from ablation.scheduling import Schedule, default_storage
from ablation.state import State
from ablation.study import Study, parse_study
from ablation.tracking import open_mlflow
from ablation.tracking.mlflow_tracker import MlflowTracker
from ablation.worker import Job
from ablation.worker.artifacts import write_curves
from benchmarks.machine import environment, write_record

EPOCHS = 20
PHASES: Mapping[str, tuple[tuple[Any, str], ...]] = {
    "plan": (
        (ablation.pipeline, "_prepare"),
        (ablation.pipeline, "lock_plan"),
        (MlflowTracker, "open_study"),
        (Execution, "recover_finished"),
    ),
    "open schedule": ((ablation.scheduling, "open_schedule"),),
    "claim": ((Schedule, "next_group"),),
    "start run": ((MlflowTracker, "start_run"),),
    "submit": ((Execution, "_submit"),),
    "settle": ((Execution, "_settle"),),
    "tell": ((Schedule, "tell"),),
    "progress": ((Execution, "_progress"),),
    "waiting": ((ablation.execution, "wait"),),
    "report": ((ablation.pipeline, "_conclude"),),
}
ONCE = ("plan", "open schedule", "report")
POLLS = 60 / ablation.execution.POLL_S
"""Looks at what is running in a run of 60 seconds."""


@dataclass(slots=True)
class Spent:
    """What a phase took, summed over its calls."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(slots=True)
class Stopwatch:
    """Sums the time of one thread by phase; a phase inside another interrupts it."""

    spent: dict[str, Spent] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    since: tuple[float, float] = (0.0, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._lap()
        self.inside.append(name)
        self.spent.setdefault(name, Spent()).calls += 1
        try:
            yield
        finally:
            self._lap()
            self.inside.pop()

    def _lap(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        if self.inside:
            spent = self.spent[self.inside[-1]]
            spent.wall_s += now[0] - self.since[0]
            spent.cpu_s += now[1] - self.since[1]
        self.since = now


class IdleExecutor(ProcessExecutor):
    """Worker processes that record what they are given to train, and train nothing."""

    def submit(  # type: ignore[override]
        self, _function: Callable[..., Any], jobs: Sequence[Job], _fusing: None
    ) -> Future[tuple[RunResult, ...]]:
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
    watch = Stopwatch()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=options.folder))).resolve()
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(phases_timed(watch))
        executor = stack.enter_context(IdleExecutor(slots=("cpu",) * options.workers))
        lines = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        with watch.phase("other"):
            steps = ablation.pipeline.run_study(
                study,
                tracker=open_mlflow(f"sqlite:///{folder / 'mlflow.db'}"),
                executor=executor,
                storage_url=default_storage(folder),
                state=State(folder=folder),
            )
            outcome = follow(steps, study=study, slots=options.workers, quiet=False)
    if outcome.ended != {Outcome.DONE: options.runs}:
        raise SystemExit(f"not all runs are done: {outcome.ended}\n{lines.getvalue()[-1000:]}")
    return summary(watch, runs=options.runs)


@contextlib.contextmanager
def phases_timed(watch: Stopwatch) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for phase, calls in PHASES.items():
            for owner, name in calls:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, timed(watch, phase, getattr(owner, name)))
        yield


def timed(watch: Stopwatch, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with watch.phase(phase):
            return function(*args, **kwargs)

    return call


def record_made_up_runs(jobs: Sequence[Job]) -> tuple[RunResult, ...]:
    return tuple(record_made_up_run(job) for job in jobs)


def record_made_up_run(job: Job) -> RunResult:
    """Do what a worker does with a run, but for the training; numbers that two seeds share would be remarked on."""
    accuracy = 0.7 + int(job.planned.identity[-8:], 16) / 2**36
    curves = [made_up_epoch(epoch, accuracy) for epoch in range(1, EPOCHS + 1)]
    metrics = {**dict.fromkeys(METRICS, accuracy), "peak_memory_mib": 800.0, "total_seconds": 1.0}
    result = RunResult(identity=job.planned.identity, outcome=Outcome.DONE, metrics=metrics, epochs=EPOCHS)
    assert job.data_folder is not None
    dataset = open_dataset(job.data_folder)
    count = len(dataset.facts.shape.classes)
    diagonal = tuple(tuple(int(true == guess) for guess in range(count)) for true in range(count))
    evaluation = RunEvaluation(
        confusion={"train": diagonal, "test": diagonal}, test_correct="1" * dataset.facts.test_images
    )
    job.folder.begin(job.provenance)
    for epoch in curves:
        job.folder.append_epoch(epoch)
    write_curves(job.folder, curves, heldout_split=job.heldout_split)
    job.folder.write_json(EVALUATION_FILE, evaluation.to_json())
    job.folder.finish(result)
    assert job.description is not None
    job.tracker.describe_run(job.run_id, job.description)
    job.tracker.log_epochs(job.run_id, curves, heldout_split=job.heldout_split)
    job.tracker.finish_run(job.run_id, result, job.folder.artifacts)
    return result


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


def summary(watch: Stopwatch, *, runs: int) -> dict[str, Any]:
    """Return the milliseconds per run of each phase, and what they come to."""
    phases = {
        name: {"calls": spent.calls, "wall_ms": 1e3 * spent.wall_s / runs, "cpu_ms": 1e3 * spent.cpu_s / runs}
        for name, spent in watch.spent.items()
    }
    per_run = [phases[name] for name in phases if name not in (*ONCE, "waiting")]
    poll = watch.spent["progress"]
    coordinator = {unit: sum(phase[unit] for phase in per_run) for unit in ("wall_ms", "cpu_ms")}
    poll_ms = 1e3 * poll.wall_s / poll.calls
    once_ms = sum(phases[name]["wall_ms"] for name in ONCE)
    return {
        "runs": runs,
        "phases": phases,
        "coordinator": coordinator,
        "poll_ms": poll_ms,
        "share_of_60_s": (once_ms + coordinator["wall_ms"] + POLLS * poll_ms) / 60_000,
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(f"\n{result['runs']} runs; milliseconds per run\n{'':<16}{'calls':>8}{'wall':>9}{'CPU':>9}")
    names = [name for name in PHASES if name not in (*ONCE, "waiting")]
    for name in (*names, "other"):
        print_row(name, result["phases"][name])
    print_row("coordinator", result["coordinator"])
    print()
    for name in (*ONCE, "waiting"):
        print_row(name, result["phases"][name])
    print(f"\na look at what is running: {result['poll_ms']:.2f} ms")
    print(f"share of a run of 60 s, beginning and report included: {result['share_of_60_s']:.2%}", flush=True)


def print_row(name: str, phase: Mapping[str, Any]) -> None:
    print(f"{name:<16}{phase.get('calls', ''):>8}{phase['wall_ms']:>9.1f}{phase['cpu_ms']:>9.1f}")


if __name__ == "__main__":
    sys.exit(main())
