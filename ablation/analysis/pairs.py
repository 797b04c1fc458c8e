"""Judges two variants on the primary metric, at alpha over all pairs of variants that could have been asked for.

Who compares two variants has chosen them among all, mostly after the results were seen. So the family is every pair of
variants of the study, or of both studies, and each pair holds its part of alpha (Bonferroni; nothing is passed on).
Else the rule is the study's own: the boundaries of its planned looks, the floor below 8 seeds, the e-process beyond the
plan. Two samples that are not paired are judged by Welch's interval.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ablation.analysis import statistics
from ablation.analysis.answer_records import Interval, Verdict
from ablation.analysis.pairing import Pairing, Side
from ablation.analysis.sequential import FRAGILE_BELOW, Asked, Lack, Rule, judged, numbers, state_of
from ablation.analysis.verdicts import effect_of, is_meaningful, verdict_of, verdict_of_samples
from ablation.records import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """The verdict on second minus first, on the primary metric.

    `alpha` is the error rate of the whole family: all `pairs` of the variants that `family` names; `mean` and
    `interval`, at what this pair holds of alpha, are over `seeds` of either variant. `rope` is None where none is set,
    or where two studies have different ones. `is_fragile`: a difference that so few seeds cannot tell from luck.
    """

    metric: str
    verdict: Verdict
    is_meaningful: bool | None
    mean: float | None
    interval: Interval | None
    rope: float | None
    seeds: tuple[int, int]
    alpha: float
    pairs: int
    family: str
    is_fragile: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the interval of a pair showed; no mean where its runs are not all there."""

    verdict: Verdict
    seeds: tuple[int, int]
    mean: float | None = None
    interval: Interval | None = None
    is_fragile: bool = False


Pair = tuple[Side, Side]


def judged_pair(first: Side, second: Side, pairing: Pairing, *, withheld: Verdict | None) -> JudgedPair:
    """Return the verdict on two variants.

    `withheld` is the verdict where a run of either lacks or is unstable, unless an earlier look has decided.
    """
    family = list(_pairs(first, second))
    judge = _paired if pairing.is_paired else _welch
    found = judge((first, second), family, pairing)
    if withheld is not None and not found.verdict.is_decided:
        found = _Found(verdict=withheld, seeds=found.seeds)
    rope = _rope(first, second)
    return JudgedPair(
        metric=_metric(first),
        verdict=found.verdict,
        is_meaningful=is_meaningful(found.verdict, found.interval, rope),
        mean=found.mean,
        interval=found.interval,
        rope=rope,
        seeds=found.seeds,
        alpha=_alpha(first, second),
        pairs=len(family),
        family=_family_text(first, second),
        is_fragile=found.is_fragile and not found.verdict.is_decided,
    )


def _paired(pair: Pair, family: Sequence[Pair], pairing: Pairing) -> _Found:
    """Judge by the differences of the seeds that both have; the other pairs have a place in the floor alone."""
    others = (each for each in family if not _is_same(each, pair))
    asked = [_asked(pair, pairing), *(replace(_asked(each, pairing), is_dropped=True) for each in others)]
    standing = judged(asked, _rule(pair, pairing, pairs=len(family)))[0]
    values = numbers(asked[0].seeds[: standing.seeds])
    if not values:
        return _Found(verdict=Verdict.INCOMPLETE, seeds=(0, 0))
    direction = _direction(pair[0])
    ratio = pair[0].looks.rule.test_to_train
    effect = effect_of(values, direction=direction, interval=standing.interval, alpha=standing.p, test_to_train=ratio)
    return _Found(
        verdict=verdict_of(standing.state, effect, direction=direction, is_interaction=False),
        seeds=(len(values), len(values)),
        mean=effect.mean,
        interval=effect.interval,
        is_fragile=standing.is_fragile,
    )


def _asked(pair: Pair, pairing: Pairing) -> Asked:
    first, second = pair
    repeated = [side.looks.repetitions.get(side.variant.name) for side in pair]
    return Asked(
        metric=_metric(first),
        rope=_rope(first, second),
        spread=math.sqrt(2),
        seeds=[_difference(first, second, seed) for seed in pairing.seeds],
        repeated_from=min((seeds for seeds in repeated if seeds is not None), default=None),
    )


def _difference(first: Side, second: Side, seed: int) -> float | Lack:
    values = [side.looks.value(side.variant.name, seed, _metric(side)) for side in (first, second)]
    lacks = {value for value in values if isinstance(value, Lack)}
    if lacks:
        return next(lack for lack in Lack if lack in lacks)
    return statistics.without_rounding_error([float(values[1]), -float(values[0])])


def _rule(pair: Pair, pairing: Pairing, *, pairs: int) -> Rule:
    """Return the studies' rule over so many pairs: they are paired on as many seeds as any two looks have in common."""
    first, second = (side.looks for side in pair)
    if first is second:
        return replace(first.rule, planned=pairs, comparisons=pairs, gives_up=False)
    looks = {
        len({*first.seeds[:one]} & {*second.seeds[:other]}) for one in first.rule.looks for other in second.rule.looks
    }
    able = sorted(seeds for seeds in looks if seeds > 1) or [max(looks)]
    growth = (len(pairing.seeds),) if len(pairing.seeds) > able[-1] else ()
    return Rule(
        looks=tuple(able),
        growth=growth,
        alpha=_alpha(*pair),
        planned=pairs,
        comparisons=pairs,
        gives_up=False,
        test_to_train=first.rule.test_to_train,
    )


def _welch(pair: Pair, family: Sequence[Pair], pairing: Pairing) -> _Found:  # noqa: ARG001 - as `_paired`
    """Judge two samples as they stand at their last complete looks.

    Each two looks at which they could have been judged have an equal part of alpha. Seeds beyond a plan's last look
    count for nothing: no interval of two samples holds at whatever number of them somebody stops.
    """
    samples = [_sample(side) for side in pair]
    looks = math.prod(len(side.looks.rule.looks) for side in pair)
    sizes = (len(samples[0]), len(samples[1]))
    if not all(sizes):
        return _Found(verdict=Verdict.INCOMPLETE, seeds=sizes)
    interval = statistics.welch_interval(*samples, alpha=_alpha(*pair) / (len(family) * looks))
    mean = statistics.difference_of_means(*samples)
    if interval is None:
        verdict = Verdict.ONE_SEED if min(sizes) == 1 else Verdict.NO_VARIATION
        return _Found(verdict=verdict, seeds=sizes, mean=mean)
    state = state_of(interval, _rope(*pair))
    is_fragile = state is not None and min(sizes) < FRAGILE_BELOW
    return _Found(
        verdict=verdict_of_samples(None if is_fragile else state, mean, direction=_direction(pair[0])),
        seeds=sizes,
        mean=mean,
        interval=interval,
        is_fragile=is_fragile,
    )


def _sample(side: Side) -> list[float]:
    """Return what the seeds of a variant's last complete look measured."""
    found = [side.looks.value(side.variant.name, seed, _metric(side)) for seed in side.looks.seeds]
    values = [numbers(found[:seeds]) for seeds in side.looks.rule.looks]
    whole = [each for each, seeds in zip(values, side.looks.rule.looks, strict=True) if len(each) == seeds]
    return whole[-1] if whole else []


def _pairs(first: Side, second: Side) -> Iterator[Pair]:
    """Yield every pair of variants of the study, or of both."""
    sides = [first] if first.looks is second.looks else [first, second]
    every = [replace(side, variant=variant) for side in sides for variant in side.finished.plan.variants]
    return combinations(every, 2)


def _is_same(one: Pair, other: Pair) -> bool:
    names = [{(side.study, side.variant.name) for side in pair} for pair in (one, other)]
    return names[0] == names[1]


def _family_text(first: Side, second: Side) -> str:
    if first.looks is second.looks:
        return f"study {first.study}'s {len(first.finished.plan.variants)} variants"
    counts = [len(side.finished.plan.variants) for side in (first, second)]
    return f"the {counts[0]} + {counts[1]} variants of studies {first.study} and {second.study}"


def _metric(side: Side) -> str:
    return side.looks.plan.locked.metric.name


def _direction(side: Side) -> Direction:
    return side.looks.plan.locked.metric.direction


def _alpha(first: Side, second: Side) -> float:
    return min(side.looks.plan.locked.alpha for side in (first, second))


def _rope(first: Side, second: Side) -> float | None:
    ropes = {side.looks.plan.locked.metric.meaningful for side in (first, second)}
    return ropes.pop() if len(ropes) == 1 else None
