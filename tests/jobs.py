"""Jobs that tests have done by workers, which import this module and not a test's, and all that one needs."""

import os
import signal
import time
from pathlib import Path

from ablation.errors import DiskFull
from ablation.executors.interface import Place
from ablation.stopping import Preempted, stopping


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


def end_when_asked(place: Place) -> None:
    """Measure an epoch, and go on until this process is asked to end."""
    folder = place.folder / "begun" / "study" / "run"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    place.changed("begun/study/run")
    while not stopping.is_asked:
        time.sleep(0.01)
    raise Preempted


def train_a_little(place: Place) -> int:
    """Leave what a run leaves, as text."""
    folder = place.folder / "begun" / "study" / "run"
    (folder / "artifacts").mkdir(parents=True)
    for name, text in {"started.json": "{}", "metrics.jsonl": "{}\n", "artifacts/a.txt": "artifact"}.items():
        (folder / name).write_text(text)
    (folder / "result.json").write_text("{}")
    return 7


def no_gpus() -> tuple[tuple[str, ...], str]:
    return (), ""


def have_no_room(name: str, place: Place) -> str:
    """Return the place's name, unless it is the one whose disk is full."""
    if name in place.folder.parts:
        raise DiskFull(place.folder, "No space left on device")
    return str(place.folder)


def keep_a_checkpoint(place: Place) -> None:
    """Keep a checkpoint, and go on until this process is asked to end."""
    folder = place.folder / "begun" / "study" / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "epoch-000001-eager.pt").write_text("checkpoint")
    end_when_asked(place)
