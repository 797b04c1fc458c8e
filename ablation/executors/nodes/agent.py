"""What a node does for its coordinators: it runs their jobs in processes, and says what became of them.

Every question names the coordinator and the job's token: two coordinators never meet, and what an old job sends is
taken by nobody. A job whose coordinator has not asked for LEASE_S ends as at SIGTERM.
"""

import os
import pickle
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ablation import __version__
from ablation.executors.interface import Files, carried
from ablation.executors.nodes.arrivals import Arrivals
from ablation.executors.nodes.files import PIECE, Incoming, checked
from ablation.executors.nodes.folder import NodeFolder, folder_unusable, leave_path
from ablation.executors.nodes.jobs import run_packed
from ablation.executors.nodes.news import FolderWatch
from ablation.executors.nodes.offers import Description, Offers
from ablation.executors.nodes.refusing import Refused, writing
from ablation.executors.nodes.slots import Slot, Slots
from ablation.stopping import GRACE_S

LEASE_S = float(os.environ.get("ABLATION_LEASE_SECONDS", "60"))
"""Seconds without a question from its coordinator after which a job is ended."""
CARRY_S = 2.0
"""Seconds beyond the grace that a node which is to end waits for its coordinator to fetch what it has."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """A job of a coordinator, from the round of its questions in which it was announced to where it is let go."""

    token: str
    coordinator: str
    round: int
    home: Path
    folders: Mapping[str, Path]
    slot: Slot
    offers: Offers
    asked_at: float
    watched: dict[str, FolderWatch] = field(default_factory=dict)
    incoming: dict[str, Incoming] = field(default_factory=dict)
    serial: int = 0
    is_started: bool = False
    is_ending: bool = False
    outcome: tuple[str, bytes] | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    dropping: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_running(self) -> bool:
        return self.is_started and self.outcome is None


class Agent:
    """One per worker of the engine; its methods may be called in any thread."""

    def __init__(
        self,
        folder: NodeFolder,
        *,
        slots: Slots,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know the node's folder, which `hello` makes."""
        self.id = uuid.uuid4().hex
        self.folder, self.slots = folder, slots
        self.arrivals = Arrivals(folder)
        self._lease_s, self._clock = lease_s, clock
        self._jobs: dict[str, _Job] = {}
        self._changed = threading.Condition(threading.RLock())
        self._is_ending = False

    # What the node is

    def hello(self) -> dict[str, Any]:
        """Say what there is here: versions, folder, GPUs; the first question that a coordinator asks.

        Raises:
            Refused: the folder cannot be made, or written.
        """
        with writing():
            folder_id = self.folder.make()
            self.folder.sweep()
        slots = self.slots.by_device()
        return {
            "agent": self.id,
            "folder": folder_id,
            "path": str(self.folder.path),
            "free": shutil.disk_usage(self.folder.path).free,
            "host": platform.node(),
            "version": __version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
            "torch": _torch_version(),
            "slots": {device: len(found) for device, found in slots.items()},
            "why_no_gpu": self.slots.why_no_gpu,
            "clock_ms": time.time_ns() // 1_000_000,
        }

    def sees(self, *, path: str) -> bool:
        """Whether a file of the coordinator's is seen here by the same name."""
        return Path(path).is_file()

    def check(self, device: str, checks: Sequence[bytes]) -> str | None:
        """Call what must hold where jobs run, in a process like theirs; return why something does not, else None."""
        try:
            self.folder.make()
            self.folder.check_room()
        except OSError as error:
            return folder_unusable(error)
        for check in checks:
            try:
                self.slots.probe(check, device)
            except Exception as error:  # noqa: BLE001 - whatever it says, this node is unfit
                return str(error) or type(error).__name__
        return None

    # Beginning a job

    def reserve(
        self, *, coordinator: str, asked_in: int, token: str, device: str, of: str, leaves: Sequence[str]
    ) -> None:
        """Keep a slot for a job that was announced in a round of questions; other jobs of its runs are ended.

        Those are of a coordinator that was killed, or of a try that was given up.

        Raises:
            Refused: there is no free slot, or this node is about to end.
        """
        home = self.folder.home(of)
        if token in self._jobs:
            return  # the answer to the first question was lost
        folders = {leave: leave_path(home, leave) for leave in leaves}
        self._end_and_drop(self._that(lambda job: bool(set(folders.values()) & set(job.folders.values()))))
        if self._is_ending:
            raise Refused("ending", "it is about to end")
        slot = self.slots.take(device, token)
        if slot is None:
            raise Refused("busy", "another job runs there")
        job = _Job(
            token=token,
            coordinator=coordinator,
            round=asked_in,
            home=home,
            folders=folders,
            slot=slot,
            offers=Offers(folders, beside=self.folder.beside),
            asked_at=self._clock(),
        )
        with self._changed:
            self._jobs[token] = job

    def find_shared(self, *, token: str, need: str, nonce: str, files: Mapping[str, str]) -> bool:
        """Say whether what a job needs is read where the coordinator has it."""
        places = {name: Path(path) for name, path in files.items()}
        return self.folder.find_shared(need, self._job(token).home, nonce=Path(nonce), files=places)

    def has(self, *, token: str, need: str, files: Sequence[object]) -> bool:
        """Whether what a job needs is there as it was brought; a job finds it then."""
        return self.folder.has(need, self._job(token).home, files=checked(list(files), is_taken=lambda _: True))

    def expect_leave(self, *, token: str, leave: str, files: Sequence[object]) -> None:
        """Make room for what a run resumes from."""
        job, incoming = self._job(token), Incoming(self.folder.beside(), checked(list(files)))
        with writing():
            incoming.begin()
        job.incoming[leave] = incoming

    def put_leave(self, *, token: str, leave: str, name: str, offset: int, data: bytes) -> None:
        """Take a piece of what a run resumes from."""
        incoming = self._job(token).incoming.get(leave)
        if incoming is None:
            raise Refused("stale", "nothing of that name is on its way")
        with writing():
            incoming.write(name, offset, data)

    def start(self, *, token: str, call: bytes, has_files: bool) -> None:
        """Run a job whose files are here; the folders of its runs have what was sent of them and nothing else."""
        job = self._job(token)
        if job.is_started:
            return  # the answer to the first question was lost
        with writing():
            for leave, folder in job.folders.items():
                _place(folder, job.incoming.pop(leave, None))
                job.watched[leave] = FolderWatch(folder)
        files = Files(home=job.home, leaves=tuple(job.folders), on_change=lambda name: _note(job, name), is_home=False)
        with self._changed:
            if self._is_ending or job.is_ending:
                raise Refused("ending", "it is about to end")
            job.is_started = True
            future = job.slot.processes().submit(run_packed, call, job.slot.gpu, files=files if has_files else None)
        future.add_done_callback(lambda done: self._settle(job, done))

    # While it runs

    def _settle(self, job: _Job, future: "Future[bytes]") -> None:
        error = future.exception() if not future.cancelled() else None
        with self._changed:
            if error is not None or future.cancelled():
                job.outcome = ("error", pickle.dumps(carried(error) if error is not None else None))
            else:
                job.outcome = ("result", future.result())
            for leave in job.watched:
                _note(job, leave)
            self.slots.leave(job.slot, job.token)
            self._changed.notify_all()
        job.ended.set()

    def ask(self, *, coordinator: str, asked_in: int, seen: Mapping[str, int]) -> dict[str, Any]:
        """Say what is new of a coordinator's jobs since the answers that it has seen, by token.

        Jobs that it names no more, and had announced before this round of questions, are ended.
        """
        mine = self._that(lambda job: job.coordinator == coordinator)
        for job in mine:
            job.asked_at = self._clock()
        stale = [job for job in mine if job.token not in seen and job.round < asked_in]
        if stale:
            threading.Thread(target=self._end_and_drop, args=[stale], name="stale jobs", daemon=True).start()
        jobs = {job.token: _news(job, seen[job.token]) for job in mine if job.token in seen}
        return {"agent": self.id, "free": self.slots.free(), "is_ending": self._is_ending, "jobs": jobs}

    def offer_ended(self, *, token: str) -> dict[str, Any]:
        """Say how a job ended, `result` or `error` with that pickled, and describe all that its runs left."""
        job = self._job(token)
        if job.outcome is None:
            raise Refused("stale", "the job has not ended")
        return {"kind": job.outcome[0], "value": job.outcome[1], "left": job.offers.ended()}

    def offer_checkpoint(self, *, token: str) -> Description:
        """Describe the last checkpoint that all runs of a job have."""
        return self._job(token).offers.checkpoint()

    def pieces(self, *, token: str, wanted: Sequence[tuple[str, str, int]]) -> list[bytes]:
        """Return pieces of what was offered of a job."""
        return self._job(token).offers.pieces(wanted)

    # The end of jobs

    def release(self, *, token: str) -> None:
        """Forget a job, and what it left here: its coordinator has it, or wants it no more."""
        self._end_and_drop(self._that(lambda job: job.token == token))

    def end(self, *, coordinator: str) -> None:
        """Bring a coordinator's jobs to an end, as at SIGTERM."""
        _end(self._that(lambda job: job.coordinator == coordinator))

    def end_all(self) -> None:
        """Bring all jobs to an end, and wait until their coordinators have what they left, a moment at most."""
        with self._changed:
            self._is_ending = True
        deadline = time.monotonic() + GRACE_S + CARRY_S
        _end(self._that(lambda _: True))
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, timeout=deadline - time.monotonic())
        self.slots.end()

    def see_leases(self) -> None:
        """End the jobs of coordinators that have not asked for too long; nobody will fetch what they leave."""
        late = self._that(lambda job: self._clock() - job.asked_at > self._lease_s)
        self._end_and_drop([job for job in late if not (job.is_running and job.is_ending)])

    def wait(self, token: str) -> None:
        """Wait until a job has ended, or is not known any more."""
        with self._changed:
            self._changed.wait_for(lambda: token not in self._jobs or self._jobs[token].outcome is not None)

    def _that(self, holds: Callable[[_Job], bool]) -> list[_Job]:
        with self._changed:
            return [job for job in self._jobs.values() if holds(job)]

    def _job(self, token: str) -> _Job:
        with self._changed:
            job = self._jobs.get(token)
        if job is None:
            raise Refused("stale", "the job is not known here any more")
        return job

    def _end_and_drop(self, jobs: Sequence[_Job]) -> None:
        _end(jobs)
        for job in jobs:
            with job.dropping:  # its folders may be another job's, once it is forgotten
                self._drop(job)

    def _drop(self, job: _Job) -> None:
        if job.token not in self._jobs:
            return
        job.offers.withdraw()
        for incoming in job.incoming.values():
            incoming.discard()
        for folder in job.folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        self.slots.leave(job.slot, job.token)
        with self._changed:
            del self._jobs[job.token]
            self._changed.notify_all()


def _place(folder: Path, incoming: Incoming | None) -> None:
    """Have a run's folder hold what was sent of it, and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if incoming is not None:
        incoming.check()
        incoming.folder.rename(folder)


def _note(job: _Job, leave: str) -> None:
    if (watched := job.watched.get(leave)) is not None:
        watched.is_dirty = True


def _news(job: _Job, seen: int) -> dict[str, Any]:
    """Return what of a job a coordinator has not seen; epochs up to a piece in all."""
    job.serial += 1
    is_ended, folders, left = job.outcome is not None, {}, PIECE
    for leave, watched in job.watched.items():
        watched.confirm(seen)
        if watched.is_dirty and left > 0 and (news := watched.news(job.serial)) is not None:
            folders[leave] = news.plain()
            left -= len(news.epochs)
    return {"serial": job.serial, "folders": folders, "is_ended": is_ended, "kept": job.offers.common_epoch()}


def _end(jobs: Sequence[_Job]) -> None:
    """Have jobs brought to an end, all at once, and wait for that."""
    running = [job for job in jobs if job.is_running]
    for job in jobs:
        if job.is_running and not job.is_ending:
            threading.Thread(target=job.slot.end, name="end job", daemon=True).start()
        job.is_ending = True
    for job in running:
        job.ended.wait()


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""
