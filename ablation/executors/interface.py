"""What an executor is: it runs callables and returns futures.

Executors know functions and files, not studies. Each has slots, one per job that it runs at a time, by the name of the
device that is wished for the job: `cpu`, `cuda`, `cuda:1`. Whoever submits keeps to them and hands the job its slot's
name; what device that is, is found out where the job runs. So are the paths of the files that a job reads and leaves:
it is told them by name.
"""

import pickle
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from ablation.errors import CarriedError
from ablation.stopping import Preempted, stopping

T = TypeVar("T")


def _nobody_asks(_name: str) -> None:
    """Tell nobody of a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Files that a job reads: a folder by its name below its place, and where each is here, by its name in that.

    The name ends with a digest of the content: what lies under it is the same everywhere.
    """

    name: str
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What a job reads and leaves, by names below a folder of whoever submits it: `home`.

    `leaves` are folders that the job writes. `on_change` is called with such a name, in any thread, when something in
    it at home is new. `is_home` is false of a node's folder, where what a job needs was brought to.
    """

    home: Path
    needs: tuple[Needed, ...] = ()
    leaves: tuple[str, ...] = ()
    on_change: Callable[[str], object] = _nobody_asks
    is_home: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a job runs: the folder that its names are below, and by what it tells that one that it leaves has news."""

    folder: Path
    is_home: bool = True
    changed: Callable[[str], object] = _nobody_asks


class Executor(Protocol):
    """Runs jobs, at most one per slot at a time.

    `submit` may be called from one thread only, with a function that a worker can import: workers do not run the main
    module. With `files` the function gets a Place after its arguments. A job that finds no free slot waits for one. The
    future of a job whose worker died raises WorkerLost, of one whose node is gone NodeLost; no other job's does. What a
    future raises is an Exception: of a job that would end its process, as sys.exit does, JobExited. A worker that gets
    SIGTERM has GRACE_S to bring its job to a good end: the job sees it at `stopping`, and may raise Preempted. Leaving
    the context waits for what is running, or stops it where an exception leaves it.

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

    @property
    def is_here(self) -> bool:
        """Whether jobs run on this machine, with its files as they are: then nothing is brought to them."""
        ...

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]": ...

    def require(self, check: Callable[[str], object]) -> None:
        """Have `check` called with the device of each slot where its jobs will run, before the first of them.

        Of an executor on this machine it is called now, and raises here; a node where it raises gets no job.
        """
        ...

    def take_notes(self) -> list[str]:
        """Return in sentences what happened to its workers since it was asked last, for a person to read."""
        ...

    def stop(self) -> None:
        """Have what is running brought to a good end within GRACE_S, end it then, and take no more jobs."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class TakenSlots:
    """Which slots of an executor have a job of whoever submits; asked for each job, so it counts none anew."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._taken: Counter[str] = Counter()
        self._slots: tuple[str, ...] = ()
        self._places: dict[str, list[int]] = {}
        """Where each name stands among the slots."""

    def first_free(self) -> str | None:
        """Return the first slot in the executor's order that there is now and no job has taken, None without one."""
        slots = self._executor.slots
        if slots != self._slots:
            self._slots, self._places = slots, {}
            for place, slot in enumerate(slots):
                self._places.setdefault(slot, []).append(place)
        taken, there = self._taken, self._places.items()
        free = [(places[taken[slot]], slot) for slot, places in there if taken[slot] < len(places)]
        return min(free)[1] if free else None

    def take(self, slot: str) -> None:
        self._taken[slot] += 1

    def give_back(self, slot: str) -> None:
        self._taken[slot] -= 1


class WorkerLost(CarriedError):
    """A worker died with its job; `exit_code` is its process's, minus the signal's number where one ended it."""

    def __init__(self, exit_code: int | None) -> None:
        self.exit_code = exit_code
        super().__init__(f"its process ended {_ending_text(exit_code)}")

    @property
    def is_preemption(self) -> bool:
        """Whether it was asked to end, and was not in time."""
        return self.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM, -signal.SIGHUP)


class NodeLost(CarriedError):
    """The machine that a job ran on is gone, or does not answer: no fault of the job."""

    def __init__(self, node: str, reason: str) -> None:
        self.node = node
        super().__init__(f"its node {node} {reason}")


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
