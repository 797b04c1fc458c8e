"""Remembers studies in MLflow: one study run per study, a child run per planned run, found by their tags.

Runs are always named by their IDs, never through MLflow's active run: a worker that adopted MLFLOW_RUN_ID would write
into the study run.
"""

import json
import logging
import math
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import MlflowClient
from PIL import Image
from sqlalchemy.exc import DataError, SQLAlchemyError

from ablation.errors import (
    AblationError,
    ArtifactsUnreachable,
    ArtifactsUnusable,
    LaunchUnknown,
    PlanUnreadable,
    RecordRefused,
    StudyLocked,
    StudyRunGone,
    TrackingUnavailable,
    os_error_text,
)
from ablation.output import plain
from ablation.records import (
    DataFacts,
    Epoch,
    LeftOut,
    Outcome,
    Plan,
    PlannedRun,
    RecordedRun,
    RunResult,
    epoch_metrics,
    recordable_text,
)
from ablation.storage.databases import absolute, failure, folder_address, said_by, sqlite_path, without_password
from ablation.storage.files import UNFINISHED, write_whole
from ablation.storage.first_start import make_whole
from ablation.storage.holder import Holder
from ablation.storage.locks import first_use
from ablation.storage.permissions import make_folder
from ablation.storage.temporary import temporary_folder
from ablation.study.document import plan_from_json, plan_to_json
from ablation.tracking.interface import RunDescription, StudyRecord, StudyStatus
from ablation.tracking.mlflow.addresses import artifact_address, image_address, run_address, runs_address
from ablation.tracking.mlflow.attempts import (
    KIND,
    STUDY,
    Attempts,
    log_batch,
    shortened,
    source_tags,
    whole_name,
)
from ablation.tracking.mlflow.credentials import Credentials, without_credentials
from ablation.tracking.mlflow.launches import launch_run, remark, why_foreign
from ablation.tracking.mlflow.notes import experiment_description, is_ours, study_note
from ablation.tracking.mlflow.reading import (
    FINAL,
    FIRST,
    HOLDER,
    IDENTITY,
    NOBODY,
    OUTCOME,
    PAGE,
    READ_BACK,
    TUNING_TRIAL,
    Artifacts,
    holder_of,
    local_folder,
    quoted,
    read_left_out,
    read_runs,
    search_runs,
)
from ablation.tracking.mlflow.schema import mlflow_schema
from ablation.tracking.mlflow.views import saved_views, view_key
from ablation.tracking.mlflow.waiting import check_reachable, patience, wait_for_database

DEFAULT_URI = "sqlite:///mlflow.db"
PLAN_FILE = "plan.json"
PLANNED = "ablation.locked_hash"
"""Tag of a study run, and of its runs: the hash of the locked part. A study run with it has had a plan."""
REPORTS = ("report.html", "report.md")
FIGURE = "figures/forest.png"
NOTE_FIGURE = "note-forest.png"
NOTE_WIDTH = 720  # pixels; a wider image widens the note, whose text is then cut off at the column's edge
NOTE = "mlflow.note.content"
MAX_TAG = 5_000
MAX_PARAM = 6_000
MAX_KEY = 250
MAX_DATASET_NAME = 500
MAX_PLAN = 256 * 2**20
FIRST_TIMEOUT_S = 4
LATER_TIMEOUT_S = 15
WRITING_TIMEOUT_S = 30
WAIT_S = 100.0
"""How long a study waits for the server of a database at its start; whoever only reads does not."""
ARTIFACTS = "mlruns"
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""What MLflow takes the place of artifacts from, which by itself is `./mlruns` as a path of the working directory's."""
ARTIFACT_STORES = frozenset({"azure", "boto3", "botocore", "google", "paramiko"})
TOO_LARGE = frozenset({413, 414})
"""What a proxy answers that takes no file so large."""
REFUSALS = frozenset(map(ErrorCode.Name, (BAD_REQUEST, INVALID_PARAMETER_VALUE)))
"""What MLflow answers where it will answer so again."""


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """An MLflow store: a database file, or a server.

    `launch_run_id` is the run that `mlflow run` made for this execution: it becomes the study run where the study has
    none in that experiment, else it links to it. A study is looked for in the chosen experiment, where one is chosen,
    else in all of them. An impatient tracker, for reading, gives up on a silent server within about 15 seconds at the
    first request and 30 at a later one, where MLflow tries for minutes. One for writing tries each request once, as
    MLflow's own second try makes a second run where only the answer was lost.
    """

    settles_s = 1.0

    tracking_uri: str
    launch_run_id: str | None = None
    experiment_id: str | None = None
    experiment_name: str | None = None
    is_impatient: bool = False
    credentials: Credentials | None = None

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
        return cls(
            tracking_uri=address,
            credentials=credentials,
            launch_run_id=launch_run_id,
            experiment_id=experiment_id,
            experiment_name=experiment_name,
            is_impatient=is_impatient,
        )

    def find_study(self, name: str) -> StudyRecord | None:
        if not self._store_exists():
            return None
        with self._explained():
            run = self._find_study_run(name, self._chosen_experiments())
            return self._record(run) if run is not None else None

    def study_names(self) -> tuple[str, ...]:
        if not self._store_exists():
            return ()
        with self._explained():
            runs = search_runs(self._client, self._all_experiments(), "tags.`ablation.kind` = 'study'")
            return tuple(sorted({run.data.tags["ablation.study"] for run in runs if "ablation.study" in run.data.tags}))

    def remarks(self, name: str) -> tuple[str, ...]:
        if self.launch_run_id is None:
            return ()
        with self._explained():
            said = remark(launch_run(self._client, self.launch_run_id), name)
        return (said,) if said is not None else ()

    def study_run_id(self, name: str, *, beside: str | None = None) -> str | None:
        if not self._store_exists():
            return None
        with self._explained():
            there = [self._client.get_run(beside).info.experiment_id] if beside is not None else None
            run = self._find_study_run(name, there or self._chosen_experiments())
        return str(run.info.run_id) if run is not None else None

    def make_study_run(self, plan: Plan, *, holder: Holder | None) -> str:
        with self._explained():
            made = self._find_study_run(plan.name, self._chosen_experiments())
            if made is None:
                return str(self._make_study_run(plan, self._launch_run(plan.name), holder).info.run_id)
            _check_held_by(made, holder, plan.name)  # the answer was lost, or somebody else has made it since
            self._attempts.take_over(made.info.experiment_id, plan.name, made.info.run_id, holder)
            return str(made.info.run_id)

    def open_study(self, plan: Plan, *, holder: Holder | None = None) -> StudyRecord:
        with self._explained():
            run, launch = self._find_study_run(plan.name, self._chosen_experiments()), self._launch_run(plan.name)
            if run is None:
                run = self._make_study_run(plan, launch, holder)
            else:
                _check_held_by(run, holder, plan.name)
                if launch is not None and run.info.run_id != launch.info.run_id:
                    self._link_launch_run(plan, run, launch)
            run_id = run.info.run_id
            self._attempts.forget()
            self._log_file(run, PLAN_FILE, plan_to_json(plan))
            self._tag(run_id, {PLANNED: plan.locked_hash, "ablation.data_digest": plan.data.digest})
            self._rename_grown(run, plan)
            record = StudyRecord(study_run_id=run_id, experiment_id=run.info.experiment_id, plan=plan, status="RUNNING")
            self._describe_experiment(record)
            self._client.update_run(run_id, status="RUNNING")  # last: where anything failed the study is not under way
            return record

    def holder(self, study_run_id: str) -> Holder | None:
        with self._explained():
            try:
                run = self._client.get_run(study_run_id)
            except MlflowException as error:
                if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                    raise StudyRunGone(study_run_id) from None
                raise
        if run.info.lifecycle_stage != LifecycleStage.ACTIVE:
            raise StudyRunGone(study_run_id)
        return holder_of(run)

    def hold(self, study_run_id: str, holder: Holder | None) -> None:
        with self._explained():
            self._tag(study_run_id, {HOLDER: holder.to_json() if holder is not None else NOBODY})

    def discard_study_run(self, study_run_id: str) -> None:
        with self._explained():
            self._client.delete_run(study_run_id)

    def identities(self, name: str) -> frozenset[str]:
        found = self._runs_of(name, ViewType.ALL)
        return frozenset(run.data.tags[IDENTITY] for run in found if run.data.tags.get(IDENTITY))

    def count_runs(self, name: str) -> int:
        return len(self._runs_of(name, ViewType.ACTIVE_ONLY))

    def is_deleted(self, name: str) -> bool:
        found = [run for run in self._runs_of(name, ViewType.DELETED_ONLY) if run.data.tags.get(KIND) == "study"]
        latest = max(found, key=lambda run: run.info.start_time or 0, default=None)
        held_by = holder_of(latest) if latest is not None else None
        return latest is not None and not (held_by is not None and held_by.is_fresh())

    def delete_study(self, name: str) -> None:
        runs = self._runs_of(name, ViewType.ACTIVE_ONLY)
        with self._explained():
            for run in sorted(runs, key=lambda run: run.data.tags.get(KIND) == "study"):
                if run.data.tags.get(KIND) == "study":  # who deletes it holds it: it would look deleted under way
                    self._tag(run.info.run_id, {HOLDER: NOBODY})
                self._client.delete_run(run.info.run_id)
            self._attempts.forget()

    def clear_experiment(self, name: str) -> None:
        if self.experiment_id is not None:
            return
        with self._explained():
            experiment = self._client.get_experiment_by_name(self.experiment_name or name)
            if experiment is None or experiment.lifecycle_stage != LifecycleStage.DELETED:
                return
            self._client.restore_experiment(experiment.experiment_id)
            for run in list(search_runs(self._client, [experiment.experiment_id], "")):
                self._client.delete_run(run.info.run_id)

    def recorded_runs(self, record: StudyRecord, *, with_details: bool = True) -> tuple[RecordedRun, ...]:
        with self._explained():
            return read_runs(self._client, record, with_details=with_details)

    def run_file(self, run_id: str, name: str, /, *, limit: int) -> tuple[bytes | None, str]:
        with self._explained():
            run = self._client.get_run(run_id)
            return Artifacts(tracking_uri=self.tracking_uri).content(run, name, limit=limit)

    def left_out(self, record: StudyRecord) -> tuple[LeftOut, ...]:
        with self._explained():
            return read_left_out(self._client, record)

    def reconcile(self, record: StudyRecord) -> None:
        with self._explained():
            self._attempts.reconcile(record)

    def start_run(
        self, record: StudyRecord, planned: PlannedRun, provenance: Mapping[str, str], *, attempt: str
    ) -> str:
        about = {
            KIND: "run",
            "ablation.variant": planned.variant,
            "ablation.seed": str(planned.seed),
            IDENTITY: planned.identity,
            PLANNED: record.plan.locked_hash,
        }
        with self._explained(of=planned.name):
            return self._attempts.start(
                record, record.study_run_id, planned, {**about, **_tags_of(provenance)}, attempt
            )

    def describe_run(self, run_id: str, description: RunDescription) -> None:
        known = {"seed": description.seed, **_parameters(description.configuration)}
        with self._explained(of=run_id):
            self._log_params(run_id, {**known, **description.levels, **description.size})
            self._client.log_inputs(run_id, [_dataset_input(description.data)])

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
        with self._explained(of=planned.name):
            parent = self._attempts.tuning_parent(record)
            run_id = self._attempts.start(record, parent, planned, {**about, **_tags_of(provenance)}, attempt)
            self._log_params(run_id, settings)
            return run_id

    def log_epochs(self, run_id: str, epochs: Sequence[Epoch], *, heldout_split: str) -> None:
        metrics = [
            Metric(name, value, epoch.timestamp_ms, epoch.epoch)
            for epoch in epochs
            for name, value in epoch_metrics(epoch, heldout_split=heldout_split).items()
            if math.isfinite(value)
        ]
        with self._explained(of=run_id):
            for start in range(0, len(metrics), PAGE):
                log_batch(self._client, run_id, metrics=metrics[start : start + PAGE])

    def finish_run(self, run_id: str, result: RunResult, artifacts: Path | None) -> None:
        ended = result.ended_ms or time.time_ns() // 1_000_000
        tags = {
            OUTCOME: result.outcome.value,
            "ablation.failure": result.failure,
            "ablation.diverged_epoch": result.diverged_epoch,
            "ablation.diverged_step": result.diverged_step,
            "ablation.error": result.error and result.error[-MAX_TAG:],
            "ablation.path": result.path or None,
            "ablation.path_note": result.path_note or None,
            READ_BACK: "yes",
            FIRST: "yes" if result.is_first else None,
            FINAL: _final_names(result),
            "ablation.left_out": "; ".join(result.left_out)[:MAX_TAG] or None,
        }
        with self._explained(of=run_id):
            self._log_final_metrics(run_id, result, ended)
            if artifacts is not None:
                self._client.log_artifacts(run_id, str(artifacts))
            if result.error is not None:
                self._log_file(self._client.get_run(run_id), "traceback.txt", result.error)
            self._tag(run_id, {name: str(value) for name, value in tags.items() if value is not None})
            status = "FAILED" if result.outcome is Outcome.FAILED else "FINISHED"
            self._client.set_terminated(run_id, status, end_time=ended)

    def _log_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Record parameters; those that are there stay, as nothing can change them, also where 0 was written as 0.0."""
        made = _params(values)
        try:
            log_batch(self._client, run_id, params=made)
        except MlflowException:
            there = self._client.get_run(run_id).data.params
            log_batch(self._client, run_id, params=[param for param in made if param.key not in there])

    def _log_final_metrics(self, run_id: str, result: RunResult, ended_ms: int) -> None:
        """Record a run's final metrics so that they are what a reader gets, and see that they are.

        Of values of one name MLflow gives that of the largest step, then of the latest time, then the largest: so they
        have a step after every epoch's, and after whatever else somebody recorded under their name.
        """
        missing = self._other_than(run_id, result.metrics)  # the last epoch's may be there already
        self._log_at(run_id, missing, ended_ms, dict.fromkeys(missing, result.epochs + 1))
        outdone = self._other_than(run_id, missing) if missing else {}
        self._log_at(run_id, outdone, ended_ms, {name: self._last_step(run_id, name) + 1 for name in outdone})
        wrong = self._other_than(run_id, outdone) if outdone else {}
        if wrong:
            name, value = next(iter(wrong.items()))
            known = self._client.get_run(run_id).data.metrics.get(name)
            raise RecordRefused(run_id, f"it was told that {name} is {value!r}, and says that it is {known!r}")

    def _log_at(self, run_id: str, metrics: Mapping[str, float], time_ms: int, steps: Mapping[str, int]) -> None:
        if metrics:
            made = [Metric(name, value, time_ms, steps[name]) for name, value in metrics.items()]
            log_batch(self._client, run_id, metrics=made)

    def _other_than(self, run_id: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the metrics of which MLflow has another value, or none."""
        known = self._client.get_run(run_id).data.metrics
        return {name: value for name, value in metrics.items() if known.get(name) != value}

    def _last_step(self, run_id: str, name: str) -> int:
        return max((entry.step for entry in self._client.get_metric_history(run_id, name)), default=0)

    def abandon_run(self, run_id: str) -> None:
        with self._explained():
            self._client.set_terminated(run_id, "KILLED")

    def log_report(self, record: StudyRecord, folder: Path, *, summary: str) -> None:
        reports = [name for name in REPORTS if (folder / name).exists()]
        with self._explained():
            launch = self._launch_run(record.plan.name)
            targets = [
                record.study_run_id,
                *([launch.info.run_id] if launch is not None and _is_linked(launch) else []),
            ]
            for run_id in dict.fromkeys(targets):
                self._client.log_artifacts(run_id, str(folder))
                links = {
                    **{name: artifact_address(record.experiment_id, run_id, name) for name in reports},
                    **_view_addresses(record),
                }
                figure = self._log_note_figure(run_id, folder / FIGURE) if (folder / FIGURE).exists() else None
                self._tag(run_id, {NOTE: study_note(summary, links=links, figure=figure)})
            self._describe_experiment(record)

    def close_study(self, record: StudyRecord, status: StudyStatus) -> None:
        with self._explained():
            self._client.set_terminated(record.study_run_id, status)

    def links(self, record: StudyRecord) -> tuple[tuple[str, str], ...]:
        with self._explained():
            found = self._addresses(record)
        is_served = self.tracking_uri.startswith("http")
        base = self.tracking_uri.rstrip("/") if is_served else "http://127.0.0.1:5000"
        start = () if is_served else (("start MLflow's UI", self._ui_command()),)
        return (*start, *((label, f"{base}/{address}") for label, address in found.items()))

    def _ui_command(self) -> str:
        is_default = self.tracking_uri == absolute(DEFAULT_URI)
        address = shlex.quote(without_password(self.tracking_uri))
        return "python -m ablation ui" + ("" if is_default else f" --tracking-uri {address}")

    def answers(self) -> bool:
        try:
            check_reachable(self.tracking_uri, self.credentials)
        except TrackingUnavailable:
            return False
        return True

    @cached_property
    def _client(self) -> MlflowClient:
        check_reachable(self.tracking_uri, self.credentials)
        wait_for_database(self.tracking_uri, limit_s=0.0 if self.is_impatient else WAIT_S, say=_say)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for each error that we tell
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # --json prints nothing but JSON
        with first_use(self.tracking_uri), self._patience(is_first=True):
            self._make_store()
            client = MlflowClient(tracking_uri=self.tracking_uri)
            client.search_experiments(max_results=1)
        return client

    def _make_store(self) -> None:
        """Make a sqlite file's tables where they are missing, and the folder of its artifacts, for the user alone."""
        path = sqlite_path(self.tracking_uri)
        if path is not None:
            if not path.exists():
                make_folder(Path.cwd() / ARTIFACTS)
            make_whole(path, mlflow_schema)

    @cached_property
    def _attempts(self) -> Attempts:
        return Attempts(self._client)

    @contextmanager
    def _explained(self, *, of: str | None = None) -> Iterator[None]:
        """Say what failed in the user's terms; one operation may fail, no traceback of MLflow's is wanted.

        `of` is the run that is recorded, which alone is at fault where what is told of it is refused.
        """
        try:
            assert self._client is not None  # made outside, as its first request has a limit of its own
            with self._patience():
                yield
        except Exception as error:
            if "_attempts" in self.__dict__:
                self._attempts.forget()
            if isinstance(error, AblationError):
                raise
            if of is not None and _is_refusal(error):
                raise RecordRefused(of, failure(error)) from error
            if not _is_of_a_store(error):
                raise
            if isinstance(error, OSError) and error.filename is not None:
                raise ArtifactsUnusable(str(error.filename), os_error_text(error)) from error
            reason = failure(error) if isinstance(error, ImportError) else said_by(error)
            raise TrackingUnavailable(without_password(self.tracking_uri), without_password(reason)) from error

    def _patience(self, *, is_first: bool = False) -> AbstractContextManager[None]:
        """Give up soon: who reads has nothing to lose, and who writes tries again, having looked what was done."""
        settings = {ARTIFACT_ROOT: folder_address(Path.cwd() / ARTIFACTS)} if is_first else {}
        if self.is_impatient:
            timeout_s = FIRST_TIMEOUT_S if is_first else LATER_TIMEOUT_S
            return patience.of(timeout_s=timeout_s, retries=1, settings=settings, credentials=self.credentials)
        return patience.of(timeout_s=WRITING_TIMEOUT_S, retries=0, settings=settings, credentials=self.credentials)

    def _store_exists(self) -> bool:
        """Whether there is anything to read: MLflow's client would create a missing database file."""
        path = sqlite_path(self.tracking_uri)
        return path is None or path.exists()

    def _chosen_experiments(self) -> list[str]:
        """Return the experiment that was chosen from outside, or all of them."""
        if self.experiment_id is not None:
            self._check_experiment(self.experiment_id)
            return [self.experiment_id]
        if self.experiment_name is not None:
            experiment = self._client.get_experiment_by_name(self.experiment_name)
            return [experiment.experiment_id] if experiment is not None else []
        return self._all_experiments()

    def _check_experiment(self, experiment_id: str) -> None:
        try:
            self._client.get_experiment(experiment_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                where = without_password(self.tracking_uri)
                raise LaunchUnknown("MLFLOW_EXPERIMENT_ID", experiment_id, tracking_uri=where) from None
            raise

    def _all_experiments(self) -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = self._client.search_experiments(max_results=PAGE, page_token=token)
            found += [experiment.experiment_id for experiment in page]
            token = page.token
            if not token:
                return found

    def _runs_of(self, name: str, view: int) -> list[Run]:
        """Return all runs that name a study, of experiments in the trash too where those are asked for."""
        if not self._store_exists():
            return []
        with self._explained():
            places = self._chosen_experiments()
            if view != ViewType.ACTIVE_ONLY:
                experiment = self._client.get_experiment_by_name(self.experiment_name or name)
                places += [str(experiment.experiment_id)] if experiment is not None else []
            query = f"tags.`{STUDY}` = {quoted(name)}"
            return list(search_runs(self._client, list(dict.fromkeys(places)), query, view=view))

    def _find_study_run(self, name: str, experiment_ids: list[str]) -> Run | None:
        """Return the study run of that name, the latest where several experiments have one."""
        if recordable_text(name) != name:
            return None  # no database takes it, so none has it
        query = f"tags.`ablation.kind` = 'study' and tags.`ablation.study` = {quoted(name)}"
        runs = list(search_runs(self._client, experiment_ids, query))
        return max(runs, key=lambda run: (run.info.start_time or 0, run.info.run_id)) if runs else None

    def _record(self, run: Run) -> StudyRecord | None:
        """Return the record of a study run, None where it has no plan: its execution ended before it wrote one."""
        text, failure = Artifacts(tracking_uri=self.tracking_uri).read(run, PLAN_FILE, limit=MAX_PLAN)
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
        )

    def _check_is_there(self, experiment_id: str, run: Run) -> None:
        """See that an experiment's folder on this machine is there, where a study run has had a plan in it.

        Raises:
            ArtifactsUnreachable: it is not: it was moved, or is another machine's.
        """
        location = self._client.get_experiment(experiment_id).artifact_location
        folder = local_folder(location)
        if folder is None or folder.exists() or PLANNED not in run.data.tags:
            return
        missing = next(path for path in (*reversed(folder.parents), folder) if not path.exists())
        raise self._unreachable(str(run.data.tags.get(STUDY)), str(folder), f"there is no {missing}", missing=missing)

    def _unreachable(self, study: str, place: str, reason: str, *, missing: Path | None = None) -> ArtifactsUnreachable:
        is_served = self.tracking_uri.startswith("http")
        return ArtifactsUnreachable(study, place, reason, missing=missing, is_served=is_served)

    def _make_study_run(self, plan: Plan, launch: Run | None, holder: Holder | None) -> Run:
        """Make the study run, or make the run that `mlflow run` created it; held from its first moment."""
        tags = {KIND: "study", STUDY: plan.name, **({HOLDER: holder.to_json()} if holder is not None else {})}
        if launch is None or KIND in launch.data.tags:
            experiment_id = self._experiment_for(plan)
            for other in search_runs(self._client, [experiment_id], "tags.`ablation.kind` = 'study'"):
                self._check_is_there(experiment_id, other)  # else a folder would be made where another one was
            run = self._client.create_run(experiment_id, run_name=plan.name, tags={**source_tags(), **tags})
        else:
            self._tag(launch.info.run_id, tags)
            self._client.update_run(launch.info.run_id, name=plan.name)
            run = self._client.get_run(launch.info.run_id)
        self._attempts.take_over(run.info.experiment_id, plan.name, run.info.run_id, holder)
        return run

    def _experiment_for(self, plan: Plan) -> str:
        if self.experiment_id is not None:
            return self.experiment_id
        name = self.experiment_name or plan.name
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # another process may have made it since
                experiment = self._client.get_experiment_by_name(name)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            message = (
                f"the experiment {name!r} is in MLflow's trash: restore it there, begin the study anew in it with "
                "--fresh, or give the study another name with --name"
            )
            raise AblationError(message)
        return str(experiment.experiment_id)

    def _launch_run(self, study: str) -> Run | None:
        """Return the run that `mlflow run` made for this command, where it has something to do with the study."""
        launch = launch_run(self._client, self.launch_run_id) if self.launch_run_id is not None else None
        return launch if launch is not None and why_foreign(launch, study) is None else None

    def _link_launch_run(self, plan: Plan, study_run: Run, launch: Run) -> None:
        tags = {KIND: "launch", STUDY: plan.name, "ablation.study_run": study_run.info.run_id}
        self._tag(launch.info.run_id, tags)
        self._client.update_run(launch.info.run_id, name=f"{plan.name} (again)")

    def _rename_grown(self, study_run: Run, plan: Plan) -> None:
        """Give runs the variant's present name: it changes when a factor is added to the study."""
        planned = {run.identity: run for run in plan.runs_to_train()}
        query = f"tags.`mlflow.parentRunId` = '{study_run.info.run_id}'"
        for run in search_runs(self._client, [study_run.info.experiment_id], query):
            now = planned.get(run.data.tags.get("ablation.identity", ""))
            if now is not None and run.data.tags.get("ablation.variant") != now.variant:
                self._tag(run.info.run_id, {"ablation.variant": now.variant, **whole_name(now.name)})
                self._client.update_run(run.info.run_id, name=shortened(now.name))

    def _describe_experiment(self, record: StudyRecord) -> None:
        """Write the study's views, and what the experiment is about unless a person has written that."""
        experiment_id = record.experiment_id
        for key, value in saved_views(record.plan).items():
            self._client.set_experiment_tag(experiment_id, key, value)
        now = self._client.get_experiment(experiment_id).tags.get(NOTE, "")
        if now.strip() and not is_ours(now):
            return
        studies = search_runs(self._client, [experiment_id], "tags.`ablation.kind` = 'study'")
        others = {
            run.data.tags["ablation.study"]: run_address(experiment_id, run.info.run_id)
            for run in studies
            if run.info.run_id != record.study_run_id
        }
        text = experiment_description(record.plan, links=self._addresses(record), others=others)
        if text != now:
            self._client.set_experiment_tag(experiment_id, NOTE, text)

    def _log_file(self, run: Run, name: str, text: str) -> None:
        """Keep a text with a run; on this machine it is there whole, the old or the new, whenever this is killed."""
        folder = local_folder(run.info.artifact_uri)
        if folder is not None:
            make_folder(folder)
            for left in folder.glob(f"{UNFINISHED}{name}.*"):
                left.unlink(missing_ok=True)
            write_whole(folder / name, text)
            return
        with temporary_folder() as made:
            (made / name).write_text(text, encoding="utf-8")
            self._client.log_artifact(run.info.run_id, str(made / name))

    def _log_note_figure(self, run_id: str, figure: Path) -> str:
        """Keep a copy of a figure that is narrow enough for a note, and return its address."""
        with temporary_folder() as folder, Image.open(figure) as image:
            path = folder / NOTE_FIGURE
            width = min(NOTE_WIDTH, image.width)
            image.convert("RGB").resize((width, round(image.height * width / image.width))).save(path)
            self._client.log_artifact(run_id, str(path), "figures")
        return image_address(run_id, f"figures/{NOTE_FIGURE}")

    def _addresses(self, record: StudyRecord) -> dict[str, str]:
        """Return the pages that show the study, by what they show; a report only where there is one."""
        kept = {file.path for file in self._client.list_artifacts(record.study_run_id)}
        report = next((name for name in REPORTS if name in kept), None)
        return {
            **_view_addresses(record),
            "study run": run_address(record.experiment_id, record.study_run_id),
            **({"report": artifact_address(record.experiment_id, record.study_run_id, report)} if report else {}),
        }

    def _tag(self, run_id: str, tags: dict[str, str]) -> None:
        log_batch(self._client, run_id, tags=tags)


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr)  # noqa: T201 - it is no result of a command


def _view_addresses(record: StudyRecord) -> dict[str, str]:
    name, experiment_id = record.plan.name, record.experiment_id
    return {
        "runs": runs_address(experiment_id, view_key(name, "runs")),
        "by variant": runs_address(experiment_id, view_key(name, "variants")),
        "charts": runs_address(experiment_id, view_key(name, "charts"), is_chart=True),
    }


def _check_held_by(run: Run, holder: Holder | None, study: str) -> None:
    found = holder_of(run)
    if holder is not None and found is not None and found.nonce != holder.nonce:
        raise StudyLocked(study, str(found))


def _is_linked(launch: Run) -> bool:
    return KIND in launch.data.tags


def _parameters(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration by dotted paths of two keys at most: what lies deeper may have keys MLflow cannot take."""
    found: dict[str, Any] = {}
    for section, values in configuration.items():
        own = values.items() if isinstance(values, Mapping) else [("", values)]
        found |= {f"{section}.{key}" if key else section: value for key, value in own if value is not None}
    return found


def _params(values: Mapping[str, Any]) -> list[Param]:
    texts = {key: json.dumps(value) if isinstance(value, Mapping) else str(value) for key, value in values.items()}
    return [Param(key[:MAX_KEY], text[:MAX_PARAM]) for key, text in texts.items()]


def _is_of_a_store(error: Exception) -> bool:
    """Whether MLflow, or what it keeps runs and files in, has failed; every kind of store has errors of its own."""
    home = type(error).__module__.partition(".")[0]
    return isinstance(error, MlflowException | SQLAlchemyError | ImportError | OSError) or home in ARTIFACT_STORES


def _final_names(result: RunResult) -> str | None:
    """Return the names of what a training function returned, as MLflow adds what it only reported; None where long."""
    text = ",".join(sorted(result.metrics)) if not result.path else ""
    return text if 0 < len(text) <= MAX_TAG else None


def _is_refusal(error: Exception) -> bool:
    """Whether a store will refuse the same again: what it is told, not how it is, is at fault."""
    if isinstance(error, OSError) and getattr(getattr(error, "response", None), "status_code", 0) in TOO_LARGE:
        return True
    if isinstance(error, MlflowException):
        cause = error.__cause__  # MLflow answers BAD_REQUEST where a database's connection was lost, too
        return _is_refusal(cause) if isinstance(cause, Exception) else error.error_code in REFUSALS
    is_of_the_values = isinstance(error, ValueError | TypeError | LookupError) and not isinstance(error, OSError)
    return is_of_the_values or isinstance(error, DataError)


def _tags_of(provenance: Mapping[str, str]) -> dict[str, str]:
    return {name if name.startswith("mlflow.") else f"ablation.{name}": value for name, value in provenance.items()}


def _dataset_input(data: DataFacts) -> DatasetInput:
    dataset = Dataset(
        name=data.name[:MAX_DATASET_NAME],
        digest=data.digest[:32],
        source_type="ablation",
        source=json.dumps({"name": data.name, "digest": data.digest}),
        profile=json.dumps({"train_images": data.train_images, "test_images": data.test_images}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training and test")])
