"""What an executor is: it runs callables and returns futures.

Executors know functions, not studies. Each has slots, one per job that it runs at a time, by the name of the device
that is wished for the job: `cpu`, `cuda`, `cuda:1`. Whoever submits keeps to them and hands the job its slot's name;
what device that is, is found out where the job runs.
"""

import pickle
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import ParamSpec, Protocol, Self, TypeVar

from ablation.errors import CarriedError
from ablation.stopping import Preempted, stopping

P = ParamSpec("P")
T = TypeVar("T")


class Executor(Protocol):
    """Runs jobs, at most one per slot at a time.

    `submit` may be called from one thread only, with a function that a worker can import: workers do not run the main
    module. The future of a job whose worker died raises WorkerLost; no other job's does. What a future raises is an
    Exception: of a job that would end its process, as sys.exit does, JobExited. A worker that gets SIGTERM has GRACE_S
    to bring its job to a good end: the job sees it at `stopping`, and may raise Preempted. Leaving the context waits
    for what is running, or stops it where an exception leaves it.

    `ablation.testing` has the tests of all this.
    """

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots there are now: workers may come and go, and there may be none for a while."""
        ...

    @property
    def is_on_gpu(self) -> bool:
        """Whether jobs get a GPU; it does not change, and holds where there is no slot yet."""
        ...

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]": ...

    def stop(self) -> None:
        """Have what is running brought to a good end within GRACE_S, end it then, and take no more jobs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def free_slots(executor: Executor, taken: Iterable[str]) -> list[str]:
    """Return the slots that there are now and that no job under way has taken, in the executor's order."""
    left = Counter(taken)
    free = []
    for slot in executor.slots:
        if left[slot]:
            left[slot] -= 1
        else:
            free.append(slot)
    return free


class WorkerLost(CarriedError):
    """A worker died with its job; `exit_code` is its process's, minus the signal's number where one ended it."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(f"its process ended {_ending_text(exit_code)}")

    @property
    def is_preemption(self) -> bool:
        """Whether it was asked to end, and was not in time."""
        return self.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGHUP)


class JobExited(Exception):
    """A job raised what ends a process, SystemExit for example, or what cannot be pickled; its text says what."""


def carried(error: BaseException) -> Exception:
    """Return what a future carries of an error that ended a job.

    It ends nobody who asks for the result, and can be pickled: one that cannot would end the worker's pool.
    """
    if isinstance(error, Exception) and _is_read_back(error):
        return error
    is_ending = not isinstance(error, Exception)
    return Preempted() if is_ending and stopping.is_asked else JobExited(f"{type(error).__name__}: {error}")


def _is_read_back(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - an exception's own code may raise anything
        return False


def _ending_text(exit_code: int | None) -> str:
    if exit_code is None:
        return "for a reason that is not known"
    if exit_code >= 0:
        return f"with status {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in set(signal.Signals) else f"signal {-exit_code}"
    hint = ", as the system does when memory runs out" if -exit_code == signal.SIGKILL else ""
    return f"by {name}{hint}"
