"""Runs jobs in processes, of which one may be killed without the others."""

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import Self

from ablation.executors.interface import P, T, WorkerLost, carried
from ablation.executors.spawning import SpawnedContext
from ablation.output import make_unfailing
from ablation.stopping import GRACE_S, Preempted, leave_to_this_process, stopping

LOOK_S = 1.0
"""Seconds between two looks whether a worker lives."""


class ProcessExecutor:
    """Runs jobs in spawned processes that live as long as the executor, so imports and data are paid once per worker.

    A worker that dies takes only its own job with it and is replaced: each is a pool of one process, as processes that
    share a pool share its locks, and one that is killed with a lock in its hands stops all the others for good.
    Workers leave SIGINT and SIGHUP to the process that started them.
    """

    def __init__(self, *, slots: tuple[str, ...]) -> None:
        self.slots = slots
        self.is_on_gpu = any(slot != "cpu" for slot in slots)
        environment = dict(os.environ)  # as it is now: what a tracker sets while it asks its server is not for workers
        self._workers = [_Worker(environment) for _ in slots]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(max_workers=len(slots), thread_name_prefix="worker")

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return self._threads.submit(self._run, functools.partial(function, *args, **kwargs))

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.end(signal.SIGTERM)
        killing = threading.Timer(GRACE_S, self._kill)
        killing.start()
        self._threads.shutdown(wait=True)
        killing.cancel()
        self._kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.stop()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.close()

    def _kill(self) -> None:
        for worker in self._workers:
            worker.end(signal.SIGKILL)

    def _run(self, job: Callable[[], T]) -> T:
        worker = self._free.get()
        try:
            return worker.run(job)
        finally:
            self._free.put(worker)


class _Worker:
    """One process at a time, started when there is a job and again after it died; used by one thread at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._pool: ProcessPoolExecutor | None = None
        self._process: BaseProcess | None = None
        self._ended_by: int | None = None

    def run(self, job: Callable[[], T]) -> T:
        """Return what the job returns.

        Raises:
            WorkerLost: the process died with it.
        """
        try:
            return self._result(self._submitted(job))
        except BrokenExecutor:
            process = self._process
            self.close()
            raise WorkerLost(_exit_code(process)) from None
        except Preempted:
            self.close()
            raise

    def end(self, number: int) -> None:
        """Send the process a signal, and any that would be started after it; what it has started is killed with it."""
        self._ended_by = number
        process = self._process
        if process is not None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)

    def _result(self, future: "Future[T]") -> T:
        """Return a job's result; see too that the process lives, as what it has forked keeps its pipes open."""
        process = self._process
        while True:
            try:
                return future.result(timeout=LOOK_S)
            except TimeoutError:
                if future.done():
                    raise
                if process is not None and process.exitcode is not None and process.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    def close(self) -> None:
        pool, self._pool, self._process = self._pool, None, None
        if pool is not None:
            pool.shutdown(wait=True)

    def _submitted(self, job: Callable[[], T]) -> "Future[T]":
        try:
            return self._started().submit(_run_job, job)
        except BrokenExecutor:  # it died while it had nothing to do
            self.close()
            return self._started().submit(_run_job, job)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = SpawnedContext()
            self._pool = ProcessPoolExecutor(
                max_workers=1, mp_context=context, initializer=_begin_worker, initargs=(self._environment,)
            )
            pid = self._pool.submit(os.getpid).result()
            self._process = next((child for child in multiprocessing.active_children() if child.pid == pid), None)
        if self._ended_by is not None:
            self.end(self._ended_by)
        return self._pool


def _begin_worker(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked_to_end)
    leave_to_this_process(_asked_to_end)
    make_unfailing()
    os.setpgid(0, 0)  # what a job starts is in this group, and is killed with it
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _run_job(job: Callable[[], T]) -> T:
    """Run a job in a worker; one that was asked to end takes none."""
    global _is_busy
    if stopping.is_asked:
        raise Preempted
    _is_busy = True
    try:
        with stopping.hearing():
            return job()
    except BaseException as error:  # noqa: BLE001 - the future carries it to whoever asks for the result
        raise carried(error) from error.__cause__
    finally:
        _is_busy = False


def _asked_to_end(number: int, _frame: FrameType | None) -> None:
    if not _is_busy:
        os._exit(128 + number)
    stopping.ask(number)
    timer = threading.Timer(GRACE_S, os._exit, [128 + number])
    timer.daemon = True
    timer.start()


_is_busy = False


def _exit_code(process: BaseProcess | None) -> int | None:
    if process is None:
        return None
    process.join(timeout=1.0)
    return process.exitcode


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
