"""What a node does for its coordinators: it keeps files, runs jobs in processes, and says what became of them.

Every question names the coordinator and the job's token: two coordinators never meet, and what an old job sends is
taken by nobody. A job whose coordinator has not asked for LEASE_S ends as at SIGTERM.
"""

import contextlib
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
from ablation.errors import CarriedError, is_no_room
from ablation.executors.interface import Files, carried
from ablation.executors.nodes.files import (
    PIECE,
    CarriedFile,
    CarriedWrong,
    Incoming,
    check_name,
    checked,
    described,
    files_of_ended,
    is_of_a_run,
    read_piece,
)
from ablation.executors.nodes.folder import NodeFolder, leave_path
from ablation.executors.nodes.jobs import run_packed, visible_gpus
from ablation.executors.nodes.news import FolderWatch
from ablation.executors.processes import ProcessExecutor
from ablation.stopping import GRACE_S

LEASE_S = float(os.environ.get("ABLATION_LEASE_SECONDS", "60"))
"""Seconds without a question from its coordinator after which a job is ended."""
CARRY_S = 2.0
"""Seconds beyond the grace that a node which is to end waits for its coordinator to fetch what it has."""
PROBE_S = 120.0


class Refused(CarriedError):
    """A node does not do what it was asked: `kind` is `busy`, `stale`, `ending`, `full` or `wrong`."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


@dataclass(slots=True, kw_only=True)
class _Slot:
    """Room for one job at a time: a process of its own, which stays for the next one, and a GPU where it has one."""

    device: str
    gpu: str | None = None
    taken_by: str | None = None
    executor: ProcessExecutor | None = None

    def processes(self) -> ProcessExecutor:
        if self.executor is None:
            self.executor = ProcessExecutor(slots=("cpu",))
        return self.executor

    def end(self) -> None:
        """Bring what runs here to an end, within the grace."""
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.stop()
            executor.__exit__(None, None, None)


@dataclass(slots=True, kw_only=True)
class _Job:
    """A job of a coordinator, from the round of its questions in which it was announced to where it is let go."""

    token: str
    coordinator: str
    round: int
    home: Path
    leaves: tuple[str, ...]
    slot: _Slot
    asked_at: float
    watched: dict[str, FolderWatch] = field(default_factory=dict)
    incoming: dict[str, Incoming] = field(default_factory=dict)
    offered: dict[str, Path] = field(default_factory=dict)
    serial: int = 0
    is_started: bool = False
    is_ending: bool = False
    outcome: tuple[str, bytes] | None = None


class Agent:
    """One per worker of the engine; its methods may be called in any thread."""

    def __init__(
        self,
        folder: NodeFolder,
        *,
        threads: int,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the node's folder; `threads` is how many jobs run at a time on the CPU.

        Raises:
            OSError: the folder cannot be made, or written.
        """
        self.id = uuid.uuid4().hex
        self.folder = folder
        self.folder_id = folder.make()
        folder.sweep()
        self._threads, self._lease_s, self._clock = max(1, threads), lease_s, clock
        self._slots: dict[str, list[_Slot]] = {}
        self._why_no_gpu = ""
        self._jobs: dict[str, _Job] = {}
        self._needs: dict[str, Incoming] = {}
        self._changed = threading.Condition(threading.RLock())
        self._probing = threading.Lock()
        self._is_ending = False

    # What the node is

    def hello(self) -> dict[str, Any]:
        """Say what there is here: versions, folder, GPUs; the first question that a coordinator asks."""
        slots = self._all_slots()
        return {
            "agent": self.id,
            "folder": self.folder_id,
            "path": str(self.folder.path),
            "free": shutil.disk_usage(self.folder.path).free,
            "host": platform.node(),
            "version": __version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
            "torch": _torch_version(),
            "slots": {device: len(found) for device, found in slots.items()},
            "why_no_gpu": self._why_no_gpu,
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
            return f"its folder cannot be used: {error} (ABLATION_NODE_DIR names another)"
        for check in checks:
            try:
                self._probed(run_packed, check, self._gpu_of(device), device=device)
            except Exception as error:  # noqa: BLE001 - whatever it says, this node is unfit
                return str(error) or type(error).__name__
        return None

    def _gpu_of(self, device: str) -> str | None:
        return next((slot.gpu for slot in self._all_slots().get(device, ())), None)

    def _all_slots(self) -> dict[str, list[_Slot]]:
        with self._probing:
            if not self._slots:
                cpus = [_Slot(device="cpu") for _ in range(self._threads)]
                asked = cpus[0].processes().submit(visible_gpus)  # its process has PyTorch for the first job then
                gpus, self._why_no_gpu = asked.result(timeout=PROBE_S)
                self._slots = {"cpu": cpus, "cuda": [_Slot(device="cuda", gpu=gpu) for gpu in gpus]}
            return self._slots

    def _probed(self, function: Callable[..., Any], *args: Any, device: str) -> Any:
        """Return what a function returns in a process of a free slot, else in one of its own."""
        with self._changed:
            free = next((slot for slot in self._slots.get(device, ()) if slot.taken_by is None), None)
            if free is not None:
                free.taken_by = "probing"
        slot = free or _Slot(device=device)
        try:
            return slot.processes().submit(function, *args).result(timeout=PROBE_S)
        finally:
            if free is None:
                slot.end()
            else:
                slot.taken_by = None

    # Beginning a job

    def reserve(
        self,
        *,
        coordinator: str,
        round: int,  # noqa: A002 - what the question calls it
        token: str,
        device: str,
        of: str,
        leaves: Sequence[str],
    ) -> None:
        """Keep a slot for a job.

        Raises:
            Refused: there is no free slot, or this node is about to end.
        """
        home = self.folder.home(of)
        if token in self._jobs:
            return  # the answer to the first question was lost
        paths = {leave: leave_path(home, leave) for leave in leaves}
        for other in [job for job in self._of_leaves(home, leaves) if job.coordinator != coordinator]:
            self._end([other])  # of one that was killed: the study goes on, and its lease with it
            self._drop(other)
        slots = self._all_slots()[device]
        with self._changed:
            if self._is_ending:
                raise Refused("ending", "it is about to end")
            slot = next((slot for slot in slots if slot.taken_by is None), None)
            if slot is None:
                raise Refused("busy", "another job runs there")
            slot.taken_by = token
            self._jobs[token] = _Job(
                token=token,
                coordinator=coordinator,
                round=round,
                home=home,
                leaves=tuple(paths),
                slot=slot,
                asked_at=self._clock(),
            )

    def _of_leaves(self, home: Path, leaves: Sequence[str]) -> list[_Job]:
        with self._changed:
            return [job for job in self._jobs.values() if job.home == home and set(leaves) & set(job.leaves)]

    def find_shared(self, *, token: str, need: str, nonce: str, files: Mapping[str, str]) -> bool:
        """Say whether what a job needs is read where the coordinator has it."""
        places = {name: Path(path) for name, path in files.items()}
        return self.folder.find_shared(need, self._job(token).home, nonce=Path(nonce), files=places)

    def expect(self, *, files: Sequence[object]) -> str:
        """Make room for what jobs need, and return what its delivery is called."""
        delivery = Incoming(self.folder.beside(), checked(list(files), is_taken=lambda _: True))
        self._begin_incoming(delivery)
        with self._changed:
            self._needs[delivery.folder.name] = delivery
        return delivery.folder.name

    def put(self, *, delivery: str, name: str, offset: int, data: bytes) -> None:
        """Take a piece of what jobs need."""
        with self._changed:
            incoming = self._needs.get(delivery)
        if incoming is None:
            raise Refused("stale", "nothing of that name is on its way")
        with _writing():
            incoming.write(name, offset, data)

    def complete(self, *, delivery: str, need: str) -> None:
        """Put what has arrived where jobs find it.

        Raises:
            CarriedWrong: it is not what was announced.
        """
        with self._changed:
            incoming = self._needs.pop(delivery, None)
        if incoming is None:
            raise Refused("stale", "nothing of that name is on its way")
        try:
            with _writing():
                self.folder.incoming(need, incoming)
        finally:
            incoming.discard()

    def has(self, *, token: str, need: str, files: Sequence[object]) -> bool:
        """Whether what a job needs is there as it was brought; a job finds it then."""
        return self.folder.has(need, self._job(token).home, files=checked(list(files), is_taken=lambda _: True))

    def piece_of_need(self, *, need: str, name: str, offset: int) -> bytes:
        """Return a piece of what was brought here, for another node."""
        path = self.folder.found(need, name)
        if path is None:
            raise Refused("stale", f"{need} is not here")
        return read_piece(path, offset)

    def expect_leave(self, *, token: str, leave: str, files: Sequence[object]) -> None:
        """Make room for what a run resumes from."""
        job = self._job(token)
        incoming = Incoming(self.folder.beside(), checked(list(files)))
        self._begin_incoming(incoming)
        job.incoming[leave] = incoming

    def put_leave(self, *, token: str, leave: str, name: str, offset: int, data: bytes) -> None:
        """Take a piece of what a run resumes from."""
        with _writing():
            self._job(token).incoming[leave].write(name, offset, data)

    def _begin_incoming(self, incoming: Incoming) -> None:
        with _writing():
            incoming.begin()

    def start(self, *, token: str, call: bytes, has_files: bool) -> None:
        """Run a job whose files are here; the folders of its runs have what was sent of them and nothing else."""
        job = self._job(token)
        with _writing():
            for leave in job.leaves:
                self._place(job, leave)
        files = Files(home=job.home, leaves=job.leaves, on_change=lambda name: self._note(job, name), is_home=False)
        with self._changed:
            if job.is_started:
                return  # the answer to the first question was lost
            if self._is_ending or job.is_ending:
                raise Refused("ending", "it is about to end")
            job.is_started = True
            future = job.slot.processes().submit(run_packed, call, job.slot.gpu, files=files if has_files else None)
        future.add_done_callback(lambda done: self._settle(job, done))

    def _place(self, job: _Job, leave: str) -> None:
        if job.is_started:
            return
        path, incoming = leave_path(job.home, leave), job.incoming.pop(leave, None)
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if incoming is not None:
            incoming.check()
            incoming.folder.rename(path)
        job.watched[leave] = FolderWatch(path)

    # While it runs

    def _note(self, job: _Job, leave: str) -> None:
        if (watched := job.watched.get(leave)) is not None:
            watched.is_dirty = True

    def _settle(self, job: _Job, future: "Future[bytes]") -> None:
        error = future.exception() if not future.cancelled() else None
        with self._changed:
            if error is not None or future.cancelled():
                job.outcome = ("error", pickle.dumps(carried(error) if error is not None else None))
            else:
                job.outcome = ("result", future.result())
            for watched in job.watched.values():
                watched.is_dirty = True
            if job.slot.taken_by == job.token:
                job.slot.taken_by = None
            self._changed.notify_all()

    def ask(self, *, coordinator: str, round: int, seen: Mapping[str, int]) -> dict[str, Any]:  # noqa: A002
        """Say what is new of a coordinator's jobs since the answers that it has seen, by token.

        Jobs that it names no more, and had announced before this round of questions, are ended.
        """
        with self._changed:
            mine = [job for job in self._jobs.values() if job.coordinator == coordinator]
            stale = [job for job in mine if job.token not in seen and job.round < round]
            for job in mine:
                job.asked_at = self._clock()
            free = {device: sum(slot.taken_by is None for slot in found) for device, found in self._slots.items()}
            is_ending = self._is_ending
        if stale:
            threading.Thread(target=self._end_and_drop, args=[stale], name="stale jobs", daemon=True).start()
        jobs = {job.token: self._news(job, seen[job.token]) for job in mine if job.token in seen}
        return {"agent": self.id, "free": free, "is_ending": is_ending, "jobs": jobs}

    def _news(self, job: _Job, seen: int) -> dict[str, Any]:
        job.serial += 1
        outcome, folders, left = job.outcome, {}, PIECE
        for leave, watched in job.watched.items():
            watched.confirm(seen)
            if watched.is_dirty and left > 0 and (news := watched.news(job.serial)) is not None:
                folders[leave] = news.plain()
                left -= len(news.epochs)
        return {"serial": job.serial, "folders": folders, "is_ended": outcome is not None, "kept": _common_epoch(job)}

    def offer_ended(self, *, token: str) -> dict[str, Any]:
        """Say how a job ended, `result` or `error` with that pickled, and describe all that its runs left."""
        job = self._job(token)
        if job.outcome is None:
            raise Refused("stale", "the job has not ended")
        self._withdraw(job)
        job.offered = {leave: leave_path(job.home, leave) for leave in job.leaves}
        left = {leave: _described(folder, files_of_ended(folder)) for leave, folder in job.offered.items()}
        return {"kind": job.outcome[0], "value": job.outcome[1], "left": left}

    def offer_checkpoint(self, *, token: str) -> dict[str, list[dict[str, Any]]]:
        """Describe the last checkpoint that all runs of a job have; it stays until the next offer, whatever they do."""
        job = self._job(token)
        self._withdraw(job)
        names = _common_checkpoints(job)
        beside = self.folder.beside()
        for number, leave in enumerate(names):
            kept, name = beside / str(number), names[leave]
            (kept / name).parent.mkdir(parents=True)
            with contextlib.suppress(OSError):  # it was replaced meanwhile: there is another one soon
                _keep(leave_path(job.home, leave) / name, kept / name)
                job.offered[leave] = kept
        is_whole = len(job.offered) == len(job.leaves)
        return {leave: _described(kept, [names[leave]]) for leave, kept in job.offered.items()} if is_whole else {}

    def pieces(self, *, token: str, wanted: Sequence[tuple[str, str, int]]) -> list[bytes]:
        """Return pieces of what was offered, each of a leave's file from an offset on; fewer where they are long."""
        offered, found, left = self._job(token).offered, [], PIECE
        for leave, name, offset in wanted:
            if leave not in offered or not is_of_a_run(name):
                raise Refused("stale", "it is not offered any more")
            check_name(name)
            found.append(read_piece(offered[leave] / name, offset))
            left -= len(found[-1])
            if left <= 0:
                break
        return found

    def _withdraw(self, job: _Job) -> None:
        offered, job.offered = job.offered, {}
        for folder in offered.values():
            if folder.is_relative_to(self.folder.path / "incoming"):
                shutil.rmtree(folder.parent, ignore_errors=True)

    # The end of jobs

    def release(self, *, token: str) -> None:
        """Forget a job that has ended, and what it left here: its coordinator has it."""
        with self._changed:
            job = self._jobs.get(token)
        if job is not None:
            self._end([job])
            self._drop(job)

    def end(self, *, coordinator: str) -> None:
        """Bring a coordinator's jobs to an end, as at SIGTERM."""
        with self._changed:
            jobs = [job for job in self._jobs.values() if job.coordinator == coordinator]
        self._end(jobs)

    def end_all(self) -> None:
        """Bring all jobs to an end, and wait until their coordinators have what they left, a moment at most."""
        with self._changed:
            self._is_ending = True
            jobs = list(self._jobs.values())
        deadline = time.monotonic() + GRACE_S + CARRY_S
        self._end(jobs)
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, timeout=deadline - time.monotonic())
        for slot in [slot for found in self._slots.values() for slot in found]:
            slot.end()

    def see_leases(self) -> None:
        """End the jobs of coordinators that have not asked for too long; nobody will fetch what they leave."""
        with self._changed:
            jobs = [job for job in self._jobs.values() if self._clock() - job.asked_at > self._lease_s]
        self._end_and_drop([job for job in jobs if not job.is_ending])

    def most_jobs(self) -> int:
        """Return how many jobs may run here at a time."""
        return max((len(found) for found in self._slots.values()), default=0)

    def wait(self, token: str) -> None:
        """Wait until a job has ended, or is not known any more."""
        with self._changed:
            self._changed.wait_for(lambda: token not in self._jobs or self._jobs[token].outcome is not None)

    def _end_and_drop(self, jobs: Sequence[_Job]) -> None:
        self._end(jobs)
        for job in jobs:
            self._drop(job)

    def _end(self, jobs: Sequence[_Job]) -> None:
        """Have jobs brought to an end, all at once, and wait for that."""
        threads = []
        for job in jobs:
            with self._changed:
                is_running = job.is_started and job.outcome is None and not job.is_ending
                job.is_ending = True
            if is_running:
                threads.append(threading.Thread(target=job.slot.end, name="end job", daemon=True))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _drop(self, job: _Job) -> None:
        with self._changed:
            self._jobs.pop(job.token, None)
            if job.slot.taken_by == job.token:
                job.slot.taken_by = None
            self._changed.notify_all()
        self._withdraw(job)
        for incoming in job.incoming.values():
            incoming.discard()
        for leave in job.leaves:
            shutil.rmtree(leave_path(job.home, leave), ignore_errors=True)

    def _job(self, token: str) -> _Job:
        with self._changed:
            job = self._jobs.get(token)
        if job is None:
            raise Refused("stale", "the job is not known here any more")
        return job


class _writing(contextlib.AbstractContextManager[None]):  # noqa: N801 - it is used as a function
    """Refuse what there is no room for."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise Refused("full" if is_no_room(error) else "wrong", f"its folder cannot be written: {error}") from error


def _common_epoch(job: _Job) -> int:
    """Return the latest epoch after which all of a job's runs kept a checkpoint, 0 where there is none."""
    kept = [{epoch for epoch, _, _ in watched.run.kept_checkpoints()} for watched in job.watched.values()]
    return max(set.intersection(*kept), default=0) if kept else 0


def _common_checkpoints(job: _Job) -> dict[str, str]:
    """Return each run's checkpoint after the latest epoch that they have in common, by its name in the folder."""
    latest, found = _common_epoch(job), {}
    for leave, watched in job.watched.items():
        for epoch, _, file in watched.run.kept_checkpoints():
            if epoch == latest:
                found[leave] = file.relative_to(watched.run.path).as_posix()
    return found if latest else {}


def _described(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    return [described(folder, name).plain() for name in names]


def _keep(file: Path, beside: Path) -> None:
    """Keep a file that may be removed while it is read."""
    try:
        os.link(file, beside)
    except PermissionError:  # a file system without links
        shutil.copyfile(file, beside)


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return ""


__all__ = ["CARRY_S", "LEASE_S", "Agent", "CarriedFile", "CarriedWrong", "Refused"]
