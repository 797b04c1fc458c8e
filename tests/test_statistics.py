"""Holds the formulas to independent computations: scipy's tests, direct integration, simulation."""

import itertools
import math

import numpy as np
import pytest
from factories import make_plan, make_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from ablation.analysis import StudyLooks, run_table, statistics
from ablation.analysis.answer_records import Verdict
from ablation.analysis.answers import answers
from ablation.records import TASKS, Outcome, Variant

DIFFERENCES = (0.012, 0.007, -0.002, 0.015, 0.009)


@pytest.mark.parametrize("level", [0.95, 0.9875])
def test_interval_is_that_of_the_paired_t_test(level):
    baseline = np.array([0.72, 0.73, 0.71, 0.70, 0.74])
    variant = baseline + DIFFERENCES
    expected = stats.ttest_rel(variant, baseline).confidence_interval(level)

    interval = statistics.paired_interval((variant - baseline).tolist(), level=level)

    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_no_interval_without_variation_or_with_one_difference():
    assert statistics.paired_interval([0.01], level=0.95) is None
    assert statistics.paired_interval([0.01, 0.01, 0.01], level=0.95) is None
    assert statistics.paired_interval([0.9 - 0.8, 0.8 - 0.7], level=0.95) is None


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_share_interval_is_clopper_pearson(count_and_n):
    count, n = count_and_n
    low = stats.beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0

    interval = statistics.share_interval(count, n)

    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_e_value_is_the_likelihood_ratio_of_t_averaged_over_the_prior():
    # The t statistic is noncentral t with noncentrality √n·δ; δ ~ N(0, g = 1) under the alternative.
    n = len(DIFFERENCES)
    t = float(stats.ttest_1samp(DIFFERENCES, 0).statistic)
    averaged, _ = integrate.quad(
        lambda delta: stats.nct.pdf(t, n - 1, math.sqrt(n) * delta) * stats.norm.pdf(delta), -8, 8, epsabs=1e-10
    )

    assert statistics.e_value(DIFFERENCES) == pytest.approx(averaged / stats.t.pdf(t, n - 1), rel=1e-6)


def test_e_process_multiplied_step_by_step_equals_its_closed_form():
    # e_n / e_(n-1) from the right-Haar marginal likelihoods of the differences themselves, one more at a time.
    def log_marginal(values, g):
        n, total, squares = len(values), sum(values), sum(value**2 for value in values)
        residual = squares - g * total**2 / (1 + n * g)
        return -0.5 * math.log1p(n * g) - (n / 2) * math.log(residual)

    log_e = log_marginal(DIFFERENCES[:1], 1.0) - log_marginal(DIFFERENCES[:1], 0.0)
    start = log_e
    for n in range(2, len(DIFFERENCES) + 1):
        values, before = DIFFERENCES[:n], DIFFERENCES[: n - 1]
        log_e += (log_marginal(values, 1.0) - log_marginal(before, 1.0)) - (
            log_marginal(values, 0.0) - log_marginal(before, 0.0)
        )

    assert start == pytest.approx(0.0, abs=1e-12)
    assert statistics.e_value(DIFFERENCES) == pytest.approx(math.exp(log_e), rel=1e-9)


def test_e_value_rarely_exceeds_its_threshold_at_any_time_when_there_is_no_difference():
    random = np.random.default_rng(7)
    paths = random.standard_normal((1500, 30))
    n = np.arange(1, 31)
    means = np.cumsum(paths, axis=1) / n
    sums = np.cumsum(paths**2, axis=1)
    sds = np.sqrt(np.maximum(sums - n * means**2, 1e-12) / np.maximum(n - 1, 1))

    crossed = 0
    for mean, sd in zip(means, sds, strict=True):
        ratio = n[1:] * (mean[1:] / sd[1:]) ** 2 / (n[1:] - 1)
        log_e = -0.5 * np.log1p(n[1:]) + n[1:] / 2 * (np.log1p(ratio) - np.log1p(ratio / (1 + n[1:])))
        crossed += bool((log_e > math.log(20)).any())
    last = statistics.e_value(paths[-1].tolist())

    assert last == pytest.approx(math.exp(log_e[-1]), rel=1e-9)
    assert crossed / len(paths) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / len(paths))


def test_sign_test_without_decided_pairs_says_nothing():
    assert statistics.sign_test([0, 0, 0]) == 1.0
    assert statistics.sign_test([1, 1, 1, 1, 1, 0]) == pytest.approx(2 * 0.5**5)


@pytest.mark.parametrize("n", [8, 12, 20, 60])
def test_skewness_limit_is_where_the_skewness_test_has_5_percent(n):
    random = np.random.default_rng(n)
    values = random.standard_exponential(n).tolist()
    skewness, limit = statistics.skewness(values), statistics.skewness_limit(n)

    assert skewness is not None
    assert limit is not None
    assert (abs(skewness) > limit) == (stats.skewtest(values).pvalue < 0.05)
    drawn = stats.skew(random.standard_normal((20_000, n)), axis=1)
    assert np.mean(np.abs(drawn) > limit) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("n", [3, 5, 7])
def test_few_seeds_say_nothing_of_skewness(n):
    assert statistics.skewness_limit(n) is None


@settings(deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3))
def test_skewness_of_three_is_bounded_whatever_they_are(values):
    skewness = statistics.skewness(values)

    assert skewness is None or abs(skewness) <= 1 / math.sqrt(2) + 1e-12


def test_seeds_for_power_are_the_fewest_with_80_percent():
    n = statistics.seeds_for_power(0.01, 0.012, alpha=0.0125)
    assert n is not None

    def power(seeds):
        return stats.nct.sf(stats.t.isf(0.00625, seeds - 1), seeds - 1, 0.01 / 0.012 * math.sqrt(seeds))

    assert power(n) >= 0.8 > power(n - 1)


def test_no_difference_needs_more_seeds_than_can_be_said():
    assert statistics.seeds_for_power(0.0, 0.01, alpha=0.05) is None
    assert statistics.seeds_for_power(1e-9, 0.01, alpha=0.05) is None


@pytest.mark.parametrize(("difference", "sd"), [(1.0, 1e-9), (1e6, 1.0)])
def test_power_of_huge_differences_is_a_number(difference, sd):
    assert statistics.seeds_for_power(difference, sd, alpha=0.05) == 2


def test_three_seeds_find_only_differences_of_about_3_3_sd():
    assert statistics.detectable_difference(1.0, 3, alpha=0.05) == pytest.approx(3.3, abs=0.1)


@pytest.mark.parametrize("alpha", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12])
@pytest.mark.parametrize("n", [2, 3, 5, 13, 50])
def test_the_detectable_difference_has_80_percent_power_however_small_alpha_is(n, alpha):
    found = statistics.detectable_difference(1.0, n, alpha=alpha)
    critical, freedom, shift = stats.t.isf(alpha / 2, n - 1), n - 1, found * math.sqrt(n)

    def crossing(noise: float) -> float:
        return float(stats.norm.pdf(noise) * stats.chi2.cdf(freedom * ((shift + noise) / critical) ** 2, freedom))

    steps = sorted({max(-shift, -12.0), 12.0, *(step for step in range(-10, 11) if step > -shift)})
    power = math.fsum(integrate.quad(crossing, *ends, epsabs=1e-12)[0] for ends in itertools.pairwise(steps))

    assert power == pytest.approx(0.8, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("n", [2, 5, 20, 2000])
def test_power_is_that_of_the_noncentral_t_where_scipy_has_it(n, alpha):
    found = statistics.detectable_difference(1.0, n, alpha=alpha)

    assert stats.nct.sf(stats.t.isf(alpha / 2, n - 1), n - 1, found * math.sqrt(n)) == pytest.approx(0.8, abs=1e-7)


def test_an_interval_at_a_tiny_alpha_keeps_its_digits():
    interval = statistics.interval_at([-1.0, 0.0, 1.0], alpha=1e-12)
    assert interval is not None

    assert interval.high == pytest.approx(float(stats.t.isf(5e-13, 2)) / math.sqrt(3), rel=1e-12)


@pytest.mark.parametrize("alpha", [1e-100, 1e-300, 5e-324])
def test_no_alpha_is_too_small_for_a_finite_boundary(alpha):
    assert 1e30 < statistics.critical_t(3, alpha) < math.inf


def test_range_of_the_sd_is_the_chi_square_interval():
    low, high = statistics.sd_range(2.0, 5)

    assert low == pytest.approx(2.0 * math.sqrt(4 / stats.chi2.ppf(0.975, 4)))
    assert high == pytest.approx(2.0 * math.sqrt(4 / stats.chi2.ppf(0.025, 4)))


@pytest.mark.slow
def test_a_null_study_is_judged_wrongly_at_most_as_often_as_alpha():
    repetitions, alpha = 200, 0.05
    plan = make_plan(seeds=5, alpha=alpha)
    random = np.random.default_rng(2024)

    def accuracy(variant: Variant, seed: int) -> float:
        return 0.8 + 0.01 * float(random.standard_normal())

    wrong = 0
    for _ in range(repetitions):
        runs = make_runs(plan, accuracy=accuracy)
        found = answers(StudyLooks.of(plan, runs), run_table(plan, runs))
        wrong += any(answer.verdict in (Verdict.HELPS, Verdict.HURTS) for answer in found)

    assert wrong / repetitions <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / repetitions)


def test_run_table_has_a_row_per_planned_run_in_the_plans_order():
    plan = make_plan()
    runs = make_runs(plan, outcomes={("depth=2,normalization=none", 1): None})

    table = run_table(plan, runs)

    assert list(zip(table["variant"], table["seed"], strict=True)) == [(run.variant, run.seed) for run in plan.runs]
    assert {"model.depth", "model.normalization", "peak_memory_mib", *TASKS["classification"].metrics} <= set(
        table.columns
    )
    row = table[(table["variant"] == "depth=2,normalization=none") & (table["seed"] == 1)].iloc[0]
    assert row["outcome"] is None
    assert row["run_id"] is None
    assert math.isnan(row["test_accuracy"])


def test_run_table_does_not_depend_on_the_order_of_runs():
    plan = make_plan()
    runs = make_runs(plan, outcomes={("depth=3,normalization=none", 1): Outcome.FAILED})

    assert run_table(plan, runs).equals(run_table(plan, runs[::-1]))


def test_run_table_of_nothing_has_its_rows_and_columns():
    plan = make_plan(seeds=2)

    table = run_table(plan, [])

    assert len(table) == 8
    assert table["outcome"].isna().all()


def test_differences_that_cancel_have_a_mean_of_zero_and_an_interval_around_it() -> None:
    cancelling = [0.1 + 0.2, -0.3, 0.0]
    interval = statistics.paired_interval(cancelling, level=0.95)

    assert 0.0 == statistics.mean_of(cancelling) != float(np.mean(cancelling))
    assert interval is not None
    assert interval.low == -interval.high
