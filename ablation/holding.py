"""Keeps apart the state folders that share an MLflow store: their locks lie beside stores that they do not share."""

import hashlib
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from ablation.errors import StudyLocked
from ablation.locks import is_alive
from ablation.tracking import Holder, Tracker

SILENT_S = 180.0
"""Seconds after which a coordinator that says nothing is taken for gone."""


def this_process(state_folder: Path) -> Holder:
    """Return this process as the one that runs a study from a state folder."""
    host = socket.gethostname()
    return Holder(
        host=host,
        pid=os.getpid(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        place=hashlib.sha256(f"{host}:{state_folder.resolve()}".encode()).hexdigest()[:16],
        seen_ms=time.time_ns() // 1_000_000,
    )


def check_not_held(name: str, mine: Holder, *, tracker: Tracker) -> None:
    """See that no process with another state folder runs the study; of this one's we have the lock.

    Two that start within the same moment do not see each other.

    Raises:
        StudyLocked: one does: it has said so within the last minutes, and lives as far as that can be told.
    """
    record = tracker.find_study(name)
    other = tracker.holder(record) if record is not None else None
    if other is not None and other.place != mine.place and not has_gone(other):
        raise StudyLocked(name, str(other))


def has_gone(holder: Holder) -> bool:
    """Whether who ran a study ended without saying so: it says nothing for minutes, or is no process of this host."""
    is_silent = time.time() - holder.seen_ms / 1000 > SILENT_S
    return is_silent or (holder.host == socket.gethostname() and not is_alive(holder.pid))
