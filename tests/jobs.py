"""Jobs that tests have done by workers, which import this module and not a test's, and all that one needs."""

import os
import signal
import time
from pathlib import Path


class Ended(BaseException):
    """What is no Exception."""


def fail(error: BaseException) -> None:
    raise error


def take_the_handlers() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def handler_name() -> str:
    return getattr(signal.getsignal(signal.SIGTERM), "__name__", "none")


def fork_and_die(path: Path) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    path.write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


def write_then_sleep(path: Path) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(str(os.getpid()))
    beside.rename(path)
    time.sleep(600)
