"""What was deleted is gone: in MLflow to the trash, here for good; it is trained again, not found in a folder."""

import dataclasses
import errno
import gc
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from click.testing import CliRunner
from conftest import TINY
from factories import make_plan
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from ablation.cli import main
from ablation.coordinator.deletion import delete_study, holdings_of
from ablation.errors import AblationError, StudyDeleted, StudyLocked, StudyNowhere, TrackingUnavailable, VariantsAlike
from ablation.pipeline import find_study
from ablation.records import Outcome, RunResult
from ablation.scheduling import default_storage
from ablation.storage.holder import this_process
from ablation.storage.locks import coordinating
from ablation.storage.state import State
from ablation.study import Study, parse_override, parse_study
from ablation.tracking import MemoryTracker, Tracker

ALL = {Outcome.DONE: 4}


def small(*changes: str, name: str = "tiny") -> Study:
    """Return a study of four runs."""
    return parse_study(
        TINY, source="tiny.yaml", name=name, overrides=[parse_override(c) for c in ("seeds=1", *changes)]
    )


@pytest.fixture
def tiny() -> Study:
    return small()


@pytest.fixture
def in_mlflow(bench: Bench, mlflow_tracker: Tracker) -> Bench:
    bench.tracker = mlflow_tracker
    return bench


@pytest.fixture
def client(store_uri: str) -> MlflowClient:
    return MlflowClient(store_uri)


def deleted(bench: Bench, name: str) -> Any:
    storage = default_storage(bench.state.folder)
    return delete_study(name, tracker=bench.tracker, storage_url=storage, state=bench.state)


def study_run_of(bench: Bench, study: Study) -> Any:
    record = bench.tracker.find_study(study.name)
    assert record is not None
    return record


def children(client: MlflowClient, experiment_id: str, view: int = ViewType.ACTIVE_ONLY) -> list[Any]:
    return list(client.search_runs([experiment_id], "tags.`ablation.kind` = 'run'", run_view_type=view))


def optuna_studies(bench: Bench) -> list[str]:
    with sqlite3.connect(bench.state.folder / "optuna.db") as database:
        return [name for (name,) in database.execute("select study_name from studies")]


def test_a_deleted_study_is_unknown_and_its_runs_are_remembered_as_deleted(tracker: Tracker) -> None:
    plan = make_plan(seeds=2)
    record = tracker.open_study(plan)
    other = tracker.open_study(make_plan(name="other", seeds=1))
    for planned in plan.runs[:2]:
        run_id = tracker.start_run(record, planned, {}, attempt="first")
        result = RunResult(identity=planned.identity, outcome=Outcome.DONE, metrics={"test_accuracy": 0.5}, epochs=1)
        tracker.finish_run(run_id, result, None)
    assert 3 == tracker.count_runs(plan.name)
    assert not tracker.is_deleted(plan.name)

    tracker.delete_study(plan.name)

    assert tracker.find_study(plan.name) is None
    assert tracker.is_deleted(plan.name)
    assert 0 == tracker.count_runs(plan.name)
    assert {run.identity for run in plan.runs[:2]} == tracker.identities(plan.name)
    assert (other.plan.name,) == tracker.study_names()


def test_a_study_run_that_was_deleted_while_it_was_held_is_no_deletion(
    mlflow_tracker: Tracker, client: MlflowClient
) -> None:
    holder = dataclasses.replace(this_process(nonce="mine"), seen_ms=time.time_ns() // 1_000_000)
    record = mlflow_tracker.open_study(make_plan(seeds=1), holder=holder)

    client.delete_run(record.study_run_id)

    assert not mlflow_tracker.is_deleted(record.plan.name)


def test_a_study_that_its_holder_deletes_is_deleted_at_once(mlflow_tracker: Tracker) -> None:
    holder = dataclasses.replace(this_process(nonce="mine"), seen_ms=time.time_ns() // 1_000_000)
    name = mlflow_tracker.open_study(make_plan(seeds=1), holder=holder).plan.name

    mlflow_tracker.delete_study(name)

    assert mlflow_tracker.is_deleted(name)


@pytest.mark.slow
def test_a_deletion_leaves_nothing_of_a_study_and_all_of_others(bench: Bench, tiny: Study) -> None:
    other = small("training.epochs=3", name="other")
    bench.run(tiny)
    bench.run(other)
    theirs = sorted(path.name for path in (bench.state.folder / "runs").glob("*"))
    mine = {run.identity for run in study_run_of(bench, tiny).plan.runs}

    found = deleted(bench, tiny.name)

    assert (tiny.name, 5, mine) == (found.name, found.runs, found.identities)
    assert [name for name in theirs if name not in mine] == sorted(
        path.name for path in (bench.state.folder / "runs").glob("*")
    )
    assert not bench.state.report(tiny.name).exists()
    assert bench.state.report(other.name).exists()
    assert [other.name] == optuna_studies(bench)
    assert (other.name,) == bench.tracker.study_names()
    with pytest.raises(StudyNowhere, match="there is no study 'tiny' to delete, neither in MLflow"):
        deleted(bench, tiny.name)

    assert bench.run(tiny).ended == ALL
    assert 4 == len(bench.trained)


def _folders(state: State) -> list[Path]:
    """Make folders in a state folder and one beside it; return all there are."""
    for name in ("begun/tiny", "reports/tiny", "runs/tiny", "tuning/tiny", "../mine/begun"):
        (state.folder / name).mkdir(parents=True)
    return sorted(state.folder.parent.rglob("*"))


@pytest.mark.parametrize("name", ["", ".", "..", "../../mine", "{beside}"])
def test_a_name_that_leads_elsewhere_deletes_nothing(tmp_path: Path, name: str) -> None:
    state, tracker = State(folder=tmp_path / "state"), MemoryTracker()
    before = _folders(state)
    named = name.format(beside=tmp_path / "mine")

    with pytest.raises(StudyNowhere):
        holdings_of(named, tracker=tracker, state=state)
    with pytest.raises(StudyNowhere):
        delete_study(named, tracker=tracker, storage_url=default_storage(state.folder), state=state)
    state.remove(named, ())

    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("identity", ["", "..", "../../mine", "{beside}"])
def test_an_identity_that_leads_elsewhere_is_no_folder_of_a_study(tmp_path: Path, identity: str) -> None:
    state = State(folder=tmp_path / "state")
    before = _folders(state)
    found = [identity.format(beside=tmp_path / "mine")]

    state.set_aside("other", found)
    state.remove("other", found)

    assert before == sorted(tmp_path.rglob("*"))


def test_a_deletion_that_was_cut_off_is_gone_on_with(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(bench.tracker, "delete_study", _unreachable)
        with pytest.raises(TrackingUnavailable):
            deleted(bench, tiny.name)

    deleted(bench, tiny.name)

    assert () == bench.tracker.study_names()


def test_a_folder_that_cannot_be_removed_is_told_and_the_study_stays(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", _forbidden)
        with pytest.raises(PermissionError):
            deleted(bench, tiny.name)

    assert (tiny.name,) == bench.tracker.study_names()


def _forbidden(path: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def _unreachable(_name: str) -> None:
    raise TrackingUnavailable("here", "gone")


def test_a_schedule_that_cannot_be_read_keeps_no_study_from_being_deleted(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    gc.collect()  # which closes the file
    (bench.state.folder / "optuna.db").write_bytes(b"no database" * 500)

    deleted(bench, tiny.name)

    assert () == bench.tracker.study_names()
    assert [] == optuna_studies(bench)


def test_a_study_that_is_run_is_not_deleted(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    storage = default_storage(bench.state.folder)

    with (
        coordinating(tiny.name, storage_url=storage, folder=bench.state.locks),
        pytest.raises(StudyLocked),
    ):
        deleted(bench, tiny.name)

    assert (tiny.name,) == bench.tracker.study_names()


@pytest.mark.slow
def test_a_study_run_deleted_by_hand_is_trained_again_unless_reuse_is_asked_for(
    in_mlflow: Bench, tiny: Study, client: MlflowClient
) -> None:
    in_mlflow.run(tiny)
    before = in_mlflow.metrics(tiny)
    client.delete_run(study_run_of(in_mlflow, tiny).study_run_id)

    assert ALL == in_mlflow.run(tiny).ended
    assert 4 == len(in_mlflow.trained)
    assert before == in_mlflow.metrics(tiny)
    place = in_mlflow.state.folder / "deleted" / tiny.name
    assert [
        f"the study was deleted in MLflow: what was trained of it is set aside in {place}, and taken with --reuse "
        "alone, as long as it is not trained again"
    ] == in_mlflow.notes[:1]

    client.delete_run(study_run_of(in_mlflow, tiny).study_run_id)
    in_mlflow.is_reused = True
    assert ALL == in_mlflow.run(tiny).ended
    assert [] == in_mlflow.trained
    assert before == in_mlflow.metrics(tiny)
    assert not place.exists()


@pytest.mark.slow
def test_reuse_brings_back_what_was_set_aside(in_mlflow: Bench, tiny: Study, client: MlflowClient) -> None:
    in_mlflow.run(tiny)
    client.delete_run(study_run_of(in_mlflow, tiny).study_run_id)
    steps = in_mlflow.steps(tiny)
    for progress in steps:
        if progress.note is not None and "with --reuse alone" in progress.note:
            break
    steps.close()

    in_mlflow.is_reused = True
    assert ALL == in_mlflow.run(tiny).ended
    assert [] == in_mlflow.trained


@pytest.mark.slow
def test_an_experiment_deleted_by_hand_is_refused_and_begun_anew_when_asked(
    in_mlflow: Bench, tiny: Study, client: MlflowClient
) -> None:
    in_mlflow.run(tiny)
    experiment_id = study_run_of(in_mlflow, tiny).experiment_id
    client.delete_experiment(experiment_id)

    with pytest.raises(AblationError, match=r"the experiment 'tiny' is in MLflow's trash: .* --fresh"):
        in_mlflow.run(tiny)

    with pytest.raises(StudyDeleted, match=r"'tiny' was deleted .* lies in the trash"):
        find_study(tiny.name, tracker=in_mlflow.tracker)
    in_mlflow.is_fresh = True
    assert ALL == in_mlflow.run(tiny).ended
    assert 4 == len(in_mlflow.trained)
    assert 4 == len(children(client, experiment_id))
    assert 4 == len(children(client, experiment_id, ViewType.DELETED_ONLY))


@pytest.mark.slow
def test_another_name_uses_no_folders_of_a_deleted_experiment(
    in_mlflow: Bench, tiny: Study, client: MlflowClient
) -> None:
    in_mlflow.run(tiny)
    client.delete_experiment(study_run_of(in_mlflow, tiny).experiment_id)
    with pytest.raises(AblationError, match="trash"):
        in_mlflow.run(tiny)

    in_mlflow.run(small(name="new"))

    assert 4 == len(in_mlflow.trained)


@pytest.mark.slow
def test_fresh_trains_all_anew_and_leaves_the_old_runs_in_the_trash(
    in_mlflow: Bench, tiny: Study, client: MlflowClient
) -> None:
    in_mlflow.run(tiny)
    record, before = study_run_of(in_mlflow, tiny), in_mlflow.metrics(tiny)
    in_mlflow.is_fresh = True

    assert ALL == in_mlflow.run(tiny).ended
    assert 4 == len(in_mlflow.trained)
    assert before == in_mlflow.metrics(tiny)
    assert record.study_run_id != study_run_of(in_mlflow, tiny).study_run_id
    assert 4 == len(children(client, record.experiment_id))
    assert 4 == len(children(client, record.experiment_id, ViewType.DELETED_ONLY))
    assert "begun anew: what was recorded of the study before is in MLflow's trash" in in_mlflow.notes


@pytest.mark.slow
def test_fresh_needs_nothing_of_before_and_takes_another_plan(bench: Bench, tiny: Study) -> None:
    bench.is_fresh = True
    bench.run(tiny)

    assert ALL == bench.run(small("alpha=0.1")).ended
    assert () == study_run_of(bench, tiny).plan.deviations
    assert 4 == len(bench.trained)


def test_fresh_deletes_nothing_for_a_file_that_cannot_be_run(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    folders = sorted((bench.state.folder / "runs").glob("*"))
    twice = "factors={model.remove: [[], [blocks.block1.activation], ['blocks.block1.act*']]}"
    bench.is_fresh = True

    with pytest.raises(VariantsAlike):
        bench.run(small(twice))

    assert (tiny.name,) == bench.tracker.study_names()
    assert folders == sorted((bench.state.folder / "runs").glob("*"))


@pytest.mark.slow
def test_a_deleted_study_is_tuned_again(bench: Bench) -> None:
    tuned = small(
        "data={name: digits, limit: 120, validation: 0.25}",
        "factors={model.normalization: [none, batch]}",
        "tune={training.learning_rate: {log: [1e-4, 1e-1]}, trials: 2}",
        name="tuned",
    )
    bench.run(tuned)
    trained = list(bench.trained)
    bench.run(tuned)
    assert [] == bench.trained

    deleted(bench, "tuned")
    assert [] == optuna_studies(bench)
    assert () == tuple((bench.state.folder / "tuning").glob("*"))
    bench.run(tuned)

    assert trained == bench.trained


@pytest.mark.slow
def test_a_single_run_that_is_missing_is_uploaded_again(in_mlflow: Bench, tiny: Study, client: MlflowClient) -> None:
    in_mlflow.run(tiny)
    record, before = study_run_of(in_mlflow, tiny), in_mlflow.metrics(tiny)
    client.delete_run(children(client, record.experiment_id)[0].info.run_id)

    assert ALL == in_mlflow.run(tiny).ended
    assert [] == in_mlflow.trained
    assert before == in_mlflow.metrics(tiny)
    assert 4 == len(children(client, record.experiment_id))


class Place:
    """A recorded study and the command line."""

    def __init__(self, bench: Bench, store_uri: str) -> None:
        self._options = ("--tracking-uri", store_uri, "--state-dir", str(bench.state.folder))

    def command(self, *arguments: str, answer: str | None = None) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*arguments, *self._options], input=answer)
        return result.exit_code, result.output


@pytest.mark.slow
@pytest.mark.usefixtures("hearing_signals")
def test_the_command_asks_first(in_mlflow: Bench, tiny: Study, store_uri: str) -> None:
    in_mlflow.run(tiny)
    place = Place(in_mlflow, store_uri)
    what = (
        f"tiny: 5 runs in MLflow, which go to its trash, and 5 folders in {in_mlflow.state.folder}, which are removed."
    )

    for answer in ("n\n", ""):
        status, said = place.command("delete", "tiny", answer=answer)
        assert 2 == status
        assert what in said
        assert "nothing is deleted" in said
    assert holdings_of("tiny", tracker=in_mlflow.tracker, state=in_mlflow.state).runs == 5

    status, said = place.command("delete", "tiny", answer="y\n")
    assert 0 == status, said
    assert "Deleted: tiny. MLflow keeps its 5 runs in the trash until `mlflow gc` is run." in said
    assert (2, True) == _refused(place, "delete", "tiny", "--yes")


def _refused(place: Place, *arguments: str) -> tuple[int, bool]:
    status, said = place.command(*arguments)
    return status, "there is no study 'tiny' to delete" in said


def test_fresh_and_reuse_exclude_each_other(tiny_file: Path) -> None:
    result = CliRunner().invoke(main, ["study", str(tiny_file), "--fresh", "--reuse"])

    assert 2 == result.exit_code
    assert "give one of them" in result.output
