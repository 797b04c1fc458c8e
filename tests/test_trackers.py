"""The contract of trackers, held by the one in memory and by MLflow's."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan

from ablation.errors import TrackingUnavailable
from ablation.results import EpochMetrics, Outcome, RunResult
from ablation.tracking import MemoryTracker, StudyRecord, Tracker, open_mlflow
from ablation.tracking.notes import MAX_DESCRIPTION, MAX_NOTE, experiment_description, is_ours, study_note
from ablation.tracking.saved_view import saved_views

PROVENANCE = {"device": "cpu", "host": "here"}


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    if request.param == "memory":
        return MemoryTracker()
    made: Tracker = request.getfixturevalue("mlflow_tracker")
    return made


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
    run_id = tracker.start_run(record, planned, PROVENANCE)
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    (artifacts / "confusion.json").write_text(json.dumps({"test": [[3, 1], [0, 4]]}))

    tracker.finish_run(run_id, _result(planned.identity), artifacts)

    found = tracker.recorded_runs(record)[1]
    assert (planned, run_id, Outcome.DONE) == (found.planned, found.run_id, found.outcome)
    assert 0.7 == found.metrics["test_accuracy"]
    assert ((1, 0.6), (2, 0.7)) == found.curves["test_accuracy"]
    assert {"test": ((3, 1), (0, 4))} == found.confusion
    assert ("cpu", "here") == (found.device, found.host)


def test_a_run_under_way_has_no_outcome(tracker: Tracker, record: StudyRecord) -> None:
    run_id = tracker.start_run(record, record.plan.runs[0], PROVENANCE)
    tracker.log_epochs(run_id, [_epoch(1)], heldout_split="test")

    assert tracker.recorded_runs(record)[0].outcome is None


def test_an_abandoned_run_has_no_outcome(tracker: Tracker, record: StudyRecord) -> None:
    tracker.abandon_run(tracker.start_run(record, record.plan.runs[0], PROVENANCE))

    assert tracker.recorded_runs(record)[0].outcome is None


def test_recording_the_same_epochs_again_changes_nothing(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE)
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.log_epochs(run_id, [_epoch(1), _epoch(2)], heldout_split="test")
    tracker.finish_run(run_id, _result(planned.identity), None)

    assert ((1, 0.6), (2, 0.7)) == tracker.recorded_runs(record)[0].curves["test_accuracy"]


def test_starting_a_run_again_removes_the_unfinished_try(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    first = tracker.start_run(record, planned, PROVENANCE)
    tracker.log_epochs(first, [_epoch(1)], heldout_split="test")
    second = tracker.start_run(record, planned, PROVENANCE)
    tracker.finish_run(second, _result(planned.identity), None)

    found = tracker.recorded_runs(record)[0]
    assert second == found.run_id
    assert first != second
    assert () == found.curves.get("train_loss", ())


def test_a_failed_run_keeps_its_error(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE)
    failed = replace(_result(planned.identity), outcome=Outcome.FAILED, metrics={}, error="Traceback\nValueError: why")
    tracker.finish_run(run_id, failed, None)

    found = tracker.recorded_runs(record)[0]
    assert Outcome.FAILED == found.outcome
    assert found.error is not None
    assert found.error.endswith("ValueError: why")


def test_a_diverged_run_keeps_its_epoch(tracker: Tracker, record: StudyRecord) -> None:
    planned = record.plan.runs[0]
    run_id = tracker.start_run(record, planned, PROVENANCE)
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
    tracker.finish_run(tracker.start_run(other, planned, PROVENANCE), _result(planned.identity), None)

    assert {None} == {run.outcome for run in tracker.recorded_runs(record)}
    assert ("other", "quick") == tracker.study_names()


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


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to be read as one" * 100)

    with pytest.raises(TrackingUnavailable, match=r"mlflow\.db"):
        open_mlflow(f"sqlite:///{tmp_path / 'mlflow.db'}").find_study("quick")


def test_a_folder_as_store_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrackingUnavailable, match="--tracking-uri"):
        open_mlflow(str(tmp_path / "mlruns")).find_study("quick")


def test_an_adopted_launch_run_becomes_the_study_run(mlflow_tracker: Any, store_uri: str) -> None:
    client = mlflow_tracker._client
    launch = client.create_run("0").info.run_id
    tracker = open_mlflow(store_uri, launch_run_id=launch, experiment_id="0")

    record = tracker.open_study(make_plan(seeds=1))

    assert launch == record.study_run_id
    assert "quick" == client.get_run(launch).info.run_name


def test_a_second_launch_run_links_to_the_study_run_and_gets_the_report(
    mlflow_tracker: Any, store_uri: str, tmp_path: Path
) -> None:
    client = mlflow_tracker._client
    first, second = (client.create_run("0").info.run_id for _ in range(2))
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
    run = mlflow_tracker._client.get_run(mlflow_tracker.start_run(record, planned, PROVENANCE))

    assert "depth=3,normalization=none/seed-0" == run.info.run_name
    assert ("3", "none", "0") == tuple(run.data.params[key] for key in ("model.depth", "model.normalization", "seed"))
    assert record.study_run_id == run.data.tags["mlflow.parentRunId"]
    assert planned.identity == run.data.tags["ablation.identity"]
    assert record.plan.data.digest.startswith(run.inputs.dataset_inputs[0].dataset.digest)


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
    mlflow_tracker = replace(mlflow_tracker, experiment_id="0")
    for name in ("first", "second"):
        mlflow_tracker.open_study(make_plan(name=name, description="Is it depth?", seeds=1))

    text = mlflow_tracker._client.get_experiment("0").tags["mlflow.note.content"]
    assert text.startswith("**Study second.** Is it depth?")
    assert "1. What does depth 2 → 3 do to test accuracy?" in text
    assert "Other studies here: [first](#/experiments/0/runs/" in text


def test_a_description_that_a_person_wrote_or_edited_is_left_alone(mlflow_tracker: Any) -> None:
    mlflow_tracker = replace(mlflow_tracker, experiment_id="0")
    plan = make_plan(seeds=1)
    mlflow_tracker.open_study(plan)
    client = mlflow_tracker._client
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
    metrics = {"test_accuracy": 0.7, "test_loss": 0.5}
    return RunResult(identity=identity, outcome=Outcome.DONE, metrics=metrics, epochs=2)


def _report_files(tracker: Any, record: StudyRecord) -> list[str]:
    if isinstance(tracker, MemoryTracker):
        return list(tracker.reports[record.plan.name][0])
    return [file.path for file in tracker._client.list_artifacts(record.study_run_id)]
