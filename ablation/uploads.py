"""Brings runs from their folders to the tracker, from a thread of its own: nothing waits for it, and nothing is lost.

What a run measures is in its folder first. The one thread reads it there and records it, again and again where the
tracker fails, until it is there: recording the same again changes nothing. What is left when the process ends is
recorded by the next one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from ablation.errors import AblationError
from ablation.results import Plan, PlannedRun, RecordedRun
from ablation.state import RunFolder, State
from ablation.tracking import Holder, RunDescription, StudyRecord, StudyStatus, Tracker

EVERY_S = 1.0
"""Seconds between two looks at what the runs under way have measured."""
HELD_EVERY_S = 30.0
"""Seconds between two times that the tracker is told who runs the study."""
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
PATIENCE_S = 5.0
"""Seconds that anybody waits for a tracker that does not answer."""

Start = Callable[[str, Mapping[str, str]], str]
"""Makes or takes up the record of a run from its attempt and provenance, and returns its ID."""


@dataclass(slots=True, kw_only=True)
class _Upload:
    """A run on its way to the tracker; `fate` is set by whoever runs the study, all else by the thread."""

    planned: PlannedRun
    folder: RunFolder
    start: Start
    description: RunDescription | None
    heldout_split: str
    on_recorded: Callable[[], None]
    fate: Literal["under way", "ended", "left"] = "under way"
    attempt: str | None = None
    run_id: str | None = None
    epochs: int = 0
    delay_s: float = 0.0
    due: float = 0.0
    problem: str | None = None


class Uploads:
    """What a study's execution has still to tell the tracker.

    It may be used by one thread. `problem` says what stands in the way, None where nothing does.
    """

    def __init__(self, tracker: Tracker, record: StudyRecord, *, holder: Holder | None = None) -> None:
        self._tracker = tracker
        self._record = record
        self._holder = holder
        self._held = float("-inf")
        self._uploads: dict[str, _Upload] = {}
        self._run_ids: dict[str, str] = {}
        self._last_words: StudyStatus | None = None
        self._is_closing = False
        self._has_news = False
        self._changed = threading.Condition()
        self._accomplished = 0
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)

    def begin(
        self,
        planned: PlannedRun,
        folder: RunFolder,
        *,
        heldout_split: str,
        description: RunDescription | None = None,
        start: Start | None = None,
        on_recorded: Callable[[], None] = lambda: None,
    ) -> None:
        """Record a run from its folder as it goes on; `on_recorded` is called by the thread when all of it is."""
        upload = _Upload(
            planned=planned,
            folder=folder,
            start=start or self._starting(planned),
            description=description,
            heldout_split=heldout_split,
            on_recorded=on_recorded,
        )
        with self._changed:
            self._uploads[planned.name] = upload
            if not self._thread.is_alive() and not self._is_closing:
                self._thread.start()

    def end(self, planned: PlannedRun) -> None:
        """Record how the run ended, as its folder has it."""
        self._set_fate(planned, "ended")

    def leave(self, planned: PlannedRun) -> None:
        """Record that the run is not under way now; it goes on when it is begun again."""
        self._set_fate(planned, "left")

    def run_id(self, planned: PlannedRun, *, wait_s: float = 0.0) -> str | None:
        """Return what the tracker calls a run, None where it has not been told within so long."""
        with self._changed:
            self._changed.wait_for(lambda: planned.name in self._run_ids or self._has_problem(), timeout=wait_s)
            return self._run_ids.get(planned.name)

    @property
    def problem(self) -> str | None:
        with self._changed:
            return next((upload.problem for upload in self._uploads.values() if upload.problem), None)

    @property
    def waiting(self) -> int:
        """How many runs have ended and are not recorded."""
        with self._changed:
            return sum(upload.fate == "ended" for upload in self._uploads.values())

    def wait(self) -> bool:
        """Wait until all that has ended is recorded, or the tracker is seen not to answer; say whether it is."""
        accomplished, since = -1, time.monotonic()
        with self._changed:
            while any(upload.fate != "under way" for upload in self._uploads.values()):
                if self._accomplished != accomplished:
                    accomplished, since = self._accomplished, time.monotonic()
                is_stuck = time.monotonic() - since > PATIENCE_S
                if is_stuck and (self._has_problem() or not self._tracker.answers()):
                    return False
                if not self._thread.is_alive():
                    return False
                self._changed.wait(timeout=0.2)
        return True

    def close(self, *, last_words: StudyStatus | None = None, limit_s: float = PATIENCE_S) -> None:
        """Try once more to record what is left, then how the study stands, for so long at most."""
        with self._changed:
            self._is_closing, self._last_words = True, last_words
            for upload in self._uploads.values():
                upload.due = 0.0
            if not self._thread.is_alive() and last_words is not None and self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=limit_s)

    def _has_problem(self) -> bool:
        return any(upload.problem for upload in self._uploads.values())

    def _starting(self, planned: PlannedRun) -> Start:
        return lambda attempt, provenance: self._tracker.start_run(self._record, planned, provenance, attempt=attempt)

    def _set_fate(self, planned: PlannedRun, fate: Literal["ended", "left"]) -> None:
        with self._changed:
            if (upload := self._uploads.get(planned.name)) is not None:
                upload.fate = fate
            self._has_news = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                is_last, self._has_news = self._is_closing, False
                uploads = list(self._uploads.values())
            if self._holder is not None and time.monotonic() - self._held > HELD_EVERY_S:
                self._hold(self._holder)
            for upload in uploads:
                if upload.due <= time.monotonic() and self._is_current(upload):
                    self._try_to_bring(upload)
            if is_last:
                break
            with self._changed:
                if not (self._is_closing or self._has_news):
                    self._changed.wait(timeout=EVERY_S)
        if self._last_words is not None:
            with contextlib.suppress(Exception):  # the next execution says how the study stands
                self._tracker.close_study(self._record, self._last_words)

    def _is_current(self, upload: _Upload) -> bool:
        with self._changed:
            return self._uploads.get(upload.planned.name) is upload

    def _hold(self, holder: Holder) -> None:
        """Say that this process still runs the study."""
        with contextlib.suppress(Exception):  # it is said again
            self._tracker.hold(self._record, replace(holder, seen_ms=time.time_ns() // 1_000_000))
            self._held = time.monotonic()

    def _try_to_bring(self, upload: _Upload) -> None:
        try:
            is_brought = self._bring(upload)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is said, and tried again
            upload.run_id = None  # it is looked for anew: the tracker may have been told and the answer lost
            upload.problem = str(error) if isinstance(error, AblationError) else f"{type(error).__name__}: {error}"
            upload.delay_s = min(LONGEST_DELAY_S, 2 * upload.delay_s or FIRST_DELAY_S)
            upload.due = time.monotonic() + upload.delay_s
            return
        upload.problem, upload.delay_s = None, 0.0
        with self._changed:
            self._accomplished += is_brought
            if is_brought and self._uploads.get(upload.planned.name) is upload:
                del self._uploads[upload.planned.name]
            self._changed.notify_all()

    def _bring(self, upload: _Upload) -> bool:
        """Record what is new of a run; say whether it is all there will be."""
        fate, folder = upload.fate, upload.folder
        attempt = folder.attempt()
        if attempt is None and fate != "ended":
            return fate == "left"
        attempt = attempt or "never begun"
        if upload.run_id is None or upload.attempt != attempt:
            upload.run_id = upload.start(attempt, folder.provenance())
            upload.attempt, upload.epochs = attempt, 0
            with self._changed:
                self._run_ids[upload.planned.name] = upload.run_id
                self._changed.notify_all()
            if upload.description is not None:
                self._tracker.describe_run(upload.run_id, upload.description)
        lasting = folder.lasting_epochs()
        if lasting > upload.epochs:
            epochs = [epoch for epoch in folder.epochs() if upload.epochs < epoch.epoch <= lasting]
            self._tracker.log_epochs(upload.run_id, epochs, heldout_split=upload.heldout_split)
            upload.epochs = lasting
        if fate == "left":
            self._tracker.abandon_run(upload.run_id)
        if fate == "ended":
            ended = folder.ended()
            assert ended is not None
            self._tracker.finish_run(upload.run_id, ended, folder.artifacts if folder.artifacts.exists() else None)
            if self._is_current(upload):  # else it is trained again
                upload.on_recorded()
        return fate != "under way"


def upload_run(uploads: Uploads, planned: PlannedRun, folder: RunFolder, *, plan: Plan, state: State) -> None:
    """Have a planned run recorded from its folder, which is kept for other studies once it is."""
    uploads.begin(
        planned,
        folder,
        heldout_split=plan.heldout_split,
        description=RunDescription.of(planned, plan),
        on_recorded=partial(state.keep, plan.name, planned.identity),
    )


def recover_ended(
    uploads: Uploads, recorded: Sequence[RecordedRun], *, plan: Plan, state: State, retry_failed: bool = False
) -> tuple[RecordedRun, ...]:
    """Have the runs recorded that have ended in their folders and not in the tracker; return all as they will be.

    The folder of a run that was recorded by an execution that got no further is put where it belongs. A failed run that
    is to be trained again is not recorded as failed before.
    """
    if retry_failed:
        for run in recorded:
            ended = state.begun(plan.name, run.planned.identity).ended()
            if ended is not None and not ended.outcome.is_result:
                state.keep(plan.name, run.planned.identity)
    return tuple(_recovered(uploads, run, plan=plan, state=state) for run in recorded)


def _recovered(uploads: Uploads, recorded: RecordedRun, *, plan: Plan, state: State) -> RecordedRun:
    planned = recorded.planned
    begun = state.begun(plan.name, planned.identity)
    is_tried_again = not recorded.has_result and begun.result() is not None
    if recorded.outcome is not None and not is_tried_again:
        if begun.ended() is not None:
            state.keep(plan.name, planned.identity)
        return recorded
    folder = state.finished(plan.name, planned.identity) or begun
    ended = folder.ended()
    if ended is None:
        return recorded
    upload_run(uploads, planned, folder, plan=plan, state=state)
    uploads.end(planned)
    return replace(recorded, outcome=ended.outcome, metrics=ended.metrics, error=ended.error)
