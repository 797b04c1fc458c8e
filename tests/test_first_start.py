"""A first start that is killed at any statement leaves a store that the next start can use."""

import multiprocessing
import os
import re
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from conftest import PROJECT
from forking import QUICK
from mlflow.tracking import MlflowClient
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event

from ablation.scheduling import default_storage
from ablation.scheduling.storage import open_storage
from ablation.storage import first_start
from ablation.storage.databases import sqlite_address
from ablation.storage.first_start import COMPANIONS, make_whole
from ablation.tracking import open_mlflow
from ablation.tracking.mlflow.schema import mlflow_schema
from ablation.tracking.mlflow.tracker import MlflowTracker

PRELOADED = ["test_first_start", "alembic.command", "alembic.config", "alembic.script", "optuna.storages._rdb.models"]
Start = Callable[[Path], None]


def open_optuna(path: Path) -> None:
    open_storage(sqlite_address(path)).engine.dispose()


def open_optuna_as_before(path: Path) -> None:
    RDBStorage(sqlite_address(path)).engine.dispose()


def open_mlflows_store(path: Path) -> None:
    os.chdir(path.parent)
    tracker = open_mlflow(sqlite_address(path))
    assert isinstance(tracker, MlflowTracker)
    assert tracker.store.client is not None


def open_mlflow_as_before(path: Path) -> None:
    os.chdir(path.parent)
    MlflowClient(tracking_uri=sqlite_address(path)).search_experiments(max_results=1)


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody else makes a store here: there is nothing to wait for."""
    monkeypatch.setattr(first_start, "SETTLED_S", 0.0)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [QUICK, PROJECT, PROJECT / "tests"])))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole_optuna(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("whole") / "optuna.db"
    open_optuna_as_before(path)
    return schema_of(path)


def schema_of(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("SELECT type || ' ' || name, coalesce(sql, '') FROM sqlite_master").fetchall())


def kill_after(statements: int, start: Start, path: Path) -> bool:
    """Start in a process that is killed as it executes so many statements; whether it was before it had ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_start_and_die, args=(statements, start, path))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _start_and_die(statements: int, start: Start, path: Path) -> None:
    left = statements

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    start(path)


def strays(folder: Path, *known: str) -> set[str]:
    """Return what lies in a folder and is neither known nor set aside."""
    found = {path.name for path in folder.iterdir()} - {*known}
    return {name for name in found if not re.fullmatch(r"\w+\.db\.half-made-[\d-]+(-journal)?", name)}


@pytest.mark.slow
@pytest.mark.parametrize("start", [open_optuna, open_optuna_as_before], ids=["now", "before"])
def test_wherever_optunas_first_start_is_killed_the_next_one_finds_a_whole_database(
    start: Start, tmp_path: Path, whole_optuna: dict[str, str]
) -> None:
    kills = 0
    for statements in range(0, 200, 11):
        path = tmp_path / str(statements) / "optuna.db"
        path.parent.mkdir()
        if not kill_after(statements, start, path):
            break
        kills += 1

        open_optuna(path)

        assert whole_optuna == schema_of(path)
        assert not strays(path.parent, "optuna.db", "optuna.db.lock")
        optuna.create_study(storage=sqlite_address(path), study_name="quick")
    assert kills >= 6


@pytest.mark.slow
@pytest.mark.parametrize("start", [open_mlflows_store, open_mlflow_as_before], ids=["now", "before"])
@pytest.mark.parametrize("statements", [3, 60, 250, 600])
def test_wherever_mlflows_first_start_is_killed_the_next_one_finds_a_whole_store(
    statements: int, start: Start, tmp_path: Path, empty_store: Path
) -> None:
    path = tmp_path / "mlflow.db"
    assert kill_after(statements, start, path)

    open_mlflows_store(path)

    assert schema_of(empty_store).keys() == schema_of(path).keys()
    assert not strays(tmp_path, "mlflow.db", "mlflow.db.lock", "mlruns")
    client = MlflowClient(tracking_uri=sqlite_address(path))
    assert f"{tmp_path}/mlruns/0" == client.get_experiment("0").artifact_location
    client.create_experiment("quick")


def test_a_half_made_database_is_set_aside_whole_and_said(
    tmp_path: Path, whole_optuna: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = half_made(tmp_path)
    before = path.read_bytes()

    open_optuna(path)

    (aside,) = tmp_path.glob("optuna.db.half-made-*")
    assert before == aside.read_bytes()
    assert whole_optuna == schema_of(path)
    said = capsys.readouterr().err
    assert f"{path} was left half made by a start that was killed, and holds nothing. It is now {aside.name}" in said


@pytest.mark.parametrize(
    "content",
    [
        "INSERT INTO studies (study_id, study_name) VALUES (1, 'quick')",
        "CREATE TABLE customers (name TEXT)",
        "UPDATE alembic_version SET version_num = 'v99'",
    ],
    ids=["a study", "a foreign table", "an unknown version"],
)
def test_a_database_that_may_hold_something_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    path = half_made(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(content)
        database.commit()
    before = path.read_bytes()

    make_whole(path, storage_schema())

    assert before == path.read_bytes()
    assert [path] == [*tmp_path.iterdir()]


def test_a_half_made_database_that_another_program_has_open_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_start, "MOST_LOOKS", 2)
    path = half_made(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("SELECT * FROM studies").fetchall()
        make_whole(path, storage_schema())

    assert [path] == [*tmp_path.iterdir()]


def test_a_whole_store_without_runs_is_left_as_it_is(empty_store: Path, store_uri: str, tmp_path: Path) -> None:
    before = (tmp_path / "mlflow.db").read_bytes()

    make_whole(tmp_path / "mlflow.db", mlflow_schema)

    assert before == (tmp_path / "mlflow.db").read_bytes()


def test_what_a_killed_start_left_beside_is_removed_by_the_next(tmp_path: Path) -> None:
    for suffix in ("", *COMPANIONS):
        (tmp_path / f".unfinished-optuna.db.1234{suffix}").touch()

    open_storage(default_storage(tmp_path)).engine.dispose()

    assert {"optuna.db", "optuna.db.lock"} == {path.name for path in tmp_path.iterdir()}


def test_the_journal_of_a_file_that_is_gone_is_not_played_into_a_new_one(
    tmp_path: Path, whole_optuna: dict[str, str]
) -> None:
    """A database in the middle of a transaction is copied with its journal, and the file itself removed."""
    (tmp_path / "old").mkdir()
    other = half_made(tmp_path / "old")
    with closing(sqlite3.connect(other, isolation_level=None)) as database:
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN")
        database.execute("DROP TABLE trials")
        database.execute("CREATE TABLE left_behind (content BLOB)")
        database.execute("INSERT INTO left_behind VALUES (zeroblob(1000000))")
        journal = other.with_name("optuna.db-journal").read_bytes()
    (tmp_path / "optuna.db-journal").write_bytes(journal)

    open_storage(default_storage(tmp_path)).engine.dispose()

    assert len(journal) > 1000
    assert whole_optuna == schema_of(tmp_path / "optuna.db")


def test_stores_are_made_for_the_user_alone(tmp_path: Path) -> None:
    state = tmp_path / "state"
    storage = open_storage(default_storage(state))

    with storage.engine.connect():
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    storage.engine.dispose()

    assert 0o700 == stat.S_IMODE(state.stat().st_mode)
    assert {"optuna.db", "optuna.db-wal", "optuna.db-shm", "optuna.db.lock"} == modes.keys()
    assert {0o600} == {*modes.values()}


@pytest.mark.slow
def test_mlflows_store_is_made_for_the_user_alone(tmp_path: Path) -> None:
    open_mlflows_store(tmp_path / "mlflow.db")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {"mlflow.db": 0o600, "mlflow.db.lock": 0o600, "mlruns": 0o700} == modes


def test_a_store_and_a_state_folder_that_exist_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    path = half_made(tmp_path)
    path.unlink()
    path.touch(mode=0o640)

    open_optuna(path)

    assert (0o640, 0o755) == (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(tmp_path.stat().st_mode))


def half_made(folder: Path) -> Path:
    """Make Optuna's database with an index missing, as a kill between a table and its index leaves it."""
    path = folder / "optuna.db"
    open_optuna_as_before(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP INDEX ix_studies_study_name")
    return path


def storage_schema() -> Callable[[], first_start.Schema]:
    from ablation.scheduling import storage

    return storage._optuna_schema
