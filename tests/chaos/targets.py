"""What trouble is made for: an MLflow server that can be killed, and the command that runs the study."""

import signal
import socket
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from conftest import start_server
from forking import Forked, Starter

Cause = Literal["by itself", "killed", "asked to end"]


class Server:
    """A real MLflow server on loopback, at the same port however often it is started."""

    def __init__(self, folder: Path, starter: Starter) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder, self._starter = folder, starter
        self._process: Forked | None = None
        self.address = f"http://127.0.0.1:{self._port}"
        self.database = folder / "server.db"

    def start(self) -> None:
        self._process = start_server(self._folder, self._starter, port=self._port)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        root = psutil.Process(process.pid)
        for each in [root, *root.children(recursive=True)]:
            send(each, signal.SIGKILL)
        process.wait(timeout=30)

    @property
    def is_started(self) -> bool:
        return self._process is not None

    @property
    def is_up(self) -> bool:
        if self._process is None:
            return False
        assert self._process.poll() is None, f"the MLflow server ended with status {self._process.returncode}"
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return True
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a process of the command ended, with the status that a shell would say, and all that it printed."""

    cause: Cause
    status: int
    seconds: float
    output: str


class Command:
    """The command that runs the study, one process after the other; its workers are its children."""

    def __init__(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path, starter: Starter
    ) -> None:
        self._starter = starter
        self._arguments = arguments
        self._environment = environment
        self._folder = folder
        self._process: Forked | None = None
        self._starts = 0

    def start(self) -> None:
        self._starts += 1
        self._process = self._starter.start(
            self._arguments, environment=self._environment, folder=self._folder, output=self._file
        )

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def send(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def ending(self, cause: Cause, seconds: float = 0.0, *, limit_s: float = 30.0) -> Ending:
        """Return how the process ended; it must have, within a limit."""
        assert self._process is not None
        status = self._process.wait(timeout=limit_s)
        return Ending(cause=cause, status=128 - status if status < 0 else status, seconds=seconds, output=self.output)

    def workers(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        children = psutil.Process(self._process.pid).children()
        return [child for child in children if "spawn_main" in command_line(child)]

    @property
    def output(self) -> str:
        """What the process has printed so far."""
        return self._file.read_text(errors="replace") if self._starts else ""

    @property
    def _file(self) -> Path:
        return self._folder / f"output-{self._starts}.txt"


def send(process: psutil.Process, number: int) -> bool:
    """Send a process a signal; say whether it was still there."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def processes_of(state: Path) -> list[psutil.Process]:
    """Return the processes that were given this state folder, in their environment or by their command line."""
    return [process for process in psutil.process_iter() if _belongs_to(process, state)]


def _belongs_to(process: psutil.Process, state: Path) -> bool:
    try:
        is_given = process.environ().get("ABLATION_STATE_DIR") == str(state)
        return process.status() != psutil.STATUS_ZOMBIE and (is_given or str(state) in " ".join(process.cmdline()))
    except psutil.Error:
        return False


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
