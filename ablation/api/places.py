"""Finds the state folder and MLflow's store that a call works with, by its arguments or the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.api.arguments import check_kind

if TYPE_CHECKING:
    from ablation.storage.state import State
    from ablation.tracking import Tracker

STATE_DIR = "ABLATION_STATE_DIR"
TRACKING_URI = "MLFLOW_TRACKING_URI"
LAUNCH = "MLFLOW_RUN_ID"


def state_at(folder: str | os.PathLike[str] | None) -> State:
    """Return a state folder, which need not exist; by default that of the environment, or `.ablation`."""
    check_kind("state_dir", folder, is_optional=True)
    from ablation.storage.state import State

    return State(folder=Path(folder or os.environ.get(STATE_DIR) or ".ablation").resolve())


def tracker_at(tracking_uri: str | None, *, is_launched: bool = False) -> Tracker:
    """Return MLflow's tracker; with `is_launched`, it works in the run and experiment that `mlflow run` gave.

    User code does not see that run, or its own records would go into it. A call that only reads does not wait long for
    a server: nothing can be lost.

    Raises:
        ArgumentInvalid, AddressInvalid: the address cannot be one of a store.
    """
    check_kind("tracking_uri", tracking_uri, is_optional=True)
    from ablation.tracking import check_store, open_mlflow

    address = tracking_uri or os.environ.get(TRACKING_URI) or None
    if address is not None:
        check_store(address)
    return open_mlflow(
        address,
        launch_run_id=os.environ.pop(LAUNCH, None) or None if is_launched else None,
        experiment_id=os.environ.get("MLFLOW_EXPERIMENT_ID") or None if is_launched else None,
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or None if is_launched else None,
        is_impatient=not is_launched,
    )


@contextmanager
def launch_kept() -> Iterator[None]:
    """Leave this process the variable that names its run, once the study has ended."""
    launch = os.environ.get(LAUNCH)
    try:
        yield
    finally:
        if launch is not None:
            os.environ[LAUNCH] = launch
