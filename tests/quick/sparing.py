"""Spares processes what costs them most and is not their test's subject: figures, and a compiler nobody uses.

Figures become files of a few bytes. torch keeps its compiler away from its own functions and optimizers' steps, and
imports all of it for that, which takes longer than importing torch; here it takes these functions as they are. Optuna
and MLflow read the revisions of their tables, a module each, whenever they open a database; here they do once. Runs
are recorded by no process of its own, unless RECORDED_BESIDE is in the environment. A spawned process ends at once.
Commits wait for no disk, which takes 10 ms each.
"""

import atexit
import os
import struct
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

RECORDED_BESIDE = "RECORDED_BESIDE"


def png() -> bytes:
    """Return a picture of one white pixel: MLflow reads the figure that it is given to show."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"\0\xff"), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def undraw(drawing: ModuleType) -> None:
    """Have figures written as files of a few bytes."""

    def save(_figure: Any, path: Path) -> None:
        path.write_bytes(png() if path.suffix == ".png" else b"<svg/>")

    def write_confusion(path: Path, *_: Any, **__: Any) -> None:
        save(None, path)

    vars(drawing).update(save=save, write_confusion=write_confusion)


def uncompile(module: ModuleType) -> None:
    """Have torch's functions left as they are that its compiler would be kept away from."""
    vars(module).update(_disable_dynamo=lambda function=None, recursive=True: function or (lambda same: same))


def uncompile_steps(module: ModuleType) -> None:
    """Have optimizers take their steps without telling torch's compiler that it ends there."""

    def use_grad_for_differentiable(step: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(step)
        def taken(optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            with module.torch.set_grad_enabled(optimizer.defaults["differentiable"]):
                return step(optimizer, *args, **kwargs)

        return taken

    vars(module).update(_use_grad_for_differentiable=use_grad_for_differentiable)


def remember_revisions(module: ModuleType) -> None:
    """Have Optuna read the revisions of its tables once."""
    read = module._VersionManager._create_alembic_script
    found: list[Any] = []

    def remembered(versions: Any) -> Any:
        if not found:
            found.append(read(versions))
        return found[0]

    module._VersionManager._create_alembic_script = remembered


def remember_latest_revision(module: ModuleType) -> None:
    """Have MLflow look for the latest revision of its tables once."""
    vars(module).update(_get_latest_schema_revision=cache(module._get_latest_schema_revision))


def leave_writing_to_the_system(module: ModuleType) -> None:
    """Have sqlite not wait for the disk: what is committed outlives a process that is killed all the same."""
    dialect = module.SQLiteDialect_pysqlite
    begun_by = dialect.on_connect

    def on_connect(self: Any) -> Callable[[Any], None]:
        begin = begun_by(self)

        def begin_and_leave(connection: Any) -> None:
            if begin is not None:
                begin(connection)
            # It is locked, cannot be read, or is none: what opens it says so.
            with suppress(module.SQLiteDialect_pysqlite.import_dbapi().DatabaseError):
                connection.execute("PRAGMA synchronous = OFF")

        return begin_and_leave

    dialect.on_connect = on_connect


def record_in_a_thread(module: ModuleType) -> None:
    """Have runs recorded by a thread of the coordinator: a process imports MLflow first, for two seconds of a core."""
    beside = module.MlflowTracker.elsewhere
    module.MlflowTracker.elsewhere = lambda tracker: beside(tracker) if os.environ.get(RECORDED_BESIDE) else None


def end_at_once(module: ModuleType) -> None:
    """Have a spawned process end without taking apart what it imported, which takes it most of a second."""
    main = module.spawn_main

    def spawn_main(*given: Any, **more: Any) -> None:
        try:
            main(*given, **more)
        except SystemExit as ended:  # threads have been waited for, and what was printed is written
            atexit._run_exitfuncs()
            os._exit(int(ended.code or 0) & 0xFF)

    module.spawn_main = spawn_main


Change = Callable[[ModuleType], None]
DATABASES: Mapping[str, Change] = {
    "optuna.storages._rdb.storage": remember_revisions,
    "mlflow.store.db.utils": remember_latest_revision,
    "sqlalchemy.dialects.sqlite.pysqlite": leave_writing_to_the_system,
}
UPLOADS: Mapping[str, Change] = {"ablation.tracking.mlflow.tracker": record_in_a_thread}
ALL: Mapping[str, Change] = {
    "ablation.drawing": undraw,
    "torch._compile": uncompile,
    "torch.optim.optimizer": uncompile_steps,
    "multiprocessing.spawn": end_at_once,
    **DATABASES,
    **UPLOADS,
}


class Changing(MetaPathFinder):
    """Changes each of some modules when it has been imported."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = dict(changes)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        change = self._changes.pop(name, None)
        spec = find_spec(name) if change is not None else None
        if change is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def spare(changes: Mapping[str, Change]) -> None:
    sys.meta_path.insert(0, Changing(changes))
