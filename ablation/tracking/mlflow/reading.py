"""Reads an MLflow store: which runs it has of a study, what it has of each, and what stands beside them.

Curves are taken from the file that each run writes, as a metric's history costs a request per curve, and from the
history where the file lacks them. A file is downloaded by its address, not by its run: that saves looking the run up
again, which costs more than the file. Several threads do it, as most of the time is spent waiting.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast, get_args
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow.artifacts
from mlflow.entities import Run, ViewType
from mlflow.tracking import MlflowClient

from ablation.records import (
    EVALUATION_FILE,
    DataFacts,
    Failure,
    LeftOut,
    Outcome,
    Plan,
    PlannedRun,
    RecordedRun,
    RunEvaluation,
    device_and_path,
    is_at_chance,
)
from ablation.storage.holder import Holder
from ablation.storage.temporary import temporary_folder
from ablation.tracking.checking import (
    NO_PROBLEMS,
    Problems,
    checked_evaluation,
    checked_metrics,
    curve_names,
    is_number,
    library_versions,
    missing_curves,
    own_curve_names,
    too_large,
)
from ablation.tracking.interface import StudyRecord

PAGE = 1_000
THREADS = 8
CURVES_FILE = "curves.csv"
MAX_RUN_FILE = 32 * 2**20
MAX_NAME = 200
STRANGERS = 100
SOURCE_NAME = "ablation study"
IDENTITY, ATTEMPT, OUTCOME = "ablation.identity", "ablation.attempt", "ablation.outcome"
"""Tags: which planned run a run is the record of, of which training at it, and how that ended."""
LOOK = "ablation.look"
"""Tag, where several looks are planned: the look that asked for a run; of a study run, how many are complete."""
SPENDING = "ablation.spending"
"""Tag of a study run: the seconds that its executions took in all, and whether the last one ended for its budget."""
HOLDER, NOBODY = "ablation.holder", "nobody"
"""Tag of a study run: who holds its lease."""
READ_BACK = "ablation.read_back"
"""Tag: the final metrics were read back when they were recorded; earlier versions did not."""
FIRST = "ablation.first_of_worker"
"""Tag: the run's worker had trained nothing before, so that its seconds hold more than those of others."""
FINAL = "ablation.final_metrics"
"""Tag: the names of a run's final metrics, where it has others that were reported by epoch alone."""
NAME = "ablation.name"
"""Tag: a run's name where MLflow has a part of it only."""
ORDER = "ablation.order"
"""Tag: where a run stands in the table of its study's runs, in digits that sort as text."""
HEADLINE = "ablation.headline"
"""Tag of a study run: the first line of its report, where that was kept with its answers."""
TUNING, TUNING_TRIAL = "tuning", "tuning trial"
"""Kinds of runs that a study has apart from its compared ones."""

Curve = tuple[tuple[int, float], ...]


def search_runs(
    client: MlflowClient, experiment_ids: list[str], query: str, *, view: int = ViewType.ACTIVE_ONLY
) -> Iterator[Run]:
    token: str | None = None
    while experiment_ids:
        page = client.search_runs(experiment_ids, query, run_view_type=view, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def children_of(client: MlflowClient, record: StudyRecord, query: str = "", *, parent: str | None = None) -> list[Run]:
    """Return the runs under a run of a study, by default the study run."""
    whole = f"tags.`mlflow.parentRunId` = {quoted(parent or record.study_run_id)}" + (f" and {query}" if query else "")
    return list(search_runs(client, [record.experiment_id], whole))


def quoted(text: str) -> str:
    """Write a text as a query has it."""
    escaped = text.replace("'", "\\'")
    return f"'{escaped}'"


def read_runs(client: MlflowClient, record: StudyRecord, *, with_details: bool) -> tuple[RecordedRun, ...]:
    """Return one record per planned run, in plan order.

    Raises:
        MlflowException: the store does not answer. Where its artifacts alone do not, that is a problem of the runs.
    """
    used = _used_runs(children_of(client, record))
    read = partial(_recorded, client, record.plan, Artifacts(tracking_uri=client.tracking_uri), with_details)
    pairs = [(planned, used.get(planned.identity)) for planned in record.plan.runs]
    with ThreadPoolExecutor(THREADS) as pool:
        return tuple(pool.map(read, *zip(*pairs, strict=True)))


def read_left_out(client: MlflowClient, record: StudyRecord) -> tuple[LeftOut, ...]:
    """Return what hangs under the study's run or names the study and is not read as one of its planned runs."""
    found = children_of(client, record)
    children = {run.info.run_id: run for run in found if run.data.tags.get("ablation.kind") != TUNING}
    query = f"tags.`ablation.kind` = 'run' and tags.`ablation.study` = {quoted(record.plan.name)}"
    named = {run.info.run_id: run for run in search_runs(client, [record.experiment_id], query)}
    planned = {run.identity: run for run in record.plan.runs}
    used = {identity: run.info.run_id for identity, run in _used_runs(children.values()).items() if identity in planned}
    counted = set(used.values())
    left_out = [
        LeftOut(run_id=run_id, name=_name(run), reason=_reason(run, record, used))
        for run_id, run in {**named, **children}.items()
        if run_id not in counted
    ]
    return (*sorted(left_out, key=lambda run: (run.name, run.run_id)), *_strangers(client, record))


def read_results_elsewhere(
    client: MlflowClient, experiment_ids: list[str], probes: Sequence[str], *, name: str
) -> dict[str, frozenset[str]]:
    """Return the identities of the runs with a result, by study, of the other studies that have one of the probes.

    A page for each question: MLflow cannot be asked for several values of a tag at once.
    """

    def results(query: str, *, order_by: list[str] | None = None) -> list[tuple[str, str]]:
        page = client.search_runs(experiment_ids, query, max_results=PAGE, order_by=order_by) if experiment_ids else []
        tags = [run.data.tags for run in page if (outcome := outcome_of(run)) is not None and outcome.is_result]
        return [
            (each["ablation.study"], each[IDENTITY]) for each in tags if {"ablation.study", IDENTITY} <= each.keys()
        ]

    others = f"tags.`ablation.kind` = 'study' and tags.`ablation.study` != {quoted(name)}"
    if not experiment_ids or not client.search_runs(experiment_ids, others, max_results=1):
        return {}
    found = (results(f"tags.`{IDENTITY}` = {quoted(probe)}") for probe in probes)
    studies = sorted({study for pairs in found for study, _ in pairs if study != name})
    whole = {
        study: results(f"tags.`ablation.study` = {quoted(study)}", order_by=["start_time ASC"]) for study in studies
    }
    return {study: frozenset(identity for _, identity in pairs) for study, pairs in whole.items()}


def _strangers(client: MlflowClient, record: StudyRecord) -> tuple[LeftOut, ...]:
    """Return one entry for the runs of others in the experiment, of which one short page is looked at.

    Those are looked for that say another source than ours; a run that says none is not found, which saves reading
    through all of ours.
    """
    query = f"tags.`mlflow.source.name` != {quoted(SOURCE_NAME)}"
    page = client.search_runs([record.experiment_id], query, max_results=STRANGERS, order_by=["start_time DESC"])
    ours = {"ablation.kind", "ablation.study"}
    found = [
        run
        for run in page
        if not ours & run.data.tags.keys() and run.data.tags.get("mlflow.parentRunId") != record.study_run_id
    ]
    if not found:
        return ()
    count = f"{len(found)} or more" if page.token else f"{len(found)}"
    reason = "in the same experiment, and not recorded by a study"
    return (
        LeftOut(run_id=found[0].info.run_id, name=f"{count} other runs, the latest {_name(found[0])}", reason=reason),
    )


@dataclass(slots=True, kw_only=True)
class Artifacts:
    """Reads files of runs, and no more of them once the place that keeps them is seen not to answer.

    How large a file is, is looked at first: on this machine at the file, elsewhere in one listing of a run's files.
    """

    tracking_uri: str
    _failure: str = field(default="", init=False)
    _listings: dict[str, dict[str, int]] = field(default_factory=dict, init=False)

    def read(self, run: Run, name: str, *, limit: int = MAX_RUN_FILE) -> tuple[str | None, str]:
        """Return a text file of a run, and in words why there is none but for its being missing."""
        content, problem = self.content(run, name, limit=limit)
        if content is None:
            return None, problem
        try:
            return content.decode("utf-8"), ""
        except UnicodeDecodeError:
            return None, f"{name} is damaged: it is no text"

    def content(self, run: Run, name: str, *, limit: int) -> tuple[bytes | None, str]:
        """Return a file of a run, and in words why there is none but for its being missing."""
        try:
            size = self._size(run, name)
            if size is None:
                return None, self._failure
            content = self._content(run, name) if size <= limit else b""
        except Exception:  # noqa: BLE001 - every kind of artifact store has errors of its own
            return None, f"{name} cannot be read"
        return too_large(name, limit) if max(size, len(content)) > limit else (content, "")

    def _size(self, run: Run, name: str) -> int | None:
        """Return the bytes of a file, 0 where its store does not say, and None where it has none of that name."""
        folder = local_folder(run.info.artifact_uri)
        if folder is None:
            return self._listing(run).get(name)
        try:
            return _own_file(folder, name).stat().st_size
        except FileNotFoundError:
            return None

    def _content(self, run: Run, name: str) -> bytes:
        folder = local_folder(run.info.artifact_uri)
        if folder is not None:
            return _own_file(folder, name).read_bytes()
        with temporary_folder() as place:
            uri = f"{run.info.artifact_uri}/{name}"
            path = mlflow.artifacts.download_artifacts(uri, dst_path=str(place), tracking_uri=self.tracking_uri)
            return Path(path).read_bytes()

    def _listing(self, run: Run) -> dict[str, int]:
        """Return the files of a run and their sizes; nothing where the place that keeps them does not answer."""
        run_id = run.info.run_id
        if run_id not in self._listings and not self._failure:
            try:
                found = mlflow.artifacts.list_artifacts(run.info.artifact_uri, tracking_uri=self.tracking_uri)
            except Exception as error:  # noqa: BLE001 - every kind of artifact store has errors of its own
                said = str(error).strip().splitlines()[:1] or [type(error).__name__]
                self._failure = f"the runs' files cannot be read: {said[0][:MAX_NAME]}"
            else:
                self._listings[run_id] = {Path(file.path).name: file.file_size or 0 for file in found}
        return {} if self._failure else self._listings[run_id]


def local_folder(address: str) -> Path | None:
    """Return the folder of this machine that an artifact address names, as MLflow reads it, or None."""
    parts = urlsplit(address)
    if parts.scheme not in ("", "file") or (parts.scheme and parts.netloc):
        return None
    return Path(url2pathname(parts.path if parts.scheme else address))


def _own_file(folder: Path, name: str) -> Path:
    """Return a file of a folder; OSError where it is none, or a link to elsewhere."""
    path = (folder / name).resolve(strict=True)
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise OSError(f"{path} is no file of {folder}")
    return path


def outcome_of(run: Run | None) -> Outcome | None:
    """Return how a run ended; one whose record is not complete has not ended."""
    if run is None or run.info.status not in ("FINISHED", "FAILED"):
        return None
    value = run.data.tags.get(OUTCOME)
    return Outcome(value) if value in set(Outcome) else None


def _failure(tag: str | None) -> Failure | None:
    return cast("Failure", tag) if tag in get_args(Failure) else None


def holder_of(run: Run) -> Holder | None:
    """Return who holds the lease on a study run; a version before leases left one there when it had ended."""
    found = Holder.from_json(run.data.tags.get(HOLDER, NOBODY))
    return found if found is not None and (found.nonce or run.info.status == "RUNNING") else None


def best_record(runs: Iterable[Run]) -> Run:
    """Return the record that counts of several of one planned run: one with a result, else one that ended.

    Of those the first that ended: a later double alters nothing that was reported before.
    """

    def rank(run: Run) -> tuple[bool, bool, bool, float, str]:
        outcome = outcome_of(run)
        has_result = outcome is not None and outcome.is_result
        ended = -float(run.info.end_time or 0)
        return has_result, outcome is not None, OUTCOME in run.data.tags, ended, run.info.run_id

    return max(runs, key=rank)


def _used_runs(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the run that counts for each identity."""
    records: dict[str, list[Run]] = {}
    for run in runs:
        records.setdefault(run.data.tags.get(IDENTITY, ""), []).append(run)
    return {identity: best_record(found) for identity, found in records.items()}


def _reason(run: Run, record: StudyRecord, used: dict[str, str]) -> str:
    parent = run.data.tags.get("mlflow.parentRunId")
    if parent is None:
        return "it names the study and hangs under no run"
    if parent != record.study_run_id:
        return f"it names the study and hangs under another run than the study's, {parent[:MAX_NAME]}"
    identity = run.data.tags.get(IDENTITY)
    if identity is None:
        return "it has no identity: no run of a study"
    if identity not in used:
        return "it is none of the planned runs"
    return f"another record of the same planned run is used, {used[identity]}"


def _name(run: Run) -> str:
    name = str(run.data.tags.get(NAME) or run.info.run_name or "")
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _recorded(
    client: MlflowClient, plan: Plan, artifacts: Artifacts, with_details: bool, planned: PlannedRun, run: Run | None
) -> RecordedRun:
    outcome = outcome_of(run)
    if run is None or outcome is None:
        run_id = run.info.run_id if run is not None else None
        return RecordedRun(planned=planned, run_id=run_id, outcome=None, metrics={}, curves={}, confusion={})
    tags = run.data.tags
    is_done = outcome is Outcome.DONE
    final = set(tags[FINAL].split(",")) if FINAL in tags else run.data.metrics.keys()
    found = {name: value for name, value in run.data.metrics.items() if name in final}
    metrics, problems = checked_metrics(found, plan.expected_metrics) if is_done else ({}, NO_PROBLEMS)
    curves = _curves(client, plan, artifacts, run) if with_details and outcome.is_result else {}
    evaluation, more = None, NO_PROBLEMS
    if is_done and not plan.is_own_training and (with_details or is_at_chance(plan, planned.variant, outcome, metrics)):
        evaluation, more = _evaluation(plan.data_of(planned.variant, planned.seed), artifacts, run)
        more = (*missing_curves(curves, plan.heldout_split, plan.task), *more) if with_details else NO_PROBLEMS
    diverged_epoch = tags.get("ablation.diverged_epoch", "")
    return RecordedRun(
        planned=planned,
        run_id=run.info.run_id,
        outcome=outcome,
        metrics=metrics,
        curves=curves,
        confusion=evaluation.confusion if evaluation else {},
        test_correct=evaluation.test_correct if evaluation else "",
        constant_share=evaluation.constant_share if evaluation else None,
        details=evaluation.details if evaluation else {},
        device=device_and_path(tags.get("ablation.device", ""), tags.get("ablation.path", "")),
        host=tags.get("ablation.host", ""),
        commit=tags.get("ablation.git_commit", ""),
        versions=library_versions({name.removeprefix("ablation."): value for name, value in tags.items()}),
        problems=(*problems, *more, *filter(None, [tags.get("ablation.left_out")])),
        error=tags.get("ablation.error"),
        failure=_failure(tags.get("ablation.failure")),
        attempt=tags.get(ATTEMPT, ""),
        is_first=FIRST in tags,
        is_read_back=READ_BACK in tags,
        diverged_epoch=int(diverged_epoch) if diverged_epoch.isdecimal() and len(diverged_epoch) < 10 else None,
    )


def _curves(client: MlflowClient, plan: Plan, artifacts: Artifacts, run: Run) -> dict[str, Curve]:
    """Return the curves of a run, each empty where neither the file nor the store has it."""
    text, _ = artifacts.read(run, CURVES_FILE)
    if plan.is_own_training:
        return parse_curves(text, own_names(text)) if text is not None else {}
    names = curve_names(plan.heldout_split, plan.task)
    kept = parse_curves(text, names) if text is not None else {}
    own = {name: _own_curve(text, name) for name in own_curve_names(plan)} if text is not None else {}
    found = {name: kept.get(name) or _history(client, run.info.run_id, name) for name in names}
    return {**found, **{name: points for name, points in own.items() if points}}


def _own_curve(text: str, name: str) -> Curve:
    """Return a column of a run's curve file, without the epochs in which it has no value."""
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        return _points({int(row["epoch"]): float(row[name]) for row in rows if row[name] != ""})
    except (csv.Error, KeyError, TypeError, ValueError):
        return ()


def own_names(text: str) -> tuple[str, ...]:
    """Return the columns of a curve file that a user's training function wrote."""
    return tuple(name for name in next(csv.reader(text.splitlines()[:1]), []) if name != "epoch")


def parse_curves(text: str, names: Sequence[str]) -> dict[str, Curve]:
    """Return the named columns of a run's curve file over its epochs; nothing where the file is damaged."""
    try:
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        curves = {name: {int(row["epoch"]): float(row[name]) for row in rows} for name in names}
    except (csv.Error, KeyError, TypeError, ValueError):
        return {}
    return {name: _points(values) for name, values in curves.items()}


def _history(client: MlflowClient, run_id: str, name: str) -> Curve:
    return _points({entry.step: entry.value for entry in client.get_metric_history(run_id, name)})


def _points(values: Mapping[int, float]) -> Curve:
    return tuple(sorted((epoch, value) for epoch, value in values.items() if is_number(value)))


def _evaluation(data: DataFacts, artifacts: Artifacts, run: Run) -> tuple[RunEvaluation, Problems]:
    text, failure = artifacts.read(run, EVALUATION_FILE)
    evaluation, problems = checked_evaluation(text, data)
    return evaluation, (failure,) if failure else problems
