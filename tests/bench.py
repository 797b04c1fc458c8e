"""A place where studies are run: a tracker in memory, runs trained in this process in a fraction of a second each."""

import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ablation.coordinator.conclusion import StudyOutcome
from ablation.coordinator.progress import Progress
from ablation.coordinator.request import Request
from ablation.executors import Executor, Files, InlineExecutor, Place
from ablation.pipeline import run_study
from ablation.records import Outcome, PlannedRun, RunResult
from ablation.scheduling import default_storage
from ablation.storage.run_folder import EPOCHS, RunFolder
from ablation.storage.state import State
from ablation.study import Study
from ablation.tracking import MemoryTracker, Tracker
from ablation.worker.run import Job, RunRecord, run_jobs


class Jobs(InlineExecutor):
    """Runs each job in this process, and keeps what it was given, as it is where it runs."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.given: list[Job] = []

    def submit(self, function: Any, *args: Any, files: Files | None = None) -> Any:
        assert files is not None
        given = args[0] if isinstance(args[0], list) else [args[0]]
        self.given += [job.at(Place(folder=files.home)) for job in given]
        return super().submit(function, *args, files=files)


class Remembering(InlineExecutor):
    """Trains in this process what no test before has trained; of the rest it has the epochs, artifacts and result.

    An identity stands for all that a run comes to, but for times. What may be another training all the same is
    trained: by user code, measured by it, with others, resumed from a checkpoint, or where training is patched.
    """

    def __init__(self) -> None:
        super().__init__(device="cpu")

    def submit(self, function: Any, *args: Any, files: Files | None = None) -> Any:
        is_plain = function is run_jobs and args[1:] in ((), (None,)) and files is not None
        if is_plain and all(_is_plain(job.at(Place(folder=files.home))) for job in args[0]):
            return super().submit(_trained_before, *args, files=files)
        return super().submit(function, *args, files=files)


def _is_plain(job: Job) -> bool:
    return job.code_digest is None and not job.metrics and not job.folder.kept_checkpoints()


def _trained_before(jobs: Sequence[Job], _: None, place: Place) -> tuple[RunResult, ...]:
    here = [job.at(place) for job in jobs]
    return tuple(_recalled(job) if _memory(job.planned.identity).exists() else _remembered(job) for job in here)


def _remembered(job: Job) -> RunResult:
    (result,) = run_jobs([job])
    if result.outcome.is_result:
        shutil.copytree(job.folder.path, _memory(job.planned.identity))
    return result


def _recalled(job: Job) -> RunResult:
    before, record = RunFolder(path=_memory(job.planned.identity)), RunRecord(job)
    record.begin_anew()
    shutil.copytree(before.artifacts, job.folder.artifacts, dirs_exist_ok=True)
    if (before.path / EPOCHS).exists():
        shutil.copy(before.path / EPOCHS, job.folder.path)
    result = before.ended()
    assert result is not None
    return record.finish(result)


@cache
def _all_memories() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ablation-trained-")


def _memory(identity: str) -> Path:
    return Path(_all_memories().name, identity)


class Bench:
    """A place where studies are run; `trained` collects the runs that were trained, in order.

    `is_remembering` is for tests to which it makes no difference when their runs were trained: see Remembering.
    """

    def __init__(self, folder: Path, data_cache: Path, *, is_remembering: bool = False) -> None:
        self.state = State(folder=folder)
        self.state.folder.mkdir(exist_ok=True)
        (self.state.folder / "data").symlink_to(data_cache)
        self.tracker: Tracker = MemoryTracker()
        self.trained: list[PlannedRun] = []
        self.notes: list[str] = []
        self.fuse: int | None = None
        self.cudnn_benchmark = False
        self.retry_failed = False
        self.is_fresh = False
        self.is_reused = False
        self.budget_s: float | None = None
        self.clock: Callable[[], float] = time.monotonic
        self.executor: Executor = Remembering() if is_remembering else InlineExecutor(device="cpu")

    def steps(self, study: Study) -> Generator[Progress, None, StudyOutcome]:
        return run_study(
            Request(
                study=study,
                tracker=self.tracker,
                executor=self.executor,
                storage_url=default_storage(self.state.folder),
                state=self.state,
                fuse=self.fuse,
                cudnn_benchmark=self.cudnn_benchmark,
                retry_failed=self.retry_failed,
                is_fresh=self.is_fresh,
                is_reused=self.is_reused,
                budget_s=self.budget_s,
                clock=self.clock,
            )
        )

    def run(self, study: Study) -> StudyOutcome:
        self.trained.clear()
        self.notes.clear()
        steps = self.steps(study)
        while True:
            try:
                self._note(next(steps))
            except StopIteration as end:
                outcome: StudyOutcome = end.value
                return outcome

    def _note(self, progress: Progress) -> None:
        if progress.latest is not None:
            self.trained.append(progress.latest[0])
        if progress.note is not None:
            self.notes.append(progress.note)

    def metrics(self, study: Study) -> dict[str, Mapping[str, float]]:
        record = self.tracker.find_study(study.name)
        assert record is not None
        kept = ("test_accuracy", "test_loss", "final_train_loss", "learning_curve_area")
        return {
            run.planned.name: {name: run.metrics[name] for name in kept}
            for run in self.tracker.recorded_runs(record)
            if run.outcome is Outcome.DONE
        }
