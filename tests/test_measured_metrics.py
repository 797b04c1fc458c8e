"""A plan carries the list of metrics that its runs have: what a later version measures makes no study incomplete."""

import json
from dataclasses import replace
from typing import Any

import pytest
from bench import Bench
from conftest import TINY
from factories import make_plan, make_runs

from ablation.analysis import analyse
from ablation.pipeline import summarize_study
from ablation.records import FIRST_MEASURED, TASKS, Metric, Outcome, Plan
from ablation.study import Study, parse_override, parse_study
from ablation.study.plan_json import plan_from_json, plan_to_json

METRICS = TASKS["classification"].metrics

LATER = Metric(label="a later metric", direction="maximize", unit="score", tuned_by="accuracy")
BEFORE = tuple(METRICS)
"""What this version measures."""


def tiny(*changes: str) -> Study:
    overrides = [parse_override(change) for change in changes]
    return parse_study(TINY, source="tiny.yaml", overrides=overrides, name="tiny")


def plan_on_record(bench: Bench) -> Plan:
    record = bench.tracker.find_study("tiny")
    assert record is not None
    return record.plan


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give what makes this version measure one metric more."""
    return lambda: monkeypatch.setitem(METRICS, "a_later_metric", LATER)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_study_recorded_before_a_metric_was_added_is_complete(bench: Bench, later: Any) -> None:
    bench.run(tiny())
    _, before = summarize_study("tiny", tracker=bench.tracker)
    later()

    _, analysis = summarize_study("tiny", tracker=bench.tracker)

    assert before == analysis
    assert () == analysis.diagnostics.damaged


@pytest.mark.slow
def test_a_study_recorded_before_a_metric_was_added_resumes_without_training(bench: Bench, later: Any) -> None:
    bench.run(tiny())
    later()

    outcome = bench.run(tiny())

    assert [] == bench.trained
    assert {Outcome.DONE: 8} == outcome.ended
    assert BEFORE == plan_on_record(bench).measured


@pytest.mark.slow
def test_a_study_that_grows_keeps_its_own_list(bench: Bench, later: Any) -> None:
    bench.run(tiny())
    later()

    outcome = bench.run(tiny("seeds=3"))

    assert {Outcome.DONE: 12} == outcome.ended
    assert BEFORE == plan_on_record(bench).measured
    assert outcome.analysis is not None
    assert () == outcome.analysis.diagnostics.damaged


@pytest.mark.slow
def test_a_new_study_has_all_that_is_measured_now_in_its_list(bench: Bench, later: Any) -> None:
    later()

    outcome = bench.run(tiny())

    assert (*BEFORE, "a_later_metric") == plan_on_record(bench).measured
    assert outcome.analysis is not None
    assert {("no metric a_later_metric",)} == {one.problems for one in outcome.analysis.diagnostics.damaged}


@pytest.mark.slow
def test_a_question_on_a_metric_that_earlier_runs_lack_is_asked_and_not_answered(bench: Bench, later: Any) -> None:
    bench.run(tiny())
    later()

    outcome = bench.run(tiny("questions=[{effect: model.depth}, {effect: model.depth, on: a_later_metric}]"))

    assert outcome.analysis is not None
    assert [0, 8] == [len(answer.missing) for answer in outcome.analysis.answers]


def test_a_plan_of_before_has_the_first_list() -> None:
    document = json.loads(plan_to_json(make_plan()))
    assert 1 == document["format"]
    del document["measured"]

    plan = plan_from_json(json.dumps(document))

    assert FIRST_MEASURED == plan.measured
    assert make_plan().locked_hash == plan.locked_hash


def test_the_first_list_is_what_is_measured_by_now() -> None:
    assert set(FIRST_MEASURED) <= METRICS.keys()


def test_a_listed_metric_that_is_not_known_any_more_is_neither_expected_nor_compared() -> None:
    plan = plan_from_json(plan_to_json(replace(make_plan(), measured=(*FIRST_MEASURED, "forgotten"))))

    analysis = analyse(plan, make_runs(plan))

    assert FIRST_MEASURED == plan.expected_metrics
    assert "forgotten" not in {metric.name for metric in analysis.metrics}


def test_the_compared_metric_is_known_from_the_plan_alone() -> None:
    metric = {"name": "forgotten", "direction": "minimize", "meaningful": 0.1}
    plan = make_plan(metric=metric)

    assert Metric(label="forgotten", direction="minimize", unit="score", tuned_by=None) == plan.metrics["forgotten"]
    assert analyse(plan, make_runs(plan)).metric.name == "forgotten"


def test_a_question_on_a_metric_that_is_not_known_is_said_where_the_plan_is_read() -> None:
    plan = make_plan(questions=[{"effect": "model.depth", "on": "forgotten"}])

    with pytest.raises(ValueError, match="asks about 'forgotten', a metric that this version of ablation does not"):
        plan_from_json(plan_to_json(plan))


def test_a_plan_that_lists_no_metric_is_reported() -> None:
    plan = replace(make_plan(), measured=())

    assert analyse(plan, make_runs(plan)).answers
