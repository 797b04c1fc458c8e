"""Trains what a schedule has left on an executor, keeps the tracker told, and says where it stands."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.datasets import Dataset
from ablation.errors import AblationError, CodeChanged
from ablation.executors import Executor, is_worker_lost
from ablation.provenance import provenance
from ablation.results import Epoch, Outcome, PlannedRun, RecordedRun, RunResult
from ablation.scheduling import Schedule
from ablation.state import RunFolder, State
from ablation.study.spec import code_names
from ablation.tracking import RunDescription, StudyRecord, Tracker
from ablation.training.paths import NUMBERS
from ablation.worker import Fusing, Job, run_jobs, upload

POLL_S = 0.5
MAX_TRIES = 3
MOST_FUSED = 32
"""Runs that a GPU trains together by default: about where the original CNN fills one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands: how its runs ended so far, what is under way, and the run that ended just now."""

    planned: int
    ended: Mapping[Outcome, int]
    running: tuple[tuple[PlannedRun, Epoch | None], ...]
    latest: tuple[PlannedRun, RunResult] | None = None
    note: str | None = None


@dataclass(slots=True, kw_only=True)
class _UnderWay:
    """A run under way: where its job runs, what the tracker calls it, and which try it is."""

    planned: PlannedRun
    run_id: str
    slot: str
    attempt: int


@dataclass(slots=True, kw_only=True)
class Execution:
    """One execution of a study: what is under way, and how what has ended ended."""

    record: StudyRecord
    tracker: Tracker
    executor: Executor
    state: State
    dataset: Dataset | None
    code: CodeFolders = NO_FOLDERS
    code_digests: Mapping[str, str | None] = field(default_factory=dict)
    fuse: int | None = None
    running: dict[Future[tuple[RunResult, ...]], tuple[_UnderWay, ...]] = field(default_factory=dict)
    ended: Counter[Outcome] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    schedule: Schedule | None = None
    recovered: int = 0
    _said: set[str] = field(default_factory=set)

    def recover_finished(self) -> tuple[RecordedRun, ...]:
        """Record the runs that are finished in their folders and unknown to the tracker; return all as recorded."""
        plan = self.record.plan
        recorded = self.tracker.recorded_runs(self.record, with_details=False)
        without = {run.planned.identity: run for run in reversed(recorded) if not run.has_result}
        for run in without.values():
            folder = self.state.finished(plan.name, run.planned.identity)
            result = folder.result() if folder is not None else None
            if folder is not None and result is not None:
                run_id = self.tracker.start_run(self.record, run.planned, folder.provenance())
                self._upload(folder, result, run.planned, run_id)
                self.recovered += 1
        return self.tracker.recorded_runs(self.record, with_details=False) if self.recovered else recorded

    def train(self, schedule: Schedule, recorded: tuple[RecordedRun, ...]) -> Generator[Progress, None, None]:
        """Train what the schedule has left, as many at a time as the executor has slots.

        A run that could not be recorded, or whose code was edited, ends the execution, but not the runs beside it: they
        are let finish, and are recorded from their folders by the next one.
        """
        self.schedule = schedule
        ended = {run.planned.identity: run.outcome for run in recorded if run.outcome is not None and run.has_result}
        self.ended.update(ended.values())
        free = deque(self.executor.slots)
        unrecorded: AblationError | None = None
        yield self._progress()
        while True:
            while free and unrecorded is None and (group := self._next_group(schedule)):
                self._submit(group, free.popleft())
            if not self.running:
                if unrecorded is not None:
                    raise unrecorded
                return
            done, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in done:
                group_under_way = self.running.pop(future)
                free.append(group_under_way[0].slot)
                for position, under in enumerate(group_under_way):
                    try:
                        yield self._settle(future, position, under, schedule)
                    except AblationError as error:
                        unrecorded = error
            yield self._progress()

    def interrupt(self, *, killed: bool) -> None:
        """End what is under way and say so in the tracker, as far as it can be reached."""
        self.executor.stop()
        try:
            for under in self._under_way():
                self.tracker.abandon_run(under.run_id)
                if self.schedule is not None:
                    self.schedule.release(under.planned)
            self.tracker.close_study(self.record, "KILLED" if killed else "FAILED")
        except Exception:  # noqa: BLE001, S110 - the error that brought us here is the one to be seen
            pass

    def _under_way(self) -> Iterator[_UnderWay]:
        return itertools.chain.from_iterable(self.running.values())

    def _next_group(self, schedule: Schedule) -> tuple[PlannedRun, ...]:
        """Claim what the next job trains: one run, or those that can be fused, shared among the devices."""
        left = len(self.record.plan.runs_to_train()) - sum(self.ended.values())
        shared = math.ceil(left / len(self.executor.slots))
        return schedule.next_group(min(self._most_fused, max(1, shared)))

    @property
    def _most_fused(self) -> int:
        """How many runs a job may train: by default as many as pay on a GPU, and one on a CPU, where fusing loses."""
        if self.record.plan.is_own_training:
            return 1
        return self.fuse or (MOST_FUSED if self.executor.slots[0] != "cpu" else 1)

    def alike(self, planned: PlannedRun) -> str:
        """Return what two runs must have in common to be fused: all but numbers of the optimizer."""
        if self._most_fused == 1:
            return planned.identity
        settings = self.record.plan.variant(planned.variant).settings
        training = {key: value for key, value in settings["training"].items() if key not in NUMBERS}
        return json.dumps({**settings, "training": training}, sort_keys=True)

    def _submit(self, group: Sequence[PlannedRun], slot: str) -> None:
        """Start a job for runs that are claimed; those that the tracker was told of are abandoned if it cannot be."""
        under: list[_UnderWay] = []
        try:
            jobs = [self._job(planned, slot, under) for planned in group]
            self.running[self.executor.submit(run_jobs, jobs, self._fusing())] = tuple(under)
        except BaseException:  # the tracker is out of reach, or it was interrupted while it trained in this process
            for one in under:
                self.tracker.abandon_run(one.run_id)
            raise

    def _fusing(self) -> Fusing | None:
        if self._most_fused == 1:
            return None
        return Fusing(cache=self.state.backends, must_gain=self.fuse is None)

    def _job(self, planned: PlannedRun, slot: str, under: list[_UnderWay]) -> Job:
        """Tell the tracker of a run and return its job."""
        self.attempts[planned.identity] += 1
        variant = self.record.plan.variant(planned.variant)
        packages = self.code.packages(code_names(variant.settings))
        where_from = provenance(slot, packages=packages)
        run_id = self.tracker.start_run(self.record, planned, where_from)
        under.append(_UnderWay(planned=planned, run_id=run_id, slot=slot, attempt=self.attempts[planned.identity]))
        return Job(
            planned=planned,
            run_id=run_id,
            settings=variant.settings,
            heldout_split=self.record.plan.heldout_split,
            data_folder=self.dataset.folder if self.dataset is not None else None,
            folder=self._folder(planned),
            tracker=self.tracker,
            device=slot,
            provenance=where_from,
            code=self.code,
            code_digest=self.code_digests.get(variant.name),
            expected_metrics=self.record.plan.expected_metrics,
            description=RunDescription.of(planned, self.record.plan),
        )

    def _settle(
        self, future: Future[tuple[RunResult, ...]], position: int, under: _UnderWay, schedule: Schedule
    ) -> Progress:
        """Take a run's result; one whose worker died is tried again, a few times, before it counts as failed."""
        error = future.exception()
        if error is None:
            result = future.result()[position]
        elif isinstance(error, CodeChanged):
            self.tracker.abandon_run(under.run_id)
            schedule.release(under.planned)
            raise error
        elif not is_worker_lost(error):
            raise error
        elif (finished := self._folder(under.planned).result()) is not None:  # it died after its work was done
            result = finished
            self._upload(self._folder(under.planned), result, under.planned, under.run_id)
        elif under.attempt < MAX_TRIES:
            self.tracker.abandon_run(under.run_id)
            schedule.release(under.planned)
            return self._progress(note=f"{under.planned.name}: its worker died; it will be trained again")
        else:
            lost = f"its worker died {MAX_TRIES} times, the last time with: {error}"
            result = RunResult(
                identity=under.planned.identity, outcome=Outcome.FAILED, metrics={}, epochs=0, error=lost
            )
            self.tracker.finish_run(under.run_id, result, None)
        self.ended[result.outcome] += 1
        metric = self.record.plan.locked["metric"]["name"]
        if result.outcome.is_result:
            self.state.keep(self.record.plan.name, under.planned.identity)
        schedule.tell(under.planned, outcome=result.outcome, value=result.metrics.get(metric))
        return self._progress(latest=(under.planned, result), note=self._why_slower(result))

    def _why_slower(self, result: RunResult) -> str | None:
        """Return why a run was trained by no faster path, the first time that this is the reason."""
        if not result.path_note.startswith("not ") or result.path_note in self._said:
            return None
        self._said.add(result.path_note)
        return f"trained by the {result.path} path, {result.path_note}"

    def _progress(self, *, latest: tuple[PlannedRun, RunResult] | None = None, note: str | None = None) -> Progress:
        running = [(under.planned, self._folder(under.planned).latest_epoch()) for under in self._under_way()]
        return Progress(
            planned=len(self.record.plan.runs_to_train()),
            ended=dict(self.ended),
            running=tuple(running),
            latest=latest,
            note=note,
        )

    def _upload(self, folder: RunFolder, result: RunResult, planned: PlannedRun, run_id: str) -> None:
        plan = self.record.plan
        upload(
            folder,
            result,
            tracker=self.tracker,
            run_id=run_id,
            description=RunDescription.of(planned, plan),
            heldout_split=plan.heldout_split,
        )

    def _folder(self, planned: PlannedRun) -> RunFolder:
        return self.state.begun(self.record.plan.name, planned.identity)
