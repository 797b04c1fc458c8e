"""Holds what `plan` says a design can find to the rule itself, to exact values, and to its words."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_plan, make_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.analysis import StudyLooks
from ablation.analysis.power import QuestionPower, detectable, noise_of, power_of
from ablation.analysis.sequential import Asked, Rule, State, judged
from ablation.analysis.statistics import detectable_difference, seeds_for_power
from ablation.records import Outcome, Plan
from ablation.report.power_text import power_lines, warning


def rule(looks: tuple[int, ...], comparisons: int, *, alpha: float = 0.05) -> Rule:
    return Rule(looks=looks, growth=(), alpha=alpha, planned=comparisons, comparisons=comparisons)


def asked(*, rope: float | None = None, values: tuple[float, ...] = ()) -> Asked:
    return Asked(metric="accuracy", rope=rope, spread=1.0, seeds=list(values))


def found(looks: tuple[int, ...], *, comparisons: int, alike: int, rope: float | None = None):
    family = [asked(rope=rope)] * alike
    return detectable(family, rule(looks, comparisons), noise={"accuracy": 1.0} if rope else None)[0]


def questions_of(plan: Plan, *, noise: float | None = None) -> tuple[QuestionPower, ...]:
    return power_of(StudyLooks.of(plan, ()), noise={"test_accuracy": noise} if noise is not None else None)


def planned(looks: tuple[int, ...], **options: Any) -> Plan:
    plan = make_plan(seeds=looks[-1], **options)
    return replace(plan, locked=replace(plan.locked, looks=looks if len(looks) > 1 else ()))


def words(plan: Plan, *, noise: float | None = None) -> list[str]:
    return power_lines(questions_of(plan, noise=noise), questions=len(plan.locked.questions))


def test_three_seeds_and_thirteen_comparisons_find_nothing_below_11_8_sd():
    (with_floor,) = found((3,), comparisons=13, alike=13)

    assert detectable_difference(1.0, 3, alpha=0.05 / 13) == pytest.approx(11.81, abs=0.005)
    assert with_floor == pytest.approx(11.81, abs=0.05)


@settings(deadline=None, max_examples=15)
@given(st.integers(8, 200), st.integers(1, 40))
def test_one_look_without_a_floor_finds_what_the_noncentral_t_says(seeds, comparisons):
    assert found((seeds,), comparisons=comparisons, alike=3) == (
        detectable_difference(1.0, seeds, alpha=0.05 / comparisons),
    )


@pytest.mark.parametrize("seeds", [5, 12])
def test_the_simulated_differences_are_the_exact_ones_where_there_is_one_look(seeds):
    (simulated,) = found((seeds,), comparisons=4, alike=1, rope=1e-9)

    assert simulated == pytest.approx(detectable_difference(1.0, seeds, alpha=0.05 / 4), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("looks", "comparisons", "alike", "rope"),
    [
        ((5, 8, 12, 20), 4, 1, None),
        ((8, 12, 20), 2, 1, 1.5),
        ((6, 12), 2, 1, 3.0),
        ((3, 5, 8), 4, 4, None),
        ((3,), 4, 4, None),
    ],
)
def test_the_rule_finds_what_is_said_to_be_found_in_80_percent_of_simulated_studies(looks, comparisons, alike, rope):
    repetitions, random = 2500, np.random.default_rng(41)
    applied = rule(looks, comparisons)
    for look, difference in zip(looks, found(looks, comparisons=comparisons, alike=alike, rope=rope), strict=True):
        hits = 0
        for _ in range(repetitions):
            values = random.standard_normal((alike, looks[-1]))
            values[0] += difference
            standing = judged([asked(rope=rope, values=tuple(row)) for row in values.tolist()], applied)[0]
            is_right = standing.interval is not None and standing.interval.low > 0
            hits += standing.state is State.DIFFERENT and is_right and standing.seeds <= look

        # The floor's M is an estimate in a study, and the true SD in the plan: 1 % more to allow for.
        assert abs(hits / repetitions - 0.8) < 3 * math.sqrt(0.16 / repetitions) + 0.01 * (alike > 1)


def test_later_looks_and_fewer_comparisons_find_smaller_differences():
    few, many = (found((5, 8, 12, 20), comparisons=number, alike=4) for number in (4, 13))

    assert list(few) == sorted(few, reverse=True)
    assert all(less < more for less, more in zip(few, many, strict=True))


def test_the_same_design_always_finds_the_same():
    from ablation.analysis import power

    first = found((5, 8, 12), comparisons=3, alike=3)
    power._least_differences.cache_clear()
    power._noise.cache_clear()

    assert found((5, 8, 12), comparisons=3, alike=3) == first


def test_below_5_seeds_too_few_comparisons_find_nothing():
    assert found((3, 5), comparisons=2, alike=2)[0] is None
    assert found((3, 5), comparisons=2, alike=2)[1] is not None
    assert found((1,), comparisons=2, alike=2) == (None,)


FOUR = [
    {"effect": "model.depth"},
    {"effect": "model.normalization"},
    {"interaction": ("model.depth", "model.normalization")},
    {"effect": "model.depth", "at": {"model.normalization": "none"}},
]


def test_questions_that_find_the_same_stand_on_one_line():
    first, about = words(planned((5, 8, 12), questions=FOUR))

    assert first == "Found with 80 % power: differences above 3.9 SD at 5 seeds, 1.9 at 8, 1.3 at 12."
    assert about == "SD: standard deviation of a comparison's paired differences over seeds."


def test_with_the_noise_differences_are_told_in_points_and_what_a_meaningful_one_needs():
    main, _, interaction, _ = questions_of(planned((5, 8, 12), questions=FOUR), noise=0.007)
    lines = words(planned((5, 8, 12), questions=FOUR), noise=0.007)

    assert main.sd == pytest.approx(0.007)  # weights of ±1/2 on four variants
    assert interaction.sd == pytest.approx(0.014)
    assert main.seeds_for_meaningful == seeds_for_power(0.005, 0.007, alpha=0.05 / 4)
    assert main.reaches_meaningful is None
    assert len(lines) == 5
    assert "points (" in lines[1]
    assert f"0.5 points (meaningful): {main.seeds_for_meaningful} seeds with one look; no planned look" in lines[1]
    assert "as if runs were independent" in lines[-1]


def test_one_point_that_matters_is_no_plural():
    metric = {"name": "test_accuracy", "direction": "maximize", "meaningful": 0.01}

    assert "; 1 point (meaningful): " in " ".join(words(make_plan(metric=metric), noise=0.007))


def test_the_look_that_finds_a_meaningful_difference_is_named():
    plan = planned((5, 8, 12), questions=FOUR)
    (power, *_) = questions_of(plan, noise=0.002)

    assert power.reaches_meaningful == 8
    assert "the look at 8 finds it" in words(plan, noise=0.002)[1]


def test_a_known_rope_counts_where_it_is_wider_than_the_noise():
    narrow, wide = (found((12,), comparisons=1, alike=1, rope=rope)[0] for rope in (0.01, 3.0))

    assert narrow == pytest.approx(detectable_difference(1.0, 12, alpha=0.05), rel=0.01)
    assert wide > 2.0  # nearer to zero, a difference lies inside ±3 SD


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (planned((3,), questions=FOUR), "3 seeds, 4 questions: only differences above 6.6 SD would be found"),
        (planned((3,)), "3 seeds, 2 questions: no difference would be found; below 5 seeds, fewer than 3 comparisons"),
        (planned((1,)), "1 seed, 2 questions: no difference would be found; with one run per variant"),
        (planned((4, 20)), None),
        (
            planned((3,), questions=[*FOUR[:3], {"effect": "model.depth", "on": "test_loss"}]),
            "3 seeds, 4 questions: only differences above 6.6 SD would be found",
        ),
    ],
)
def test_a_design_that_can_decide_nothing_of_interest_is_warned_of(plan, said):
    warned = warning(questions_of(plan), questions=len(plan.locked.questions))

    assert warned is None if said is None else warned.startswith(said)


def test_thirteen_questions_on_three_seeds_are_warned_of():
    levels = {"model.depth": tuple(range(2, 16))}
    warned = warning(questions_of(planned((3,), factors=levels)), questions=1)

    assert warned.startswith("3 seeds, 1 question (13 comparisons): only differences above 11.8 SD would be found;")


def test_noise_from_a_study_is_the_median_over_its_comparisons_of_what_one_run_varies_by():
    plan = make_plan(seeds=40, questions=FOUR)
    random = np.random.default_rng(3)
    noise = {variant.name: random.normal(0, 0.01, 40) for variant in plan.variants}
    runs = make_runs(plan, accuracy=lambda variant, seed: 0.5 + float(noise[variant.name][seed]))

    assert noise_of(plan, runs, "test_accuracy") == pytest.approx(0.01, rel=0.15)
    assert noise_of(plan, runs[:1], "test_accuracy") is None


def test_noise_is_not_taken_from_unstable_comparisons():
    plan = make_plan(seeds=5)
    runs = make_runs(plan, outcomes={(plan.baseline.name, 2): Outcome.DIVERGED})

    assert noise_of(plan, runs, "test_accuracy") is None
