"""Decides what the run that `mlflow run` made for a command is to a study: its study run, a link to it, or nothing."""

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from ablation.errors import LaunchUnknown
from ablation.storage.databases import without_password
from ablation.tracking.mlflow.attempts import KIND, STUDY

LAUNCHED = "mlflow.project.entryPoint"
"""A tag that `mlflow run` gives the runs that it makes."""
VARIABLE = "MLFLOW_RUN_ID"


def launch_run(client: MlflowClient, run_id: str) -> Run:
    """Return the run that the environment names.

    Raises:
        LaunchUnknown: there is none.
    """
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise LaunchUnknown(VARIABLE, run_id, tracking_uri=without_password(client.tracking_uri)) from None
        raise


def why_foreign(launch: Run, study: str) -> str | None:
    """Return why a run has nothing to do with a study, None where the study may use it or does already."""
    tags = launch.data.tags
    if LAUNCHED not in tags:
        return "`mlflow run` did not make it"
    if launch.info.lifecycle_stage != "active":
        return "it was deleted"
    if KIND in tags:
        return None if tags.get(STUDY) == study else f"study {tags.get(STUDY)!r} has it already"
    if launch.info.status != "RUNNING":
        return "it has ended"
    return "something else has recorded metrics in it" if launch.data.metrics else None


def remark(launch: Run, study: str) -> str | None:
    """Say that a study does not use the run that the environment names, and why; None where it does."""
    reason = why_foreign(launch, study)
    if reason is None:
        return None
    return f"{VARIABLE} names run {launch.info.run_id}, which stays as it is: {reason}. The study has a run of its own"
