"""Times what tracking costs a run: the share of the training thread's time, and the seconds at the run's end.

    python -m benchmarks.tracking --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. A run is trained by
`ablation.worker.run_job`, as a study's worker trains it, with a fresh MLflow store in an SQLite file; its images are
made up. Of each run are told:

- the share of its epochs' time, from the begin of the first to that of what follows the last, that its thread spends
  outside training and evaluation: writing the epoch to the run's folder and handing it to the uploading thread;
- the CPU time of the uploading thread as a share of the same: what training can lose at most to the lock that
  Python's threads share, where there is a core for each;
- the seconds from the end of training and evaluation to the end of the job: writing artifacts, and recording them.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ablation.datasets import Dataset, prepare
from ablation.planning import plan_of
from ablation.provenance import LIBRARIES, provenance
from ablation.results import Epoch, Outcome, RunResult
from ablation.state import State
from ablation.study import Study, parse_study
from ablation.tracking import RunDescription
from ablation.tracking.mlflow_tracker import MlflowTracker
from ablation.training import EpochsTogether
from ablation.worker import Job, ladder, run_job
from benchmarks.arrays import write_arrays
from benchmarks.machine import environment, write_record
from benchmarks.turns import spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Moments of one run, in seconds of one clock, and the CPU seconds of recording its epochs."""

    resumed: list[float] = field(default_factory=list)
    """When training went on; the last is for what is measured at the end."""
    yielded: list[float] = field(default_factory=list)
    """When it gave something up: an epoch, and last the result."""
    recorded: list[float] = field(default_factory=list)
    finishing: list[float] = field(default_factory=list)

    def watched(self, train: Callable[..., EpochsTogether]) -> Callable[..., EpochsTogether]:
        return lambda *args, **kwargs: self._steps(train(*args, **kwargs))

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


@dataclass(frozen=True, kw_only=True)
class WatchedTracker(MlflowTracker):
    """An MLflow store whose calls are timed."""

    watch: Watch

    def log_epochs(self, run_id: str, epochs: Sequence[Epoch], *, heldout_split: str) -> None:
        begun = time.thread_time()
        super().log_epochs(run_id, epochs, heldout_split=heldout_split)
        self.watch.recorded.append(time.thread_time() - begun)

    def finish_run(self, run_id: str, result: RunResult, artifacts: Path | None) -> None:
        self.watch.finishing.append(time.perf_counter())
        super().finish_run(run_id, result, artifacts)
        self.watch.finishing.append(time.perf_counter())


def main() -> None:
    options = parse_options()
    where = environment(options, libraries=(*LIBRARIES, "sqlalchemy"))
    print(json.dumps(where, indent=1), flush=True)
    runs = []
    with TemporaryDirectory() as folder:
        path = Path(folder).resolve()
        write_arrays(path / "arrays", train=options.train_images, test=options.test_images)
        study = make_study(path / "arrays", epochs=options.epochs, seeds=options.runs)
        dataset = prepare(study.variants[0].settings["data"], cache=path / "data", code=study.code)
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
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3, help="runs that are timed, one after the other")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def make_study(arrays: Path, *, epochs: int, seeds: int) -> Study:
    document = {
        "name": "tracking",
        "data": {"name": "benchmarks.arrays:load", "root": str(arrays), "validation": "none"},
        "model": {"name": "cnn"},
        "training": {"epochs": epochs},
        "factors": {"model.depth": [3, 4]},
        "seeds": max(seeds, 2),
    }
    return parse_study(json.dumps(document).encode(), source="the benchmark's study")


def timed_run(study: Study, dataset: Dataset, folder: Path, *, seed: int) -> dict[str, float]:
    """Train the baseline with a seed in a fresh store and state, and return shares and seconds."""
    folder.mkdir()
    watch = Watch()
    tracker = WatchedTracker(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", watch=watch)
    plan = plan_of(study, data=dataset.facts)
    record = tracker.open_study(plan)
    planned = next(one for one in plan.runs if one.variant == study.variants[0].name and one.seed == seed)
    where_from = provenance("cpu")
    job = Job(
        planned=planned,
        run_id=tracker.start_run(record, planned, where_from),
        settings=plan.variant(planned.variant).settings,
        heldout_split=plan.heldout_split,
        data_folder=dataset.folder,
        folder=State(folder=folder / "state").begun(study.name, planned.identity),
        tracker=tracker,
        device="cpu",
        provenance=where_from,
        code=study.code,
        description=RunDescription.of(planned, plan),
    )
    with training_watched(watch):
        result = run_job(job)
    if result.outcome is not Outcome.DONE:
        raise SystemExit(f"the run ended as {result.outcome}:\n{result.error}")
    return shares(watch, ended=time.perf_counter())


@contextmanager
def training_watched(watch: Watch) -> Iterator[None]:
    """Let the worker's training be timed where it gives up its thread and gets it again."""
    train = ladder.train_eager
    ladder.train_eager = watch.watched(train)
    try:
        yield
    finally:
        ladder.train_eager = train


def shares(watch: Watch, *, ended: float) -> dict[str, float]:
    *yielded, trained = watch.yielded
    begin_of_finish, end_of_finish = watch.finishing
    seconds = watch.resumed[-1] - watch.resumed[0]
    outside = [later - earlier for earlier, later in zip(yielded, watch.resumed[1:], strict=True)]
    return {
        "epoch_s": seconds / len(yielded),
        "tracking_share": sum(outside) / seconds,
        "longest_ms": 1000 * max(outside),
        "uploader_cpu_share": sum(watch.recorded) / seconds,
        "artifacts_s": begin_of_finish - trained,
        "finish_s": end_of_finish - begin_of_finish,
        "end_s": ended - trained,
    }


def print_result(found: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{'':<42}{'median':>9}{'lowest':>9}{'highest':>9}")
    for name, label, factor in (
        ("epoch_s", "an epoch, s", 1),
        ("tracking_share", "of it in tracking, %", 100),
        ("longest_ms", "in the slowest epoch, ms", 1),
        ("uploader_cpu_share", "CPU of the uploading thread, %", 100),
        ("artifacts_s", "end: artifacts, last epoch uploaded, s", 1),
        ("finish_s", "end: recorded, s", 1),
        ("end_s", "end: together, s", 1),
    ):
        values = [factor * found[name][key] for key in ("median", "lowest", "highest")]
        print(f"{label:<42}" + "".join(f"{value:>9.3f}" for value in values))


if __name__ == "__main__":
    main()
