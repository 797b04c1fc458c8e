"""Makes temporary folders whose names say whose they are, so that the next execution removes what a killed one left."""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ablation.storage.holder import is_alive, this_process

_NAME = re.compile(r"ablation-(\d+)-([0-9a-f]{8})-.*")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix=f"ablation-{os.getpid()}-{_whose_numbers()}-") as name:
        yield Path(name)


def remove_left_behind() -> None:
    """Remove the folders of processes that were killed, as far as their numbers are told from those of others."""
    for folder in Path(tempfile.gettempdir()).glob("ablation-*"):
        found = _NAME.fullmatch(folder.name)
        if found is not None and found[2] == _whose_numbers() and not is_alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _whose_numbers() -> str:
    """Return what processes share whose numbers are told apart: a machine since its start, and a PID namespace."""
    here = this_process()
    return hashlib.sha256(f"{here.boot or here.host}:{here.pid_namespace}".encode()).hexdigest()[:8]
