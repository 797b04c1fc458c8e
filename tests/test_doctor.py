"""What `ablation doctor` finds is what a study would: the same errors, and nothing is changed by looking."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import optuna
import pytest
from click.testing import CliRunner, Result
from conftest import TINY

from ablation.cli import main
from ablation.output import cells
from ablation.scheduling import check_storage, default_storage
from ablation.storage.state import State

CLOSED = "127.0.0.1:1"
HELD = "INSERT INTO tags (`key`, value, run_uuid) VALUES ('a', 'b', 'c')"
"""A database with a row of somebody's is none that was left half made."""
NAMES = ["host", "ablation", "libraries", "cores", "devices", "state folder", "data cache", "MLflow", "Optuna"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study file, and nothing else that says where stores are."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "ABLATION_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_bytes(TINY)
    return tmp_path


def invoke(*words: str, columns: int = 80) -> Result:
    return CliRunner().invoke(main, list(words), env={"COLUMNS": str(columns)})


def found_by(*words: str) -> dict[str, str]:
    """Return what was found, by what was looked at; of what would refuse a study, why."""
    printed = json.loads(invoke("doctor", "--json", *words).stdout)
    return {one["what"]: one["problem"] or one["found"] for one in printed["machine"]}


def assert_refused_alike(row: str, *words: str) -> None:
    """See that a study ends with the error that its row has."""
    found = invoke("doctor", "tiny.yaml", *words, columns=4000)
    study = invoke("study", "tiny.yaml", "--executor", "inline", *words, columns=4000)

    assert 2 == found.exit_code == study.exit_code
    (said,) = [line for line in study.stderr.splitlines() if line.startswith("Error: ")]
    assert said.replace("Error: ", f"Error: {row}: ", 1) in found.stderr.splitlines()


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a folder, with its mode and content."""
    return {
        file.relative_to(folder).as_posix(): (file.stat().st_mode, file.read_bytes() if file.is_file() else b"")
        for file in sorted(folder.rglob("*"))
    }


def test_a_new_place_is_looked_at_and_nothing_is_made_there(folder: Path) -> None:
    before = content(folder)

    result = invoke("doctor", "tiny.yaml")

    assert 0 == result.exit_code, result.output
    assert before == content(folder)
    found = found_by("tiny.yaml")
    assert [*NAMES, "study"] == list(found)
    assert found["state folder"].startswith(f"{folder / '.ablation'}, not there yet; ")
    assert found["MLflow"] == f"sqlite:///{folder / 'mlflow.db'}: not there yet, made by the first study"
    assert found["Optuna"].endswith("optuna.db: not there yet, made by the first study")
    assert found["study"].startswith("tiny: 4 variants")


def test_stores_that_are_there_are_read_and_stay_as_they_are(folder: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, folder / "mlflow.db")
    State(folder=folder / ".ablation").make()
    check_storage(default_storage(folder / ".ablation"), is_rebuilt=True)
    before = content(folder)

    found = found_by()

    assert before == content(folder)
    assert found["MLflow"].endswith(f"mlflow.db: a store of MLflow {mlflow.__version__}")
    assert found["Optuna"].endswith(f"optuna.db: a storage of Optuna {optuna.__version__}")


def test_an_mlflow_store_of_an_earlier_version_is_not_upgraded_by_looking(folder: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, folder / "mlflow.db")
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("DROP TABLE logged_model_tags")
        database.execute(HELD)
        database.commit()
    before = content(folder)

    found = found_by()

    assert "made by an earlier version of MLflow, and upgraded when a study opens it" in found["MLflow"]
    assert before == content(folder)


def test_an_mlflow_store_that_mlflow_refuses_is_told_as_a_study_tells_it(folder: Path, empty_store: Path) -> None:
    shutil.copy(empty_store, folder / "mlflow.db")
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute(HELD)
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        database.commit()

    assert_refused_alike("MLflow")


def test_a_storage_of_another_version_is_set_aside_where_it_is_ours_and_refused_elsewhere(folder: Path) -> None:
    State(folder=folder / ".ablation").make()
    url = default_storage(folder / ".ablation")
    check_storage(url, is_rebuilt=True)
    shutil.copy(folder / ".ablation" / "optuna.db", folder / "other.db")
    for file in (folder / ".ablation" / "optuna.db", folder / "other.db"):
        with closing(sqlite3.connect(file)) as database:
            database.execute("UPDATE alembic_version SET version_num = 'v99'")
            database.commit()

    assert "a study sets it aside and makes it anew" in found_by()["Optuna"]
    refused = invoke("doctor", "--storage", "sqlite:///other.db")
    assert 2 == refused.exit_code
    assert "Error: Optuna: Optuna's storage at" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("devices", ("--device", "cuda:7")),
        ("state folder", ("--state-dir", "tiny.yaml/state")),
        ("MLflow", ("--tracking-uri", f"http://{CLOSED}")),
        ("MLflow", ("--tracking-uri", "sqlite:///tiny.yaml/mlflow.db")),
        ("Optuna", ("--storage", f"postgresql://nobody@{CLOSED}/none")),
        ("Optuna", ("--storage", "sqlite:///tiny.yaml/optuna.db")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1].partition(":")[0],
)
def test_what_would_refuse_a_study_is_told_in_its_words_and_ends_with_status_2(
    row: str, words: tuple[str, ...]
) -> None:
    assert_refused_alike(row, *words)


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"width: 2", b"width: many", "@ model.width"),
        (b"name: digits", b"name: images, root: /nowhere", "/nowhere"),
        (b"epochs: 2", b"epochs: 2, precision: tf32", "tf32"),
    ],
)
def test_a_study_that_cannot_run_here_is_refused_with_why(
    folder: Path, before: bytes, after: bytes, reason: str
) -> None:
    assert before in TINY
    (folder / "tiny.yaml").write_bytes(TINY.replace(before, after))

    result = invoke("doctor", "tiny.yaml")

    assert 2 == result.exit_code
    assert reason in result.stderr.partition("Error: study: ")[2]
    assert result.stdout.splitlines()[-1].startswith("study")
    assert result.stdout.splitlines()[-1].endswith("see below")


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_findings_are_no_wider_than_the_terminal_but_for_a_path(columns: int) -> None:
    lines = invoke("doctor", columns=columns).stdout.splitlines()

    assert all(cells(line) <= columns or "/" in line for line in lines)
    assert all(any(line.startswith(name) for line in lines) for name in NAMES)


@pytest.mark.slow
def test_a_server_says_its_version(server: str) -> None:
    assert found_by("--tracking-uri", server)["MLflow"] == (
        f"{server}: 0 studies, a server of MLflow {mlflow.__version__}"
    )


@pytest.mark.slow
def test_a_database_without_tables_stays_without(postgresql_url: str) -> None:
    from sqlalchemy import create_engine, inspect

    from ablation.storage.databases import with_driver

    found = found_by("--storage", postgresql_url, "--tracking-uri", with_driver(postgresql_url))

    assert all("empty, its tables are made by the first study" in found[what] for what in ("MLflow", "Optuna"))
    engine = create_engine(with_driver(postgresql_url))
    assert [] == inspect(engine).get_table_names()
    engine.dispose()
