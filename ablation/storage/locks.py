"""Keeps processes out of each other's way: one first use of a store at a time, one coordinator per study."""

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from ablation.errors import LockUnavailable, StudyLocked
from ablation.storage.holder import NOBODY_KNOWN, Holder, this_process
from ablation.storage.permissions import PRIVATE_FILE, make_folder, nearest_folder


class Coordination(Protocol):
    """Being the one coordinator of a study."""

    def check(self) -> None:
        """Make sure that this process still is, as far as the lock can be lost while the process lives.

        Raises:
            StudyLocked: it no longer is; another process is, and who.
            StorageUnavailable: the database that holds the lock does not answer; the call may be made again.
        """


@contextmanager
def first_use(url: str) -> Iterator[None]:
    """Hold the lock beside a sqlite store while it is opened, as creating its tables twice breaks it for good."""
    from ablation.storage.databases import sqlite_path  # SQLAlchemy, which a lock on a file does without

    path = sqlite_path(url)
    if path is None:
        yield
        return
    with locked(_lock_of_first_use(path)):
        yield


@contextmanager
def locked(path: Path, *, is_waited_for: bool = True) -> Iterator[None]:
    """Hold a lock on a file, made with its folder where it is missing; the lock ends with this process.

    Raises:
        Timeout: another process holds it, and it is not waited for.
        LockUnavailable: the file cannot be made, or its file system has no locks.
    """
    try:
        make_folder(path.parent)
        _check_has_locks(path.parent)
        lock = FileLock(path, blocking=is_waited_for, mode=PRIVATE_FILE)
        lock.acquire()
    except Timeout:
        raise
    except OSError as error:
        raise LockUnavailable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def check_first_use(url: str) -> None:
    """See that the lock of a sqlite store's first use could be held, and with it the file be made; nothing is left.

    Raises:
        LockUnavailable: it could not.
    """
    from ablation.storage.databases import sqlite_path

    if (path := sqlite_path(url)) is None:
        return
    lock = _lock_of_first_use(path)
    try:
        _check_has_locks(nearest_folder(lock.parent))
    except OSError as error:
        raise LockUnavailable(lock, error) from None


def _lock_of_first_use(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _check_has_locks(folder: Path) -> None:
    """Raise OSError where a file system has no locks: filelock would use files instead, which outlive their makers."""
    with tempfile.TemporaryFile(dir=folder) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def coordinating(study: str, *, storage_url: str, folder: Path) -> AbstractContextManager[Coordination]:
    """Be the one coordinator of a study among all that use its storage.

    A lock is where the storage is: a file beside a sqlite database, an advisory lock on PostgreSQL. Another is a file
    in `folder`, which keeps out what uses the same state folder with another storage; for other databases it is all.

    Raises:
        StudyLocked: another process is, and who.
        StorageUnavailable: the database that holds the lock does not answer.
    """
    from ablation.storage.databases import is_postgresql, sqlite_path

    here = _coordinating_by_file(study, folder)
    if is_postgresql(storage_url):
        from ablation.storage.advisory_locks import coordinating_on_postgresql

        return _both(here, coordinating_on_postgresql(study, storage_url))
    database = sqlite_path(storage_url)
    beside = database.parent / "locks" if database is not None else folder
    return here if beside.resolve() == folder.resolve() else _both(here, _coordinating_by_file(study, beside))


@contextmanager
def _both(
    first: AbstractContextManager[Coordination], second: AbstractContextManager[Coordination]
) -> Iterator[Coordination]:
    with first, second as held:
        yield held


class _FileHeld:
    """A lock on a file: its process has it as long as it lives."""

    def check(self) -> None:
        return


@contextmanager
def _coordinating_by_file(study: str, folder: Path) -> Iterator[Coordination]:
    holder = folder / f"{study}.holder"
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / f"{study}.lock", is_waited_for=False))
        except Timeout:
            raise StudyLocked(study, _holder_text(holder)) from None
        held.callback(holder.unlink, missing_ok=True)
        holder.write_text(this_process().to_json())
        yield _FileHeld()


def _holder_text(holder: Path) -> str:
    """Return who holds a lock; what a killed process has left says nothing of who holds it now."""
    try:
        found = Holder.from_json(holder.read_text())
    except (OSError, ValueError):
        return NOBODY_KNOWN
    return NOBODY_KNOWN if found is None or found.is_dead() else str(found)
