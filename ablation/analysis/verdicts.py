"""Puts how a comparison stands into its numbers and its verdict."""

from collections.abc import Sequence

from ablation.analysis import statistics
from ablation.analysis.answer_records import Effect, Interval, Verdict, Wins
from ablation.analysis.sequential import Rule, State
from ablation.records import SIGNS, Direction

_FOUND = {False: (Verdict.HELPS, Verdict.HURTS), True: (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM)}
"""The verdicts on a difference, for the better and for the worse, of an effect and of an interaction."""
_STATES = {
    State.OPEN: Verdict.UNDECIDED,
    State.FUTILE: Verdict.UNDECIDED,
    State.ENDED: Verdict.UNDECIDED,
    State.PAUSED: Verdict.INCOMPLETE,
    State.UNSTABLE: Verdict.UNSTABLE,
    State.TOO_SMALL: Verdict.NO_MEANINGFUL_DIFFERENCE,
    State.NO_VARIATION: Verdict.NO_VARIATION,
}


def verdict_of(state: State, effect: Effect, *, direction: Direction, is_interaction: bool) -> Verdict:
    """Return the verdict on an effect; without an estimate of noise there is none."""
    if state is State.OUT_OF_BUDGET and (effect.e_value is not None or effect.n == 1):
        return Verdict.OUT_OF_BUDGET
    if effect.e_value is None:
        return Verdict.ONE_SEED if effect.n == 1 else Verdict.NO_VARIATION
    if state is not State.DIFFERENT:
        return _STATES[state]
    return _found(effect.mean, direction, is_interaction=is_interaction)


def verdict_of_samples(state: State | None, mean: float, *, direction: Direction) -> Verdict:
    """Return the verdict on the means of two samples that are not paired; None is undecided."""
    if state is State.DIFFERENT:
        return _found(mean, direction, is_interaction=False)
    return Verdict.UNDECIDED if state is None else _STATES[state]


def _found(mean: float, direction: Direction, *, is_interaction: bool) -> Verdict:
    better, worse = _FOUND[is_interaction]
    return better if SIGNS[direction] * mean > 0 else worse


def is_meaningful(verdict: Verdict, interval: Interval | None, rope: float | None) -> bool | None:
    """Whether a difference that was found surely is as large as matters; None where that is not judged."""
    if interval is None or rope is None or verdict not in (*_FOUND[False], *_FOUND[True]):
        return None
    return interval.low > rope or interval.high < -rope


def effect_of(
    differences: Sequence[float],
    *,
    direction: Direction,
    interval: Interval | None,
    alpha: float | None,
    least_sd: float = 0.0,
    test_to_train: float = 0.0,
) -> Effect:
    """Return the paired differences in numbers, with the interval that they were judged by.

    `alpha` is that of their t test, None where that decides nothing; `least_sd` the floor of their SD. `test_to_train`
    is that of folds, see `statistics.correction`.

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
        interval=interval if sd else None,
        e_value=statistics.e_value(differences),
        detectable=statistics.detectable_difference(
            max(sd, least_sd) * statistics.correction(n, test_to_train), n, alpha=alpha
        )
        if sd and alpha
        else None,
        skewness=statistics.skewness(differences),
        wins=wins_of(differences, direction),
    )


def earlier_verdict(
    differences: Sequence[float],
    rule: Rule,
    *,
    rope: float | None,
    direction: Direction,
    is_interaction: bool,
) -> Verdict | None:
    """Return the verdict of the versions before planned looks; None where they gave none.

    They judged by the paired t interval at alpha / m, and grown studies by an e-value above m / alpha.
    """
    interval = statistics.interval_at(differences, alpha=rule.alpha / rule.comparisons)
    if interval is None:
        return None
    if not rule.growth and rope is not None and -rope <= interval.low and interval.high <= rope:
        return Verdict.NO_MEANINGFUL_DIFFERENCE
    evidence = statistics.e_value(differences) or 0.0
    is_found = evidence > rule.comparisons / rule.alpha if rule.growth else bool(interval.sign)
    if not is_found:
        return Verdict.UNDECIDED
    return _found(statistics.mean_of(differences), direction, is_interaction=is_interaction)


def wins_of(differences: Sequence[float], direction: Direction) -> Wins:
    """Return in how many of the seeds the change was for the better."""
    sign = SIGNS[direction]
    wins, ties, n = (
        sum(sign * value > 0 for value in differences),
        sum(not value for value in differences),
        len(differences),
    )
    return Wins(wins=wins, ties=ties, n=n, share=statistics.share_interval(wins, n))
