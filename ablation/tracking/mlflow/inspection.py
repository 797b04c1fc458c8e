"""Says what an MLflow store is before a study uses it, and changes nothing in it: MLflow's client may upgrade one."""

import re
import urllib.request
from http.client import HTTPException

from mlflow.exceptions import MlflowException
from mlflow.version import VERSION
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from ablation.errors import TrackingUnavailable
from ablation.storage.databases import connection_settings, failure, said_by, sqlite_path, with_driver, without_password
from ablation.storage.first_start import is_half_made
from ablation.storage.locks import check_first_use
from ablation.tracking.mlflow.schema import database, mlflow_schema
from ablation.tracking.mlflow.store import Store
from ablation.tracking.mlflow.tracker import MlflowTracker
from ablation.tracking.mlflow.waiting import CONNECT_TIMEOUT_S, request_to


def store_found(tracker: MlflowTracker) -> str:
    """Return in words what a study would find.

    Raises:
        TrackingUnavailable: it cannot be reached or opened.
        LockUnavailable: it is a file that cannot be made.
    """
    store = tracker.store
    check_first_use(store.tracking_uri)
    if (path := sqlite_path(store.tracking_uri)) is not None:
        if not path.exists():
            return "not there yet, made by the first study"
        if is_half_made(path, mlflow_schema()):
            return "left half made by a start that was killed, and made anew by the next study"
    if re.match(r"(sqlite|postgres(ql)?|mysql|mssql)(\+\w+)?://", store.tracking_uri):
        return _database(store.tracking_uri)
    studies = len(tracker.study_names())
    return f"{studies} studies{_server_text(store)}"


def _database(tracking_uri: str) -> str:
    """Return what a database is, by what MLflow's client looks at before it makes or upgrades one."""
    engine = None
    try:
        engine = create_engine(with_driver(tracking_uri), **connection_settings(tracking_uri))
        if database._is_empty_database(engine):
            return "empty, its tables are made by the first study"
        if not database._all_tables_exist(engine):
            return "made by an earlier version of MLflow, and upgraded when a study opens it"
        database._verify_schema(engine)
    except MlflowException as error:
        raise TrackingUnavailable(without_password(tracking_uri), without_password(said_by(error))) from error
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise TrackingUnavailable(without_password(tracking_uri), without_password(failure(error))) from error
    finally:
        if engine is not None:
            engine.dispose()
    return f"a store of MLflow {VERSION}"


def _server_text(store: Store) -> str:
    """Return the version of the server, where there is one and it says so."""
    if not store.tracking_uri.startswith("http"):
        return ""
    try:
        request = request_to(store.tracking_uri, "version", store.credentials)
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
            return f", a server of MLflow {answer.read(100).decode(errors='replace')}"
    except (OSError, ValueError, HTTPException):
        return ", a server that does not say its version"
