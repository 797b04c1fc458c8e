"""A study whose files are not where MLflow says is there all the same: nothing else is told, and nothing is written."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_plan
from mlflow import MlflowClient

from ablation.cli import main
from ablation.coordinator.lease import Lease
from ablation.errors import ArtifactsUnreachable, ArtifactsUnusable, PlanUnreadable, StudyUnknown, StudyUnplanned
from ablation.pipeline import find_study
from ablation.tracking import Tracker, open_mlflow

READERS = ["summarize quick", "status quick", "status", "export quick", "compare quick a b"]


@pytest.fixture
def moved(store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a store whose study was recorded before the folder was moved there; the old one is gone."""
    before, now = tmp_path / "before", tmp_path / "now"
    before.mkdir()
    shutil.copy(tmp_path / "mlflow.db", before / "mlflow.db")
    monkeypatch.chdir(before)
    open_mlflow(f"sqlite:///{before}/mlflow.db").open_study(make_plan())
    before.rename(now)
    monkeypatch.chdir(now)
    return now


def tracker_in(folder: Path) -> Tracker:
    return open_mlflow(f"sqlite:///{folder}/mlflow.db")


@pytest.mark.slow
def test_a_study_whose_folder_was_moved_is_there_and_its_place_is_told(moved: Path) -> None:
    before = moved.with_name("before")

    with pytest.raises(ArtifactsUnreachable) as refused:
        find_study("quick", tracker=tracker_in(moved))

    said = str(refused.value)
    assert f"its plan.json cannot be read at {before}/mlruns/" in said
    assert "--default-artifact-root" in said
    assert "it is no matter of --tracking-uri" in said
    assert f"`ln -s NEW_PLACE {before}`" in said


@pytest.mark.parametrize("words", READERS)
def test_every_reader_says_so(words: str, moved: Path) -> None:
    ended = CliRunner().invoke(main, [*words.split(), "--tracking-uri", f"sqlite:///{moved}/mlflow.db"])

    assert 2 == ended.exit_code, ended.output
    assert "study 'quick' is recorded, and its plan.json cannot be read at " in ended.stderr
    assert "near it" not in ended.stderr


def test_the_link_that_is_advised_helps(moved: Path) -> None:
    moved.with_name("before").symlink_to(moved)

    assert make_plan() == find_study("quick", tracker=tracker_in(moved)).plan


def test_nothing_is_written_to_the_old_place(moved: Path) -> None:
    experiment_id = MlflowClient(f"sqlite:///{moved}/mlflow.db").get_experiment_by_name("quick").experiment_id
    tracker = open_mlflow(f"sqlite:///{moved}/mlflow.db", experiment_id=experiment_id)

    for name in ("quick", "another"):
        lease = Lease(name, tracker=tracker, state_folder=moved)
        with pytest.raises(ArtifactsUnreachable):
            tracker.find_study("quick") and lease.open(make_plan(name=name))
        with pytest.raises(ArtifactsUnreachable):
            tracker.make_study_run(make_plan(name="another"), holder=None)

    assert not moved.with_name("before").exists()


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_told_and_no_run_stays_running(store_uri: str, tmp_path: Path) -> None:
    client = MlflowClient(store_uri)
    (tmp_path / "file").touch()
    experiment_id = client.create_experiment("quick", artifact_location=str(tmp_path / "file" / "mlruns"))
    lease = Lease("quick", tracker=open_mlflow(store_uri), state_folder=tmp_path)

    with pytest.raises(ArtifactsUnusable) as refused:
        lease.open(make_plan())

    assert f"MLflow cannot use {tmp_path / 'file'}: not a folder" in str(refused.value)
    assert "--default-artifact-root" in str(refused.value)
    assert ["KILLED"] == [run.info.status for run in client.search_runs([experiment_id])]


def test_a_plan_that_was_deleted_is_written_anew(mlflow_tracker: Tracker, tmp_path: Path) -> None:
    mlflow_tracker.open_study(make_plan())
    (file,) = tmp_path.rglob("plan.json")
    file.unlink()

    with pytest.raises(StudyUnplanned, match=r"has no plan\.json: it ended before that was written, or the file was"):
        find_study("quick", tracker=mlflow_tracker)
    mlflow_tracker.open_study(make_plan())

    assert make_plan() == find_study("quick", tracker=mlflow_tracker).plan


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 2}', b'{"format": 1}', b"null", b"NaN"]
)
def test_a_damaged_plan_is_told_with_its_study_and_its_place(
    content: bytes, mlflow_tracker: Tracker, tmp_path: Path
) -> None:
    mlflow_tracker.open_study(make_plan())
    (file,) = tmp_path.rglob("plan.json")
    file.write_bytes(content)

    with pytest.raises(
        PlanUnreadable, match=f"study 'quick' is recorded, and its plan.json at {file.parent} cannot be"
    ):
        find_study("quick", tracker=mlflow_tracker)


def test_a_plan_whose_value_is_wrong_is_told_with_the_value(mlflow_tracker: Tracker, tmp_path: Path) -> None:
    mlflow_tracker.open_study(make_plan())
    (file,) = tmp_path.rglob("plan.json")
    document = json.loads(file.read_text())
    document["locked"]["alpha"] = 5
    file.write_text(json.dumps(document))

    with pytest.raises(PlanUnreadable, match=r"not a plan: its alpha is 5\.0, which is not between 0 and 1"):
        find_study("quick", tracker=mlflow_tracker)


@pytest.mark.parametrize(
    ("asked", "said"), [("quikc", "; near it: quick"), ("zebra", "; it has: quick"), ("QUICK2", "; it has: quick")]
)
def test_only_names_that_are_near_are_said_to_be(asked: str, said: str, mlflow_tracker: Tracker) -> None:
    mlflow_tracker.open_study(make_plan())

    with pytest.raises(StudyUnknown, match=said):
        find_study(asked, tracker=mlflow_tracker)


def test_a_link_is_advised_on_this_machine_only(tmp_path: Path) -> None:
    there, served = (
        str(ArtifactsUnreachable("quick", "/a/mlruns/1", "there is no /a", missing=Path("/a"), is_served=is_served))
        for is_served in (False, True)
    )

    assert "`ln -s NEW_PLACE /a`" in there
    assert "ln -s" not in served
    assert "--serve-artifacts" in served
