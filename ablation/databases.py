"""Reads the addresses of databases: their kind, with which driver and settings to connect, how to show them."""

import re
from typing import Any

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

_BARE = re.compile(r"^postgres(ql)?://")


def is_postgresql(url: str) -> bool:
    return bool(re.match(r"postgres(ql)?(\+\w+)?://", url))


def with_driver(url: str) -> str:
    """Return an address that SQLAlchemy opens with psycopg 3 where it names PostgreSQL and no driver."""
    return _BARE.sub("postgresql+psycopg://", url)


def connection_settings(url: str) -> dict[str, Any]:
    """Return what SQLAlchemy's engine for a server's database is to be made with."""
    return {"pool_pre_ping": True, **({"connect_args": dict(CONNECTING)} if is_postgresql(url) else {})}


def without_password(url: str) -> str:
    hidden = re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", hidden)


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
