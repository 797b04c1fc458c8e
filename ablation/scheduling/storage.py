"""Opens Optuna's storage, and says in the user's terms when it fails."""

import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import BaseModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ExceptionContext, event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ablation.errors import AblationError, DiskFull, StorageForeign, StorageUnavailable
from ablation.storage.databases import (
    absolute,
    connection_settings,
    failure,
    is_postgresql,
    sqlite_address,
    sqlite_path,
    with_driver,
    without_password,
)
from ablation.storage.first_start import Schema, is_in_use, make_whole, set_aside, why_unusable
from ablation.storage.locks import first_use

LOCKED_S = 60
"""How long a sqlite file that another process writes to is waited for."""

NOTE_VERSION = "dashboard:note_ver"
NOTE_PART = 2045
"""Characters of a note in one attribute."""
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
        # A third to a half less time per transaction. A killed process loses nothing; a power cut may lose the last
        # commits and damages nothing, which OFF, as fast, could.
        self.execute("PRAGMA synchronous=NORMAL")


def default_storage(state_folder: Path) -> str:
    return sqlite_address(state_folder.resolve() / "optuna.db")


def open_storage(url: str) -> RDBStorage:
    """Open a storage, whose tables are made at its first use; also where several processes are the first.

    What fails in it later raises StorageUnavailable or DiskFull at once, where Optuna would do some things again: what
    was committed before the answer was lost it would do twice.
    """
    with _first_use(url):
        return _opened(url)


def check_storage(url: str, *, is_rebuilt: bool) -> None:
    """See that a storage can be opened.

    With `is_rebuilt` a sqlite file that this version of Optuna cannot use is given another name, which is said, and
    made anew: the tracker and the run folders have all that was in it.

    Raises:
        StorageUnavailable: it cannot be opened.
        AblationError: it is another version's, which is using it.
    """
    with explained(url), _first_use(url):
        path = sqlite_path(url)
        if is_rebuilt and path is not None and path.exists() and (why := why_set_aside(path)) is not None:
            set_aside(path, why)
        _opened(url)


def why_set_aside(path: Path) -> str | None:
    """Return why a sqlite file that this version of Optuna cannot use is made anew; None where it can be used.

    Raises:
        AblationError: another program is using it.
    """
    why = why_unusable(path, _optuna_schema().head)
    if why is None:
        return None
    if is_in_use(path):
        raise AblationError(
            f"{path} {why}, and another program is using it. Wait for that to end, or choose another state folder with "
            "--state-dir."
        )
    return f"{why}; Optuna {optuna.__version__} cannot use it. MLflow and the run folders have all of it"


def _opened(url: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if (path := sqlite_path(url)) is not None:
        make_whole(path, _optuna_schema)
    try:
        storage = RDBStorage(with_driver(absolute(url)), engine_kwargs=_engine_settings(url))
    except (RuntimeError, AssertionError) as error:  # of the revision, in Optuna's own words
        raise StorageForeign(without_password(url), optuna.__version__) from error
    event.listen(storage.engine, "handle_error", lambda context: _raised_instead(url, context))
    weakref.finalize(storage, storage.engine.dispose)
    return storage


def forget_study(url: str, name: str, *, is_rebuilt: bool) -> None:
    """Delete what Optuna's storage has of a study, its tuning's too; a file that is not there is not made.

    With `is_rebuilt` a sqlite file that cannot be used is set aside, see `check_storage`: it needs no deleting from.

    Raises:
        StorageUnavailable: the storage cannot be opened.
        AblationError: it is another version's, which is using it.
    """
    path = sqlite_path(url)
    if path is not None and not path.exists():
        return
    check_storage(url, is_rebuilt=is_rebuilt)
    with explained(url):
        storage = open_storage(url)
        for own in [other for other in optuna.get_all_study_names(storage) if is_of_study(other, name)]:
            optuna.delete_study(study_name=own, storage=storage)


def is_of_study(optuna_name: str, study: str) -> bool:
    """Whether a study of Optuna's is that of a study's compared runs or of a variant's tuning."""
    return optuna_name == study or optuna_name.startswith(tuning_name(study, ""))


def tuning_name(study: str, variant: str) -> str:
    return f"{study}/tuning/{variant}"


@cache
def _optuna_schema() -> Schema:
    tables = BaseModel.metadata.tables.values()
    any_storage = RDBStorage("sqlite://")
    any_storage.engine.dispose()
    return Schema(
        tables=frozenset(table.name for table in tables),
        indexes=frozenset(str(index.name) for table in tables for index in table.indexes),
        head=any_storage.get_head_version(),
        earlier=frozenset(),  # a schema is made at its latest revision at once
        harmless={"version_info": "1"},
        make=_make,
    )


def _make(address: str) -> None:
    storage = RDBStorage(address)
    storage.remove_session()
    storage.engine.dispose()


def _first_use(url: str) -> AbstractContextManager[None]:
    if is_postgresql(url):
        from ablation.storage.advisory_locks import first_use_of_postgresql

        return first_use_of_postgresql(url)
    return first_use(url)


def _engine_settings(url: str) -> dict[str, Any]:
    path = sqlite_path(url)
    if path is None:
        return connection_settings(url)
    is_local = is_on_local_disk(path.resolve().parent)
    return {"connect_args": {"timeout": LOCKED_S, **({"factory": LoggedConnection} if is_local else {})}}


def _raised_instead(url: str, context: ExceptionContext) -> AblationError | None:
    """Return what is to be raised instead of a database's error; nothing for those that Optuna expects."""
    if context.is_pre_ping or isinstance(context.sqlalchemy_exception, IntegrityError):
        return None
    error = context.sqlalchemy_exception
    return _in_our_terms(url, error) if error is not None else None


def _in_our_terms(url: str, error: Exception) -> AblationError:
    """Return DiskFull for a sqlite file that cannot grow, which no waiting fixes, and StorageUnavailable otherwise."""
    path, original = sqlite_path(url), getattr(error, "orig", None)
    if path is not None and getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return DiskFull(path.parent, str(original))
    return StorageUnavailable(without_password(url), failure(error))


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


def write_note(study: optuna.Study, text: str) -> None:
    """Give a study the note that optuna-dashboard shows, in the attributes where it keeps notes; one there is left."""
    storage, number = study._storage, study._study_id
    if NOTE_VERSION in storage.get_study_system_attrs(number):
        return
    for index, begin in enumerate(range(0, len(text), NOTE_PART)):
        storage.set_study_system_attr(number, f"dashboard:note_str:{index}", text[begin : begin + NOTE_PART])
    storage.set_study_system_attr(number, NOTE_VERSION, 1)  # last: a note without it is none, and is written again


def trials_in(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(state,))


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Say in the user's terms that the storage failed; drivers raise what they like, and a missing one ImportError."""
    try:
        yield
    except StorageInternalError as error:  # of a commit, whatever went wrong with it
        cause = error.__cause__
        raise _in_our_terms(url, cause if isinstance(cause, Exception) else error) from error
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise _in_our_terms(url, error) from error
