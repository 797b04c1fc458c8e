"""A name and password in a server's address are sent to the server and shown to nobody."""

import base64
import os
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ablation.cli import main
from ablation.cli.interruption import this_command
from ablation.errors import AddressInvalid, TrackingUnavailable
from ablation.tracking import open_mlflow
from ablation.tracking.mlflow.credentials import without_credentials
from ablation.tracking.mlflow.pages import Pages
from ablation.tracking.mlflow.run_records import RunRecords
from ablation.tracking.mlflow.tracker import MlflowTracker

ADDRESSES = {
    "me:secret": "Basic " + base64.b64encode(b"me:secret").decode(),
    "me:p%40ss%2Fw%25rd%3A": "Basic " + base64.b64encode(b"me:p@ss/w%rd:").decode(),
    "m%C3%BC:se@cret": "Basic " + base64.b64encode("mü:se@cret".encode()).decode(),
    "secret-token": "Bearer secret-token",
    "secret-token:": "Bearer secret-token",
}
VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Guarded(ThreadingHTTPServer):
    """An MLflow server without experiments that answers who says the right thing, and keeps what everybody said."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.wanted = ""
        self.said: list[tuple[str, str | None]] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Guarded

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = self.headers.get("Authorization")
        self.server.said.append((self.path, said))
        self.send_response(200 if said == self.server.wanted else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"{}" if said == self.server.wanted else b"who are you?")

    do_POST = do_GET  # noqa: N815 - as http.server calls them

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - likewise
        return


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    server = Guarded()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("user", ADDRESSES)
def test_a_server_is_told_who_asks_at_every_request(user: str, guarded: Guarded) -> None:
    guarded.wanted = ADDRESSES[user]

    names = open_mlflow(f"http://{user}@{guarded.place}").study_names()

    assert () == names
    assert "/health" == guarded.said[0][0]
    assert len(guarded.said) >= 3
    assert {guarded.wanted} == {said for _, said in guarded.said}


def test_what_an_address_says_stands_above_the_environment_which_is_put_back(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "else")
    guarded.wanted = ADDRESSES["secret-token"]

    open_mlflow(f"http://secret-token@{guarded.place}").study_names()

    assert ["somebody", "else", None] == [os.environ.get(name) for name in VARIABLES]


@pytest.mark.parametrize("user", ["me:secret", "secret-token"])
def test_a_refusal_and_a_server_that_is_gone_are_told_without_the_password(user: str, guarded: Guarded) -> None:
    refused = open_mlflow(f"http://{user}@{guarded.place}")
    gone = open_mlflow(f"http://{user}@127.0.0.1:1")

    for tracker in (refused, gone):
        with pytest.raises(TrackingUnavailable, match=r"cannot use MLflow at http://127\.0\.0\.1:\d+: ") as found:
            tracker.study_names()
        assert "secret" not in str(found.value) + repr(tracker)


def test_the_address_that_links_and_json_are_made_of_names_nobody() -> None:
    tracker = open_mlflow("https://me:secret@mlflow.example.org:5000/a%40b")

    assert isinstance(tracker, MlflowTracker)
    assert "https://mlflow.example.org:5000/a%40b" == tracker.tracking_uri
    assert "secret" not in Pages(store=tracker.store, records=RunRecords(store=tracker.store)).ui_command()


@pytest.mark.parametrize("words", ["status", "status quick --json", "ui", "summarize quick", "sync"])
def test_no_command_shows_the_password(words: str, guarded: Guarded, tmp_path: Path) -> None:
    guarded.wanted = ADDRESSES["me:secret"]

    for user in ("me:secret", "me:secret-and-wrong"):
        environment = {"MLFLOW_TRACKING_URI": f"http://{user}@{guarded.place}", "ABLATION_STATE_DIR": str(tmp_path)}
        result = CliRunner().invoke(main, words.split(), env=environment)

        assert result.exception is None or isinstance(result.exception, SystemExit)
        assert "secret" not in result.output


def test_the_same_command_is_shown_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = ["--tracking-uri", "http://me:secret@host:5000", "--storage=postgresql://me:se/cret@host/name"]
    monkeypatch.setattr(sys, "argv", ["ablation", "study", "s.yaml", *stores, "--set", "a=b c"])

    with click.Context(main, info_name="python -m ablation"):
        shown = this_command()

    assert shown == (
        "python -m ablation study s.yaml --tracking-uri 'http://me:***@host:5000' "
        "'--storage=postgresql://me:***@host/name' --set 'a=b c'"
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://me:se/cret@host:5000",
        "http://me:1/se/cret@host:5000/path",
        "http://me:secr@t/x@host:5000",
        "http://me:secret@host:none",
        "http://me:se%00cret@host",
        "http://me:secret%FF@host",
        "http://secr%C3%A9t@host",
        "http://:secret@host",
        "postgresql://me:se:cret@host:none/name",
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(AddressInvalid, match=re.escape("cannot be read as an address; write / as %2F")) as found:
        without_credentials(address)

    assert "se" not in str(found.value).partition(" cannot")[0]


def test_an_address_is_read_in_capitals_too() -> None:
    address, credentials = without_credentials("HTTP://me:secret@host:5000")

    assert "http://host:5000" == address
    assert credentials is not None
    assert "secret" == credentials.password


@pytest.mark.parametrize(
    "address", ["http://host:5000", "sqlite:////tmp/a@b.db", "postgresql://me:x@host/name", "mlruns"]
)
def test_an_address_without_a_user_or_of_a_database_stays_as_it_is(address: str) -> None:
    assert (address, None) == without_credentials(address)


@pytest.mark.parametrize("address", ["me:secret@host:5000", "@host", "secret@host"])
def test_an_address_without_its_kind_is_refused_without_what_stands_before_its_host(address: str) -> None:
    with pytest.raises(AddressInvalid, match=r"^\*\*\*@host(:5000)? is no address") as found:
        without_credentials(address)

    assert "se" not in str(found.value).partition(" is")[0]


def test_a_reason_that_names_the_address_is_shown_without_its_password() -> None:
    tracker = open_mlflow("htps://me:secret@host/")

    with pytest.raises(TrackingUnavailable, match=re.escape("htps://me:***@host/")) as found:
        tracker.find_study("quick")

    assert "secret" not in str(found.value)
