"""A disk that is full, for real: a study ends in a sentence, and goes on where it was once there is room."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench import Bench

from ablation.errors import DiskFull
from ablation.records import Outcome
from ablation.study import Study

SIZE = "size=16m"
RUNS_BEFORE = 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", SIZE, "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # a database in it may be open still


def fill(disk: Path, *, but_kib: int) -> Path:
    """Take all the room that there is on a disk, but for so much; return the file that takes it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert errno.ENOSPC == error.errno  # noqa: PT017 - it is how the end of the disk is found
        file.truncate(max(0, file.tell() - 1024 * but_kib))
    return filler


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
