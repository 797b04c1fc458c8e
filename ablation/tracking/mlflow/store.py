"""An MLflow store as this project uses it: its client, experiments and runs, and its failures in the user's terms."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from ablation.errors import (
    AblationError,
    ArtifactsUnusable,
    LaunchUnknown,
    RecordRefused,
    TrackingUnavailable,
    os_error_text,
)
from ablation.output import plain
from ablation.storage.databases import failure, folder_address, said_by, sqlite_path, without_password
from ablation.storage.files import UNFINISHED, write_whole
from ablation.storage.first_start import make_whole
from ablation.storage.locks import first_use
from ablation.storage.permissions import make_folder
from ablation.storage.temporary import temporary_folder
from ablation.tracking.mlflow.attempts import STUDY, Attempts, log_batch
from ablation.tracking.mlflow.credentials import Credentials
from ablation.tracking.mlflow.reading import PAGE, local_folder, quoted, search_runs
from ablation.tracking.mlflow.refusals import is_of_a_store, is_refusal
from ablation.tracking.mlflow.schema import mlflow_schema
from ablation.tracking.mlflow.waiting import check_reachable, patience, wait_for_database

DEFAULT_URI = "sqlite:///mlflow.db"
FIRST_TIMEOUT_S = 4
LATER_TIMEOUT_S = 15
WRITING_TIMEOUT_S = 30
WAIT_S = 100.0
"""How long a study waits for the server of a database at its start; whoever only reads does not."""
ARTIFACTS = "mlruns"
ARTIFACT_ROOT = "_MLFLOW_SERVER_ARTIFACT_ROOT"
"""What MLflow takes the place of artifacts from, which by itself is `./mlruns` as a path of the working directory's."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """A database file or a server, whose client is made at its first use.

    `experiment_id` or `experiment_name` is the experiment that was chosen from outside, if one was. An impatient store,
    for reading, gives up on a silent server within about 15 seconds at the first request and 30 at a later one, where
    MLflow tries for minutes. One for writing tries each request once, as MLflow's own second try makes a second run
    where only the answer was lost.
    """

    tracking_uri: str
    credentials: Credentials | None = None
    experiment_id: str | None = None
    experiment_name: str | None = None
    is_impatient: bool = False
    waits_s: float = WAIT_S

    def elsewhere(self) -> "Store":
        """Return the store as another process opens it, beside this one, which has waited for it and said so."""
        return replace(self, waits_s=0.0)

    def answers(self) -> bool:
        try:
            check_reachable(self.tracking_uri, self.credentials)
        except TrackingUnavailable:
            return False
        return True

    @cached_property
    def client(self) -> MlflowClient:
        check_reachable(self.tracking_uri, self.credentials)
        wait_for_database(self.tracking_uri, limit_s=0.0 if self.is_impatient else self.waits_s, say=_say)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback for each error that we tell
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # --json prints nothing but JSON
        with first_use(self.tracking_uri), self._patience(is_first=True):
            self._make_store()
            client = MlflowClient(tracking_uri=self.tracking_uri)
            client.search_experiments(max_results=1)
        return client

    @cached_property
    def attempts(self) -> Attempts:
        """The runs that planned runs are recorded by, looked up once until something fails."""
        return Attempts(self.client)

    @contextmanager
    def explained(self, *, of: str | None = None) -> Iterator[None]:
        """Say what failed in the user's terms; one operation may fail, no traceback of MLflow's is wanted.

        `of` is the run that is recorded, which alone is at fault where what is told of it is refused.
        """
        try:
            assert self.client is not None  # made outside, as its first request has a limit of its own
            with self._patience():
                yield
        except Exception as error:
            if "attempts" in self.__dict__:
                self.attempts.forget()
            if isinstance(error, AblationError):
                raise
            if of is not None and is_refusal(error):
                raise RecordRefused(of, failure(error)) from error
            if not is_of_a_store(error):
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

    def exists(self) -> bool:
        """Whether there is anything to read: MLflow's client would create a missing database file."""
        path = sqlite_path(self.tracking_uri)
        return path is None or path.exists()

    def _make_store(self) -> None:
        """Make a sqlite file's tables where they are missing, and the folder of its artifacts, for the user alone."""
        path = sqlite_path(self.tracking_uri)
        if path is not None:
            if not path.exists():
                make_folder(Path.cwd() / ARTIFACTS)
            make_whole(path, mlflow_schema)

    def chosen_experiments(self) -> list[str]:
        """Return the experiment that was chosen from outside, or all of them."""
        if self.experiment_id is not None:
            self._check_experiment(self.experiment_id)
            return [self.experiment_id]
        if self.experiment_name is not None:
            experiment = self.client.get_experiment_by_name(self.experiment_name)
            return [experiment.experiment_id] if experiment is not None else []
        return self.all_experiments()

    def _check_experiment(self, experiment_id: str) -> None:
        try:
            self.client.get_experiment(experiment_id)
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                where = without_password(self.tracking_uri)
                raise LaunchUnknown("MLFLOW_EXPERIMENT_ID", experiment_id, tracking_uri=where) from None
            raise

    def all_experiments(self) -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = self.client.search_experiments(max_results=PAGE, page_token=token)
            found += [experiment.experiment_id for experiment in page]
            token = page.token
            if not token:
                return found

    def runs_of(self, name: str, view: int) -> list[Run]:
        """Return all runs that name a study, of experiments in the trash too where those are asked for."""
        if not self.exists():
            return []
        with self.explained():
            places = self.chosen_experiments()
            if view != ViewType.ACTIVE_ONLY:
                experiment = self.client.get_experiment_by_name(self.experiment_name or name)
                places += [str(experiment.experiment_id)] if experiment is not None else []
            query = f"tags.`{STUDY}` = {quoted(name)}"
            return list(search_runs(self.client, list(dict.fromkeys(places)), query, view=view))

    def tag(self, run_id: str, tags: dict[str, str]) -> None:
        log_batch(self.client, run_id, tags=tags)

    def log_file(self, run: Run, name: str, text: str) -> None:
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
            self.client.log_artifact(run.info.run_id, str(made / name))

    def log_files(self, run: Run, folder: Path) -> None:
        """Keep the files of a folder with a run that was read: MLflow's client would read it again."""
        place = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.tracking_uri)
        place.log_artifacts(str(folder))  # type: ignore[no-untyped-call]


def _say(text: str) -> None:
    print(plain(text), file=sys.stderr)  # noqa: T201 - it is no result of a command
