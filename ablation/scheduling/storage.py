"""Opens Optuna's storage, and says in the user's terms when it fails."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from ablation.errors import StorageUnavailable
from ablation.locks import first_use, sqlite_path

LOCAL = frozenset({"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"})
"""File systems that one machine has for itself."""


class LoggedConnection(sqlite3.Connection):
    """A connection that writes ahead to a log (WAL), which costs less than half the waiting for the disk.

    What is committed outlives a killed process. A power cut may lose the last commits and never damages the file; the
    tracker has what they said.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def default_storage(state_folder: Path) -> str:
    return f"sqlite:///{state_folder.resolve() / 'optuna.db'}"


def open_storage(url: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = sqlite_path(url)
    with first_use(url):
        if path is None:
            return RDBStorage(url)
        is_local = is_on_local_disk(path.resolve().parent)
        arguments = {"timeout": 60, **({"factory": LoggedConnection} if is_local else {})}
        return RDBStorage(url, engine_kwargs={"connect_args": arguments})


def is_on_local_disk(folder: Path) -> bool:
    """Say whether no other machine can write to a folder; only Linux tells, elsewhere it is not known.

    The log of a sqlite file is shared memory of one machine: two that write to the file would destroy it.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number]
    return bool(kinds) and kinds[0] in LOCAL


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Say in the user's terms that the storage failed; drivers raise what they like, and a missing one ImportError."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError) as error:
        raise StorageUnavailable(url, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
