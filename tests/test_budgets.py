"""Studies within a budget of wall-clock time: what is begun, what is said, and that more of it comes to the same."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import Bench
from test_looks import study_in

from ablation.analysis import Verdict
from ablation.analysis.sequential import State
from ablation.coordinator.conclusion import StudyOutcome
from ablation.executors import InlineExecutor
from ablation.records import Outcome, Spending
from ablation.report.prose import headline, overview, sentence
from ablation.study.budget import budget_seconds, enough_text
from ablation.tracking import Tracker

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

    def submit(self, function: Any, jobs: Any, *rest: Any) -> Any:  # type: ignore[override]
        future = super().submit(function, jobs, *rest)
        results = []
        for job, result in zip(jobs, future.result(), strict=True):
            cost_s = self._cost_s[job.planned.variant]
            self._clock.now += cost_s
            results.append(replace(result, metrics={**result.metrics, "total_seconds": cost_s}))
            job.folder.finish(results[-1])
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
    assert f"the same command with --budget {enough_text(out.needed_s)} or more" in overview(outcome.analysis)[2]

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


def verdicts(outcome: StudyOutcome) -> list[Any]:
    assert outcome.analysis is not None
    return [(answer.verdict, answer.look, answer.effect, answer.differences) for answer in outcome.analysis.answers]
