"""Cuts what is shown at what a metric can reach; the recorded intervals, and the verdicts by them, are uncut."""

import math
from collections.abc import Sequence
from dataclasses import replace

from ablation.analysis.answer_records import Answer, Interval, MeasuredMetric
from ablation.report.numbers import scale_of

_WIDTHS = {"fraction": 1.0, "percent": 100.0}
_WIDTHS_BY_NAME = {"test_brier_score": 2.0}
"""How far apart two values of a metric can be, by its unit or name; any distance of the others."""
_ENDS = {
    "fraction": (0.0, 1.0),
    "percent": (0.0, 100.0),
    "nats": (0.0, math.inf),
    "bits": (0.0, math.inf),
    "seconds": (0.0, math.inf),
}
"""The least and the largest value that there is of a unit, of a metric's own values."""


def reach_of(metric: MeasuredMetric, *, is_interaction: bool = False) -> float:
    """Return the largest difference that there can be of a metric; an interaction is a difference of two of them."""
    reach = _WIDTHS_BY_NAME.get(metric.name, _WIDTHS.get(metric.unit, math.inf))
    return 2 * reach if is_interaction else reach


def cut(interval: Interval, reach: float, *, mean: float) -> Interval:
    """Return the part of a difference's interval that can be; all of it where the mean itself is beyond reach.

    A user's function may return what it likes under the name of a metric.
    """
    if abs(mean) > reach:
        return interval
    return replace(interval, low=max(interval.low, -reach), high=min(interval.high, reach))


def shown_interval(answer: Answer) -> Interval | None:
    """Return an answer's interval as it is shown, None where it has none."""
    effect = answer.effect
    if effect is None or effect.interval is None:
        return None
    return cut(effect.interval, reach_of(answer.metric, is_interaction=answer.is_interaction), mean=effect.mean)


def named_values(ticks: Sequence[float], values: Sequence[float], unit: str) -> tuple[float, ...]:
    """Return the ticks of a scale without those that no value of this unit can have; all where values are beyond."""
    low, high = (scale_of(unit) * end for end in _ENDS.get(unit, (-math.inf, math.inf)))
    is_within = low <= min(values) and max(values) <= high
    return tuple(tick for tick in ticks if low <= tick <= high) if is_within else tuple(ticks)
