"""What an executor is: it runs callables and returns futures.

Executors know functions, not studies. Each has slots, one device per job that it runs at a time; whoever submits
keeps to them and tells the job which device is its own.
"""

import signal
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from ablation.stopping import Preempted, stopping

P = ParamSpec("P")
T = TypeVar("T")


class Executor(Protocol):
    """Runs jobs, at most one per slot at a time.

    `submit` may be called from one thread only. The future of a job whose worker died raises WorkerLost; no other job's
    does. What a future raises is an Exception: of a job that would end its process, as sys.exit does, JobExited. A
    worker that gets SIGTERM has GRACE_S to bring its job to a good end: the job sees it at `stopping`, and may
    raise Preempted. Leaving the context waits for what is running, or stops it where an exception leaves it.
    """

    slots: tuple[str, ...]

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]": ...

    def stop(self) -> None:
        """Have what is running brought to a good end within GRACE_S, end it then, and take no more jobs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class WorkerLost(Exception):
    """A worker died with its job; `exit_code` is its process's, minus the signal's number where one ended it."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(f"its process ended {_ending_text(exit_code)}")

    @property
    def is_preemption(self) -> bool:
        """Whether it was asked to end, and was not in time."""
        return self.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGHUP)


class JobExited(Exception):
    """A job raised what ends a process, SystemExit for example, and what else it was."""


def carried(error: BaseException) -> Exception:
    """Return what a future carries of an error that ended a job: nothing that would end whoever asks for the result."""
    if isinstance(error, Exception):
        return error
    return Preempted() if stopping.is_asked else JobExited(f"{type(error).__name__}: {error}")


def _ending_text(exit_code: int | None) -> str:
    if exit_code is None:
        return "for a reason that is not known"
    if exit_code >= 0:
        return f"with status {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    hint = ", as the system does when memory runs out" if -exit_code == signal.SIGKILL else ""
    return f"by {name}{hint}"
