"""Holds numbers in print to what they are: none but zero reads as zero, no interval as a point, no sign is lost."""

import dataclasses
import math
import re

import pytest
from factories import make_plan, make_runs
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ablation.analysis import Verdict, analyse
from ablation.analysis.analysis_record import Analysis
from ablation.analysis.statistics import sample_sd, skewness
from ablation.records import Variant
from ablation.report import report_text, sentence
from ablation.report.numbers import (
    MINUS,
    differences_text,
    ends_text,
    level_percent,
    ratio_text,
    reported,
    scale_of,
    signed,
    unit_of_differences,
    value_text,
)

UNITS = ["fraction", "percent", "nats", "score"]
SIZES = st.floats(min_value=1e-290, max_value=1e290)
NUMBERS = st.tuples(st.sampled_from([1, -1]), SIZES).map(math.prod) | st.floats(min_value=-200, max_value=200)
NORMALIZATION = {"model.normalization": ("none", "batch")}


def read(text: str) -> float:
    """Return the number that a text begins with, as a reader takes it."""
    found = re.match(r"[+−]?[\d,.]+(e−?\d+)?", text)
    assert found is not None, text
    return float(found[0].replace(",", "").replace(MINUS, "-"))


@given(NUMBERS, st.sampled_from(UNITS), st.integers(-300, 20))
@example(1e-9, "score", 4)
@example(-1e-9, "fraction", 2)
def test_no_number_but_zero_is_shown_as_zero_and_its_sign_is_kept(value: float, unit: str, decimals: int) -> None:
    for text in (value_text(value, unit), signed(value, decimals), *differences_text([value], unit)):
        assert math.copysign(1, value) == math.copysign(1, read(text)) or value == 0
        assert (value == 0) == (read(text) == 0)


@given(NUMBERS, NUMBERS, st.sampled_from(UNITS))
@example(0.5, 0.5 + 1e-9, "score")
@example(1e290, 1e290 * (1 + 1e-9), "score")
def test_the_ends_of_an_interval_are_never_the_same_in_print(one: float, other: float, unit: str) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-13 * max(abs(low), abs(high)) and high / 2 - low / 2 > 0)
    _, *ends = differences_text([low, low, high], unit)

    assert read(ends[0]) < read(ends[1])
    first, last = ends_text(low, high, unit).split(" to ")
    assert read(first) < read(last)


@given(NUMBERS, st.sampled_from(UNITS))
def test_a_value_is_shown_to_two_digits_or_better(value: float, unit: str) -> None:
    assert read(value_text(value, unit)) == pytest.approx(scale_of(unit) * value, rel=0.051, abs=0)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1e-9, "score", "1.0e−9"),
        (0.00004, "nats", "0.000040"),
        (0.5412, "nats", "0.5412"),
        (0.8283, "fraction", "82.83 %"),
        (75.25, "percent", "75.25 %"),
        (1e300, "score", "1.00e300"),
        (0.0, "score", "0.0000"),
        (8.4, "seconds", "8.4 s"),
    ],
)
def test_values_as_they_are_read(value: float, unit: str, text: str) -> None:
    assert text == value_text(value, unit)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9493, "0.9493"), (0.0, "0.0000"), (-12.5, "-12.5000"), (9.1e-12, "9.1e−12"), (8.62e300, "8.62e300")],
)
def test_a_value_that_a_run_reached_is_short_and_no_zero_whatever_its_size(value: float, text: str) -> None:
    assert text == reported(value)


def test_a_percent_differs_by_points_as_a_fraction_does() -> None:
    assert ["+1.08", "+0.50", "+1.65"] == differences_text([1.076, 0.5, 1.65], "percent")
    assert {"points"} == {unit_of_differences(unit) for unit in ("fraction", "percent")}


@given(st.floats(min_value=1e-14, max_value=0.5))
def test_no_level_is_shown_as_certainty(alpha: float) -> None:
    assert read(level_percent(1 - alpha)) < 100


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0, "unchanged"),
        (1.00001, "+0.001 %"),
        (1.08, "+8.0 %"),
        (0.00001, "−99.999 %"),
        (0.0, "−100 %"),
        (31_000.0, "×31,000"),
    ],
)
def test_what_changed_is_not_called_unchanged_and_what_is_left_not_nothing(ratio: float, text: str) -> None:
    assert text == ratio_text(ratio)


@pytest.mark.parametrize("size", [1e-290, 1e-9, 1.0, 1e290, 1e300])
def test_spread_does_not_depend_on_the_size_of_numbers(size: float) -> None:
    values = [1.0, 2.0, 4.0, 8.0]
    scaled = [size * value / 8 for value in values]

    assert sample_sd(scaled) == pytest.approx(size / 8 * (sample_sd(values) or 0), rel=1e-9)
    assert skewness(scaled) == pytest.approx(skewness(values))


def measured(size: float, *, own_name: str = "score") -> Analysis:
    """Analyse a study whose own metric is of a size."""
    plan = make_plan(
        factors=NORMALIZATION, metric={"name": own_name, "direction": "maximize", "meaningful": 0.001 * size}
    )

    def own(variant: Variant, seed: int) -> float:
        return size * (0.5 + 0.001 * (seed % 3) + (0.2 + 0.01 * math.sin(seed)) * ("batch" in variant.levels.values()))

    variants = {variant.name: variant for variant in plan.variants}
    runs = [
        dataclasses.replace(
            run, metrics={**run.metrics, own_name: own(variants[run.planned.variant], run.planned.seed)}
        )
        for run in make_runs(plan)
    ]
    return analyse(plan, runs)


@pytest.mark.parametrize("size", [1e-290, 1e-9, 1e12, 1e290, 1e299])
def test_a_metric_of_any_size_is_judged_as_one_of_size_one_and_reported_whole(size: float) -> None:
    analysis, usual = measured(size), measured(1.0)

    assert [Verdict.HELPS] == [each.verdict for each in analysis.answers] == [each.verdict for each in usual.answers]
    said = sentence(analysis.answers[0])
    assert len(said) < 400
    assert not re.search(r"\b0\.0+ (higher|to)", said)
    assert all(report_text(analysis, form) for form in ("json", "latex", "latex-wide", "markdown"))
