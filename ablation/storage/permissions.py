"""Makes files and folders for their user alone; what exists keeps its mode."""

import errno
import os
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def nearest_folder(path: Path) -> Path:
    """Return a folder, or where it is not there yet the nearest above it, in which it would be made.

    Raises:
        FileExistsError: that is no folder, as `make_folder` says it.
    """
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(nearest))
    return nearest


def make_file(path: Path) -> None:
    """Make an empty file; what sqlite writes beside it gets its mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE_FILE))
