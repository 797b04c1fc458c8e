"""Opens Optuna's storage, and says in the user's terms when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from ablation.errors import StorageUnavailable
from ablation.locks import first_use, sqlite_path


def default_storage(state_folder: Path) -> str:
    return f"sqlite:///{state_folder.resolve() / 'optuna.db'}"


def open_storage(url: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": {"timeout": 60}} if sqlite_path(url) is not None else None
    with first_use(url):
        return RDBStorage(url, engine_kwargs=options)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Say in the user's terms that the storage failed; drivers raise what they like, and a missing one ImportError."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError) as error:
        raise StorageUnavailable(url, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
