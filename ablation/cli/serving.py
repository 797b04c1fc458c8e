"""Serves an MLflow store with MLflow's own server, to this machine alone unless it asks everybody who they are."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ablation.cli import guard
from ablation.errors import AblationError
from ablation.executors.addresses import is_loopback
from ablation.output import plain
from ablation.storage.databases import folder_address, sqlite_path
from ablation.tracking import Tracker

KEY_VARIABLE = "MLFLOW_FLASK_SERVER_SECRET_KEY"
LOCAL_NAMES = "localhost,localhost:*,127.0.0.1,127.0.0.1:*,[::1],[::1]:{port}"
MOST_LISTED = 20
START_S = 120.0
OTHERS = 0o077  # MLflow makes the file of users and passwords, and artifacts: for the user alone
STDERR = 2  # what the server says is no answer of the command


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a server listens, and whom it lets in; `allowed_hosts` are the names that browsers may reach it by."""

    host: str
    port: int
    has_basic_auth: bool = False
    allowed_hosts: str | None = None

    @property
    def url(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.port}"

    @property
    def is_local(self) -> bool:
        return is_loopback(self.host)


def check_place(place: Place) -> None:
    """Raise AblationError where nothing can listen, or where others could come in unasked."""
    lacks = list(_lacks(place))
    if lacks and not place.is_local:
        raise AblationError(
            f"{place.host} may be reached from elsewhere, and MLflow by itself lets anybody read, change and delete "
            f"every run. It would need {'; '.join(lacks)} @ --host. For yourself alone, leave out --host and reach it "
            f"through `ssh -L {place.port}:127.0.0.1:{place.port} THIS_MACHINE`."
        )
    if lacks:
        raise AblationError(f"MLflow's authentication needs {'; '.join(lacks)} @ --basic-auth")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = f"cannot listen on {place.host}, port {place.port}: {error.strerror}"
        raise AblationError(f"{reason}. Choose another with --port.") from None


def check_store(tracking_uri: str) -> None:
    """Raise AblationError where there is no database to serve: MLflow's server would make an empty one."""
    path = sqlite_path(tracking_uri)
    if path is not None and not path.is_file():
        raise AblationError(
            f"there is no MLflow store {path}. Run a study first, or say where it is with --tracking-uri or "
            "MLFLOW_TRACKING_URI."
        )


def study_links(tracker: Tracker, base: str) -> Iterator[str]:
    """Yield a line for each study, the latest first: its name, and its study run's page, opened at its report.

    MLflow has that run's note, which says the verdicts, below a screen of what else it knows of the run.
    """
    names = tracker.study_names()
    if not names:
        yield f"No studies yet: {base}"
    for name in names[:MOST_LISTED]:
        record = tracker.find_study(name)
        links = dict(tracker.links(record)) if record is not None else {}
        link = links.get("report") or links.get("study run", "")
        yield plain(f"{name}: {base.rstrip('/')}/#{link.partition('#')[2]}")
    if len(names) > MOST_LISTED:
        yield f"and {len(names) - MOST_LISTED} more: {base}"


def serve(tracking_uri: str, place: Place, *, when_ready: Callable[[], object]) -> int:
    """Run MLflow's server until it ends or this process is interrupted; return the exit status.

    However this process ends, the server ends with it: see guard.py.

    Raises:
        AblationError: the server ended by itself.
    """
    received = [signal.SIGINT]

    def stop(number: int, _frame: Any) -> NoReturn:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    command = [sys.executable, "-I", guard.__file__, *server_command(tracking_uri, place)]
    environment = server_environment(tracking_uri, os.environ)
    try:
        with subprocess.Popen(  # noqa: S603 - our own words, and a host and a port that were checked
            command, stdin=subprocess.PIPE, stdout=STDERR, env=environment, start_new_session=True, umask=OTHERS
        ) as server:
            try:
                if _is_up(server, place):
                    when_ready()
                status = server.wait()
            except KeyboardInterrupt:
                return 128 + received[0]  # leaving the block closes the pipe, and waits
    finally:
        signal.signal(signal.SIGTERM, before)
    raise AblationError(f"MLflow's server ended by itself, with status {status}; what it said is above.")


def server_command(tracking_uri: str, place: Place) -> list[str]:
    """Return the command of the server; the store's address is not in it, as it may hold a password."""
    path = sqlite_path(tracking_uri)
    folder = path.resolve().parent if path is not None else Path.cwd()
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--host", place.host, "--port", str(place.port), "--workers", "1"),
        *("--allowed-hosts", place.allowed_hosts or LOCAL_NAMES.format(port=place.port)),
        *("--default-artifact-root", folder_address(folder / "mlruns")),  # as MLflow's client has it
        *("--uvicorn-opts", "--log-level warning"),
        *(("--app-name", "basic-auth") if place.has_basic_auth else ()),
    ]


def server_environment(tracking_uri: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the server, without what would make it listen or trust otherwise than it is told."""
    dropped = ("MLFLOW_GUNICORN_OPTS", "MLFLOW_UVICORN_OPTS", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID")
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **{name: value for name, value in environment.items() if name not in dropped},
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    }


def _lacks(place: Place) -> Iterator[str]:
    """Yield what a server lacks that others may reach, or that is to ask for passwords."""
    if not place.has_basic_auth and not place.is_local:
        yield "--basic-auth, to ask for a name and a password"
    if place.is_local and not place.has_basic_auth:
        return
    names = (place.allowed_hosts or "").split(",")
    if not place.is_local and any(name.strip() in ("", "*") for name in names):
        yield "--allowed-hosts with the names it is reached by, so that no foreign page comes in through a browser"
    if importlib.util.find_spec("flask_wtf") is None:
        yield "MLflow's authentication, `pip install 'mlflow[auth]'`"
    if not os.environ.get(KEY_VARIABLE):
        yield f"{KEY_VARIABLE}, a long random text (and once MLFLOW_AUTH_ADMIN_PASSWORD)"


def _is_up(server: "subprocess.Popen[bytes]", place: Place) -> bool:
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((place.host, place.port), timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False
