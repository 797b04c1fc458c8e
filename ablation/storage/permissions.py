"""Makes files and folders for their user alone; what exists keeps its mode."""

import os
from pathlib import Path

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing."""
    for folder in (*reversed(path.parents), path):
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def make_file(path: Path) -> None:
    """Make an empty file; what sqlite writes beside it gets its mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE_FILE))
