"""What a study's execution has still to tell the tracker, beside the training: nothing waits for it, nothing is lost.

What a run measures is in its folder first. An uploader reads it there and records it, again and again where the tracker
fails, until it is there: recording the same again changes nothing. What is left when the process ends is recorded by
the next one.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ablation.coordinator.lease import Lease
from ablation.coordinator.upload_process import Equipment, upload_beside
from ablation.coordinator.uploading import FIRST_DELAY_S, LONGEST_DELAY_S, Fate, News, Report, Upload, Uploader
from ablation.errors import StudyTakenOver
from ablation.executors import WorkerLost
from ablation.records import Plan, PlannedRun
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.tracking import RunDescription, StudyRecord, StudyStatus, Tracker

PATIENCE_S = 5.0
"""Seconds that anybody waits for a tracker that does not answer."""
ENOUGH_DEATHS = 3
"""Deaths of the uploader's process, with nothing recorded in between, after which nobody waits for it."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """A run that is not recorded to its end, as far as is known here."""

    upload: Upload
    fate: Fate = "under way"


def _nothing() -> None:
    """Leave a run's folder as it is."""


class Uploads:
    """What a study's execution has still to tell the tracker, under the lease that it has on the study.

    It may be used by one thread, but for `changed`. `problem` says what stands in the way, None where nothing does. The
    lease is released when this is closed.
    """

    def __init__(self, tracker: Tracker, lease: Lease) -> None:
        self._tracker = tracker
        self._lease = lease
        self._runs: dict[int, _Run] = {}
        """By the numbers of their uploads, which rise."""
        self._numbers: dict[PlannedRun, int] = {}
        self._run_ids: dict[PlannedRun, str] = {}
        self._problems: dict[int, str] = {}
        self._over: set[int] = set()
        """Uploads that wait for no more than to be recorded."""
        self._begun: dict[int, None] = {}
        self._fates: dict[int, Fate] = {}
        self._has_changed: dict[int, None] = {}
        self._record: StudyRecord | None = None
        """What the uploader was told last."""
        self._last_words: StudyStatus | None = None
        self._look: int | None = None
        self._is_closing = False
        self._count = self._accomplished = 0
        self._deaths = self._accomplished_then = 0
        self._death: str | None = None
        """That the uploader's process has died, until there is another one."""
        self._environment = dict(os.environ)  # as it is now: what a tracker sets while it asks is for nobody else
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    def begin(
        self,
        planned: PlannedRun,
        folder: RunFolder,
        *,
        heldout_split: str,
        description: RunDescription | None = None,
        settings: Mapping[str, Any] | None = None,
        on_recorded: Callable[[], object] = _nothing,
    ) -> None:
        """Record a run from its folder as it is trained.

        `settings` are those of a run of tuning. `on_recorded` is called when all of it is recorded, in another thread
        or process, to which it can be sent.
        """
        with self._changed:
            self._count += 1
            upload = Upload(
                number=self._count,
                planned=planned,
                folder=folder,
                heldout_split=heldout_split,
                description=description,
                settings=settings,
                on_recorded=on_recorded,
            )
            self._forget(self._numbers.get(planned, 0))
            self._numbers[planned] = upload.number
            self._runs[upload.number] = _Run(upload=upload)
            self._begun[upload.number] = None
            self._changed.notify_all()

    def changed(self, planned: PlannedRun) -> None:
        """Have a run's folder looked at, as something is new in it; any thread may call this, however often."""
        with self._changed:
            if (number := self._numbers.get(planned)) is not None:
                self._has_changed[number] = None

    def end(self, planned: PlannedRun) -> None:
        """Record how the run ended, as its folder has it."""
        self._set_fate(planned, "ended")

    def leave(self, planned: PlannedRun) -> None:
        """Record that the run is not under way now; it goes on when it is begun again."""
        self._set_fate(planned, "left")

    def tell_look(self, look: int) -> None:
        """Record how many of the plan's looks are complete; what is not told in time is told with the report."""
        with self._changed:
            self._look = look
            self._changed.notify_all()

    def run_id(self, planned: PlannedRun, *, wait_s: float = 0.0) -> str | None:
        """Return what the tracker calls a run, None where it has not been told within so long."""
        with self._changed:
            self._changed.wait_for(lambda: planned in self._run_ids or bool(self._problems), timeout=wait_s)
            return self._run_ids.get(planned)

    @property
    def problem(self) -> str | None:
        with self._changed:
            return next(iter(self._problems.values()), self._death)

    @property
    def waiting(self) -> int:
        """How many runs have ended and are not recorded."""
        with self._changed:
            return sum(self._runs[number].fate == "ended" for number in self._over)

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
            while self._over:
                if self._accomplished != accomplished:
                    accomplished, since = self._accomplished, time.monotonic()
                self.check()
                is_stuck = time.monotonic() - since > PATIENCE_S
                if is_stuck and (self._problems or self._has_died_enough() or not self._tracker.answers()):
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
            self._changed.notify_all()
        self._thread.join(timeout=limit_s)

    def take_news(self, reports: Sequence[Report], /, *, wait_s: float) -> News:
        with self._changed:
            self._death = None
            for report in reports:
                self._note(report)
            self._changed.wait_for(self._is_urgent, timeout=wait_s)
            return self._news()

    def confirm(self, _record: StudyRecord, /) -> StudyRecord:
        self._lease.check()
        return self._lease.record

    def begin_again(self, error: WorkerLost, /) -> bool:
        with self._changed:
            self._deaths = self._deaths + 1 if self._accomplished == self._accomplished_then else 1
            self._accomplished_then = self._accomplished
            self._death = f"Recording begins again, as {error}."
            self._begun = dict.fromkeys(self._runs)
            self._fates = {number: self._runs[number].fate for number in self._over}
            self._record = None
            delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (self._deaths - 1))
            return not self._changed.wait_for(lambda: self._is_closing, timeout=delay_s)

    def _has_died_enough(self) -> bool:
        return self._death is not None and self._deaths >= ENOUGH_DEATHS

    def _is_urgent(self) -> bool:
        return bool(self._begun or self._fates) or self._look is not None or self._is_closing

    def _news(self) -> News:
        """Return what the uploader does not know, which it does now."""
        record = self._lease.record if self._lease.is_open else None
        news = News(
            begun=[self._runs[number].upload for number in self._begun],
            fates=self._fates,
            changed=list(self._has_changed),
            record=record if record is not self._record else None,
            look=self._look,
            is_last=self._is_closing,
        )
        self._begun, self._fates, self._has_changed = {}, {}, {}
        self._record, self._look = record, None
        return news

    def _note(self, report: Report) -> None:
        run = self._runs.get(report.number)
        if run is None:  # begun again since
            return
        if report.run_id is not None:
            self._run_ids[run.upload.planned] = report.run_id
        self._problems.pop(report.number, None)
        if report.problem is not None:
            self._problems[report.number] = report.problem
        self._accomplished += report.is_complete
        if report.is_complete:
            self._forget(report.number)
        self._changed.notify_all()

    def _set_fate(self, planned: PlannedRun, fate: Literal["ended", "left"]) -> None:
        with self._changed:
            if (number := self._numbers.get(planned)) is not None:
                self._runs[number].fate = self._fates[number] = fate
                self._over.add(number)
            self._changed.notify_all()

    def _forget(self, number: int) -> None:
        if (run := self._runs.pop(number, None)) is not None:
            del self._numbers[run.upload.planned]
            self._over.discard(number)
            for told in (self._problems, self._begun, self._fates, self._has_changed):
                told.pop(number, None)

    def _work(self) -> None:
        with contextlib.suppress(StudyTakenOver):  # whoever runs the study sees it at the lease, and nothing is written
            if self._has_work():
                self._upload()
            with contextlib.suppress(Exception):  # the next execution says how the study stands
                self._end()

    def _has_work(self) -> bool:
        """Wait until there is something to record, or no more to come."""
        with self._changed:
            self._changed.wait_for(self._is_urgent)
            return bool(self._begun or self._look is not None)

    def _upload(self) -> None:
        """Do it in a process where the tracker can be opened by another one, else in this thread."""
        open_tracker = self._tracker.elsewhere()
        if open_tracker is None:
            Uploader(self._tracker, self).run()
        else:
            equipment = Equipment(
                open_tracker=open_tracker, nonce=self._lease.nonce, environment=self._environment, folder=Path.cwd()
            )
            upload_beside(self, equipment)

    def _end(self) -> None:
        """Say how the study stands, where that is to be said, and leave it to others."""
        if self._last_words is not None and self._lease.is_open:
            self._lease.check()
            self._tracker.close_study(self._lease.record, self._last_words)
        self._lease.release()


def upload_run(uploads: Uploads, planned: PlannedRun, folder: RunFolder, *, plan: Plan, state: State) -> None:
    """Have a planned run recorded from its folder, which is kept for other studies once it is."""
    uploads.begin(
        planned,
        folder,
        heldout_split=plan.heldout_split,
        description=RunDescription.of(planned, plan),
        on_recorded=partial(state.keep, plan.name, planned.identity),
    )
