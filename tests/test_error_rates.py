"""Holds the benchmark of error rates to its own definitions, in a small run of it."""

import numpy as np
import pytest

from ablation.analysis.answer_records import Interval
from ablation.analysis.sequential import Standing, State
from benchmarks.error_rates import Cell, cells, is_wrong, line, measure, runs_taken

ROPE = 0.005
KINDS = [
    Cell(truth="half", noise="normal", variants=2, looks=(3, 5, 8), rope=0.5),
    Cell(truth="mixed", noise="SDs 1 to 7", variants=4, looks=(5, 8), rope=None),
    Cell(truth="at the ROPE", noise="discrete", variants=2, looks=(5, 8), rope=1.0),
    Cell(truth="null", noise="χ²", variants=3, looks=(5, 8), rope=1.0),
    Cell(truth="null", noise="normal", variants=2, looks=(5, 8, 12), rope=None, planned=(5,)),
]


def standing(state: State, low: float, high: float, *, wanted: int = 8) -> Standing:
    interval = Interval(low=low, high=high, level=0.95)
    return Standing(state=state, seeds=wanted, alpha=0.05, interval=interval, wanted=wanted)


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        (standing(State.DIFFERENT, 0.001, 0.02), 0.0, True),
        (standing(State.DIFFERENT, 0.001, 0.02), -0.01, True),
        (standing(State.DIFFERENT, 0.001, 0.02), 0.001, False),
        (standing(State.DIFFERENT, 0.006, 0.02), 0.004, True),
        (standing(State.DIFFERENT, 0.006, 0.02), ROPE, True),
        (standing(State.DIFFERENT, 0.006, 0.02), 0.0051, False),
        (standing(State.DIFFERENT, -0.02, -0.006), -0.0051, False),
        (standing(State.TOO_SMALL, -0.004, 0.004), ROPE, True),
        (standing(State.TOO_SMALL, -0.004, 0.004), -0.006, True),
        (standing(State.TOO_SMALL, -0.004, 0.004), 0.0049, False),
        (standing(State.FUTILE, -0.02, 0.02), 0.0, False),
        (standing(State.ENDED, -0.02, 0.02), 0.5, False),
    ],
)
def test_wrong_is_whatever_is_not_true(found, true, expected):
    assert is_wrong(found, true, ROPE) is expected


def test_without_a_rope_no_size_is_wrong():
    assert not is_wrong(standing(State.DIFFERENT, 0.006, 0.02), 0.001, None)


def test_runs_are_those_of_each_variant_and_of_the_baseline_that_all_share():
    found = [standing(State.DIFFERENT, 1, 2, wanted=5), standing(State.ENDED, -1, 1, wanted=12)]

    assert runs_taken(found, 5) == 12 + 5 + 12


@pytest.mark.parametrize("noise", ["normal", "SDs 1 to 7", "χ²", "χ² variants", "t", "lognormal", "discrete"])
def test_what_is_drawn_has_the_means_and_spreads_that_it_is_judged_by(noise):
    cell = Cell(truth="half", noise=noise, variants=2, looks=(200_000,), rope=None)

    values = cell.draw(np.random.default_rng(1))

    differences = values[1:] - values[0]
    assert differences.mean(axis=1) == pytest.approx(cell.differences, abs=float(np.max(cell.sds)) / 50)
    assert differences[0].std() == pytest.approx(cell.sds[0], rel=0.1)


@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: cell.name)
def test_whole_studies_come_to_the_verdicts_and_runs_of_their_plain_numbers(cell):
    result = measure(cell, repetitions=6, whole=6)

    assert result["whole_studies"] == 6
    assert result["planned_looks"]["runs"] <= result["fixed"]["runs"] == (1 + cell.variants) * cell.looks[-1]
    assert line(result).startswith(cell.name)


def test_every_cell_has_a_name_of_its_own():
    names = [cell.name for cell in cells()]

    assert len(names) == len(set(names))
