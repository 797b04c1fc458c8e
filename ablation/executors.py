"""Runs callables and returns futures: in this process, or in a pool of processes that survives a killed worker.

Executors know functions, not studies. Each has slots, one device per job that it runs at a time; whoever submits
keeps to them and tells the job which device is its own.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

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
    """Runs each job in this process before `submit` returns: for debugging, and where there is one core."""

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

    A worker that dies takes only its own job with it and is replaced (pebble; the standard pool and loky lose every
    job). Workers leave SIGINT to the process that started them.
    """

    def __init__(self, *, slots: tuple[str, ...]) -> None:
        self.slots = slots
        self._pool = ProcessPool(
            max_workers=len(slots),
            initializer=_begin_worker,
            context=multiprocessing.get_context("spawn"),
        )

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = self._pool.schedule(function, args=args, kwargs=kwargs)
        return future

    def stop(self) -> None:
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._pool.stop()
        self._pool.close()
        self._pool.join()


def is_worker_lost(error: BaseException) -> bool:
    """Whether a future's error says that its worker died (killed, out of memory), not that its job raised."""
    return isinstance(error, ProcessExpired)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_executor(kind: str, *, devices: tuple[str, ...], workers: int | None, threads: int) -> Executor:
    """Return an executor of a kind: `inline`, `processes`, or `auto`, which takes what is there.

    Args:
        devices: what jobs may run on; workers take turns on them.
        workers: jobs at a time; by default one per GPU, or one per `threads` cores.
        threads: CPU threads of a job.
    """
    on_gpu = devices[0] != "cpu"
    count = workers or (len(devices) if on_gpu else max(1, available_cores() // threads))
    if kind == "inline" or (kind == "auto" and count == 1 and not on_gpu):
        return InlineExecutor(device=devices[0])
    return ProcessExecutor(slots=tuple(devices[index % len(devices)] for index in range(count)))


def _begin_worker(*_args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
