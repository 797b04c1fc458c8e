"""Forecasts: the chance that more seeds decide what is still open, either way, by the rule that will judge them.

Future seeds are drawn from what the seeds so far leave open of mean and SD: σ² as (n − 1) SD² over a χ² of n − 1
degrees of freedom, the mean given σ as normal around the mean so far, then the seeds given both. The draws are the same
for every comparison, from a fixed seed. Of a planned look the boundary decides; beyond the plan, the e-process.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analysis.answer_records import Forecast
from ablation.analysis.boundaries import boundaries
from ablation.analysis.looks import StudyLooks
from ablation.analysis.sequential import FRAGILE_BELOW, Asked, Rule, Standing, State, floor_at, numbers, usual_spread
from ablation.analysis.statistics import (
    MOST_SEEDS,
    POWER,
    confidence_sequence,
    e_half_width,
    mean_of,
    merged,
    sample_sd,
    sd_range,
)
from ablation.study.looks import next_look

Array = NDArray[np.floating[Any]]
DRAWS, SEED = 4_000, 23
FUTURES = 2_000
"""Of the draws, those that are followed seed by seed beyond the plan."""
SINGLE, STRIDE = 64, 1.05
"""Seeds beyond the plan that are judged one by one, and how much larger each number of seeds is after those."""
TIMES = 3
"""How many times its seeds a comparison is forecast at beyond the plan. Twice as many hardly ever bring the e-value."""
UNCLEAR = 10.0
"""How many times the seeds for 80 % may differ between the ends of the SD's 95 % range: else nobody can tell them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Past:
    """What a comparison's seeds showed by its last look, and what it is judged by; all in units of its likely SD.

    That is its SD, or the floor that it was raised to. `values` are the differences, `sd` is their own SD; `planned`
    the interval that the plan leaves it with, None where that may be luck.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    scale: float
    rope: float | None
    planned: tuple[float, float] | None
    alpha: float
    alpha_added: float

    @classmethod
    def of(cls, asked: Asked, standing: Standing, rule: Rule) -> "_Past | None":
        """Return it, None where the differences do not vary or lack a seed."""
        values = numbers(asked.seeds[: standing.seeds])
        sd = sample_sd(values)
        if not sd or len(values) < standing.seeds:
            return None
        scale, interval = max(sd, standing.least_sd), standing.interval
        return cls(
            values=tuple(value / scale for value in values),
            mean=mean_of(values) / scale,
            sd=sd / scale,
            scale=scale,
            rope=asked.rope / scale if asked.rope is not None else None,
            planned=None if interval is None or standing.is_fragile else (interval.low / scale, interval.high / scale),
            alpha=standing.alpha,
            alpha_added=rule.alpha_added,
        )

    @property
    def seeds(self) -> int:
        return len(self.values)

    @property
    def squares(self) -> float:
        return (self.seeds - 1) * self.sd**2


def forecast_of(looks: StudyLooks, place: int, *, following: int | None) -> Forecast | None:
    """Return the chance that more seeds decide a study's comparison, by its place; None where nothing can be said.

    `following` is the number of seeds that it is judged at next, None where it is not.
    """
    asked, standing, rule = looks.family[place], looks.standings[place], looks.rule
    if rule.test_to_train:  # folds do not grow
        return None
    past = _Past.of(asked, standing, rule)
    is_given_up = standing.state in (State.FUTILE, State.ENDED) and standing.seeds < MOST_SEEDS
    if past is None or (following is None and not is_given_up):
        return None
    if following is not None and following <= rule.looks[-1] and not asked.is_added:
        floor = floor_at(following, asked, usual_spread(looks.family, asked.metric, rule.looks[0]))
        chance = _chance_at_look(past, following, rule.looks, floor / past.scale if floor is not None else None)
        return _forecast(past, following, chance, is_planned=True)
    total = following or min(max(TIMES * past.seeds, next_look(rule.looks[-1])), MOST_SEEDS)
    likely, *ends = _first_decided(past, chosen=total)
    chance = float(np.mean(likely <= total))
    if following is not None:
        return _forecast(past, total, chance, is_planned=True)
    least, most = map(_for_power, ends)
    is_unclear = _is_unclear(least, most, past.seeds)
    return _forecast(past, total, chance, is_planned=False, for_power=_for_power(likely), is_unclear=is_unclear)


def _forecast(
    past: _Past, seeds: int, chance: float, *, is_planned: bool, for_power: int | None = None, is_unclear: bool = False
) -> Forecast:
    return Forecast(
        seeds=seeds,
        more=seeds - past.seeds,
        chance=chance,
        is_planned=is_planned,
        more_for_power=for_power - past.seeds if for_power is not None and not is_unclear else None,
        is_unclear=is_unclear,
    )


def _is_unclear(least: int | None, most: int | None, seeds: int) -> bool:
    """Whether the seeds for 80 % differ too much between the ends of the SD's range; they grow as its square does."""
    if least is None:
        low, high = sd_range(1.0, seeds)
        return (high / low) ** 2 > UNCLEAR
    return most is None or most > UNCLEAR * least


def _chance_at_look(past: _Past, seeds: int, looks: tuple[int, ...], least_sd: float | None) -> float:
    """Return the chance of a verdict at a planned look by its boundary, at the alpha that the comparison holds."""
    if least_sd is None and seeds < FRAGILE_BELOW:
        return 0.0
    random, new = np.random.default_rng(SEED), seeds - past.seeds
    sigma = np.sqrt((past.seeds - 1) / random.chisquare(past.seeds - 1, DRAWS))
    centre = past.mean + sigma * random.standard_normal(DRAWS) / math.sqrt(past.seeds)
    block = centre + sigma * random.standard_normal(DRAWS) / math.sqrt(new)
    squares: Array = sigma**2 * random.chisquare(new - 1, DRAWS) if new > 1 else np.zeros(DRAWS)
    before = (np.full(DRAWS, past.mean), np.full(DRAWS, past.squares))
    mean, squares = merged(before, past.seeds, new, block, squares)
    limit = boundaries(looks, past.alpha)[looks.index(seeds)].t
    half = limit * np.maximum(np.sqrt(squares / (seeds - 1)), least_sd or 0.0) / math.sqrt(seeds)
    return float(np.mean(_is_decided(mean - half, mean + half, past.rope)))


def _first_decided(past: _Past, *, chosen: int) -> Array:
    """Return the numbers of seeds at which the e-process decides first, (3, FUTURES), infinite where it does not.

    The first row's SDs and means are drawn. The others have the mean so far and an end of the SD's 95 % range each.
    `chosen` is among the numbers of seeds that are judged.
    """
    future, before = _future(past.seeds, chosen), past.seeds
    sigma = np.stack([future.sd, *(np.full(FUTURES, end) for end in sd_range(1.0, past.seeds))])
    centre = np.full(sigma.shape, past.mean)
    centre[0] += future.sd * future.mean / math.sqrt(past.seeds)
    state = (np.full(sigma.shape, past.mean), np.full(sigma.shape, past.squares))
    ends = confidence_sequence(past.values, alpha=past.alpha_added) or (-math.inf, math.inf)
    low, high = (np.full(sigma.shape, end) for end in ends)
    found = np.full(sigma.shape, math.inf)
    for seeds, noise, squares in future.blocks:
        block = centre + sigma * noise / math.sqrt(seeds - before)
        state = merged(state, before, seeds - before, block, sigma**2 * squares)
        before = seeds
        width = e_half_width(1.0, seeds, alpha=past.alpha_added)
        if width is None:
            continue
        now = _around(state[0], width * np.sqrt(state[1] / (seeds - 1)))
        low, high = np.maximum(low, now[0]), np.minimum(high, now[1])
        shown = _both((low, high), now)
        if past.planned is not None:
            shown = _both((np.maximum(shown[0], past.planned[0]), np.minimum(shown[1], past.planned[1])), shown)
        found[np.isinf(found) & _is_decided(*shown, past.rope)] = seeds
        if seeds >= chosen and (np.isfinite(found).mean(axis=1) >= POWER).all():
            break
    return found


def _around(mean: Array, half: Array) -> tuple[Array, Array]:
    return mean - half, mean + half


def _both(both: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return what two intervals have in common, and the later one where that is nothing."""
    is_there = both[0] <= both[1]
    return np.where(is_there, both[0], later[0]), np.where(is_there, both[1], later[1])


def _is_decided(low: Array, high: Array, rope: float | None) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (low > 0) | (high < 0)
    return found if rope is None else found | ((low >= -rope) & (high <= rope))


def _for_power(decided: Array) -> int | None:
    """Return the fewest seeds by which 80 % of the futures are decided; None where fewer ever are."""
    place = math.ceil(POWER * len(decided)) - 1
    found = float(np.partition(decided, place)[place])
    return int(found) if math.isfinite(found) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Future:
    """Standardized draws: SD and mean, (FUTURES,), and of each block of seeds the total, its mean and its squares."""

    sd: Array
    mean: Array
    blocks: tuple[tuple[int, Array, Array], ...]


@lru_cache(maxsize=4)
def _future(seeds: int, chosen: int) -> _Future:
    random = np.random.default_rng(SEED)
    sd = np.sqrt((seeds - 1) / random.chisquare(seeds - 1, FUTURES))
    mean = random.standard_normal(FUTURES)
    blocks, before = [], seeds
    for total in _totals(seeds, chosen):
        new = total - before
        squares = random.chisquare(new - 1, FUTURES) if new > 1 else np.zeros(FUTURES)
        blocks.append((total, random.standard_normal(FUTURES), squares))
        before = total
    return _Future(sd=sd, mean=mean, blocks=tuple(blocks))


def _totals(seeds: int, chosen: int) -> Iterator[int]:
    """Yield the numbers of seeds that are judged: each one first, then ever larger steps, and the chosen one."""
    found = seeds
    while found < max(MOST_SEEDS, chosen):
        step = found + 1 if found < seeds + SINGLE else math.ceil(STRIDE * found)
        found = chosen if found < chosen < step else step
        yield found
