"""Makes a sqlite database's tables beside it and renames it into place, so that a killed start leaves none half made.

One that was left half made before, by an earlier version or another program, is set aside under another name where it
surely holds nothing, and made anew. Where that is in doubt it is left as it is.
"""

import contextlib
import glob
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ablation.output import plain
from ablation.storage.databases import sqlite_address
from ablation.storage.permissions import make_file

UNFINISHED = ".unfinished-"
LOGS = ("-wal", "-shm")
COMPANIONS = ("-journal", *LOGS)
REVISIONS = "alembic_version"
REBUILT = "_alembic_tmp_"
"""How alembic calls a table that it is about to put in the place of another."""
SETTLED_S = 3.0
"""A half-made file that has not changed for so long is not being made by another program."""
MOST_LOOKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """What a program's database consists of.

    It is whole at revision `head` with all of `tables` and `indexes`; at a revision of `earlier`, or none, its making
    may have been interrupted. `make` makes it in the empty file of an address. `harmless` are SQL conditions, by
    table, of the rows that it has from the start; all other rows are somebody's.
    """

    tables: frozenset[str]
    indexes: frozenset[str]
    head: str
    earlier: frozenset[str]
    harmless: Mapping[str, str]
    make: Callable[[str], None]


def make_whole(path: Path, schema: Callable[[], Schema]) -> None:
    """Make a database unless there is one; the caller holds the lock of its first use."""
    if not path.exists():
        _make(path, schema())
    elif _may_hold_nothing(path) and _is_left_half_made(path, found := schema()):
        if path.stat().st_size:
            set_aside(path, "was left half made by a start that was killed, and holds nothing", name="half-made")
        _make(path, found)


def _make(path: Path, schema: Schema) -> None:
    for left in path.parent.glob(f"{UNFINISHED}{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)
    beside = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    make_file(beside)
    if path.exists():
        beside.chmod(path.stat().st_mode)
    try:
        schema.make(sqlite_address(beside))
        for file in _companions(path):  # of a file that is gone: sqlite would restore it from them
            file.unlink(missing_ok=True)
        beside.replace(path)
    finally:
        for file in (beside, *_companions(beside)):
            file.unlink(missing_ok=True)


def why_unusable(path: Path, head: str) -> str | None:
    """Return why a program whose revision is `head` cannot use what lies at a database's path; None where it may."""
    if path.is_dir():
        return "is a folder"
    try:
        with closing(_opened(path)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                return "is damaged"
            revision = _revision(database) if REVISIONS in _names(database, "table") else head
    except sqlite3.OperationalError:  # it cannot be opened, or somebody is writing to it: whoever opens it is told
        return None
    except sqlite3.DatabaseError as error:
        return f"cannot be read ({error})"
    return None if revision == head else f"is of another version (its revision is {revision}, and {head} is needed)"


def is_in_use(path: Path) -> bool:
    """Whether another program is writing to a database, or has one open that is logged ahead (WAL)."""
    try:
        with closing(_opened(path)) as database:
            database.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return not path.is_dir()
    except sqlite3.DatabaseError:
        return False
    return any(path.with_name(f"{path.name}{suffix}").exists() for suffix in LOGS)


def set_aside(path: Path, why: str, *, name: str = "set-aside") -> None:
    """Give a database another name, with what belongs to it, and say so."""
    aside = path.with_name(f"{path.name}.{name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}")
    for file, new in zip((path, *_companions(path)), (aside, *_companions(aside)), strict=True):
        with contextlib.suppress(FileNotFoundError):
            file.rename(new)
    said = f"{path} {why}. It is now {aside.name}, and is made anew."
    print(plain(said), file=sys.stderr)  # noqa: T201 - it is no result of a command


def _is_left_half_made(path: Path, schema: Schema) -> bool:
    """Whether a database is half made, holds nothing, and nobody is at it: what still changes is waited for."""
    for _ in range(MOST_LOOKS):
        if not is_half_made(path, schema):
            return False
        before = _stamp(path)
        time.sleep(SETTLED_S)
        if _stamp(path) == before and not is_in_use(path):
            return True
    return False


def is_half_made(path: Path, schema: Schema) -> bool:
    """Whether a database surely holds nothing and lacks something of a whole one."""
    try:
        with closing(_opened(path)) as database:
            tables, indexes = _names(database, "table"), _names(database, "index")
            is_known = all(name in schema.tables or name.startswith((REVISIONS, REBUILT)) for name in tables)
            revision = _revision(database) if REVISIONS in tables else None
            if not is_known or revision not in (None, schema.head, *schema.earlier):
                return False
            is_whole = schema.tables <= tables and schema.indexes <= indexes and revision == schema.head
            return not is_whole and not any(_holds(database, name, schema) for name in tables - {REVISIONS})
    except sqlite3.Error:
        return False


def _may_hold_nothing(path: Path) -> bool:
    """Whether no table that matters has rows: what is soon seen of nearly every database that is in use."""
    try:
        with closing(_opened(path)) as database:
            used = _names(database, "table") & {"runs", "trials"}
            return not any(_has_rows(database, name, "0") for name in used)
    except sqlite3.Error:
        return False


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)


def _names(database: sqlite3.Connection, kind: str) -> set[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = ? AND name NOT LIKE 'sqlite_%'", [kind])
    return {name for (name,) in rows}


def _revision(database: sqlite3.Connection) -> str | None:
    row = database.execute(f"SELECT version_num FROM {REVISIONS}").fetchone()  # noqa: S608 - our own constant
    return str(row[0]) if row is not None else None


def _holds(database: sqlite3.Connection, table: str, schema: Schema) -> bool:
    return _has_rows(database, table, schema.harmless.get(table, "0"))


def _has_rows(database: sqlite3.Connection, table: str, harmless: str) -> bool:
    """Whether a table has rows but those of an SQL condition."""
    query = f'SELECT 1 FROM "{table}" WHERE NOT ({harmless}) LIMIT 1'  # noqa: S608 - names of the schema, our own words
    return database.execute(query).fetchone() is not None


def _companions(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{suffix}") for suffix in COMPANIONS]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
