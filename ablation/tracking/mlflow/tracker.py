"""Remembers studies in MLflow: one study run per study, a child run per planned run, found by their tags.

Runs are always named by their IDs, never through MLflow's active run: a worker that adopted MLFLOW_RUN_ID would write
into the study run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mlflow.entities import LifecycleStage, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from ablation.errors import StudyRunGone
from ablation.records import AnswerSummary, LeftOut, Plan, PlannedRun, RecordedRun, RunResult, Spending
from ablation.storage.databases import absolute
from ablation.storage.holder import Holder
from ablation.study.plan_json import plan_to_json
from ablation.tracking.interface import NO_NEWS, RunNews, StudyRecord, StudyStatus, Tracker
from ablation.tracking.mlflow.attempts import KIND, STUDY
from ablation.tracking.mlflow.credentials import without_credentials
from ablation.tracking.mlflow.launches import launch_run, remark
from ablation.tracking.mlflow.pages import Pages
from ablation.tracking.mlflow.reading import (
    HOLDER,
    IDENTITY,
    LOOK,
    NOBODY,
    ORDER,
    SPENDING,
    TUNING_TRIAL,
    Artifacts,
    holder_of,
    read_left_out,
    read_results_elsewhere,
    read_runs,
    search_runs,
)
from ablation.tracking.mlflow.run_records import RunRecords, tags_of
from ablation.tracking.mlflow.store import DEFAULT_URI, Store
from ablation.tracking.mlflow.study_runs import PLAN_FILE, PLANNED, StudyRuns, check_held_by
from ablation.tracking.mlflow.views import order_of


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """A tracker over an MLflow store, which may be given.

    `launch_run_id` is the run that `mlflow run` made for this execution: it becomes the study run where the study has
    none in that experiment, else it links to it. A study is looked for in the chosen experiment, where one is chosen,
    else in all of them.
    """

    settles_s = 1.0

    store: Store
    launch_run_id: str | None = None

    @classmethod
    def at(
        cls,
        tracking_uri: str | None,
        *,
        launch_run_id: str | None,
        experiment_id: str | None,
        experiment_name: str | None,
        is_impatient: bool = False,
    ) -> "MlflowTracker":
        """Return the tracker of a store; a relative sqlite file is taken from the working directory.

        Raises:
            AddressInvalid: the address cannot be read.
        """
        address, credentials = without_credentials(absolute(tracking_uri or DEFAULT_URI))
        store = Store(
            tracking_uri=address,
            credentials=credentials,
            experiment_id=experiment_id,
            experiment_name=experiment_name,
            is_impatient=is_impatient,
        )
        return cls(store=store, launch_run_id=launch_run_id)

    @property
    def tracking_uri(self) -> str:
        return self.store.tracking_uri

    @cached_property
    def _study_runs(self) -> StudyRuns:
        return StudyRuns(store=self.store, launch_run_id=self.launch_run_id)

    @cached_property
    def _records(self) -> RunRecords:
        return RunRecords(store=self.store)

    @cached_property
    def _pages(self) -> Pages:
        return Pages(store=self.store, records=self._records)

    def elsewhere(self) -> Callable[[], Tracker]:
        return partial(MlflowTracker, store=self.store.elsewhere(), launch_run_id=self.launch_run_id)

    def answers(self) -> bool:
        return self.store.answers()

    def find_study(self, name: str) -> StudyRecord | None:
        if not self.store.exists():
            return None
        with self.store.explained():
            run = self._study_runs.find(name, self.store.chosen_experiments())
            return self._study_runs.record(run) if run is not None else None

    def study_names(self) -> tuple[str, ...]:
        if not self.store.exists():
            return ()
        with self.store.explained():
            runs = search_runs(self.store.client, self.store.all_experiments(), "tags.`ablation.kind` = 'study'")
            begun = sorted(runs, key=lambda run: run.info.start_time or 0, reverse=True)  # in whichever experiment
            return tuple(dict.fromkeys(run.data.tags[STUDY] for run in begun if STUDY in run.data.tags))

    def remarks(self, name: str) -> tuple[str, ...]:
        if self.launch_run_id is None:
            return ()
        with self.store.explained():
            said = remark(launch_run(self.store.client, self.launch_run_id), name)
        return (said,) if said is not None else ()

    def study_run_id(self, name: str, *, beside: str | None = None) -> str | None:
        if not self.store.exists():
            return None
        with self.store.explained():
            there = [self.store.client.get_run(beside).info.experiment_id] if beside is not None else None
            run = self._study_runs.find(name, there or self.store.chosen_experiments())
        return str(run.info.run_id) if run is not None else None

    def make_study_run(self, plan: Plan, *, holder: Holder | None) -> str:
        with self.store.explained():
            made = self._study_runs.find(plan.name, self.store.chosen_experiments())
            if made is None:
                return str(self._study_runs.make(plan, self._study_runs.launched(plan.name), holder).info.run_id)
            check_held_by(made, holder, plan.name)  # the answer was lost, or somebody else has made it since
            self.store.attempts.take_over(made.info.experiment_id, plan.name, made.info.run_id, holder)
            return str(made.info.run_id)

    def open_study(self, plan: Plan, *, holder: Holder | None = None) -> StudyRecord:
        with self.store.explained():
            run, launch = (
                self._study_runs.find(plan.name, self.store.chosen_experiments()),
                self._study_runs.launched(plan.name),
            )
            if run is None:
                run = self._study_runs.make(plan, launch, holder)
            else:
                check_held_by(run, holder, plan.name)
                if launch is not None and run.info.run_id != launch.info.run_id:
                    self._study_runs.link_launched(plan, run, launch)
            run_id = run.info.run_id
            self.store.attempts.forget()
            self.store.log_file(run, PLAN_FILE, plan_to_json(plan))
            self.store.tag(run_id, {PLANNED: plan.locked_hash, "ablation.data_digest": plan.data.digest})
            self._study_runs.rename_grown(run, plan)
            record = StudyRecord(study_run_id=run_id, experiment_id=run.info.experiment_id, plan=plan, status="RUNNING")
            self._pages.describe_experiment(record)
            self.store.client.update_run(
                run_id, status="RUNNING"
            )  # last: where anything failed the study is not under way
            return record

    def holder(self, study_run_id: str) -> Holder | None:
        with self.store.explained():
            try:
                run = self.store.client.get_run(study_run_id)
            except MlflowException as error:
                if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise StudyRunGone(study_run_id) from None
                raise
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise StudyRunGone(study_run_id)
        return holder_of(run)

    def hold(self, study_run_id: str, holder: Holder | None) -> None:
        with self.store.explained():
            self.store.tag(study_run_id, {HOLDER: holder.to_json() if holder is not None else NOBODY})

    def discard_study_run(self, study_run_id: str) -> None:
        with self.store.explained():
            self.store.client.delete_run(study_run_id)

    def identities(self, name: str) -> frozenset[str]:
        found = self.store.runs_of(name, ViewType.ALL)
        return frozenset(run.data.tags[IDENTITY] for run in found if run.data.tags.get(IDENTITY))

    def results_elsewhere(self, probes: Sequence[str], /, *, name: str) -> Mapping[str, frozenset[str]]:
        if not self.store.exists():
            return {}
        with self.store.explained():
            return read_results_elsewhere(self.store.client, self.store.all_experiments(), probes, name=name)

    def count_runs(self, name: str) -> int:
        return len(self.store.runs_of(name, ViewType.ACTIVE_ONLY))

    def is_deleted(self, name: str) -> bool:
        found = [run for run in self.store.runs_of(name, ViewType.DELETED_ONLY) if run.data.tags.get(KIND) == "study"]
        latest = max(found, key=lambda run: run.info.start_time or 0, default=None)
        held_by = holder_of(latest) if latest is not None else None
        return latest is not None and not (held_by is not None and held_by.is_fresh())

    def delete_study(self, name: str) -> None:
        runs = self.store.runs_of(name, ViewType.ACTIVE_ONLY)
        with self.store.explained():
            for run in sorted(runs, key=lambda run: run.data.tags.get(KIND) == "study"):
                if run.data.tags.get(KIND) == "study":  # who deletes it holds it: it would look deleted under way
                    self.store.tag(run.info.run_id, {HOLDER: NOBODY})
                self.store.client.delete_run(run.info.run_id)
            self.store.attempts.forget()

    def clear_experiment(self, name: str) -> None:
        if self.store.experiment_id is not None:
            return
        with self.store.explained():
            experiment = self.store.client.get_experiment_by_name(self.store.experiment_name or name)
            if experiment is None or experiment.lifecycle_stage != LifecycleStage.DELETED:
                return
            self.store.client.restore_experiment(experiment.experiment_id)
            for run in list(search_runs(self.store.client, [experiment.experiment_id], "")):
                self.store.client.delete_run(run.info.run_id)

    def recorded_runs(self, record: StudyRecord, *, with_details: bool = True) -> tuple[RecordedRun, ...]:
        with self.store.explained():
            return read_runs(self.store.client, record, with_details=with_details)

    def run_file(self, run_id: str, name: str, /, *, limit: int) -> tuple[bytes | None, str]:
        with self.store.explained():
            run = self.store.client.get_run(run_id)
            return Artifacts(tracking_uri=self.tracking_uri).content(run, name, limit=limit)

    def left_out(self, record: StudyRecord) -> tuple[LeftOut, ...]:
        with self.store.explained():
            return read_left_out(self.store.client, record)

    def reconcile(self, record: StudyRecord) -> None:
        with self.store.explained():
            self.store.attempts.reconcile(record)

    def start_run(
        self, record: StudyRecord, planned: PlannedRun, provenance: Mapping[str, str], *, attempt: str
    ) -> str:
        about = {
            KIND: "run",
            "ablation.variant": planned.variant,
            "ablation.seed": str(planned.seed),
            IDENTITY: planned.identity,
            PLANNED: record.plan.locked_hash,
            ORDER: order_of(planned, record.plan),
            **({LOOK: str(record.plan.locked.look_of(planned.seed))} if record.plan.locked.looks else {}),
        }
        with self.store.explained(of=planned.name):
            run_id = self.store.attempts.start(
                record, record.study_run_id, planned, {**about, **tags_of(provenance)}, attempt
            )
            self._records.begun[run_id] = (planned, record.plan)
            return run_id

    def start_tuning_run(
        self,
        record: StudyRecord,
        planned: PlannedRun,
        settings: Mapping[str, Any],
        provenance: Mapping[str, str],
        *,
        attempt: str,
    ) -> str:
        about = {KIND: TUNING_TRIAL, "ablation.variant": str(settings["variant"])}
        with self.store.explained(of=planned.name):
            parent = self.store.attempts.tuning_parent(record)
            run_id = self.store.attempts.start(record, parent, planned, {**about, **tags_of(provenance)}, attempt)
            self._records.log_params(run_id, settings)
            return run_id

    def log_run(self, run_id: str, news: RunNews) -> None:
        self._records.log(run_id, news)

    def finish_run(self, run_id: str, result: RunResult, artifacts: Path | None, news: RunNews = NO_NEWS) -> None:
        self._records.finish(run_id, result, artifacts, news)

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        self._records.add_metrics(run_id, metrics)

    def abandon_run(self, run_id: str) -> None:
        with self.store.explained():
            self.store.client.set_terminated(run_id, "KILLED")

    def note_look(self, record: StudyRecord, look: int) -> None:
        looks = record.plan.locked.looks
        if looks:
            with self.store.explained():
                out = ", out of budget" if record.spending.is_out else ""
                self.store.tag(record.study_run_id, {LOOK: f"{look} of {len(looks)}{out}"})

    def note_spending(self, study_run_id: str, spending: Spending) -> None:
        with self.store.explained():
            self.store.tag(study_run_id, {SPENDING: spending.to_json()})

    def log_report(
        self, record: StudyRecord, folder: Path, *, overview: Sequence[str], answers: Sequence[AnswerSummary]
    ) -> None:
        with self.store.explained():
            launch = self._study_runs.launched(record.plan.name)
            self._pages.log_report(record, folder, overview=overview, answers=answers, launch=launch)

    def close_study(self, record: StudyRecord, status: StudyStatus) -> None:
        with self.store.explained():
            if self.store.client.get_run(record.study_run_id).info.status != status:  # else it keeps its end
                self.store.client.set_terminated(record.study_run_id, status)

    def links(self, record: StudyRecord) -> tuple[tuple[str, str], ...]:
        return self._pages.links(record)

    def run_address(self, record: StudyRecord, run_id: str) -> str | None:
        return self._pages.run_address(record, run_id)
