"""Says what an answer must not be read without: effects that turn round, and other metrics that got worse."""

from ablation.analysis.answer_records import Answer, SimpleEffect, WorseMetric
from ablation.analysis.caveats import effect_sign
from ablation.report.limits import cut, reach_of
from ablation.report.names import factors_text, place_text, setting_text
from ablation.report.numbers import differences_text, scale_of, signed, unit_of_differences
from ablation.report.prose.amounts import MOST_NAMED, difference_decimals, metric_noun, range_text


def differs_text(answer: Answer) -> str:
    """Return `differs by depth: +3.0 points at 2, −3.0 at 3`: the effects that surely go one way or the other."""
    shown = _surest(answer)
    factors = _differing(answer)
    scale = scale_of(answer.metric.unit)
    sizes = [signed(scale * each.mean, difference_decimals(answer)) for each in shown]
    sizes[0] = f"{sizes[0]} {unit_of_differences(answer.metric.unit)}".rstrip()
    effects = (f"{size} {setting_text(each.at, factors)}" for size, each in zip(sizes, shown, strict=True))
    return f"differs by {factors_text(factors)}: {', '.join(effects)}"


def crossover(answer: Answer) -> str:
    """Say how large the effects of a crossover are; descriptive."""
    if not answer.is_crossover:
        return ""
    ranges = (
        f"{range_text(each.interval, answer, mean=each.mean)} {place_text(each.at)}"
        for each in _surest(answer)
        if each.interval is not None
    )
    return f"Each by itself (95 %, unadjusted): {', '.join(ranges)}; the average says little."


def worse_text(answer: Answer) -> str:
    """Return `, but test loss is worse` for a headline, or nothing."""
    if not answer.worse:
        return ""
    names = [metric_noun(each.metric) for each in answer.worse[:MOST_NAMED]]
    more = [f"{len(answer.worse) - MOST_NAMED} more metrics"] if len(answer.worse) > MOST_NAMED else []
    *first, last = [*names, *more]
    named = f"{', '.join(first)} and {last}" if first else last
    return f", but {named} {'are' if first else 'is'} worse"


def but(answer: Answer) -> str:
    """Say by how much other metrics are surely worse where the answer is that the change helps."""
    if not answer.worse:
        return ""
    found = "; ".join(map(_worse, answer.worse[:MOST_NAMED]))
    return f"But: {found}."


def _worse(found: WorseMetric) -> str:
    metric, difference = found.metric, found.difference
    shown = cut(difference.interval, reach_of(metric), mean=difference.mean) if difference.interval else None
    mean, *bounds = differences_text([difference.mean, *([shown.low, shown.high] if shown else [])], metric.unit)
    interval = f" (95 %: {bounds[0]} to {bounds[1]})" if bounds else " in every seed"
    return f"{metric_noun(metric)} is worse, {mean} {unit_of_differences(metric.unit)}".rstrip() + interval


def _surest(answer: Answer) -> list[SimpleEffect]:
    """Return the effects that surely go one way or the other; of many, the two that are furthest apart."""
    found = [effect for effect in answer.simple_effects if effect_sign(effect, answer.rope)]
    if len(found) <= MOST_NAMED:
        return found
    return [pick(found, key=lambda effect: effect.mean) for pick in (max, min)]


def _differing(answer: Answer) -> list[str]:
    """Return the factors that the settings differ in."""
    first = answer.simple_effects[0].at
    return [factor for factor in first if any(each.at.get(factor) != first[factor] for each in answer.simple_effects)]
