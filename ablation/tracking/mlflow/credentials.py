"""Takes names and passwords off the addresses of servers: for MLflow to send, and for nobody to see."""

import base64
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

from ablation.errors import AddressInvalid
from ablation.storage.databases import DATABASES, ESCAPES, check_database, with_driver

_DATABASES = frozenset({"sqlite", "postgresql", "postgres", "mysql", "mssql"})
_WORDS = frozenset({"databricks", "databricks-uc", "uc"})
"""What MLflow takes for an address though it is one word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who asks a server: a name and its password, or a token where there is no password."""

    name: str = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def parsed(cls, text: str) -> Self:
        """Read the part of an address before its `@`.

        Raises:
            ValueError: it cannot be sent.
        """
        name, _, password = (unquote(part, errors="strict") for part in text.partition(":"))
        if any(unicodedata.category(char) == "Cc" for char in name + password) or not name:
            raise ValueError(text)
        if not password and not name.isascii():
            raise ValueError(text)
        return cls(name=name, password=password)

    @property
    def settings(self) -> Mapping[str, str]:
        """What MLflow's client takes from the environment; an empty one is none."""
        return {
            "MLFLOW_TRACKING_USERNAME": self.name if self.password else "",
            "MLFLOW_TRACKING_PASSWORD": self.password,
            "MLFLOW_TRACKING_TOKEN": "" if self.password else self.name,
        }

    @property
    def header(self) -> str:
        """What a request of our own says, as MLflow's do."""
        if not self.password:
            return f"Bearer {self.name}"
        return f"Basic {base64.b64encode(f'{self.name}:{self.password}'.encode()).decode()}"


def check_store(address: str) -> None:
    """See that an address can be one of an MLflow store; those of other kinds than ours are left to MLflow.

    Raises:
        AddressInvalid: it cannot, or its driver is not installed; its password is not shown.
    """
    without_credentials(address)
    scheme, has_scheme, rest = address.partition("://")
    if scheme.lower() in ("http", "https"):
        if not rest.strip("/"):
            raise AddressInvalid(f"{address} names no host; write http://HOST:5000")
    elif scheme.partition("+")[0] in _DATABASES and has_scheme:
        check_database(address)
    elif not has_scheme and scheme not in _WORDS and not Path(address).is_dir():
        raise AddressInvalid(f"{address!r} is no address of an MLflow store; {DATABASES}, or http://HOST:5000")


def without_credentials(address: str) -> tuple[str, Credentials | None]:
    """Return an address that names nobody, and who asks where it says so; that of a database stays as it is.

    Raises:
        AddressInvalid: it cannot be read, or says what cannot be sent; its password is not shown.
    """
    if "@" in address and "://" not in address:
        shown = f"***@{address.rpartition('@')[2]}"
        raise AddressInvalid(
            f"{shown} is no address: it begins with http://, https:// or the kind of a database, as sqlite:///"
        )
    if not re.match("https?://", address, re.IGNORECASE):
        with_driver(address)
        return address, None
    try:
        parts = urlsplit(address)
        said, _, host = parts.netloc.rpartition("@")
        _ = parts.port, parts.hostname
        if "@" in parts.path:  # a password with a / in it, and no host of the user's
            raise ValueError(address)
        credentials = Credentials.parsed(said) if said else None
    except ValueError:
        scheme, _, rest = address.partition("://")
        shown = f"{scheme}://***@{rest.rpartition('@')[2]}" if "@" in rest else address
        raise AddressInvalid(f"{shown} cannot be read as an address; {ESCAPES}") from None
    return urlunsplit(parts._replace(netloc=host)), credentials
