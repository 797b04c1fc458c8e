"""A path becomes an address and a path again, whatever its folders are called, and nothing is written beside them."""

import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import free_port
from factories import make_plan
from sqlalchemy import create_engine, text

from ablation.cli import main
from ablation.errors import AddressInvalid, TrackingUnavailable
from ablation.scheduling import default_storage
from ablation.scheduling.storage import open_storage
from ablation.storage.databases import absolute, check_database, folder_address, sqlite_address, sqlite_path
from ablation.tracking import check_store, open_mlflow
from ablation.tracking.mlflow.waiting import wait_for_database

STUDY = """
name: odd
training: {name: "t.py:train", x: 1}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize, meaningful: 0.01}
seeds: 1
"""
ODD = ["what?", "what?mode=ro", "#1", "my%20project", "100%", "%zz", "a b", "für", "R&D", "a+b", "a@b", "a:b", "{x}"]


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with a name that means something else in an address, alone in its folder."""
    folder = tmp_path / "alone" / request.param
    folder.mkdir(parents=True)
    return folder


def test_an_address_opens_the_file_that_it_was_made_of(odd: Path) -> None:
    file = odd / "some.db"

    engine = create_engine(sqlite_address(file))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE one (two)"))
    engine.dispose()

    assert file == sqlite_path(sqlite_address(file))
    assert [odd] == [*odd.parent.iterdir()]
    assert [file] == [*odd.iterdir()]


def test_optunas_database_lies_in_its_state_folder(odd: Path) -> None:
    open_storage(default_storage(odd)).engine.dispose()

    assert [odd] == [*odd.parent.iterdir()]
    assert (odd / "optuna.db").stat().st_size > 0


@pytest.mark.slow
def test_a_study_and_its_files_are_kept_in_the_folder_of_the_store(
    odd: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, odd / "mlflow.db")
    monkeypatch.chdir(odd)
    tracker = open_mlflow()
    record = tracker.open_study(make_plan())

    found = open_mlflow(sqlite_address(odd / "mlflow.db")).find_study("quick")

    assert record == found
    assert [odd] == [*odd.parent.iterdir()]
    assert {"mlflow.db", "mlruns"} <= {path.name for path in odd.iterdir()}
    assert ("start MLflow's UI", "python -m ablation ui") == tracker.links(record)[0]


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["my%20project", "what?"], indirect=True)
def test_a_study_runs_and_is_read_where_its_folder_is_called_oddly(
    odd: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, odd / "mlflow.db")
    (odd / "s.yaml").write_text(STUDY)
    (odd / "t.py").write_text("def train(settings, seed, report):\n    return {'score': 0.5 + seed % 7}\n")
    monkeypatch.chdir(odd)
    for name in ("MLFLOW_TRACKING_URI", "ABLATION_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)

    ended = [
        CliRunner().invoke(main, words.split())
        for words in ("study s.yaml --executor inline", "study s.yaml --executor inline", "status odd", "summarize odd")
    ]

    assert [0, 0, 0, 0] == [result.exit_code for result in ended], "\n".join(result.output for result in ended)
    assert "odd: finished; 2 done" in ended[2].stdout
    assert [odd] == [*odd.parent.iterdir()]
    assert {".ablation", "mlflow.db", "mlflow.db.lock", "mlruns"} <= {path.name for path in odd.iterdir()}
    assert (odd / ".ablation" / "optuna.db").stat().st_size > 0


def test_an_ordinary_path_is_written_as_it_is() -> None:
    assert "sqlite:////home/me/my project/mlflow.db" == sqlite_address(Path("/home/me/my project/mlflow.db"))
    assert "/home/me/my project/mlruns" == folder_address(Path("/home/me/my project/mlruns"))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////tmp/a%20b/x.db", "/tmp/a b/x.db"),
        ("sqlite:////tmp/a%/x.db", "/tmp/a%/x.db"),
        ("sqlite+pysqlite:////tmp/x.db", "/tmp/x.db"),
        ("sqlite:////tmp/x.db?timeout=5", "/tmp/x.db"),
        ("sqlite:///:memory:", None),
        ("sqlite:///", None),
        ("postgresql://host/x.db", None),
        ("http://host:5000", None),
        ("mlruns", None),
    ],
)
def test_only_the_address_of_a_sqlite_file_names_a_file(url: str, path: str | None) -> None:
    assert (Path(path) if path else None) == sqlite_path(url)


def test_a_relative_file_is_named_from_the_root_and_its_settings_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f"sqlite:///{tmp_path}/x.db?timeout=5" == absolute("sqlite:///x.db?timeout=5")
    assert "http://host:5000" == absolute("http://host:5000")


@pytest.mark.parametrize("url", ["sqlite:////tmp/what?/x.db", "sqlite:////tmp/what?a=b/x.db"])
def test_a_question_mark_that_is_not_escaped_is_refused(url: str) -> None:
    with pytest.raises(AddressInvalid, match=r"names the file /tmp/what; write a \? of a folder's name as %3F"):
        sqlite_path(url)


def test_a_folder_that_no_address_can_name_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")

    with pytest.raises(AddressInvalid, match=r"no address can name .*caf\\udce9.*not UTF-8"):
        default_storage(folder)
    assert [] == [*tmp_path.iterdir()]


DATABASES = "write one such as sqlite:///FILE.db, postgresql://USER:PASSWORD@HOST/DATABASE or mysql"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo", f"'foo' is no address of a database; {DATABASES}"),
        ("u:secret@host/db", f"'***@host/db' is no address of a database; {DATABASES}"),
        ("sqlite://", f"sqlite:// names no file, and what is kept in memory is gone at the end; {DATABASES}"),
        ("sqlite:///:memory:", "sqlite:///:memory: names no file"),
        ("postgresql://", f"postgresql:// names neither a host nor a database; {DATABASES}"),
        ("xyz://u:secret@host/db", f"xyz://u:***@host/db is of no known kind of database; {DATABASES}"),
        ("mysql://u:secret@x/db", "mysql://u:***@x/db cannot be opened: its driver 'MySQLdb' is not installed"),
        ("postgresql://host:port/x", "postgresql://host:port/x cannot be read as an address; write / as %2F"),
        ("http://host/x", f"http://host/x is of no known kind of database; {DATABASES}"),
    ],
)
@pytest.mark.parametrize("words", ["study s.yaml", "sync"])
def test_a_storage_that_is_none_is_told_with_its_option_before_anything_is_made(
    words: str, address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    ended = CliRunner().invoke(main, [*words.split(), "--storage", address])

    assert 2 == ended.exit_code
    assert f"Error: {said}" in ended.stderr
    assert ended.stderr.endswith("@ --storage\n")
    assert "secret" not in ended.output
    assert [] == [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("foo", f"'foo' is no address of an MLflow store; {DATABASES}"),
        ("  ", f"'  ' is no address of an MLflow store; {DATABASES}"),
        ("sqlite://", "sqlite:// names no file"),
        ("postgresql://", "postgresql:// names neither a host nor a database"),
        ("mysql://u:secret@x/db", "mysql://u:***@x/db cannot be opened: its driver 'MySQLdb' is not installed"),
        ("http://", "http:// names no host; write http://HOST:5000"),
        ("http://host:port", "http://host:port cannot be read as an address"),
        ("http://u:se/cret@[::1", "http://***@[::1 cannot be read as an address"),
    ],
)
def test_a_store_that_is_none_is_told_with_where_its_address_came_from(address: str, said: str) -> None:
    given = CliRunner().invoke(main, ["status", "--tracking-uri", address])
    inherited = CliRunner().invoke(main, ["status"], env={"MLFLOW_TRACKING_URI": address})

    for ended, source in ((given, "--tracking-uri"), (inherited, "MLFLOW_TRACKING_URI")):
        assert 2 == ended.exit_code
        assert f"Error: {said}" in ended.stderr
        assert ended.stderr.endswith(f"@ {source}\n")
        assert "secret" not in ended.output


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:p%40ss%2Fword%23@host:5432/db",
        "postgresql+psycopg:///db?host=/run/postgresql",
        "sqlite:////tmp/x.db?timeout=5",
        "sqlite+pysqlite:////tmp/a%20b.db",
    ],
)
def test_an_address_of_a_database_is_one(address: str) -> None:
    check_database(address)
    check_store(address)


@pytest.mark.parametrize("address", ["databricks", "https://u:p@host/mlflow", "file:///tmp/x", "other-plugin://x"])
def test_what_mlflow_may_know_is_left_to_it(address: str) -> None:
    check_store(address)


class TestAServerThatDoesNotAnswer:
    @pytest.fixture
    def refusing(self) -> str:
        """The address of a database on a port where nobody listens."""
        return f"postgresql://me:secret@127.0.0.1:{free_port()}/mlflow"

    def test_is_given_up_at_once_by_who_only_reads(self, refusing: str) -> None:
        begun = time.monotonic()

        ended = CliRunner().invoke(main, ["status", "--tracking-uri", refusing])

        assert 2 == ended.exit_code
        assert f"Error: cannot use MLflow at {refusing.replace('secret', '***')}: " in ended.stderr
        assert "refused" in ended.stderr
        assert time.monotonic() - begun < 30, "MLflow itself tries for nearly two minutes"

    def test_is_waited_for_by_a_study_which_says_so(self, refusing: str) -> None:
        said: list[str] = []

        with pytest.raises(TrackingUnavailable, match="refused"):
            wait_for_database(refusing, limit_s=0.5, say=said.append)

        (only,) = said
        assert only.startswith(f"waiting for MLflow at {refusing.replace('secret', '***')}, 0 s at most: ")

    def test_is_not_asked_for_where_it_is_a_file(self) -> None:
        wait_for_database("sqlite:////nowhere/x.db", limit_s=0.0, say=pytest.fail)
