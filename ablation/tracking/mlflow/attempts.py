"""Finds the MLflow runs of planned runs and makes those that are missing: one for each, whatever was lost."""

import getpass
from collections.abc import Mapping, Sequence

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient

from ablation.records import PlannedRun
from ablation.storage.holder import Holder
from ablation.tracking.interface import StudyRecord
from ablation.tracking.mlflow.reading import (
    ATTEMPT,
    IDENTITY,
    NAME,
    OUTCOME,
    SOURCE_NAME,
    TUNING,
    TUNING_TRIAL,
    best_record,
    children_of,
    holder_of,
    quoted,
    search_runs,
)

KIND, STUDY, PARENT = "ablation.kind", "ablation.study", "mlflow.parentRunId"
MAX_RUN_NAME = 250
"""Characters of a run's name that every database of MLflow's takes."""


class Attempts:
    """The runs of studies by what they are the record of, looked up once, as that costs as much as making a run."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._known: dict[str, dict[str, dict[str, str]]] = {}
        """By parent run, key and attempt: the run's ID."""
        self._deleted: dict[str, bool] = {}

    def forget(self) -> None:
        """Look again: something has failed, and may have been done."""
        self._known.clear()
        self._deleted.clear()

    def reconcile(self, record: StudyRecord) -> None:
        """Mark runs that are RUNNING as KILLED, and remove second records of one run; nobody else runs the study."""
        self.forget()
        runs = children_of(self._client, record)
        if parent := self._find_tuning_parent(record):
            runs += children_of(self._client, record, parent=parent)
        doubles = _doubles([run for run in runs if run.data.tags.get(KIND) in ("run", TUNING_TRIAL)])
        for run in runs:
            if run.info.run_id in doubles:
                self._client.delete_run(run.info.run_id)
            elif run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")

    def take_over(self, experiment_id: str, study: str, study_run_id: str, holder: Holder | None) -> None:
        """Put the runs of a study whose study run was deleted while the study ran under the one that it has now.

        It ran where this holder held it, or another had said so within the last minutes. A study run that was deleted
        when nothing was under way is a deletion: its runs stay as they are.
        """
        query = f"tags.`{STUDY}` = {quoted(study)} and tags.`{KIND}` != 'study'"
        for run in list(search_runs(self._client, [experiment_id], query)):
            parent = run.data.tags.get(PARENT)
            if parent is not None and parent != study_run_id and self._was_deleted_under_way(parent, holder):
                log_batch(self._client, run.info.run_id, tags={PARENT: study_run_id})

    def _was_deleted_under_way(self, run_id: str, holder: Holder | None) -> bool:
        if run_id not in self._deleted:
            run = self._run(run_id)
            held_by = holder_of(run) if run is not None and run.info.lifecycle_stage == "deleted" else None
            is_ours = held_by is not None and holder is not None and held_by.nonce == holder.nonce
            is_under_way = held_by is not None and (is_ours or held_by.is_fresh())
            self._deleted[run_id] = is_under_way
        return self._deleted[run_id]

    def _run(self, run_id: str) -> Run | None:
        """Return a run, None where it is gone for good."""
        try:
            return self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise

    def start(
        self, record: StudyRecord, parent: str, planned: PlannedRun, about: Mapping[str, str], attempt: str
    ) -> str:
        """Return the run of this attempt, taken up or made; those of other attempts are removed."""
        attempts = self._attempts(record, parent).setdefault(about.get(IDENTITY, planned.name), {})
        for earlier in [other for other in attempts if other != attempt]:
            self._client.delete_run(attempts.pop(earlier))
        if attempt in attempts:
            log_batch(self._client, attempts[attempt], tags=about)
            self._client.update_run(attempts[attempt], status="RUNNING")
            return attempts[attempt]
        tags_of_new = {
            PARENT: parent,
            **source_tags(),
            **about,
            STUDY: record.plan.name,
            ATTEMPT: attempt,
            **whole_name(planned.name),
        }
        run = self._client.create_run(record.experiment_id, run_name=shortened(planned.name), tags=tags_of_new)
        attempts[attempt] = str(run.info.run_id)
        return attempts[attempt]

    def tuning_parent(self, record: StudyRecord) -> str:
        """Return the run under which a study's tuning is kept, a child of the study run; it is made where absent."""
        if found := self._find_tuning_parent(record):
            return found
        tags = {
            PARENT: record.study_run_id,
            **source_tags(),
            KIND: TUNING,
            STUDY: record.plan.name,
        }
        run = self._client.create_run(record.experiment_id, run_name=f"{record.plan.name}: tuning", tags=tags)
        self._client.set_terminated(run.info.run_id, "FINISHED")
        return str(run.info.run_id)

    def _find_tuning_parent(self, record: StudyRecord) -> str | None:
        found = children_of(self._client, record, f"tags.`ablation.kind` = '{TUNING}'")
        return str(found[0].info.run_id) if found else None

    def _attempts(self, record: StudyRecord, parent: str) -> dict[str, dict[str, str]]:
        if parent not in self._known:
            found: dict[str, dict[str, str]] = {}
            for run in children_of(self._client, record, parent=parent):
                attempt = run.data.tags.get(ATTEMPT, run.info.run_id)
                found.setdefault(_key(run), {})[attempt] = run.info.run_id
            self._known[parent] = found
        return self._known[parent]


def _doubles(runs: Sequence[Run]) -> set[str]:
    """Return the IDs of runs that are other records of what has ended: unfinished ones, and all ended but the first."""
    by_key: dict[str, list[Run]] = {}
    for run in runs:
        by_key.setdefault(_key(run), []).append(run)
    groups = [group for group in by_key.values() if any(OUTCOME in run.data.tags for run in group)]
    kept = {best_record(group).info.run_id for group in groups}
    return {run.info.run_id for group in groups for run in group} - kept


def _key(run: Run) -> str:
    """Return what a run is the record of: an identity, or a replicate of a tuning trial by its name."""
    return str(run.data.tags.get(IDENTITY) or run.data.tags.get(NAME) or run.info.run_name)


def shortened(name: str) -> str:
    """Return a run's name as every store takes it."""
    return name if len(name) <= MAX_RUN_NAME else f"{name[: MAX_RUN_NAME - 1]}…"


def whole_name(name: str) -> dict[str, str]:
    """Return the tag that keeps a run's name where that is cut; none where it is whole."""
    return {NAME: name} if len(name) > MAX_RUN_NAME else {}


def log_batch(
    client: MlflowClient,
    run_id: str,
    *,
    metrics: Sequence[Metric] = (),
    params: Sequence[Param] = (),
    tags: Mapping[str, str] | None = None,
) -> None:
    """Record what belongs to a run and fail where that fails, which MLFLOW_ENABLE_ASYNC_LOGGING would hide."""
    made = [RunTag(key, value) for key, value in (tags or {}).items()]
    client.log_batch(run_id, metrics=metrics, params=params, tags=made, synchronous=True)


def source_tags() -> dict[str, str]:
    """Return what MLflow's own client would say of who started a run, and how."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": SOURCE_NAME, "mlflow.source.type": "LOCAL"}
