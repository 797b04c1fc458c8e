"""Says what was found: the difference, its size, and what a few seeds may owe to luck."""

from statistics import fmean

from ablation.analysis.answer_records import Answer, Verdict
from ablation.records import DATA, SIGNS
from ablation.report.limits import reach_of
from ablation.report.names import place_text
from ablation.report.numbers import level_percent, scale_of, signed, unit_of_differences
from ablation.report.prose.amounts import (
    MOST_NAMED,
    amount,
    difference_decimals,
    higher_or_lower,
    metric_noun,
    range_text,
    rope_text,
    too_small_text,
)
from ablation.study.level_names import level_text


def finding(answer: Answer) -> str:
    effect = answer.effect
    assert effect is not None
    noun = metric_noun(answer.metric)
    if effect.mean == 0:
        found = f"{noun} is the same" if not answer.is_interaction else f"{noun} is exactly the sum of both effects"
    else:
        found = f"{noun} is {amount(effect.mean, answer)} {higher_or_lower(effect.mean, answer.metric)}"
        found += " than the sum of both effects" if answer.is_interaction else ""
    found += " on average" if answer.is_crossover else ""
    if answer.is_identical:
        repeated = f" {_no_variation(answer)}" if answer.repeated_seeds else ""
        return f"{found} in every seed; both gave identical results: does this factor reach the model?{repeated}"
    if answer.verdict is Verdict.ONE_SEED:
        return f"{found} in the one seed there is; with one run per variant, noise cannot be estimated."
    if answer.verdict is Verdict.NO_VARIATION:
        return f"{found} in the mean, without an interval. {_no_variation(answer)}"
    if not answer.look.seeds:
        return f"{found} in the mean, {_wins(answer)}."
    if effect.interval is None:
        few = f"{effect.n} seeds are too few for an interval that holds however many are added"
        return f"{found} in the mean, {_wins(answer)}; {few}."
    shown = range_text(effect.interval, answer, mean=effect.mean, is_interaction=answer.is_interaction)
    return f"{found} ({level_percent(effect.interval.level)} interval: {shown}), {_wins(answer)}."


def over_data(answer: Answer) -> str:
    """Say over which data sets an answer is averaged, and what was found on each."""
    names = answer.averaged_over.get(DATA, ())
    if len(names) < 2:
        return ""
    found = [[effect.mean for effect in answer.simple_effects if effect.at.get(DATA) == name] for name in names]
    if answer.is_interaction or not all(found):
        return f"Averaged over the data sets {', '.join(map(level_text, names))}."
    scale, decimals = scale_of(answer.metric.unit), difference_decimals(answer)
    each = [
        f"{signed(scale * fmean(means), decimals)} on {level_text(name)}"
        for name, means in zip(names, found, strict=True)
    ]
    unit = f" {unit_of_differences(answer.metric.unit)}".rstrip()
    return f"Averaged over {len(names)} data sets{unit and ', in' + unit}: {', '.join(each)}."


def place(answer: Answer) -> str:
    """Say at which one combination of the other factors' levels all was seen, where there is but one."""
    if len(answer.combinations) != 1:
        return ""
    levels = {factor: level for factor, level in answer.combinations[0].items() if factor not in answer.at}
    if len(levels) > MOST_NAMED:
        return f"Seen only at one combination of the other {len(levels)} factors' levels."
    return f"Seen only {place_text(levels)}." if levels else ""


def _wins(answer: Answer) -> str:
    assert answer.effect is not None
    wins, mean = answer.effect.wins, answer.effect.mean
    ties = f", tied in {wins.ties}" if wins.ties else ""
    if not answer.is_interaction:
        return f"better in {wins.wins} of {wins.n} seeds{ties}"
    is_win = SIGNS[answer.metric.direction] * mean > 0  # more or less than a sum is neither good nor bad
    count = wins.wins if is_win else wins.n - wins.wins - wins.ties
    side = higher_or_lower(mean, answer.metric)
    return f"{side} in {count} of {wins.n} seeds{ties}"


def _no_variation(answer: Answer) -> str:
    if answer.repeated_seeds:
        seeds = ", ".join(map(str, answer.repeated_seeds))
        return f"Seeds {seeds} repeat each other in every number, so they are no repetitions; see what the seed draws."
    return "The difference is identical in every seed, so there is no estimate of noise."


def size(answer: Answer) -> str:
    effect = answer.effect
    assert effect is not None
    if effect.interval is None:
        return ""
    if answer.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE:
        only = "There is a difference, but the" if effect.interval.sign else "The"
        of = " of the average" if answer.is_crossover else ""
        return f"{only} whole interval{of} is {too_small_text(answer)}."
    if answer.look.is_fragile:
        return ""
    if answer.rope is None:
        return "No difference that matters is named for this metric, so size is not judged."
    if answer.verdict.is_left_open:
        return f"Too uncertain: it could be nothing, or more than {rope_text(answer)}."
    if answer.is_meaningful:
        return f"Meaningfully: the whole interval is beyond the {rope_text(answer)} {_matters(answer)}."
    return f"Possibly {too_small_text(answer)}: the interval is not all beyond that."


def _matters(answer: Answer) -> str:
    return "that matters" if rope_text(answer).startswith("1 ") else "that matter"


def luck(answer: Answer) -> str:
    """Say what a few seeds that happen to agree are not taken for."""
    effect = answer.effect
    if effect is None or effect.interval is None:
        return ""
    if answer.look.is_fragile:
        return f"Fragile: {effect.n} seeds are too few to tell luck from effect."
    if answer.look.is_floored:
        return (
            f"These {effect.n} seeds agree by less than half of what the other comparisons imply, so the interval "
            "takes that half for their spread."
        )
    return ""


def few_seeds(answer: Answer) -> str:
    effect = answer.effect
    if effect is None or effect.n > 3 or effect.detectable is None or not effect.sd:
        return ""
    if effect.detectable >= reach_of(answer.metric, is_interaction=answer.is_interaction):
        return f"With {effect.n} seeds no difference that there can be is found in 80 % of repetitions."
    least = amount(effect.detectable, answer)
    if not answer.look.is_floored:
        least = f"{effect.detectable / effect.sd:.1f} SD ({least})"
    return f"With {effect.n} seeds only a difference of {least} is found in 80 % of repetitions."
