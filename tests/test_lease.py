"""One writer per study in an MLflow store: who has the lease writes, whoever finds another's stops."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from conftest import eventually
from factories import make_plan

from ablation.coordinator import lease as module
from ablation.coordinator.lease import Lease
from ablation.coordinator.request import Request
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.errors import StudyLocked, StudyTakenOver, TrackingUnavailable
from ablation.pipeline import run_study, sync_study
from ablation.records import Outcome, Plan
from ablation.scheduling import default_storage
from ablation.storage.holder import Holder, this_process
from ablation.storage.state import State
from ablation.study import Study
from ablation.tracking import MemoryTracker, StudyRecord


@pytest.fixture(autouse=True)
def _watched_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHED_S", 0.2)
    monkeypatch.setattr(module, "LOOK_S", 0.02)


class Store(MemoryTracker):
    """A store whose writes are seen at once, and in which something may happen between any two requests."""

    settles_s = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.before_hold: Callable[[], None] = lambda: None

    def hold(self, study_run_id: str, holder: Holder | None) -> None:
        do, self.before_hold = self.before_hold, lambda: None
        do()
        super().hold(study_run_id, holder)


@pytest.fixture
def store() -> Store:
    found = Store()
    found.close_study(found.open_study(make_plan(seeds=1)), "KILLED")
    return found


def lease_from(folder: Path, name: str, tracker: MemoryTracker) -> Lease:
    (folder / name).mkdir(exist_ok=True)
    return Lease("quick", tracker=tracker, state_folder=folder / name)


def foreign(*, seen_s_ago: float = 0.0, **changes: Any) -> Holder:
    """A process of another machine that says nothing of itself but this."""
    seen_ms = round(1000 * (time.time() - seen_s_ago))
    return replace(
        Holder(host="elsewhere", pid=1, since="today", boot="other", nonce="theirs", seen_ms=seen_ms), **changes
    )


def test_a_second_state_folder_is_refused_while_the_first_runs_the_study(store: Store, tmp_path: Path) -> None:
    first = lease_from(tmp_path, "first", store)
    first.take()
    first.check()

    with pytest.raises(StudyLocked, match=f"process {os.getpid()} .*with another state folder"):
        lease_from(tmp_path, "second", store).take()
    first.check()


def test_a_study_is_free_once_it_is_released(store: Store, tmp_path: Path) -> None:
    first, second = (lease_from(tmp_path, name, store) for name in ("first", "second"))
    first.take()
    first.release()

    second.take()

    second.check()


def test_of_two_that_take_a_study_in_the_same_moment_the_later_has_it(store: Store, tmp_path: Path) -> None:
    first, second = (lease_from(tmp_path, name, store) for name in ("first", "second"))
    store.before_hold = second.take  # the first has seen that the study is free, and writes after the second

    first.take()

    first.check()
    with pytest.raises(StudyTakenOver):
        second.check()


def test_who_was_replaced_stops_and_writes_nothing_more(store: Store, tmp_path: Path) -> None:
    first = lease_from(tmp_path, "first", store)
    first.take()
    first.check()
    theirs = foreign()
    run_id = store.study_run_id("quick")
    assert run_id is not None
    store.hold(run_id, theirs)

    for write in (first.check, first.renew, first.check):
        with pytest.raises(StudyTakenOver, match="taken over by process 1 on elsewhere since today"):
            write()
    first.release()

    assert theirs == store.holder(run_id)


def test_who_finds_that_somebody_else_came_and_went_stops_too(store: Store, tmp_path: Path) -> None:
    first = lease_from(tmp_path, "first", store)
    first.take()
    run_id = store.study_run_id("quick")
    assert run_id is not None
    store.hold(run_id, None)

    with pytest.raises(StudyTakenOver, match="by another process"):
        first.check()


def ended_process() -> int:
    with subprocess.Popen(["true"]) as process:
        return process.pid


@pytest.mark.parametrize(
    ("changes", "is_refused"),
    [
        ({}, True),
        ({"host": "here"}, False),
        ({"boot": "here", "pid_namespace": "other"}, True),
        ({"boot": "here", "pid_namespace": "here"}, False),
        ({"host": "here", "boot": "", "nonce": ""}, False),
        ({"seen_s_ago": 1000.0}, False),
        ({"seen_s_ago": -1000.0}, False),
        ({"place": "here"}, False),
    ],
    ids=[
        "fresh elsewhere",
        "silent, of before this machine was started anew",
        "a container of this machine",
        "a dead process of this machine",
        "a dead process of an earlier version",
        "silent",
        "silent, its clock ahead",
        "this state folder, whose locks are ours",
    ],
)
def test_a_fresh_lease_is_refused_unless_its_holder_has_ended_for_sure(
    store: Store, tmp_path: Path, changes: dict[str, Any], is_refused: bool
) -> None:
    mine = lease_from(tmp_path, "mine", store)
    here = this_process(state_folder=tmp_path / "mine")
    known = {name: getattr(here, name) for name, value in changes.items() if value == "here"}
    run_id = store.open_study(make_plan(seeds=1)).study_run_id
    store.hold(run_id, foreign(**{**changes, **known, "pid": ended_process()}))

    if is_refused:
        with pytest.raises(StudyLocked):
            mine.take()
    else:
        mine.take()
        mine.check()


class Renewing(Store):
    """A store in which somebody renews a lease between any two looks at it."""

    def holder(self, study_run_id: str) -> Holder | None:
        found = super().holder(study_run_id)
        assert found is not None
        self.hold(study_run_id, replace(found, seen_ms=found.seen_ms + 30))
        return found


@pytest.mark.parametrize("name", ["elsewhere", socket.gethostname()], ids=["a slow clock", "a container's name"])
def test_a_holder_that_seems_gone_and_is_not_keeps_the_study(store: Store, tmp_path: Path, name: str) -> None:
    run_id = store.study_run_id("quick")
    assert run_id is not None
    store.hold(run_id, foreign(host=name, seen_s_ago=1000.0 if name == "elsewhere" else 0.0))
    store.__class__ = Renewing
    mine = lease_from(tmp_path, "mine", store)
    assert "seems gone" in str(mine.why_it_takes_long())

    with pytest.raises(StudyLocked):
        mine.take()


def test_a_store_that_cannot_be_asked_is_not_written_to(store: Store, tmp_path: Path) -> None:
    class Deaf(Store):
        def holder(self, study_run_id: str) -> Holder | None:
            raise TrackingUnavailable("http://127.0.0.1:1", "no answer")

    lease = lease_from(tmp_path, "mine", store)
    lease.take()
    store.__class__ = Deaf

    with pytest.raises(TrackingUnavailable):
        lease.check()
    store.__class__ = Store
    lease.check()


def test_a_lease_is_renewed_whatever_takes_long_and_no_more_once_it_is_released(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY_S", 0.01)
    lease = lease_from(tmp_path, "mine", store)
    lease.take()
    run_id = store.study_run_id("quick")
    assert run_id is not None
    first = store.holder(run_id)
    assert first is not None

    eventually(lambda: (found := store.holder(run_id)) is not None and found.seen_ms > first.seen_ms + 50)
    lease.release()

    time.sleep(0.05)
    assert store.holder(run_id) is None


def test_a_study_run_deleted_at_the_very_end_is_not_made_again(tmp_path: Path) -> None:
    tracker = MemoryTracker()
    lease = lease_from(tmp_path, "mine", tracker)
    lease.open(make_plan(seeds=1))
    tracker._studies.clear()

    lease.release()

    assert () == tracker.study_names()


def test_of_two_study_runs_made_in_one_moment_and_seen_late_the_latest_counts(tmp_path: Path) -> None:
    class Two(MemoryTracker):
        """A store with two study runs of one name, of which the second is seen late."""

        is_seen = False

        def study_run_id(self, name: str, *, beside: str | None = None) -> str | None:
            return "study-2" if self.is_seen else super().study_run_id(name)

        def holder(self, study_run_id: str) -> Holder | None:
            return foreign() if study_run_id == "study-2" else super().holder(study_run_id)

    tracker = Two()
    lease = lease_from(tmp_path, "mine", tracker)
    lease.open(make_plan(seeds=1))
    lease.renew()
    tracker.is_seen = True

    with pytest.raises(StudyTakenOver, match="process 1 on elsewhere"):
        lease.renew()
    with pytest.raises(StudyTakenOver):
        lease.check()


def test_a_study_run_that_cannot_be_made_again_at_once_is_later(tmp_path: Path) -> None:
    class Busy(MemoryTracker):
        failing: tuple[str, ...] = ()

        def make_study_run(self, plan: Plan, *, holder: Holder | None) -> str:
            if "make" in self.failing:
                raise TrackingUnavailable("http://127.0.0.1:1", "busy")
            return super().make_study_run(plan, holder=holder)

        def open_study(self, plan: Plan, *, holder: Holder | None = None) -> StudyRecord:
            if "open" in self.failing:
                raise TrackingUnavailable("http://127.0.0.1:1", "busy")
            return super().open_study(plan, holder=holder)

    tracker = Busy()
    lease = lease_from(tmp_path, "mine", tracker)
    before = lease.open(make_plan(seeds=1))
    del tracker._studies["quick"]
    for step in ("make", "open"):
        tracker.failing = (step,)
        with pytest.raises(TrackingUnavailable):
            lease.check()
        tracker._studies.clear()
    tracker.failing = ()

    lease.check()

    assert before.study_run_id != lease.record.study_run_id
    assert tracker.study_run_id("quick") == lease.record.study_run_id


class Recording(Store):
    """A store that notes what is written of runs and studies."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def start_run(self, *arguments: Any, **more: Any) -> str:
        self.writes.append("start")
        return super().start_run(*arguments, **more)

    def finish_run(self, *arguments: Any) -> None:
        self.writes.append("finish")
        super().finish_run(*arguments)

    def close_study(self, record: StudyRecord, status: Any) -> None:
        self.writes.append("close")
        super().close_study(record, status)


def test_a_replaced_coordinator_records_no_run_and_does_not_close_the_study(tmp_path: Path) -> None:
    store = Recording()
    lease = lease_from(tmp_path, "first", store)
    plan = make_plan(seeds=1)
    record = lease.open(plan)
    uploads = Uploads(store, lease)
    store.hold(record.study_run_id, foreign())
    state = State(folder=tmp_path / "first")
    folder = state.begun("quick", plan.runs[0].identity)
    folder.take_over({}, is_resumable=False)
    folder.begin_anew()
    upload_run(uploads, plan.runs[0], folder, plan=plan, state=state)

    eventually(lambda: lease.lost is not None)
    with pytest.raises(StudyTakenOver):
        uploads.wait()
    uploads.close(last_words="KILLED")
    assert [] == store.writes


@pytest.mark.slow
def test_a_study_taken_over_while_it_runs_ends_at_once_and_leaves_it_to_the_other(bench: Bench, tiny: Study) -> None:
    steps = bench.steps(tiny)
    while next(steps).latest is None:
        pass
    record = bench.tracker.find_study("tiny")
    assert record is not None
    bench.tracker.hold(record.study_run_id, foreign())

    with pytest.raises(StudyTakenOver, match="ablation sync tiny"):
        for _ in steps:
            pass

    found = bench.tracker.find_study("tiny")
    assert found is not None
    assert "RUNNING" == found.status
    bench.tracker.hold(record.study_run_id, None)
    assert {Outcome.DONE: 8} == bench.run(tiny).ended


def test_sync_from_another_state_folder_is_refused_while_the_study_runs(
    bench: Bench, tiny: Study, tmp_path: Path
) -> None:
    steps = bench.steps(tiny)
    while next(steps).latest is None:
        pass
    (tmp_path / "other").mkdir()
    other = State(folder=tmp_path / "other")

    with pytest.raises(StudyLocked, match="with another state folder"):
        sync_study("tiny", tracker=bench.tracker, storage_url=default_storage(other.folder), state=other)

    record = bench.tracker.find_study("tiny")
    assert record is not None
    assert "RUNNING" == record.status
    steps.close()
    done = sync_study("tiny", tracker=bench.tracker, storage_url=default_storage(other.folder), state=other)
    assert done.to_do > 0


@pytest.mark.slow
def test_a_study_that_is_refused_leaves_the_lease_to_who_has_it(bench: Bench, tiny: Study, tmp_path: Path) -> None:
    steps = bench.steps(tiny)
    while next(steps).latest is None:
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").symlink_to(bench.state.data.resolve())
    other = State(folder=tmp_path / "other")
    second = run_study(
        Request(
            study=tiny,
            tracker=bench.tracker,
            executor=bench.executor,
            storage_url=default_storage(other.folder),
            state=other,
        )
    )

    with pytest.raises(StudyLocked):
        list(second)

    for _ in steps:
        pass
    record = bench.tracker.find_study("tiny")
    assert record is not None
    assert "FINISHED" == record.status
    assert bench.tracker.holder(record.study_run_id) is None


@pytest.mark.slow
def test_a_study_run_deleted_while_the_study_runs_is_made_again_and_nothing_is_trained_twice(
    bench: Bench, tiny: Study
) -> None:
    tracker = bench.tracker
    steps = bench.steps(tiny)
    while next(steps).latest is None:
        pass
    del tracker._studies["tiny"]

    notes = [progress.note for progress in steps]

    assert any("was deleted in MLflow" in (note or "") for note in notes)
    record = tracker.find_study("tiny")
    assert record is not None
    assert "FINISHED" == record.status
    assert {Outcome.DONE} == {run.outcome for run in tracker.recorded_runs(record)}
    assert 8 == len(tracker._runs)
