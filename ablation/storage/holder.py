"""Says who runs a study, in the one form that lock files, database locks and MLflow's lease have in common."""

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

NOBODY_KNOWN = "another process"
SILENT_S = 180.0
"""Seconds after which a holder that says nothing may have gone."""
LAST_MS = 253_402_300_800_000
"""The year 10000, which no clock shows."""
_APPLICATION = re.compile(r"ablation (\d+) (\S+) (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that runs a study.

    `boot` and `pid_namespace` tell machines and containers apart whose names and process numbers are the same, empty
    where they are not known; `place` tells state folders apart. `nonce` is that of a lease, empty where a version
    before leases wrote it; `seen_ms` is when the process last said that it runs the study, by its own clock.
    """

    host: str
    pid: int
    since: str
    boot: str = ""
    pid_namespace: str = ""
    place: str = ""
    nonce: str = ""
    seen_ms: int = 0

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def is_dead(self) -> bool:
        """Whether it is known to have ended: its process numbers are this process's, and it has none of them.

        A host's name alone tells that of a version which noted nothing else.
        """
        here = this_process()
        same_numbers = (self.boot, self.pid_namespace) == (here.boot, here.pid_namespace) and bool(here.boot)
        is_of_before = not self.boot and not self.nonce and self.host == here.host
        return (same_numbers or is_of_before) and not is_alive(self.pid)

    def is_fresh(self) -> bool:
        """Whether it has said within SILENT_S that it runs the study, by the clocks of both machines."""
        return abs(time.time() - self.seen_ms / 1000) <= SILENT_S

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Holder | None":
        """Read what `to_json` gave, also of an earlier version; None where it is something else."""
        try:
            found = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        has_types = isinstance(found.pid, int) and isinstance(found.seen_ms, int) and 0 <= found.seen_ms < LAST_MS
        texts = (found.host, found.since, found.boot, found.pid_namespace, found.place, found.nonce)
        return found if has_types and all(isinstance(text, str) for text in texts) else None

    def as_application(self, longest: int) -> str:
        """Return it as a database session's name of so many bytes at most: `ablation PID HOST SINCE`."""
        start = f"ablation {self.pid} "
        host = self.host.encode("ascii", "replace").decode().replace(" ", "-")
        return f"{start}{host[: longest - len(start) - len(self.since) - 1]} {self.since}"

    @classmethod
    def of_application(cls, name: str) -> "Holder | None":
        """Read a session's name; None where it is not one of ours."""
        found = _APPLICATION.fullmatch(name)
        return cls(pid=int(found[1]), host=found[2], since=found[3]) if found is not None else None


def this_process(*, state_folder: Path | None = None, nonce: str = "", seen_ms: int = 0) -> Holder:
    """Return this process as the holder of something, with what tells its state folder from others where it has one."""
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        boot=boot,
        pid_namespace=_pid_namespace(),
        place=_place(state_folder, boot) if state_folder is not None else "",
        nonce=nonce,
        seen_ms=seen_ms,
    )


def _place(folder: Path, boot: str) -> str:
    """Return what is the same for all that see this very folder on this machine, whatever they call it."""
    found = folder.stat()
    return hashlib.sha256(f"{boot or socket.gethostname()}:{found.st_dev}:{found.st_ino}".encode()).hexdigest()[:16]


def _pid_namespace() -> str:
    with contextlib.suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
