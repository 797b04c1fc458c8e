"""Keeps the MLflow runs that the user's code starts apart from the study's, and from each other.

MLflow's `start_run` takes up the run that MLFLOW_RUN_ID names, which `mlflow run` made and which may be the study run,
and refuses to start one where an earlier call has left one active.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Literal

RUN_ID = "MLFLOW_RUN_ID"


@contextlib.contextmanager
def own_mlflow_runs() -> Iterator[None]:
    """Run the user's code without an active run and without the run that this process was launched in.

    What it leaves active is ended, as finished, or failed where it raised.
    """
    launched_in = os.environ.pop(RUN_ID, None)
    _end_active_runs("FINISHED")
    status: Literal["FINISHED", "FAILED"] = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        _end_active_runs(status)
        if launched_in is not None:
            os.environ[RUN_ID] = launched_in


def _end_active_runs(status: Literal["FINISHED", "FAILED"]) -> None:
    mlflow = sys.modules.get("mlflow")  # not imported for this: who has an active run has imported it
    active_run = getattr(mlflow, "active_run", None)
    while active_run is not None and active_run() is not None:
        with contextlib.suppress(Exception):  # its store is the user's; the run is not active any more all the same
            sys.modules["mlflow"].end_run(status)
