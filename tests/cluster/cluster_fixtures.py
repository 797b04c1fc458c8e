"""What tests of studies on a cluster begin with: beds, and what the study comes to alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_bed import Bed, MakeBed
from cluster_study import Alone, alone
from engine import Cluster
from forking import Starter
from leftovers import processes_of_folder


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Alone:
    return alone(tmp_path_factory.mktemp("alone"), data_cache)


@pytest.fixture
def make_bed(tmp_path: Path, data_cache: Path, empty_store: Path, starter: Starter) -> Iterator[MakeBed]:
    """What makes a bed in a folder of a name, with a cluster of its own or another bed's."""
    beds: list[Bed] = []

    def make(name: str, cluster: Cluster | None = None) -> Bed:
        beds.append(Bed(tmp_path / name, data_cache, empty_store, starter, cluster=cluster))
        return beds[-1]

    yield make
    for bed in reversed(beds):
        bed.close()
    assert [] == processes_of_folder(tmp_path)


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    return make_bed("bed")
