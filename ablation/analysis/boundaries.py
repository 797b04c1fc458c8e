"""Boundaries of the t statistic at planned looks: how far from zero it must lie, exact under normal differences.

Under a mean of zero the t statistics of successive looks form a Markov chain: each depends on the ones before through
the last alone. So the chance of crossing a boundary first at a look is a one-dimensional recursion. With S the sum and
Q the sum of squares of n values, the state is the angle whose sine is S / √(nQ), which is independent of Q (Basu);
t = √(n - 1) tan(angle). The next m values bring a normal sum and a χ² of m - 1 degrees of freedom.

Spending is power-2 (Kim & DeMets 1987): by a look of n seeds, alpha (n / last)² has been spent.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from ablation.analysis.statistics import critical_t

Array = NDArray[np.floating[Any]]
ANGLES, PATHS, STEPS = 12, 24, 32
"""Points of the Gauss rules: for a density of the angle, for each of old angle and share, for the new sum."""
FARTHEST = 8.0
"""Standard deviations beyond which nothing is integrated: a chance of 1e-15."""
LEAST_ALPHA = 1e-6
"""Below it the recursion's rounding shows: at 1e-7 a boundary came out 1 % too near, at 1e-8 20 %. Each look then has
what it may spend for itself (Bonferroni), on the safe side: mostly 1 % farther out, 11 % for looks at 20 and 21."""
RIGHT_ANGLE = math.pi / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What a t statistic needs at a look: to lie beyond ±`t`, which is a two-sided p-value below `p`."""

    seeds: int
    t: float
    p: float


def boundaries(looks: Sequence[int], alpha: float) -> tuple[Boundary, ...]:
    """Return the boundary of each look, so that under a mean of zero any is crossed with a probability of `alpha`.

    `looks` are numbers of seeds, at least 2 and rising.

    Raises:
        ValueError: they are not, or alpha is not between 0 and 1.
    """
    if not looks or looks[0] < 2 or any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        raise ValueError(f"looks are numbers of seeds from 2, each larger than the one before, not {tuple(looks)}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is between 0 and 1, not {alpha}")
    return _boundaries(tuple(looks), float(alpha))


@lru_cache(maxsize=16384)
def _boundaries(looks: tuple[int, ...], alpha: float) -> tuple[Boundary, ...]:
    spent = [alpha * (seeds / looks[-1]) ** 2 for seeds in looks]
    if alpha < LEAST_ALPHA:
        parts = [now - before for before, now in zip((0.0, *spent), spent, strict=False)]
        return tuple(
            Boundary(seeds=seeds, t=critical_t(seeds, part), p=part) for seeds, part in zip(looks, parts, strict=True)
        )
    t = critical_t(looks[0], spent[0])
    found = [Boundary(seeds=looks[0], t=t, p=spent[0])]
    uncrossed = _at_first(looks[0], t)
    for before, now, earlier, by_now in zip(looks, looks[1:], spent, spent[1:], strict=False):
        t = _boundary(uncrossed, before, now, by_now - earlier)
        found.append(Boundary(seeds=now, t=t, p=2 * float(special.stdtr(now - 1, -t))))
        if now != looks[-1]:
            uncrossed = _at_next(uncrossed, before, now, t)
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Density:
    """Of the angle, on paths that have crossed no boundary: even, a polynomial on (-limit, limit), zero beyond.

    `values` are those at the points of a Gauss rule of 2 ANGLES points, (2 ANGLES,).
    """

    limit: float
    values: Array

    def at(self, angles: Array) -> Array:
        return _interpolation(angles / self.limit) @ self.values


def _at_first(seeds: int, t: float) -> _Density:
    """Return the density at the first look, where it is that of cos^(n - 2)."""
    limit = _angle(t, seeds)
    points, _ = _rule(2 * ANGLES)
    return _Density(limit=limit, values=_cosine_power(limit * points, seeds - 2))


def _boundary(uncrossed: _Density, before: int, now: int, to_spend: float) -> float:
    """Return the t that uncrossed paths lie beyond at the next look with a probability of `to_spend`."""

    def too_many(log_t: float) -> float:
        limit = _angle(math.exp(log_t), now)
        least = _least_that_crosses(limit, before, now)
        beyond = 0.0
        if least < uncrossed.limit:
            old, chances = _paths(uncrossed, before, now, (least, uncrossed.limit), (least, None))
            within = sum(_cdf(high, now - 1) - _cdf(low, now - 1) for low, high in _pieces(old, before, now, limit))
            beyond = float(chances @ (1 - within))
        return beyond - to_spend

    # What the look alone would need bounds it from above; of a small alpha the rule's rounding may pass that.
    highest = math.log(critical_t(now, to_spend))
    if too_many(highest) >= 0:
        return math.exp(highest)
    return math.exp(optimize.brentq(too_many, math.log(1e-2), highest, xtol=1e-9))


def _at_next(uncrossed: _Density, before: int, now: int, t: float) -> _Density:
    """Return the density at the next look, of the paths that do not cross ±t there."""
    limit = _angle(t, now)
    least = min(_least_that_crosses(limit, before, now), uncrossed.limit)
    means = np.zeros(2 * ANGLES)
    for angles, shares in (
        ((0.0, least), (None, None)),
        ((least, uncrossed.limit), (None, least)),
        ((least, uncrossed.limit), (least, None)),
    ):
        if angles[0] < angles[1]:
            old, chances = _paths(uncrossed, before, now, angles, shares)
            means += _means(old, chances, before, now, limit)
    _, weights = _rule(2 * ANGLES)
    # The mean of each point's polynomial is the density there, times the point's weight.
    return _Density(limit=limit, values=(means + means[::-1]) / 2 / (limit * weights))


def _means(old: Array, chances: Array, before: int, now: int, limit: float) -> Array:
    """Return the mean over paths of each polynomial that is 1 at a point of the rule and 0 at the others."""
    new = math.sqrt(now - before)
    radius, shift = np.hypot(old, new) / math.sqrt(now), np.arctan2(old, new)
    total = np.zeros(2 * ANGLES)
    for low, high in _pieces(old, before, now, limit):
        steps, weights = _between(low, high, now - 1)
        reached = np.arcsin(np.clip(radius[:, None] * np.sin(steps + shift[:, None]), -1.0, 1.0))
        total += (chances[:, None] * weights).ravel() @ _interpolation(np.clip(reached.ravel() / limit, -1.0, 1.0))
    return total


def _least_that_crosses(limit: float, before: int, now: int) -> float:
    """Return the old angle below which no path gets beyond the new limit, whatever the new values are."""
    squared = now * math.sin(limit) ** 2 - (now - before)
    return math.asin(min(1.0, math.sqrt(max(0.0, squared) / before)))


def _paths(
    uncrossed: _Density,
    before: int,
    now: int,
    angles: tuple[float, float],
    limits: tuple[float | None, float | None],
) -> tuple[Array, Array]:
    """Return the old sums of paths with old angles in a range, and the chance that each path stands for.

    A path's old sum is in units of the root of the sum of all squares but the new sum's; of these the earlier values
    have a share, a Beta variable. `limits` bound it below and above by the angle that it alone would be sure with.
    """
    points, weights = _ends_rule()
    angle = angles[0] + (angles[1] - angles[0]) * points
    chances = 2 * (angles[1] - angles[0]) * weights * uncrossed.at(angle)
    sums = math.sqrt(before) * np.sin(angle)
    new = now - before
    if new == 1:  # the new value's only square is its sum's
        return (np.zeros(0), np.zeros(0)) if limits[1] is not None else (sums, chances)
    tail = float(special.ndtr(-FARTHEST))
    lowest, highest = (float(special.betaincinv(before / 2, (new - 1) / 2, rank)) for rank in (tail, 1 - tail))
    low, high = (
        np.full_like(angle, end) if limit is None else np.clip((math.sin(limit) / np.sin(angle)) ** 2, lowest, highest)
        for limit, end in zip(limits, (lowest, highest), strict=True)
    )
    width = (high - low)[:, None]
    shares = low[:, None] + width * points
    left_over = (1 - high)[:, None] + width * points[::-1]  # 1 - share, without its rounding error
    log_density = (
        (before / 2 - 1) * np.log(shares) + ((new - 1) / 2 - 1) * np.log(np.maximum(left_over, 1e-300))
    ) - special.betaln(before / 2, (new - 1) / 2)
    return (
        (sums[:, None] * np.sqrt(shares)).ravel(),
        (chances[:, None] * width * weights * np.exp(log_density)).ravel(),
    )


def _pieces(old: Array, before: int, now: int, limit: float) -> list[tuple[Array, Array]]:
    """Return the pieces of f, each from and to, (paths,), in which the new angle lies within ±limit.

    The sine of the new angle is (a cos f + √m sin f) / √n = r sin(f + d) / √n, where a is the old sum and √v tan f is
    distributed as t with v = n - 1 degrees of freedom.
    """
    new = math.sqrt(now - before)
    radius, shift = np.hypot(old, new) / math.sqrt(now), np.arctan2(old, new)
    widest = np.arcsin(np.minimum(1.0, math.sin(limit) / radius))
    near = (np.maximum(-widest - shift, -RIGHT_ANGLE), widest - shift)
    far = (np.minimum(math.pi - widest - shift, RIGHT_ANGLE), np.full_like(widest, RIGHT_ANGLE))
    return [near, far]


def _between(low: Array, high: Array, freedom: int) -> tuple[Array, Array]:
    """Return points of f between low and high, (paths, STEPS), and the probability that each stands for."""
    widest = math.atan(-float(special.stdtrit(freedom, special.ndtr(-FARTHEST))) / math.sqrt(freedom))
    low, high = np.clip(low, -widest, widest)[:, None], np.clip(high, -widest, widest)[:, None]
    points, weights = _rule(STEPS)
    half = np.maximum(0.0, high - low) / 2
    steps = half * points + (high + low) / 2
    return steps, half * weights * _cosine_power(steps, freedom - 1)


def _cosine_power(angles: Array, power: int) -> Array:
    """Return the density on (-π/2, π/2) that is proportional to a power of the cosine."""
    log_scale = special.gammaln(power / 2 + 1) - special.gammaln((power + 1) / 2) - 0.5 * math.log(math.pi)
    density: Array = np.exp(log_scale + power * np.log(np.cos(angles)))
    return density


def _interpolation(places: Array) -> Array:
    """Return the value of each point's polynomial at places in (-1, 1), (places, 2 ANGLES)."""
    points, weights = _rule(2 * ANGLES)
    barycentric = np.where(np.arange(2 * ANGLES) % 2, -1.0, 1.0) * np.sqrt((1 - points**2) * weights)  # Wang & Xiang
    apart = places[:, None] - points[None, :]
    apart[apart == 0.0] = 1e-300
    shares = barycentric / apart
    found: Array = shares / shares.sum(axis=1, keepdims=True)
    return found


@lru_cache(maxsize=8)
def _rule(count: int) -> tuple[Array, Array]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


@lru_cache(maxsize=1)
def _ends_rule() -> tuple[Array, Array]:
    """Return a rule on (0, 1) for functions that begin and end as a square root does, or its inverse."""
    points, weights = _rule(PATHS)
    turn = RIGHT_ANGLE * (points + 1) / 2
    return np.sin(turn) ** 2, weights * RIGHT_ANGLE / 2 * np.sin(2 * turn)


def _angle(t: float, seeds: int) -> float:
    return math.atan(t / math.sqrt(seeds - 1))


def _cdf(angles: Array, freedom: int) -> Array:
    found: Array = special.stdtr(freedom, math.sqrt(freedom) * np.tan(angles))
    return found
