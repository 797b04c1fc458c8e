"""Studies within a budget of wall-clock time: what is begun, what is said, and that more of it comes to the same."""

import heapq
import itertools
import json
import os
import re
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from click.testing import CliRunner
from conftest import command_environment, eventually
from forking import Starter
from hypothesis import given, settings
from hypothesis import strategies as st
from test_looks import study_in
from test_looks_of_designs import plan, runs_of
from test_tuning import tuned_study

import ablation
from ablation import cli
from ablation.analysis import RuleChange, StudyLooks, Verdict
from ablation.analysis.sequential import State
from ablation.api.result import StudyResult
from ablation.cli.tables import StudyStanding, status_json, status_text
from ablation.coordinator.budget import Allowance, Budget, RunTimes, time_of
from ablation.coordinator.conclusion import StudyOutcome
from ablation.coordinator.lease import Lease
from ablation.coordinator.looks import LooksUnderWay
from ablation.errors import AblationError, ArgumentInvalid, StudyFileError
from ablation.executors import Files, InlineExecutor
from ablation.executors import Place as JobPlace
from ablation.pipeline import compare_study, summarize_study, sync_study
from ablation.preview import preview_study
from ablation.records import Outcome, OutOfBudget, Plan, PlannedRun, RecordedRun, Spending
from ablation.report.prose import headline, overview, sentence
from ablation.scheduling import default_storage
from ablation.study import Study, load_study
from ablation.study.budget import Budget as BudgetSection
from ablation.study.budget import budget_seconds, enough_text
from ablation.study.plan_json import plan_to_json
from ablation.tracking import Tracker, open_mlflow

COST_S = {"gain=0": 100.0, "gain=1": 200.0, "gain=2": 300.0, "gain=3": 400.0}
"""What a job of each variant takes, by the test's clock."""
ROUND_S = sum(COST_S.values())
"""One seed of every variant."""
FIRST_LOOK_S = 3 * ROUND_S


@dataclass(slots=True)
class Clock:
    """A clock that stands still until a test moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(InlineExecutor):
    """Trains each job in this process, and moves a clock by what a job of its variant takes."""

    def __init__(self, clock: Clock, cost_s: Mapping[str, float]) -> None:
        super().__init__(device="cpu")
        self._clock = clock
        self._cost_s = cost_s

    def submit(self, function: Any, *args: Any, files: Files | None = None) -> Any:
        assert files is not None
        future = super().submit(function, *args, files=files)
        results = []
        for job, result in zip(args[0], future.result(), strict=True):
            cost_s = self._cost_s[job.planned.variant]
            self._clock.now += cost_s
            results.append(replace(result, metrics={**result.metrics, "total_seconds": cost_s}))
            job.at(JobPlace(folder=files.home)).folder.finish(results[-1])
        timed_future: Future[Any] = Future()
        timed_future.set_result(tuple(results))
        return timed_future


def timed(bench: Bench, *, budget_s: float | None, cost_s: Mapping[str, float] = COST_S) -> Bench:
    """Give a bench a clock of its own, and a budget."""
    clock = Clock()
    bench.clock, bench.executor, bench.budget_s = clock, Timed(clock, cost_s), budget_s
    return bench


def spending_of(tracker: Tracker, name: str = "looks") -> Spending:
    record = tracker.find_study(name)
    assert record is not None
    return record.spending


def test_a_look_that_would_not_fit_is_not_begun(bench: Bench, tmp_path: Path) -> None:
    outcome = timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))

    assert outcome.analysis is not None
    assert 12 == len(bench.trained) == len(outcome.runs)
    assert FIRST_LOOK_S == bench.clock()
    assert State.OUT_OF_BUDGET in {answer.look.state for answer in outcome.analysis.answers}


def test_what_is_open_is_out_of_budget_after_its_seeds(bench: Bench, tmp_path: Path) -> None:
    outcome = timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))

    assert outcome.analysis is not None
    found = next(answer for answer in outcome.analysis.answers if answer.verdict is Verdict.OUT_OF_BUDGET)
    assert headline(found).endswith(", out of budget after 3 seeds")
    assert "Next: the look at 5 seeds, which did not fit into the budget" in sentence(found)
    assert found.effect is not None
    assert found.effect.interval is not None


def test_the_way_on_is_said_and_is_enough(bench: Bench, tmp_path: Path) -> None:
    outcome = timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))
    assert outcome.analysis is not None
    out = outcome.analysis.out_of_budget
    assert out is not None
    assert out.needed_s is not None
    assert f"the same command with --budget {enough_text(out.needed_s)} or more" in overview(outcome.analysis)[3]

    bench.budget_s = budget_seconds(enough_text(out.needed_s))
    bench.run(study_in(tmp_path))

    assert [] != bench.trained


def test_the_same_command_with_the_same_budget_ends_at_once_saying_so(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))

    again = bench.run(study_in(tmp_path))

    assert [] == bench.trained
    assert again.record.spending.is_out
    assert "out of budget: the next look needs" in bench.notes[-1]


def test_a_first_look_that_would_not_fit_ends_once_each_variant_was_measured(bench: Bench, tmp_path: Path) -> None:
    outcome = timed(bench, budget_s=2 * ROUND_S).run(study_in(tmp_path))

    assert list(COST_S) == [run.variant for run in bench.trained]
    assert "out of budget: the first look needs 8 more runs, about 33 min" in bench.notes[-1]
    assert {Outcome.DONE: 4} == outcome.ended
    assert 12 == len(outcome.runs)
    assert outcome.analysis is not None
    assert {Verdict.OUT_OF_BUDGET} == {answer.verdict for answer in outcome.analysis.answers}
    assert headline(outcome.analysis.answers[0]).endswith("after 1 seed")


def test_a_first_look_that_fits_is_finished_though_it_takes_longer(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=FIRST_LOOK_S + 1)
    steps = bench.steps(study_in(tmp_path))
    for progress in steps:
        if sum(progress.ended.values()) == 4:
            bench.executor = timed_executor = bench.executor
            timed_executor._cost_s = {variant: 10 * seconds for variant, seconds in COST_S.items()}  # type: ignore[attr-defined]

    found = bench.tracker.find_study("looks")
    assert found is not None
    assert 12 == sum(run.outcome is not None for run in bench.tracker.recorded_runs(found))
    assert found.spending.is_out


def test_a_first_look_ends_as_soon_as_enough_is_known(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=350).run(study_in(tmp_path))

    assert ["gain=0", "gain=1"] == [run.variant for run in bench.trained]


def test_a_study_of_one_look_has_the_rule_of_a_first_look(bench: Bench, tmp_path: Path) -> None:
    too_small = timed(bench, budget_s=3 * ROUND_S).run(study_in(tmp_path, seeds="4"))

    assert 4 == len(bench.trained)
    assert too_small.record.spending.is_out

    bench.budget_s = 5 * ROUND_S
    enough = bench.run(study_in(tmp_path, seeds="4"))

    assert 12 == len(bench.trained)
    assert not enough.record.spending.is_out
    assert {Outcome.DONE: 16} == enough.ended


def test_growth_beyond_the_plan_is_within_the_budget_too(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=None).run(study_in(tmp_path, seeds="3"))

    bench.budget_s = FIRST_LOOK_S + 10
    grown = bench.run(study_in(tmp_path, seeds="5"))

    assert [] == bench.trained
    assert grown.record.spending.is_out


def test_earlier_executions_count_and_pauses_between_them_do_not(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=None).run(study_in(tmp_path, seeds="3"))
    assert FIRST_LOOK_S == spending_of(bench.tracker).spent_s
    bench.clock.now += 1e6  # type: ignore[attr-defined]

    bench.run(study_in(tmp_path, seeds="4"))

    assert FIRST_LOOK_S + sum(COST_S[run.variant] for run in bench.trained) == spending_of(bench.tracker).spent_s


def answers_of(outcome: StudyOutcome) -> list[Any]:
    assert outcome.analysis is not None
    return [(answer.verdict, answer.look, answer.effect, answer.differences) for answer in outcome.analysis.answers]


@pytest.mark.slow
@pytest.mark.parametrize("budgets_s", [[2 * ROUND_S, 4 * ROUND_S, 6 * ROUND_S], [FIRST_LOOK_S + 100], [250, 350]])
def test_a_study_that_goes_on_with_more_comes_to_the_same_as_one_without_a_budget(
    bench: Bench, tmp_path: Path, budgets_s: Sequence[float]
) -> None:
    other = timed(Bench(tmp_path / "other", tmp_path), budget_s=None)
    undisturbed = other.run(study_in(tmp_path))
    timed(bench, budget_s=None)
    trained: list[PlannedRun] = []
    for budget_s in [*budgets_s, None]:
        bench.budget_s = budget_s
        outcome = bench.run(study_in(tmp_path))
        trained += bench.trained

    assert sorted(run.name for run in other.trained) == sorted(run.name for run in trained)
    assert answers_of(undisturbed) == answers_of(outcome)
    assert plan_to_json(undisturbed.record.plan) == plan_to_json(outcome.record.plan)


def test_a_budget_is_in_no_plan_and_changing_it_is_no_deviation(bench: Bench, tmp_path: Path) -> None:
    without = study_in(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(file.read_text() + "budget: {hours: 1, minutes: 30}\n")
    within = load_study(file)
    assert within.spec.budget is not None
    assert 5400 == within.spec.budget.seconds
    assert without.spec.document() == within.spec.document()
    assert without.locked() == within.locked()
    assert without.spec.fixed() == within.spec.fixed()

    first = timed(bench, budget_s=350).run(within)
    bench.budget_s = 450
    second = bench.run(without)

    assert () == second.record.plan.deviations
    assert first.record.plan.locked_hash == second.record.plan.locked_hash


def test_a_retried_failure_is_weighed_like_all_else(bench: Bench, tmp_path: Path) -> None:
    broken = study_in(tmp_path, seeds="3", training='{name: "loop.py:train", gain: 0, broken: 2}')
    timed(bench, budget_s=FIRST_LOOK_S + 100).run(broken)
    bench.retry_failed = True

    again = bench.run(broken)

    assert [] == bench.trained
    assert again.record.spending.is_out
    assert bench.tracker.find_study("looks").status == "FAILED"  # a failed run is a failure within a budget too


def test_an_interrupted_execution_counts(bench: Bench, tmp_path: Path) -> None:
    steps = timed(bench, budget_s=1e6).steps(study_in(tmp_path))
    next(progress for progress in steps if sum(progress.ended.values()) == 2)
    spent_s = bench.clock()

    steps.close()

    assert Spending(spent_s=spent_s, limit_s=1e6) == spending_of(bench.tracker)


def test_the_time_is_recorded_with_every_renewal_of_the_lease(bench: Bench, tmp_path: Path) -> None:
    bench.run(study_in(tmp_path, seeds="3"))
    lease, clock = Lease("looks", tracker=bench.tracker, state_folder=bench.state.folder), Clock()
    lease.take()
    budget = Budget(limit_s=600, spent_before_s=50, begun=0, clock=clock)
    lease.count(lambda: budget.spending)
    clock.now = 30

    lease.renew()  # and then it is killed

    assert Spending(spent_s=80, limit_s=600) == spending_of(bench.tracker)
    lease.release()


def test_another_execution_begins_out_of_nothing(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))
    assert spending_of(bench.tracker).is_out
    bench.budget_s = None

    steps = bench.steps(study_in(tmp_path))
    next(progress for progress in steps if progress.running or progress.latest)

    assert not spending_of(bench.tracker).is_out
    steps.close()


def test_a_study_begun_anew_has_spent_nothing(bench: Bench, tmp_path: Path) -> None:
    timed(bench, budget_s=None).run(study_in(tmp_path, seeds="3"))
    bench.is_fresh = True

    bench.run(study_in(tmp_path, seeds="3"))

    assert FIRST_LOOK_S == spending_of(bench.tracker).spent_s


class Ticking(InlineExecutor):
    """Does each job in this process, and moves a clock by 100 s for it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(device="cpu")
        self._clock = clock

    def submit(self, function: Any, *args: Any, files: Files | None = None) -> Any:
        self._clock.now += 100
        return super().submit(function, *args, files=files)


@pytest.mark.slow
def test_tuning_counts_and_ends_in_good_order_once_the_budget_is_spent(bench: Bench) -> None:
    study = tuned_study("seeds=1")
    clock = Clock()
    bench.clock, bench.executor, bench.budget_s = clock, Ticking(clock), 250

    outcome = bench.run(study)

    assert {} == outcome.ended
    assert outcome.analysis is None
    out = outcome.record.spending.out
    assert out == OutOfBudget(limit_s=250, spent_s=300, needed_s=pytest.approx(1.05 * 400 + 20))
    assert "out of budget: it is spent before all variants are tuned" in bench.notes[-1]
    assert StudyResult.of(outcome, bench.tracker).has_ended_well

    bench.budget_s = 700
    resumed = bench.run(study)

    assert {Outcome.DONE: 2} == resumed.ended
    assert 600 == resumed.record.spending.spent_s  # four trials and two runs, none of them twice


@pytest.mark.slow
def test_every_view_says_that_a_study_is_out_of_budget(
    bench: Bench, tmp_path: Path, mlflow_tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.tracker = mlflow_tracker
    outcome = timed(bench, budget_s=FIRST_LOOK_S + 100).run(study_in(tmp_path))

    record = mlflow_tracker.find_study("looks")
    assert record is not None
    assert outcome.record.spending.out == record.spending.out
    looks = StudyLooks.of(record.plan, mlflow_tracker.recorded_runs(record), is_out_of_budget=True)
    standing = StudyStanding(record=record, runs=looks.recorded_runs, unrecorded=0, look=looks.text)
    said = status_text([standing])
    assert "looks: out of budget; 12 done, 0 diverged, 0 failed, 0 to do of 12 runs" in said
    assert re.search(r"look 1 of 4: 0 open, .*\d out of budget", said)
    assert "Out of budget: 50 of 52 min were spent, and what comes next did not fit; the same command with" in said
    found = json.loads(status_json([standing]))[0]["spending"]
    assert (FIRST_LOOK_S, FIRST_LOOK_S + 100) == (found["out"]["spent_s"], found["out"]["limit_s"])
    tags = mlflow_tracker.store.client.get_run(record.study_run_id).data.tags  # type: ignore[attr-defined]
    assert "1 of 4, out of budget" == tags["ablation.look"]
    _, again = summarize_study("looks", tracker=mlflow_tracker)
    assert outcome.analysis == again
    for unchanged in (RuleChange(), RuleChange(alpha=record.plan.locked.alpha)):
        assert summarize_study("looks", tracker=mlflow_tracker, change=unchanged) == (record, again)
    first, second = (variant.name for variant in record.plan.variants[:2])
    assert () == compare_study("looks", first, second, tracker=mlflow_tracker).withheld
    result = StudyResult.of(outcome, mlflow_tracker)
    assert result.out_of_budget == record.spending.out
    assert not result.is_complete
    assert result.has_ended_well
    assert "out of budget" in repr(result)
    synced = sync_study(
        "looks", tracker=mlflow_tracker, storage_url=default_storage(bench.state.folder), state=bench.state
    )
    assert (0, 0) == (synced.recorded, synced.to_do)
    assert spending_of(mlflow_tracker) == record.spending


def test_progress_has_the_runs_of_each_variant_at_every_step(bench: Bench, tmp_path: Path) -> None:
    seen = [step for step in timed(bench, budget_s=10 * FIRST_LOOK_S).steps(study_in(tmp_path)) if step.variants]

    assert len({step.planned for step in seen}) > 1  # a look asked for more
    for step in seen:
        assert step.planned == sum(one.asked for one in step.variants)
        assert sum(step.ended.values()) == sum(one.ended for one in step.variants)
    assert all(one.is_complete for one in seen[-1].variants)


def test_progress_says_what_is_spent_and_what_the_next_look_takes(bench: Bench, tmp_path: Path) -> None:
    steps = timed(bench, budget_s=10 * FIRST_LOOK_S).steps(study_in(tmp_path))
    seen = list(steps)

    budgets = [progress.budget for progress in seen if progress.budget is not None]
    assert budgets[0].startswith("budget: 0.0 of 8.3 h")
    assert any(
        re.fullmatch(r"budget: 0\.\d of 8\.3 h; next look: up to 8 runs, about 33 min", said) for said in budgets
    )
    notes = [progress.note for progress in seen if progress.note is not None]
    assert any(re.search(r"; budget: 0\.8 of 8\.3 h; next look: \d+ runs, about \d+ min$", said) for said in notes)


def test_without_a_budget_nothing_is_said_of_one(bench: Bench, tmp_path: Path) -> None:
    seen = list(timed(bench, budget_s=None).steps(study_in(tmp_path, seeds="3")))

    assert {None} == {progress.budget for progress in seen}
    assert not any("budget" in progress.note for progress in seen if progress.note is not None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5h", 5400), ("1h0m5s", 3605), (" 2h ", 7200)],
)
def test_a_budget_is_read_as_it_is_written(text: str, seconds: float) -> None:
    assert seconds == budget_seconds(text)


@pytest.mark.parametrize(
    "text", ["90", "1.5", "", "h", "2 hours", "-2h", "0h", "0h0m", "2h90", "m30", "nanh", "9999999h"]
)
def test_what_is_no_budget_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="give a time such as 2h, 90m, 1h30m or 45s, above 0"):
        budget_seconds(text)


@given(seconds=st.floats(min_value=0.1, max_value=1e7))
def test_a_budget_that_is_enough_is_never_rounded_down(seconds: float) -> None:
    assert seconds <= budget_seconds(enough_text(seconds)) <= seconds + 300


def test_a_bare_number_is_refused_by_the_option_and_by_python(tmp_path: Path) -> None:
    study_in(tmp_path)
    result = CliRunner().invoke(cli.main, ["study", str(tmp_path / "study.yaml"), "--budget", "90"])
    assert 2 == result.exit_code
    assert "'90' has no unit; give a time such as 2h" in result.output
    with pytest.raises(ArgumentInvalid, match="budget must be a time"):
        ablation.run(tmp_path / "study.yaml", budget=90)  # type: ignore[arg-type]
    with pytest.raises(AblationError, match="'2 hours' is no budget"):
        ablation.run(tmp_path / "study.yaml", budget="2 hours")


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("2h", "must be a mapping such as {hours: 2} or {minutes: 90}, not '2h' @ budget"),
        ("{}", "is empty; write {hours: 2} or {minutes: 90} @ budget"),
        ("{hours: 0}", "@ budget.hours"),
        ("{days: 1}", "unknown key 'days'"),
    ],
)
def test_a_wrong_budget_of_a_file_is_told_with_what_is_allowed(tmp_path: Path, budget: str, said: str) -> None:
    study_in(tmp_path)
    file = tmp_path / "study.yaml"
    file.write_text(file.read_text() + f"budget: {budget}\n")

    with pytest.raises(StudyFileError, match=re.escape(said)):
        load_study(file)


@given(st.text() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_a_damaged_record_of_what_was_spent_counts_as_nothing(text: str) -> None:
    assert Spending() == Spending.from_json(text)


@given(
    spent=st.floats(0, 1e9),
    limit=st.none() | st.floats(1, 1e9),
    needed=st.none() | st.floats(0, 1e9),
    is_out=st.booleans(),
)
def test_what_was_spent_is_read_as_it_was_written(
    spent: float, limit: float | None, needed: float | None, is_out: bool
) -> None:
    out = OutOfBudget(limit_s=limit or 1.0, spent_s=spent, needed_s=needed) if is_out else None
    spending = Spending(spent_s=spent, limit_s=limit, out=out)

    assert spending == Spending.from_json(spending.to_json())


def test_a_variant_without_a_time_takes_the_others_median() -> None:
    times = RunTimes()
    for variant, seconds in (("a", 10.0), ("a", 30.0), ("a", 20.0), ("b", 40.0), ("c", 0.0)):
        times.add(variant, seconds)
    runs = {name: PlannedRun(identity=name, variant=name, seed=0) for name in "abcd"}

    assert [20.0, 40.0, 30.0, 30.0] == [times.usual(runs[name]) for name in "abcd"]
    assert [20.0, 40.0, 30.0, 0.0] == [times.least(runs[name]) for name in "abcd"]
    assert times.were_tried([runs[name] for name in "abc"])
    assert not times.were_tried(runs.values())


@pytest.mark.parametrize(
    ("costs", "slots", "seconds"),
    [([], 2, 0), ([5, 5, 5], 1, 15), ([5, 5, 5], 2, 10), ([9, 1, 1, 1], 2, 9), ([3], 0, 3)],
)
def test_jobs_share_the_slots(costs: list[float], slots: int, seconds: float) -> None:
    assert seconds == time_of(costs, slots=slots)


def test_plan_says_which_look_the_files_budget_fits(bench: Bench, tiny: Study) -> None:
    study = replace(tiny, spec=tiny.spec.model_copy(update={"budget": BudgetSection(hours=1)}))

    shown = preview_study(study, state=bench.state, device="cpu")

    assert "The budget of 60 min fits up to 2 of 2 seeds, one run after the other." in shown.lines_below()


@dataclass(kw_only=True)
class Simulated:
    """A study whose runs end by a clock: what its executions have trained, and what they took."""

    design: str
    cost_s: Mapping[str, float]
    slots: int
    clock: Clock = field(default_factory=Clock)
    trained: list[PlannedRun] = field(default_factory=list, repr=False)
    spending: Spending = field(default_factory=Spending)

    @property
    def plan(self) -> Plan:
        return PLANS[self.design]

    @property
    def results(self) -> Mapping[str, RecordedRun]:
        return RESULTS[self.design]

    @property
    def recorded(self) -> list[RecordedRun]:
        return [self.results[run.identity] for run in self.trained]

    def _timed(self, run: RecordedRun) -> RecordedRun:
        seconds = self.cost_s[run.planned.variant]
        return replace(run, metrics={**run.metrics, "total_seconds": seconds, "training_seconds": seconds})

    def execute(self, budget_s: float | None) -> None:
        """Train as `Execution.train` does, a run in each free slot, until nothing is left that may be begun."""
        budget = Budget(limit_s=budget_s, spent_before_s=self.spending.spent_s, begun=self.clock.now, clock=self.clock)
        done = [self._timed(run) for run in self.recorded]
        looks = LooksUnderWay(self.plan, done)
        allowance = Allowance(budget, looks, done, slots=lambda: self.slots)
        ended = {run.identity for run in self.trained}
        waiting = deque(run for run in looks.runs if run.identity not in ended)
        allowance.decide()
        running: list[tuple[float, int, PlannedRun]] = []
        for number in itertools.count():
            while waiting and len(running) < self.slots and not allowance.is_halted:
                run = waiting.popleft()
                allowance.begin((run,))
                heapq.heappush(running, (self.clock.now + self.cost_s[run.variant], number + len(running), run))
            if not running:
                break
            self.clock.now, _, run = heapq.heappop(running)
            self.trained.append(run)
            allowance.end(run, {})
            allowance.ask(looks.add(self.results[run.identity]))
            waiting.extend(allowance.decide())
        allowance.conclude()
        self.spending = budget.spending


PLANS = {name: plan(name) for name in ("factorial", "interaction", "parts", "listed")}
RESULTS = {name: runs_of(made) for name, made in PLANS.items()}


@st.composite
def simulated(draw: st.DrawFn) -> Simulated:
    name = draw(st.sampled_from(sorted(PLANS)))
    costs = {variant.name: draw(st.integers(1, 50)) for variant in PLANS[name].variants}
    return Simulated(design=name, cost_s=costs, slots=draw(st.integers(1, 5)))


def undisturbed_of(study: Simulated) -> Simulated:
    """Return the same study, trained without a budget."""
    made = replace(study, clock=Clock(), trained=[])
    made.execute(None)
    return made


@pytest.mark.slow
@given(study=simulated(), shares=st.lists(st.floats(0.01, 1.5), max_size=5))
@settings(max_examples=100, deadline=None)
def test_whatever_the_budgets_the_runs_and_verdicts_in_the_end_are_those_without_one(
    study: Simulated, shares: list[float]
) -> None:
    undisturbed = undisturbed_of(study)

    for share in sorted(shares):
        study.execute(share * undisturbed.clock.now)
    study.execute(None)

    assert len(study.trained) == len({run.identity for run in study.trained})
    assert {run.identity for run in undisturbed.trained} == {run.identity for run in study.trained}
    expected, found = (StudyLooks.of(study.plan, each.recorded) for each in (undisturbed, study))
    assert expected.standings == found.standings


@pytest.mark.slow
@given(study=simulated(), share=st.floats(0.01, 1.5))
@settings(max_examples=200, deadline=None)
def test_where_runs_take_what_they_took_nothing_is_begun_that_would_not_fit(study: Simulated, share: float) -> None:
    budget_s = share * undisturbed_of(study).clock.now
    probes_s = sum(study.cost_s.values()) + study.slots * max(study.cost_s.values())

    study.execute(budget_s)

    assert study.spending.spent_s <= max(budget_s, probes_s)


@pytest.mark.slow
@given(study=simulated(), share=st.floats(0.01, 1.5))
@settings(max_examples=100, deadline=None)
def test_the_budget_that_is_said_to_be_needed_is_enough_to_go_on(study: Simulated, share: float) -> None:
    study.execute(share * undisturbed_of(study).clock.now)
    before, out = len(study.trained), study.spending.out

    study.execute(out.needed_s if out is not None else None)

    assert (len(study.trained) > before) == (out is not None)


SLEEPING = """
import time


def train(settings, seed, report):
    time.sleep(0.5)
    gain = settings["training"]["gain"]
    return {"score": 0.5 + 0.05 * gain + 0.001 * ((7 * seed + gain) % 5)}
"""
SLOW_FILE = """
name: slow
training: {name: "sleeping.py:train", gain: 0}
factors: {training.gain: [0, 1]}
seeds: {looks: [6, 9]}
metric: {name: score, direction: maximize, meaningful: 0.008}
"""


class Place:
    """A folder where real commands run a study whose runs sleep."""

    def __init__(self, folder: Path, data_cache: Path, store: Path, starter: Starter) -> None:
        self.folder, self.starter = folder, starter
        self.environment = command_environment(folder, data_cache, store=store)
        (folder / "sleeping.py").write_text(SLEEPING)
        (folder / "slow.yaml").write_text(SLOW_FILE)
        self.command = ["-m", "ablation", "study", "slow.yaml", "--workers", "1", "--json"]

    def study(self, *options: str) -> dict[str, Any]:
        ended = self.starter.run([*self.command, *options], environment=self.environment, folder=self.folder)
        assert 0 == ended.returncode, ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found

    @property
    def tracker(self) -> Tracker:
        return open_mlflow(self.environment["MLFLOW_TRACKING_URI"])

    def ended(self) -> int:
        record = self.tracker.find_study("slow")
        return 0 if record is None else sum(run.has_result for run in self.tracker.recorded_runs(record))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("hearing_signals")
def test_a_killed_study_keeps_to_its_budget_and_comes_to_the_same_with_more(
    tmp_path: Path, data_cache: Path, empty_store: Path, starter: Starter
) -> None:
    place = Place(tmp_path, data_cache, empty_store, starter)
    killed = starter.start([*place.command, "--budget", "1h"], environment=place.environment, folder=tmp_path)
    eventually(lambda: place.ended() >= 4)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    before, spent = place.ended(), spending_of(place.tracker, "slow")
    assert 3600 == spent.limit_s
    assert not spent.is_out

    too_little = place.study("--budget", "2s")

    assert before <= too_little["done"] < 12  # what had ended and was not recorded is; no other is begun
    assert too_little["done"] == place.ended()
    assert 2 == too_little["out_of_budget"]["limit_s"]
    assert spent.spent_s < too_little["out_of_budget"]["spent_s"] < spending_of(place.tracker, "slow").spent_s

    enough = place.study("--budget", enough_text(too_little["out_of_budget"]["needed_s"]))

    assert enough["out_of_budget"] is None
    assert enough["runs"] == enough["done"] == place.ended()
    _, found = summarize_study("slow", tracker=place.tracker)
    assert [(Verdict.HELPS, 6)] == [(answer.verdict, answer.look.seeds) for answer in found.answers]
