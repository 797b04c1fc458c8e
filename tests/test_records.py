"""What MLflow has of a run is what the run measured: whatever the clock, the names, the environment and others do."""

import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import requests
from bench import Bench
from conftest import eventually
from factories import make_plan
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from ablation.coordinator import uploading
from ablation.coordinator.lease import Lease
from ablation.coordinator.recovery import recover_ended
from ablation.coordinator.uploads import Uploads, upload_run
from ablation.errors import LaunchUnknown, RecordRefused, StudyLocked, StudyRunGone, StudyTakenOver
from ablation.pipeline import summarize_study, sync_study
from ablation.records import FunctionTraining, Outcome, Plan, PlannedRun, ReportedEpoch, RunResult
from ablation.scheduling import default_storage
from ablation.storage.holder import Holder, this_process
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.study import Study
from ablation.testing.trackers import report_in
from ablation.tracking import MemoryTracker, RunDescription, RunNews, StudyRecord, open_mlflow
from ablation.tracking.mlflow import attempts as module
from ablation.tracking.mlflow.reading import children_of

LAUNCHED = {"mlflow.project.entryPoint": "study"}
MINUTE_MS = 60_000


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is tried again after tenths of a second: waiting is not what is tested here."""
    monkeypatch.setattr(uploading, "FIRST_DELAY_S", 0.05)
    monkeypatch.setattr(uploading, "EVERY_S", 0.05)


def own_plan(name: str = "own") -> Plan:
    """A study whose training function measures `score`."""
    plan = make_plan(name=name, seeds=1, metric={"name": "score", "direction": "maximize", "meaningful": 0.01})
    study = {**plan.study, "training": {"name": "t.py:train"}, "metrics": {"odd": "maximize"}}
    settings = replace(plan.baseline.settings, training=FunctionTraining(name="t.py:train"))
    return replace(plan, study=study, variants=tuple(replace(each, settings=settings) for each in plan.variants))


def result_of(planned: PlannedRun, metrics: Mapping[str, float], *, epochs: int, ended_ms: int) -> RunResult:
    return RunResult(identity=planned.identity, outcome=Outcome.DONE, metrics=metrics, epochs=epochs, ended_ms=ended_ms)


@pytest.mark.parametrize("clock_ms", [0, 1, -MINUTE_MS], ids=["same millisecond", "later", "stepped back"])
@pytest.mark.parametrize("final", [0.2, 0.9], ids=["below the last report", "above it"])
def test_a_metric_that_is_reported_and_returned_is_what_was_returned(
    mlflow_tracker: Any, final: float, clock_ms: int
) -> None:
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    now = 1_800_000_000_000
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    reported = [ReportedEpoch(epoch=epoch, metrics={"score": 0.5}, timestamp_ms=now) for epoch in (1, 2, 3)]
    mlflow_tracker.log_run(run_id, RunNews(epochs=reported, heldout_split="validation"))

    ended = result_of(planned, {"score": final, "odd": 1.0}, epochs=3, ended_ms=now + clock_ms)
    for _ in range(2):
        mlflow_tracker.finish_run(run_id, ended, None)

    assert {"score": final, "odd": 1.0} == mlflow_tracker.recorded_runs(record)[0].metrics
    assert 4 == len(mlflow_tracker.store.client.get_metric_history(run_id, "score"))


def test_a_value_that_mlflow_does_not_give_back_is_not_recorded(
    mlflow_tracker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    monkeypatch.setattr(mlflow_tracker.store.client, "log_batch", lambda *_, **__: None)

    with pytest.raises(RecordRefused, match=r"score is 0\.4, and says that it is None"):
        mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4}, epochs=1, ended_ms=1), None)
    assert mlflow_tracker.recorded_runs(record)[0].outcome is None


def test_asynchronous_logging_hides_no_refusal(mlflow_tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    record = mlflow_tracker.open_study(own_plan())
    run_id = mlflow_tracker.start_run(record, record.plan.runs[0], {}, attempt="first")
    epoch = ReportedEpoch(epoch=1, metrics={"acc@1": 0.5}, timestamp_ms=1)

    with pytest.raises(RecordRefused, match="acc@1"):
        mlflow_tracker.log_run(run_id, RunNews(epochs=[epoch], heldout_split="validation"))


def test_every_batch_is_recorded_synchronously(mlflow_tracker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    log_batch = mlflow_tracker.store.client.log_batch
    monkeypatch.setattr(
        mlflow_tracker.store.client,
        "log_batch",
        lambda *arguments, synchronous=None, **more: (
            asked.append(synchronous) or log_batch(*arguments, synchronous=synchronous, **more)
        ),
    )
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    mlflow_tracker.log_run(run_id, RunNews(description=RunDescription.of(planned, record.plan)))
    mlflow_tracker.log_run(
        run_id,
        RunNews(epochs=[ReportedEpoch(epoch=1, metrics={"score": 0.5}, timestamp_ms=1)], heldout_split="validation"),
    )
    mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4}, epochs=1, ended_ms=1), None)

    assert {True} == set(asked)


def long_named(plan: Plan) -> Plan:
    """Return a plan whose variants' names differ after more characters than MLflow keeps of a run's name."""
    names = {variant.name: "x" * 600 + variant.name for variant in plan.variants}
    return replace(
        plan,
        variants=tuple(replace(variant, name=names[variant.name]) for variant in plan.variants),
        summaries={names[name]: summary for name, summary in plan.summaries.items()},
        runs=tuple(replace(run, variant=names[run.variant]) for run in plan.runs),
    )


def test_a_name_longer_than_mlflow_takes_is_kept_whole_beside(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(long_named(own_plan()))
    first, second = record.plan.runs[:2]

    for planned in (first, second, first):
        run_id = mlflow_tracker.start_run(record, planned, {}, attempt=planned.identity)
        mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4}, epochs=1, ended_ms=1), None)

    runs = children_of(mlflow_tracker.store.client, record)
    assert {first.name, second.name} == {run.data.tags["ablation.name"] for run in runs}
    assert {250} == {len(run.info.run_name) for run in runs}
    assert [Outcome.DONE] * 2 == [run.outcome for run in mlflow_tracker.recorded_runs(record)[:2]]


def test_replicates_of_tuning_whose_names_are_cut_alike_are_told_apart(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(own_plan())
    settings = {"variant": "v", "trial": 0, "seed": 0}
    replicates = [PlannedRun(identity="0" * 32, variant="y" * 300 + end, seed=0) for end in ("a", "b")]

    ids = [mlflow_tracker.start_tuning_run(record, one, settings, {}, attempt="same") for one in replicates]
    again = [mlflow_tracker.start_tuning_run(record, one, settings, {}, attempt="same") for one in replicates]

    assert 2 == len(set(ids))
    assert ids == again


@pytest.mark.slow
def test_a_name_longer_than_postgresql_takes_is_recorded(postgresql_url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = open_mlflow(postgresql_url.replace("postgresql://", "postgresql+psycopg://"))
    record = tracker.open_study(long_named(own_plan()))
    planned = record.plan.runs[0]

    run_id = tracker.start_run(record, planned, {}, attempt="first")
    tracker.finish_run(run_id, result_of(planned, {"score": 0.1 + 0.2}, epochs=1, ended_ms=1), None)

    assert {"score": 0.1 + 0.2} == tracker.recorded_runs(record)[0].metrics


class Place:
    """A study with two runs in their folders, both ended, and what brings them to a tracker."""

    def __init__(self, folder: Path, tracker: Any, plan: Plan) -> None:
        self.state, self.plan, self.tracker = State(folder=folder), plan, tracker
        folder.mkdir(exist_ok=True)
        self.lease = Lease(plan.name, tracker=tracker, state_folder=folder)
        self.record: StudyRecord = self.lease.open(plan)
        self.uploads = Uploads(tracker, self.lease)

    def end(self, planned: PlannedRun, metrics: Mapping[str, float], **changes: Any) -> RunFolder:
        folder = self.state.begun(self.plan.name, planned.identity)
        folder.take_over({}, is_resumable=False)
        folder.begin_anew()
        upload_run(self.uploads, planned, folder, plan=self.plan, state=self.state)
        folder.finish(replace(result_of(planned, metrics, epochs=1, ended_ms=1), **changes))
        self.uploads.end(planned)
        return folder


class Refusing(MemoryTracker):
    """A tracker that will never take what it is told of some runs."""

    refuses: Any = staticmethod(lambda result: result.metrics.get("odd") == 13.0)

    def finish_run(self, run_id: str, result: RunResult, *rest: Any) -> None:
        if self.refuses(result):
            raise RecordRefused(run_id, "thirteen is not a number")
        super().finish_run(run_id, result, *rest)


def test_what_is_refused_for_good_is_that_runs_failure_and_spares_the_others(tmp_path: Path) -> None:
    here = Place(tmp_path / "state", Refusing(), own_plan())
    odd, plain = here.plan.runs[:2]
    kept = here.end(odd, {"score": 0.5, "odd": 13.0})
    here.end(plain, {"score": 0.6, "odd": 1.0})

    assert here.uploads.wait()

    first, second = here.tracker.recorded_runs(here.record)[:2]
    assert (Outcome.FAILED, "record") == (first.outcome, first.failure)
    assert "thirteen is not a number" in str(first.error)
    assert {"score": 0.6, "odd": 1.0} == second.metrics
    assert kept.result() is not None
    here.uploads.close()


def test_what_was_refused_is_tried_again_by_the_next_execution(tmp_path: Path) -> None:
    here = Place(tmp_path / "state", Refusing(), own_plan())
    odd = here.plan.runs[0]
    here.end(odd, {"score": 0.5, "odd": 13.0})
    assert here.uploads.wait()
    here.tracker.refuses = lambda result: False

    recover_ended(here.uploads, here.tracker.recorded_runs(here.record), plan=here.plan, state=here.state)

    assert here.uploads.wait()
    assert {"score": 0.5, "odd": 13.0} == here.tracker.recorded_runs(here.record)[0].metrics
    assert here.state.finished("own", odd.identity) is not None
    here.uploads.close()


def test_a_run_of_which_nothing_can_be_recorded_blocks_nobody(tmp_path: Path) -> None:
    class Closed(Refusing):
        def start_run(self, record: StudyRecord, planned: PlannedRun, *rest: Any, **more: Any) -> str:
            if planned == record.plan.runs[0]:
                raise RecordRefused(planned.name, "no such name")
            return super().start_run(record, planned, *rest, **more)

    here = Place(tmp_path / "state", Closed(), own_plan())
    for planned in here.plan.runs[:2]:
        here.end(planned, {"score": 0.5, "odd": 1.0})

    assert here.uploads.wait()

    assert [None, Outcome.DONE] == [run.outcome for run in here.tracker.recorded_runs(here.record)[:2]]
    here.uploads.close()


@pytest.mark.slow
def test_what_mlflow_refuses_costs_its_run_alone(
    mlflow_tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_batch = mlflow_tracker.store.client.log_batch

    def refusing(run_id: str, *, metrics: Any = (), **more: Any) -> None:
        if any(metric.value == 13.0 for metric in metrics):
            raise MlflowException("thirteen", INVALID_PARAMETER_VALUE)
        log_batch(run_id, metrics=metrics, **more)

    monkeypatch.setattr(mlflow_tracker.store.client, "log_batch", refusing)
    here = Place(tmp_path / "state", mlflow_tracker, own_plan())
    odd, plain = here.plan.runs[:2]
    here.end(odd, {"score": 0.5, "odd": 13.0})
    here.end(plain, {"score": 0.6, "odd": 1.0})

    assert here.uploads.wait()

    first, second = mlflow_tracker.recorded_runs(here.record)[:2]
    assert (Outcome.FAILED, "record") == (first.outcome, first.failure)
    assert Outcome.DONE is second.outcome
    here.uploads.close()


def test_a_text_that_no_database_takes_costs_its_run_alone(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(own_plan())
    run_id = mlflow_tracker.start_run(record, record.plan.runs[0], {}, attempt="first")
    failed = replace(result_of(record.plan.runs[0], {}, epochs=0, ended_ms=1), outcome=Outcome.FAILED)
    object.__setattr__(failed, "path_note", "a lone surrogate: \ud800")

    with pytest.raises(RecordRefused, match="surrogates not allowed"):
        mlflow_tracker.finish_run(run_id, failed, None)


@pytest.mark.slow
def test_a_run_deleted_while_it_is_under_way_is_recorded_anew(mlflow_tracker: Any, tmp_path: Path) -> None:
    here = Place(tmp_path / "state", mlflow_tracker, own_plan())
    planned = here.plan.runs[0]
    folder = here.state.begun("own", planned.identity)
    folder.take_over({}, is_resumable=False)
    folder.begin_anew()
    upload_run(here.uploads, planned, folder, plan=here.plan, state=here.state)
    eventually(lambda: here.uploads.run_id(planned) is not None)
    mlflow_tracker.store.client.delete_run(here.uploads.run_id(planned))

    folder.finish(result_of(planned, {"score": 0.5, "odd": 1.0}, epochs=1, ended_ms=1))
    here.uploads.end(planned)

    assert here.uploads.wait()
    assert {"score": 0.5, "odd": 1.0} == mlflow_tracker.recorded_runs(here.record)[0].metrics
    here.uploads.close()


@pytest.mark.slow
def test_a_record_that_an_earlier_version_got_wrong_is_put_right(mlflow_tracker: Any, tmp_path: Path) -> None:
    here = Place(tmp_path / "state", mlflow_tracker, own_plan())
    planned = here.plan.runs[0]
    here.end(planned, {"score": 0.2, "odd": 1.0})
    assert here.uploads.wait()
    (recorded,) = [run for run in mlflow_tracker.recorded_runs(here.record) if run.planned == planned]
    mlflow_tracker.store.client.log_metric(recorded.run_id, "score", 0.5, step=2, timestamp=1)
    mlflow_tracker.store.client.delete_tag(recorded.run_id, "ablation.read_back")
    assert 0.5 == mlflow_tracker.recorded_runs(here.record)[0].metrics["score"]

    recover_ended(here.uploads, mlflow_tracker.recorded_runs(here.record), plan=here.plan, state=here.state)

    assert here.uploads.wait()
    assert 0.2 == mlflow_tracker.recorded_runs(here.record)[0].metrics["score"]
    here.uploads.close()


@pytest.mark.slow
def test_a_record_or_a_folder_that_was_changed_since_is_told_and_mlflow_counts(
    mlflow_tracker: Any, bench: Bench, tiny: Study
) -> None:
    bench.tracker = mlflow_tracker
    bench.run(tiny)
    record = mlflow_tracker.find_study("tiny")
    changed = mlflow_tracker.recorded_runs(record)[0]
    folder = bench.state.finished("tiny", changed.planned.identity)
    assert folder is not None
    result = folder.result()
    assert result is not None
    folder.finish(replace(result, metrics={**result.metrics, "test_accuracy": 0.99}))

    bench.run(tiny)

    (note,) = [note for note in bench.notes if "MLflow counts" in note]
    assert f"result.json of {changed.planned.name} in this state folder was changed" in note
    assert changed.metrics == mlflow_tracker.recorded_runs(record)[0].metrics


def test_a_study_of_an_earlier_version_is_held_by_nobody_once_it_has_ended(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(own_plan())
    tag = '{"host": "here", "pid": 1, "since": "today", "place": "p", "seen_ms": 1}'
    mlflow_tracker.store.client.set_tag(record.study_run_id, "ablation.holder", tag)
    assert mlflow_tracker.holder(record.study_run_id) is not None

    mlflow_tracker.close_study(record, "FINISHED")

    assert mlflow_tracker.holder(record.study_run_id) is None


def test_a_study_run_that_somebody_else_holds_is_not_opened(mlflow_tracker: Any) -> None:
    mine, theirs = (this_process(nonce=nonce) for nonce in ("mine", "theirs"))
    mlflow_tracker.open_study(own_plan(), holder=theirs)

    with pytest.raises(StudyLocked):
        mlflow_tracker.open_study(own_plan(), holder=mine)
    assert "theirs" == mlflow_tracker.holder(mlflow_tracker.study_run_id("own")).nonce


def launched(client: Any, **tags: str) -> str:
    run_id: str = client.create_run("0", tags={**LAUNCHED, **tags}).info.run_id
    return run_id


def leftover(client: Any) -> str:
    run_id: str = client.create_run("0").info.run_id
    client.log_metric(run_id, "loss", 1.0)
    client.set_terminated(run_id)
    return run_id


def ended_launch(client: Any) -> str:
    run_id = launched(client)
    client.set_terminated(run_id)
    return run_id


def used_launch(client: Any) -> str:
    run_id = launched(client)
    client.log_metric(run_id, "loss", 1.0)
    return run_id


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (leftover, "`mlflow run` did not make it"),
        (ended_launch, "it has ended"),
        (used_launch, "something else has recorded metrics in it"),
    ],
)
def test_only_a_run_that_mlflow_run_made_and_nobody_has_used_becomes_a_study_run(
    mlflow_tracker: Any, store_uri: str, make: Any, reason: str, tmp_path: Path
) -> None:
    client = mlflow_tracker.store.client
    run_id = make(client)
    before = client.get_run(run_id)
    tracker = open_mlflow(store_uri, launch_run_id=run_id, experiment_id="0")

    said = tracker.remarks("own")
    record = tracker.open_study(own_plan())
    tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[])
    tracker.close_study(record, "FINISHED")

    assert run_id != record.study_run_id
    assert f"MLFLOW_RUN_ID names run {run_id}, which stays as it is: {reason}" in said[0]
    after = client.get_run(run_id)
    assert (before.info, before.data.to_dictionary()) == (after.info, after.data.to_dictionary())
    assert [] == client.list_artifacts(run_id)


def test_the_second_study_of_one_launch_leaves_the_first_its_run(mlflow_tracker: Any, store_uri: str) -> None:
    run_id = launched(mlflow_tracker.store.client)
    tracker = open_mlflow(store_uri, launch_run_id=run_id, experiment_id="0")
    first = tracker.open_study(own_plan("first"))

    second = tracker.open_study(own_plan("second"))

    assert run_id == first.study_run_id != second.study_run_id
    assert ("second", "first") == tracker.study_names()
    assert () == tracker.remarks("first")
    assert "study 'first' has it already" in tracker.remarks("second")[0]


@pytest.mark.parametrize("variable", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"])
def test_an_id_that_does_not_exist_is_told_by_its_variable(store_uri: str, variable: str) -> None:
    ids = {"launch_run_id": "f" * 32} if variable == "MLFLOW_RUN_ID" else {"experiment_id": "987"}
    tracker = open_mlflow(store_uri, **ids)

    with pytest.raises(LaunchUnknown, match=rf"^{variable} is '(f+|987)', and MLflow at sqlite.* unset it"):
        tracker.open_study(own_plan())


def holder_now() -> Holder:
    return this_process(nonce="mine", seen_ms=time.time_ns() // 1_000_000)


def test_the_runs_of_a_study_run_deleted_while_it_ran_are_taken_over(mlflow_tracker: Any, tmp_path: Path) -> None:
    record = mlflow_tracker.open_study(own_plan(), holder=holder_now())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4, "odd": 1.0}, epochs=1, ended_ms=1), None)
    tuning = PlannedRun(identity="0" * 32, variant="tuning/v/trial-0", seed=0)
    mlflow_tracker.start_tuning_run(record, tuning, {"variant": "v"}, {}, attempt="one")
    mlflow_tracker.store.client.delete_run(record.study_run_id)
    with pytest.raises(StudyRunGone):
        mlflow_tracker.holder(record.study_run_id)

    again = mlflow_tracker.open_study(own_plan())

    assert record.study_run_id != again.study_run_id
    assert run_id == mlflow_tracker.recorded_runs(again)[0].run_id
    assert {"score": 0.4, "odd": 1.0} == mlflow_tracker.recorded_runs(again)[0].metrics
    assert run_id == mlflow_tracker.start_run(again, planned, {}, attempt="first")
    kinds = sorted(run.data.tags["ablation.kind"] for run in children_of(mlflow_tracker.store.client, again))
    assert ["run", "tuning"] == kinds


@pytest.mark.parametrize("ending", ["finished", "killed long ago", "purged"])
def test_the_runs_of_a_study_run_deleted_when_it_had_ended_stay_as_they_are(
    mlflow_tracker: Any, tmp_path: Path, ending: str
) -> None:
    record = mlflow_tracker.open_study(own_plan(), holder=this_process(nonce="mine"))
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4, "odd": 1.0}, epochs=1, ended_ms=1), None)
    if ending == "finished":
        mlflow_tracker.close_study(record, "FINISHED")
        mlflow_tracker.hold(record.study_run_id, None)
    mlflow_tracker.store.client.delete_run(record.study_run_id)
    if ending == "purged":
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            database.execute("DELETE FROM runs WHERE run_uuid = ?", [record.study_run_id])

    again = mlflow_tracker.open_study(own_plan())

    assert [None] * 4 == [run.outcome for run in mlflow_tracker.recorded_runs(again)]


@pytest.mark.slow
def test_a_study_deleted_while_it_runs_records_nothing_twice(mlflow_tracker: Any, bench: Bench, tiny: Study) -> None:
    bench.tracker = mlflow_tracker
    steps = bench.steps(tiny)
    while next(steps).latest is None:
        pass
    record = mlflow_tracker.find_study("tiny")
    mlflow_tracker.store.client.delete_run(record.study_run_id)

    for _ in steps:
        pass

    now = mlflow_tracker.find_study("tiny")
    assert record.study_run_id != now.study_run_id
    assert "FINISHED" == now.status
    assert 8 == len(children_of(mlflow_tracker.store.client, now))
    assert {Outcome.DONE} == {run.outcome for run in mlflow_tracker.recorded_runs(now)}
    _, analysis = summarize_study("tiny", tracker=mlflow_tracker)
    assert analysis is not None


@pytest.mark.slow
def test_two_coordinators_that_ran_side_by_side_leave_each_run_once(mlflow_tracker: Any, tmp_path: Path) -> None:
    record = mlflow_tracker.open_study(own_plan())
    planned, client = record.plan.runs[0], mlflow_tracker.store.client
    first = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    tags = {**client.get_run(first).data.tags, module.ATTEMPT: "second"}
    second = client.create_run(record.experiment_id, tags=tags).info.run_id
    for run_id, ended_ms in ((second, 2_000_000_000_000), (first, 2_000_000_000_001)):
        result = result_of(planned, {"score": 0.4, "odd": 1.0}, epochs=1, ended_ms=ended_ms)
        mlflow_tracker.finish_run(run_id, result, None)
    mlflow_tracker.close_study(record, "KILLED")
    folder = tmp_path / "state"
    folder.mkdir()
    state = State(folder=folder)

    sync_study("own", tracker=mlflow_tracker, storage_url=default_storage(folder), state=state)

    assert [second] == [run.info.run_id for run in children_of(client, record)]


@pytest.mark.slow
def test_of_coordinators_that_make_a_study_in_the_same_moment_one_has_it(
    mlflow_tracker: Any, store_uri: str, tmp_path: Path
) -> None:
    leases = []
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        leases.append(Lease("own", tracker=open_mlflow(store_uri), state_folder=tmp_path / name))
    assert () == mlflow_tracker.study_names()
    together = Barrier(len(leases))

    def open_one(lease: Lease) -> bool:
        together.wait()
        try:
            lease.open(own_plan())
            lease.check()
        except (StudyLocked, StudyTakenOver):
            return False
        return True

    with ThreadPoolExecutor(len(leases)) as pool:
        has_it = list(pool.map(open_one, leases))

    assert 1 == sum(has_it)
    (experiment,) = {mlflow_tracker.find_study("own").experiment_id}
    assert 1 == len(mlflow_tracker.store.client.search_runs([experiment], "tags.`ablation.kind` = 'study'"))


def test_two_planned_runs_that_are_one_run_are_recorded_once(tmp_path: Path) -> None:
    plan = own_plan()
    first, second = plan.runs[:2]
    alike = replace(plan, runs=(first, replace(second, identity=first.identity), *plan.runs[2:]))
    here = Place(tmp_path / "state", MemoryTracker(), alike)
    folder = here.state.begun("own", first.identity)
    folder.take_over({}, is_resumable=False)
    folder.begin_anew()
    folder.finish(result_of(first, {"score": 0.5, "odd": 1.0}, epochs=1, ended_ms=1))
    recorded = here.tracker.recorded_runs(here.record)

    found = recover_ended(here.uploads, recorded, plan=alike, state=here.state)

    assert here.uploads.wait()
    assert [Outcome.DONE, Outcome.DONE, None, None] == [run.outcome for run in found]
    assert [Outcome.DONE, Outcome.DONE, None, None] == [run.outcome for run in here.tracker.recorded_runs(here.record)]
    assert 1 == len(here.tracker._runs)
    here.uploads.close()


def test_what_was_refused_is_tried_again_from_where_every_study_finds_it(tmp_path: Path) -> None:
    here = Place(tmp_path / "state", Refusing(), own_plan())
    odd = here.plan.runs[0]
    folder = here.end(odd, {"score": 0.5, "odd": 13.0})
    assert here.uploads.wait()
    (here.state.folder / "runs").mkdir(exist_ok=True)
    folder.path.rename(here.state.folder / "runs" / odd.identity)
    here.tracker.refuses = lambda result: False

    recover_ended(here.uploads, here.tracker.recorded_runs(here.record), plan=here.plan, state=here.state)

    assert here.uploads.wait()
    assert {"score": 0.5, "odd": 13.0} == here.tracker.recorded_runs(here.record)[0].metrics
    here.uploads.close()


@pytest.mark.parametrize("wrong", [0.9, None], ids=["another value", "never arrived"])
def test_sync_puts_a_wrong_record_right_and_reports_anew(bench: Bench, tiny: Study, wrong: float | None) -> None:
    bench.run(tiny)
    (run_id, run), *_ = bench.tracker._runs.items()
    assert run.result is not None
    metrics = {name: value for name, value in run.result.metrics.items() if name != "test_accuracy"}
    right = run.result.metrics["test_accuracy"]
    run.result = replace(run.result, metrics={**metrics, **({"test_accuracy": wrong} if wrong else {})})
    bench.tracker.reports.clear()

    done = sync_study("tiny", tracker=bench.tracker, storage_url=default_storage(bench.state.folder), state=bench.state)

    found = bench.tracker._runs[run_id].result
    assert found is not None
    assert right == found.metrics["test_accuracy"]
    assert 1 == done.recorded
    assert "tiny" in bench.tracker.reports


def test_sync_reports_once_more_what_an_earlier_version_reported_without_its_answers(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    answered = bench.tracker.answered.pop("tiny")
    state, storage = bench.state, default_storage(bench.state.folder)

    sync_study("tiny", tracker=bench.tracker, storage_url=storage, state=state)
    assert answered == bench.tracker.answered["tiny"]

    bench.tracker.reports.clear()
    sync_study("tiny", tracker=bench.tracker, storage_url=storage, state=state)
    assert {} == bench.tracker.reports


def test_summarize_writes_nothing(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    bench.tracker.reports.clear()
    bench.tracker.answered.clear()

    summarize_study("tiny", tracker=bench.tracker)

    assert ({}, {}) == (bench.tracker.reports, bench.tracker.answered)


def test_a_parameter_that_is_there_stays_and_costs_nothing(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    description = RunDescription.of(planned, record.plan)
    mlflow_tracker.log_run(run_id, RunNews(description=replace(description, levels={"model.dropout": 0.0})))

    mlflow_tracker.log_run(
        run_id, RunNews(description=replace(description, levels={"model.dropout": 0, "model.depth": 3}))
    )

    params = mlflow_tracker.store.client.get_run(run_id).data.params
    assert ("0.0", "3") == (params["model.dropout"], params["model.depth"])


def test_a_metric_that_was_reported_and_not_returned_is_no_final_one(mlflow_tracker: Any) -> None:
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")
    epoch = ReportedEpoch(epoch=1, metrics={"score": 0.5, "f1": 0.8}, timestamp_ms=1)
    mlflow_tracker.log_run(run_id, RunNews(epochs=[epoch], heldout_split="validation"))

    mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4, "odd": 1.0}, epochs=1, ended_ms=1), None)

    assert {"score": 0.4, "odd": 1.0} == mlflow_tracker.recorded_runs(record)[0].metrics


def test_a_deleted_launch_run_is_not_taken_up(mlflow_tracker: Any, store_uri: str) -> None:
    run_id = launched(mlflow_tracker.store.client)
    tracker = open_mlflow(store_uri, launch_run_id=run_id, experiment_id="0")
    first = tracker.open_study(own_plan(), holder=holder_now())
    assert run_id == first.study_run_id
    mlflow_tracker.store.client.delete_run(run_id)

    again = tracker.open_study(own_plan(), holder=holder_now())

    assert run_id != again.study_run_id
    assert "it was deleted" in tracker.remarks("own")[0]


def test_a_file_that_a_proxy_takes_for_too_large_is_a_refusal(
    mlflow_tracker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = requests.Response()
    answer.status_code = 413
    error = requests.HTTPError("413 Request Entity Too Large", response=answer)
    monkeypatch.setattr(LocalArtifactRepository, "log_artifacts", raising(error))
    record = mlflow_tracker.open_study(own_plan())
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, {}, attempt="first")

    with pytest.raises(RecordRefused, match="413"):
        mlflow_tracker.finish_run(run_id, result_of(planned, {"score": 0.4}, epochs=1, ended_ms=1), tmp_path)


def raising(error: Exception) -> Callable[..., None]:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call
