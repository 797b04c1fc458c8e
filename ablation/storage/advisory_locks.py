"""Locks on PostgreSQL that end with the session that took them, and say who holds them.

A lock is an advisory one on a connection of its own. Who holds it is that connection's application name, so nothing is
stored that could outlive its holder. A pooler between here and the server must leave sessions alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from ablation.errors import StorageUnavailable, StudyLocked
from ablation.storage.databases import CONNECTING, failure, with_driver, without_password
from ablation.storage.holder import NOBODY_KNOWN, Holder, this_process

MAX_NAME = 63  # bytes of an application name that PostgreSQL keeps
PATIENCE_S = 1.0
"""How long a lock is asked for: the server needs a moment to notice that a holder was killed."""
FIRST_USE_S = 120

TAKE = text("SELECT pg_try_advisory_lock(:key)")
IS_MINE = text(
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid = pg_backend_pid() "
    "AND classid::bigint = :high AND objid::bigint = :low"
)
HOLDER = text(
    "SELECT a.pid, a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid "
    "WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 "
    "AND l.classid::bigint = :high AND l.objid::bigint = :low "
    "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
SESSION = text("SELECT pg_backend_pid()")
END = text("SELECT pg_terminate_backend(:pid)")
KEEP_ALIVE = text(
    "SELECT set_config('tcp_keepalives_idle', '15', false), set_config('tcp_keepalives_interval', '5', false), "
    "set_config('tcp_keepalives_count', '3', false)"
)
"""Without it a session whose machine is gone would hold its locks for hours."""


class AdvisoryLock:
    """A study's lock on PostgreSQL, taken again where the session that held it was lost."""

    def __init__(self, study: str, url: str) -> None:
        self._study = study
        self._url = url
        self._name = this_process().as_application(MAX_NAME)
        self._key = lock_key(f"study/{study}")
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._session: int | None = None

    def take(self) -> None:
        with _explained(self._url):
            if self._engine is None:
                self._engine = _engine(self._url, self._name)
            self._connection = self._engine.connect()
            self._connection.execute(KEEP_ALIVE)
            self._try(self._connection)
            self._session = self._connection.execute(SESSION).scalar_one()

    def check(self) -> None:
        if self._connection is None or not self._is_held(self._connection):
            self.release()
            self.take()

    def release(self) -> None:
        """End the session, and the lock with it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _is_held(self, connection: Connection) -> bool:
        try:
            return bool(connection.execute(IS_MINE, _halves(self._key)).scalar_one())
        except SQLAlchemyError:
            return False

    def _try(self, connection: Connection) -> None:
        """Take the lock; a session of our own that broke off, and may still hold it, is ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not connection.execute(TAKE, {"key": self._key}).scalar_one():
            holder = connection.execute(HOLDER, _halves(self._key)).first()
            if holder is not None and (holder.pid, holder.application_name) == (self._session, self._name):
                connection.execute(END, {"pid": holder.pid})
            if time.monotonic() > deadline:
                self.release()
                raise StudyLocked(self._study, _holder_text(holder.application_name if holder is not None else ""))
            time.sleep(0.05)


@contextmanager
def coordinating_on_postgresql(study: str, url: str) -> Iterator[AdvisoryLock]:
    lock = AdvisoryLock(study, url)
    try:
        lock.take()
        yield lock
    finally:
        lock.release()


@contextmanager
def first_use_of_postgresql(url: str) -> Iterator[None]:
    """Let one process at a time create the tables of a database.

    Raises:
        StorageUnavailable: the database does not answer, or another process takes minutes over it.
    """
    with _explained(url):
        connection = _engine(url, "ablation").connect()
        try:
            connection.exec_driver_sql(f"SET lock_timeout = '{FIRST_USE_S}s'")
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key("first use")})
            yield
        finally:
            connection.close()


def lock_key(name: str) -> int:
    """Return the 64 bits, signed, by which PostgreSQL knows a lock."""
    digest = hashlib.sha256(f"ablation/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _holder_text(application_name: str) -> str:
    return str(Holder.of_application(application_name) or NOBODY_KNOWN)


def _engine(url: str, name: str) -> Engine:
    settings = {**CONNECTING, "application_name": name}
    return create_engine(with_driver(url), poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=settings)


def _halves(key: int) -> dict[str, int]:
    return {"high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF}


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, ImportError, OSError) as error:
        raise StorageUnavailable(without_password(url), failure(error)) from error
