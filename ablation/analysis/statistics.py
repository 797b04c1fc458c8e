"""The formulas: paired intervals, shares, the t e-process and numbers of seeds, from plain sequences of numbers."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from ablation.analysis.answer_records import Interval

Array = NDArray[np.floating[Any]]
MOST_SEEDS = 10_000
POWER = 0.8
DESCRIPTIVE_LEVEL = 0.95
FEWEST_FOR_SKEWNESS = 8
_SQUARABLE = (1e-100, 1e100)
"""Sizes between which squares and cubes of numbers are numbers."""
LARGEST_T = 1e300
"""What a t statistic is compared with where none that a number can hold is so rare."""
_POINTS, _FARTHEST = 256, 9.0
"""Of the Gauss rule that power is integrated by, and the standard deviations beyond which nothing is integrated."""


def sample_sd(values: Sequence[float]) -> float | None:
    """Return the SD with n - 1, None for one value, and exactly 0 where values differ by rounding only."""
    if len(values) < 2:
        return None
    largest = max(map(abs, values))
    size = largest if largest and not _SQUARABLE[0] < largest < _SQUARABLE[1] else 1.0
    sd = size * float(np.std(np.divide(values, size), ddof=1))
    return 0.0 if sd <= 1e-12 * largest else sd


def paired_interval(differences: Sequence[float], *, level: float, test_to_train: float = 0.0) -> Interval | None:
    """Return the t interval of the mean of paired differences; None where n < 2 or the differences don't vary.

    `test_to_train` corrects it for folds, see `correction`.
    """
    return interval_at(differences, alpha=1 - level, test_to_train=test_to_train)


def correction(n: int, test_to_train: float) -> float:
    """Return how many times wider an interval of n differences is over folds than over independent replicates.

    Folds share most of their training examples, so their differences are correlated and vary less from each other than
    over data drawn anew. Nadeau & Bengio (2003): the variance of the mean is taken to be (1/n +
    n_test/n_train) s², with n - 1 degrees of freedom; `test_to_train` is n_test/n_train, 0 of independent replicates.
    """
    return math.sqrt(1 + n * test_to_train) if test_to_train else 1.0


def interval_at(differences: Sequence[float], *, alpha: float, test_to_train: float = 0.0) -> Interval | None:
    """Return the paired t interval at 1 - alpha, which of a small alpha keeps the digits that 1 - alpha has lost."""
    sd = sample_sd(differences)
    if not sd:
        return None
    n = len(differences)
    half_width = critical_t(n, alpha) * sd / math.sqrt(n) * correction(n, test_to_train)
    mean = mean_of(differences)
    return Interval(low=mean - half_width, high=mean + half_width, level=1 - alpha)


def welch_interval(first: Sequence[float], second: Sequence[float], *, alpha: float) -> Interval | None:
    """Return the t interval at 1 - alpha of second minus first, of two samples that are not paired (Welch 1947).

    With Satterthwaite's degrees of freedom. None where a sample has fewer than two values, or neither varies.
    """
    sds = [sample_sd(values) for values in (first, second)]
    if None in sds or not any(sds):
        return None
    errors = [float(sd or 0.0) / math.sqrt(len(values)) for sd, values in zip(sds, (first, second), strict=True)]
    shares = [(error / max(errors)) ** 2 for error in errors]
    within = sum(share**2 / (len(values) - 1) for share, values in zip(shares, (first, second), strict=True))
    found = -float(special.stdtrit(sum(shares) ** 2 / within, alpha / 2))
    half_width = (found if 0 <= found < LARGEST_T else LARGEST_T) * max(errors) * math.sqrt(sum(shares))
    mean = difference_of_means(first, second)
    return Interval(low=mean - half_width, high=mean + half_width, level=1 - alpha)


def difference_of_means(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the mean of the second less that of the first, exactly 0 where it is what rounding leaves."""
    return without_rounding_error([float(np.mean(second)), -float(np.mean(first))])


def crossed_interval(differences: NDArray[np.floating[Any]], *, level: float) -> tuple[float, Interval, float] | None:
    """Return (mean, interval, degrees of freedom) of differences (seeds, items), both seen as drawn at random.

    Two-way layout with one value a cell: var(mean) = (MS_seeds + MS_items - MS_rest) / (seeds × items), with
    Satterthwaite's degrees of freedom. Never narrower than the paired t interval over seeds alone, which it is where
    that is wider: items drawn anew add to the variance and take nothing from it, while Satterthwaite's count many
    items as knowledge of an SD that few seeds tell. None with fewer than two of either, or where nothing varies.
    """
    seeds, items = differences.shape
    if seeds < 2 or items < 2:
        return None
    mean = float(differences.mean(dtype=np.float64))
    by_seed, by_item = (differences.mean(axis=axis, dtype=np.float64) - mean for axis in (1, 0))
    total = float(np.sum(np.square(differences, dtype=np.float64))) - seeds * items * mean**2
    squares = [items * float(by_seed @ by_seed), seeds * float(by_item @ by_item)]
    freedoms = [seeds - 1, items - 1, (seeds - 1) * (items - 1)]
    means = [square / freedom for square, freedom in zip((*squares, total - sum(squares)), freedoms, strict=True)]
    estimates = [(means[0], float(seeds - 1))]
    if means[1] > means[2]:
        variance = means[0] + means[1] - means[2]
        within = sum(square**2 / freedom for square, freedom in zip(means, freedoms, strict=True))
        estimates.append((variance, variance**2 / within))
    estimates = [(variance, freedom) for variance, freedom in estimates if variance > 1e-12 * max(means)]
    if not estimates:
        return None
    widths = [
        (-float(special.stdtrit(freedom, (1 - level) / 2)) * math.sqrt(variance / (seeds * items)), freedom)
        for variance, freedom in estimates
    ]
    half_width, freedom = max(widths)
    return mean, Interval(low=mean - half_width, high=mean + half_width, level=level), freedom


def mean_of(differences: Sequence[float]) -> float:
    """Return the mean of differences, exactly 0 where it is what rounding leaves of ones that cancel."""
    return float(np.mean(differences)) if without_rounding_error(differences) else 0.0


def merged(
    before: tuple[Array, Array], seeds: int, new: int, block: Array, squares: Array | float
) -> tuple[Array, Array]:
    """Return mean and sum of squares of `seeds` values and `new` more, of which mean (`block`) and squares are known.

    Chan, Golub & LeVeque's formula; of many paths at once.
    """
    mean, total = before
    apart = block - mean
    return mean + new / (seeds + new) * apart, total + squares + seeds * new / (seeds + new) * apart**2


def without_rounding_error(values: Sequence[float]) -> float:
    """Return the sum, exactly 0 where it is what rounding leaves of equal numbers."""
    total = math.fsum(values)
    return 0.0 if abs(total) <= 1e-12 * max(map(abs, values)) else total


def share_interval(count: int, n: int, *, level: float = DESCRIPTIVE_LEVEL) -> Interval:
    """Return the exact (Clopper-Pearson) interval of a share."""
    interval = stats.binomtest(count, n).proportion_ci(confidence_level=level, method="exact")
    return Interval(low=float(interval.low), high=float(interval.high), level=level)


def sign_test(differences: Sequence[float]) -> float:
    """Return the two-sided exact p-value of as many ups as downs; ties are left out (McNemar's exact test on 0/1)."""
    ups, downs = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return float(stats.binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0


def e_value(differences: Sequence[float], *, g: float = 1.0) -> float | None:
    """Return the t e-process (Wang & Ramdas 2023) against a mean of zero; None where n < 2 or nothing varies.

    Valid at any time: under a true mean of zero it exceeds 1/alpha at some n with a probability of at most alpha.
    `g` is the prior variance of the standardized mean.
    """
    sd = sample_sd(differences)
    if not sd:
        return None
    return math.exp(min(_log_e(float(np.mean(differences)) / sd, len(differences), g=g), 700.0))


def largest_e_value(n: int) -> float:
    """Return the value that the t e-value of n differences stays below, whatever they are (g = 1)."""
    return math.exp(min((n - 1) / 2 * math.log1p(n), 700.0))


def confidence_sequence(differences: Sequence[float], *, alpha: float, g: float = 1.0) -> tuple[float, float] | None:
    """Return the means that the t e-process of no number of seeds so far excludes at 1/alpha; None where all are left.

    The intersection over 2, 3, … n of the means whose e-value is below 1/alpha, so more seeds never widen it; where
    nothing is left, the interval of all n.
    """
    low, high, interval = -math.inf, math.inf, None
    for n in range(2, len(differences) + 1):
        values = differences[:n]
        half_width = e_half_width(sample_sd(values), n, alpha=alpha, g=g)
        if half_width is None:
            continue
        mean = mean_of(values)
        interval = (mean - half_width, mean + half_width)
        low, high = max(low, interval[0]), min(high, interval[1])
    return (low, high) if low <= high and interval is not None else interval


def e_half_width(sd: float | None, n: int, *, alpha: float, g: float = 1.0) -> float | None:
    """Return how far from the mean of n values the t e-value reaches 1/alpha; None where it never does."""
    ratio = math.exp(2 / n * (math.log(1 / alpha) + 0.5 * math.log1p(n * g)))
    if not sd or ratio >= 1 + n * g:
        return None
    return sd * math.sqrt((n - 1) / n * (ratio - 1) / (1 - ratio / (1 + n * g)))


def skewness(values: Sequence[float]) -> float | None:
    """Return the sample skewness; None where n < 3 or nothing varies."""
    sd = sample_sd(values) if len(values) >= 3 else None
    if not sd:
        return None
    return float(stats.skew(values if _SQUARABLE[0] < sd < _SQUARABLE[1] else np.divide(values, sd)))


def skewness_limit(n: int) -> float | None:
    """Return the sample skewness that n normal values exceed, in either direction, 5 % of the time; None below n = 8.

    By D'Agostino's (1970) transformation. With few values the sample skewness is bounded, by (n - 2) / √(n - 1), which
    is 0.71 at n = 3: it says nothing there.
    """
    if n < FEWEST_FOR_SKEWNESS:
        return None
    kurtosis = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    squared = math.sqrt(2 * (kurtosis - 1)) - 1
    scale, shape = math.sqrt(2 / (squared - 1)), 1 / math.sqrt(math.log(squared) / 2)
    standardized = scale * math.sinh(float(special.ndtri(0.5 + DESCRIPTIVE_LEVEL / 2)) / shape)
    return standardized * math.sqrt(6 * (n - 2) / ((n + 1) * (n + 3)))


def sd_range(sd: float, n: int, *, level: float = DESCRIPTIVE_LEVEL) -> tuple[float, float]:
    """Return the χ² interval of an SD that was estimated from n values."""
    tail = (1 - level) / 2
    smallest, largest = float(stats.chi2.isf(tail, n - 1)), float(stats.chi2.ppf(tail, n - 1))
    return sd * math.sqrt((n - 1) / smallest), sd * math.sqrt((n - 1) / largest)


def seeds_for_power(difference: float, sd: float, *, alpha: float) -> int | None:
    """Return the fewest seeds with which a paired t test at `alpha` finds the difference in 80 % of repetitions."""
    if difference == 0:
        return None
    return _fewest(lambda n: _power(abs(difference) / sd, n, alpha) >= POWER)


def detectable_difference(sd: float, n: int, *, alpha: float) -> float:
    """Return the difference that a paired t test of n seeds at `alpha` finds in 80 % of repetitions."""
    low, high = 0.0, 1.0 + critical_t(n, alpha) / math.sqrt(n)
    while _power(high, n, alpha) < POWER:
        low, high = high, 2 * high
    return sd * float(optimize.brentq(lambda standardized: _power(standardized, n, alpha) - POWER, low, high))


def _log_e(standardized: float, n: int, *, g: float) -> float:
    """Return the logarithm of the t e-value of n differences whose mean is so many SDs."""
    ratio = n * standardized**2 / (n - 1)  # t² / degrees of freedom
    return -0.5 * math.log1p(n * g) + (n / 2) * (math.log1p(ratio) - math.log1p(ratio / (1 + n * g)))


def critical_t(n: int, alpha: float) -> float:
    """Return what |t| of n differences exceeds with a probability of `alpha` under a mean of zero.

    From the lower tail: 1 - alpha / 2 would lose the digits of a small alpha.
    """
    found = -float(special.stdtrit(n - 1, alpha / 2))
    return found if 0 <= found < LARGEST_T else LARGEST_T  # infinite, of either sign, where alpha is below 1e-200


def _power(standardized: float, n: int, alpha: float) -> float:
    """Return the probability of finding a difference of so many SDs, with its right sign.

    That is P(Z + d > c s), with d the noncentrality, c the critical t, Z the noise of the mean and s² a χ² by its
    degrees of freedom: one of the two known, the other's distribution gives the chance. Integrated is over the one in
    which that is smooth. (`scipy.stats.nct` takes minutes far out, or returns no number.)
    """
    critical, freedom, shift = critical_t(n, alpha), n - 1, standardized * math.sqrt(n)
    if critical > math.sqrt(2 * freedom):
        noise, weights = _rule(max(-shift, -_FARTHEST), _FARTHEST)
        chances = special.chdtr(freedom, freedom * ((shift + noise) / critical) ** 2)
        return float(weights * np.exp(-(noise**2) / 2) @ chances) / math.sqrt(2 * math.pi)
    tail = float(special.ndtr(-_FARTHEST))
    low, high = math.sqrt(2 * special.gammaincinv(freedom / 2, tail)), math.sqrt(special.chdtri(freedom, tail))
    roots, weights = _rule(low, high)
    log_density = (freedom - 1) * np.log(roots) - roots**2 / 2 - special.gammaln(freedom / 2)
    density = np.exp(log_density - (freedom / 2 - 1) * math.log(2))
    return float(weights * density @ special.ndtr(shift - critical * roots / math.sqrt(freedom)))


def _rule(low: float, high: float) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return the points and weights of a Gauss rule from low to high."""
    points, weights = _unit_rule()
    half = (high - low) / 2
    return low + half * (points + 1), half * weights


@lru_cache(maxsize=1)
def _unit_rule() -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    return points, weights


def _fewest(is_enough: Callable[[int], bool]) -> int | None:
    """Return the smallest n from 2 that is enough; None above MOST_SEEDS."""
    high = 2
    while not is_enough(high):
        if high >= MOST_SEEDS:
            return None
        high = min(2 * high, MOST_SEEDS)
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return high
