"""Keeps processes out of each other's way: one first use of a store at a time, one coordinator per study."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ablation.errors import StudyLocked

SQLITE = "sqlite:///"


def sqlite_path(url: str) -> Path | None:
    """Return the file of a sqlite URL, or None for another kind of store."""
    return Path(url.removeprefix(SQLITE)) if url.startswith(SQLITE) and url != SQLITE else None


@contextmanager
def first_use(url: str) -> Iterator[None]:
    """Hold the lock beside a sqlite store while it is opened, as creating its tables twice breaks it for good."""
    path = sqlite_path(url)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        yield


@contextmanager
def coordinating(study: str, folder: Path) -> Iterator[None]:
    """Be the one coordinator of a study; `folder` holds its lock.

    Raises:
        StudyLocked: another process is, and who.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / f"{study}.holder"
    lock = FileLock(folder / f"{study}.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise StudyLocked(study, _holder_text(holder)) from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": since}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _holder_text(holder: Path) -> str:
    try:
        found = json.loads(holder.read_text())
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"
