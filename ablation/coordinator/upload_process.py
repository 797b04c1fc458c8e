"""Runs an uploader in a process beside the coordinator, which it spares what MLflow's client computes and waits for.

The process asks over a pipe for news, leaves reports there, and looks itself whether the study is still this
coordinator's. It leaves every signal to the coordinator, ends when that is gone, and is started again where it dies:
the next one is told everything from the beginning, as recording the same again changes nothing. It imports no torch.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from ablation.coordinator.uploading import Desk, News, Report, Uploader
from ablation.errors import StudyRunGone, StudyTakenOver
from ablation.executors import WorkerLost
from ablation.executors.spawning import SpawnedContext
from ablation.output import make_unfailing
from ablation.stopping import ASKING
from ablation.tracking import StudyRecord, Tracker

STARTING_LOOK_S = 0.1
"""Seconds between two looks whether a process that starts is still wanted."""
DEAD_S = 1.0
"""Seconds within which a process whose pipe is closed has an exit status."""


class MainDesk(Desk, Protocol):
    """A desk that outlives its uploaders."""

    @property
    def is_closing(self) -> bool:
        """Whether there is no time to wait for a process to start."""
        ...

    def begin_again(self, error: WorkerLost, /) -> bool:
        """Take it that the next uploader knows nothing; say whether there is to be one, after a while."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """What the process is given: how it opens the tracker, what its lease says, and where the coordinator is."""

    open_tracker: Callable[[], Tracker]
    nonce: str
    environment: Mapping[str, str]
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taking:
    reports: Sequence[Report]
    wait_s: float


@dataclass(frozen=True, slots=True)
class _Doubting:
    record: StudyRecord


@dataclass(frozen=True, slots=True)
class _Ending:
    """There is nothing left to do, or the study is another's."""


def upload_beside(desk: MainDesk, equipment: Equipment) -> bool:
    """Have a desk's work done by a process until there is no more; to be called by a thread of its own.

    Say whether all was tried: at the end nobody waits for a process that is still starting.

    Raises:
        StudyTakenOver: another process runs the study.
    """
    while (error := _served(desk, equipment)) is not None:
        if not desk.begin_again(error):
            return False
    return True


def _served(desk: MainDesk, equipment: Equipment) -> WorkerLost | None:
    """Start a process and serve it to its end; return that it has died, None where it has done all."""
    mine, theirs = SpawnedContext().Pipe()
    with mine:
        process, is_done = _started(theirs, equipment), False
        try:
            is_done = _has_started(desk, mine) and _serve(desk, mine)
            process.join(timeout=0.0 if is_done else DEAD_S)
        finally:
            process.kill()  # it has nothing more to do, and Python takes half a second to end
            process.join()
            atexit.unregister(process.kill)
    return None if is_done else WorkerLost(process.exitcode)


def _started(theirs: Connection, equipment: Equipment) -> BaseProcess:
    """Start a process that hears none of the signals that ask to end, from its first moment on.

    A terminal sends them to all processes of its foreground, and it is the coordinator's to say when recording ends.
    """
    process = SpawnedContext().Process(target=_upload, args=(theirs, equipment), name="uploads")
    multiprocessing.resource_tracker.ensure_running()  # which `start` would do, and unblock signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    atexit.register(process.kill)  # before Python's own, which asks it to end, and waits
    return process


def _has_started(desk: MainDesk, pipe: Connection) -> bool:
    """Wait until the process says something, or has died; say whether that was before the end."""
    while not pipe.poll(STARTING_LOOK_S):
        if desk.is_closing:
            return False
    return True


def _serve(desk: Desk, pipe: Connection) -> bool:
    """Answer what the process asks; say whether it has ended as it should, or has died."""
    taken_over: StudyTakenOver | None = None
    with contextlib.suppress(EOFError, OSError):
        while not isinstance(asked := pipe.recv(), _Ending):
            reply: Any
            if isinstance(asked, _Taking):
                reply = desk.take_news(asked.reports, wait_s=asked.wait_s)
            else:
                try:
                    reply = desk.confirm(asked.record)
                except Exception as error:  # noqa: BLE001 - the process is who asked
                    reply = error
                    taken_over = error if isinstance(error, StudyTakenOver) else None
            pipe.send(reply)
        if taken_over is not None:
            raise taken_over
        return True
    return False


def _upload(pipe: Connection, equipment: Equipment) -> None:
    """Be the process."""
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()
    os.environ.clear()
    os.environ.update(equipment.environment)
    make_unfailing()
    os.chdir(equipment.folder)
    with contextlib.suppress(EOFError, OSError):  # the coordinator is gone, or waits no longer
        tracker = equipment.open_tracker()
        with contextlib.suppress(StudyTakenOver):  # as the coordinator knows
            Uploader(tracker, _FarDesk(pipe, tracker, equipment.nonce)).run()
        pipe.send(_Ending())


class _FarDesk:
    """The coordinator's desk, as its process sees it."""

    def __init__(self, pipe: Connection, tracker: Tracker, nonce: str) -> None:
        self._pipe = pipe
        self._tracker = tracker
        self._nonce = nonce

    def take_news(self, reports: Sequence[Report], /, *, wait_s: float) -> News:
        news: News = self._answer(_Taking(reports=reports, wait_s=wait_s))
        return news

    def confirm(self, record: StudyRecord, /) -> StudyRecord:
        """Read the lease, and leave it to the coordinator where that says anything else than it should."""
        with contextlib.suppress(StudyRunGone):
            found = self._tracker.holder(record.study_run_id)
            if found is not None and found.nonce == self._nonce:
                return record
        confirmed: StudyRecord = self._answer(_Doubting(record))
        return confirmed

    def _answer(self, asked: _Taking | _Doubting) -> Any:
        self._pipe.send(asked)
        reply = self._pipe.recv()
        if isinstance(reply, Exception):
            raise reply
        return reply


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went, whatever it is at."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)
