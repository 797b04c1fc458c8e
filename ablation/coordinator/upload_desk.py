"""What one uploader has to do and was not told yet: written by the coordinator's threads, taken by the uploader."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablation.coordinator.lease import Lease
from ablation.coordinator.uploading import FIRST_DELAY_S, LONGEST_DELAY_S, Fate, News, Report, Upload
from ablation.executors import WorkerLost
from ablation.tracking import StudyRecord

ENOUGH_DEATHS = 3
"""Deaths of an uploader's process, with nothing recorded in between, after which nobody waits for it."""


@dataclass(slots=True, kw_only=True)
class Run:
    """A run that is not recorded to its end, as far as is known here, and whose desk it is on."""

    upload: Upload
    desk: UploadDesk
    fate: Fate = "under way"


class UploadDesk:
    """The runs that one uploader records. Whoever calls the first methods holds `changed`, which all desks share.

    `on_report` is called with what the uploader reports, under the same lock.
    """

    def __init__(self, lease: Lease, changed: threading.Condition, *, on_report: Callable[[Report], None]) -> None:
        self._lease = lease
        self._changed = changed
        self._on_report = on_report
        self._runs: dict[int, Run] = {}
        """By the numbers of their uploads."""
        self._begun: dict[int, None] = {}
        self._fates: dict[int, Fate] = {}
        self._has_changed: dict[int, None] = {}
        self._look: int | None = None
        self._record: StudyRecord | None = None
        """What the uploader was told last."""
        self.is_closing = False
        self._deaths = 0
        self.death: str | None = None
        """That the uploader's process has died, until there is another one."""

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def is_given_up(self) -> bool:
        """Whether its uploaders have died so often that nobody waits for the next one."""
        return self.death is not None and self._deaths >= ENOUGH_DEATHS

    def begin(self, upload: Upload) -> Run:
        run = self._runs[upload.number] = Run(upload=upload, desk=self)
        self._begun[upload.number] = None
        self._changed.notify_all()
        return run

    def set_fate(self, run: Run, fate: Fate) -> None:
        run.fate = self._fates[run.upload.number] = fate
        self._changed.notify_all()

    def note_change(self, run: Run) -> None:
        self._has_changed[run.upload.number] = None

    def tell_look(self, look: int) -> None:
        self._look = look
        self._changed.notify_all()

    def forget(self, run: Run) -> None:
        for kept in (self._runs, self._begun, self._fates, self._has_changed):
            kept.pop(run.upload.number, None)

    def close(self) -> None:
        self.is_closing = True
        self._changed.notify_all()

    def has_work(self) -> bool:
        """Wait until there is something to record, or no more to come; called by the uploader's thread, as the rest."""
        with self._changed:
            self._changed.wait_for(self._is_urgent)
            return bool(self._begun or self._look is not None)

    def take_news(self, reports: Sequence[Report], /, *, wait_s: float) -> News:
        with self._changed:
            self.death = None
            for report in reports:
                self._deaths = 0 if report.is_complete else self._deaths
                self._on_report(report)
            self._changed.wait_for(self._is_urgent, timeout=wait_s)
            return self._news()

    def confirm(self, _record: StudyRecord, /) -> StudyRecord:
        self._lease.check()
        return self._lease.record

    def begin_again(self, error: WorkerLost, /) -> bool:
        with self._changed:
            self._deaths += 1
            self.death = f"Recording begins again, as {error}."
            self._begun = dict.fromkeys(self._runs)
            self._fates = {number: run.fate for number, run in self._runs.items() if run.fate != "under way"}
            self._record = None
            delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (self._deaths - 1))
            return not self._changed.wait_for(lambda: self.is_closing, timeout=delay_s)

    def _is_urgent(self) -> bool:
        return bool(self._begun or self._fates) or self._look is not None or self.is_closing

    def _news(self) -> News:
        """Return what the uploader does not know, which it does now."""
        record = self._lease.record if self._lease.is_open else None
        news = News(
            begun=[self._runs[number].upload for number in self._begun],
            fates=self._fates,
            changed=list(self._has_changed),
            record=record if record is not self._record else None,
            look=self._look,
            is_last=self.is_closing,
        )
        self._begun, self._fates, self._has_changed = {}, {}, {}
        self._record, self._look = record, None
        return news
