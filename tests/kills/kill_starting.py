"""Starts commands: each as a process of its own, or, much quicker, from one that has imported all there is to import.

A process of the second kind is forked from this module run as a program, reads its command from it and goes on as
`python -m ablation` would. Its workers are started in the usual way. The program reads a command per line, and prints
its process, then its exit status.
"""

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

INJECTED = Path(__file__).parent / "injected"
PROJECT = Path(__file__).parents[2]
SEARCHED = os.pathsep.join(map(str, (INJECTED, PROJECT / "tests" / "quick", PROJECT)))
"""The PYTHONPATH of what is killed."""
MODULES = (
    "ablation.cli",
    "ablation.api",
    "ablation.pipeline",
    "ablation.coordinator.execution",
    "ablation.coordinator.tuning",
    "ablation.coordinator.lease",
    "ablation.coordinator.uploads",
    "ablation.report.figures",
    "ablation.worker.run",
    "ablation.worker.tuning_runs",
    "ablation.worker.own_training",
    "ablation.tracking.mlflow.tracker",
    "ablation.scheduling.trials",
    "ablation.scheduling.runs",
    "ablation.datasets.digits",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo",
    "torch.utils.flop_counter",
    "optuna.samplers",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "sklearn.datasets",
)
"""What a command would import; those that are not there, or not yet, it does without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of Python's, `-m` and what follows, and where it runs; `output` is a file."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    output: Path


class Starter(Protocol):
    """Runs commands, one at a time."""

    def status(self, command: Command, *, limit_s: float) -> int:
        """Return a command's exit status, minus the signal's number where one ended it; it is killed at the limit."""


class Plainly:
    """Starts each command as a process of its own."""

    def status(self, command: Command, *, limit_s: float) -> int:
        with command.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command.arguments],
                env=dict(command.environment),
                cwd=command.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                return process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return 128


class Forking:
    """Starts each command from one process that has imported everything; it ends with this one, or a `with`."""

    def __init__(self, folder: Path) -> None:
        """Start it; what it leaves among temporary files lies in a folder."""
        found = {"PYTHONPATH": SEARCHED, "TMPDIR": str(folder), "KILLS": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env={**os.environ, **found}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> "Forking":
        return self

    def __exit__(self, *_: object) -> None:
        """End it: there are no more commands."""
        self._process.communicate(timeout=30)

    def status(self, command: Command, *, limit_s: float) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        whole = {**asdict(command), "folder": str(command.folder), "output": str(command.output), "limit_s": limit_s}
        self._process.stdin.write(json.dumps(whole).encode() + b"\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _serve() -> bool:
    """Fork for each command that is asked for; true in a process that is to be one, false where there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is imported may print
    for module in MODULES:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    for line in sys.stdin:
        command = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(command)
            return True
        answers.write(f"{_status_within(pid, command['limit_s'])}\n")
        answers.flush()
    return False


def _status_within(pid: int, limit_s: float) -> int:
    ending = os.pidfd_open(pid)
    if not select.select([ending], [], [], limit_s)[0]:
        os.kill(pid, signal.SIGKILL)
    os.close(ending)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _become(command: dict[str, Any]) -> None:
    """Take the place that a process has that was started with a command."""
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    tempfile.tempdir = None
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(command["output"], os.O_WRONLY | os.O_CREAT, 0o600)
    for there, wanted in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(there, wanted)
    sys.orig_argv = [sys.executable, *command["arguments"]]
    sys.argv = command["arguments"][1:]
    import sitecustomize

    sitecustomize.begin()


if __name__ == "__main__" and _serve():
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
