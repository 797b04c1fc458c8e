"""What a design can find before it costs anything: the difference that each look finds with 80 % power, in SDs.

Judged is by the rule that will apply: the looks' boundaries, futility, and the floor of few seeds. Two things are left
out. Alpha that is passed on only helps. And the floor's M, an estimate, is taken to be the true SD.

The t statistic of a path of noise moves with the true difference, so each path has a least difference that it finds:
their 80 % quantile is what is found with 80 % power, without a search. The paths are drawn once, from a fixed seed.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analysis.answer_records import MeasuredMetric
from ablation.analysis.boundaries import Boundary, boundaries
from ablation.analysis.contrasts import before_runs, contrast_name
from ablation.analysis.looks import StudyLooks
from ablation.analysis.rule import RuleChange, with_rule
from ablation.analysis.sequential import (
    FEWEST_FOR_A_FLOOR,
    FLOOR,
    FLOORED_BELOW,
    FRAGILE_BELOW,
    Asked,
    Lack,
    Rule,
    low_sd_share,
    numbers,
)
from ablation.analysis.statistics import POWER, correction, detectable_difference, merged, sample_sd, seeds_for_power
from ablation.records import Plan, RecordedRun
from ablation.study.labels import labels_of

Array = NDArray[np.floating[Any]]
PATHS, SEED = 100_000, 19
FAR = 4.0
"""SDs of a difference that needs no study: 99.997 % of single pairs of runs show its sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookPower:
    """The difference that is found by a look of so many seeds, in SDs of the paired differences; None: none can be."""

    seeds: int
    detectable_sd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionPower:
    """What one comparison of a design can find; `label` is its question in the words of the file's labels.

    `sd` is that of its differences from seed to seed, in the metric's unit, None where the noise is not known. Where
    it is, `seeds_for_meaningful` are the fewest with which one look finds a difference of `meaningful`, the half-width
    of the ROPE; None where that is not named, above 10,000, or where folds take the place of seeds.
    """

    question: str
    label: str
    metric: MeasuredMetric
    meaningful: float | None
    sd: float | None
    looks: tuple[LookPower, ...]
    seeds_for_meaningful: int | None
    is_folded: bool = False

    @property
    def reaches_meaningful(self) -> int | None:
        """The seeds of the first look that finds a difference of `meaningful`; None where none does."""
        if self.sd is None or self.meaningful is None:
            return None
        wanted = self.meaningful / self.sd
        reached = (look.seeds for look in self.looks if look.detectable_sd is not None and look.detectable_sd <= wanted)
        return next(reached, None)


def power_of(looks: StudyLooks, *, noise: Mapping[str, float] | None = None) -> tuple[QuestionPower, ...]:
    """Return what each comparison of a plan can find; `noise` is the SD of one variant's runs by metric, in its unit.

    Runs are taken to be independent: the SD of a comparison is √Σw² times that of one run.
    """
    found, labels = detectable(looks.family, looks.rule, noise=noise), labels_of(looks.plan)
    return tuple(
        QuestionPower(
            question=contrast_name(contrast),
            label=contrast_name(contrast, labels=labels),
            metric=before_runs(contrast.metric, looks.plan),
            meaningful=contrast.rope,
            sd=(sd := _sd(asked, noise or {})),
            looks=tuple(
                LookPower(seeds=seeds, detectable_sd=least)
                for seeds, least in zip(looks.rule.looks, differences, strict=True)
            ),
            seeds_for_meaningful=seeds_for_power(contrast.rope, sd, alpha=looks.rule.alpha_planned)
            if sd is not None and contrast.rope is not None and not looks.rule.test_to_train
            else None,
            is_folded=bool(looks.rule.test_to_train),
        )
        for contrast, asked, differences in zip(looks.contrasts, looks.family, found, strict=False)
    )


def detectable(
    family: Sequence[Asked], rule: Rule, *, noise: Mapping[str, float] | None = None
) -> tuple[tuple[float | None, ...], ...]:
    """Return per comparison and look the difference that is found by then with 80 % power, in SDs of the differences.

    Found is: different from zero with the right sign. None where nothing can be found. A ROPE counts where the noise
    is known: inside it, a difference is found too small instead.
    """
    alike = Counter(asked.metric for asked in family)
    found = []
    for asked in family:
        sd = _sd(asked, noise or {})
        rope = asked.rope / sd if sd is not None and asked.rope is not None else None
        has_floor = alike[asked.metric] >= FEWEST_FOR_A_FLOOR
        wider = correction(rule.looks[-1], rule.test_to_train)
        least = _least_differences(
            rule.looks, rule.alpha_planned, has_floor, rope / wider if rope is not None else None
        )
        found.append(tuple(each * wider if each is not None else None for each in least))
    return tuple(found)


def noise_of(plan: Plan, runs: Sequence[RecordedRun], metric: str) -> float | None:
    """Return the SD of one run that a recorded study's comparisons imply of a metric, in its unit: their median.

    None where no stable comparison has two seeds whose differences vary.
    """
    known = []
    for asked in StudyLooks.of(with_rule(plan, RuleChange(metric=metric)), runs).family:
        is_stable = asked.metric == metric and Lack.UNSTABLE not in asked.seeds
        if is_stable and (sd := sample_sd(numbers(asked.seeds))):
            known.append(sd / asked.spread)
    return float(np.median(known)) if known else None


def _sd(asked: Asked, noise: Mapping[str, float]) -> float | None:
    return noise[asked.metric] * asked.spread if asked.metric in noise else None


@lru_cache(maxsize=1024)
def _least_differences(
    looks: tuple[int, ...], alpha: float, has_floor: bool, rope: float | None
) -> tuple[float | None, ...]:
    """Return per look the difference, in SDs, that is found by then with 80 % power; `rope` is in SDs too."""
    if looks[0] == 1:
        return (None,)
    if len(looks) == 1 and rope is None and looks[0] >= (FLOORED_BELOW if has_floor else FRAGILE_BELOW):
        return (detectable_difference(1.0, looks[0], alpha=alpha),)
    limits = boundaries(looks, alpha)
    least, goes_on, found = np.full(PATHS, math.inf), np.full(PATHS, -math.inf), []
    for limit, (mean, sd) in zip(limits, _noise(looks), strict=True):
        half = limit.t * np.maximum(sd, FLOOR * (has_floor and limit.seeds < FLOORED_BELOW)) / math.sqrt(limit.seeds)
        is_mute = not has_floor and limit.seeds < FRAGILE_BELOW
        if not is_mute:
            needed = half if rope is None else np.maximum(half, rope - half)
            least = np.minimum(least, np.maximum(needed - mean, goes_on))
        found.append(_quantile(least))
        goes_on = np.maximum(goes_on, _least_that_goes_on(sd, half, limits[-1], limit.seeds, rope, is_mute) - mean)
    return tuple(found)


def _least_that_goes_on(sd: Array, half: Array, last: Boundary, seeds: int, rope: float | None, is_mute: bool) -> Array:
    """Return the mean above which a path is neither given up as futile at a look, nor found too small.

    Of a narrow window below it that goes on too, where the ROPE nearly is within reach, nothing is made.
    """
    enough = last.t * low_sd_share(seeds) * sd / math.sqrt(last.seeds)
    if rope is None:
        return enough
    return np.where(2 * enough <= rope, -math.inf if is_mute else rope - half, enough)


def _quantile(least: Array) -> float | None:
    """Return the difference that 80 % of the paths find, None where fewer find any."""
    found = float(np.partition(least, math.ceil(POWER * PATHS) - 1)[math.ceil(POWER * PATHS) - 1])
    return max(0.0, found) if math.isfinite(found) else None


@lru_cache(maxsize=4)
def _noise(looks: tuple[int, ...]) -> tuple[tuple[Array, Array], ...]:
    """Return mean and SD of standard normal noise at each look, (PATHS,) each."""
    return tuple(_paths(np.random.default_rng(SEED), looks))


def _paths(random: np.random.Generator, looks: tuple[int, ...]) -> Iterator[tuple[Array, Array]]:
    """Yield mean and SD of paths of noise at each look: of each block of new values, their mean and squares suffice."""
    state: tuple[Array, Array] = (np.zeros(PATHS), np.zeros(PATHS))
    before = 0
    for seeds in looks:
        new = seeds - before
        block = random.standard_normal(PATHS) / math.sqrt(new)
        within = random.chisquare(new - 1, PATHS) if new > 1 else 0.0
        state = merged(state, before, new, block, within)
        before = seeds
        yield state[0], np.sqrt(state[1] / (seeds - 1))
