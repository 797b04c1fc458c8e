"""Remembers studies and runs: what a tracker does, whichever one it is."""

from ablation.tracking.interface import START_UI, RunDescription, RunNews, StudyRecord, StudyStatus, Tracker
from ablation.tracking.memory import MemoryTracker
from ablation.tracking.mlflow.credentials import check_store

__all__ = [
    "START_UI",
    "MemoryTracker",
    "RunDescription",
    "RunNews",
    "StudyRecord",
    "StudyStatus",
    "Tracker",
    "check_store",
    "open_mlflow",
    "store_found",
]


def open_mlflow(
    tracking_uri: str | None = None,
    *,
    launch_run_id: str | None = None,
    experiment_id: str | None = None,
    experiment_name: str | None = None,
    is_impatient: bool = False,
) -> Tracker:
    """Return the tracker of an MLflow store; see MlflowTracker. It costs MLflow's import, which is why it waits."""
    from ablation.tracking.mlflow.tracker import MlflowTracker

    return MlflowTracker.at(
        tracking_uri,
        launch_run_id=launch_run_id,
        experiment_id=experiment_id,
        experiment_name=experiment_name,
        is_impatient=is_impatient,
    )


def store_found(tracker: Tracker) -> str:
    """Return in words what a study would find in a tracker's store, having changed nothing there.

    Raises:
        TrackingUnavailable: it cannot be reached or opened.
        LockUnavailable: it is a file that cannot be made.
    """
    from ablation.tracking.mlflow.inspection import store_found
    from ablation.tracking.mlflow.tracker import MlflowTracker

    return store_found(tracker) if isinstance(tracker, MlflowTracker) else "in memory"
