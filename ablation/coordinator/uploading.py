"""Records what lies in run folders: when it looks into which, what it tells the tracker, and again where that fails.

It opens a folder when it is told that something changed there, at most once per EVERY_S, and when the run has ended or
is due again: never because time went by. It runs in a thread of the coordinator's or in a process beside it, see
uploads.py, from which it takes the news and to which it reports.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ablation.errors import AblationError, RecordRefused, StudyTakenOver
from ablation.records import Outcome, PlannedRun, RunResult
from ablation.storage.recordable_files import keep_recordable_files
from ablation.storage.run_folder import RunFolder
from ablation.tracking import RunDescription, RunNews, StudyRecord, Tracker

EVERY_S = 1.0
"""Seconds between two looks at what a run under way has measured, and for which the uploader waits for news."""
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
ENOUGH_REFUSALS = 4
"""Times, over seven seconds, that a record is refused before it counts as refused for good: a server that starts anew
refuses for a moment, and a run may have been deleted meanwhile."""

NEVER_BEGUN = "never begun"
"""The attempt of a run that ended before it began, as its workers died."""

Fate = Literal["under way", "ended", "left"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A run to be recorded from its folder; `number` tells two beginnings of one run apart.

    `settings` are those of a run of tuning. `on_recorded` may be called in another process.
    """

    number: int
    planned: PlannedRun
    folder: RunFolder
    heldout_split: str
    description: RunDescription | None
    settings: Mapping[str, Any] | None
    on_recorded: Callable[[], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What an uploader has not been told yet; of uploads by their numbers.

    `record` is the study's, where it is another one than before; `look` how many of its looks are complete. When it is
    the last, all that is left is tried once more.
    """

    begun: Sequence[Upload] = ()
    fates: Mapping[int, Fate] = field(default_factory=dict)
    changed: Sequence[int] = ()
    record: StudyRecord | None = None
    look: int | None = None
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an upload: what the tracker calls the run, what stands in the way, whether all of it is there."""

    number: int
    run_id: str | None = None
    problem: str | None = None
    is_complete: bool = False


class Desk(Protocol):
    """Where an uploader takes news and leaves reports."""

    def take_news(self, reports: Sequence[Report], /, *, wait_s: float) -> News:
        """Leave reports and return what is new, at once where that is more than changes in folders."""
        ...

    def confirm(self, record: StudyRecord, /) -> StudyRecord:
        """See that this study is still this coordinator's; return its record, which may be another one by now.

        Raises:
            StudyTakenOver, TrackingUnavailable.
        """
        ...


@dataclass(slots=True, kw_only=True)
class _State:
    """How far an upload has come; `refusal` is why the tracker will never take its record, once that is known."""

    upload: Upload
    fate: Fate = "under way"
    attempt: str | None = None
    run_id: str | None = None
    epochs: int = 0
    looked: float = 0.0
    delay_s: float = 0.0
    not_before: float = 0.0
    problem: str | None = None
    refusals: int = 0
    refusal: str | None = None


class Uploader:
    """Brings what a desk tells of to a tracker, until it is told that there is no more; used by one thread.

    Raises StudyTakenOver where another process runs the study: nothing is written then.
    """

    def __init__(self, tracker: Tracker, desk: Desk) -> None:
        self._tracker = tracker
        self._desk = desk
        self._record: StudyRecord | None = None
        self._look: int | None = None
        self._states: dict[int, _State] = {}
        self._numbers: dict[PlannedRun, int] = {}
        self._due: dict[int, float] = {}
        self._queue: list[tuple[float, int]] = []
        """What is due when, with entries that `_due` has no more."""

    def run(self) -> None:
        reports: list[Report] = []
        while True:
            news = self._desk.take_news(reports, wait_s=self._pause_s())
            self._note(news)
            if news.is_last:
                break
            reports = self._bring_next()
        self._bring_look()
        left, self._due = sorted(self._due), {}
        self._desk.take_news(
            [report for number in left for report in self._try_to_bring(self._states[number])], wait_s=0.0
        )

    def _pause_s(self) -> float:
        first = self._first()
        return EVERY_S if first is None else min(EVERY_S, max(0.0, self._due[first] - time.monotonic()))

    def _first(self) -> int | None:
        """Return what is due first, if anything is."""
        while self._queue and self._due.get(self._queue[0][1]) != self._queue[0][0]:
            heapq.heappop(self._queue)
        return self._queue[0][1] if self._queue else None

    def _note(self, news: News) -> None:
        self._record = news.record or self._record
        self._look = news.look if news.look is not None else self._look
        for upload in news.begun:
            self._forget(self._numbers.get(upload.planned))
            self._numbers[upload.planned] = upload.number
            self._states[upload.number] = _State(upload=upload)
            self._set_due(upload.number, time.monotonic())  # after what has ended
        for number, fate in news.fates.items():
            if (state := self._states.get(number)) is not None:
                state.fate = fate
                self._set_due(number, state.not_before)
        for number in news.changed:
            if (state := self._states.get(number)) is not None:
                self._set_due(number, max(state.not_before, state.looked + EVERY_S))

    def _set_due(self, number: int, when: float) -> None:
        if when < self._due.get(number, float("inf")):
            self._due[number] = when
            heapq.heappush(self._queue, (when, number))

    def _forget(self, number: int | None) -> None:
        if number is not None and (state := self._states.pop(number, None)) is not None:
            self._due.pop(number, None)
            self._numbers.pop(state.upload.planned, None)

    def _bring_next(self) -> list[Report]:
        """Record a look that is complete, and what is due first, if anything is now."""
        self._bring_look()
        first = self._first()
        if first is None or self._due[first] > time.monotonic():
            return []
        del self._due[first]
        return self._try_to_bring(self._states[first])

    def _bring_look(self) -> None:
        look, self._look = self._look, None
        if look is not None:
            with contextlib.suppress(AblationError):  # it is told again with the next look, or with the report
                self._tracker.note_look(self._confirmed(), look)

    def _confirmed(self) -> StudyRecord:
        """Return the study's record, once it is seen that it is still ours to write to: before each batch of writes."""
        assert self._record is not None
        self._record = self._desk.confirm(self._record)
        return self._record

    def _try_to_bring(self, state: _State) -> list[Report]:
        before, state.looked = (state.run_id, state.problem), time.monotonic()
        try:
            is_complete = self._bring(state) if state.refusal is None else self._bring_refusal(state)
        except StudyTakenOver:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it is said, and tried again
            is_complete = False
            self._put_off(state, error)
        else:
            state.problem, state.delay_s, state.not_before, state.refusals = None, 0.0, 0.0, 0
        number = state.upload.number
        if is_complete:
            self._forget(number)
        elif (state.run_id, state.problem) == before:
            return []
        return [Report(number=number, run_id=state.run_id, problem=state.problem, is_complete=is_complete)]

    def _put_off(self, state: _State, error: Exception) -> None:
        """Try again later; what is refused again and again is refused for good, once there is no more to come."""
        state.run_id = None  # it is looked for anew: the tracker may have been told and the answer lost
        if isinstance(error, RecordRefused):
            state.refusals += 1
            is_for_good = state.refusals >= ENOUGH_REFUSALS and state.fate == "ended"
            state.refusal = error.reason if is_for_good else None
        else:
            state.problem = str(error) if isinstance(error, AblationError) else f"{type(error).__name__}: {error}"
        state.delay_s = min(LONGEST_DELAY_S, 2 * state.delay_s or FIRST_DELAY_S)
        state.not_before = time.monotonic() + state.delay_s
        self._set_due(state.upload.number, state.not_before)

    def _bring(self, state: _State) -> bool:
        """Record what is new of a run; say whether it is all there will be."""
        fate, folder = state.fate, state.upload.folder
        attempt, lasting = folder.attempt(), folder.lasting_epochs()
        if attempt is None and fate != "ended":
            return fate == "left"
        is_new = state.run_id is None or state.attempt != (attempt or NEVER_BEGUN)
        if not is_new and lasting <= state.epochs and fate == "under way":
            return False
        record = self._confirmed()
        if is_new or state.run_id is None:
            state.run_id = self._started(state.upload, record, attempt or NEVER_BEGUN)
            state.attempt, state.epochs = attempt or NEVER_BEGUN, 0
        news = RunNews(
            description=state.upload.description if is_new else None,
            epochs=[epoch for epoch in folder.epochs() if epoch.epoch <= lasting],
            told=state.epochs,
            heldout_split=state.upload.heldout_split,
        )
        if fate == "ended":
            self._finish(state.upload, state.run_id, news)
        elif is_new or lasting > state.epochs:
            self._tracker.log_run(state.run_id, news)
        state.epochs = lasting
        if fate == "left":
            self._tracker.abandon_run(state.run_id)
        return fate != "under way"

    def _finish(self, upload: Upload, run_id: str, news: RunNews) -> None:
        folder = upload.folder
        ended = folder.ended()
        assert ended is not None
        keep_recordable_files(folder.artifacts)  # a version before this one left what no store takes
        self._tracker.finish_run(run_id, ended, folder.artifacts if folder.artifacts.exists() else None, news)
        upload.on_recorded()

    def _started(self, upload: Upload, record: StudyRecord, attempt: str) -> str:
        where_from = upload.folder.provenance()
        if upload.settings is None:
            return self._tracker.start_run(record, upload.planned, where_from, attempt=attempt)
        return self._tracker.start_tuning_run(record, upload.planned, upload.settings, where_from, attempt=attempt)

    def _bring_refusal(self, state: _State) -> bool:
        """Record that a run's record was refused: a failure of that run alone; its folder keeps what it measured."""
        folder = state.upload.folder
        ended, attempt = folder.ended(), folder.attempt() or NEVER_BEGUN
        if state.fate == "left" or ended is None:
            return True
        record = self._confirmed()
        with contextlib.suppress(RecordRefused):  # then there is no record of it at all
            run_id = self._started(state.upload, record, attempt)
            self._tracker.finish_run(run_id, _refused(ended, f"{state.refusal}", folder), None)
        return True


def _refused(ended: RunResult, reason: str, folder: RunFolder) -> RunResult:
    """Return what is recorded of a run whose own record was refused."""
    return RunResult(
        identity=ended.identity,
        outcome=Outcome.FAILED,
        metrics={},
        epochs=ended.epochs,
        error=f"MLflow refuses its record: {reason}\nWhat it measured is kept: result.json of its folder {folder.path}",
        failure="record",
        ended_ms=ended.ended_ms,
    )
