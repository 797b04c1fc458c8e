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
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ablation.coordinator.lease import Lease
from ablation.coordinator.upload_desk import Run, UploadDesk
from ablation.coordinator.upload_process import Equipment, upload_beside
from ablation.coordinator.uploading import Report, Upload, Uploader
from ablation.errors import StudyTakenOver
from ablation.records import Plan, PlannedRun
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.tracking import RunDescription, StudyStatus, Tracker

PATIENCE_S = 5.0
"""Seconds that anybody waits for a tracker that does not answer."""
MOST_PROCESSES = 4
MOST_WAITING = 32
"""Runs that have ended and wait to be recorded, for each process that records, with which there is one more."""


def _nothing() -> None:
    """Leave a run's folder as it is."""


class Uploads:
    """What a study's execution has still to tell the tracker, under the lease that it has on the study.

    It may be used by one thread, but for `changed`. `problem` says what stands in the way, None where nothing does. The
    lease is released when this is closed. A process beside this one records the runs, where another one can open the
    tracker, and more where it falls behind; else a thread does.
    """

    def __init__(self, tracker: Tracker, lease: Lease) -> None:
        self._tracker = tracker
        self._lease = lease
        self._environment = dict(os.environ)  # as it is now: what a tracker sets while it asks is for nobody else
        self._open_elsewhere = tracker.elsewhere()
        self._numbers: dict[PlannedRun, int] = {}
        self._runs: dict[int, Run] = {}
        self._over: dict[int, Run] = {}
        """Those that wait for no more than to be recorded."""
        self._assigned: dict[PlannedRun, UploadDesk] = {}
        self._run_ids: dict[PlannedRun, str] = {}
        self._problems: dict[int, str] = {}
        self._count = self._accomplished = 0
        self._last_words: StudyStatus | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._desks: list[UploadDesk] = []
        self._others: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._work, args=[self._new_desk()], name="uploads", daemon=True)
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
            self._runs[upload.number] = self._desk_of(upload).begin(upload)

    def changed(self, planned: PlannedRun) -> None:
        """Have a run's folder looked at, as something is new in it; any thread may call this, however often."""
        with self._changed:
            if (run := self._run(planned)) is not None:
                run.desk.note_change(run)

    def end(self, planned: PlannedRun) -> None:
        """Record how the run ended, as its folder has it."""
        self._set_fate(planned, "ended")

    def leave(self, planned: PlannedRun) -> None:
        """Record that the run is not under way now; it goes on when it is begun again."""
        self._set_fate(planned, "left")

    def tell_look(self, look: int) -> None:
        """Record how many of the plan's looks are complete; what is not told in time is told with the report."""
        with self._changed:
            self._desks[0].tell_look(look)

    def run_id(self, planned: PlannedRun, *, wait_s: float = 0.0) -> str | None:
        """Return what the tracker calls a run, None where it has not been told within so long."""
        with self._changed:
            self._changed.wait_for(lambda: planned in self._run_ids or bool(self._problems), timeout=wait_s)
            return self._run_ids.get(planned)

    @property
    def problem(self) -> str | None:
        with self._changed:
            deaths = (desk.death for desk in self._desks)
            return next(iter(self._problems.values()), None) or next(filter(None, deaths), None)

    @property
    def waiting(self) -> int:
        """How many runs have ended and are not recorded."""
        with self._changed:
            return sum(run.fate == "ended" for run in self._over.values())

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
                if is_stuck and (self._problems or self._is_given_up() or not self._tracker.answers()):
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
            for desk in self._desks:
                desk.close()
        self._thread.join(timeout=limit_s)

    def _desk_of(self, upload: Upload) -> UploadDesk:
        """Return the desk that has least on it, of a run that was left the one it had, which may still be at it.

        Tuning has one desk: the run that stands for all of it would be made twice by two.
        """
        desk = self._desks[0] if upload.settings is not None else min(self._desks, key=len)
        return self._assigned.setdefault(upload.planned, desk)

    def _run(self, planned: PlannedRun) -> Run | None:
        return self._runs.get(self._numbers.get(planned, 0))

    def _is_given_up(self) -> bool:
        return any(desk.is_given_up for desk in self._desks)

    def _set_fate(self, planned: PlannedRun, fate: Literal["ended", "left"]) -> None:
        with self._changed:
            if (run := self._run(planned)) is not None:
                self._over[run.upload.number] = run
                run.desk.set_fate(run, fate)
                self._have_enough_desks()

    def _have_enough_desks(self) -> None:
        """Begin with one more process where those there are fall behind; runs that are begun from now on go to it."""
        count = len(self._desks)
        is_behind = len(self._over) > MOST_WAITING * count
        if is_behind and count < MOST_PROCESSES and self._open_elsewhere is not None and not self._is_closing:
            other = threading.Thread(target=self._upload, args=[self._new_desk()], name="more uploads", daemon=True)
            self._others.append(other)
            other.start()

    def _new_desk(self) -> UploadDesk:
        self._desks.append(UploadDesk(self._lease, self._changed, on_report=self._note))
        return self._desks[-1]

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

    def _forget(self, number: int) -> None:
        if (run := self._runs.pop(number, None)) is not None:
            run.desk.forget(run)
            del self._numbers[run.upload.planned]
            self._over.pop(number, None)
            self._problems.pop(number, None)

    def _work(self, desk: UploadDesk) -> None:
        self._upload(desk)
        for other in self._others:
            other.join()
        if self._lease.lost is None:
            with contextlib.suppress(Exception):  # the next execution says how the study stands
                self._end()

    def _upload(self, desk: UploadDesk) -> None:
        """Record what is on a desk, in a process; in this thread where none can, or at the end none is there yet."""
        with contextlib.suppress(StudyTakenOver):  # whoever runs the study sees it at the lease, and nothing is written
            if not desk.has_work():
                return
            if self._open_elsewhere is None or not upload_beside(desk, self._equipment(self._open_elsewhere)):
                Uploader(self._tracker, desk).run()

    def _equipment(self, open_tracker: Callable[[], Tracker]) -> Equipment:
        return Equipment(
            open_tracker=open_tracker, nonce=self._lease.nonce, environment=self._environment, folder=Path.cwd()
        )

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
