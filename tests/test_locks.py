"""One coordinator per study: the second is told who the first is, and a killed one keeps nobody out."""

import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from postgresql import Postgresql
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ablation.errors import StorageUnavailable, StudyLocked
from ablation.scheduling import default_storage
from ablation.storage.advisory_locks import MAX_NAME, AdvisoryLock, lock_key
from ablation.storage.databases import failure, is_postgresql, with_driver, without_password
from ablation.storage.holder import Holder, this_process
from ablation.storage.locks import Coordination, coordinating

WHO = rf"process {os.getpid()} on \S+ since 20\S+\. Watch it with `ablation status quick`"


class Stores:
    """A storage, and the ways to be its studies' coordinator."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def coordinating(self, study: str = "quick") -> AbstractContextManager[Coordination]:
        return coordinating(study, storage_url=self.url, folder=self.folder / "locks")


@pytest.fixture(params=["sqlite", "other", pytest.param("postgresql", marks=pytest.mark.slow)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    if request.param == "postgresql":
        return Stores(request.getfixturevalue("postgresql_url"), tmp_path)
    return Stores(default_storage(tmp_path) if request.param == "sqlite" else "mysql://localhost/none", tmp_path)


@pytest.fixture
def on_postgresql(postgresql_url: str, tmp_path: Path) -> Stores:
    return Stores(postgresql_url, tmp_path)


@pytest.fixture
def another(stores: Stores) -> Iterator[tuple[Any, Connection]]:
    """Another process that coordinates the study."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_coordinate_until_told, args=(stores.url, stores.folder, there))
    process.start()
    assert "coordinating" == here.recv()
    yield process, here
    process.kill()
    process.join()


def test_a_second_coordinator_is_told_who_the_first_is(stores: Stores) -> None:
    with stores.coordinating(), pytest.raises(StudyLocked, match=WHO), stores.coordinating():
        pass


def test_the_first_coordinator_goes_on_after_a_second_was_refused(stores: Stores) -> None:
    with stores.coordinating() as first:
        for _ in range(2):
            with pytest.raises(StudyLocked), stores.coordinating():
                pass

        first.check()


def test_a_study_is_free_when_its_coordinator_has_ended(stores: Stores) -> None:
    with stores.coordinating():
        pass

    with stores.coordinating() as second:
        second.check()


def test_studies_do_not_keep_each_other_out(stores: Stores) -> None:
    with stores.coordinating("quick"), stores.coordinating("other") as other:
        other.check()


@pytest.mark.slow
def test_a_killed_coordinator_keeps_nobody_out(stores: Stores, another: tuple[Any, Connection]) -> None:
    process, _ = another
    with pytest.raises(StudyLocked, match=f"process {process.pid} on"), stores.coordinating():
        pass

    os.kill(process.pid, signal.SIGKILL)
    process.join()

    with stores.coordinating() as next_one:
        next_one.check()


def test_what_a_killed_coordinator_left_is_not_taken_for_the_next(tmp_path: Path) -> None:
    stores = Stores(default_storage(tmp_path), tmp_path)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with stores.coordinating():
        holder = tmp_path / "locks" / "quick.holder"
        found = json.loads(holder.read_text())
        holder.write_text(json.dumps({**found, "pid": ended.pid}))

        with pytest.raises(StudyLocked, match="is being run by another process"), stores.coordinating():
            pass


@pytest.mark.slow
def test_a_lock_is_taken_again_where_the_database_was_restarted(on_postgresql: Stores, postgresql: Postgresql) -> None:
    with on_postgresql.coordinating() as first:
        postgresql.stop()
        try:
            with pytest.raises(StorageUnavailable, match=r"127\.0\.0\.1"):
                first.check()
        finally:
            postgresql.start()

        first.check()

        with pytest.raises(StudyLocked, match=WHO), on_postgresql.coordinating():
            pass


@pytest.mark.slow
def test_who_lost_the_lock_to_another_is_told_so(on_postgresql: Stores) -> None:
    with on_postgresql.coordinating() as first:
        _end_sessions(on_postgresql.url)
        with (
            _holding(on_postgresql.url, "ablation 7 elsewhere 2026-01-02T03:04:05Z"),
            pytest.raises(StudyLocked, match="process 7 on elsewhere since 2026-01-02T03:04:05Z"),
        ):
            first.check()

        first.check()


@pytest.mark.slow
def test_a_session_of_ones_own_that_broke_off_is_ended(on_postgresql: Stores) -> None:
    with on_postgresql.coordinating() as first:
        assert isinstance(first, AdvisoryLock)
        broken_off, first._connection = first._connection, None

        first.check()

        assert broken_off is not None
        with pytest.raises(DBAPIError, match="terminat"):
            broken_off.execute(text("SELECT 1"))
        with pytest.raises(StudyLocked, match=WHO), on_postgresql.coordinating():
            pass


@pytest.mark.slow
def test_a_lock_of_nobody_we_know_is_another_processs(on_postgresql: Stores) -> None:
    with (
        _holding(on_postgresql.url, "psql"),
        pytest.raises(StudyLocked, match="is being run by another process"),
        on_postgresql.coordinating(),
    ):
        pass


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    stores = Stores("postgresql://me:secret@127.0.0.1:1/studies", tmp_path)

    shown = r"postgresql://me:\*\*\*@127\.0\.0\.1:1/studies.*refused"
    with pytest.raises(StorageUnavailable, match=shown) as found, stores.coordinating():
        pass
    assert "secret" not in str(found.value)


@pytest.mark.parametrize("host", ["here", "x" * 100, "ünïcode host"])
def test_a_holders_name_fits_what_postgresql_keeps(host: str) -> None:
    holder = replace(this_process(), host=host)

    name = holder.as_application(MAX_NAME)

    assert len(name.encode()) <= MAX_NAME
    assert re.fullmatch(rf"ablation {os.getpid()} \S+ \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ", name)
    found = Holder.of_application(name)
    assert found is not None
    assert (holder.pid, holder.since) == (found.pid, found.since)


def test_a_study_has_the_same_lock_everywhere() -> None:
    assert -(2**63) <= lock_key("study/quick") < 2**63
    assert -5433525979880901552 == lock_key("study/quick")


@pytest.mark.parametrize(
    ("url", "opened"),
    [
        ("postgresql://a/b", "postgresql+psycopg://a/b"),
        ("postgres://a/b", "postgresql+psycopg://a/b"),
        ("postgresql+psycopg2://a/b", "postgresql+psycopg2://a/b"),
        ("mysql://a/b", "mysql://a/b"),
        ("sqlite:///postgresql://", "sqlite:///postgresql://"),
    ],
)
def test_postgresql_is_opened_with_psycopg_where_no_driver_is_named(url: str, opened: str) -> None:
    assert opened == with_driver(url)
    assert is_postgresql(url) == ("postgresql+" in opened)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:se:c@ret@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("postgresql://host/name?user=me&password=secret", "postgresql://host/name?user=me&password=***"),
        ("postgresql://me:se/c@host:5432/name", "postgresql://me:***@host:5432/name"),
        ("postgresql://me:12@host/name?sslpassword=secret", "postgresql://me:***@host/name?sslpassword=***"),
        ("postgresql://host:5432/name", "postgresql://host:5432/name"),
        ("http://me:secret@host:5000/a@b", "http://me:***@host:5000/a@b"),
        ("http://token@host:5000", "http://***@host:5000"),
        ("http://token:@host:5000", "http://***@host:5000"),
        ("https://host:5000/a@b", "https://host:5000/a@b"),
        ("--tracking-uri=http://me:secret@[::1]:5000", "--tracking-uri=http://me:***@[::1]:5000"),
        ("sqlite:////tmp/a@b.db", "sqlite:////tmp/a@b.db"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown == without_password(url)


def test_a_missing_driver_is_named_with_how_to_install_it() -> None:
    missing = ImportError("Failed to import DB access module")
    missing.__cause__ = ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    assert "its driver 'psycopg' is not installed; for PostgreSQL: pip install \"psycopg[binary]\"" == failure(missing)


def _holding(url: str, name: str) -> Any:
    """Hold the lock of the study, under some name, as long as the connection is open."""
    import psycopg

    connection = psycopg.connect(url, application_name=name, autocommit=True)
    connection.execute("SELECT pg_advisory_lock(%s)", [lock_key("study/quick")])
    return connection


def _end_sessions(url: str) -> None:
    """End the sessions that hold a lock, as their end of a broken network would."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a "
            "JOIN pg_locks l ON a.pid = l.pid WHERE l.locktype = 'advisory' AND a.datname = current_database()"
        )


def _coordinate_until_told(url: str, folder: Path, told: Connection) -> None:
    with coordinating("quick", storage_url=url, folder=folder / "locks"):
        told.send("coordinating")
        told.recv()


def test_locks_are_made_for_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "locks"

    with coordinating("quick", storage_url=default_storage(folder.parent), folder=folder):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder, folder / "quick.lock")]

    assert [0o700, 0o700, 0o600] == modes


def test_one_state_folder_runs_a_study_once_whatever_its_storages(tmp_path: Path) -> None:
    first, second = (f"sqlite:///{tmp_path / name / 'optuna.db'}" for name in ("first", "second"))
    with (
        coordinating("quick", storage_url=first, folder=tmp_path / "locks"),
        pytest.raises(StudyLocked, match=f"process {os.getpid()} on "),
        coordinating("quick", storage_url=second, folder=tmp_path / "locks"),
    ):
        pass
