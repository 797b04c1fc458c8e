"""Holds the rows of the first screen to the answers they are made of: none lost, none told otherwise."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from factories import make_plan, make_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_words import analysed, cells

from ablation.analysis import Analysis, Verdict, analyse
from ablation.analysis.answer_records import Answer, Interval
from ablation.analysis.resolution import with_resolution
from ablation.records import Outcome
from ablation.report.marks import MARKS, mark_of
from ablation.report.numbers import scale_of
from ablation.report.rows import Axis, Row, first_screen

NORM = {"effect": "model.normalization"}
amounts = st.floats(-0.2, 0.2).map(lambda value: round(value, 4))


def altered(answer: Answer, **changes: Any) -> Answer:
    assert answer.effect is not None
    return replace(answer, effect=replace(answer.effect, **changes))


def a_study(**options: Any) -> Analysis:
    return analysed(cells(depth=0.001, norm=0.05, both=0.052), **options)


@settings(max_examples=25)
@given(amounts, amounts, amounts)
def test_every_answer_has_one_row_in_the_plans_numbering(depth: float, norm: float, both: float) -> None:
    found = analysed(cells(depth, norm, both))

    rows = first_screen(found).rows
    assert sorted(row.number for row in rows) == list(range(1, len(found.answers) + 1))
    assert all(row.answer == found.answers[row.number - 1] for row in rows)


@settings(max_examples=25)
@given(amounts, amounts, amounts)
def test_rows_of_a_metric_are_decided_first_and_then_by_size(depth: float, norm: float, both: float) -> None:
    for group in first_screen(analysed(cells(depth, norm, both))).groups:
        decided = [row.answer.verdict.is_decided for row in group.rows]
        assert decided == sorted(decided, reverse=True)
        for is_decided in (True, False):
            sizes = [abs(row.mean or 0) for row in group.rows if row.answer.verdict.is_decided == is_decided]
            assert sizes == sorted(sizes, reverse=True)


def test_the_studys_metric_comes_first_whatever_is_asked_first() -> None:
    questions = [
        {"effect": "model.normalization", "on": "test_loss"},
        {"effect": "model.normalization"},
    ]

    groups = first_screen(a_study(questions=questions)).groups
    assert [group.metric.name for group in groups] == ["test_accuracy", "test_loss"]


def test_a_run_without_a_result_gives_a_row_without_a_difference_that_names_the_error() -> None:
    plan = make_plan(seeds=3)
    runs = make_runs(plan)
    failed = runs[-1]
    runs[-1] = replace(failed, outcome=Outcome.FAILED, error="Traceback\nRuntimeError: no room left", metrics={})

    broken = [row for row in first_screen(analyse(plan, runs)).rows if row.answer.verdict is Verdict.INCOMPLETE]
    assert broken
    assert all(row.problem == f"{failed.planned.name} failed: RuntimeError: no room left" for row in broken)
    assert {(row.mean, row.effect, row.bounds) for row in broken} == {(None, "", "")}


def test_a_comparison_without_a_mean_shows_no_seeds_differences_either() -> None:
    plan = make_plan(seeds=3)
    runs = make_runs(plan)
    waits = analyse(plan, [*runs[:-1], replace(runs[-1], outcome=None, metrics={})])

    rows = [row for row in first_screen(waits).rows if row.mean is None]
    assert any(row.answer.differences for row in rows)
    assert [row.dots for row in rows] == [()] * len(rows)


def test_all_numbers_of_a_metric_have_the_same_decimals() -> None:
    for group in first_screen(a_study()).groups:
        shown = [text for row in group.rows for text in (row.effect, *row.bounds.split(" to ")) if text]
        assert {len(text.partition(".")[2]) for text in shown} == {group.decimals}


def test_a_small_mean_beside_wide_intervals_gives_all_of_its_metric_its_decimals() -> None:
    template = a_study().answers[0]
    wide = Interval(low=-0.4, high=0.3, level=0.95)
    found = with_resolution([altered(template, mean=mean, interval=wide) for mean in (0.04, -0.009, 0.003)])

    (group,) = first_screen(replace(a_study(), answers=found)).groups
    assert [row.effect for row in group.rows] == ["+4.0", "−0.9", "+0.3"]


def test_the_sign_of_an_unclear_time_is_explained_where_it_is_shown() -> None:
    answer = a_study().answers[0]
    assert answer.cost is not None
    screens = [
        first_screen(replace(a_study(), answers=(replace(answer, cost=replace(answer.cost, is_time_unclear=unclear)),)))
        for unclear in (False, True)
    ]

    assert [screen.cost_note for screen in screens] == ["", "≈: training time differs less than it varies."]


@settings(max_examples=25)
@given(
    st.lists(st.tuples(amounts, st.floats(1e-4, 0.3)), min_size=1, max_size=6),
    st.sampled_from([None, 0.005, 0.01]),
)
def test_no_bound_is_rounded_onto_what_it_is_compared_with(made: list[tuple[float, float]], rope: float | None) -> None:
    template = a_study().answers[0]
    answers = [
        altered(
            replace(template, rope=rope), mean=mean, interval=Interval(low=mean - half, high=mean + half, level=0.95)
        )
        for mean, half in made
    ]

    resolution = with_resolution(answers)[0].resolution
    assert resolution is not None
    step = 10.0 ** (math.floor(math.log10(resolution)) - 1)
    usual = sorted(half for _, half in made)[(len(made) - 1) // 2]
    for mean, half in made:
        for bound in (mean - half, mean + half):
            for limit in (0.0, *((rope, -rope) if rope else ())):
                is_near = 0 < abs(bound - limit) < usual / 1000  # no number of digits that one reads tells these apart
                assert is_near or (round(bound / step) == round(limit / step)) <= (abs(bound - limit) <= 1e-12)


@settings(max_examples=25)
@given(st.lists(amounts, min_size=1, max_size=5), st.floats(0.0001, 5))
def test_an_axis_holds_zero_the_band_all_means_and_dots_and_is_not_stretched_by_bars(
    means: list[float], half: float
) -> None:
    found = a_study(questions=[{"effect": "model.normalization"}])
    wide = [
        altered(found.answers[0], mean=mean, interval=Interval(low=mean - half, high=mean + half, level=0.95))
        for mean in means
    ]

    (group,) = first_screen(replace(found, answers=tuple(wide))).groups
    points = [0.0, group.band or 0.0, -(group.band or 0.0), *(row.mean for row in group.rows if row.mean is not None)]
    points += [dot.value for row in group.rows for dot in row.dots]
    assert all(map(group.axis.holds, points))
    assert group.axis.high - group.axis.low <= 2.3 * (max(points) - min(points))


def test_a_place_on_an_axis_is_a_share_of_it_and_what_is_beyond_lies_at_its_end() -> None:
    axis = Axis(low=-1.0, high=3.0)

    assert [axis.share(value) for value in (-9.0, -1.0, 0.0, 3.0, 9.0)] == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_dots_are_the_seeds_differences_as_they_are_shown() -> None:
    row: Row = first_screen(a_study()).rows[0]

    scale = scale_of(row.answer.metric.unit)
    expected = [(each.seed, scale * each.difference, each.run_ids) for each in row.answer.differences]
    assert [(dot.seed, dot.value, dot.run_ids) for dot in row.dots] == expected


def test_every_verdict_has_a_mark_and_shapes_tell_them_apart_without_colour() -> None:
    assert set(MARKS) == set(Verdict)
    shapes = {mark.name: mark.shape for mark in MARKS.values()}
    assert len(set(shapes.values())) == len(shapes)


def test_a_crossover_is_marked_as_one_whatever_its_average_is() -> None:
    crossing = analysed(cells(depth=0.04, norm=0.03, both=0.01))

    assert {mark_of(answer).name for answer in crossing.answers if answer.is_crossover} == {"crossover"}


@pytest.mark.parametrize(("unit", "shown"), [("fraction", "points"), ("nats", "nats"), ("score", "")])
def test_a_legend_says_the_unit_the_band_and_which_side_is_better(unit: str, shown: str) -> None:
    found = a_study(questions=[{"effect": "model.normalization"}])
    answer = replace(found.answers[0], metric=replace(found.answers[0].metric, unit=unit))

    (group,) = first_screen(replace(found, answers=(answer,))).groups
    assert group.legend.startswith(f"{shown}; " if shown else "band: too small to matter (±")
    assert group.legend.endswith("better to the right")


def test_the_headline_names_the_largest_effects_and_counts_the_rest() -> None:
    line = first_screen(a_study()).headline

    assert line.startswith("normalization none → batch helps (+5.0")
    assert "more decided" in line or "undecided" in line or "no meaningful difference" in line


def test_a_study_without_a_decision_says_so_first() -> None:
    line = first_screen(analysed(cells(depth=0.004, norm=0.004, both=0.004), seeds=2)).headline

    assert line == "No comparison is decided: 2 undecided."


def test_a_headline_on_another_metric_names_it_and_its_size_in_one_bracket() -> None:
    found = analysed(cells(depth=0.001, norm=0.05, both=0.05), questions=[{**NORM, "on": "learning_curve_area"}])

    line = first_screen(found).headline
    assert re.search(r" helps \(area under the test accuracy curve: \+[\d.]+ points\)", line), line
