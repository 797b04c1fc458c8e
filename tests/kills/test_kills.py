"""Wherever its processes are killed, a study comes to what an undisturbed one comes to, and leaves no more."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from kill_checks import problems_after_kills
from kill_harness import Calm, Killed, undisturbed
from kill_starting import Forking
from kill_studies import Kind, Place, Shared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED = int(os.environ.get("ABLATION_KILLS_SEED", "1"))
KILLS = 2


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, data_cache: Path, empty_store: Path) -> Iterator[Shared]:
    with Forking(tmp_path_factory.mktemp("starter")) as starter:
        yield Shared(data=data_cache, store=empty_store, starter=starter)


@pytest.fixture(scope="module")
def calm_own(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Calm:
    return undisturbed(tmp_path_factory.mktemp("own"), Kind(name="own", executor="inline"), shared, starts=1)


@pytest.fixture(scope="module")
def calm_tuned(tmp_path_factory: pytest.TempPathFactory, shared: Shared) -> Calm:
    return undisturbed(tmp_path_factory.mktemp("tuned"), Kind(name="tuned", executor="processes"), shared, starts=1)


@pytest.mark.parametrize("calm", ["calm_own", "calm_tuned"])
def test_a_study_comes_to_the_same_wherever_its_processes_are_killed(
    tmp_path: Path, shared: Shared, calm: str, request: pytest.FixtureRequest
) -> None:
    study = Killed(tmp_path, shared, calm=request.getfixturevalue(calm), kills=KILLS, seed=SEED)

    problems = study.run()

    print(study.story(with_outputs=bool(problems)))  # noqa: T201 - shown where the test fails
    assert len(study.deaths) >= KILLS
    assert [] == problems


def test_a_study_that_is_not_as_an_undisturbed_one_is_told(tmp_path: Path, calm_own: Calm) -> None:
    place = replace(calm_own.place, folder=tmp_path / "study")
    shutil.copytree(calm_own.place.folder, place.folder, symlinks=True)
    assert [] == problems_after_kills(place, calm=calm_own.left, operations=[])

    spoil(place)

    found = {problem.partition(":")[0] for problem in problems_after_kills(place, calm=calm_own.left, operations=[])}
    assert {"MLflow", "Optuna", "artifact", "state folder", "stray", "temporary"} == found


def spoil(place: Place) -> None:
    """Leave a run under way, another value in Optuna than in MLflow, half an artifact, and files."""
    with closing(sqlite3.connect(place.folder / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET status = 'RUNNING' WHERE name = 'rate=0.1/seed-0'")
    with closing(sqlite3.connect(place.state / "optuna.db")) as database, database:
        database.execute("UPDATE trial_values SET value = 7 WHERE trial_value_id = 1")
    next((place.state / "runs").glob("*/artifacts/*/epoch-2.txt")).write_text("0.5")
    (place.state / ".unfinished-result.json.7").touch()
    (place.temporary / "tmp7").mkdir()
