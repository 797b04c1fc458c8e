"""Finds how finely a metric's differences are worth showing: one resolution for all answers on it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median_low

from ablation.analysis.answer_records import Answer

_FINEST = 100.0
"""How much finer than the usual half-width a resolution may become to tell a bound from the ROPE, a mean from zero."""


def with_resolution(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """Return the answers with the resolution of their metric: numbers on it are shown to two digits of it.

    It is the median half-width of the metric's intervals (without intervals, of its SDs), and smaller where a bound
    would be rounded onto zero or the ROPE, which it lies beside, or a mean onto zero. None without intervals and SDs.
    """
    found = {name: _resolution([each for each in answers if each.metric.name == name]) for name in _names(answers)}
    return tuple(replace(answer, resolution=found[answer.metric.name]) for answer in answers)


def _names(answers: Iterable[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.metric.name for answer in answers))


def _resolution(answers: Sequence[Answer]) -> float | None:
    effects = [answer.effect for answer in answers if answer.effect is not None]
    widths = [width for each in effects if each.interval and (width := each.interval.high / 2 - each.interval.low / 2)]
    widths = widths or [each.sd for each in effects if each.sd]
    if not widths:
        return None
    usual = median_low(widths)
    # A step is at most a tenth of the resolution, and rounding moves a number by half a step at most: it stays
    # on its side.
    gaps = [10 * gap for answer in answers for gap in _gaps(answer)]
    return max(min([usual, *gaps]), usual / _FINEST)


def _gaps(answer: Answer) -> list[float]:
    """Return how far the bounds are from what they are compared with, and the mean from half a step."""
    if answer.effect is None:
        return []
    mean = [2 * abs(answer.effect.mean)] if answer.effect.mean else []
    if answer.effect.interval is None:
        return mean
    bounds = (answer.effect.interval.low, answer.effect.interval.high)
    limits = (0.0, *((answer.rope, -answer.rope) if answer.rope else ()))
    return [*mean, *(gap for bound in bounds for limit in limits if (gap := abs(bound - limit)))]
