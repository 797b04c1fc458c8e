"""Whatever happens to a study, every run of it is there once, whole, and as it would be had nothing happened."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos_study import RUNS, Size, Undisturbed, undisturbed
from conftest import answer_alone
from forking import Starter
from harness import Chaos
from targets import Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED = int(os.environ.get("ABLATION_CHAOS_SEED", "1"))
SIZE = Size(images=300, epochs=7)
DURATION_S = 20.0
BUSY_ENDS_S = 60.0
"""Beside other tests, on as many cores."""


@pytest.fixture
def server(tmp_path: Path, starter: Starter) -> Iterator[Server]:
    """A server that starts while what is compared with is trained."""
    server = Server(tmp_path, starter)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def calm(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Undisturbed:
    with pytest.MonkeyPatch.context() as patch:
        answer_alone(patch)
        return undisturbed(tmp_path_factory.mktemp("undisturbed"), data_cache, size=SIZE)


def test_nothing_is_lost_or_doubled_whatever_is_killed_suspended_or_locked(
    tmp_path: Path, data_cache: Path, starter: Starter, server: Server, calm: Undisturbed
) -> None:
    chaos = Chaos(
        tmp_path,
        data_cache,
        starter,
        server=server,
        seed=SEED,
        duration_s=DURATION_S,
        calm=calm,
        ends_within_s=BUSY_ENDS_S,
    )

    problems = chaos.run()

    print(chaos.story(with_outputs=bool(problems)))  # noqa: T201 - shown where the test fails
    assert RUNS == len(calm.trainings)
    assert [] == problems
