"""The process that records runs beside the coordinator: what it does is what a thread does, and it leaves nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import SPARED, eventually
from factories import make_plan
from sparing import RECORDED_BESIDE

from ablation.coordinator import uploads as module
from ablation.coordinator.lease import Lease
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.errors import StudyTakenOver
from ablation.records import Outcome, PlannedRun, ReportedEpoch, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.testing.trackers import EVALUATION
from ablation.tracking import open_mlflow

pytestmark = pytest.mark.slow
STARTED_S = 60.0
"""Seconds that a process may take to have imported MLflow, on a busy machine."""


class Place:
    """A study in an MLflow store, whose runs are in their folders."""

    def __init__(self, folder: Path, tracker: Any) -> None:
        self.tracker, self.state = tracker, State(folder=folder)
        folder.mkdir(exist_ok=True)
        self.lease = Lease("quick", tracker=tracker, state_folder=folder)
        self.record = self.lease.open(make_plan(seeds=1))
        self.runs = self.record.plan.runs
        self.uploads = Uploads(tracker, self.lease)

    def begin(self, planned: PlannedRun) -> RunFolder:
        folder = self.state.begun("quick", planned.identity)
        folder.take_over({"host": "here"}, is_resumable=False)
        folder.begin_anew()
        upload_run(self.uploads, planned, folder, plan=self.record.plan, state=self.state)
        return folder

    def measure(self, planned: PlannedRun, epoch: int) -> None:
        folder = self.state.begun("quick", planned.identity)
        folder.append_epoch(ReportedEpoch(epoch=epoch, metrics={"score": epoch / 10}, timestamp_ms=epoch))
        self.uploads.changed(planned)

    def end(self, planned: PlannedRun, **changes: Any) -> None:
        folder = self.state.begun("quick", planned.identity)
        folder.write_json("evaluation.json", EVALUATION)
        result = RunResult(
            identity=planned.identity, outcome=Outcome.DONE, metrics={"test_accuracy": 0.5}, epochs=2, ended_ms=9
        )
        folder.finish(replace(result, **changes))
        self.uploads.end(planned)

    def train(self, planned: PlannedRun, **changes: Any) -> None:
        self.begin(planned)
        for epoch in (1, 2):
            self.measure(planned, epoch)
        self.end(planned, **changes)

    def wait(self) -> None:
        eventually(lambda: not self.uploads._runs)

    def process(self) -> BaseProcess:
        """Return the process, once it has recorded something."""
        return next(filter(is_uploading, multiprocessing.active_children()))

    def recorded(self) -> list[tuple[Any, ...]]:
        """Return what the tracker has of each run, but for what no two records share."""
        found = self.tracker.recorded_runs(self.record)
        return [(run.planned, run.outcome, run.metrics, run.curves, run.confusion, run.error) for run in found]


def is_uploading(process: BaseProcess) -> bool:
    return process.name == "uploads"


@pytest.fixture(autouse=True)
def _beside_and_nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(RECORDED_BESIDE, "yes")
    yield
    assert [] == list(filter(is_uploading, multiprocessing.active_children()))


@pytest.fixture
def here(tmp_path: Path, mlflow_tracker: Any) -> Iterator[Place]:
    made = Place(tmp_path / "state", mlflow_tracker)
    yield made
    made.uploads.close()


def test_a_process_records_what_a_thread_does(here: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "other"
    store.mkdir()
    failed = {"outcome": Outcome.FAILED, "metrics": {}, "error": "ValueError: no", "failure": "code"}
    with monkeypatch.context() as patched:
        patched.chdir(store)
        patched.delenv(RECORDED_BESIDE)
        other = Place(store / "state", open_mlflow(f"sqlite:///{store}/mlflow.db"))
        other.train(other.runs[0])
        other.train(other.runs[1], **failed)
        assert other.uploads.wait()

    here.train(here.runs[0])
    here.train(here.runs[1], **failed)
    here.wait()

    assert other.recorded() == here.recorded()
    assert [Outcome.DONE, Outcome.FAILED, None, None] == [run[1] for run in here.recorded()]
    kept = [each.state.finished("quick", run.identity) is not None for each in (here, other) for run in here.runs]
    assert [True, False, False, False] * 2 == kept
    other.uploads.close()


def test_what_a_run_measures_is_recorded_while_it_is_under_way_and_its_name_is_known(here: Place) -> None:
    here.begin(here.runs[0])
    here.measure(here.runs[0], 1)

    run_id = here.uploads.run_id(here.runs[0], wait_s=STARTED_S)

    assert run_id is not None
    client = here.tracker.store.client
    eventually(lambda: {"score": 0.1} == client.get_run(run_id).data.metrics)
    assert "RUNNING" == client.get_run(run_id).info.status


def test_a_run_that_is_left_is_marked_as_not_under_way_when_the_execution_ends(here: Place) -> None:
    here.begin(here.runs[0])
    run_id = here.uploads.run_id(here.runs[0], wait_s=STARTED_S)
    here.uploads.leave(here.runs[0])

    here.uploads.close(last_words="KILLED", limit_s=STARTED_S)

    assert "KILLED" == here.tracker.store.client.get_run(run_id).info.status
    assert "KILLED" == here.tracker.find_study("quick").status
    assert here.tracker.holder(here.record.study_run_id) is None


def test_what_has_ended_before_a_process_has_started_is_recorded_at_the_end_without_it(here: Place) -> None:
    here.train(here.runs[0])
    eventually(lambda: any(map(is_uploading, multiprocessing.active_children())))

    here.uploads.close(last_words="KILLED", limit_s=STARTED_S)

    assert [Outcome.DONE, None, None, None] == [run[1] for run in here.recorded()]
    assert "KILLED" == here.tracker.find_study("quick").status
    assert here.tracker.holder(here.record.study_run_id) is None


def test_a_killed_process_is_replaced_and_every_run_is_recorded_once(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for planned in here.runs:
        here.begin(planned)
        here.measure(planned, 1)
    assert here.uploads.run_id(here.runs[0], wait_s=STARTED_S) is not None

    killed = here.process()
    killed.kill()
    for planned in here.runs:
        here.measure(planned, 2)
        here.end(planned)
    eventually(lambda: "Recording begins again, as its process ended by SIGKILL" in str(here.uploads.problem))

    assert here.uploads.wait()
    assert killed.pid != here.process().pid
    assert here.uploads.problem is None
    assert [Outcome.DONE] * len(here.runs) == [run[1] for run in here.recorded()]
    assert len(here.runs) == here.tracker.count_runs("quick") - 1


def test_nobody_waits_for_processes_that_die_again_and_again(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablation.coordinator.upload_desk.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    monkeypatch.setattr(here.uploads, "_open_elsewhere", os.abort)
    here.train(here.runs[0])

    assert not here.uploads.wait()
    assert "Recording begins again, as its process ended by SIGABRT" in str(here.uploads.problem)
    assert 1 == here.uploads.waiting


def test_where_one_process_falls_behind_there_are_more_and_each_run_is_recorded_once(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 0)
    here.begin(here.runs[0])
    here.uploads.leave(here.runs[0])  # it stays with the first process, which may still be at it
    for planned in here.runs:
        here.train(planned)

    assert here.uploads.wait()

    desks = here.uploads._desks
    assert len(here.runs) == len(desks) == len([one for one in multiprocessing.active_children() if is_uploading(one)])
    assert desks[0] is here.uploads._assigned[here.runs[0]]
    assert [Outcome.DONE] * len(here.runs) == [run[1] for run in here.recorded()]
    assert len(here.runs) == here.tracker.count_runs("quick") - 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_left_to_the_coordinator_from_the_first_moment_on(here: Place, number: int) -> None:
    here.begin(here.runs[0])
    eventually(lambda: any(map(is_uploading, multiprocessing.active_children())))
    process = here.process()
    assert process.pid is not None

    os.kill(process.pid, number)
    assert here.uploads.run_id(here.runs[0], wait_s=STARTED_S) is not None
    os.kill(process.pid, number)
    here.end(here.runs[0])
    here.wait()

    assert process.pid == here.process().pid


def test_a_study_that_another_process_took_over_is_left_to_it(here: Place) -> None:
    here.begin(here.runs[0])
    assert here.uploads.run_id(here.runs[0], wait_s=STARTED_S) is not None
    theirs = replace(here.tracker.holder(here.record.study_run_id), nonce="theirs")
    here.tracker.hold(here.record.study_run_id, theirs)

    here.end(here.runs[0])

    eventually(lambda: here.lease.lost is not None)
    with pytest.raises(StudyTakenOver):
        here.uploads.wait()
    here.uploads.close(last_words="FAILED")
    assert [None] * len(here.runs) == [run[1] for run in here.recorded()]
    assert theirs == here.tracker.holder(here.record.study_run_id)


def test_a_study_run_that_is_deleted_meanwhile_is_made_again_with_its_runs(here: Place) -> None:
    here.train(here.runs[0])
    here.wait()
    here.tracker.store.client.delete_run(here.record.study_run_id)

    here.train(here.runs[1])
    here.wait()

    here.record = here.lease.record
    assert [Outcome.DONE, Outcome.DONE, None, None] == [run[1] for run in here.recorded()]
    assert 1 == len(here.lease.notes)


def test_a_process_imports_no_torch_and_its_command_line_and_environment_name_nobody(
    tmp_path: Path, here: Place
) -> None:
    here.begin(here.runs[0])
    assert here.uploads.run_id(here.runs[0], wait_s=STARTED_S) is not None

    process = psutil.Process(here.process().pid)

    assert [] == [file.path for file in process.memory_maps() if "/torch/" in file.path]
    assert str(tmp_path) not in " ".join(process.cmdline())


KILLED = """
import os, signal, sys
from multiprocessing import active_children
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_upload_process import Place, STARTED_S
from ablation.tracking import open_mlflow

place = Place(Path("state"), open_mlflow("sqlite:///mlflow.db"))
for planned in place.runs:
    place.begin(planned)
place.uploads.run_id(place.runs[0], wait_s=STARTED_S)
for planned in place.runs:
    place.end(planned)
print(place.process().pid, flush=True)
{how}
"""


@pytest.mark.parametrize(
    "how", ["os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "os.kill(place.process().pid, signal.SIGSTOP)"]
)
def test_a_process_ends_with_its_coordinator_however_that_ends(tmp_path: Path, how: str) -> None:
    code = KILLED.format(tests=str(Path(__file__).parent), how=how)
    (tmp_path / "state").mkdir()

    environment = {**os.environ, "PYTHONPATH": SPARED}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )

    pid = int(ended.stdout)
    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
