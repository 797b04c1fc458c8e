"""`ablation ui`: MLflow's own server, to this machine alone, and nothing of it left when it is ended."""

import base64
import http.client
import importlib.util
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result
from conftest import SPARED
from factories import make_plan
from mlflow.tracking import MlflowClient

from ablation.cli import guard, main, serving
from ablation.cli.serving import (
    LOCAL_NAMES,
    Place,
    check_place,
    server_command,
    server_environment,
    study_links,
)
from ablation.errors import AblationError
from ablation.testing.trackers import report_in
from ablation.tracking import open_mlflow

OPEN = Place(host="0.0.0.0", port=5000, has_basic_auth=True, allowed_hosts="mlflow.example.org")
EXPERIMENT = "/api/2.0/mlflow/experiments/get?experiment_id=0"


@pytest.fixture
def run(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run `ablation ui` where it is refused, on a machine that lacks MLflow's authentication."""
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "flask_wtf" else find(name))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.delenv("MLFLOW_FLASK_SERVER_SECRET_KEY", raising=False)
    return lambda *arguments: CliRunner().invoke(main, ["ui", *arguments])


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def with_auth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has all that MLflow's authentication needs."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "long and random")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "example.org", "127.1", ""])
def test_others_are_not_let_in_unasked_and_how_to_do_it_is_said(run: Any, host: str) -> None:
    result = run("--host", host)

    assert 2 == result.exit_code
    for words in ("--basic-auth", "--allowed-hosts", "mlflow[auth]", "MLFLOW_FLASK_SERVER_SECRET_KEY", "ssh -L"):
        assert words in result.stderr
    assert 1 == len(result.stderr.splitlines())


@pytest.mark.usefixtures("with_auth")
@pytest.mark.parametrize("names", [None, "", "*", "mlflow.example.org, *"])
def test_every_name_is_not_a_list_of_names(names: str | None) -> None:
    place = Place(host="0.0.0.0", port=5000, has_basic_auth=True, allowed_hosts=names)

    with pytest.raises(AblationError, match="need --allowed-hosts"):
        check_place(place)


@pytest.mark.usefixtures("with_auth")
def test_with_authentication_and_names_it_may_listen_everywhere(port: int) -> None:
    check_place(Place(host="0.0.0.0", port=port, has_basic_auth=True, allowed_hosts="mlflow.example.org"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8"])
def test_this_machine_needs_no_authentication(host: str, port: int) -> None:
    check_place(Place(host=host, port=port))


def test_authentication_that_is_not_set_up_is_refused(run: Any) -> None:
    result = run("--basic-auth")

    assert 2 == result.exit_code
    assert "@ --basic-auth" in result.stderr


def test_a_taken_port_is_a_sentence(run: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port))

    assert 2 == result.exit_code
    assert f"Error: cannot listen on 127.0.0.1, port {port}: Address already in use. Choose another with --port.\n" == (
        result.stderr
    )


def test_a_store_that_is_not_there_is_a_sentence_and_none_is_made(run: Any, tmp_path: Path, port: int) -> None:
    result = run("--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}", "--port", str(port))

    assert 2 == result.exit_code
    assert f"there is no MLflow store {tmp_path / 'other.db'}" in result.stderr
    assert not (tmp_path / "other.db").exists()


def test_a_store_that_is_none_is_a_sentence(run: Any, tmp_path: Path, port: int) -> None:
    (tmp_path / "other.db").write_text("a letter")

    result = run("--tracking-uri", f"sqlite:///{tmp_path / 'other.db'}", "--port", str(port))

    assert 2 == result.exit_code, result.output
    assert "Error: cannot use MLflow at sqlite:///" in result.stderr


def test_a_server_that_does_not_answer_is_a_sentence(run: Any) -> None:
    result = run("--tracking-uri", "http://127.0.0.1:9")

    assert 2 == result.exit_code
    assert "cannot use MLflow at http://127.0.0.1:9: no answer" in result.stderr


def test_studies_are_linked_to_where_they_are_served(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_LISTED", 1)
    tracker = open_mlflow(store_uri)
    for number in range(3):
        tracker.open_study(make_plan(name=f"study-{number:02}", seeds=1))

    lines = list(study_links(tracker, "http://127.0.0.1:5123/"))

    assert lines[0].startswith("study-02: http://127.0.0.1:5123/#/experiments/")
    assert [lines[0], "and 2 more: http://127.0.0.1:5123/"] == lines


def test_a_study_is_linked_by_one_line_to_its_study_run_which_is_opened_at_its_report(
    store_uri: str, tmp_path: Path
) -> None:
    tracker = open_mlflow(store_uri)
    record = tracker.open_study(make_plan(seeds=1))
    page = f"quick: http://127.0.0.1:5123/#/experiments/{record.experiment_id}/runs/{record.study_run_id}"
    before = list(study_links(tracker, "http://127.0.0.1:5123"))
    (report_in(tmp_path) / "report.html").write_text("It helps.")
    tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[])

    (line,) = study_links(tracker, "http://127.0.0.1:5123")

    assert [f"{page}?workflowType=machine_learning"] == before
    assert f"{page}/artifacts/report.html?workflowType=machine_learning" == line


def test_a_name_from_a_store_cannot_steer_the_terminal_that_shows_its_link(store_uri: str) -> None:
    tags = {"ablation.kind": "study", "ablation.study": "evil\x1b]0;owned\x07\x9b2J\u202e"}
    MlflowClient(store_uri).create_run("0", tags=tags)

    (line,) = study_links(open_mlflow(store_uri), "http://127.0.0.1:5123")

    assert "evil ]0;owned  2J : http://127.0.0.1:5123/#" == line


def test_the_server_is_told_where_to_listen_and_whom_to_answer(tmp_path: Path) -> None:
    command = server_command(f"sqlite:///{tmp_path / 'mlflow.db'}", Place(host="127.0.0.1", port=5123))
    options = dict(zip(command[4::2], command[5::2], strict=True))

    assert [sys.executable, "-m", "mlflow", "server"] == command[:4]
    assert ("127.0.0.1", "5123") == (options["--host"], options["--port"])
    assert LOCAL_NAMES.format(port=5123) == options["--allowed-hosts"]
    assert str(tmp_path / "mlruns") == options["--default-artifact-root"]
    assert ["--app-name", "basic-auth"] == server_command("postgresql://u:secret@h/d", OPEN)[-2:]
    assert not any("secret" in word for word in server_command("postgresql://u:secret@h/d", OPEN))


def test_the_environment_cannot_open_what_the_options_close() -> None:
    given = {
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "MLFLOW_UVICORN_OPTS": "--host 0.0.0.0",
        "MLFLOW_GUNICORN_OPTS": "--bind 0.0.0.0",
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///other.db",
        "PATH": "/bin",
    }

    assert {
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": "sqlite:///mine.db",
        "PATH": "/bin",
    } == server_environment("sqlite:///mine.db", given)


FAMILY = """
import signal, subprocess, sys, time
if {is_stubborn}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print(child.pid, flush=True)
time.sleep({seconds})
sys.exit(7)
"""


@contextmanager
def guarded(
    *, script: str = guard.__file__, is_stubborn: bool = False, seconds: int = 100
) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Run a process with a child of its own under the guard; give the guard and the child's number."""
    text = FAMILY.format(is_stubborn=is_stubborn, seconds=seconds)
    command = [sys.executable, "-I", script, sys.executable, "-c", text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        assert process.stdin is not None
        process.stdin.close()


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_nothing_is_left_when_the_holder_of_the_guard_is_gone() -> None:
    with guarded() as (process, child):
        assert process.stdin is not None
        process.stdin.close()

        assert process.wait(timeout=30) is not None
        assert is_gone(child)


def test_nothing_is_left_of_a_command_that_ends_and_its_status_is_kept() -> None:
    with guarded(seconds=0) as (process, child):
        assert 7 == process.wait(timeout=30)
        assert is_gone(child)


def test_a_command_that_will_not_end_is_killed(tmp_path: Path) -> None:
    text = Path(guard.__file__).read_text()
    (tmp_path / "guard.py").write_text(text.replace(f"PATIENCE_S = {guard.PATIENCE_S}", "PATIENCE_S = 0.1"))

    with guarded(script=str(tmp_path / "guard.py"), is_stubborn=True) as (process, child):
        assert process.stdin is not None
        process.stdin.close()

        assert -signal.SIGKILL == process.wait(timeout=30)
        assert is_gone(child)


@contextmanager
def ui(port: int, *arguments: str, folder: Path, **variables: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command until it has said where MLflow is; give it and what it said."""
    environment = {**os.environ, "PYTHONPATH": SPARED, **variables}
    command = [sys.executable, "-m", "ablation", "ui", "--port", str(port), *arguments]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.terminate()


@pytest.mark.slow
@pytest.mark.usefixtures("hearing_signals")
def test_the_ui_is_served_to_this_machine_and_ends_with_ctrl_c(store_uri: str, port: int, tmp_path: Path) -> None:
    with ui(port, folder=tmp_path, MLFLOW_TRACKING_URI=store_uri) as (process, said):
        family = psutil.Process(process.pid).children(recursive=True)
        listening = {
            place.laddr.ip for each in family for place in each.net_connections() if place.status == psutil.CONN_LISTEN
        }
        health = answer(port, "/health")
        foreign = answer(port, EXPERIMENT, host="evil.example.org")
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=60)

    assert f"No studies yet: http://127.0.0.1:{port}\n" == said
    assert ({"127.0.0.1"}, 200, 403) == (listening, health, foreign)
    assert 128 + signal.SIGINT == status
    assert all(is_gone(each.pid) for each in family)
    with pytest.raises(ConnectionRefusedError):
        answer(port, "/health")


@pytest.mark.slow
def test_set_up_as_it_says_the_ui_lets_in_who_has_the_password(store_uri: str, port: int, tmp_path: Path) -> None:
    secrets = {"MLFLOW_FLASK_SERVER_SECRET_KEY": uuid.uuid4().hex, "MLFLOW_AUTH_ADMIN_PASSWORD": uuid.uuid4().hex}

    with ui(port, "--basic-auth", folder=tmp_path, MLFLOW_TRACKING_URI=store_uri, **secrets) as (_, said):
        assert "No studies yet: http://127.0.0.1:" in said
        passwords = [None, "password1234", secrets["MLFLOW_AUTH_ADMIN_PASSWORD"]]
        answers = [answer(port, EXPERIMENT, password=password) for password in passwords]
        address = f"http://admin:{secrets['MLFLOW_AUTH_ADMIN_PASSWORD']}@127.0.0.1:{port}"
        names = open_mlflow(address).study_names()

    assert ([401, 401, 200], ()) == (answers, names)
    assert 0o600 == stat.S_IMODE((tmp_path / "basic_auth.db").stat().st_mode)


def answer(port: int, path: str, *, host: str = "localhost", password: str | None = None) -> int:
    headers = {"Host": host}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
