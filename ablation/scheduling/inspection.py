"""Says what Optuna's storage is before a study uses it, and changes nothing in it."""

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect

from ablation.errors import StorageForeign
from ablation.scheduling.storage import explained, why_set_aside
from ablation.storage.databases import absolute, connection_settings, sqlite_path, with_driver, without_password
from ablation.storage.locks import check_first_use

VERSIONS = "version_info"
"""The table in which Optuna keeps what has made a storage."""


def storage_found(url: str, *, is_rebuilt: bool) -> str:
    """Return in words what a study would find; `is_rebuilt` as in `check_storage`, and so is what is raised.

    Raises:
        StorageUnavailable: it cannot be opened.
        LockUnavailable: it is a file that cannot be made.
        AblationError: it is another version's, which is using it.
    """
    check_first_use(url)
    if (path := sqlite_path(url)) is not None:
        if not path.exists():
            return "not there yet, made by the first study"
        if is_rebuilt and (why := why_set_aside(path)) is not None:
            return f"{why}; a study sets it aside and makes it anew"
    with explained(url):
        return _content(url)


def _content(url: str) -> str:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address, settings = with_driver(absolute(url)), connection_settings(url) if sqlite_path(url) is None else {}
    engine = create_engine(address, **settings)
    try:
        if not inspect(engine).has_table(VERSIONS):
            return "empty, its tables are made by the first study"
    finally:
        engine.dispose()
    try:
        storage = RDBStorage(address, engine_kwargs=settings, skip_table_creation=True)
    except (RuntimeError, AssertionError) as error:  # of the revision, in Optuna's own words
        raise StorageForeign(without_password(url), optuna.__version__) from error
    storage.remove_session()
    storage.engine.dispose()
    return f"a storage of Optuna {optuna.__version__}"
