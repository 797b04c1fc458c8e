"""Trains what a schedule has left on an executor, keeps the tracker told, and says where it stands."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeVar

from ablation.coordinator.budget import Allowance, Budget
from ablation.coordinator.jobs import StudyJobs
from ablation.coordinator.lease import Lease
from ablation.coordinator.looks import LooksUnderWay, confusion_at_chance
from ablation.coordinator.losses import Losses, ResultLost, fate, result_of_lost_worker
from ablation.coordinator.progress import Progress, by_variant
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.errors import AblationError, MetricsMissing, StorageUnavailable
from ablation.executors import Executor, NodeLost, TakenSlots, WorkerLost
from ablation.records import Epoch, Outcome, PlannedRun, RecordedRun, RunResult
from ablation.scheduling import Schedule
from ablation.stopping import Preempted, stopping
from ablation.storage.locks import Coordination
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.tracking import StudyRecord, StudyStatus, Tracker
from ablation.worker import DeviceLost, Fusing, alike, run_jobs

T = TypeVar("T")
POLL_S = 0.5
NO_WORKER = "there is no worker now that is fit and free; the study waits for one"
LAST_UPLOADS_S = 3.0
LAST_RELEASE_S = 1.0
FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0
STORAGE_PATIENCE_S = 3600.0
MOST_FUSED = 32
"""Runs that a GPU trains together by default: about where the original CNN fills one."""


@dataclass(slots=True, kw_only=True)
class _UnderWay:
    """A run under way, and the slot that its job runs in."""

    planned: PlannedRun
    slot: str


@dataclass(slots=True, kw_only=True)
class Execution:
    """One execution of a study: what is under way, and how what has ended ended."""

    lease: Lease
    tracker: Tracker
    uploads: Uploads
    lock: Coordination
    executor: Executor
    state: State
    budget: Budget
    jobs: StudyJobs
    fuse: int | None = None
    was_out_of_budget: bool = False
    status_before: StudyStatus | None = None
    """Of the study, where this execution plans no other runs than the one before."""
    running: dict[Future[tuple[RunResult, ...]], tuple[_UnderWay, ...]] = field(default_factory=dict)
    ended: Counter[Outcome] = field(default_factory=Counter)
    ended_of: Counter[str] = field(default_factory=Counter)
    """By variant, as `ended` is by outcome."""
    losses: Losses = field(default_factory=Losses)
    schedule: Schedule | None = None
    looks: LooksUnderWay | None = None
    allowance: Allowance | None = None
    slots: TakenSlots = field(init=False)
    _done: SimpleQueue[Future[tuple[RunResult, ...]]] = field(default_factory=SimpleQueue)
    _changed: set[PlannedRun] = field(default_factory=set)
    _under_way: dict[PlannedRun, Epoch | None] = field(default_factory=dict)
    """The latest epoch of each run under way, as it was when its folder had news last."""
    _said: set[str] = field(default_factory=set)
    _problem: str | None = None

    def __post_init__(self) -> None:
        self.slots = TakenSlots(self.executor)

    @property
    def record(self) -> StudyRecord:
        return self.lease.record

    def train(
        self, schedule: Schedule, recorded: Sequence[RecordedRun], looks: LooksUnderWay
    ) -> Generator[Progress, None, None]:
        """Train what the schedule has left, as many at a time as the executor has slots, waiting where it has none.

        A look that is complete may ask for more, which is begun where it fits into what is left of the budget.

        A run that cannot be kept, or whose code was edited, ends the execution, but not the runs beside it: they are
        let finish, and the next one goes on with the others.
        """
        self.schedule, self.looks = schedule, looks
        allowance = self.allowance = Allowance(self.budget, looks, recorded, slots=lambda: len(self.executor.slots))
        allowance.decide()
        ended = {run.planned.identity: run for run in recorded if run.outcome is not None}
        self.ended.update(run.outcome for run in ended.values() if run.outcome is not None)
        self.ended_of.update(run.planned.variant for run in ended.values())
        failed: AblationError | None = None
        yield self._progress()
        while True:
            while (slot := self.slots.first_free()) and failed is None and not allowance.is_halted:
                if not (group := (yield from self._next_group(schedule))):
                    break
                self._submit(group, slot)
            if not self.running:
                if not slot and failed is None and self._left:
                    if self.budget.is_gone:
                        allowance.halt()
                    yield from self.await_slot()
                    continue
                if failed is not None:
                    raise failed
                if (said := allowance.conclude()) is not None:
                    yield self._progress(note=said)
                return
            done = next_done(self._done)
            if stopping.is_asked:
                raise KeyboardInterrupt
            self.uploads.check()
            for future in done:
                group_under_way = self.running[future]
                for position, under in enumerate(group_under_way):
                    try:
                        yield from self._settle(future, position, under, schedule)
                    except AblationError as error:
                        failed = error
                self.slots.give_back(self.running.pop(future)[0].slot)
            yield self._progress(note=self._upload_note())
            for note in self.executor.take_notes():
                yield self._progress(note=note)

    def await_slot(self) -> Generator[Progress, None, None]:
        """Wait a moment for an executor that has no worker now, and say so once in an execution."""
        note = None if NO_WORKER in self._said else NO_WORKER
        self._said.add(NO_WORKER)
        yield self._progress(note=note, waiting=NO_WORKER)
        for said in self.executor.take_notes():
            yield self._progress(note=said, waiting=NO_WORKER)
        time.sleep(POLL_S)
        if stopping.is_asked:
            raise KeyboardInterrupt
        self.uploads.check()

    def interrupt(self, *, killed: bool) -> None:
        """End what is under way in good order; what is not recorded in time is recorded by the next execution."""
        self.executor.stop()
        given_back = []
        for future, group in self.running.items():
            is_done = future.done() and not future.cancelled() and future.exception() is None
            for under in group:
                (self.uploads.end if is_done else self.uploads.leave)(under.planned)
                given_back += [] if is_done else [under.planned]
        releasing = threading.Thread(target=self._release, args=[given_back], daemon=True)
        releasing.start()  # its database may take a minute to say no
        self.uploads.close(last_words=self._last_words(killed=killed), limit_s=LAST_UPLOADS_S)
        releasing.join(timeout=LAST_RELEASE_S)

    def _last_words(self, *, killed: bool) -> StudyStatus:
        """Return how the study stands; one that was finished stays so where this execution has trained nothing."""
        if self.schedule is None and self.status_before == "FINISHED":
            return "FINISHED"
        return "KILLED" if killed else "FAILED"

    def _release(self, runs: Sequence[PlannedRun]) -> None:
        """Give runs back to the schedule; those that are not are by the next execution."""
        if self.schedule is None:
            return
        with contextlib.suppress(Exception):  # the error that brought us here is the one to be seen
            for planned in runs:
                self.schedule.release(planned)

    def _next_group(self, schedule: Schedule) -> Generator[Progress, None, tuple[PlannedRun, ...]]:
        """Claim what the next job trains: one run, or those that can be fused, shared among the devices."""
        shared = math.ceil(self._left / max(1, len(self.executor.slots)))
        limit = min(self._most_fused, max(1, shared))
        return (yield from self.stored(lambda: schedule.next_group(limit)))

    @property
    def _left(self) -> int:
        """How many runs have not ended."""
        return self._asked - sum(self.ended.values())

    @property
    def _asked(self) -> int:
        """How many runs have been asked for so far, and may be begun."""
        if self.looks is None or self.allowance is None:
            return len(self.record.plan.runs_to_train())
        return self.looks.count - self.allowance.withheld

    def stored(self, operation: Callable[[], T]) -> Generator[Progress, None, T]:
        """Do something with Optuna's storage, again and again for an hour where that fails, and say so.

        Raises:
            StorageUnavailable: it failed for all that time.
            DiskFull: its file cannot grow.
            StudyLocked: another process has taken the study over meanwhile.
        """
        begun, delay = time.monotonic(), FIRST_DELAY_S
        while True:
            try:
                self.lock.check()
                return operation()
            except StorageUnavailable as error:
                if time.monotonic() - begun > STORAGE_PATIENCE_S:
                    raise
                yield self._progress(note=f"{error} Trying again in {delay:.0f} s, for an hour at most")
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                time.sleep(POLL_S)
                yield self._progress()
            delay = min(LONGEST_DELAY_S, 2 * delay)

    @property
    def _most_fused(self) -> int:
        """How many runs a job may train: by default as many as pay on a GPU, and one on a CPU, where fusing loses."""
        if self.record.plan.is_own_training:
            return 1
        return self.fuse or (MOST_FUSED if self.executor.is_on_gpu else 1)

    def alike(self, planned: PlannedRun) -> str:
        """Return what runs must have in common to be trained by one job."""
        if self._most_fused == 1 or self.losses.workers[planned.identity].count:
            return planned.identity  # alone, after a death that it may have been the cause of
        return alike(self.record.plan.variant(planned.variant).settings, self._folder(planned))

    def _submit(self, group: Sequence[PlannedRun], slot: str) -> None:
        """Start a job for runs that are claimed; until it is running they count as under way with it."""
        placeholder: Future[tuple[RunResult, ...]] = Future()
        self.running[placeholder] = tuple(_UnderWay(planned=planned, slot=slot) for planned in group)
        self.slots.take(slot)
        self._under_way.update(dict.fromkeys(group))
        for planned in group:
            upload_run(self.uploads, planned, self._folder(planned), plan=self.record.plan, state=self.state)
        jobs = [self.jobs.of_run(planned, self.record.plan, slot=slot) for planned in group]
        assert self.allowance is not None
        self.allowance.begin(tuple(group))
        future = self.executor.submit(run_jobs, jobs, self._fusing(), files=self.jobs.files(jobs, self.note_change))
        self.running[future] = self.running.pop(placeholder)
        future.add_done_callback(self._done.put)

    def note_change(self, planned: PlannedRun) -> None:
        """Note that a run's folder has news; called by threads of the executor."""
        self._changed.add(planned)
        self.uploads.changed(planned)

    def _fusing(self) -> Fusing | None:
        if self._most_fused == 1:
            return None
        return Fusing(cache=self.jobs.below(self.state.backends), must_gain=self.fuse is None)

    def _settle(
        self, future: Future[tuple[RunResult, ...]], position: int, under: _UnderWay, schedule: Schedule
    ) -> Generator[Progress, None, None]:
        """Take a run's result; one whose worker died goes on, a few times, before it counts as failed."""
        error, planned, allowance = future.exception(), under.planned, self.allowance
        finished = self._folder(planned).ended()
        self._under_way.pop(planned, None)
        assert allowance is not None
        if error is None and finished is None:
            error = ResultLost()
        if error is None:
            result = future.result()[position]
        elif isinstance(error, WorkerLost | NodeLost) and finished is not None:
            result = finished  # it died after its work was done
        elif self.losses.are_too_many(error, planned, self._folder(planned)):
            assert error is not None
            result = result_of_lost_worker(planned, error)
            self._folder(planned).finish(result)
        else:
            self.uploads.leave(planned)
            allowance.give_back(planned)
            yield from self.stored(lambda: schedule.release(planned))
            if not isinstance(error, WorkerLost | NodeLost | DeviceLost | Preempted):
                raise error
            yield self._progress(note=f"{planned.name}: {fate(error)}; {self._where_it_goes_on(planned)}")
            return
        record = self._recorded(planned, result)  # its folder may be moved once the uploads know that it ended
        self.uploads.end(planned)
        self.ended[result.outcome] += 1
        self.ended_of[planned.variant] += 1
        allowance.end(planned, result.metrics)
        metric = self.record.plan.locked.metric.name
        value = result.metrics.get(metric)
        yield from self.stored(lambda: schedule.tell(planned, outcome=result.outcome, value=value))
        news = [*self._news(planned, result), *self._look(record, schedule, allowance)]
        yield self._progress(latest=(planned, result), note="; ".join(news) or None)
        if result.failure == "metrics" and not any(self.ended[outcome] for outcome in Outcome if outcome.is_result):
            raise MetricsMissing(self.record.plan.name, planned.name, result.error or "")

    def _look(self, record: RecordedRun, schedule: Schedule, allowance: Allowance) -> Iterator[str]:
        """Ask for the runs of the next look, where this result completes one; have that recorded, and say it."""
        assert self.looks is not None
        before = self.looks.look
        allowance.ask(self.looks.add(record))
        released = allowance.decide()
        schedule.extend(released)
        if self.looks.look != before and self.looks.text is not None:
            self.uploads.tell_look(self.looks.look)
            yield self.looks.text
        if (said := allowance.begun_text(released)) is not None:
            yield said

    def _where_it_goes_on(self, planned: PlannedRun) -> str:
        folder = self._folder(planned)
        if not folder.kept_checkpoints():
            return "it begins anew"
        epochs = folder.lasting_epochs()
        return f"it resumes after epoch {epochs}" if epochs else "it resumes from its checkpoint"

    def _upload_note(self) -> str | None:
        """Say once that the tracker fails, and once that it works again, and what became of the lease."""
        if self.lease.notes:
            return self.lease.notes.pop(0)
        before, self._problem = self._problem, self.uploads.problem
        if self._problem is not None and before is None:
            return f"{self._problem} Training goes on; what is measured is kept, and recorded when it can be"
        return "MLflow answers again" if before is not None and self._problem is None else None

    def _news(self, planned: PlannedRun, result: RunResult) -> Iterator[str]:
        """Yield why a run was trained by no faster path, and what of it is not recorded; each once in an execution."""
        slower = {result.path_note: f"trained by the {result.path} path, {result.path_note}"}
        known = slower if result.path_note.startswith("not ") else {}
        for key, sentence in {**known, **{said: f"{planned.name}: {said}" for said in result.left_out}}.items():
            if key not in self._said:
                self._said.add(key)
                yield sentence

    def _progress(
        self,
        *,
        latest: tuple[PlannedRun, RunResult] | None = None,
        note: str | None = None,
        waiting: str | None = None,
    ) -> Progress:
        for planned in self.take_changed():
            if planned in self._under_way:
                self._under_way[planned] = self._folder(planned).latest_epoch()
        return Progress(
            planned=self._asked,
            ended=dict(self.ended),
            variants=by_variant(self.looks.count_by_variant, self.ended_of) if self.looks is not None else (),
            running=tuple(self._under_way.items()),
            latest=latest,
            note=note,
            look=self.looks.text if self.looks is not None else None,
            budget=self.allowance.text() if self.allowance is not None else self.budget.text(),
            waiting=waiting,
        )

    def take_changed(self) -> Iterator[PlannedRun]:
        """Yield the runs whose folders have news since this was asked last; others may be added meanwhile."""
        with contextlib.suppress(KeyError):
            while True:
                yield self._changed.pop()

    def _recorded(self, planned: PlannedRun, result: RunResult) -> RecordedRun:
        """Return a result as its record will be, with what looks need of its files."""
        confusion = confusion_at_chance(self.record.plan, planned.variant, result, self._folder(planned))
        return RecordedRun(
            planned=planned,
            run_id=None,
            outcome=result.outcome,
            metrics=result.metrics,
            curves={},
            confusion=confusion,
        )

    def _folder(self, planned: PlannedRun) -> RunFolder:
        return self.state.begun(self.record.plan.name, planned.identity)


def next_done(done: SimpleQueue[Future[T]]) -> list[Future[T]]:
    """Wait a moment for jobs that have ended, and return them; those given here by callbacks of their futures."""
    ended: list[Future[T]] = []
    with contextlib.suppress(Empty):
        ended.append(done.get(timeout=POLL_S))
        while True:
            ended.append(done.get_nowait())
    return ended
