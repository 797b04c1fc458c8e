"""A file system of its own that is small, and can be filled."""

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *, mib: int) -> Iterator[Path]:
    """Mount a file system of a size at a folder; the test is skipped where that cannot be done."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
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
