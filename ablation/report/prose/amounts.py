"""Writes what was measured in words: amounts with their units, ranges, and names of metrics."""

from ablation.analysis.answer_records import Answer, Interval, MeasuredMetric
from ablation.report.limits import cut, reach_of
from ablation.report.numbers import decimals_for, given_difference, magnitude, scale_of, unit_of_differences

MOST_NAMED = 3
"""Runs named in a sentence; the report lists the rest."""
_WORDS = {"seconds": ("longer", "shorter")}


def difference_decimals(answer: Answer) -> int:
    """Return the decimals of every difference on an answer's metric: two digits of the metric's resolution."""
    effect, scale = answer.effect, scale_of(answer.metric.unit)
    if answer.resolution is not None:
        return decimals_for(scale * answer.resolution, [])
    if effect is None:
        return 2
    bounds = [effect.interval.low, effect.interval.high] if effect.interval else []
    return decimals_for(0.0, [scale * value for value in (effect.mean, *bounds)])


def amount(value: float, answer: Answer) -> str:
    """Return a difference without its sign, with its unit."""
    unit = answer.metric.unit
    return f"{magnitude(scale_of(unit) * value, difference_decimals(answer))} {unit_of_differences(unit)}".rstrip()


def range_text(interval: Interval, answer: Answer, *, mean: float, is_interaction: bool = False) -> str:
    """Return `0.6 to 1.8 points higher`, or `0.3 points lower to 1.8 points higher`, cut at what there can be."""
    interval = cut(interval, reach_of(answer.metric, is_interaction=is_interaction), mean=mean)
    unit, decimals = answer.metric.unit, difference_decimals(answer)
    low, high = scale_of(unit) * interval.low, scale_of(unit) * interval.high
    more, less = _WORDS.get(unit, ("higher", "lower"))
    name = f" {unit_of_differences(unit)}".rstrip()
    if low >= 0:
        return f"{magnitude(low, decimals)} to {magnitude(high, decimals)}{name} {more}"
    if high <= 0:
        return f"{magnitude(high, decimals)} to {magnitude(low, decimals)}{name} {less}"
    return f"{magnitude(low, decimals)}{name} {less} to {magnitude(high, decimals)}{name} {more}"


def rope_text(answer: Answer) -> str:
    """Return the half-width of the ROPE: `0.5 points`, `1 point`."""
    return given_difference(answer.rope or 0.0, answer.metric.unit)


def too_small_text(answer: Answer) -> str:
    """Return the ROPE in a reader's words: `too small to matter (±0.5 points)`."""
    return f"too small to matter (±{rope_text(answer)})"


def metric_noun(metric: MeasuredMetric) -> str:
    return "training time" if metric.unit == "seconds" else metric.label


def higher_or_lower(value: float, metric: MeasuredMetric) -> str:
    more, less = _WORDS.get(metric.unit, ("higher", "lower"))
    return more if value > 0 else less
