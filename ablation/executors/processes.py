"""Runs jobs in processes, of which one may be killed without the others."""

import atexit
import contextlib
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from ablation.executors.interface import Files, T, WorkerLost, carried
from ablation.executors.serving import Asked, Begun, Changed, Ended, serve
from ablation.executors.spawning import SpawnedContext
from ablation.stopping import GRACE_S

LOOK_S = 1.0
"""Seconds between two looks whether a worker lives."""


@dataclass(slots=True, kw_only=True)
class _Job:
    """A job on its way, pickled; `is_begun` once it has reached a worker."""

    future: Future[Any]
    asked: bytes
    files: Files | None
    is_begun: bool = False
    is_sent_again: bool = False


class ProcessExecutor:
    """Runs jobs in spawned processes that live as long as the executor, so imports and data are paid once per worker.

    A worker that dies takes only its own job with it and is replaced: each has a pipe of its own, as processes that
    share one share its lock, and one that is killed with a lock in its hands stops all the others for good. One thread
    listens to them all. Workers leave SIGINT and SIGHUP to the process that started them.
    """

    def __init__(self, *, slots: tuple[str, ...]) -> None:
        self.slots = slots
        self.is_here = True
        self.is_on_gpu = any(slot != "cpu" for slot in slots)
        environment = dict(os.environ)  # as it is now: what a tracker sets while it asks its server is not for workers
        self._workers = [_Worker(environment) for _ in slots]
        self._free = deque(self._workers)
        self._waiting: deque[_Job] = deque()
        self._news, self._woken = multiprocessing.Pipe(duplex=False)
        self._changed = threading.Condition(threading.RLock())
        self._ended_by: int | None = None
        self._is_over = False
        self._listening = threading.Thread(target=self._listen, name="workers", daemon=True)

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]":
        future: Future[T] = Future()
        home, is_home = (files.home, files.is_home) if files is not None else (None, True)
        try:
            asked = pickle.dumps(Asked(function=function, args=args, home=home, is_home=is_home))
        except Exception as error:  # noqa: BLE001 - pickling may raise anything
            future.set_exception(carried(error))
            return future
        with self._changed:
            self._waiting.append(_Job(future=future, asked=asked, files=files))
            self._begin_waiting()
        return future

    def require(self, check: Callable[[str], object]) -> None:
        for slot in dict.fromkeys(self.slots):
            check(slot)

    def take_notes(self) -> list[str]:
        return []

    def stop(self) -> None:
        with self._changed:
            while self._waiting:
                self._waiting.popleft().future.cancel()
            self._end(signal.SIGTERM)
            self._changed.wait_for(self._is_idle, timeout=GRACE_S)
            self._end(signal.SIGKILL)
            self._changed.wait_for(self._is_idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        with self._changed:
            self._changed.wait_for(lambda: self._is_idle() and not self._waiting)
        self._close()

    def _is_idle(self) -> bool:
        return all(worker.job is None for worker in self._workers)

    def _end(self, number: int) -> None:
        """Send all workers a signal; none is started any more."""
        self._ended_by = number
        for worker in self._workers:
            worker.end(number)

    def _begin_waiting(self) -> None:
        """Give waiting jobs to free workers; the caller holds the lock."""
        while self._waiting and self._free and self._ended_by is None:
            job = self._waiting.popleft()
            if job.future.set_running_or_notify_cancel():
                self._free.popleft().begin(job)
        if self._listening.ident is None and not self._is_over:
            atexit.register(self._close)
            self._listening.start()
        self._wake()

    def _wake(self) -> None:
        """Have the listening thread look which pipes there are."""
        with contextlib.suppress(OSError):
            self._woken.send_bytes(b"")

    def _listen(self) -> None:
        while not self._is_over:
            with self._changed:
                pipes = {worker.pipe: worker for worker in self._workers if worker.pipe is not None}
            for ready in multiprocessing.connection.wait([self._news, *pipes], timeout=LOOK_S):
                if ready is self._news:
                    self._news.recv_bytes()
                elif isinstance(ready, Connection):
                    self._hear(pipes[ready])
            for worker in pipes.values():
                worker.see()
        for worker in self._workers:
            worker.let_go()
        for worker in self._workers:
            worker.close()

    def _hear(self, worker: "_Worker") -> None:
        assert worker.pipe is not None
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            self._lose(worker)
            return
        except Exception as error:  # noqa: BLE001 - unpickling a result may raise anything
            said = Ended(error=carried(error))
        job = worker.job
        if job is None:
            return
        if isinstance(said, Begun):
            job.is_begun = True
        elif isinstance(said, Changed):
            if job.files is not None:
                job.files.on_change(said.name)
        else:
            self._settle(worker, job, said)

    def _settle(self, worker: "_Worker", job: _Job, ended: Ended) -> None:
        if ended.is_last:
            worker.close()
        if ended.error is not None:
            job.future.set_exception(ended.error)
        else:
            job.future.set_result(ended.result)
        self._release(worker)

    def _lose(self, worker: "_Worker") -> None:
        """See how a worker's process ended; a job that had not reached it is sent to another one, once."""
        job, exit_code = worker.job, worker.close()
        if job is None:
            return
        if not job.is_begun and not job.is_sent_again and self._ended_by is None:
            job.is_sent_again = True
            with self._changed:
                worker.begin(job)
        else:
            job.future.set_exception(WorkerLost(exit_code))
            self._release(worker)

    def _release(self, worker: "_Worker") -> None:
        with self._changed:
            worker.job = None
            self._free.append(worker)
            self._begin_waiting()
            self._changed.notify_all()

    def _close(self) -> None:
        """End the workers, which have nothing to do."""
        atexit.unregister(self._close)
        with self._changed:
            self._is_over = True
            self._wake()
        if self._listening.ident is not None:
            self._listening.join()
        self._news.close()
        self._woken.close()


class _Worker:
    """One process at a time, started when there is a job and again after it died, and its job."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._process: BaseProcess | None = None
        self.pipe: Connection | None = None
        self.job: _Job | None = None

    def begin(self, job: _Job) -> None:
        """Send a job to the process; where that has died, the listening thread sees it at the pipe."""
        self.job = job
        if self.pipe is None:
            self._start()
        assert self.pipe is not None
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(job.asked)

    def end(self, number: int) -> None:
        """Send the process a signal; what it has started is killed with it."""
        process = self._process
        if process is None or process.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        if number == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def see(self) -> None:
        """See that the process lives: what it has forked without Python's knowing keeps its pipe open."""
        process = self._process
        if process is not None and process.exitcode is not None:
            self.end(signal.SIGKILL)

    def let_go(self) -> None:
        """Let the process end once it has nothing to do."""
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            pipe.close()

    def close(self) -> int | None:
        """Let the process end, which has nothing to do or has died, and return its exit status; it has a grace.

        What it has started ends with it.
        """
        self.let_go()
        process = self._process
        if process is None:
            return None
        process.join(timeout=GRACE_S)
        self.end(signal.SIGKILL)
        process.join()
        self._process = None
        return process.exitcode

    def _start(self) -> None:
        context = SpawnedContext()
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._environment), name="worker")
        self._process.start()
        theirs.close()
