"""A real dask scheduler and its workers, each of them a node with a folder of its own, all on loopback.

They are started, killed, suspended and started again by their own ids, and end with the cluster.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from conftest import SPARED, eventually, free_port
from leftovers import DYING_WITH_THIS, processes_of_folder
from targets import command_line, send

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
WORKER = ("--nthreads", "1", "--memory-limit", "0", "--death-timeout", "60", "--local-directory", "scratch")
ENDS_WITHIN_S = 30.0


def worker_command(scheduler_file: Path, *, is_nannied: bool = False) -> list[str]:
    """Return what starts a worker of the scheduler that wrote a file."""
    nanny = "--nanny" if is_nannied else "--no-nanny"
    return [sys.executable, "-m", "dask", "worker", "--scheduler-file", str(scheduler_file), *LOOPBACK, *WORKER, nanny]


class Node:
    """A worker, with a nanny or without: its working directory, and below it what it keeps of studies."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        is_nannied: bool,
        kept: Path | None,
    ) -> None:
        """Make its folder, where the command runs; `kept` is where it keeps its files, if not below that."""
        self.folder, self.kept, self.is_nannied = folder, kept or folder / "node", is_nannied
        self._command, self._environment = command, {**environment, "ABLATION_NODE_DIR": str(self.kept)}
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        self._process = _start(self._command, self._environment, self.folder)

    @property
    def is_up(self) -> bool:
        """Whether its process is there, suspended or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def trainings(self) -> list[psutil.Process]:
        """Return the processes that train here, or will."""
        found = [each for each in self._tree()[1:] if "spawn_main" in command_line(each)]
        return [each for each in found if not (self.is_nannied and each.ppid() == self.pid)]

    def jobs(self) -> list[str]:
        """Return the folders of runs that it has."""
        return sorted(path.name for path in self.kept.glob("of/*/begun/*/*"))

    def kill(self) -> None:
        """End it as a host that goes: nothing of it has a moment left."""
        self.suspend()  # so that none sees another go
        for process in self._tree():
            send(process, signal.SIGKILL)
        self.wait()

    def ask_to_end(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def suspend(self) -> None:
        """Have it neither work nor answer, as where its network is cut."""
        for process in self._tree():
            send(process, signal.SIGSTOP)

    def resume(self) -> None:
        for process in reversed(self._tree()):
            send(process, signal.SIGCONT)

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=ENDS_WITHIN_S)

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    def _tree(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


class Cluster:
    """A scheduler and its nodes; leaving its context ends all that is left of them."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Choose where it is; `environment` is what its processes have beside that of this one."""
        self.folder, self.file, self.port = folder, folder / "scheduler.json", free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_"))}
        self.environment = {**kept, "PYTHONPATH": SPARED, **(environment or {})}
        self._scheduler: subprocess.Popen[bytes] | None = None
        self.nodes: list[Node] = []
        folder.mkdir(parents=True)

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all that is left of it."""
        for process in processes_of_folder(self.folder):
            send(process, signal.SIGCONT)
            send(process, signal.SIGKILL)
        for started in (self._scheduler, *(node._process for node in self.nodes)):
            if started is not None:
                started.wait(timeout=ENDS_WITHIN_S)

    def start_scheduler(self) -> None:
        """Start a scheduler, always at the same port, and wait until it can be found."""
        self.file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "dask", "scheduler", "--scheduler-file", str(self.file)]
        place = self.folder / "scheduler"
        place.mkdir(exist_ok=True)
        self._scheduler = _start([*command, "--port", str(self.port), *LOOPBACK], self.environment, place)
        eventually(self._is_written)

    def kill_scheduler(self) -> None:
        assert self._scheduler is not None
        self._scheduler.kill()
        self._scheduler.wait()
        self._scheduler = None

    @property
    def has_scheduler(self) -> bool:
        return self._scheduler is not None

    def add(
        self,
        name: str,
        *,
        is_nannied: bool = False,
        environment: Mapping[str, str] | None = None,
        kept: Path | None = None,
    ) -> Node:
        """Start a node of a name, in a folder of that name; `kept` is where it keeps its files, if not there."""
        command = [*worker_command(self.file, is_nannied=is_nannied), "--name", name]
        given = {**self.environment, **(environment or {})}
        node = Node(self.folder / name, command, given, is_nannied=is_nannied, kept=kept)
        node.start()
        self.nodes.append(node)
        return node

    def processes(self) -> list[psutil.Process]:
        """Return the scheduler and the workers that are there."""
        started = [self._scheduler, *(node._process for node in self.nodes)]
        return [psutil.Process(one.pid) for one in started if one is not None and one.poll() is None]

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def workers(self) -> list[str]:
        """Return the names of the workers that the scheduler has."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            return [str(each["name"]) for each in client.scheduler_info(n_workers=-1)["workers"].values()]

    def _is_written(self) -> bool:
        try:
            return bool(json.loads(self.file.read_text())["address"])
        except (OSError, ValueError):
            return False


def _start(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [*DYING_WITH_THIS, *command],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
