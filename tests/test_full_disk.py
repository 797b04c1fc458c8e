"""A disk that is full, for real: a study ends in a sentence, and goes on where it was once there is room."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench
from disks import fill, mounted

from ablation.errors import DiskFull
from ablation.records import Outcome
from ablation.study import Study

RUNS_BEFORE = 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", mib=16) as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("left_kib", [0, 64])
def test_a_study_ends_in_a_sentence_where_the_disk_is_full_and_goes_on_to_equal_numbers(
    bench: Bench, tiny: Study, data_cache: Path, small_disk: Path, left_kib: int
) -> None:
    bench.run(tiny)
    small = Bench(small_disk / "state", data_cache)
    steps = small.steps(tiny)
    while next(steps).ended.get(Outcome.DONE, 0) < RUNS_BEFORE:
        pass
    filler = fill(small_disk, but_kib=left_kib)

    with pytest.raises(DiskFull, match=r"make room and run the same command again"):
        list(steps)

    filler.unlink()
    assert {Outcome.DONE: 8} == small.run(tiny).ended
    assert bench.metrics(tiny) == small.metrics(tiny)
