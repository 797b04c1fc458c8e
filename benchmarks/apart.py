"""Runs a function in a process of its own: a hang or a crash costs what it would have answered, and nothing more.

The process is forked, so that it begins with all that is imported here. The one that forks must not have used a GPU.
"""

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import IO

LONGEST_SAID, LONGEST_LINE = 20_000, 300
JOIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a function: its value, or in a line why there is none.

    `said` is then the end of what the process wrote to standard error: a traceback, or where it hung.
    """

    value: object
    error: str | None
    said: str
    seconds: float


def run_apart(function: Callable[[], object], *, limit_s: float) -> Answer:
    """Call a function in another process, and end that and all that it started after its answer, or at the limit."""
    begun = time.perf_counter()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    with tempfile.TemporaryFile() as said:
        process = context.Process(target=_answer, args=(function, there, said.fileno(), limit_s))
        process.start()
        there.close()
        try:
            value, error = _answered(here, process, limit_s)
        finally:
            _end(process)
        seconds = time.perf_counter() - begun
        return Answer(value=value, error=error, said="" if error is None else _end_of(said), seconds=seconds)


def _answer(function: Callable[[], object], there: Connection, said: int, limit_s: float) -> None:
    os.setsid()  # whom it starts is ended with it
    os.dup2(said, 2)
    faulthandler.enable(2)
    faulthandler.dump_traceback_later(0.9 * limit_s, file=2)  # where it hangs, if it does
    try:
        there.send((function(), None))
    except BaseException as error:  # noqa: BLE001 - it is the answer
        os.write(2, traceback.format_exc().encode(errors="replace"))
        line = (str(error).splitlines() or [""])[0]
        there.send((None, f"{type(error).__name__}: {line[:LONGEST_LINE]}"))


def _answered(here: Connection, process: BaseProcess, limit_s: float) -> tuple[object, str | None]:
    if not here.poll(limit_s):
        return None, f"it did not end within {limit_s:g} s"
    try:
        value, error = here.recv()
    except EOFError:
        process.join(JOIN_S)
        return None, f"its process ended with exit code {process.exitcode} and no answer"
    return value, error


def _end(process: BaseProcess) -> None:
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(JOIN_S)


def _end_of(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace")[-LONGEST_SAID:]
