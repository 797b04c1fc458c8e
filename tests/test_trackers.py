"""The contract of trackers, held by the one in memory and by MLflow's."""

import base64
import contextlib
import json
import logging
import os
import pickle
import re
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan
from mlflow import MlflowClient

from ablation.errors import PlanUnreadable, TrackingUnavailable
from ablation.records import Outcome, Plan, RunResult
from ablation.testing import TrackerContract
from ablation.testing.trackers import PROVENANCE, answer_of, artifacts_in, epoch_of, report_in, result_of
from ablation.tracking import MemoryTracker, RunDescription, RunNews, StudyRecord, Tracker, open_mlflow
from ablation.tracking.mlflow.notes import MAX_DESCRIPTION, MAX_NOTE, experiment_description, is_ours, study_note
from ablation.tracking.mlflow.reading import children_of
from ablation.tracking.mlflow.views import saved_views, view_key

LAUNCHED = {"mlflow.project.entryPoint": "study"}


class TestMemoryTracker(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Tracker:
        return MemoryTracker()

    def report_files(self, tracker: Any, record: StudyRecord) -> list[str]:
        return list(tracker.reports[record.plan.name])

    def answers_of(self, tracker: Any, record: StudyRecord) -> Mapping[str, tuple[str, float | None]]:
        kept = tracker.answered[record.plan.name]
        return {name: (answer.verdict, answer.mean) for name, answer in kept.items()}


class TestMlflowTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, mlflow_tracker: Tracker, mlflow_client: MlflowClient) -> Tracker:
        self.client = mlflow_client
        return mlflow_tracker

    def report_files(self, tracker: Tracker, record: StudyRecord) -> list[str]:
        return [file.path for file in self.client.list_artifacts(record.study_run_id)]

    def answers_of(self, tracker: Tracker, record: StudyRecord) -> Mapping[str, tuple[str, float | None]]:
        kept = self.client.get_run(record.study_run_id).data
        verdicts = {key.removeprefix("verdict."): tag for key, tag in kept.tags.items() if key.startswith("verdict.")}
        return {name: (verdict, kept.metrics.get(f"effect.{name}")) for name, verdict in verdicts.items()}


def test_runs_that_a_killed_execution_left_are_put_right(mlflow_tracker: Any, mlflow_client: MlflowClient) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    first, second, *_ = record.plan.runs
    kept = mlflow_tracker.start_run(record, first, PROVENANCE, attempt="first")
    mlflow_tracker.finish_run(kept, result_of(first.identity), None)
    double = mlflow_client.create_run(record.experiment_id, tags=mlflow_client.get_run(kept).data.tags)
    mlflow_client.delete_tag(double.info.run_id, "ablation.outcome")
    left = mlflow_tracker.start_run(record, second, PROVENANCE, attempt="first")

    mlflow_tracker.reconcile(record)

    status = {run.info.run_id: run.info.status for run in children_of(mlflow_client, record)}
    assert {kept: "FINISHED", left: "KILLED"} == status


def test_an_artifact_stores_own_error_is_a_sentence(
    mlflow_tracker: Any, monkeypatch: pytest.MonkeyPatch, mlflow_client: MlflowClient
) -> None:
    error = type("ClientError", (Exception,), {"__module__": "botocore.exceptions"})
    record = mlflow_tracker.open_study(make_plan(seeds=1))

    def failing(*_: object) -> None:
        raise error("Access Denied")

    monkeypatch.setattr(mlflow_client, "log_artifacts", failing)
    with pytest.raises(TrackingUnavailable, match="Access Denied"):
        mlflow_tracker.log_report(record, Path(), overview=["It helps."], answers=[])


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
        mlflow_tracker.log_run(run_id, RunNews(epochs=[epoch_of(1)], heldout_split="test"))

    logger.removeHandler(caplog.handler)
    assert [] == caplog.records


def test_a_try_of_an_earlier_execution_is_removed_too(
    mlflow_tracker: Any, store_uri: str, mlflow_client: MlflowClient
) -> None:
    plan = make_plan(seeds=1)
    planned = plan.runs[0]
    other = open_mlflow(store_uri)
    mlflow_tracker.start_run(mlflow_tracker.open_study(plan), planned, PROVENANCE, attempt="first")
    other.start_run(other.open_study(plan), planned, PROVENANCE, attempt="second")

    record = mlflow_tracker.open_study(plan)
    last = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="third")

    assert [last] == [run.info.run_id for run in children_of(mlflow_client, record)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_does_not_become_one(
    mlflow_tracker: Any, tmp_path: Path, value: float, mlflow_client: MlflowClient
) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    mlflow_client.log_metric(run_id, "test_loss", value, step=9)

    found = mlflow_tracker.recorded_runs(record)[0]
    assert "test_loss" not in found.metrics
    assert ("metric test_loss is not a number",) == found.problems


@pytest.mark.parametrize("text", ["", "epoch,test_accuracy\n1,2\n", "epoch\n" + "x" * 200_000, "\0", "epoch\nx\n"])
def test_a_damaged_curve_file_is_replaced_by_the_metrics(
    mlflow_tracker: Any, tmp_path: Path, text: str, mlflow_client: MlflowClient
) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    mlflow_client.log_text(run_id, text, "curves.csv")

    found = mlflow_tracker.recorded_runs(record)[0]
    assert ((1, 1.0), (2, 1.0)) == found.curves["train_loss"]
    assert () == found.problems


def test_a_file_too_large_to_be_an_evaluation_is_not_read(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    artifacts = Path(mlflow_client.get_run(run_id).info.artifact_uri)
    with (artifacts / "evaluation.json").open("wb") as file:
        file.truncate(50_000_000)

    assert "larger than 32 MiB" in mlflow_tracker.recorded_runs(record)[0].problems[0]


def test_strange_tags_are_no_error(mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    for name in ("diverged_epoch", "git_commit", "torch_version"):
        mlflow_client.set_tag(run_id, f"ablation.{name}", "<b>| ²" * 800)

    found = mlflow_tracker.recorded_runs(record)[0]
    assert (Outcome.DONE, None) == (found.outcome, found.diverged_epoch)


def test_of_two_records_the_finished_one_counts(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    tags = mlflow_client.get_run(run_id).data.tags
    kept = {name: tags[name] for name in ("mlflow.parentRunId", "ablation.kind", "ablation.study", "ablation.identity")}
    later = mlflow_client.create_run(record.experiment_id, tags=kept, run_name="<i>" * 80).info.run_id

    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id
    assert [(later, f"another record of the same planned run is used, {run_id}")] == [
        (run.run_id, run.reason) for run in mlflow_tracker.left_out(record)
    ]


def test_of_two_finished_records_the_first_counts_and_alone_stays(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record, run_id = _finished(mlflow_tracker, tmp_path)
    run = mlflow_client.get_run(run_id)
    tags = {**run.data.tags, "ablation.attempt": "second"}
    later = mlflow_client.create_run(record.experiment_id, tags=tags, start_time=run.info.start_time - 1).info.run_id
    mlflow_client.set_terminated(later, end_time=run.info.end_time + 1)

    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id
    assert [later] == [left.run_id for left in mlflow_tracker.left_out(record)]
    mlflow_tracker.reconcile(record)
    assert () == mlflow_tracker.left_out(record)
    assert run_id == mlflow_tracker.recorded_runs(record)[0].run_id


def test_runs_that_name_the_study_or_stand_beside_it_are_left_out(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    ours = {"ablation.kind": "run", "ablation.study": "quick"}
    made = {
        name: mlflow_client.create_run(record.experiment_id, run_name=name, tags=tags).info.run_id
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
def test_a_plan_that_cannot_be_read_is_named(mlflow_tracker: Any, text: str, mlflow_client: MlflowClient) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    mlflow_client.log_text(record.study_run_id, text, "plan.json")

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


def test_an_adopted_launch_run_becomes_the_study_run(
    mlflow_tracker: Any, store_uri: str, mlflow_client: MlflowClient
) -> None:
    launch = mlflow_client.create_run("0", tags=LAUNCHED).info.run_id
    tracker = open_mlflow(store_uri, launch_run_id=launch, experiment_id="0")

    record = tracker.open_study(make_plan(seeds=1))

    assert launch == record.study_run_id
    assert "quick" == mlflow_client.get_run(launch).info.run_name


def test_a_second_launch_run_links_to_the_study_run_and_gets_the_report(
    mlflow_tracker: Any, store_uri: str, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    first, second = (mlflow_client.create_run("0", tags=LAUNCHED).info.run_id for _ in range(2))
    open_mlflow(store_uri, launch_run_id=first, experiment_id="0").open_study(make_plan(seeds=1))
    tracker = open_mlflow(store_uri, launch_run_id=second, experiment_id="0")
    record = tracker.open_study(make_plan(seeds=1))
    tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[answer_of("depth 2 to 3")])

    assert first == record.study_run_id
    assert first == mlflow_client.get_run(second).data.tags["ablation.study_run"]
    assert ["answers.json", "report.md"] == [file.path for file in mlflow_client.list_artifacts(second)]
    linked = mlflow_client.get_run(second)
    assert ("helps", 0.02) == (linked.data.tags["verdict.depth 2 to 3"], linked.data.metrics["effect.depth 2 to 3"])
    assert "digits" == linked.inputs.dataset_inputs[0].dataset.name


def test_the_study_run_has_each_effect_and_its_bounds_by_the_number_of_seeds(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    depth, norm = answer_of("depth", mean=0.02, seeds=5), answer_of("norm", mean=None, verdict="unstable", seeds=0)
    for answers in ([depth, norm], [depth, norm], [replace(depth, mean=0.03, low=float("nan"), seeds=8), norm]):
        mlflow_tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=answers)

    run_id = record.study_run_id
    names = ("effect.depth", "effect.depth.low", "effect.depth.high")
    history = {name: mlflow_client.get_metric_history(run_id, name) for name in names}
    assert {
        "effect.depth": [(5, 0.02), (8, 0.03)],
        "effect.depth.low": [(5, 0.01)],
        "effect.depth.high": [(5, 0.03)],
    } == {name: [(each.step, each.value) for each in values] for name, values in history.items()}
    assert set(names) == set(mlflow_client.get_run(run_id).data.metrics)


@pytest.mark.parametrize("seeds", [5, 3], ids=["as many seeds", "fewer"])
def test_an_effect_that_changes_is_the_one_that_mlflow_gives(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient, seeds: int
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    for answer in (answer_of("depth", mean=0.02, seeds=5), answer_of("depth", mean=-0.5, seeds=seeds)):
        mlflow_tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[answer])

    assert -0.5 == mlflow_client.get_run(record.study_run_id).data.metrics["effect.depth"]


def test_the_study_run_has_its_answers_as_one_table_and_the_data_set(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    answers = [answer_of("depth", mean=0.02), answer_of("norm", mean=None, verdict="unstable", seeds=0)]
    for _ in range(2):
        mlflow_tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=answers)

    table = mlflow_client.load_table(record.experiment_id, "answers.json", [record.study_run_id])
    assert ["change", "verdict", "effect", "low", "high", "unit", "metric", "seeds", "cost"] == list(table.columns)
    assert [("depth", "helps", 5), ("norm", "unstable", 0)] == list(
        table[["change", "verdict", "seeds"]].itertuples(index=False, name=None)
    )
    run = mlflow_client.get_run(record.study_run_id)
    assert [{"path": "answers.json", "type": "table"}] == json.loads(run.data.tags["mlflow.loggedArtifacts"])
    assert [record.plan.data.digest[:32]] == [used.dataset.digest for used in run.inputs.dataset_inputs]


def test_an_experiment_begins_with_what_its_study_found_and_counts_its_verdicts(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    plan = make_plan(description="Is it depth?", seeds=1)
    record = mlflow_tracker.open_study(plan)
    answers = [answer_of("norm", verdict="undecided"), answer_of("depth"), answer_of("width")]
    mlflow_tracker.log_report(record, report_in(tmp_path), overview=["depth helps (+2 points)."], answers=answers)
    mlflow_tracker.open_study(plan)  # resumed, before there is another report

    tags = mlflow_client.get_experiment(record.experiment_id).tags
    assert tags["mlflow.note.content"].startswith("depth helps (+2 points).\n\nIs it depth?\n\n[runs](")
    assert "2 helps, 1 undecided" == tags["verdicts"]


def test_an_experiment_says_nothing_of_a_study_that_was_deleted(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    plan = make_plan(description="Is it depth?", seeds=1)
    record = mlflow_tracker.open_study(plan)
    mlflow_tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[answer_of("depth")])
    mlflow_tracker.delete_study("quick")
    mlflow_tracker.open_study(plan)

    tags = mlflow_client.get_experiment(record.experiment_id).tags
    assert tags["mlflow.note.content"].startswith("Is it depth?")
    assert "verdicts" not in tags


def test_what_steers_terminals_or_breaks_databases_is_not_in_what_is_kept_of_a_report(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))

    mlflow_tracker.log_report(record, report_in(tmp_path), overview=["a\0b \ud800 \x1b[2J helps."], answers=[])

    tags = mlflow_client.get_run(record.study_run_id).data.tags
    assert tags["ablation.headline"].isprintable()
    assert tags["mlflow.note.content"].startswith("**a b &#91;2J helps.**")


def test_each_run_has_a_line_that_says_what_it_is_and_how_it_ended(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    failed = {"outcome": Outcome.FAILED, "metrics": {}, "error": "Traceback\nValueError: why"}
    diverged = {"outcome": Outcome.DIVERGED, "metrics": {}, "diverged_epoch": 2}
    for planned, changes in zip(record.plan.runs, ({}, failed, diverged), strict=False):
        run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
        mlflow_tracker.finish_run(run_id, replace(result_of(planned.identity), **changes), None)

    names = [planned.variant for planned in record.plan.runs]
    assert {
        f"{names[0]}, seed 0 of study quick: test accuracy 0.7",
        f"{names[1]}, seed 0 of study quick: failed: ValueError: why",
        f"{names[2]}, seed 0 of study quick: diverged in epoch 2",
    } == {run.data.tags["mlflow.note.content"].partition("\n")[0] for run in children_of(mlflow_client, record)}


def test_a_note_that_a_person_wrote_while_a_run_was_trained_stays(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
    mlflow_client.set_tag(run_id, "mlflow.note.content", "Mine.")
    mlflow_tracker.finish_run(run_id, result_of(planned.identity), None)

    assert "Mine." == mlflow_client.get_run(run_id).data.tags["mlflow.note.content"]


def test_the_runs_of_an_earlier_version_get_their_place_and_line_and_a_persons_note_stays(
    mlflow_tracker: Any, tmp_path: Path, mlflow_client: MlflowClient
) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    run_ids = []
    for planned in record.plan.runs[:2]:
        run_ids.append(mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first"))
        mlflow_tracker.finish_run(run_ids[-1], result_of(planned.identity), None)
        for tag in ("ablation.order", "mlflow.note.content"):
            mlflow_client.delete_tag(run_ids[-1], tag)
    mlflow_client.set_tag(run_ids[0], "mlflow.note.content", "Mine.")
    for _ in range(2):
        mlflow_tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[])

    first, second = (mlflow_client.get_run(run_id).data.tags for run_id in run_ids)
    assert ("000000.000000", "000001.000000") == (first["ablation.order"], second["ablation.order"])
    assert "Mine." == first["mlflow.note.content"]
    assert second["mlflow.note.content"].startswith(f"{record.plan.runs[1].variant}, seed 0 of study quick: ")


def test_the_table_of_runs_begins_with_the_baseline_by_seed_and_shows_metrics_first(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    plan = make_plan(
        factors={"model.depth": (3, 2, 4)}, seeds=11, metric={"name": "test_loss", "direction": "minimize"}
    )
    record = mlflow_tracker.open_study(plan)
    for planned in reversed(plan.runs):
        mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
    view = view_state(saved_views(plan)[f"mlflow.sharedViewState.{view_key(plan.name, 'runs')}"])

    order = f"{view['orderByKey']} {'ASC' if view['orderByAsc'] else 'DESC'}"
    runs = mlflow_client.search_runs([record.experiment_id], view["searchFilter"], order_by=[order])
    assert [f"depth={depth}/seed-{seed}" for depth in (3, 2, 4) for seed in range(11)] == [
        run.info.run_name for run in runs
    ]
    shown = ["metrics.`test_loss`", "metrics.`training_seconds`", "params.`model.depth`", "params.`seed`"]
    assert [*shown, "tags.`ablation.outcome`"] == view["selectedColumns"]


def test_a_run_has_the_metrics_on_the_held_out_split_first(mlflow_tracker: Any, mlflow_client: MlflowClient) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    run_id = mlflow_tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first")
    mlflow_tracker.log_run(run_id, RunNews(epochs=[epoch_of(1)], heldout_split="test"))

    assert ["test_accuracy", "test_loss"] == list(mlflow_client.get_run(run_id).data.metrics)[:2]


def test_a_study_that_is_reported_anew_ended_when_it_did(mlflow_tracker: Any, mlflow_client: MlflowClient) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    mlflow_client.set_terminated(record.study_run_id, "FINISHED", end_time=1_700_000_000_000)

    mlflow_tracker.close_study(record, "FINISHED")

    assert 1_700_000_000_000 == mlflow_client.get_run(record.study_run_id).info.end_time


def test_child_runs_carry_parameters_tags_and_the_data_set(mlflow_tracker: Any, mlflow_client: MlflowClient) -> None:
    record = mlflow_tracker.open_study(make_plan(seeds=1))
    planned = record.plan.runs[2]
    run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
    for _ in range(2):
        mlflow_tracker.log_run(run_id, RunNews(description=RunDescription.of(planned, record.plan)))
    run = mlflow_client.get_run(run_id)

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


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/#/experiments/7/runs/abc?workflowType=machine_learning"),
        ("https://me:word@host/ml/", "https://host/ml/#/experiments/7/runs/abc?workflowType=machine_learning"),
        ("sqlite:////absent/mlflow.db", None),
    ],
)
def test_a_runs_page_has_an_address_where_a_server_is_known_and_no_password_in_it(
    uri: str, address: str | None
) -> None:
    record = StudyRecord(study_run_id="study", experiment_id="7", plan=make_plan(seeds=1), status="FINISHED")

    assert address == open_mlflow(uri).run_address(record, "abc")


def test_studies_that_share_an_experiment_have_views_of_their_own(mlflow_tracker: Tracker) -> None:
    quick, other = (mlflow_tracker.open_study(make_plan(name=name, seeds=1)) for name in ("quick", "other"))

    assert not set(saved_views(quick.plan)) & set(saved_views(other.plan))
    assert dict(mlflow_tracker.links(quick))["by variant"] != dict(mlflow_tracker.links(other))["by variant"]


@pytest.mark.slow
def test_every_saved_view_is_one_that_mlflow_takes_however_many_variants_there_are() -> None:
    plan = make_plan(factors={"model.depth": range(40), "model.width": range(25)}, seeds=1)

    views = saved_views(plan)

    assert 3 == len(views)
    assert all(len(value) <= 20_000 for value in views.values())


def test_an_experiments_description_says_what_is_asked_and_lists_the_other_studies(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    mlflow_tracker = replace(mlflow_tracker, store=replace(mlflow_tracker.store, experiment_id="0"))
    for name in ("first", "second"):
        mlflow_tracker.open_study(make_plan(name=name, description="Is it depth?", seeds=1))

    text = mlflow_client.get_experiment("0").tags["mlflow.note.content"]
    assert text.startswith("Is it depth?\n\n[runs](#/experiments/0/runs")
    assert "\n\nStudy **second**: 4 variants × 1 seed on digits, compared with depth=2,normalization=none" in text
    assert "1. What does depth 2 → 3 do to test accuracy?" in text
    assert "Other studies here: [first](#/experiments/0/runs/" in text


@pytest.mark.parametrize(
    ("seeds", "said"),
    [(12, "4 variants × 12 seeds on"), ({"looks": [5, 12]}, "4 variants × 5 to 12 seeds (looks at 5, 12)")],
)
def test_an_experiments_description_says_how_many_seeds_and_at_which_looks(seeds: Any, said: str) -> None:
    plan = make_plan(seeds=12)

    assert said in experiment_description(
        replace(plan, study={**plan.study, "seeds": seeds}), found="", links={}, others={}
    )


def test_an_experiments_description_has_labels_where_the_study_file_has() -> None:
    plan = make_plan(seeds=1)
    depth = {"levels": [2, 3], "label": "blocks", "labels": {"3": "three"}}
    plan = replace(plan, study={**plan.study, "factors": {**plan.study["factors"], "model.depth": depth}})

    text = experiment_description(plan, found="", links={}, others={})

    assert "1. What does blocks 2 → three do to test accuracy?" in text
    assert "compared with blocks=2, normalization=none by test accuracy" in text


def test_a_description_that_a_person_wrote_or_edited_is_left_alone(
    mlflow_tracker: Any, mlflow_client: MlflowClient
) -> None:
    mlflow_tracker = replace(mlflow_tracker, store=replace(mlflow_tracker.store, experiment_id="0"))
    plan = make_plan(seeds=1)
    mlflow_tracker.open_study(plan)
    edited = "Mine. " + mlflow_client.get_experiment("0").tags["mlflow.note.content"]
    mlflow_client.set_experiment_tag("0", "mlflow.note.content", edited)
    mlflow_tracker.open_study(plan)

    assert edited == mlflow_client.get_experiment("0").tags["mlflow.note.content"]


def test_hostile_words_in_a_description_are_words() -> None:
    hostile = "<img src=x onerror=alert(1)> **bold** [x](javascript:alert(1)) @someone :smile: `code` " * 100
    text = experiment_description(make_plan(description=hostile), found=hostile, links={}, others={})

    assert len(text) <= MAX_DESCRIPTION
    shown = text.partition("<!--")[0].replace("**quick**", "")
    assert not set("<>*[]`@|~") & set(shown)
    assert is_ours(text)


def test_a_bar_in_a_name_is_as_it_is_where_descriptions_are_shown_as_written() -> None:
    text = experiment_description(make_plan(), found="norm none|batch helps.", links={}, others={})

    assert text.startswith("norm none|batch helps.")


def test_a_note_begins_with_the_verdict_and_its_picture_and_is_cut_between_paragraphs() -> None:
    answers = [answer_of("depth") for _ in range(300)]
    note = study_note(
        ["depth helps.", "1 of 300 decided."], answers, links={"report": "#/r"}, figure="get-artifact?path=f.png"
    )

    paragraphs = note.split("\n\n")
    first = "1. **depth helps**: by as much as was measured."
    assert len(note) <= MAX_NOTE
    assert ["**depth helps.**", "[report](#/r)", "1 of 300 decided.", first] == [paragraphs[0], *paragraphs[2:5]]
    assert paragraphs[1].endswith("(get-artifact?path=f.png)")
    assert "… The report has the rest." == paragraphs[-1]
    assert "299." not in note


def view_state(tag: str) -> dict[str, Any]:
    """Return the state in a saved view, as MLflow's UI reads it."""
    deflated = json.loads(tag)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(deflated)))
    return state


def _finished(tracker: Any, folder: Path) -> tuple[StudyRecord, str]:
    """Record the first run of a study as done, with nothing missing."""
    record = tracker.open_study(make_plan(seeds=1))
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
    tracker.log_run(run_id, RunNews(epochs=[epoch_of(1), epoch_of(2)], heldout_split="test"))
    tracker.finish_run(run_id, result_of(planned.identity), artifacts_in(folder))
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


VOLATILE = ("mlflow.parentRunId", "mlflow.user", "mlflow.source.name")
GOLDEN = Path(__file__).parent / "golden" / "mlflow-runs.json"
"""What a version that told epoch by epoch, with requests for everything, had recorded of `results`."""


@pytest.mark.parametrize("told", [0, 1, 2], ids=["all at its end", "an epoch before", "both epochs before"])
def test_what_mlflow_has_of_a_run_is_the_same_however_few_requests_tell_it(
    mlflow_tracker: Any, mlflow_client: MlflowClient, tmp_path: Path, told: int
) -> None:
    plan = make_plan(seeds=1)
    record, epochs = mlflow_tracker.open_study(plan), [epoch_of(1), epoch_of(2)]

    found = []
    for planned, result in zip(plan.runs, results(plan), strict=True):
        run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
        news = RunNews(description=RunDescription.of(planned, plan), epochs=epochs[:told], heldout_split="test")
        if told:
            mlflow_tracker.log_run(run_id, news)
        left = replace(news, description=None if told else news.description, epochs=epochs, told=told)
        for _ in range(2):
            mlflow_tracker.finish_run(run_id, result, artifacts_in(tmp_path), left)
        found.append(content_of(mlflow_client, run_id))

    golden = json.loads(GOLDEN.read_text())
    assert golden == json.loads(json.dumps(found))
    assert [list(run["metrics"]) for run in golden] == [list(run["metrics"]) for run in found]


def results(plan: Plan) -> list[RunResult]:
    done, diverged, failed, wrong = (
        replace(result_of(planned.identity), ended_ms=1_700_000_000_100, is_first=not number)
        for number, planned in enumerate(plan.runs)
    )
    return [
        done,
        replace(diverged, outcome=Outcome.DIVERGED, metrics={}, diverged_epoch=2, diverged_step=7),
        replace(failed, outcome=Outcome.FAILED, metrics={}, error="Traceback\nValueError: no", failure="code"),
        replace(wrong, path="fused", path_note="with others", left_out=("a figure could not be drawn",)),
    ]


def content_of(client: MlflowClient, run_id: str) -> dict[str, Any]:
    """Return all that MLflow has of a run, but for what another run of the same would have otherwise."""
    run = client.get_run(run_id)
    histories = {
        name: [[entry.value, entry.step, entry.timestamp] for entry in client.get_metric_history(run_id, name)]
        for name in run.data.metrics
    }
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "end_time": run.info.end_time,
        "params": dict(sorted(run.data.params.items())),
        "tags": {name: text for name, text in sorted(run.data.tags.items()) if name not in VOLATILE},
        "metrics": run.data.metrics,
        "histories": histories,
        "inputs": [
            [used.dataset.name, used.dataset.digest, used.dataset.source, used.dataset.profile]
            for used in run.inputs.dataset_inputs
        ],
        "files": sorted((file.path, file.file_size) for file in client.list_artifacts(run_id)),
    }
