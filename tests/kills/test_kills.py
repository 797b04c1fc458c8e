"""Wherever its processes are killed, a study comes to what an undisturbed one comes to, and leaves no more."""

import os
from pathlib import Path

import pytest
from kill_harness import Killed, undisturbed
from kill_studies import Kind, Shared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED = int(os.environ.get("ABLATION_KILLS_SEED", "1"))
KILLS = 2


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, data_cache: Path, empty_store: Path) -> Shared:
    return Shared(data=data_cache, store=empty_store, bytecode=tmp_path_factory.mktemp("bytecode"))


@pytest.mark.parametrize(
    "kind", [Kind(name="own", executor="inline"), Kind(name="tuned", executor="processes")], ids=str
)
def test_a_study_comes_to_the_same_wherever_its_processes_are_killed(
    tmp_path: Path, shared: Shared, kind: Kind
) -> None:
    calm = undisturbed(tmp_path / "undisturbed", kind, shared, starts=1)
    study = Killed(tmp_path / "killed", kind, shared, calm=calm, kills=KILLS, seed=SEED)

    problems = study.run()

    print(study.story(with_outputs=bool(problems)))  # noqa: T201 - shown where the test fails
    assert study.kills >= KILLS
    assert [] == problems
