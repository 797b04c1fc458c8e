"""Judges paired differences: the numbers of an effect, its verdict, and the seeds that would decide it."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.analysis import statistics
from ablation.analysis.answer_records import Effect, SeedsNeeded, Verdict, Wins
from ablation.records import SIGNS, Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How the family is judged: its error rate, its number of contrasts, and whether seeds were added later."""

    alpha: float
    comparisons: int
    is_grown: bool

    @property
    def alpha_each(self) -> float:
        return self.alpha / self.comparisons

    @property
    def decisive_e_value(self) -> float:
        return self.comparisons / self.alpha


def judge(
    effect: Effect, *, direction: Direction, rope: float | None, rule: Rule, is_interaction: bool
) -> tuple[Verdict, bool | None]:
    """Return the verdict on an effect that has an interval, and whether it surely is as large as matters.

    The size is None where it isn't judged: no ROPE, no difference found, or a study that grew.
    """
    if effect.interval is None:
        return (Verdict.ONE_SEED if effect.n == 1 else Verdict.NO_VARIATION), None
    low, high = effect.interval.low, effect.interval.high
    if rope is not None and not rule.is_grown and -rope <= low and high <= rope:
        return Verdict.NO_MEANINGFUL_DIFFERENCE, None
    is_found = _exceeds(effect.e_value, rule.decisive_e_value) if rule.is_grown else low > 0 or high < 0
    if not is_found:
        return Verdict.UNDECIDED, None
    is_better = SIGNS[direction] * effect.mean > 0
    better, worse = (
        (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM) if is_interaction else (Verdict.HELPS, Verdict.HURTS)
    )
    is_meaningful = None if rope is None or rule.is_grown else low > rope or high < -rope
    return (better if is_better else worse), is_meaningful


def effect_of(differences: Sequence[float], *, direction: Direction, rule: Rule) -> Effect:
    """Return the paired differences in numbers.

    Raises:
        ValueError: there are none.
    """
    if not differences:
        raise ValueError("an effect needs at least one difference")
    n, sd = len(differences), statistics.sample_sd(differences)
    return Effect(
        n=n,
        mean=statistics.mean_of(differences),
        sd=sd,
        interval=statistics.paired_interval(differences, level=1 - rule.alpha_each),
        e_value=statistics.e_value(differences),
        detectable=statistics.detectable_difference(sd, n, alpha=rule.alpha_each) if sd else None,
        skewness=statistics.skewness(differences),
        wins=wins_of(differences, direction),
    )


def seeds_needed(effect: Effect, rope: float | None, rule: Rule) -> SeedsNeeded:
    """Return how many seeds more decide, for the least and the largest SD of its 95 % range."""
    totals = [_seeds_in_all(effect.mean, sd, rope, rule) for sd in statistics.sd_range(effect.sd or 0.0, effect.n)]
    fewest, most = (None if total is None else max(1, total - effect.n) for total in totals)
    return SeedsNeeded(fewest=fewest, most=most)


def _exceeds(value: float | None, threshold: float) -> bool:
    return value is not None and value > threshold


def _seeds_in_all(mean: float, sd: float, rope: float | None, rule: Rule) -> int | None:
    if rule.is_grown:
        return statistics.seeds_for_e_value(mean, sd, threshold=rule.decisive_e_value)
    found = [statistics.seeds_for_power(mean, sd, alpha=rule.alpha_each)]
    if rope is not None:
        found.append(statistics.seeds_for_width(rope, sd, alpha=rule.alpha_each))
    return min((seeds for seeds in found if seeds is not None), default=None)


def wins_of(differences: Sequence[float], direction: Direction) -> Wins:
    """Return in how many seeds the change was for the better."""
    sign = SIGNS[direction]
    wins, ties, n = (
        sum(sign * value > 0 for value in differences),
        sum(not value for value in differences),
        len(differences),
    )
    return Wins(wins=wins, ties=ties, n=n, share=statistics.share_interval(wins, n))
