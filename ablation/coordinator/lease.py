"""Keeps one writer per study in an MLflow store: who holds the study's lease writes, and whoever finds another's stops.

Locks lie beside stores and state folders; a lease lies in MLflow, so it keeps apart those that share nothing else.
MLflow has no compare-and-swap. A lease is taken by writing a nonce, waiting and reading it back, and it is read before
each renewal and each batch of writes: of two that take it in the same moment the later has it, and so has one that
takes over what was silent, suspended for example, for minutes.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ablation.errors import StudyLocked, StudyRunGone, StudyTakenOver
from ablation.records import Plan, Spending
from ablation.storage.holder import NOBODY_KNOWN, SILENT_S, Holder, this_process
from ablation.tracking import StudyRecord, Tracker

RENEWED_EVERY_S = 30.0
WATCHED_S = 1.5 * RENEWED_EVERY_S
"""Seconds for which one that seems silent is watched, as clocks of other machines may be wrong."""
LOOK_S = 5.0


class Lease:
    """This process's lease on a study; `take` comes first, `record` is there after `open`.

    It may be used by several threads. `check` raises StudyTakenOver for good once another process has the lease. It is
    renewed by a thread of its own, whatever takes long, until it is released.
    """

    def __init__(self, study: str, *, tracker: Tracker, state_folder: Path) -> None:
        self._study = study
        self._tracker = tracker
        self._holder = this_process(state_folder=state_folder, nonce=uuid.uuid4().hex)
        self._run_id: str | None = None
        self._record: StudyRecord | None = None
        self._taken_at = 0.0
        self._is_read_back = False
        self._lost: StudyTakenOver | None = None
        self._spending: Callable[[], Spending] | None = None
        self._one_at_a_time = threading.RLock()
        self._is_over = threading.Event()
        self._renewing = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.notes: list[str] = []
        """What there is to say about it, which whoever says it takes from here."""

    @property
    def nonce(self) -> str:
        """What tells this lease from all others of the study."""
        return self._holder.nonce

    @property
    def is_open(self) -> bool:
        """Whether there is a record."""
        return self._record is not None

    @property
    def record(self) -> StudyRecord:
        """The record of the opened study; another one after the study run was deleted."""
        assert self._record is not None
        return self._record

    @property
    def lost(self) -> StudyTakenOver | None:
        """That another process has the lease, once that was seen."""
        return self._lost

    def why_it_takes_long(self) -> str | None:
        """Return in a sentence why `take` will take WATCHED_S; None mostly."""
        run_id = self._tracker.study_run_id(self._study)
        other = self._tracker.holder(run_id) if run_id is not None else None
        if other is None or self._has_ended(other) or self._is_refused_for(other):
            return None
        return f"{other} ran the study and seems gone; it is watched for {WATCHED_S:.0f} s, as it may run it still"

    def take(self) -> None:
        """Take the lease, where the study has been recorded before; else `open` does, with the study's first record.

        Raises:
            StudyLocked: another process has it: it says so, and is not known to have ended.
            TrackingUnavailable.
        """
        run_id = self._tracker.study_run_id(self._study)
        if run_id is None:
            return
        other = self._tracker.holder(run_id)
        if other is not None and not self._has_ended(other):
            if self._is_refused_for(other):
                raise StudyLocked(self._study, _told(other))
            self._watch(run_id, other)
        self._tracker.hold(run_id, self._now())
        self._note_taken(run_id)

    def count(self, spending: Callable[[], Spending]) -> None:
        """Have what the study's executions take in all recorded with each renewal, and when the lease is released."""
        self._spending = spending

    @property
    def spending(self) -> Spending:
        """What the study's executions took so far."""
        return self._spending() if self._spending is not None else self.record.spending

    def note_spending(self) -> None:
        """Record what the study's executions took so far, where this one is counted."""
        if self._spending is not None and self._run_id is not None:
            self._tracker.note_spending(self._run_id, self._spending())

    def open(self, plan: Plan) -> StudyRecord:
        """Open the study's record under the lease.

        Raises:
            StudyLocked, StudyTakenOver, TrackingUnavailable.
        """
        with self._one_at_a_time:
            if self._run_id is None:
                self.take()  # it may have been made since
            self._open(plan)
            self.note_spending()
            return self.record

    def take_up(self, record: StudyRecord) -> None:
        """Go on with a record that is there, as it is, under the lease that was taken."""
        self._record = record

    def check(self) -> None:
        """See that this process still has the lease: before each batch of writes.

        Raises:
            StudyTakenOver: another process has it, or had it.
            TrackingUnavailable: that cannot be told; nothing is to be written now.
        """
        with self._one_at_a_time:
            if self._lost is not None:
                raise self._lost
            assert self._run_id is not None
            if not self._is_read_back:
                time.sleep(max(0.0, self._taken_at + self._tracker.settles_s - time.monotonic()))
            try:
                found = self._tracker.holder(self._run_id)
            except StudyRunGone:
                self._open_anew()
                return
            if found is None or found.nonce != self._holder.nonce:
                self._lost = StudyTakenOver(self._study, f"{found or NOBODY_KNOWN}")
                raise self._lost
            self._is_read_back = True

    def renew(self) -> None:
        """Say that this process still runs the study, where it does; see `check`.

        It is looked too whether another study run was made in the same moment as this one's and seen late: then the
        latest counts.
        """
        with self._one_at_a_time:
            if self._run_id is None:
                return
            self.check()
            found = self._tracker.study_run_id(self._study, beside=self._run_id)
            if found is not None and found != self._run_id:
                self._lost = StudyTakenOver(self._study, f"{self._tracker.holder(found) or NOBODY_KNOWN}")
                raise self._lost
            self._tracker.hold(self._run_id, self._now())
            self.note_spending()

    def release(self) -> None:
        """Leave the study to whoever comes next; nothing is changed where somebody has come, or it was deleted."""
        self._is_over.set()
        with self._one_at_a_time, contextlib.suppress(StudyRunGone):
            if self._run_id is not None and self._lost is None:
                found = self._tracker.holder(self._run_id)
                if found is not None and found.nonce == self._holder.nonce:
                    self.note_spending()
                    self._tracker.hold(self._run_id, None)
                self._run_id = None

    def _keep(self) -> None:
        while not self._is_over.wait(RENEWED_EVERY_S):
            try:
                self.renew()
            except StudyTakenOver:  # whoever runs the study sees it at the next check
                return
            except Exception:  # noqa: BLE001, S110 - it is said again
                pass

    def _open(self, plan: Plan) -> None:
        is_new = self._run_id is None
        if is_new:
            self._make(plan)
        try:
            self.check()
            self._record = self._tracker.open_study(plan, holder=self._now())
        except BaseException:
            if is_new and self._lost is None and self._run_id is not None:
                with contextlib.suppress(Exception):  # the error that brought us here is the one to be seen
                    self._tracker.abandon_run(self._run_id)
            raise

    def _make(self, plan: Plan) -> None:
        """Make the study run, and see that nobody has made another in the same moment; the latest counts then."""
        made = self._tracker.make_study_run(plan, holder=self._now())
        time.sleep(self._tracker.settles_s)
        found = self._tracker.study_run_id(self._study, beside=made)
        if found is not None and found != made:
            self._tracker.discard_study_run(made)
            raise StudyLocked(self._study, f"{self._tracker.holder(found) or NOBODY_KNOWN}")
        self._note_taken(made)

    def _open_anew(self) -> None:
        """Make a study run in place of one that was deleted, which takes over the runs of that."""
        if self._record is None:
            raise StudyRunGone(str(self._run_id))
        before, self._run_id = self._run_id, None
        try:
            self._open(self._record.plan)
        except BaseException:
            self._run_id = before  # the next look finds it gone again, or restored
            raise
        self.notes.append(
            f"the study run {before} was deleted in MLflow; {self._run_id} takes its place, with all runs of the study"
        )

    def _note_taken(self, run_id: str) -> None:
        self._run_id, self._taken_at, self._is_read_back = run_id, time.monotonic(), False
        if self._renewing.ident is None:
            self._renewing.start()

    def _has_ended(self, other: Holder) -> bool:
        """Whether a holder has ended for sure: its process has, or the locks of its state folder are ours."""
        return (bool(other.place) and other.place == self._holder.place) or other.is_dead()

    def _is_refused_for(self, other: Holder) -> bool:
        """Whether nothing speaks against a holder, such as a new start of its machine; else it is watched."""
        mine = self._holder
        may_have_rebooted = other.host == mine.host and bool(other.boot and mine.boot) and other.boot != mine.boot
        return other.is_fresh() and not may_have_rebooted

    def _watch(self, run_id: str, other: Holder) -> None:
        """See that a holder which seems silent is: its clock may be wrong, or this one's.

        Raises:
            StudyLocked: it is not.
        """
        deadline = time.monotonic() + WATCHED_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = self._tracker.holder(run_id)
            if now is None:
                return
            if now != other:
                raise StudyLocked(self._study, _told(now))

    def _now(self) -> Holder:
        return replace(self._holder, seen_ms=time.time_ns() // 1_000_000)


def has_gone(holder: Holder) -> bool:
    """Whether who ran a study ended without saying so, as far as that can be told at once."""
    return holder.is_dead() or not holder.is_fresh()


def _told(holder: Holder) -> str:
    ago = max(0, round(time.time() - holder.seen_ms / 1000))
    return (
        f"{holder}, with another state folder (it said so {ago} s ago; where it was killed, the study is free "
        f"{SILENT_S:.0f} s after that)"
    )
