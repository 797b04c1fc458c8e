"""Finds the MLflow runs of planned runs and makes those that are missing: one for each, whatever was lost."""

import getpass
from collections.abc import Mapping

from mlflow.entities import Run, RunTag
from mlflow.tracking import MlflowClient

from ablation.results import PlannedRun
from ablation.tracking.interface import StudyRecord
from ablation.tracking.reading import SOURCE_NAME, TUNING, TUNING_TRIAL, children_of

KIND, IDENTITY, ATTEMPT, OUTCOME = "ablation.kind", "ablation.identity", "ablation.attempt", "ablation.outcome"
"""Tags: what a run stands for, of which training it is the record, and how that ended."""


class Attempts:
    """The runs of studies by what they are the record of, looked up once, as that costs as much as making a run."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._known: dict[str, dict[str, dict[str, str]]] = {}
        """By parent run, key and attempt: the run's ID."""

    def forget(self) -> None:
        """Look again: something has failed, and may have been done."""
        self._known.clear()

    def reconcile(self, record: StudyRecord) -> None:
        """Mark runs that are RUNNING as KILLED, and remove second records of one run; nobody else runs the study."""
        self.forget()
        runs = children_of(self._client, record)
        if parent := self._find_tuning_parent(record):
            runs += children_of(self._client, record, parent=parent)
        ended = {_key(run): run for run in reversed(runs) if OUTCOME in run.data.tags}
        for run in runs:
            if run.data.tags.get(KIND) in ("run", TUNING_TRIAL) and _is_double(run, ended.get(_key(run))):
                self._client.delete_run(run.info.run_id)
            elif run.info.status == "RUNNING":
                self._client.set_terminated(run.info.run_id, "KILLED")

    def start(
        self, record: StudyRecord, parent: str, planned: PlannedRun, about: Mapping[str, str], attempt: str
    ) -> str:
        """Return the run of this attempt, taken up or made; those of other attempts are removed."""
        attempts = self._attempts(record, parent).setdefault(about.get(IDENTITY, planned.name), {})
        for earlier in [other for other in attempts if other != attempt]:
            self._client.delete_run(attempts.pop(earlier))
        if attempt in attempts:
            tags = [RunTag(key, value) for key, value in about.items()]
            self._client.log_batch(attempts[attempt], tags=tags)
            self._client.update_run(attempts[attempt], status="RUNNING")
            return attempts[attempt]
        tags_of_new = {
            "mlflow.parentRunId": parent,
            **source_tags(),
            **about,
            "ablation.study": record.plan.name,
            ATTEMPT: attempt,
        }
        run = self._client.create_run(record.experiment_id, run_name=planned.name, tags=tags_of_new)
        attempts[attempt] = str(run.info.run_id)
        return attempts[attempt]

    def tuning_parent(self, record: StudyRecord) -> str:
        """Return the run under which a study's tuning is kept, a child of the study run; it is made where absent."""
        if found := self._find_tuning_parent(record):
            return found
        tags = {
            "mlflow.parentRunId": record.study_run_id,
            **source_tags(),
            KIND: TUNING,
            "ablation.study": record.plan.name,
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


def _is_double(run: Run, ended: Run | None) -> bool:
    """Whether a run is another record of one that has ended: an unfinished one, or one made as an answer was lost."""
    if ended is None or ended.info.run_id == run.info.run_id:
        return False
    attempt = run.data.tags.get(ATTEMPT)
    return OUTCOME not in run.data.tags or (attempt is not None and attempt == ended.data.tags.get(ATTEMPT))


def _key(run: Run) -> str:
    """Return what a run is the record of: an identity, or a replicate of a tuning trial by its name."""
    return str(run.data.tags.get(IDENTITY, run.info.run_name))


def source_tags() -> dict[str, str]:
    """Return what MLflow's own client would say of who started a run, and how."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": SOURCE_NAME, "mlflow.source.type": "LOCAL"}
