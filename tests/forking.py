"""Starts Python's commands from one process that has imported what they import, which costs more than what they do.

A command is forked from this module run as a program, and goes on as `python -m …` or `python -c …` would, a process of
its own in all that it does. What it starts itself, such as workers, is started in the usual way. How a program starts
and how Python takes it apart are no subjects for it: what it imports, the encoding of its streams, its command line.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

PROJECT = Path(__file__).parents[1]
QUICK = PROJECT / "tests" / "quick"
MODULES = (
    "ablation.cli",
    "ablation.api",
    "ablation.pipeline",
    "ablation.preview",
    "ablation.coordinator.deletion",
    "ablation.coordinator.execution",
    "ablation.coordinator.lease",
    "ablation.coordinator.preparation",
    "ablation.coordinator.tuning",
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
    "torch.fx.experimental.symbolic_shapes",
    "optuna.samplers",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "sklearn.datasets",
)
"""What a command would import; those that are not there, or not yet, it does without."""
SERVER = ("uvicorn", "mlflow.server.fastapi_app")
"""What MLflow's server would."""
STATUS_BYTES = 4
UNWRITTEN = 120
"""Python's exit status where what is printed cannot be written."""
MOST_BYTES = 1 << 20


class Forked:
    """A command's process, as subprocess.Popen has it; what it prints is text, where it is not given files."""

    def __init__(self, pid: int, status: int, stdout: IO[str] | None, stderr: IO[str] | None) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout=0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            with os.fdopen(self._status, "rb") as status:
                self.returncode = int.from_bytes(status.read(STATUS_BYTES), "big", signed=True)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Return all that it prints, when it has ended; at the limit it is killed."""
        assert self.stdout is not None
        assert self.stderr is not None
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            printed = [readers.submit(file.read) for file in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return printed[0].result(), printed[1].result()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Starter:
    """Starts commands; it ends with a `with`, what it has started does not."""

    def __init__(self, folder: Path, *, searched: Sequence[Path] = (QUICK, PROJECT), more: Sequence[str] = ()) -> None:
        """Start it; what it leaves among temporary files lies in a folder. It imports `more` modules than commands."""
        self._searched = os.pathsep.join(map(str, searched))
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_"))}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *MODULES, *more],
                env={**kept, "PYTHONPATH": self._searched, "TMPDIR": str(folder), "KILLS": ""},
                pass_fds=[theirs.fileno()],
            )
        self._socket = mine

    def __enter__(self) -> "Starter":
        return self

    def __exit__(self, *_: object) -> None:
        """End it: there are no more commands."""
        self._socket.close()
        self._process.wait(timeout=60)

    def start(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path, output: Path | None = None
    ) -> Forked:
        """Start a command: `-m` or `-c` and what follows; what it prints goes to a file, or can be read from it."""
        with contextlib.ExitStack() as theirs:
            if output is not None:
                file = theirs.enter_context(output.open("wb")).fileno()
                files, mine = [file, file], [None, None]
            else:
                pairs = [os.pipe(), os.pipe()]
                files, mine = [pair[1] for pair in pairs], [os.fdopen(pair[0]) for pair in pairs]
                for file in files:
                    theirs.callback(os.close, file)
            status, told = os.pipe()
            theirs.callback(os.close, told)
            command = {
                "arguments": list(arguments),
                "environment": {**environment, "PYTHONPATH": self._searched},
                "folder": str(folder),
            }
            socket.send_fds(self._socket, [json.dumps(command).encode()], [*files, told])
            pid = int.from_bytes(self._socket.recv(STATUS_BYTES), "big")
        return Forked(pid, status, *mine)

    def run(
        self, arguments: Sequence[str], *, environment: Mapping[str, str], folder: Path, limit_s: float = 280.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(arguments, environment=environment, folder=folder)
        stdout, stderr = process.communicate(timeout=limit_s)
        return subprocess.CompletedProcess(arguments, process.wait(), stdout, stderr)


def _serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each command that is asked for; return it in the process that is to be it, None where there are no more.

    How each has ended is written to its pipe, which is among its files.
    """
    told_of: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([asked, *told_of], [], [])
        for ending in [one for one in ready if one in told_of]:
            pid, told = told_of.pop(ending)
            os.close(ending)
            _tell(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        if asked in ready:
            message, files, _, _ = socket.recv_fds(asked, MOST_BYTES, 3)
            if not message:
                return None
            if (pid := os.fork()) == 0:
                asked.close()
                for each in (*told_of, *(told for _, told in told_of.values())):
                    os.close(each)
                command: dict[str, Any] = json.loads(message)
                _become(command, files)
                return command
            asked.send(pid.to_bytes(STATUS_BYTES, "big"))
            told_of[os.pidfd_open(pid)] = pid, files.pop()
            for file in files:
                os.close(file)


def _tell(told: int, status: int) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(told, "wb") as pipe:  # nobody may want to know
        pipe.write(status.to_bytes(STATUS_BYTES, "big", signed=True))


def _become(command: dict[str, Any], files: list[int]) -> None:
    """Take the place that a process has that was started with a command."""
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    tempfile.tempdir = None
    nothing = os.open(os.devnull, os.O_RDONLY)
    for there, wanted in ((nothing, 0), (files[0], 1), (files[1], 2)):
        os.dup2(there, wanted)
    for file in (nothing, *files):
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    sys.orig_argv = [sys.executable, *command["arguments"]]
    sys.argv = command["arguments"][1:]
    sys.path[0] = "" if command["arguments"][0] == "-c" else command["folder"]
    import sitecustomize

    begin = getattr(sitecustomize, "begin", None)
    if begin is not None:
        begin()


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    from sqlalchemy.orm import configure_mappers

    configure_mappers()


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What is imported may print and warn."""
    with (
        Path(os.devnull).open("w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = socket.socket(fileno=int(sys.argv[1]))
    with _quietly():
        _import(sys.argv[2:])
    gc.collect()
    gc.freeze()  # a command that looks for garbage leaves alone what all commands share
    command = _serve(asked)
    _end(_status_of(command) if command is not None else 0)


def _status_of(command: dict[str, Any]) -> int:
    """Run a command, and return its exit status, minus the signal's number where that ends it."""
    try:
        if command["arguments"][0] == "-c":
            sys.argv[0] = "-c"
            exec(compile(command["arguments"][1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    except BaseException as error:  # noqa: BLE001 - as Python does
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _end(status: int) -> None:
    """End this process as Python does, but for taking apart all that was imported, which takes two seconds."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            status = status or UNWRITTEN
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    _main()
