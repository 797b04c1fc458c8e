"""Runs callables and returns futures: in this process, or in processes of which one may be killed.

Executors know functions, not studies. Each has slots, one device per job that it runs at a time; whoever submits
keeps to them and tells the job which device is its own.
"""

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Executor(Protocol):
    """Runs jobs, at most one per slot at a time.

    `submit` may be called from one thread only. The future of a job whose worker died raises an error that
    `is_worker_lost` knows; no other job's does. Leaving the context waits for what is running, or stops it where an
    exception leaves it.
    """

    slots: tuple[str, ...]

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]": ...

    def stop(self) -> None:
        """End what is running now, without a result, and take no more jobs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class InlineExecutor:
    """Runs each job in this process before `submit` returns: for debugging."""

    def __init__(self, *, device: str) -> None:
        self.slots: tuple[str, ...] = (device,)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever asks for the result
            future.set_exception(error)
        return future

    def stop(self) -> None:
        """Nothing runs while nobody is in `submit`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class ProcessExecutor:
    """Runs jobs in spawned processes that live as long as the executor, so imports and data are paid once per worker.

    A worker that dies takes only its own job with it and is replaced: each is a pool of one process, as processes that
    share a pool share its locks, and one that is killed with a lock in its hands stops all the others for good.
    Workers leave SIGINT to the process that started them.
    """

    def __init__(self, *, slots: tuple[str, ...]) -> None:
        self.slots = slots
        self._workers = [_Worker() for _ in slots]
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(max_workers=len(slots), thread_name_prefix="worker")

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        return self._threads.submit(self._run, functools.partial(function, *args, **kwargs))

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(wait=True)

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

    def _run(self, job: Callable[[], T]) -> T:
        worker = self._free.get()
        try:
            return worker.run(job)
        finally:
            self._free.put(worker)


class _Worker:
    """One process at a time, started when there is a job and again after it died; used by one thread at a time."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._pid: int | None = None
        self._is_killed = False

    def run(self, job: Callable[[], T]) -> T:
        """Return what the job returns; BrokenExecutor where the process died with it."""
        try:
            future = self._started().submit(job)
        except BrokenExecutor:  # it died while it had nothing to do
            self.close()
            future = self._started().submit(job)
        try:
            return future.result()
        except BrokenExecutor:
            self.close()
            raise

    def kill(self) -> None:
        """End the process now, and any that would be started after it."""
        self._is_killed = True
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        pool, self._pool, self._pid = self._pool, None, None
        if pool is not None:
            pool.shutdown(wait=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(max_workers=1, mp_context=context, initializer=_begin_worker)
            self._pid = self._pool.submit(os.getpid).result()
        if self._is_killed:
            self.kill()
        return self._pool


def is_worker_lost(error: BaseException) -> bool:
    """Whether a future's error says that its worker died (killed, out of memory), not that its job raised."""
    return isinstance(error, BrokenExecutor)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_executor(kind: str, *, devices: tuple[str, ...], workers: int | None, threads: int) -> Executor:
    """Return an executor of a kind: `inline`, or `processes`, which `auto` is too, as many as there is room for.

    Args:
        devices: what jobs may run on; workers take turns on them.
        workers: jobs at a time; by default one per GPU, or one per `threads` cores.
        threads: CPU threads of a job.
    """
    on_gpu = devices[0] != "cpu"
    count = workers or (len(devices) if on_gpu else max(1, available_cores() // threads))
    if kind == "inline":
        return InlineExecutor(device=devices[0])
    return ProcessExecutor(slots=tuple(devices[index % len(devices)] for index in range(count)))


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)
