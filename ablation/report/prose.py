"""Turns answers into sentences: every word that judges or orders is chosen by the number or verdict beside it."""

from collections.abc import Sequence

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import (
    FAILED,
    NOT_ENDED,
    Answer,
    Interval,
    Look,
    MeasuredMetric,
    MissingRun,
    SimpleEffect,
    Verdict,
)
from ablation.analysis.sequential import GROWTH_SHARE, State
from ablation.output import last_line
from ablation.records import same_starts_text
from ablation.report.names import are_parts, baseline_text, change_text, comparison_text, levels_text, place_text
from ablation.report.numbers import (
    brief,
    count_text,
    decimals_for,
    duration_text,
    level_percent,
    magnitude,
    ratio_text,
    scale_of,
    unit_of_differences,
    value_text,
)
from ablation.study.spec import OTHERS

_WORDS = {"seconds": ("longer", "shorter")}
_MOST_NAMED = 3
_LONGEST_ERROR = 160


def overview(analysis: Analysis) -> tuple[str, str, str]:
    """Return three lines that stand alone: what was decided, against what, and whether all runs are there."""
    return _decisions(analysis), _comparison(analysis), _runs_line(analysis)


def headline(answer: Answer) -> str:
    """Return the beginning of the answer's sentence: what was changed, where alone it was asked, and the verdict."""
    on = "" if answer.is_primary else f" ({_noun(answer.metric)})"
    words = _VERDICT_WORDS[answer.verdict]
    together = " together" if are_parts(answer) and words.startswith(",") else ""
    return f"{comparison_text(answer, joined=' and ')}{together}{words}{on}"


def sentence(answer: Answer) -> str:
    """Return the answer in words, from its numbers and verdict alone; it begins with its headline."""
    if answer.verdict is Verdict.INCOMPLETE:
        parts = [_incomplete(answer)]
    elif answer.verdict is Verdict.UNSTABLE:
        parts = [_unstable(answer)]
    else:
        parts = [
            _finding(answer),
            _place(answer),
            _size(answer),
            _luck(answer),
            _look(answer),
            _growth(answer),
            _simple(answer),
        ]
        parts += [_few_seeds(answer), _since(answer), _next(answer), _timing(answer), _cost(answer)]
    return f"{headline(answer)}: " + " ".join(part for part in parts if part)


def difference_decimals(answer: Answer) -> int:
    """Return the decimals of everything said of an answer: two digits of its interval, and no false zero."""
    effect, scale = answer.effect, scale_of(answer.metric.unit)
    if effect is None:
        return 2
    bounds = [effect.interval.low, effect.interval.high] if effect.interval else []
    half_width = effect.interval.high / 2 - effect.interval.low / 2 if effect.interval else effect.sd
    return decimals_for(scale * (half_width or 0.0), [scale * value for value in (effect.mean, *bounds)])


def amount(value: float, answer: Answer) -> str:
    """Return a difference without its sign, with its unit."""
    unit = answer.metric.unit
    decimals = difference_decimals(answer)
    if decimals >= 0 and value:  # they are negative where numbers are too large to be written out
        decimals = max(decimals, decimals_for(None, [scale_of(unit) * value]))
    return f"{magnitude(scale_of(unit) * value, decimals)} {unit_of_differences(unit)}".rstrip()


def range_text(interval: Interval, answer: Answer) -> str:
    """Return `0.6 to 1.8 points higher`, or `0.3 points lower to 1.8 points higher`."""
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
    unit = answer.metric.unit
    number, noun = brief(scale_of(unit) * (answer.rope or 0.0)), unit_of_differences(unit)
    is_plural = number != "1" or noun == "s"  # seconds
    return f"{number} {noun if is_plural else noun.removesuffix('s')}".rstrip()


def seeds_text(answer: Answer) -> str:
    """Return how many seeds more: `4 to 35`, or nothing where that was not asked."""
    needed = answer.seeds_needed
    if needed is None:
        return ""
    if needed.fewest is None:
        return "more than 10,000"
    if needed.most is None:
        return f"{needed.fewest:,} to more than 10,000"
    return f"{needed.fewest:,} to {needed.most:,}" if needed.fewest != needed.most else f"{needed.fewest:,}"


_VERDICT_WORDS = {
    Verdict.HELPS: " helps",
    Verdict.HURTS: " hurts",
    Verdict.BETTER_THAN_SUM: " do better together than the sum of both",
    Verdict.WORSE_THAN_SUM: " do worse together than the sum of both",
    Verdict.NO_MEANINGFUL_DIFFERENCE: ", no meaningful difference",
    Verdict.UNDECIDED: ", undecided",
    Verdict.INCOMPLETE: ", incomplete",
    Verdict.UNSTABLE: ", unstable",
    Verdict.ONE_SEED: ", one seed, no verdict",
    Verdict.NO_VARIATION: ", no variation, no verdict",  # of the difference, though each variant's seeds may vary
}


def _decisions(analysis: Analysis) -> str:
    answers = analysis.answers
    decided = [answer for answer in answers if answer.verdict.is_decided]
    others = [verdict for verdict in Verdict if not verdict.is_decided]
    counts = [(sum(answer.verdict is verdict for answer in answers), verdict) for verdict in others]
    named = "; ".join(
        [
            *map(headline, decided),
            *(f"{count}{_VERDICT_WORDS[verdict].lstrip(',')}" for count, verdict in counts if count),
        ]
    )
    rate = level_percent(analysis.alpha)
    if analysis.is_extended:
        rate = f"at most {level_percent(analysis.alpha * (1 + GROWTH_SHARE))}"
    return f"{len(decided)} of {len(answers)} comparisons decided (family-wise error rate {rate}): {named}."


def _comparison(analysis: Analysis) -> str:
    baseline = next(row for row in analysis.variants if row.is_baseline)
    spread = baseline.spreads.get(analysis.metric.name)
    if spread is None:
        return f"Compared with {baseline_text(analysis)}, which has no finished run."
    reached = f"a mean {_noun(analysis.metric)} of {value_text(spread.mean, analysis.metric.unit)}"
    over = f"{spread.n} seed{'s' if spread.n != 1 else ''}"
    return f"Compared with {baseline_text(analysis)}, which has {reached} over {over}."


def _runs_line(analysis: Analysis) -> str:
    found = analysis.diagnostics
    counts = [
        (sum(run.reason == "failed" for run in found.missing), "failed"),
        (sum(run.reason != "failed" for run in found.missing), "without a result"),
        (len(found.diverged), "diverged"),
        (len(found.collapsed), "collapsed"),
    ]
    bad = ", ".join(f"{count} {what}" for count, what in counts if count)
    planned = f"{analysis.planned_runs} planned runs"
    saved = analysis.most_runs - analysis.planned_runs
    ends = "diverged or collapsed" if analysis.data.classes else "diverged"
    runs = f"Of {planned}: {bad}." if bad else f"All {planned} are done, and none {ends}."
    if saved:
        runs += f" So far {analysis.planned_runs} of at most {analysis.most_runs} runs were needed."
    if any(equal.is_sure for equal in found.equal_seeds):
        runs += " Some seeds repeat each other in every number: they are no repetitions."
    elif found.equal_seeds:
        runs += " Some variants gave the same result with every seed: does the seed reach the training?"
    if found.same_starts:
        runs += f" {same_starts_text(found.same_starts)}."
    number = len(analysis.deviations)
    return runs + (f" {number} deviation{'s' if number > 1 else ''} from the locked plan." if number else "")


def _noun(metric: MeasuredMetric) -> str:
    return "training time" if metric.unit == "seconds" else metric.label


def _word(value: float, metric: MeasuredMetric) -> str:
    more, less = _WORDS.get(metric.unit, ("higher", "lower"))
    return more if value > 0 else less


def _finding(answer: Answer) -> str:
    effect = answer.effect
    assert effect is not None
    noun = _noun(answer.metric)
    if effect.mean == 0:
        found = f"{noun} is the same" if not answer.is_interaction else f"{noun} is exactly the sum of both effects"
    else:
        found = f"{noun} is {amount(effect.mean, answer)} {_word(effect.mean, answer.metric)}"
        found += " than the sum of both effects" if answer.is_interaction else ""
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
    interval = f"{level_percent(effect.interval.level)} interval: {range_text(effect.interval, answer)}"
    return f"{found} ({interval}), {_wins(answer)}."


def _place(answer: Answer) -> str:
    """Say at which one combination of the other factors' levels all was seen, where there is but one."""
    if len(answer.combinations) != 1:
        return ""
    levels = {factor: level for factor, level in answer.combinations[0].items() if factor not in answer.at}
    if len(levels) > _MOST_NAMED:
        return f"Seen only at one combination of the other {len(levels)} factors' levels."
    return f"Seen only {place_text(levels)}." if levels else ""


def _wins(answer: Answer) -> str:
    assert answer.effect is not None
    wins = answer.effect.wins
    ties = f", tied in {wins.ties}" if wins.ties else ""
    return f"better in {wins.wins} of {wins.n} seeds{ties}"


def _no_variation(answer: Answer) -> str:
    if answer.repeated_seeds:
        seeds = ", ".join(map(str, answer.repeated_seeds))
        return f"Seeds {seeds} repeat each other in every number, so they are no repetitions; see what the seed draws."
    return "The difference is identical in every seed, so there is no estimate of noise."


def _size(answer: Answer) -> str:
    effect = answer.effect
    assert effect is not None
    if effect.interval is None:
        return ""
    if answer.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE:
        is_found = effect.interval.low > 0 or effect.interval.high < 0
        only = "There is a difference, but the" if is_found else "The"
        return f"{only} whole interval is within ±{rope_text(answer)}, too small to matter."
    if answer.look.is_fragile:
        return ""
    if answer.rope is None:
        return "No difference that matters is named for this metric, so size is not judged."
    if answer.verdict is Verdict.UNDECIDED:
        return f"Too uncertain: it could be nothing, or more than {rope_text(answer)}."
    if answer.is_meaningful:
        return f"Meaningfully: the whole interval is beyond the {rope_text(answer)} {_matters(answer)}."
    return f"Possibly too small to matter: the interval is not all beyond {rope_text(answer)}."


def _matters(answer: Answer) -> str:
    return "that matters" if rope_text(answer).startswith("1 ") else "that matter"


def _luck(answer: Answer) -> str:
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


def _look(answer: Answer) -> str:
    """Say at which of several looks the answer was decided or given up."""
    look = answer.look
    if not look.seeds and answer.verdict.is_judged:
        return f"There is no interval yet: comparisons are judged together, first with {look.looks[0]} seeds."
    if len(look.looks) == 1 or answer.is_grown or not answer.verdict.is_judged:
        return ""
    of = f"look {look.number} of {len(look.looks)}, {look.seeds} seeds"
    if answer.verdict.is_decided:
        return f"Decided at {of}."
    if look.state == State.FUTILE:
        return f"Stopped at {of}: not decidable within the plan's {look.looks[-1]}."
    if look.next is not None and look.next > look.looks[-1]:
        return f"Judged last at {of}."
    return f"Open after {of}."


def _growth(answer: Answer) -> str:
    effect = answer.effect
    if not answer.is_grown or effect is None or effect.e_value is None:
        return ""
    came = "It was added after results could be seen" if answer.look.is_added else "Seeds were added beyond the plan"
    needed = f"the {answer.decisive_e_value:,.4g} needed"
    if effect.e_value > answer.decisive_e_value:
        found = f"{effect.e_value:.3g}, above {needed}"
    elif answer.verdict.is_decided and answer.verdict is not Verdict.NO_MEANINGFUL_DIFFERENCE:
        found = f"with fewer seeds it was above {needed}, and is {effect.e_value:.3g} now"
    else:
        found = f"{effect.e_value:.3g}, not above {needed}"
    return f"{came}, so the e-value decides: {found}."


def _since(answer: Answer) -> str:
    """Say what came after the look that decided, and what versions before planned looks said."""
    said = []
    if (later := answer.look.later_unstable) and answer.verdict.is_judged:
        number = len(later)
        runs = "a later run" if number == 1 else f"{count_text(number)} later runs"
        said.append(f"Since then {runs} diverged or collapsed ({_few(later)}), which changes no verdict.")
    if answer.earlier_verdict is not None:
        said.append(f"Versions before planned looks called this “{answer.earlier_verdict}”.")
    return " ".join(said)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _simple(answer: Answer) -> str:
    """Say what the second change of an interaction does at either level of the first."""
    if not answer.is_interaction or not answer.simple_effects:
        return ""
    found = ", ".join(_simple_text(simple, answer) for simple in answer.simple_effects)
    change = change_text(answer.changes[1])
    if answer.changes[0].factor == OTHERS:
        return f"{change[:1].upper()}{change[1:]}: {found}; the difference is the gap between the two."
    return f"{change} alone: {found}."


def _simple_text(simple: SimpleEffect, answer: Answer) -> str:
    at = place_text(simple.at)
    if simple.mean == 0:
        return f"no change {at}"
    return f"{amount(simple.mean, answer)} {_word(simple.mean, answer.metric)} {at}"


def _few_seeds(answer: Answer) -> str:
    effect = answer.effect
    if effect is None or effect.n > 3 or effect.detectable is None or not effect.sd:
        return ""
    least = amount(effect.detectable, answer)
    if not answer.look.is_floored:
        least = f"{effect.detectable / effect.sd:.1f} SD ({least})"
    return f"With {effect.n} seeds only a difference of {least} is found in 80 % of repetitions."


def _next(answer: Answer) -> str:
    look = answer.look
    if look.state == State.OPEN and answer.verdict is Verdict.UNDECIDED:
        return _next_look(look)
    seeds = seeds_text(answer)
    if not seeds:
        return ""
    gain = f"would bring the e-value above {answer.decisive_e_value:,.4g} if the difference stays as it is"
    time = f", {duration_text(answer.seconds_per_seed)} of training each" if answer.seconds_per_seed else ""
    return f"Next: {seeds} more seed{'s' if seeds != '1' else ''} beyond the plan{time}, {gain}."


def _next_look(look: Look) -> str:
    if look.next is None:
        return "The seeds that would judge it next are not asked for, so it stays open."
    of = f"the look at {look.next} seeds" if look.next <= look.looks[-1] else f"{look.next} seeds, beyond the plan"
    return f"Next: {of}; the same command resumes."


def _timing(answer: Answer) -> str:
    if answer.metric.unit != "seconds" or not answer.is_timed_apart:
        return ""
    return "The runs were timed on different hosts or devices, which this difference may come from."


def _cost(answer: Answer) -> str:
    cost = answer.cost
    if cost is None:
        return ""
    ratios = (("parameters", cost.parameters), ("FLOPs", cost.flops), ("training time", cost.seconds))
    known = [f"{what} {ratio_text(ratio)}" for what, ratio in ratios if ratio is not None]
    if cost.is_time_unclear:
        known.append("training time differs less than it varies")
    return f"Cost: {', '.join(known)}." if known else ""


def _incomplete(answer: Answer) -> str:
    missing = answer.missing
    named = "; ".join(map(_missing_text, missing[:_MOST_NAMED]))
    more = f"; and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    besides = f" Besides, {len(answer.instability.runs)} diverged or collapsed." if answer.instability else ""
    which = "a run it needs has" if len(missing) == 1 else f"{count_text(len(missing))} runs it needs have"
    return f"{which} no result ({named}{more}), so no difference is given.{besides} Next: {_mending(missing)}."


def _missing_text(run: MissingRun) -> str:
    """Name a run and why it has no result, with the last line of its error."""
    error = last_line(run.error, longest=_LONGEST_ERROR)
    return f"{run.variant}/seed-{run.seed} {run.reason}" + (f": {error}" if error else "")


def _mending(missing: Sequence[MissingRun]) -> str:
    """Say what brings the results: each kind of lack has a way of its own."""
    reasons = [run.reason for run in missing]
    failed, not_ended = reasons.count(FAILED), reasons.count(NOT_ENDED)
    steps = []
    if failed:
        steps.append("fix what failed; the same command with --retry-failed trains it again")
    if failed + not_ended < len(reasons):
        steps.append("delete in MLflow the runs that lack the metric; the same command records them again")
    if not_ended:
        steps.append("the same command trains what has not ended")
    return "; ".join(steps)


def _unstable(answer: Answer) -> str:
    return f"{_rates(answer)}. Means are not compared. Next: see why these runs ended so before comparing the rest."


def _rates(answer: Answer) -> str:
    instability = answer.instability
    assert instability is not None
    rates = " and ".join(
        f"{rate.unstable} of {rate.n} runs with {levels_text(rate.levels)} "
        f"({100 * rate.share.low:.0f} to {100 * rate.share.high:.0f} %)"
        for rate in instability.rates
    )
    test = f"95 % intervals of the rates; exact sign test over seeds p = {instability.p_value:.2g}"
    return f"{rates} diverged or collapsed ({test})"
