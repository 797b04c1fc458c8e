"""Starts processes that do not run the program's main module again, as Python's own do.

A script that runs a study, and has no `if __name__ == "__main__"`, would be run again by each worker, and so run the
study again; what Python reads from a pipe has no file to be run again. Jobs name nothing of the main module.
"""

import multiprocessing.context
import multiprocessing.process
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("__spec__", "__file__")
_hiding = threading.Lock()


class SpawnedProcess(multiprocessing.context.SpawnProcess):
    """A spawned process that leaves the main module alone."""

    def start(self) -> None:
        self.daemon = False  # as a daemon it could start none itself, and a job may
        with _hiding, _hidden_main(), _allowed():
            super().start()


class SpawnedContext(multiprocessing.context.SpawnContext):
    """What makes such processes, and queues between them."""

    Process = SpawnedProcess


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Let the main module seem to come from nowhere: `multiprocessing.spawn` reads its spec and its file."""
    main = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main[name] for name in NAMES if name in main}
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(kept)


@contextmanager
def _allowed() -> Iterator[None]:
    """Let this process start others also where it is a daemon, as dask's workers are: ours see when it is gone."""
    configuration: dict[str, Any] = vars(multiprocessing.process.current_process())["_config"]
    daemon = configuration.pop("daemon", None)
    try:
        yield
    finally:
        if daemon is not None:
            configuration["daemon"] = daemon
