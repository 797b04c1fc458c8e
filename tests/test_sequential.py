"""Holds the rule of planned looks to numbers worked out by hand or by scipy, and to what no order of runs changes."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ablation.analysis import boundaries as recursion
from ablation.analysis import statistics
from ablation.analysis.boundaries import boundaries
from ablation.analysis.sequential import Asked, Lack, Rule, Seeds, Standing, State, judged

ALPHA = 0.05
SPREAD = math.sqrt(2)
"""√Σw² of one variant against another."""
UNIT = (1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 0.2, -0.2, 0.8, -0.8, 1.2, -1.2, 0.6, -0.6, 1.1, -1.1, 0.3, -0.3, 0.9, -0.9)
"""Noise whose mean is 0 over every even number of seeds."""


def values(mean: float, sd: float, seeds: int) -> list[float]:
    """Return differences with exactly this mean and SD over so many seeds."""
    noise = np.array(UNIT[:seeds])
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return [float(value) for value in mean + sd * noise]


def with_t(t: float, seeds: int, *, sd: float = 1.0) -> list[float]:
    """Return differences whose t statistic is this."""
    return values(t * sd / math.sqrt(seeds), sd, seeds)


def asked(seeds: Seeds, *, rope: float | None = None, **options) -> Asked:
    return Asked(**{"metric": "test_accuracy", "rope": rope, "spread": SPREAD, "seeds": seeds, **options})


def rule(looks: Sequence[int], *, comparisons: int, planned: int | None = None, growth: Sequence[int] = ()) -> Rule:
    return Rule(
        looks=tuple(looks), growth=tuple(growth), alpha=ALPHA, planned=planned or comparisons, comparisons=comparisons
    )


def standings(*family: Asked, looks: Sequence[int], growth: Sequence[int] = ()) -> tuple[Standing, ...]:
    return judged(family, rule(looks, comparisons=len(family), growth=growth))


def states(*family: Asked, looks: Sequence[int], growth: Sequence[int] = ()) -> list[State]:
    return [standing.state for standing in standings(*family, looks=looks, growth=growth)]


def critical_t(alpha: float, seeds: int) -> float:
    return float(stats.t.isf(alpha / 2, seeds - 1))


# 1. Alpha


def test_each_comparison_begins_with_an_equal_part_of_alpha():
    found = standings(*(asked(with_t(0.1, 8)) for _ in range(4)), looks=(8,))

    assert [each.alpha for each in found] == [ALPHA / 4] * 4
    for each in found:
        half_width = critical_t(ALPHA / 4, 8) / math.sqrt(8)
        assert each.interval.high - each.interval.low == pytest.approx(2 * half_width, rel=1e-9)
        assert each.interval.level == 1 - ALPHA / 4


def test_a_difference_passes_half_of_its_alpha_in_equal_parts_to_those_still_open():
    surely, *others = standings(asked(with_t(20, 8)), asked(with_t(0.1, 8)), asked(with_t(0.2, 8)), looks=(8,))

    assert surely.state is State.DIFFERENT
    assert surely.alpha == ALPHA / 3
    assert [each.alpha for each in others] == pytest.approx([ALPHA / 3 * (1 + 0.5 / 2)] * 2, rel=1e-12)
    assert [each.interval.level for each in others] == [1 - each.alpha for each in others]


def test_a_comparison_that_is_asked_no_more_keeps_its_part_and_its_share_of_what_is_passed_on():
    found = judged(
        [asked(with_t(20, 8)), asked(with_t(0.1, 8)), asked(with_t(0.2, 8), is_dropped=True)],
        rule((8,), comparisons=3),
    )

    assert found[1].alpha == pytest.approx(ALPHA / 3 * (1 + 0.5 / 2), rel=1e-12)
    assert (found[2].state, found[2].seeds, found[2].alpha) == (State.OPEN, 0, ALPHA / 3)


def test_a_comparison_that_is_asked_no_more_keeps_its_place_in_the_floor():
    quiet, loud = asked(values(1.0, 0.01, 5)), asked(values(0.0, 1.0, 5))
    family = [quiet, loud, dataclasses.replace(loud, seeds=values(0.1, 1.0, 5), is_dropped=True)]

    assert judged(family, rule((5,), comparisons=3))[0].is_floored
    assert not judged(family[:2], rule((5,), comparisons=3))[0].is_floored


def test_a_comparison_that_is_asked_no_more_holds_up_no_look():
    family = [asked(with_t(1.9, 8)), asked([*with_t(0.5, 4), *[Lack.NOT_ENDED] * 4], is_dropped=True)]

    assert judged(family, rule((4, 8), comparisons=2))[0].seeds == 8


def test_a_comparison_of_repeated_seeds_passes_nothing_and_stops():
    repeated, other = standings(asked(with_t(20, 8), repeated_from=3), asked(with_t(0.1, 8)), looks=(4, 8))
    later = standings(asked(with_t(20, 8), repeated_from=8), asked(with_t(0.1, 8)), looks=(8,), growth=(10,))

    assert (repeated.state, repeated.seeds, repeated.wanted, repeated.interval) == (State.NO_VARIATION, 4, 4, None)
    assert other.alpha == ALPHA / 2
    assert later[0].state is State.NO_VARIATION


def test_what_seeds_before_a_repetition_decided_stands():
    assert states(asked([*with_t(20, 8), 0.0, 0.0], repeated_from=9), looks=(8,), growth=(10,)) == [State.DIFFERENT]


def test_repeated_seeds_tell_the_floor_nothing():
    quiet, loud = asked(values(1.0, 0.01, 5)), asked(values(0.0, 1.0, 5))
    family = [quiet, loud, dataclasses.replace(loud, repeated_from=5)]

    assert judged([quiet, loud, loud], rule((5,), comparisons=3))[0].is_floored
    assert not judged(family, rule((5,), comparisons=3))[0].is_floored


def test_an_added_seed_that_diverged_is_counted():
    open_ = asked([*with_t(0.5, 4), 0.1, Lack.UNSTABLE])

    (found,) = judged([open_], rule((4,), comparisons=1, growth=(5, 6)))

    assert (found.state, found.seeds) == (State.UNSTABLE, 6)


@pytest.mark.parametrize("looks", [(12,), (4, 8, 12)])
def test_asking_fewer_questions_never_loosens_the_verdict_on_another(looks):
    random = np.random.default_rng(19)
    schedule = rule(looks, comparisons=4)
    for _ in range(300):
        effects = random.choice([0.0, 0.3, 0.6, 0.9, 1.2], size=4)
        family = [asked(random.normal(effect, 1, 12).tolist()) for effect in effects]
        fewer = [*family[:-1], dataclasses.replace(family[-1], is_dropped=True)]

        for before, after in zip(judged(family, schedule)[:-1], judged(fewer, schedule)[:-1], strict=True):
            assert before.state.is_decided or not after.state.is_decided
            if not before.state.is_decided:
                assert after.alpha <= before.alpha * (1 + 1e-12)


def test_a_difference_too_small_to_matter_passes_nothing():
    small, other = standings(asked(with_t(20, 8), rope=100), asked(with_t(0.1, 8)), looks=(8,))

    assert small.state is State.TOO_SMALL
    assert other.alpha == ALPHA / 2


def test_a_difference_that_may_be_too_small_to_matter_passes_nothing():
    # What is said of its size may be wrong by all of its alpha.
    half_width = critical_t(ALPHA / 2, 8) / math.sqrt(8)
    mean = 20 / math.sqrt(8)

    beyond, within = (
        standings(asked(with_t(20, 8), rope=rope), asked(with_t(0.1, 8)), looks=(8,))
        for rope in (0.999 * (mean - half_width), 1.001 * (mean - half_width))
    )

    assert [each[0].state for each in (beyond, within)] == [State.DIFFERENT] * 2
    assert [each[1].alpha for each in (beyond, within)] == pytest.approx([ALPHA / 2 * 1.5, ALPHA / 2])


def test_passed_alpha_is_used_at_the_same_look_and_passed_again_until_nothing_changes():
    # Of three: the second needs what the first passes, the third needs what both pass.
    first, second, third = ALPHA / 3, ALPHA / 3 * 1.25, ALPHA / 3 * (1.25 + 1.25 / 2)
    t_of_second = (critical_t(first, 8) + critical_t(second, 8)) / 2
    t_of_third = (critical_t(second, 8) + critical_t(third, 8)) / 2

    found = standings(asked(with_t(t_of_third, 8)), asked(with_t(t_of_second, 8)), asked(with_t(20, 8)), looks=(8,))
    without = states(asked(with_t(t_of_third, 8)), asked(with_t(0.1, 8)), asked(with_t(20, 8)), looks=(8,))

    assert [each.state for each in found] == [State.DIFFERENT] * 3
    assert [each.alpha for each in found] == pytest.approx([third, second, first], rel=1e-12)
    assert without[0] is State.ENDED


def test_passed_alpha_is_read_at_the_present_look_and_earlier_looks_are_not_tested_again():
    looks, before, after = (8, 12), ALPHA / 2, ALPHA / 2 * 1.5
    early, late = (boundaries(looks, alpha) for alpha in (before, after))
    # Enough at the first look for the alpha that is passed at the second, and not enough there.
    too_late = [*with_t((early[0].t + late[0].t) / 2, 8), *(-0.5,) * 4]
    passes = [*with_t(0.9 * early[0].t, 8), *values(10, 0.1, 4)]

    first, second = standings(asked(passes), asked(too_late), looks=looks)

    assert (first.state, first.seeds) == (State.DIFFERENT, 12)
    assert (second.state, second.alpha) == (State.ENDED, pytest.approx(after))
    assert abs(stats.ttest_1samp(too_late, 0).statistic) < late[1].t


# 2. Verdicts


@pytest.mark.parametrize(
    ("t", "rope", "expected"),
    [
        (20, None, State.DIFFERENT),
        (-20, None, State.DIFFERENT),
        (0.1, 10.0, State.TOO_SMALL),
        (20, 100.0, State.TOO_SMALL),
        (20, 1.0, State.DIFFERENT),
        (0.1, None, State.ENDED),
        (0.1, 0.1, State.ENDED),
    ],
)
def test_an_interval_beyond_zero_is_a_difference_and_one_within_the_rope_is_too_small(t, rope, expected):
    assert states(asked(with_t(t, 8), rope=rope), looks=(8,)) == [expected]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_look_has_the_boundary_of_the_whole_schedule(index):
    looks = (8, 12, 20)
    limit = boundaries(looks, ALPHA)[index]

    def after_the_look(factor: float) -> Standing:
        return standings(asked(with_t(factor * limit.t, limit.seeds)), looks=looks)[0]

    beyond, within = after_the_look(1.001), after_the_look(0.999)
    assert (beyond.state, beyond.seeds) == (State.DIFFERENT, limit.seeds)
    assert (within.state, within.seeds) == (State.ENDED if index == 2 else State.OPEN, limit.seeds)
    assert within.interval.high - within.interval.low == pytest.approx(2 * limit.t / math.sqrt(limit.seeds))


# 3. Futility


LOW_SD = math.sqrt(7 / float(stats.chi2.ppf(0.9, 7)))
"""Of an SD of 1 from 8 seeds: so small it is in one study of ten."""
REACH = boundaries((8, 12), ALPHA)[-1].t * LOW_SD / math.sqrt(12)
"""Half of the interval that the last look would have with it."""


@pytest.mark.parametrize(
    ("mean", "rope", "expected"),
    [
        (0.99 * REACH, None, State.FUTILE),
        (1.01 * REACH, None, State.OPEN),
        (0.1, 0.1 + 0.99 * REACH, State.FUTILE),
        (0.1, 0.1 + 1.01 * REACH, State.OPEN),
        (-0.1, 0.1 + 0.99 * REACH, State.FUTILE),
        (1.01 * REACH, 0.01, State.OPEN),
    ],
)
def test_what_the_last_look_can_decide_neither_way_is_stopped(mean, rope, expected):
    (found,) = standings(asked(values(mean, 1.0, 8), rope=rope), looks=(8, 12))

    assert (found.state, found.seeds, found.wanted) == (expected, 8, 8 if expected is State.FUTILE else 12)


def test_nothing_is_futile_at_the_last_look():
    assert states(asked(values(0.0, 1.0, 12)), looks=(12,)) == [State.ENDED]


def test_futility_is_judged_with_the_alpha_that_was_passed():
    # Futile with a third of alpha; with a half of one third more, the last look may decide it.
    reach = [boundaries((8, 12), alpha)[-1].t * LOW_SD / math.sqrt(12) for alpha in (ALPHA / 2, ALPHA / 2 * 1.5)]
    mean = sum(reach) / 2

    alone, passed = (
        standings(asked(values(mean, 1.0, 8)), asked(with_t(other, 8)), looks=(8, 12))[0].state for other in (0.1, 20)
    )

    assert (alone, passed) == (State.FUTILE, State.OPEN)


# 4. Looks


UNDECIDED = with_t(2.5, 8)
"""At a first look of 8 seeds: neither decided nor futile, with whatever is passed."""


def not_ended(seeds: Seeds, *places: int) -> Seeds:
    return [Lack.NOT_ENDED if place in places else value for place, value in enumerate(seeds)]


def test_nothing_is_judged_before_all_runs_of_a_look_have_ended():
    found = standings(asked(with_t(20, 8)), asked(not_ended(with_t(20, 8), 7)), looks=(8, 12))

    assert [(each.state, each.seeds, each.interval) for each in found] == [(State.OPEN, 0, None)] * 2


def test_a_comparison_that_stays_open_whatever_is_passed_begins_its_next_look_early():
    ready, waiting = standings(asked(UNDECIDED), asked(not_ended(UNDECIDED, 7)), looks=(8, 12, 20))

    assert (ready.state, ready.wanted) == (State.OPEN, 12)
    assert waiting.wanted == 8


def test_a_comparison_that_may_be_decided_by_what_is_passed_waits():
    without, passed = (boundaries((8, 12), alpha)[0].t for alpha in (ALPHA / 2, ALPHA / 2 * 1.5))

    ready, _ = standings(asked(with_t((without + passed) / 2, 8)), asked(not_ended(UNDECIDED, 7)), looks=(8, 12))

    assert ready.wanted == 8


@pytest.mark.parametrize("seeds", [with_t(20, 8), with_t(0.1, 8), (0.25,) * 8], ids=["decided", "futile", "constant"])
def test_a_comparison_that_would_stop_does_not_begin_its_next_look_early(seeds):
    ready, _ = standings(asked(seeds), asked((0.25,) * 7), looks=(8, 12))

    assert ready.wanted == 8


def test_a_first_look_that_has_a_floor_lets_nobody_begin_early():
    seeds = with_t(2.5, 7)

    found = standings(asked(seeds), asked(seeds), asked(seeds), asked(not_ended(seeds, 6)), looks=(7, 12))

    assert [each.wanted for each in found] == [7] * 4


def test_a_decided_comparison_needs_no_more_seeds_and_stays_as_it_was():
    whole = [*with_t(20, 8), *(-50.0, 50.0, -50.0, 50.0)]
    short, full = (standings(asked(seeds), asked(UNDECIDED), looks=(8, 12))[0] for seeds in (whole[:8], whole))

    assert short == full
    assert (full.state, full.seeds, full.wanted) == (State.DIFFERENT, 8, 8)


# 5. Runs without a result


def test_a_missing_run_pauses_its_comparison_at_that_look_and_others_go_on():
    missing = [*UNDECIDED[:3], Lack.MISSING, *UNDECIDED[4:]]

    paused, other = standings(asked(missing), asked([*UNDECIDED, *values(10, 1, 4)]), looks=(8, 12))

    assert (paused.state, paused.seeds, paused.wanted) == (State.PAUSED, 0, 8)
    assert (other.state, other.seeds) == (State.DIFFERENT, 12)


def test_a_paused_comparison_is_passed_alpha_too():
    missing = [*UNDECIDED[:3], Lack.MISSING, *UNDECIDED[4:]]

    _, paused, other = standings(asked(with_t(20, 8)), asked(missing), asked(with_t(0.1, 8)), looks=(8,))

    assert [paused.alpha, other.alpha] == pytest.approx([ALPHA / 3 * 1.25] * 2)


def test_an_unstable_run_stops_its_comparison_passes_nothing_and_is_passed_nothing():
    unstable = [*with_t(20, 8)[:7], Lack.UNSTABLE]

    stopped, different, other = standings(asked(unstable), asked(with_t(20, 8)), asked(with_t(0.1, 8)), looks=(8, 12))

    assert (stopped.state, stopped.seeds, stopped.alpha, stopped.wanted) == (State.UNSTABLE, 8, ALPHA / 3, 8)
    assert different.alpha == ALPHA / 3
    assert other.alpha == pytest.approx(ALPHA / 3 * 1.5)


def test_a_run_that_diverges_after_the_deciding_look_changes_no_verdict():
    seeds = with_t(20, 8)

    assert standings(asked([*seeds, Lack.UNSTABLE]), looks=(8, 12)) == standings(asked(seeds), looks=(8, 12))


# 6. The floor


def floored(quiet: Seeds, *others: Asked, looks: Sequence[int] = (5,), **options) -> Standing:
    return standings(asked(quiet, **options), *others, looks=looks)[0]


NOISY = [asked(values(0.1, 1.0, 5)), asked(values(-0.1, 2.0, 5))]
QUIET = values(0.5, 0.1, 5)


def test_below_eight_seeds_an_sd_is_at_least_half_of_what_the_comparisons_imply():
    found = floored(QUIET, *NOISY)

    # The median of SDs of .1, 1 and 2 is 1; all have the same weights.
    half_width = critical_t(ALPHA / 3, 5) * 0.5 / math.sqrt(5)
    assert (found.state, found.is_floored) == (State.ENDED, True)
    assert (found.interval.low, found.interval.high) == pytest.approx((0.5 - half_width, 0.5 + half_width))


def test_the_floor_follows_the_weights_of_a_comparison():
    # An interaction of four runs has twice the variance of an effect of two.
    found = floored(values(0.5, 0.1, 5), *NOISY, spread=2.0)

    half_width = critical_t(ALPHA / 3, 5) * 0.5 * 2.0 * (1 / SPREAD) / math.sqrt(5)
    assert found.interval.high - found.interval.low == pytest.approx(2 * half_width)


def test_the_floor_withholds_too_small_as_well():
    assert floored(values(0.0, 0.1, 5), *NOISY, rope=0.3).state is State.ENDED
    assert states(asked(values(0.0, 0.1, 5), rope=0.3), looks=(5,)) == [State.TOO_SMALL]


def test_a_spread_above_the_floor_is_left_as_it_is():
    found = floored(values(9.0, 0.6, 5), *NOISY)

    assert (found.state, found.is_floored) == (State.DIFFERENT, False)


def test_from_eight_seeds_on_there_is_no_floor():
    noisy = [asked(values(0.1, sd, 8)) for sd in (1.0, 2.0)]

    found = floored(values(0.5, 0.1, 8), *noisy, looks=(8,))

    assert (found.state, found.is_floored) == (State.DIFFERENT, False)


@pytest.mark.parametrize(
    "other",
    [
        asked(values(0.1, 1.0, 5), metric="test_loss"),
        asked([*values(0.1, 1.0, 5)[:4], Lack.UNSTABLE]),
        asked([*values(0.1, 1.0, 5)[:4], Lack.MISSING]),
        asked(values(0.1, 1.0, 5), is_added=True),
    ],
    ids=["another metric", "unstable", "missing", "added"],
)
def test_a_floor_needs_three_planned_comparisons_on_the_metric_with_all_their_runs(other):
    found = floored(QUIET, NOISY[1], other)

    assert (found.state, found.is_floored) == (State.DIFFERENT, False)


def test_the_floor_of_a_later_look_is_that_of_the_first_looks_seeds():
    noisy = [asked([*values(0.1, sd, 5), 1e3, -1e3]) for sd in (1.0, 2.0)]

    found = floored([*values(0.2, 0.1, 5), 0.2, 0.2], *noisy, looks=(5, 7))

    half_width = boundaries((5, 7), ALPHA / 3)[1].t * 0.5 / math.sqrt(7)
    assert (found.seeds, found.is_floored) == (7, True)
    assert found.interval.high - found.interval.low == pytest.approx(2 * half_width)


@pytest.mark.parametrize(("seeds", "expected"), [(4, State.ENDED), (5, State.DIFFERENT)])
def test_below_five_seeds_without_a_floor_a_difference_is_fragile(seeds, expected):
    found = standings(asked(with_t(100, seeds)), asked(with_t(0.1, seeds)), looks=(seeds,))

    assert found[0].state is expected
    assert [each.is_fragile for each in found] == [seeds == 4, False]
    assert found[1].alpha == (ALPHA / 2 if seeds == 4 else ALPHA / 2 * 1.5)


def test_an_sd_of_zero_while_others_vary_leaves_a_comparison_open():
    constant, _ = standings(asked((0.25,) * 8), asked(UNDECIDED), looks=(8, 12))

    assert (constant.state, constant.interval, constant.wanted) == (State.OPEN, None, 12)


def test_an_sd_of_zero_leaves_a_comparison_open_where_those_that_vary_are_decided():
    constant, _ = standings(asked((0.25,) * 12), asked(with_t(20, 8)), looks=(8, 12, 20))

    assert (constant.state, constant.seeds, constant.wanted) == (State.OPEN, 12, 20)


def test_where_nothing_varies_every_comparison_stops():
    found = standings(asked((0.25,) * 8), asked((0.0,) * 8), looks=(8, 12))

    assert [(each.state, each.seeds, each.wanted) for each in found] == [(State.NO_VARIATION, 8, 8)] * 2


# 7. Growth


def log_e(t: float, n: int) -> float:
    """Return the logarithm of the t e-value with g = 1 (Wang & Ramdas 2023)."""
    freedom = n - 1
    return -0.5 * math.log(1 + n) + n / 2 * (math.log(1 + t**2 / freedom) - math.log(1 + t**2 / (freedom * (1 + n))))


def test_seeds_beyond_the_plan_need_an_e_value_of_five_comparisons_over_alpha():
    threshold = math.log(5 * 2 / ALPHA)
    decisive = next(t for t in np.arange(2, 60, 0.001) if log_e(t, 12) > threshold)

    def grown(factor: float) -> Standing:
        # What lies farthest from the mean comes first, so that no smaller number of seeds is as sure.
        seeds = sorted(with_t(factor * decisive, 12), key=lambda value: -abs(value - decisive / math.sqrt(12)))
        assert max(log_e(stats.ttest_1samp(seeds[:n], 0).statistic, n) for n in range(2, 12)) < threshold
        return standings(asked(seeds), asked(with_t(0.1, 12)), looks=(5,), growth=(12,))[0]

    assert (grown(1.001).state, grown(0.999).state) == (State.DIFFERENT, State.ENDED)
    assert grown(1.001).is_grown
    assert rule((5,), comparisons=2).decisive_e_value == pytest.approx(200)


def test_what_the_plan_decided_stands_when_seeds_are_added():
    seeds = [*with_t(20, 8), *(-50.0, -51.0, -52.0, -53.0)]

    planned, grown = (standings(asked(seeds), looks=(8,), growth=growth) for growth in ((), (12,)))

    assert grown == planned
    assert grown[0].state is State.DIFFERENT


def test_a_grown_interval_is_what_the_last_look_and_the_confidence_sequence_both_hold():
    seeds = values(0.3, 1.0, 20)
    planned = statistics.paired_interval(seeds[:8], level=1 - ALPHA / 2)
    low, high = statistics.confidence_sequence(seeds, alpha=ALPHA / 5 / 2)

    found, _ = standings(asked(seeds), asked(values(0.0, 1.0, 20)), looks=(8,), growth=(20,))

    assert (found.interval.low, found.interval.high) == (max(low, planned.low), min(high, planned.high))
    assert found.interval.level == 1 - found.alpha == pytest.approx(1 - ALPHA / 2 - ALPHA / 5 / 2)


def test_a_grown_comparison_is_too_small_where_both_intervals_together_lie_inside_the_rope():
    seeds = values(0.0, 1.0, 20)
    (found,) = standings(asked(seeds), looks=(8,), growth=(20,))
    rope = max(-found.interval.low, found.interval.high) * 1.001

    assert states(asked(seeds, rope=rope), looks=(8,), growth=(20,)) == [State.TOO_SMALL]


def test_seeds_that_are_added_to_a_fragile_difference_decide_by_the_e_process_alone():
    fragile = with_t(100, 4)
    noise = [*fragile, 0.0, 200.0]
    assert standings(asked(fragile), asked(noise), looks=(4,))[0].is_fragile

    found = standings(asked([*fragile, *with_t(100, 4)[:2]]), asked(noise), looks=(4,), growth=(6,))

    assert log_e(stats.ttest_1samp([*fragile, *fragile[:2]], 0).statistic, 6) < math.log(200)
    assert [each.state for each in found] == [State.ENDED] * 2


def test_growth_that_has_not_ended_leaves_the_interval_and_its_level_as_they_were():
    (found,) = standings(asked(with_t(0.1, 8)), looks=(8,), growth=(12,))

    assert (found.state, found.seeds, found.wanted, found.alpha) == (State.OPEN, 8, 12, ALPHA)
    assert found.interval.level == 1 - ALPHA


def test_a_comparison_that_was_added_later_is_judged_by_the_e_process_at_its_share_of_the_extra_alpha():
    seeds, family = with_t(9, 8), [asked(with_t(0.1, 8)), asked(with_t(9, 8), is_added=True)]
    assert 5 * 2 / ALPHA < math.exp(log_e(9, 8)) < 5 * 20 / ALPHA

    _, found = judged(family, rule((8,), planned=1, comparisons=2))
    _, among_many = judged(family, rule((8,), planned=1, comparisons=20))

    assert stats.ttest_1samp(seeds, 0).pvalue < 0.001
    assert (found.state, found.is_grown, found.alpha) == (State.DIFFERENT, True, pytest.approx(ALPHA / 5 / 2))
    assert among_many.state is State.ENDED


def test_comparisons_that_are_added_later_change_nothing_of_the_planned_ones():
    planned = [asked(QUIET), asked(values(0.0, 1.0, 5)), asked((0.25,) * 5)]
    added = [asked(values(3.0, 9.0, 5), is_added=True) for _ in range(4)]

    with_added = judged([*planned, *added], rule((5, 8), planned=3, comparisons=7))

    assert with_added[:3] == judged(planned, rule((5, 8), comparisons=3))


# Properties


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A small study: variants (variants, seeds) against the first or each other, and the runs without a result."""

    looks: tuple[int, ...]
    growth: tuple[int, ...]
    results: np.ndarray
    lacks: Mapping[tuple[int, int], Lack]
    weights: Sequence[Mapping[int, float]]
    ropes: Sequence[float | None]

    @property
    def rule(self) -> Rule:
        return rule(self.looks, comparisons=len(self.weights), growth=self.growth)

    @property
    def every_run(self) -> set[tuple[int, int]]:
        return {(variant, seed) for variant, seed in np.ndindex(*self.results.shape)}

    def family(self, ended: set[tuple[int, int]]) -> list[Asked]:
        return [
            asked([self._shown(weights, seed, ended) for seed in range(self.results.shape[1])], rope=rope)
            for weights, rope in zip(self.weights, self.ropes, strict=True)
        ]

    def _shown(self, weights: Mapping[int, float], seed: int, ended: set[tuple[int, int]]) -> float | Lack:
        lacks = {self.lacks.get((variant, seed)) if (variant, seed) in ended else Lack.NOT_ENDED for variant in weights}
        first = next((lack for lack in Lack if lack in lacks), None)
        return first or float(sum(weight * self.results[variant, seed] for variant, weight in weights.items()))

    def wanted(self, found: Sequence[Standing]) -> list[int]:
        """Return how many seeds each variant needs."""
        return [
            max(
                [
                    self.looks[0],
                    *(each.wanted for each, of in zip(found, self.weights, strict=True) if variant in of),
                ]
            )
            for variant in range(len(self.results))
        ]


@st.composite
def cases(draw) -> Case:
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    looks = draw(st.sampled_from([(2, 3, 4), (3, 5, 8), (8, 9, 10), (4, 6, 9, 12), (5,), (3, 5, 8, 12), (8, 12, 20)]))
    growth = tuple(looks[-1] + more for more in draw(st.sampled_from([(), (), (1,), (2, 12)])))
    variants, seeds = draw(st.integers(2, 4)), (*looks, *growth)[-1]
    results = random.standard_normal((variants, seeds)) * random.choice([0.3, 1.0, 3.0], size=(variants, 1))
    results += random.choice([0.0, 0.5, 1.0, 2.0, 4.0], size=(variants, 1))
    if draw(st.integers(0, 6)) == 0:
        results[-1] = results[0] + 1
    if draw(st.integers(0, 9)) == 0:
        results = results.round()
    lacks = draw(
        st.dictionaries(
            st.tuples(st.integers(0, variants - 1), st.integers(0, seeds - 1)),
            st.sampled_from([Lack.MISSING, Lack.UNSTABLE]),
            max_size=draw(st.sampled_from([0, 0, 1])),
        )
    )
    weights: list[Mapping[int, float]] = [{variant: 1.0, 0: -1.0} for variant in range(1, variants)]
    if variants > 2 and draw(st.booleans()):
        weights.append({1: 1.0, 2: -1.0})
    ropes = [draw(st.sampled_from([None, 0.3, 1.0, 3.0, 8.0])) for _ in weights]
    return Case(looks=looks, growth=growth, results=results, lacks=lacks, weights=weights, ropes=ropes)


@pytest.fixture(scope="module")
def coarse() -> Iterator[None]:
    """Integrate boundaries by fewer points: the rule is what is tried, with many alphas."""
    usual = recursion.ANGLES, recursion.PATHS, recursion.STEPS
    caches = recursion._rule, recursion._ends_rule, recursion._boundaries
    recursion.ANGLES, recursion.PATHS, recursion.STEPS = 6, 8, 8
    for cached in caches:
        cached.cache_clear()
    yield
    recursion.ANGLES, recursion.PATHS, recursion.STEPS = usual
    for cached in caches:
        cached.cache_clear()


@settings(deadline=None, max_examples=200)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_in_which_runs_end_changes_no_verdict_and_buys_no_run_in_vain(coarse, case, random):
    final = judged(case.family(case.every_run), case.rule)
    needed = case.wanted(final)
    ended: set[tuple[int, int]] = set()
    found = judged(case.family(ended), case.rule)

    while asked_for := sorted(
        (variant, seed)
        for variant, count in enumerate(case.wanted(found))
        for seed in range(count)
        if (variant, seed) not in ended
    ):
        assert all(seed < needed[variant] for variant, seed in asked_for)
        ended.add(random.choice(asked_for))
        before, found = found, judged(case.family(ended), case.rule)
        for earlier, later in zip(before, found, strict=True):
            assert later == earlier or not earlier.state.is_decided

    assert found == final


@settings(deadline=None, max_examples=100)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_comparisons_changes_nothing(coarse, case, random):
    family = case.family(case.every_run)
    order = list(range(len(family)))
    random.shuffle(order)

    turned = judged([family[at] for at in order], case.rule)

    expected = judged(family, case.rule)
    for at, found in zip(order, turned, strict=True):
        assert found.state is expected[at].state
        assert (found.seeds, found.alpha) == (expected[at].seeds, pytest.approx(expected[at].alpha, rel=1e-12))


DIFFERENCES = st.lists(st.floats(-3, 3).map(lambda value: round(value, 3)), min_size=2, max_size=12)
ROPES = st.one_of(st.none(), st.floats(0.01, 4))


@settings(deadline=None, max_examples=100)
@given(DIFFERENCES, ROPES, st.integers(1, 20), st.integers(1, 20))
def test_equal_parts_among_more_comparisons_never_loosen_a_verdict(differences, rope, comparisons, more):
    family, looks = [asked(differences, rope=rope)], (len(differences),)
    before, after = (judged(family, rule(looks, comparisons=count))[0] for count in (comparisons, comparisons + more))

    if after.state is State.TOO_SMALL:
        assert before.state is State.TOO_SMALL
    if after.state is State.DIFFERENT:
        assert before.state in (State.DIFFERENT, State.TOO_SMALL)
    if after.interval is not None:
        assert before.interval.low >= after.interval.low
        assert before.interval.high <= after.interval.high


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-15, 15), min_size=2, max_size=8), st.data())
def test_more_comparisons_beside_never_find_a_difference_that_fewer_do_not(t_statistics, data):
    kept = data.draw(st.integers(1, len(t_statistics) - 1))
    all_of_them = [asked(with_t(t, 8)) for t in t_statistics]

    few, many = (states(*family, looks=(8,)) for family in (all_of_them[:kept], all_of_them))

    assert all(fewer is State.DIFFERENT for fewer, more in zip(few, many, strict=False) if more is State.DIFFERENT)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0, 3.0]), st.sampled_from([(5,), (8,), (3, 5)]))
def test_more_seeds_never_widen_a_grown_interval_that_they_do_not_contradict(coarse, drawn, mean, looks):
    seeds = [float(value) for value in np.random.default_rng(drawn).standard_normal(24) + mean]
    by_seeds = [
        standings(asked(seeds[:last]), asked(values(0, 1, last)), looks=looks, growth=(last,))[0]
        for last in range(looks[-1] + 1, 25)
    ]

    for fewer, more in itertools.pairwise(by_seeds):
        if more.interval.low > fewer.interval.high or more.interval.high < fewer.interval.low:
            break
        assert more.interval.low >= fewer.interval.low
        assert more.interval.high <= fewer.interval.high


@settings(deadline=None, max_examples=100)
@given(cases())
def test_turning_every_difference_turns_nothing_but_the_intervals(coarse, case):
    turned = dataclasses.replace(case, results=-case.results)

    for here, there in zip(*(judged(each.family(each.every_run), each.rule) for each in (case, turned)), strict=True):
        assert (here.state, here.seeds, here.alpha) == (there.state, there.seeds, there.alpha)
        if here.interval is not None:
            assert here.interval.low == pytest.approx(-there.interval.high, abs=1e-12)
