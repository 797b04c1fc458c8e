"""A time that is told is what a run usually takes: no first run of a worker, and no finer than runs vary."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from bench import Bench
from factories import make_plan, make_runs

from ablation.analysis import analyse
from ablation.analysis.answer_records import Answer
from ablation.records import Plan, RecordedRun
from ablation.report.prose import sentence
from ablation.study import Study
from ablation.worker import run

IMPORTS_S = 300.0


def timed(
    plan: Plan, seconds: Callable[[str, int], float], *, first: Sequence[tuple[str, int]] = ()
) -> list[RecordedRun]:
    """Record every run with what it took by variant and seed; `first` are those of a worker."""
    return [
        replace(
            run,
            metrics={**run.metrics, "training_seconds": seconds(run.planned.variant, run.planned.seed)},
            is_first=(run.planned.variant, run.planned.seed) in first,
        )
        for run in make_runs(plan)
    ]


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(factors={"model.normalization": ("none", "batch")}, seeds=4)


NONE, BATCH = "normalization=none", "normalization=batch"


def answer_of(plan: Plan, runs: list[RecordedRun]) -> Answer:
    return analyse(plan, runs).answers[0]


def test_what_a_worker_imports_is_no_cost_of_a_level(plan: Plan) -> None:
    def seconds(variant: str, seed: int) -> float:
        return (IMPORTS_S if (variant, seed) == (NONE, 0) else 0) + (12.0 if variant == BATCH else 10.0) + 0.1 * seed

    answer = answer_of(plan, timed(plan, seconds, first=[(NONE, 0)]))

    assert answer.cost is not None
    assert pytest.approx((12 + 0.15) / (10 + 0.2)) == answer.cost.seconds
    assert not answer.cost.is_time_unclear
    assert pytest.approx(10.2 + 12.15) == answer.seconds_per_seed
    row = analyse(plan, timed(plan, seconds, first=[(NONE, 0)])).variants[0]
    assert (3, 10.2, 10.3) == (row.training and (row.training.n, row.training.median, row.training.maximum))


def test_a_time_that_varies_more_than_it_differs_is_not_told(plan: Plan) -> None:
    def seconds(variant: str, seed: int) -> float:
        return (10.5 if variant == BATCH else 10.0) + 4.0 * seed

    answer = answer_of(plan, timed(plan, seconds))

    assert answer.cost is not None
    assert answer.cost.seconds is None
    assert answer.cost.is_time_unclear
    assert "training time differs less than it varies" in sentence(answer)


def test_a_difference_that_some_runs_of_a_variant_show_too_is_not_told(plan: Plan) -> None:
    """Seconds as they were seen on a machine whose load changed: "+65 %" would have been told."""
    seen = {NONE: (0.58, 1.82, 0.80, 1.12), BATCH: (3.05, 2.50, 2.18, 1.10)}

    answer = answer_of(plan, timed(plan, lambda variant, seed: seen[variant][seed]))

    assert answer.cost is not None
    assert answer.cost.is_time_unclear


def test_an_earlier_versions_first_runs_are_seen_by_their_spread(plan: Plan) -> None:
    """Versions that did not record which run was a worker's first told "+3,998 %"."""

    def seconds(variant: str, seed: int) -> float:
        return IMPORTS_S if variant == NONE and seed < 2 else 1.0 + 0.01 * seed

    answer = answer_of(plan, timed(plan, seconds))

    assert answer.cost is not None
    assert answer.cost.seconds is None


def test_runs_that_are_all_first_are_compared_with_each_other(plan: Plan) -> None:
    everyone = [(variant, seed) for variant in (NONE, BATCH) for seed in range(4)]
    answer = answer_of(plan, timed(plan, lambda variant, _: 30.0 if variant == BATCH else 20.0, first=everyone))

    assert answer.cost is not None
    assert 1.5 == answer.cost.seconds


@pytest.mark.parametrize("first", [[(NONE, seed) for seed in range(4)], [(NONE, seed) for seed in range(3)]])
def test_one_run_or_first_ones_beside_others_give_no_time(plan: Plan, first: list[tuple[str, int]]) -> None:
    answer = answer_of(plan, timed(plan, lambda variant, _: 30.0 if variant == BATCH else 20.0, first=first))

    assert answer.cost is not None
    assert (None, False) == (answer.cost.seconds, answer.cost.is_time_unclear)


@pytest.mark.slow
def test_one_run_of_a_worker_is_its_first(
    tmp_path: Path, data_cache: Path, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_has_trained", threading.Event())
    bench = Bench(tmp_path, data_cache)
    bench.run(tiny)
    record = bench.tracker.find_study(tiny.name)
    assert record is not None

    found = [recorded.planned for recorded in bench.tracker.recorded_runs(record) if recorded.is_first]

    assert bench.trained[:1] == found
    assert 1 < len(bench.trained)


def test_equal_times_are_told_as_equal(plan: Plan) -> None:
    answer = answer_of(plan, timed(plan, lambda *_: 20.0))

    assert answer.cost is not None
    assert 1.0 == answer.cost.seconds
