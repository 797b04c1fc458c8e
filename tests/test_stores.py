"""What the stores promise while they fail: each run is claimed and told once, whatever is called again."""

import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
from factories import make_plan, make_runs
from optuna.trial import TrialState

from ablation.databases import with_driver
from ablation.errors import StorageUnavailable
from ablation.results import Outcome, Plan, PlannedRun, TuningTrial
from ablation.scheduling import Schedule, TuningSchedule, default_storage, open_schedule, open_tuning, storage, tuning
from ablation.study.tuning import Tuning

Value = TypeVar("Value")
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


def work_off(url: str, *, pause_s: float = 0.0, between: Callable[[], None] = lambda: None) -> list[PlannedRun]:
    """Claim and tell all of a plan's runs, two at a time, one of them given back once; return what was claimed."""
    schedule = tried(lambda: open_schedule(url, PLAN, nothing(PLAN), alike=lambda run: run.seed), pause_s=pause_s)
    claimed: list[PlannedRun] = []
    released = False
    while group := tried(lambda: schedule.next_group(2), pause_s=pause_s):
        between()
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


def ends(url: str) -> dict[str, list[str]]:
    """Return how each run's trials ended, in order."""
    found: dict[str, list[str]] = {}
    for trial in optuna.load_study(study_name="quick", storage=with_driver(url)).get_trials():
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
    trials = optuna.load_study(study_name=name, storage=url).get_trials()
    assert {trial.state for trial in trials if "trial" not in trial.user_attrs} <= {TrialState.FAIL}
    return [(trial.state, trial.value, trial.intermediate_values) for trial in trials if "trial" in trial.user_attrs]


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
