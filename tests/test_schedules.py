"""Optuna's database is a schedule: what lies in its place is set aside, and a study goes on as if it had been there."""

import gc
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from bench import Bench
from click.testing import CliRunner
from conftest import TINY
from test_tuning import tuned_study

from ablation.cli import main
from ablation.errors import AblationError, StorageForeign
from ablation.records import Outcome, TunedVariant, TuningTrial
from ablation.scheduling import check_storage, default_storage
from ablation.scheduling.storage import open_storage
from ablation.study import Study, parse_study

Spoil = Callable[[Path], object]


def of_another_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v9.9.9.a'")
        database.commit()


def of_an_older_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.a'")
        database.commit()


def without_a_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM alembic_version")
        database.commit()


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 100)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:20480] = b"\xff" * 16384
    path.write_bytes(bytes(content))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").touch()


SPOILT: list[Spoil] = [
    of_another_version,
    of_an_older_version,
    without_a_version,
    no_database,
    truncated,
    overwritten,
    a_folder,
]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_cannot_be_used_is_kept_under_another_name(
    spoil: Spoil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "optuna.db"
    storage = open_storage(default_storage(tmp_path))
    optuna.create_study(storage=storage, study_name="there")
    storage.remove_session()
    storage.engine.dispose()
    spoil(path)

    check_storage(default_storage(tmp_path), is_rebuilt=True)

    (aside,) = tmp_path.glob("optuna.db.set-aside-*")
    said = capsys.readouterr().err
    assert f"{path} " in said
    assert f"It is now {aside.name}, and is made anew." in said
    assert [] == optuna.get_all_study_names(open_storage(default_storage(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [of_another_version, truncated, a_folder])
def test_a_study_whose_schedule_was_lost_trains_nothing_again(spoil: Spoil, tiny: Study, bench: Bench) -> None:
    bench.run(tiny)
    gc.collect()  # which closes the file
    spoil(bench.state.folder / "optuna.db")

    outcome = bench.run(parse_study(TINY.replace(b"seeds: 2", b"seeds: 3"), source="tiny.yaml"))

    assert {Outcome.DONE: 12} == outcome.ended
    assert {2} == {run.seed for run in bench.trained}, "only what is new is trained"


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [of_another_version, no_database])
def test_a_tuning_whose_schedule_was_lost_ends_as_one_that_was_not(
    spoil: Spoil, bench: Bench, tmp_path: Path, data_cache: Path
) -> None:
    study = tuned_study("tune={training.learning_rate: {log: [1e-4, 1e-1]}, trials: 3}")
    whole = Bench(tmp_path / "whole", data_cache)
    whole.run(study)
    steps = bench.steps(study)
    while (progress := next(steps)).note is None or "trial 2" not in progress.note:
        pass
    steps.close()
    del steps
    gc.collect()
    spoil(bench.state.folder / "optuna.db")

    bench.run(study)

    assert found(whole, study) == found(bench, study)


def found(bench: Bench, study: Study) -> list[tuple[str, int, list[tuple[object, ...]]]]:
    record = bench.tracker.find_study(study.name)
    assert record is not None

    def trial(one: TuningTrial) -> tuple[object, ...]:
        return one.number, one.settings, one.outcome, one.value, one.curve

    def variant(one: TunedVariant) -> tuple[str, int, list[tuple[object, ...]]]:
        return one.variant, one.chosen, [trial(each) for each in one.trials]

    return [variant(one) for one in record.plan.tuning]


@pytest.mark.slow
def test_a_schedule_of_another_version_that_somebody_uses_now_is_left_to_them(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    open_storage(default_storage(tmp_path)).engine.dispose()
    of_another_version(path)

    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AblationError, match=r"another program is using it\. Wait for that to end"):
            check_storage(default_storage(tmp_path), is_rebuilt=True)

    assert [] == [*tmp_path.glob("*.set-aside-*")]


@pytest.mark.parametrize("spoil", [of_another_version, of_an_older_version])
def test_a_storage_that_was_named_is_never_set_aside(spoil: Spoil, tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    open_storage(default_storage(tmp_path)).engine.dispose()
    spoil(path)
    before = path.read_bytes()

    with pytest.raises(StorageForeign) as refused:
        check_storage(f"sqlite:///{path}", is_rebuilt=False)

    assert f"storage at sqlite:///{path} was made by another version of Optuna" in str(refused.value)
    assert "`optuna storage upgrade --storage ADDRESS`" in str(refused.value)
    assert before == path.read_bytes()
    assert [] == [*tmp_path.glob("*.set-aside-*")]


@pytest.mark.parametrize("spoil", [no_database, truncated, a_folder])
def test_a_storage_that_was_named_and_is_none_is_refused_before_anything_is_trained(
    spoil: Spoil, tmp_path: Path, store_uri: str, tiny_file: Path
) -> None:
    open_storage(default_storage(tmp_path)).engine.dispose()
    spoil(tmp_path / "optuna.db")
    words = ["study", str(tiny_file), "--storage", f"sqlite:///{tmp_path}/optuna.db", "--state-dir", "there"]

    ended = CliRunner().invoke(main, words)

    assert 2 == ended.exit_code, ended.output
    assert f"Error: cannot use Optuna's storage at sqlite:///{tmp_path}/optuna.db: " in ended.stderr
    assert not (tmp_path / "there" / "data").exists()
