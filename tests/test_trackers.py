"""The contract of trackers, held by the one in memory and by MLflow's."""

import contextlib
import json
import logging
import os
import pickle
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan

from ablation.errors import PlanUnreadable, TrackingUnavailable
from ablation.records import METRICS, MODEL_FILE, EpochMetrics, Outcome, RunResult
from ablation.storage.holder import Holder
from ablation.tracking import MemoryTracker, RunDescription, StudyRecord, Tracker, open_mlflow
from ablation.tracking.mlflow.notes import MAX_DESCRIPTION, MAX_NOTE, experiment_description, is_ours, study_note
from ablation.tracking.mlflow.reading import children_of
from ablation.tracking.mlflow.views import saved_views

PROVENANCE = {
    "device": "cpu",
    "host": "here",
    "git_commit": "abc+changes",
    "torch_version": "2.15.0",
    "python_version": "3.11.7",
    "version": "1.0",
}
LAUNCHED = {"mlflow.project.entryPoint": "study"}
MATRIX = tuple(tuple(10 if true == guess else 1 for guess in range(4)) for true in range(4))
EVALUATION = {"confusion": {"train": MATRIX, "test": MATRIX}, "test_correct": "1" * 360}


@pytest.fixture
def record(tracker: Tracker) -> StudyRecord:
    return tracker.open_study(make_plan(seeds=2))


def test_an_unknown_study_is_none(tracker: Tracker) -> None:
    assert tracker.find_study("nobody's") is None
    assert () == tracker.study_names()


def test_an_opened_study_is_found_with_its_plan_whole(tracker: Tracker, record: StudyRecord) -> None:
    found = tracker.find_study("quick")

    assert found == record
    assert ("quick",) == tracker.study_names()


def test_opening_a_study_again_takes_the_same_study_run(tracker: Tracker, record: StudyRecord) -> None:
    again = tracker.open_study(make_plan(seeds=3))

    assert again.study_run_id == record.study_run_id
    assert 3 * 4 == len(tracker.recorded_runs(again))


def test_a_closed_study_has_the_status_it_was_closed_with(tracker: Tracker, record: StudyRecord) -> None:
    tracker.close_study(record, "KILLED")

    found = tracker.find_study("quick")
    assert found is not None
    assert "KILLED" == found.status


def test_every_planned_run_has_a_record_in_plan_order(tracker: Tracker, record: StudyRecord) -> None:
    recorded = tracker.recorded_runs(record)

    assert list(record.plan.runs) == [run.planned for run in recorded]
    assert {None} == {run.outcome for run in recorded}


def test_a_finished_run_is_given_back_as_it_was_recorded(tracker: Tracker, record: StudyRecord, tmp_path: Path) -> None:
    planned = record.plan.runs[1]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")

    tracker.finish_run(run_id, _result(planned.identity), _artifacts(tmp_path))

    found = tracker.recorded_runs(record)[1]
    assert (planned, run_id, Outcome.DONE) == (found.planned, found.run_id, found.outcome)
    assert 0.7 == found.metrics["test_accuracy"]
    assert ((1, 0.6), (2, 0.7)) == found.curves["test_accuracy"]
    assert {"train": MATRIX, "test": MATRIX} == found.confusion
    assert 360 == len(found.test_correct)
    assert ("cpu", "here", "abc+changes") == (found.device, found.host, found.commit)
    assert {"torch": "2.15.0", "python": "3.11.7", "ablation": "1.0"} == found.versions
    assert () == found.problems


def test_a_workers_first_run_is_known_as_one(tracker: Tracker, record: StudyRecord) -> None:
    for planned, is_first in zip(record.plan.runs[:2], (True, False), strict=True):
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.finish_run(run_id, replace(_result(planned.identity), is_first=is_first), None)

    assert [True, False] == [run.is_first for run in tracker.recorded_runs(record)[:2]]


def test_a_run_under_way_has_no_outcome(tracker: Tracker, record: StudyRecord) -> None:
    run_id = tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1)], heldout_split="test")

    assert tracker.recorded_runs(record)[0].outcome is None


def test_an_abandoned_run_has_no_outcome(tracker: Tracker, record: StudyRecord) -> None:
    tracker.abandon_run(tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first"))

    assert tracker.recorded_runs(record)[0].outcome is None


def test_recording_the_same_epochs_again_changes_nothing(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.finish_run(run_id, _result(planned.identity), None)

    assert ((1, 0.6), (2, 0.7)) == tracker.recorded_runs(record)[0].curves["test_accuracy"]


def test_starting_a_run_again_removes_the_unfinished_try(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    first = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(first, [_epoch(1)], heldout_split="test")
    second = tracker.start_run(record, planned, PROVENANCE, attempt="second")
    tracker.finish_run(second, _result(planned.identity), None)

    found = tracker.recorded_runs(record)[0]
    assert second == found.run_id
    assert first != second
    assert () == found.curves.get("train_loss", ())


@pytest.mark.parametrize("nonce", ["one", ""], ids=["lease", "of a version before leases"])
def test_a_study_says_who_runs_it(tracker: Tracker, record: StudyRecord, nonce: str) -> None:
    holder = Holder(host="here", pid=7, since="today", place="there", nonce=nonce, seen_ms=1)
    assert tracker.holder(record.study_run_id) is None

    tracker.hold(record.study_run_id, holder)

    assert holder == tracker.holder(record.study_run_id)
    tracker.close_study(record, "FINISHED")
    assert (holder if nonce else None) == tracker.holder(record.study_run_id)
    tracker.hold(record.study_run_id, None)
    assert tracker.holder(record.study_run_id) is None


def test_runs_that_a_killed_execution_left_are_put_right(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    client = mlflow_tracker.store.client
    first, second, *_ = record.plan.runs
    kept = mlflow_tracker.start_run(record, first, PROVENANCE, attempt="first")
    mlflow_tracker.finish_run(kept, _result(first.identity), None)
    double = client.create_run(record.experiment_id, tags=client.get_run(kept).data.tags)
    client.delete_tag(double.info.run_id, "ablation.outcome")
    left = mlflow_tracker.start_run(record, second, PROVENANCE, attempt="first")

    mlflow_tracker.reconcile(record)

    status = {run.info.run_id: run.info.status for run in children_of(client, record)}
    assert {kept: "FINISHED", left: "KILLED"} == status


def test_an_artifact_stores_own_error_is_a_sentence(mlflow_tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})
    record = mlflow_tracker.open_study(make_plan(seeds=1))

    def failing(*_: object) -> None:
        raise error("Access Denied")

    monkeypatch.setattr(mlflow_tracker.store.client, "log_artifacts", failing)
    with pytest.raises(TrackingUnavailable, match="Access Denied"):
        mlflow_tracker.log_report(record, Path(), summary="")


def test_what_a_database_refuses_is_a_sentence_and_mlflow_shows_no_traceback(
    mlflow_tracker: Any, store_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    planned = make_plan(seeds=1).runs[0]
    run_id = mlflow_tracker.start_run(mlflow_tracker.open_study(make_plan(seeds=1)), planned, PROVENANCE, attempt="1")
    with contextlib.closing(sqlite3.connect(store_uri.removeprefix("sqlite:///"))) as database:
        database.execute("DROP TABLE metrics")
    logger = logging.getLogger("mlflow.store.db.utils")  # MLflow's own handlers take what it says
    logger.addHandler(caplog.handler)

    with pytest.raises(TrackingUnavailable, match=r"\(sqlite3\.OperationalError\) no such table: metrics"):
        mlflow_tracker.log_epochs(run_id, [_epoch(1)], heldout_split="test")

    logger.removeHandler(caplog.handler)
    assert [] == caplog.records


def test_the_same_attempt_again_goes_on_with_its_run(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    first = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(first, [_epoch(1)], heldout_split="test")
    tracker.abandon_run(first)
    again = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(again, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.finish_run(again, _result(planned.identity), None)

    found = tracker.recorded_runs(record)[0]
    assert first == again == found.run_id
    assert ((1, 0.6), (2, 0.7)) == found.curves["test_accuracy"]


def test_a_try_of_an_earlier_execution_is_removed_too(mlflow_tracker: Any, store_uri: str) -> None:
    plan = make_plan(seeds=1)
    planned = plan.runs[0]
    other = open_mlflow(store_uri)
    mlflow_tracker.start_run(mlflow_tracker.open_study(plan), planned, PROVENANCE, attempt="first")
    other.start_run(other.open_study(plan), planned, PROVENANCE, attempt="second")

    record = mlflow_tracker.open_study(plan)
    last = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="third")

    assert [last] == [run.info.run_id for run in children_of(mlflow_tracker.store.client, record)]


def test_a_failed_run_keeps_its_error(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    failed = replace(_result(planned.identity), outcome=Outcome.FAILED, metrics={}, error="Traceback\nValueError: why")
    tracker.finish_run(run_id, failed, None)

    found = tracker.recorded_runs(record)[0]
    assert Outcome.FAILED == found.outcome
    assert found.error is not None
    assert found.error.endswith("ValueError: why")


def test_a_diverged_run_keeps_its_epoch(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1, train_loss=float("inf"))], heldout_split="test")
    diverged = replace(_result(planned.identity), outcome=Outcome.DIVERGED, metrics={}, diverged_epoch=1)
    tracker.finish_run(run_id, diverged, None)

    found = tracker.recorded_runs(record)[0]
    assert (Outcome.DIVERGED, 1) == (found.outcome, found.diverged_epoch)


def test_a_report_is_kept_with_the_study(tracker: Tracker, record: StudyRecord, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# It helps\n")

    tracker.log_report(record, tmp_path / "report", summary="It helps.")

    assert "report.md" in _report_files(tracker, record)


def test_two_studies_do_not_see_each_others_runs(tracker: Tracker, record: StudyRecord) -> None:
    other = tracker.open_study(make_plan(name="other", seeds=2))
    planned = other.plan.runs[0]
    tracker.finish_run(tracker.start_run(other, planned, PROVENANCE, attempt="first"), _result(planned.identity), None)

    assert {None} == {run.outcome for run in tracker.recorded_runs(record)}
    assert ("other", "quick") == tracker.study_names()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "evaluation.json is missing"),
        ("", "evaluation.json is damaged"),
        ("[1, 2]", "evaluation.json is damaged"),
        ("[" * 100_000, "evaluation.json is damaged"),
        ('{"confusion": {"test": [[Infinity]]}, "test_correct": ""}', "evaluation.json is damaged"),
        (
            json.dumps({**EVALUATION, "confusion": {"train": MATRIX, "test": [[1, 0], [0, 1]]}}),
            "evaluation.json has no confusion matrix of the test split",
        ),
        (
            json.dumps({**EVALUATION, "test_correct": "101"}),
            "evaluation.json lacks an answer for some of the 360 test images",
        ),
    ],
    ids=["missing", "empty", "list", "deep", "infinite", "other size", "other length"],
)
def test_a_damaged_evaluation_is_a_problem_of_a_run_that_counts(
    tracker: Tracker, record: StudyRecord, tmp_path: Path, text: str | None, problem: str
) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1)], heldout_split="test")
    tracker.finish_run(run_id, _result(planned.identity), _artifacts(tmp_path, text))

    found = tracker.recorded_runs(record)[0]
    assert (Outcome.DONE, 0.7, (problem,)) == (found.outcome, found.metrics["test_accuracy"], found.problems)


def test_missing_curves_and_metrics_are_problems(tracker: Tracker, record: StudyRecord, tmp_path: Path) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.finish_run(run_id, replace(_result(planned.identity), metrics={}), _artifacts(tmp_path))

    problems = tracker.recorded_runs(record)[0].problems
    assert {"no metric test_loss", "no curve of test_accuracy"} <= set(problems)


def test_a_run_that_is_planned_no_more_is_left_out(tracker: Tracker, record: StudyRecord) -> None:
    run_id = tracker.start_run(record, record.plan.runs[-1], PROVENANCE, attempt="first")
    smaller = tracker.open_study(make_plan(seeds=1))

    assert () == tracker.left_out(record)
    assert [(run_id, "it is none of the planned runs")] == [
        (run.run_id, run.reason) for run in tracker.left_out(smaller)
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_does_not_become_one(mlflow_tracker: Any, tmp_path: Path, value: float) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    mlflow_tracker.store.client.log_metric(run_id, "test_loss", value, step=9)

    found = mlflow_tracker.recorded_runs(record)[0]
    assert "test_loss" not in found.metrics
    assert ("metric test_loss is not a number",) == found.problems


@pytest.mark.parametrize("text", ["", "epoch,test_accuracy\n1,2\n", "epoch\n" + "x" * 200_000, "\0", "epoch\nx\n"])
def test_a_damaged_curve_file_is_replaced_by_the_metrics(mlflow_tracker: Any, tmp_path: Path, text: str) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    mlflow_tracker.store.client.log_text(run_id, text, "curves.csv")

    found = mlflow_tracker.recorded_runs(record)[0]
    assert ((1, 1.0), (2, 1.0)) == found.curves["train_loss"]
    assert () == found.problems


def test_a_file_that_a_run_left_is_read_back_whole_or_not_at_all(
    tracker: Tracker, record: StudyRecord, tmp_path: Path
) -> None:
    planned, artifacts = record.plan.runs[0], _artifacts(tmp_path)
    (artifacts / MODEL_FILE).write_bytes(b"\x80tensors")
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.finish_run(run_id, _result(planned.identity), artifacts)

    assert (b"\x80tensors", "") == tracker.run_file(run_id, MODEL_FILE, limit=8)
    assert (None, "") == tracker.run_file(run_id, "absent.pt", limit=8)
    content, problem = tracker.run_file(run_id, MODEL_FILE, limit=7)
    assert content is None
    assert f"{MODEL_FILE} is damaged: it is larger than" in problem


def test_a_file_too_large_to_be_an_evaluation_is_not_read(mlflow_tracker: Any, tmp_path: Path) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    artifacts = Path(mlflow_tracker.store.client.get_run(run_id).info.artifact_uri)
    with (artifacts / "evaluation.json").open("wb") as file:
        file.truncate(50_000_000)

    assert "larger than 32 MiB" in mlflow_tracker.recorded_runs(record)[0].problems[0]


def test_strange_tags_are_no_error(mlflow_tracker: Any, tmp_path: Path) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    for name in ("diverged_epoch", "git_commit", "torch_version"):
        mlflow_tracker.store.client.set_tag(run_id, f"ablation.{name}", "<b>| ²" * 800)

    found = mlflow_tracker.recorded_runs(record)[0]
    assert (Outcome.DONE, None) == (found.outcome, found.diverged_epoch)


def test_of_two_records_the_finished_one_counts(mlflow_tracker: Any, tmp_path: Path) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    tags = mlflow_tracker.store.client.get_run(run_id).data.tags
    kept = {name: tags[name] for name in ("mlflow.parentRunId", "ablation.kind", "ablation.study", "ablation.identity")}
    later = mlflow_tracker.store.client.create_run(record.experiment_id, tags=kept, run_name="<i>" * 80).info.run_id

    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id
    assert [(later, f"another record of the same planned run is used, {run_id}")] == [
        (run.run_id, run.reason) for run in mlflow_tracker.left_out(record)
    ]


def test_of_two_finished_records_the_first_counts_and_alone_stays(mlflow_tracker: Any, tmp_path: Path) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    client = mlflow_tracker.store.client
    run = client.get_run(run_id)
    tags = {**run.data.tags, "ablation.attempt": "second"}
    later = client.create_run(record.experiment_id, tags=tags, start_time=run.info.start_time - 1).info.run_id
    client.set_terminated(later, end_time=run.info.end_time + 1)

    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id
    assert [later] == [left.run_id for left in mlflow_tracker.left_out(record)]
    mlflow_tracker.reconcile(record)
    assert () == mlflow_tracker.left_out(record)
    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id


def test_runs_that_name_the_study_or_stand_beside_it_are_left_out(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    client = mlflow_tracker.store.client
    ours = {"ablation.kind": "run", "ablation.study": "quick"}
    made = {
        name: client.create_run(record.experiment_id, run_name=name, tags=tags).info.run_id
        for name, tags in {
            "alone": ours,
            "elsewhere": {**ours, "mlflow.parentRunId": "another"},
            "nested": {"mlflow.parentRunId": record.study_run_id, "mlflow.source.name": "a notebook"},
            "stranger": {"mlflow.source.name": "a notebook"},
        }.items()
    }

    found = mlflow_tracker.left_out(record)
    assert list(made.values()) == [run.run_id for run in found]
    assert "1 other runs, the latest stranger" == found[-1].name


@pytest.mark.parametrize("text", ['{"format": 2}', "[]", "[" * 100_000, "", '{"format": 1}'])
def test_a_plan_that_cannot_be_read_is_named(mlflow_tracker: Any, text: str) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    mlflow_tracker.store.client.log_text(record.study_run_id, text, "plan.json")

    with pytest.raises(PlanUnreadable, match=r"study 'quick' is recorded, and its plan\.json at .* cannot be used"):
        mlflow_tracker.find_study("quick")


@pytest.mark.parametrize("name", ["it's", "a`b", "<b>", "x" * 5_000, "\\"])
def test_a_strange_name_is_looked_for_without_a_traceback(mlflow_tracker: Any, name: str) -> None:
    mlflow_tracker.open_study(make_plan(seeds=1))

    with contextlib.suppress(TrackingUnavailable):
        assert mlflow_tracker.find_study(name) is None


def test_mlflows_tracker_works_after_pickling(mlflow_tracker: Tracker) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    copy: Tracker = pickle.loads(pickle.dumps(mlflow_tracker))

    assert record == copy.find_study("quick")


def test_looking_for_a_study_creates_no_store(tmp_path: Path) -> None:
    tracker = open_mlflow(f"sqlite:///{tmp_path / 'absent.db'}")

    assert tracker.find_study("quick") is None
    assert () == tracker.study_names()
    assert [] == list(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_named() -> None:
    tracker = open_mlflow("http://127.0.0.1:9")

    with pytest.raises(TrackingUnavailable, match=r"127\.0\.0\.1:9.*--tracking-uri"):
        tracker.find_study("quick")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "is_healthy"), [(None, False), (None, True), (500, False), (500, True), (503, True), (200, True)]
)
def test_a_server_that_does_not_serve_is_named_within_15_seconds(
    status: int | None, is_healthy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with _broken_server(status, is_healthy=is_healthy) as uri:
        begun = time.monotonic()
        with pytest.raises(TrackingUnavailable, match=f"{re.escape(uri)}.*--tracking-uri or MLFLOW_TRACKING_URI"):
            open_mlflow(uri, is_impatient=True).find_study("quick")
        seconds = time.monotonic() - begun

    assert seconds < 15
    assert before.items() >= {key: os.environ[key] for key in os.environ if key.startswith("MLFLOW_HTTP")}.items()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 100)

    with pytest.raises(TrackingUnavailable, match=r"mlflow\.db"):
        open_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}").find_study("quick")


def test_a_folder_as_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrackingUnavailable, match="--tracking-uri"):
        open_mlflow(str(tmp_path / "mlruns")).find_study("quick")


def test_an_adopted_launch_run_becomes_the_study_run(mlflow_tracker: Any, store_uri: str) -> None:
    client = mlflow_tracker.store.client
    launch = client.create_run("0", tags=LAUNCHED).info.run_id
    tracker = open_mlflow(store_uri, launch_run_id=launch, experiment_id="0")

    record = tracker.open_study(make_plan(seeds=1))

    assert launch == record.study_run_id
    assert "quick" == client.get_run(launch).info.run_name


def test_a_second_launch_run_links_to_the_study_run_and_gets_the_report(
    mlflow_tracker: Any, store_uri: str, tmp_path: Path
) -> None:
    client = mlflow_tracker.store.client
    first, second = (client.create_run("0", tags=LAUNCHED).info.run_id for _ in range(2))
    open_mlflow(store_uri, launch_run_id=first, experiment_id="0").open_study(make_plan(seeds=1))
    tracker = open_mlflow(store_uri, launch_run_id=second, experiment_id="0")
    record = tracker.open_study(make_plan(seeds=1))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# It helps\n")
    tracker.log_report(record, tmp_path / "report", summary="It helps.")

    assert first == record.study_run_id
    assert first == client.get_run(second).data.tags["ablation.study_run"]
    assert ["report.md"] == [file.path for file in client.list_artifacts(second)]


def test_child_runs_carry_parameters_tags_and_the_data_set(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    planned = record.plan.runs[2]
    run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
    for _ in range(2):
        mlflow_tracker.describe_run(run_id, RunDescription.of(planned, record.plan))
    run = mlflow_tracker.store.client.get_run(run_id)

    assert "depth=3,normalization=none/seed-0" == run.info.run_name
    assert ("3", "none", "0") == tuple(run.data.params[key] for key in ("model.depth", "model.normalization", "seed"))
    assert record.study_run_id == run.data.tags["mlflow.parentRunId"]
    assert planned.identity == run.data.tags["ablation.identity"]
    assert [record.plan.data.digest[:32]] == [used.dataset.digest for used in run.inputs.dataset_inputs]


def test_links_open_the_saved_view_in_the_machine_learning_mode(mlflow_tracker: Tracker) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))

    links = dict(mlflow_tracker.links(record))

    assert "workflowType=machine_learning&viewStateShareKey=" in links["runs"]
    assert "workflowType=machine_learning" in links["study run"]


def test_studies_that_share_an_experiment_have_views_of_their_own(mlflow_tracker: Tracker) -> None:
    quick, other = (mlflow_tracker.open_study(make_plan(name=name, seeds=1)) for name in ("quick", "other"))

    assert not set(saved_views(quick.plan)) & set(saved_views(other.plan))
    assert dict(mlflow_tracker.links(quick))["by variant"] != dict(mlflow_tracker.links(other))["by variant"]


def test_every_saved_view_is_one_that_mlflow_takes_however_many_variants_there_are() -> None:
    plan = make_plan(factors={"model.depth": range(40), "model.width": range(25)}, seeds=1)

    views = saved_views(plan)

    assert 3 == len(views)
    assert all(len(value) <= 20_000 for value in views.values())


def test_an_experiments_description_says_what_is_asked_and_lists_the_other_studies(mlflow_tracker: Any) -> None:
    mlflow_tracker = replace(mlflow_tracker, store=replace(mlflow_tracker.store, experiment_id="0"))
    for name in ("first", "second"):
        mlflow_tracker.open_study(make_plan(name=name, description="Is it depth?", seeds=1))

    text = mlflow_tracker.store.client.get_experiment("0").tags["mlflow.note.content"]
    assert text.startswith("**Study second.** Is it depth?")
    assert "1. What does depth 2 → 3 do to test accuracy?" in text
    assert "Other studies here: [first](#/experiments/0/runs/" in text


def test_a_description_that_a_person_wrote_or_edited_is_left_alone(mlflow_tracker: Any) -> None:
    mlflow_tracker = replace(mlflow_tracker, store=replace(mlflow_tracker.store, experiment_id="0"))
    plan = make_plan(seeds=1)
    mlflow_tracker.open_study(plan)
    client = mlflow_tracker.store.client
    edited = "Mine. " + client.get_experiment("0").tags["mlflow.note.content"]
    client.set_experiment_tag("0", "mlflow.note.content", edited)
    mlflow_tracker.open_study(plan)

    assert edited == client.get_experiment("0").tags["mlflow.note.content"]


def test_hostile_words_in_a_description_are_words() -> None:
    hostile = "<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)) @someone :smile: `code` " * 100
    text = experiment_description(make_plan(description=hostile), links={}, others={})

    assert len(text) <= MAX_DESCRIPTION
    shown = text.partition("<!--")[0].replace("**Study quick.**", "")
    assert not set("<>*[]`@|~") & set(shown)
    assert is_ours(text)


def test_a_note_begins_with_the_answers_and_is_cut_between_paragraphs() -> None:
    lines = ["1 of 300 comparisons decided.", *(f"{number}. depth helps: by a lot." for number in range(1, 301))]
    note = study_note("\n".join(lines), links={"report": "#/r"}, figure="get-artifact?path=f.png")

    paragraphs = note.split("\n\n")
    assert len(note) <= MAX_NOTE
    assert ["1 of 300 comparisons decided.", "[report](#/r)", "1. **depth helps**: by a lot."] == paragraphs[:3]
    assert "… The report has the rest." == paragraphs[-2]
    assert paragraphs[-1].startswith("![")
    assert all(paragraph.endswith(": by a lot.") for paragraph in paragraphs[2:-2])


def _epoch(epoch: int, *, train_loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=0.5,
        sample_loss=0.9,
        sample_accuracy=0.55,
        heldout_loss=1.1,
        heldout_accuracy=round(0.5 + epoch / 10, 1),
        learning_rate=1e-3,
        seconds=2.0,
        images_per_second=100.0,
        timestamp_ms=1_700_000_000_000 + epoch,
    )


def _result(identity: str) -> RunResult:
    metrics = {**dict.fromkeys(METRICS, 0.5), "test_accuracy": 0.7}
    return RunResult(identity=identity, outcome=Outcome.DONE, metrics=metrics, epochs=2)


def _artifacts(folder: Path, evaluation: str | None = json.dumps(EVALUATION)) -> Path:
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    if evaluation is not None:
        (artifacts / "evaluation.json").write_text(evaluation)
    return artifacts


def _finished(tracker: Any, folder: Path) -> tuple[StudyRecord, str]:
    """Record the first run of a study as done, with nothing missing."""
    record = tracker.open_study(make_plan(seeds=1))
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.finish_run(run_id, _result(planned.identity), _artifacts(folder))
    return record, run_id


@contextlib.contextmanager
def _broken_server(status: int | None, *, is_healthy: bool) -> Iterator[str]:
    """Serve one status and a page of HTML, or no answer where the status is None; /health alone may be well."""
    ended = threading.Event()

    class Broken(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            chosen = 200 if is_healthy and self.path == "/health" else status
            if chosen is None:
                ended.wait()
                return
            self.send_response(chosen)
            self.send_header("Retry-After", "3600")
            self.end_headers()
            self.wfile.write(b"<html>Welcome</html>")

        do_POST = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _report_files(tracker: Any, record: StudyRecord) -> list[str]:
    if isinstance(tracker, MemoryTracker):
        return list(tracker.reports[record.plan.name][0])
    return [file.path for file in tracker.store.client.list_artifacts(record.study_run_id)]


def test_a_data_set_with_a_name_of_any_length_is_recorded_with_its_runs(tracker: Tracker) -> None:
    plan = make_plan()
    plan = replace(plan, data=replace(plan.data, name=f"{'long/' * 800}data.py:load"))
    record = tracker.open_study(plan)
    run_id = tracker.start_run(record, plan.runs[0], {}, attempt="one")

    tracker.describe_run(run_id, RunDescription.of(plan.runs[0], plan))
    tracker.finish_run(run_id, _result(plan.runs[0].identity), None)

    assert Outcome.DONE is tracker.recorded_runs(record)[0].outcome
