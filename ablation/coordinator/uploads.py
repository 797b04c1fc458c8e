"""Brings runs from their folders to the tracker, from a thread of its own: nothing waits for it, and nothing is lost.

What a run measures is in its folder first. The one thread reads it there and records it, again and again where the
tracker fails, until it is there: recording the same again changes nothing. What is left when the process ends is
recorded by the next one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ablation.coordinator.lease import Lease
from ablation.errors import AblationError, RecordRefused, StudyTakenOver
from ablation.records import Outcome, Plan, PlannedRun, RunResult
from ablation.storage.recordable_files import keep_recordable_files
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.tracking import RunDescription, StudyStatus, Tracker

EVERY_S = 1.0
"""Seconds between two looks at what the runs under way have measured."""
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
PATIENCE_S = 5.0
"""Seconds that anybody waits for a tracker that does not answer."""
ENOUGH_REFUSALS = 4
"""Times, over seven seconds, that a record is refused before it counts as refused for good: a server that starts anew
refuses for a moment, and a run may have been deleted meanwhile."""

NEVER_BEGUN = "never begun"
"""The attempt of a run that ended before it began, as its workers died."""

Start = Callable[[str, Mapping[str, str]], str]
"""Makes or takes up the record of a run from its attempt and provenance, and returns its ID."""


@dataclass(slots=True, kw_only=True)
class _Upload:
    """A run on its way to the tracker; `fate` is set by whoever runs the study, all else by the thread.

    `refusal` is why the tracker will never take its record, once that is known.
    """

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
    refusals: int = 0
    refusal: str | None = None


class Uploads:
    """What a study's execution has still to tell the tracker, under the lease that it has on the study.

    It may be used by one thread. `problem` says what stands in the way, None where nothing does. The lease is released
    when this is closed.
    """

    def __init__(self, tracker: Tracker, lease: Lease) -> None:
        self._tracker = tracker
        self._lease = lease
        self._uploads: dict[PlannedRun, _Upload] = {}
        self._run_ids: dict[PlannedRun, str] = {}
        self._last_words: StudyStatus | None = None
        self._look: int | None = None
        self._is_closing = False
        self._has_news = False
        self._changed = threading.Condition()
        self._accomplished = 0
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

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
            self._uploads[planned] = upload
            self._changed.notify_all()

    def end(self, planned: PlannedRun) -> None:
        """Record how the run ended, as its folder has it."""
        self._set_fate(planned, "ended")

    def leave(self, planned: PlannedRun) -> None:
        """Record that the run is not under way now; it goes on when it is begun again."""
        self._set_fate(planned, "left")

    def tell_look(self, look: int) -> None:
        """Record how many of the plan's looks are complete; what is not told in time is told with the report."""
        with self._changed:
            self._look, self._has_news = look, True
            self._changed.notify_all()

    def run_id(self, planned: PlannedRun, *, wait_s: float = 0.0) -> str | None:
        """Return what the tracker calls a run, None where it has not been told within so long."""
        with self._changed:
            self._changed.wait_for(lambda: planned in self._run_ids or self._has_problem(), timeout=wait_s)
            return self._run_ids.get(planned)

    @property
    def problem(self) -> str | None:
        with self._changed:
            return next((upload.problem for upload in self._uploads.values() if upload.problem), None)

    @property
    def waiting(self) -> int:
        """How many runs have ended and are not recorded."""
        with self._changed:
            return sum(upload.fate == "ended" for upload in self._uploads.values())

    def check(self) -> None:
        """See that this process still runs the study, as far as that has been seen.

        Raises:
            StudyTakenOver: another one does.
        """
        if self._lease.lost is not None:
            raise self._lease.lost

    def wait(self) -> bool:
        """Wait until all that has ended is recorded, or the tracker is seen not to answer; say whether it is.

        Raises:
            StudyTakenOver: another process runs the study now.
        """
        accomplished, since = -1, time.monotonic()
        self.check()
        with self._changed:
            while any(upload.fate != "under way" for upload in self._uploads.values()):
                if self._accomplished != accomplished:
                    accomplished, since = self._accomplished, time.monotonic()
                self.check()
                is_stuck = time.monotonic() - since > PATIENCE_S
                if is_stuck and (self._has_problem() or not self._tracker.answers()):
                    return False
                if not self._thread.is_alive():
                    return False
                self._changed.wait(timeout=0.2)
        return True

    def close(self, *, last_words: StudyStatus | None = None, limit_s: float = PATIENCE_S) -> None:
        """Try once more to record what is left, then how the study stands, for so long at most; once is enough."""
        with self._changed:
            if self._is_closing:
                return
            self._is_closing, self._last_words = True, last_words
            for upload in self._uploads.values():
                upload.due = 0.0
            self._changed.notify_all()
        self._thread.join(timeout=limit_s)

    def _has_problem(self) -> bool:
        return any(upload.problem for upload in self._uploads.values())

    def _starting(self, planned: PlannedRun) -> Start:
        return lambda attempt, where_from: self._tracker.start_run(
            self._lease.record, planned, where_from, attempt=attempt
        )

    def _set_fate(self, planned: PlannedRun, fate: Literal["ended", "left"]) -> None:
        with self._changed:
            if (upload := self._uploads.get(planned)) is not None:
                upload.fate = fate
            self._has_news = True
            self._changed.notify_all()

    def _work(self) -> None:
        with contextlib.suppress(StudyTakenOver):  # whoever runs the study sees it at the lease, and nothing is written
            self._work_until_closed()
            with contextlib.suppress(Exception):  # the next execution says how the study stands
                self._end()

    def _work_until_closed(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                is_last, self._has_news = self._is_closing, False
                uploads = list(self._uploads.values())
            with contextlib.suppress(AblationError):  # it is told again with the next look, or with the report
                self._bring_look()
            for upload in uploads:
                if upload.due <= time.monotonic() and self._is_current(upload):
                    self._try_to_bring(upload)
            with self._changed:
                if not (is_last or self._is_closing or self._has_news):
                    self._changed.wait(timeout=EVERY_S)

    def _bring_look(self) -> None:
        with self._changed:
            look, self._look = self._look, None
        if look is not None:
            self._lease.check()
            self._tracker.note_look(self._lease.record, look)

    def _end(self) -> None:
        """Say how the study stands, where that is to be said, and leave it to others."""
        if self._last_words is not None and self._lease.is_open:
            self._lease.check()
            self._tracker.close_study(self._lease.record, self._last_words)
        self._lease.release()

    def _is_current(self, upload: _Upload) -> bool:
        with self._changed:
            return self._uploads.get(upload.planned) is upload

    def _try_to_bring(self, upload: _Upload) -> None:
        try:
            is_brought = self._bring(upload) if upload.refusal is None else self._bring_refusal(upload)
        except StudyTakenOver:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it is said, and tried again
            self._put_off(upload, error)
            return
        upload.problem, upload.delay_s, upload.refusals = None, 0.0, 0
        with self._changed:
            self._accomplished += is_brought
            if is_brought and self._uploads.get(upload.planned) is upload:
                del self._uploads[upload.planned]
            self._changed.notify_all()

    def _put_off(self, upload: _Upload, error: Exception) -> None:
        """Try again later; what is refused again and again is refused for good, once there is no more to come."""
        upload.run_id = None  # it is looked for anew: the tracker may have been told and the answer lost
        if isinstance(error, RecordRefused):
            upload.refusals += 1
            is_for_good = upload.refusals >= ENOUGH_REFUSALS and upload.fate == "ended"
            upload.refusal = error.reason if is_for_good else None
        else:
            upload.problem = str(error) if isinstance(error, AblationError) else f"{type(error).__name__}: {error}"
        upload.delay_s = min(LONGEST_DELAY_S, 2 * upload.delay_s or FIRST_DELAY_S)
        upload.due = time.monotonic() + upload.delay_s

    def _bring(self, upload: _Upload) -> bool:
        """Record what is new of a run; say whether it is all there will be."""
        fate, folder = upload.fate, upload.folder
        attempt, lasting = folder.attempt(), folder.lasting_epochs()
        if attempt is None and fate != "ended":
            return fate == "left"
        is_new = upload.run_id is None or upload.attempt != (attempt or NEVER_BEGUN)
        if not is_new and lasting <= upload.epochs and fate == "under way":
            return False
        self._lease.check()
        run_id = self._start(upload, attempt or NEVER_BEGUN) if is_new or upload.run_id is None else upload.run_id
        if lasting > upload.epochs:
            epochs = [epoch for epoch in folder.epochs() if upload.epochs < epoch.epoch <= lasting]
            self._tracker.log_epochs(run_id, epochs, heldout_split=upload.heldout_split)
            upload.epochs = lasting
        if fate == "left":
            self._tracker.abandon_run(run_id)
        if fate == "ended":
            ended = folder.ended()
            assert ended is not None
            keep_recordable_files(folder.artifacts)  # a version before this one left what no store takes
            self._tracker.finish_run(run_id, ended, folder.artifacts if folder.artifacts.exists() else None)
            if self._is_current(upload):  # else it is trained again
                upload.on_recorded()
        return fate != "under way"

    def _start(self, upload: _Upload, attempt: str) -> str:
        """Begin or take up a run's record."""
        run_id = upload.run_id = upload.start(attempt, upload.folder.provenance())
        upload.attempt, upload.epochs = attempt, 0
        with self._changed:
            self._run_ids[upload.planned] = run_id
            self._changed.notify_all()
        if upload.description is not None:
            self._tracker.describe_run(run_id, upload.description)
        return run_id

    def _bring_refusal(self, upload: _Upload) -> bool:
        """Record that a run's record was refused: a failure of that run alone; its folder keeps what it measured."""
        ended, attempt = upload.folder.ended(), upload.folder.attempt() or NEVER_BEGUN
        if upload.fate == "left" or ended is None:
            return True
        self._lease.check()
        with contextlib.suppress(RecordRefused):  # then there is no record of it at all
            run_id = upload.start(attempt, upload.folder.provenance())
            self._tracker.finish_run(run_id, _refused(ended, f"{upload.refusal}", upload.folder), None)
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


def upload_run(uploads: Uploads, planned: PlannedRun, folder: RunFolder, *, plan: Plan, state: State) -> None:
    """Have a planned run recorded from its folder, which is kept for other studies once it is."""
    uploads.begin(
        planned,
        folder,
        heldout_split=plan.heldout_split,
        description=RunDescription.of(planned, plan),
        on_recorded=partial(state.keep, plan.name, planned.identity),
    )
