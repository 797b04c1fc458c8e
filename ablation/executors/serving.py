"""What a worker process does: it takes jobs from a pipe, one after another, and says there what became of them."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import select
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from ablation.errors import CarriedError
from ablation.executors.interface import Place, carried
from ablation.output import make_unfailing
from ablation.stopping import GRACE_S, Preempted, leave_to_this_process, stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A job, as it is sent to a worker; `home` is where its files are, None where it has none."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    home: Path | None
    is_home: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """The job has reached the worker."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A folder that the job leaves has news."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The job has ended, with a result or an error; `is_last` where the worker takes no other."""

    result: Any = None
    error: Exception | None = None
    is_last: bool = False


class Voice:
    """What a worker says to the process that started it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one_at_a_time = threading.Lock()
        self._writable = select.poll()
        self._writable.register(connection.fileno(), select.POLLOUT)
        os.register_at_fork(after_in_child=connection.close)  # what a job forks would hold the pipe open

    def say(self, said: Begun | Changed | Ended) -> None:
        with self._one_at_a_time:
            self._connection.send(said)

    def changed(self, name: str) -> None:
        """Tell news, unless nobody takes any now: training never waits, and the next news tells these too."""
        with self._one_at_a_time, contextlib.suppress(OSError):  # who started this worker is gone, and so it is soon
            if not self._connection.closed and self._writable.poll(0):
                self._connection.send(Changed(name))


def serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Run the jobs that come until nobody sends any more, or this process was asked to end."""
    _begin(environment)
    voice = Voice(connection)
    with contextlib.suppress(EOFError, OSError):
        while not stopping.is_asked:
            asked = connection.recv_bytes()
            voice.say(Begun())
            _say_ended(voice, _ended(asked, voice))


def _begin(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _asked_to_end)
    leave_to_this_process(_asked_to_end)
    make_unfailing()
    os.setpgid(0, 0)  # what a job starts is in this group, and is killed with it
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _ended(asked: bytes, voice: Voice) -> Ended:
    """Run a job; one that reaches a worker which was asked to end is not begun."""
    global _is_busy
    _is_busy = True
    try:
        if stopping.is_asked:
            raise Preempted
        job: Asked = pickle.loads(asked)  # noqa: S301 - of the process that started this one
        place = () if job.home is None else (Place(folder=job.home, is_home=job.is_home, changed=voice.changed),)
        with stopping.hearing():
            result = job.function(*job.args, *place)
        return Ended(result=result, is_last=stopping.is_asked)
    except BaseException as error:  # noqa: BLE001 - the future carries it to whoever asks for the result
        return Ended(error=_told(error), is_last=stopping.is_asked)
    finally:
        _is_busy = False


def _told(error: BaseException) -> Exception:
    """Return what the future carries of an error, with its traceback as a note where it is no message of ours."""
    told = carried(error)
    if told is error and not isinstance(error, CarriedError | Preempted):
        told.add_note("".join(traceback.format_exception(error)))
    return told


def _say_ended(voice: Voice, ended: Ended) -> None:
    try:
        voice.say(ended)
    except (EOFError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - pickling a result may raise anything
        voice.say(Ended(error=carried(error), is_last=ended.is_last))


def _asked_to_end(number: int, _frame: FrameType | None) -> None:
    if not _is_busy:
        os._exit(128 + number)
    stopping.ask(number)
    timer = threading.Timer(GRACE_S, os._exit, [128 + number])
    timer.daemon = True
    timer.start()


_is_busy = False


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
