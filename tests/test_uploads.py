"""What is recorded beside the training: all of it in the end, once, whatever fails; and nobody waits for it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from conftest import eventually
from factories import make_plan

from ablation.coordinator import uploading
from ablation.coordinator import uploads as module
from ablation.coordinator.lease import Lease
from ablation.coordinator.recovery import recover_ended
from ablation.coordinator.uploading import ENOUGH_REFUSALS, FIRST_DELAY_S
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.errors import RunsNotRecorded, TrackingUnavailable
from ablation.records import Outcome, PlannedRun, RecordedRun, ReportedEpoch, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.study import Study
from ablation.tracking import MemoryTracker, StudyRecord
from ablation.worker import setup


class Faltering(MemoryTracker):
    """A tracker of which some calls fail: before they do anything, or after, so that only the answer is lost."""

    def __init__(self, *, failing: range = range(0), is_done_first: bool = False) -> None:
        super().__init__()
        self.failing, self.is_done_first = failing, is_done_first
        self.calls = self.told = 0

    def note_look(self, record: StudyRecord, look: int) -> None:
        self.told = look

    def answers(self) -> bool:
        return self.calls not in self.failing

    def start_run(self, *arguments: Any, **more: Any) -> str:
        return self._falter(lambda: MemoryTracker.start_run(self, *arguments, **more))

    def log_run(self, *arguments: Any) -> None:
        self._falter(lambda: MemoryTracker.log_run(self, *arguments))

    def finish_run(self, *arguments: Any) -> None:
        self._falter(lambda: MemoryTracker.finish_run(self, *arguments))

    def _falter(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.calls - 1 not in self.failing:
            return call()
        if self.is_done_first:
            call()
        raise TrackingUnavailable("sqlite:///mlflow.db", "busy")


class Place:
    """A study whose first run is in its folder, and what brings it to a tracker."""

    def __init__(self, folder: Path, tracker: MemoryTracker) -> None:
        self.tracker = tracker
        folder.mkdir(exist_ok=True)
        self.lease = Lease("quick", tracker=tracker, state_folder=folder)
        self.record: StudyRecord = self.lease.open(make_plan(seeds=1))
        self.planned: PlannedRun = self.record.plan.runs[0]
        self.state = State(folder=folder)
        self.folder: RunFolder = self.state.begun("quick", self.planned.identity)
        self.uploads = Uploads(tracker, self.lease)

    def begin(self, *, is_resumable: bool = False) -> None:
        self.folder.take_over({"host": "here"}, is_resumable=is_resumable)
        self.folder.begin_anew()
        upload_run(self.uploads, self.planned, self.folder, plan=self.record.plan, state=self.state)

    def measure(self, epoch: int) -> None:
        self.folder.append_epoch(ReportedEpoch(epoch=epoch, metrics={"accuracy": epoch / 10}, timestamp_ms=epoch))
        self.uploads.changed(self.planned)

    def keep(self, epoch: int) -> None:
        self.folder.checkpoints.mkdir(exist_ok=True)
        self.folder.checkpoint(epoch, "eager").touch()
        self.uploads.changed(self.planned)

    def end(self, **changes: Any) -> None:
        result = RunResult(
            identity=self.planned.identity, outcome=Outcome.DONE, metrics={"test_accuracy": 0.5}, epochs=2, ended_ms=9
        )
        self.folder.finish(replace(result, **changes))
        self.uploads.end(self.planned)

    def found(self) -> RecordedRun:
        return self.tracker.recorded_runs(self.record)[0]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploading, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(uploading, "EVERY_S", 0.01)
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Place]:
    def make(**failing: Any) -> Place:
        return Place(tmp_path, Faltering(**failing))

    return make


def test_a_record_is_refused_for_seven_seconds_before_that_is_for_good() -> None:
    delays_s = [FIRST_DELAY_S * 2**refusals for refusals in range(ENOUGH_REFUSALS - 1)]

    assert 7.0 == sum(delays_s)


@pytest.mark.parametrize("is_done_first", [False, True], ids=["refused", "answer lost"])
@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("count", [1, 4])
def test_a_run_is_recorded_once_and_whole_whichever_call_fails(
    place: Callable[..., Place], first: int, count: int, is_done_first: bool
) -> None:
    here = place(failing=range(first, first + count), is_done_first=is_done_first)
    here.begin()
    here.measure(1)
    time.sleep(0.03)
    here.measure(2)
    here.end()

    assert here.uploads.wait() or here.uploads.wait()
    here.uploads.close()
    assert (Outcome.DONE, {"test_accuracy": 0.5}) == (here.found().outcome, here.found().metrics)
    assert ((1, 0.1), (2, 0.2)) == here.found().curves["accuracy"]
    assert 1 == len(here.tracker._runs)
    assert here.state.finished("quick", here.planned.identity) is not None
    assert not here.folder.path.exists()


def test_what_a_run_measures_is_recorded_while_it_is_under_way(place: Callable[..., Place]) -> None:
    here = place()
    here.begin()
    here.measure(1)

    eventually(lambda: [(1, 0.1)] == curve(here, "accuracy"))
    assert here.found().outcome is None
    here.uploads.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the looks into each run's folder."""
    counted: Counter[str] = Counter()
    attempt = RunFolder.attempt

    def counting(folder: RunFolder) -> str | None:
        counted[folder.path.name] += 1
        return attempt(folder)

    monkeypatch.setattr(RunFolder, "attempt", counting)
    return counted


def test_a_folder_is_opened_where_it_has_changed_and_not_as_time_goes_by(
    place: Callable[..., Place], looks: Counter[str]
) -> None:
    here = place()
    others = here.record.plan.runs[1:]
    for planned in others:
        folder = here.state.begun("quick", planned.identity)
        upload_run(here.uploads, planned, folder, plan=here.record.plan, state=here.state)
    here.begin()
    eventually(lambda: len(looks) == len(here.record.plan.runs) and here.uploads.run_id(here.planned) is not None)
    looks.clear()

    for epoch in (1, 2, 3):
        here.measure(epoch)
        eventually(lambda epoch=epoch: epoch == len(curve(here, "accuracy")))

    here.uploads.close()
    assert {here.planned.identity: 3} == looks


def test_a_folder_that_changes_all_the_time_is_opened_now_and_then_and_at_once_when_its_run_has_ended(
    place: Callable[..., Place], looks: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "EVERY_S", 3600.0)
    here = place()
    here.begin()
    eventually(lambda: here.uploads.run_id(here.planned) is not None)
    looks.clear()

    for epoch in (1, 2, 3):
        here.measure(epoch)
        here.uploads.tell_look(epoch)
        eventually(lambda epoch=epoch: epoch == here.tracker.told)
    assert {} == looks
    here.end()

    assert here.uploads.wait()
    here.uploads.close()
    assert {here.planned.identity: 1} == looks


def test_an_epoch_that_an_interruption_would_undo_is_not_recorded_yet(place: Callable[..., Place]) -> None:
    here = place()
    here.begin(is_resumable=True)
    for epoch in (1, 2, 3):
        here.measure(epoch)
    here.keep(2)

    eventually(lambda: [(1, 0.1), (2, 0.2)] == curve(here, "accuracy"))
    here.uploads.close()
    assert [(1, 0.1), (2, 0.2)] == curve(here, "accuracy")


def test_a_run_left_and_gone_on_with_is_one_record(place: Callable[..., Place]) -> None:
    here = place()
    here.begin(is_resumable=True)
    here.measure(1)
    here.keep(1)
    eventually(lambda: here.uploads.run_id(here.planned) is not None)
    before = here.uploads.run_id(here.planned)
    here.uploads.leave(here.planned)
    assert here.uploads.wait()

    here.folder.take_over({"host": "there"}, is_resumable=True)
    upload_run(here.uploads, here.planned, here.folder, plan=here.record.plan, state=here.state)
    here.measure(2)
    here.end()

    assert here.uploads.wait()
    here.uploads.close()
    assert before == here.found().run_id
    assert ((1, 0.1), (2, 0.2)) == here.found().curves["accuracy"]


def test_a_run_begun_anew_is_another_record_and_the_first_is_gone(place: Callable[..., Place]) -> None:
    here = place()
    here.begin()
    here.measure(1)
    eventually(lambda: here.uploads.run_id(here.planned) is not None)
    before = here.uploads.run_id(here.planned)

    here.folder.take_over({"host": "there"}, is_resumable=False)
    here.folder.begin_anew()
    here.measure(1)
    here.measure(2)
    here.end()

    assert here.uploads.wait()
    here.uploads.close()
    assert before != here.found().run_id
    assert [here.found().run_id] == list(here.tracker._runs)


def test_a_failed_run_leaves_nothing_in_the_state_folder(place: Callable[..., Place]) -> None:
    here = place()
    here.begin()
    here.end(outcome=Outcome.FAILED, metrics={}, error="ValueError: no", failure="code")

    assert here.uploads.wait()
    here.uploads.close()
    assert (Outcome.FAILED, "code") == (here.found().outcome, here.found().failure)
    assert [] == [path for path in here.state.folder.rglob("*") if path.is_file()]


def test_a_run_recorded_by_an_execution_that_got_no_further_is_put_where_it_belongs(
    place: Callable[..., Place],
) -> None:
    here = place()
    here.begin()
    here.end()
    assert here.uploads.wait()
    kept = here.state.finished("quick", here.planned.identity)
    assert kept is not None
    here.folder.path.parent.mkdir(exist_ok=True)
    kept.path.rename(here.folder.path)
    recorded = here.tracker.recorded_runs(here.record)

    recover_ended(here.uploads, recorded, plan=here.record.plan, state=here.state)

    assert kept.result() is not None
    assert () == here.state.begun_studies()
    here.uploads.close()


def test_an_empty_folder_that_a_killed_process_left_is_removed(place: Callable[..., Place]) -> None:
    here = place()
    left = here.state.folder / "begun" / "quick"
    left.mkdir(parents=True)

    recover_ended(here.uploads, here.tracker.recorded_runs(here.record), plan=here.record.plan, state=here.state)

    assert not left.exists()
    here.uploads.close()


class Silent(MemoryTracker):
    """A tracker that takes a call and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def answers(self) -> bool:
        return False

    def start_run(self, *_: Any, **__: Any) -> str:
        self.ended.wait()
        raise TrackingUnavailable("http://127.0.0.1:1", "no answer")


@pytest.fixture
def silent() -> Iterator[Silent]:
    tracker = Silent()
    yield tracker
    tracker.ended.set()


def test_nobody_waits_for_a_tracker_that_does_not_answer(silent: Silent, tmp_path: Path) -> None:
    here = Place(tmp_path, silent)
    here.begin()
    here.measure(1)
    here.end()

    assert not here.uploads.wait()
    here.uploads.close(limit_s=0.1)
    assert 1 == here.uploads.waiting == here.state.unrecorded("quick")


def test_nobody_waits_for_a_tracker_that_keeps_on_failing_at_the_same_call(tmp_path: Path) -> None:
    class Unfinishing(MemoryTracker):
        def finish_run(self, *_: Any) -> None:
            raise TrackingUnavailable("s3://bucket", "no room")

    here = Place(tmp_path, Unfinishing())
    here.begin()
    here.end()

    assert not here.uploads.wait()
    assert "no room" in str(here.uploads.problem)
    here.uploads.close(limit_s=0.5)


@pytest.mark.slow
def test_a_failed_run_that_was_not_recorded_is_trained_again_where_that_is_asked(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = setup.build_model
    with monkeypatch.context() as patched:
        patched.setattr(setup, "build_model", _failing)
        bench.tracker = Faltering(failing=range(1, 10**9))
        with pytest.raises(RunsNotRecorded):
            bench.run(tiny)
    assert build is setup.build_model
    bench.tracker.failing, bench.retry_failed = range(0), True

    assert {Outcome.DONE: 8} == bench.run(tiny).ended
    record = bench.tracker.find_study("tiny")
    assert record is not None
    assert {None} == {run.error for run in bench.tracker.recorded_runs(record)}


def _failing(*_: Any, **__: Any) -> None:
    raise ValueError("no luck")


@pytest.mark.slow
def test_a_study_whose_tracker_fails_trains_on_and_ends_with_what_to_do(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tracker = Faltering(failing=range(3, 10**9))

    with pytest.raises(RunsNotRecorded, match=r"(?s)\d runs have ended.*busy.*`ablation sync tiny`"):
        bench.run(tiny)

    assert 8 == len(bench.trained)
    assert any("Training goes on" in note for note in bench.notes)
    bench.tracker.failing = range(0)
    assert {Outcome.DONE: 8} == bench.run(tiny).ended
    assert [] == bench.trained


def curve(here: Place, name: str) -> list[tuple[int, float]]:
    """Return what is recorded of a run that is under way."""
    curves: list[Mapping[int, float]] = [run.curves.get(name, {}) for run in list(here.tracker._runs.values())]
    return sorted(curves[0].items()) if curves else []
