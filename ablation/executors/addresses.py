"""Where an engine's scheduler is: reads the file or address that a user names, and refuses what anybody could reach."""

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from ablation.errors import ClusterInvalid, NetworkOpen

SECURE = "tls"
SCHEMES = ("tcp", SECURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a scheduler is found, as the user wrote it: its address, or the file in which it writes that.

    `is_open` accepts a network in which others may reach it without a certificate.

    Raises:
        ClusterInvalid: it is neither a file nor an address.
        NetworkOpen: others may reach the address, and that was not accepted.
    """

    text: str
    is_open: bool = False

    def __post_init__(self) -> None:
        if not self.text:
            raise ClusterInvalid(self.text, "it is empty")
        if self._is_address:
            check_network(self.text, is_open=self.is_open)
        elif _is_host_and_port(self.text) and not self.file.exists():
            raise ClusterInvalid(self.text, f"an address begins with {' or '.join(f'{one}://' for one in SCHEMES)}")
        elif self.file.is_dir():
            raise ClusterInvalid(self.text, "it is a folder")

    @property
    def file(self) -> Path:
        return Path(self.text).expanduser()

    @property
    def _is_address(self) -> bool:
        return "://" in self.text

    def address(self) -> str | None:
        """Return the scheduler's address as it is now; None where its file is not there, or not written to its end.

        Raises:
            ClusterInvalid: the file cannot be read, or a scheduler did not write it.
            NetworkOpen: others may reach the address in it, and that was not accepted.
        """
        if self._is_address:
            return self.text
        address = self._written()
        if address is not None:
            check_network(address, is_open=self.is_open)
        return address

    def _written(self) -> str | None:
        try:
            text = self.file.read_bytes()
            written = json.loads(text)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ClusterInvalid(self.text, f"it cannot be read: {error.strerror}") from None
        except ValueError:
            if text.strip()[:1] == b"{" or not text:
                return None  # it is being written
            written = None
        address = written.get("address") if isinstance(written, dict) else None
        if not isinstance(address, str):
            raise ClusterInvalid(self.text, "no scheduler wrote that file: there is no address in it")
        return address


def check_network(address: str, *, is_open: bool) -> None:
    """See that nobody without a certificate can reach a scheduler or a worker from elsewhere, unless that is accepted.

    Raises:
        ClusterInvalid: it is no address.
        NetworkOpen: others can.
    """
    parts = _parts(address)
    if not (is_open or parts.scheme == SECURE or is_loopback(str(parts.hostname))):
        raise NetworkOpen(address)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address leads to this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        if parts.scheme in SCHEMES and parts.hostname and parts.port and not parts.path.strip("/"):
            return parts
    except ValueError:  # of a port that is none, or brackets
        pass
    raise ClusterInvalid(address, "it is no address of a scheduler")


def _is_host_and_port(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(host and colon and port.isdecimal()) and "/" not in text
