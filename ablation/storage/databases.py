"""Makes and reads the addresses of databases: their kind or file, how to connect, how to show them."""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ablation.errors import AddressInvalid

NOTICE_S = 30
"""Within what time, about, a connection whose other end is gone is noticed."""

CONNECTING = {
    "connect_timeout": 10,
    "keepalives_idle": NOTICE_S // 2,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": NOTICE_S * 1000,
}
"""How both of PostgreSQL's drivers are to connect."""

ESCAPES = "write / as %2F, ? as %3F, # as %23, @ as %40 and % as %25 in a name or password"

DATABASES = (
    "write one such as sqlite:///FILE.db, postgresql://USER:PASSWORD@HOST/DATABASE or mysql+pymysql://HOST/DATABASE"
)

_PASSWORD = re.compile(r"(://[^:/@\n]*):(?!\d*(?:[/?#\s]|$))(?:[^/\n]*@|[^\n]*@)")
"""To the last `@` before the path; a password with a `/` in it, which databases take, to the last of all."""
_TOKEN = re.compile(r"(https?://)[^:/?#@\s]+:?@", re.IGNORECASE)
_SECRET_SETTING = re.compile(r"([?&][^=&\s]*(?:password|passwd|pwd|token|secret)[^=&\s]*=)[^&\s]*", re.IGNORECASE)
_BARE = re.compile(r"^postgres(ql)?://")
_SQLITE = re.compile(r"sqlite(\+\w+)?://")
_IN_MEMORY = ":memory:"
_MISREAD = frozenset("%?#")


def sqlite_address(path: Path) -> str:
    """Return the address by which SQLAlchemy, and with it MLflow and Optuna, opens a sqlite file.

    Raises:
        AddressInvalid: the path is not UTF-8, and no address can name it.
    """
    try:
        address = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    except UnicodeEncodeError:
        name = ascii(str(path))
        raise AddressInvalid(f"no address can name {name}: the name of a folder is not UTF-8. Rename it") from None
    # MLflow makes the folders of a `sqlite:` address as they are written, %20 and all; of this spelling it makes none.
    return address.replace("sqlite:", "sqlite+pysqlite:", 1) if "%" in address else address


def sqlite_path(url: str) -> Path | None:
    """Return the file that an address names, or None for another kind of store.

    Raises:
        AddressInvalid: a `?` of a folder's name is not escaped.
    """
    address = _parsed(url) if _SQLITE.match(url) else None
    if address is None or address.database in (None, "", _IN_MEMORY) or "uri" in address.query:
        return None
    settings = url.partition("?")[2]
    if "?" in url and (not address.query or "/" in settings):
        raise AddressInvalid(f"{url} names the file {address.database}; write a ? of a folder's name as %3F")
    return Path(str(address.database))


def absolute(url: str) -> str:
    """Return an address whose sqlite file, where it names one, is named from the root; its settings stay."""
    path = sqlite_path(url)
    if path is None:
        return url
    _, mark, settings = url.partition("?")
    return f"{sqlite_address(path.resolve())}{mark}{settings}"


def folder_address(folder: Path) -> str:
    """Return a folder as MLflow takes it: its path, or its address where the path would be read as another's."""
    return folder.as_uri() if _MISREAD & {*str(folder)} else str(folder)


def _parsed(url: str) -> URL | None:
    try:
        return make_url(url)
    except ArgumentError:
        return None
    except ValueError:  # of a port, or of a password that is taken for one
        raise AddressInvalid(f"{without_password(url)} cannot be read as an address; {ESCAPES}") from None


def is_postgresql(url: str) -> bool:
    return bool(re.match(r"postgres(ql)?(\+\w+)?://", url))


def with_driver(url: str) -> str:
    """Return an address that SQLAlchemy opens with psycopg 3 where it names PostgreSQL and no driver.

    Raises:
        AddressInvalid: it cannot be read; its password is not shown.
    """
    _parsed(url)
    return _BARE.sub("postgresql+psycopg://", url)


def check_database(url: str) -> None:
    """See that an address can be one of a database that is kept, and that its driver is installed.

    Raises:
        AddressInvalid: it cannot; its password is not shown.
    """
    address, shown = _parsed(url), _without_secrets(url)
    if address is None:
        raise AddressInvalid(f"{shown!r} is no address of a database; {DATABASES}")
    kind = address.get_backend_name()
    if kind == "sqlite" and address.database in (None, "", _IN_MEMORY):
        raise AddressInvalid(f"{shown} names no file, and what is kept in memory is gone at the end; {DATABASES}")
    if kind != "sqlite" and not (address.host or address.database or address.query):
        raise AddressInvalid(f"{shown} names neither a host nor a database; {DATABASES}")
    try:
        make_url(with_driver(url)).get_dialect().import_dbapi()
    except NoSuchModuleError:
        raise AddressInvalid(f"{shown} is of no known kind of database; {DATABASES}") from None
    except ImportError as error:
        raise AddressInvalid(f"{shown} cannot be opened: {failure(error)}") from None


def _without_secrets(url: str) -> str:
    """Return an address without its password, also where it lacks its beginning."""
    return f"***@{url.rpartition('@')[2]}" if "@" in url and "://" not in url else without_password(url)


def connection_settings(url: str) -> dict[str, Any]:
    """Return what SQLAlchemy's engine for a server's database is to be made with."""
    return {"pool_pre_ping": True, **({"connect_args": dict(CONNECTING)} if is_postgresql(url) else {})}


def check_answers(url: str) -> None:
    """Connect to the server of a database once; for a sqlite file, and what is no database, nothing is done.

    Raises:
        SQLAlchemyError, ImportError, OSError: it does not answer, and why.
    """
    if not re.match(r"(postgres(ql)?|mysql|mssql)(\+\w+)?://", url):
        return
    arguments = dict(CONNECTING) if is_postgresql(url) else {}
    engine = create_engine(with_driver(url), poolclass=NullPool, connect_args=arguments)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def without_password(text: str) -> str:
    """Return an address, or a word of a command with one, without its password or token."""
    return _SECRET_SETTING.sub(r"\1***", _PASSWORD.sub(r"\1:***@", _TOKEN.sub(r"\1***@", text)))


def failure(error: BaseException) -> str:
    """Return in one line what failed, or how to install the driver that is missing."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__
    if isinstance(cause, ModuleNotFoundError):
        extra = '; for PostgreSQL: pip install "psycopg[binary]"' if "psycopg" in str(cause.name) else ""
        return f"its driver {cause.name!r} is not installed{extra}"
    return f"{type(error).__name__}: {said_by(error) or 'no reason given'}"


def said_by(error: BaseException) -> str:
    """Return the line of an error that says why; SQLAlchemy puts one before it where it was writing by itself."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return lines[0] if lines else ""
