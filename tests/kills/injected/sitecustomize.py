"""Counts what a process changes in a study's folder and in its databases, and kills it at a chosen one of these.

Python imports this before anything else wherever this folder is on PYTHONPATH, in spawned workers too. KILLS says in
JSON what to do (see `Orders` in kill_injection). An operation is named by its kind, its file and who asks for it in
the product: three frames, innermost first. It is noted in a log before it is done. A kill comes before the operation,
after it, or amid the writing of a file, of which the half stays then.
"""

# At every file operation pathlib would cost more than what is watched.
# ruff: noqa: PTH109, PTH110, PTH115, PTH116

import builtins
import json
import multiprocessing.spawn
import os
import re
import shutil  # decides at its import whether the functions below can be used; they are wrapped later
import signal
import sqlite3
import sqlite3.dbapi2
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sparing

assert shutil is not None
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
BUFFER = 8192
"""Bytes that Python hands to the system at a time: a file is cut off at a multiple."""
SCHEMA = re.compile(r"\s*(create|alter|drop)\b", re.IGNORECASE)
"""Statements that Python's sqlite3 commits by themselves."""
CALLERS = 3
PATHS = {"os.mkdir": 0, "os.rmdir": 0, "os.remove": 0, "os.rename": 1, "os.link": 1, "os.symlink": 1, "os.truncate": 0}
FOLDERS = {"os.mkdir": 2, "os.rmdir": 1, "os.remove": 1, "os.rename": 3, "os.link": 3, "os.symlink": 2}
"""By audit event, which argument is the path that is changed, and which the open folder that it is taken from."""


class Watch:
    """What this process has changed, and what it is killed at; nothing before it has orders."""

    def __init__(self) -> None:
        self._below, self._product, self._role = "\0", "\0", ""
        self._kills: dict[tuple[str, int], tuple[int, str]] = {}
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._due = threading.local()

    def obey(self, orders: dict[str, Any], role: str) -> None:
        self._kills = {
            (kill["site"], kill["occurrence"]): (number, kill["moment"])
            for number, kill in enumerate(orders["kills"])
            if kill["role"] == role
        }
        self._role, self._control, self._product = role, Path(orders["control"]), orders["product"]
        log = self._control / f"operations-{role}-{os.getpid()}.txt"
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._below = orders["below"]

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of an operation that Python announces; most events are none."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITING:
                self.begins("open", self._whole(path, None))
        elif event in PATHS:
            folder = arguments[FOLDERS[event]] if event in FOLDERS else None
            self.begins(event.removeprefix("os."), self._whole(arguments[PATHS[event]], folder))

    def begins(self, kind: str, path: str | None) -> None:
        """An operation on a path begins; nothing where that is elsewhere."""
        if path is None:
            return
        self.is_done(was_amid=True)
        callers, lines, near = self._callers()
        site = f"{kind} {self._name(path)} by {callers}"
        with self._lock:
            self._counts[site] += 1
            occurrence = self._counts[site]
        os.write(self._log, f"{site}\t{occurrence}\t{lines}\t{near}\t{path}\n".encode())
        number, moment = self._kills.get((site, occurrence), (None, None))
        if number is None or not self._takes(number):
            return
        story = f"{self._role}\t{site}\t{lines}"
        if moment == "before":
            self._kill(number, story)
        size = os.stat(path).st_size if moment == "amid" and os.path.exists(path) else 0
        self._due.kill = (number, story, path if moment == "amid" else None, size)

    def is_done(self, *, was_amid: bool = False) -> None:
        """The operation that this thread began last is done; or, `was_amid`, the file that it opened is written."""
        if (due := getattr(self._due, "kill", None)) is None:
            return
        number, story, path, size = due
        if path is not None and not was_amid:
            return
        self._due.kill = None
        if path is not None and os.path.exists(path):
            end = os.stat(path).st_size
            start = size if end > size else 0
            os.truncate(path, start + (end - start) // 2 // BUFFER * BUFFER)
        self._kill(number, story)

    def _takes(self, number: int) -> bool:
        """Say whether this process is to be killed by an order: one is, of those that come to the operation."""
        try:
            os.close(os.open(self._control / f"taken-{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        return True

    def _kill(self, number: int, story: str) -> None:
        file = os.open(self._control / f"killed-{number}.txt", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(file, story.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    def _whole(self, path: Any, folder: Any) -> str | None:
        """Return an absolute path where it lies in the study's folder."""
        if isinstance(path, int) or path in ("", ":memory:"):
            return None
        text = os.fsdecode(path)
        if not text.startswith("/"):
            base = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else os.getcwd()
            text = os.path.normpath(f"{base}/{text}")
        return text if text.startswith(self._below) else None

    def _name(self, path: str) -> str:
        """Return a path as it is the same in every execution: no identity, process or chance in it."""
        name = path.removeprefix(self._below)
        if name.endswith((".pdf", ".png", ".svg")):
            name = f"{name.rpartition('/')[0]}/FIGURE"
        name = re.sub(r"[0-9a-f]{12,}", "ID", name)
        name = re.sub(r"\btmp[a-z0-9_]{8}\b", "NAME", name)
        return re.sub(r"(?<=[-./])\d+(?=[-./]|$)", "N", name)

    def _callers(self) -> tuple[str, str, str]:
        """Return the product's innermost functions, where they are, and the module that asked outside Python's own."""
        frame, found, lines, near = sys._getframe(2), [], [], ""
        while frame is not None and len(found) < CALLERS:
            file = frame.f_code.co_filename
            if file.startswith(self._product):
                name = file.removeprefix(self._product).removesuffix(".py").replace("/", ".")
                found.append(f"{name}:{frame.f_code.co_name}")
                lines.append(f"{file.removeprefix(self._product)}:{frame.f_lineno}")
            if not near and ("/site-packages/" in file or file.startswith(self._product)):
                near = file.rpartition("/site-packages/")[2].replace(self._product, "ablation/")
            frame = frame.f_back  # type: ignore[assignment]
        return "<".join(found) or "others", " ".join(lines), near


class Wrapped:
    """A function of Python's that says when it is done; no method of a class that has it as an attribute."""

    def __init__(self, watch: Watch, function: Callable[..., Any]) -> None:
        self._watch, self._function = watch, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        returned = self._function(*args, **kwargs)
        self._watch.is_done()
        return returned


def _wrap_functions(watch: Watch) -> None:
    builtins.open = sys.modules["io"].open = Wrapped(watch, open)  # type: ignore[assignment,attr-defined]
    for name in ("open", "mkdir", "rmdir", "remove", "unlink", "rename", "replace", "link", "symlink", "truncate"):
        function = getattr(os, name)
        wrapped = Wrapped(watch, function)
        setattr(os, name, wrapped)
        for kinds in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if function in kinds:
                kinds.add(wrapped)
    _wrap_fsync(watch)


def _wrap_fsync(watch: Watch) -> None:
    """Python does not announce it."""
    fsync = os.fsync

    def watched(file: Any) -> None:
        number = file if isinstance(file, int) else file.fileno()
        watch.begins("fsync", watch._whole(os.readlink(f"/proc/self/fd/{number}"), None))
        fsync(file)
        watch.is_done()

    os.fsync = watched


def _wrap_databases(watch: Watch) -> None:
    """Take note of commits, and of the statements that make tables, which are committed by themselves."""
    plain_connect = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *args: Any) -> Any:
            if self.connection.in_transaction or not SCHEMA.match(statement):
                return super().execute(statement, *args)
            watch.begins(f"commit {statement.split()[0].lower()}", self.connection.path)  # type: ignore[attr-defined]
            returned = super().execute(statement, *args)
            watch.is_done()
            return returned

    class Connection(sqlite3.Connection):
        def __init__(self, database: Any, *args: Any, **kwargs: Any) -> None:
            self.path = watch._whole(database, None)
            super().__init__(database, *args, **kwargs)

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def commit(self) -> None:
            if not self.in_transaction:
                return super().commit()
            watch.begins("commit", self.path)
            super().commit()
            return watch.is_done()

    def connect(database: Any, *args: Any, **kwargs: Any) -> Any:
        return plain_connect(database, *args, **({"factory": Connection} | kwargs))

    for module in (sqlite3, sqlite3.dbapi2):
        module.Connection = Connection  # type: ignore[misc]
        module.connect = connect


def _role() -> str | None:
    """Return what this process is of the command, None where it is something that one of its processes has started."""
    if "--multiprocessing-fork" in sys.orig_argv:
        return "worker"
    return "coordinator" if "ablation" in sys.orig_argv[1:3] else None


def begin() -> None:
    """Take the orders of the environment, where there are any for this process."""
    orders, role = os.environ.get("KILLS"), _role()
    if orders and role == "worker":
        _obey_once_named(json.loads(orders))
    elif orders and role:
        watch.obey(json.loads(orders), role)


def _obey_once_named(orders: dict[str, Any]) -> None:
    """Take orders as a worker, or as what records runs: a spawned process gets its name before it does anything."""
    prepare = multiprocessing.spawn.prepare

    def prepare_and_obey(data: dict[str, Any]) -> None:
        prepare(data)
        watch.obey(orders, "uploads" if data["name"] == "uploads" else "worker")

    multiprocessing.spawn.prepare = prepare_and_obey


sparing.spare(sparing.ALL)
watch = Watch()
if "KILLS" in os.environ:
    _wrap_functions(watch)
    _wrap_databases(watch)
    sys.addaudithook(watch.audit)
    begin()
