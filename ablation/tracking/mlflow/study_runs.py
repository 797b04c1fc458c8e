"""The one MLflow run that stands for a study: found, read, made, renamed as the study grows."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ablation.errors import AblationError, ArtifactsUnreachable, PlanUnreadable, StudyLocked
from ablation.records import Plan, Spending, recordable_text
from ablation.storage.databases import without_password
from ablation.storage.holder import Holder
from ablation.study.plan_json import plan_from_json
from ablation.tracking.interface import StudyRecord, StudyStatus
from ablation.tracking.mlflow.attempts import KIND, STUDY, shortened, source_tags, whole_name
from ablation.tracking.mlflow.launches import launch_run, why_foreign
from ablation.tracking.mlflow.reading import (
    HEADLINE,
    HOLDER,
    SPENDING,
    Artifacts,
    holder_of,
    local_folder,
    quoted,
    search_runs,
)
from ablation.tracking.mlflow.store import Store

PLAN_FILE = "plan.json"
PLANNED = "ablation.locked_hash"
"""Tag of a study run, and of its runs: the hash of the locked part. A study run with it has had a plan."""
MAX_PLAN = 256 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRuns:
    """The study runs of a store; `launch_run_id` is the run that `mlflow run` made for this execution."""

    store: Store
    launch_run_id: str | None = None

    def find(self, name: str, experiment_ids: list[str]) -> Run | None:
        """Return the study run of that name, the latest where several experiments have one."""
        if recordable_text(name) != name:
            return None  # no database takes it, so none has it
        query = f"tags.`ablation.kind` = 'study' and tags.`ablation.study` = {quoted(name)}"
        runs = list(search_runs(self.store.client, experiment_ids, query))
        return max(runs, key=lambda run: (run.info.start_time or 0, run.info.run_id)) if runs else None

    def record(self, run: Run) -> StudyRecord | None:
        """Return the record of a study run, None where it has no plan: its execution ended before it wrote one."""
        text, failure = Artifacts(tracking_uri=self.store.tracking_uri).read(run, PLAN_FILE, limit=MAX_PLAN)
        study, place = str(run.data.tags.get(STUDY)), without_password(run.info.artifact_uri)
        if text is None and failure and not failure.startswith(f"{PLAN_FILE} is damaged"):
            raise self._unreachable(study, place, without_password(failure))
        if text is None and not failure:
            self._check_is_there(run.info.experiment_id, run)
            return None
        try:
            if text is None:
                raise ValueError(failure)
            plan = plan_from_json(text)
        except (ValueError, RecursionError) as error:
            raise PlanUnreadable(study, place, str(error) or type(error).__name__) from error
        return StudyRecord(
            study_run_id=run.info.run_id,
            experiment_id=run.info.experiment_id,
            plan=plan,
            status=cast("StudyStatus", run.info.status),
            spending=Spending.from_json(run.data.tags.get(SPENDING, "")),
            has_answers=HEADLINE in run.data.tags,
        )

    def _check_is_there(self, experiment_id: str, run: Run) -> None:
        """See that an experiment's folder on this machine is there, where a study run has had a plan in it.

        Raises:
            ArtifactsUnreachable: it is not: it was moved, or is another machine's.
        """
        location = self.store.client.get_experiment(experiment_id).artifact_location
        folder = local_folder(location)
        if folder is None or folder.exists() or PLANNED not in run.data.tags:
            return
        missing = next(path for path in (*reversed(folder.parents), folder) if not path.exists())
        raise self._unreachable(str(run.data.tags.get(STUDY)), str(folder), f"there is no {missing}", missing=missing)

    def _unreachable(self, study: str, place: str, reason: str, *, missing: Path | None = None) -> ArtifactsUnreachable:
        is_served = self.store.tracking_uri.startswith("http")
        return ArtifactsUnreachable(study, place, reason, missing=missing, is_served=is_served)

    def make(self, plan: Plan, launch: Run | None, holder: Holder | None) -> Run:
        """Make the study run, or make the run that `mlflow run` created it; held from its first moment."""
        tags = {KIND: "study", STUDY: plan.name, **({HOLDER: holder.to_json()} if holder is not None else {})}
        if launch is None or KIND in launch.data.tags:
            experiment_id = self._experiment_for(plan)
            for other in search_runs(self.store.client, [experiment_id], "tags.`ablation.kind` = 'study'"):
                self._check_is_there(experiment_id, other)  # else a folder would be made where another one was
            run = self.store.client.create_run(experiment_id, run_name=plan.name, tags={**source_tags(), **tags})
        else:
            self.store.tag(launch.info.run_id, tags)
            self.store.client.update_run(launch.info.run_id, name=plan.name)
            run = self.store.client.get_run(launch.info.run_id)
        self.store.attempts.take_over(run.info.experiment_id, plan.name, run.info.run_id, holder)
        return run

    def _experiment_for(self, plan: Plan) -> str:
        if self.store.experiment_id is not None:
            return self.store.experiment_id
        name = self.store.experiment_name or plan.name
        experiment = self.store.client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self.store.client.create_experiment(name))
            except MlflowException:  # another process may have made it since
                experiment = self.store.client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            message = (
                f"the experiment {name!r} is in MLflow's trash: restore it there, begin the study anew in it with "
                "--fresh, or give the study another name with --name"
            )
            raise AblationError(message)
        return str(experiment.experiment_id)

    def launched(self, study: str) -> Run | None:
        """Return the run that `mlflow run` made for this command, where it has something to do with the study."""
        launch = launch_run(self.store.client, self.launch_run_id) if self.launch_run_id is not None else None
        return launch if launch is not None and why_foreign(launch, study) is None else None

    def link_launched(self, plan: Plan, study_run: Run, launch: Run) -> None:
        tags = {KIND: "launch", STUDY: plan.name, "ablation.study_run": study_run.info.run_id}
        self.store.tag(launch.info.run_id, tags)
        self.store.client.update_run(launch.info.run_id, name=f"{plan.name} (again)")

    def rename_grown(self, study_run: Run, plan: Plan) -> None:
        """Give runs the variant's present name: it changes when a factor is added to the study."""
        planned = {run.identity: run for run in plan.runs_to_train()}
        query = f"tags.`mlflow.parentRunId` = '{study_run.info.run_id}'"
        for run in search_runs(self.store.client, [study_run.info.experiment_id], query):
            now = planned.get(run.data.tags.get("ablation.identity", ""))
            if now is not None and run.data.tags.get("ablation.variant") != now.variant:
                self.store.tag(run.info.run_id, {"ablation.variant": now.variant, **whole_name(now.name)})
                self.store.client.update_run(run.info.run_id, name=shortened(now.name))


def check_held_by(run: Run, holder: Holder | None, study: str) -> None:
    found = holder_of(run)
    if holder is not None and found is not None and found.nonce != holder.nonce:
        raise StudyLocked(study, str(found))


def is_linked(launch: Run) -> bool:
    return KIND in launch.data.tags
