"""What the stores promise while they fail: each run is claimed and told once, whatever is called again."""

import itertools
import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
from conftest import PROJECT, mlflow_server
from factories import make_plan, make_runs
from forking import QUICK
from mlflow import MlflowClient
from optuna.trial import TrialState
from postgresql import Postgresql

from ablation.errors import StorageUnavailable
from ablation.records import TASKS, Outcome, Plan, PlannedRun, ReportedEpoch, RunResult, TuningTrial
from ablation.scheduling import Schedule, TuningSchedule, default_storage, open_schedule, open_tuning, storage
from ablation.scheduling import trials as tuning
from ablation.storage.databases import with_driver
from ablation.study.search_spaces import Tuning
from ablation.testing.trackers import answer_of, report_in
from ablation.tracking import RunNews, open_mlflow

Value = TypeVar("Value")
OF_FIRST_USE = ["alembic.command", "alembic.config", "alembic.script", "optuna.storages._rdb.models"]
"""What a first use imports; imported beforehand, eight of them meet within a moment."""
PLAN = make_plan(seeds=1)
TUNING = Tuning.model_validate({"trials": 2, "depth": {"integers": (1, 5)}, "rate": {"log": (1e-4, 1e-1)}})


class Faults:
    """Lets a transaction that wrote something fail at its end, and the first statement after it, as in an outage.

    A statement that fails is rolled back: to the database it is the same as a commit that was not carried out.
    """

    def __init__(self) -> None:
        self.is_carried_out = False
        self.begin(failing=0)

    def begin(self, *, failing: int) -> None:
        self.commits = 0
        self._failing = failing
        self._is_out = False

    @property
    def has_failed(self) -> bool:
        return 0 < self._failing <= self.commits

    def commit(self, connection: sqlite3.Connection, commit: Callable[[], None]) -> None:
        self.commits += connection.in_transaction
        fails = connection.in_transaction and self.commits == self._failing
        if not fails or self.is_carried_out:
            commit()
        if fails:
            self._is_out = True
            raise sqlite3.OperationalError("disk I/O error")

    def execute(self) -> None:
        is_out, self._is_out = self._is_out, False
        if is_out:
            raise sqlite3.OperationalError("unable to open database file")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults of the driver, under SQLAlchemy and Optuna as they are, on a real file."""
    found = Faults()

    class Cursor(sqlite3.Cursor):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            found.execute()
            return super().execute(*arguments)

    class Connection(storage.LoggedConnection):
        def cursor(self, *_: Any) -> sqlite3.Cursor:
            return super().cursor(Cursor)

        def commit(self) -> None:
            found.commit(self, super().commit)

    monkeypatch.setattr(storage, "LoggedConnection", Connection)
    monkeypatch.setattr(storage, "is_on_local_disk", lambda folder: True)
    return found


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A database with Optuna's tables and nothing else."""
    folder = tmp_path_factory.mktemp("empty")
    with closing(sqlite3.connect(folder / "whole.db")) as whole:
        storage.open_storage(default_storage(folder)).engine.dispose()
        with closing(sqlite3.connect(folder / "optuna.db")) as made:
            made.backup(whole)
    return (folder / "whole.db").read_bytes()


def tried(call: Callable[[], Value], *, pause_s: float = 0.0, tries: int = 200) -> Value:
    """Call until the database does not fail, as a coordinator does."""
    for _ in range(tries):
        try:
            return call()
        except StorageUnavailable:
            time.sleep(pause_s)
    return call()


def work_off(
    url: str, *, pause_s: float = 0.0, between: Callable[[Schedule, PlannedRun], None] = lambda schedule, run: None
) -> list[PlannedRun]:
    """Claim and tell all of a plan's runs, two at a time, one of them given back once; return what was claimed.

    `between` is called with a run that is claimed and not told yet.
    """
    schedule = tried(lambda: open_schedule(url, PLAN, nothing(PLAN), alike=lambda run: run.seed), pause_s=pause_s)
    claimed: list[PlannedRun] = []
    released = False
    while group := tried(lambda: schedule.next_group(2), pause_s=pause_s):
        between(schedule, group[0])
        for run in group:
            if run == PLAN.runs[1] and not released:
                tried(lambda run=run: schedule.release(run), pause_s=pause_s)
                released = True
                continue
            claimed.append(run)
            tried(lambda run=run: end(schedule, run), pause_s=pause_s)
    return claimed


def end(schedule: Schedule, run: PlannedRun) -> None:
    if run == PLAN.runs[2]:
        schedule.tell(run, outcome=Outcome.DIVERGED, value=None)
    else:
        schedule.tell(run, outcome=Outcome.DONE, value=0.5)


def nothing(plan: Plan) -> Any:
    return make_runs(plan, outcomes={(run.variant, run.seed): None for run in plan.runs})


def trials(url: str, study: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=storage.open_storage(url)).get_trials()


def ends(url: str) -> dict[str, list[str]]:
    """Return how each run's trials ended, in order."""
    found: dict[str, list[str]] = {}
    for trial in trials(url, "quick"):
        found.setdefault(str(trial.user_attrs.get("identity")), []).append(
            f"{trial.state.name} {trial.value} {trial.user_attrs.get('outcome', '')}".strip()
        )
    return found


def expected_ends() -> dict[str, list[str]]:
    released, diverged = PLAN.runs[1], PLAN.runs[2]
    told = {run.identity: ["COMPLETE 0.5"] for run in PLAN.runs}
    return {**told, released.identity: ["FAIL None", "COMPLETE 0.5"], diverged.identity: ["FAIL None diverged"]}


def tune(url: str) -> list[dict[str, Any]]:
    """Work a tuning off; return the settings that were tried."""
    opened = tried(lambda: open_tuned(url))
    settings = []
    while (suggestion := tried(opened.next_trial)) is not None:
        settings.append(dict(suggestion.settings))
        ended = trial_of(suggestion.number, suggestion.settings)
        tried(lambda ended=ended: opened.tell(ended))
    return settings


def open_tuned(url: str) -> TuningSchedule:
    return open_tuning(
        url,
        name="quick",
        variant="a",
        tuning=TUNING,
        start={"depth": 3, "rate": 0.01},
        direction="maximize",
        study_seed=0,
        basis="",
    )


def trial_of(number: int, settings: Any) -> TuningTrial:
    is_pruned = number == 1
    return TuningTrial(
        number=number,
        settings=settings,
        outcome="pruned" if is_pruned else "done",
        value=None if is_pruned else 0.1 * number,
        curve=(0.1,),
        seconds=1.0,
        run_ids=(str(number),),
    )


def tuned_ends(url: str) -> list[tuple[TrialState, float | None, dict[int, float]]]:
    """Return the trials that were told, and none that was asked for in vain."""
    (name,) = optuna.get_all_study_names(url)
    found = trials(url, name)
    assert {trial.state for trial in found if "trial" not in trial.user_attrs} <= {TrialState.FAIL}
    return [(trial.state, trial.value, trial.intermediate_values) for trial in found if "trial" in trial.user_attrs]


def failures(work: Callable[[str], object], faults: Faults, folder: Path, empty: bytes) -> Iterator[str]:
    """Do some work again and again, with each commit failing once; yield the database after each time."""
    for n in itertools.count(1):
        place = folder / str(n)
        place.mkdir()
        (place / "optuna.db").write_bytes(empty)
        faults.begin(failing=n)
        work(default_storage(place))
        if not faults.has_failed:
            return
        yield default_storage(place)


@pytest.mark.slow
@pytest.mark.parametrize("is_carried_out", [False, True], ids=["before", "after"])
def test_whichever_commit_fails_each_run_is_claimed_and_told_once(
    is_carried_out: bool, faults: Faults, tmp_path: Path, empty: bytes
) -> None:
    faults.is_carried_out = is_carried_out
    claimed: list[PlannedRun] = []

    for url in failures(lambda url: claimed.extend(work_off(url)), faults, tmp_path, empty):
        assert expected_ends() == ends(url)
        assert {*PLAN.runs} == {*claimed}
        assert len(PLAN.runs) == len(claimed)
        claimed.clear()


@pytest.mark.slow
@pytest.mark.parametrize("is_carried_out", [False, True], ids=["before", "after"])
def test_whichever_commit_fails_the_same_settings_are_tried_and_told_once(
    is_carried_out: bool, faults: Faults, tmp_path: Path, empty: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "STARTUP_TRIALS", 1)
    undisturbed = tune(default_storage(tmp_path))
    told = tuned_ends(default_storage(tmp_path))
    faults.is_carried_out = is_carried_out
    settings: list[dict[str, Any]] = []

    for url in failures(lambda url: settings.extend(tune(url)), faults, tmp_path, empty):
        assert told == tuned_ends(url)
        assert undisturbed == settings
        settings.clear()


def test_a_run_that_waits_twice_is_claimed_once(tmp_path: Path) -> None:
    url = default_storage(tmp_path)
    first, *others = PLAN.runs
    schedule = open_schedule(url, PLAN, nothing(PLAN))
    study = optuna.load_study(study_name="quick", storage=url)
    claimed = [schedule.next_run()]
    study.enqueue_trial({"seed": 0}, user_attrs={"identity": first.identity})
    study.enqueue_trial({"seed": 0}, user_attrs={"identity": others[0].identity})
    schedule.tell(first, outcome=Outcome.DONE, value=0.5)

    while (run := schedule.next_run()) is not None:
        claimed.append(run)

    assert list(PLAN.runs) == claimed


def test_a_trial_that_somebody_else_has_ended_stays_as_it_ended(tmp_path: Path) -> None:
    url = default_storage(tmp_path)
    schedule = open_schedule(url, PLAN, nothing(PLAN))
    first, second = schedule.next_run(), schedule.next_run()
    assert first is not None
    assert second is not None
    for number in (0, 1):
        optuna.load_study(study_name="quick", storage=url).tell(number, state=TrialState.FAIL)

    schedule.tell(first, outcome=Outcome.DONE, value=0.5)
    schedule.tell(second, outcome=Outcome.FAILED, value=None)

    assert {"FAIL None"} == {*ends(url)[first.identity], *ends(url)[second.identity]}


def test_a_trial_whose_record_was_written_is_told_so_by_the_next_coordinator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = default_storage(tmp_path)
    lost = open_tuned(url)
    suggestion = lost.next_trial()
    assert suggestion is not None
    with monkeypatch.context() as patched:
        patched.setattr(tuning, "_tell", _killed)
        with pytest.raises(KeyboardInterrupt):
            lost.tell(trial_of(0, suggestion.settings))

    open_tuned(url)

    assert [(TrialState.COMPLETE, 0.0, {1: 0.1})] == tuned_ends(url)


@pytest.mark.slow
def test_a_locked_file_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LOCKED_S", 0.1)
    url = default_storage(tmp_path)

    claimed = work_off(url, pause_s=0.1, between=lambda schedule, run: _lock_for_a_second(tmp_path, schedule, run))

    assert expected_ends() == ends(url)
    assert sorted(PLAN.runs, key=str) == sorted(claimed, key=str)


def test_a_reader_sees_one_state_while_the_coordinator_writes(tmp_path: Path) -> None:
    url = default_storage(tmp_path)
    open_schedule(url, PLAN, nothing(PLAN))
    with closing(sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        before = reader.execute("SELECT count(*) FROM trials").fetchone()

        work_off(url)

        assert before == reader.execute("SELECT count(*) FROM trials").fetchone()
    assert expected_ends() == ends(url)


@pytest.mark.slow
def test_a_schedule_on_postgresql_runs_through(postgresql_url: str) -> None:
    claimed = work_off(postgresql_url)

    assert expected_ends() == ends(postgresql_url)
    assert sorted(PLAN.runs, key=str) == sorted(claimed, key=str)


@pytest.mark.slow
def test_a_database_that_is_restarted_loses_nothing(postgresql_url: str, postgresql: Postgresql) -> None:
    claimed = work_off(
        postgresql_url, pause_s=0.1, between=lambda schedule, run: _stop_for_a_second(postgresql, schedule, run)
    )

    assert expected_ends() == ends(postgresql_url)
    assert sorted(PLAN.runs, key=str) == sorted(claimed, key=str)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_eight_may_be_the_first_at_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = default_storage(tmp_path) if kind == "sqlite" else request.getfixturevalue("postgresql_url")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [QUICK, PROJECT, PROJECT / "tests"])))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_stores", *OF_FIRST_USE])
    barrier = context.Barrier(8)
    processes = [context.Process(target=_open_first, args=(url, f"study-{index}", barrier)) for index in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert {0} == {process.exitcode for process in processes}
    assert {f"study-{index}" for index in range(8)} == {*optuna.get_all_study_names(storage.open_storage(url))}


@pytest.mark.slow
def test_a_study_is_recorded_by_an_mlflow_server_on_postgresql(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    epochs = [
        ReportedEpoch(epoch=epoch, metrics={"test_accuracy": 0.5}, timestamp_ms=1_700_000_000_000 + epoch)
        for epoch in (1, 2)
    ]
    with mlflow_server(tmp_path, database=with_driver(postgresql_url)) as address:
        tracker = open_mlflow(address)
        record = tracker.open_study(PLAN)
        for run in PLAN.runs:
            run_id = tracker.start_run(record, run, {"device": "cpu"}, attempt="first")
            tracker.log_run(run_id, RunNews(epochs=epochs, heldout_split="test"))
            tracker.log_run(run_id, RunNews(epochs=epochs, heldout_split="test"))
            tracker.finish_run(run_id, result_of(run), None)
        for answers in ([answer_of("depth"), answer_of("norm")], [answer_of("depth", mean=-0.5, seeds=3)]):
            tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=answers)
        tracker.close_study(record, "FINISHED")

        found = open_mlflow(address).find_study("quick")
        assert found is not None
        recorded = tracker.recorded_runs(found)
        kept = MlflowClient(address).get_run(found.study_run_id).data

    assert ("FINISHED", PLAN) == (found.status, found.plan)
    assert [(run, Outcome.DONE) for run in PLAN.runs] == [(run.planned, run.outcome) for run in recorded]
    assert found.has_answers
    assert ["verdict.depth"] == [name for name in kept.tags if name.startswith("verdict.")]
    assert -0.5 == kept.metrics["effect.depth"]
    assert [((1, 0.5), (2, 0.5))] * len(PLAN.runs) == [run.curves["test_accuracy"] for run in recorded]


def result_of(run: PlannedRun) -> RunResult:
    return RunResult(
        identity=run.identity,
        outcome=Outcome.DONE,
        metrics=dict.fromkeys(TASKS["classification"].metrics, 0.5),
        epochs=2,
    )


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def _lock_for_a_second(folder: Path, schedule: Schedule, run: PlannedRun) -> None:
    if run != PLAN.runs[0]:
        return
    locked = sqlite3.connect(folder / "optuna.db", isolation_level=None, check_same_thread=False)
    locked.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageUnavailable, match="locked"):
        end(schedule, run)
    threading.Timer(1.0, locked.close).start()


def _stop_for_a_second(postgresql: Postgresql, schedule: Schedule, run: PlannedRun) -> None:
    if run != PLAN.runs[0]:
        return
    postgresql.stop()
    threading.Timer(1.0, postgresql.start).start()
    with pytest.raises(StorageUnavailable, match="refused"):
        end(schedule, run)


def _open_first(url: str, name: str, barrier: Barrier) -> None:
    plan = make_plan(name=name, seeds=1)
    barrier.wait()
    open_schedule(url, plan, nothing(plan))
