"""Says in a few lines what a study found, against what, and whether all runs are there."""

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, Verdict
from ablation.analysis.sequential import GROWTH_SHARE
from ablation.records import DATA, same_starts_text
from ablation.report.names import baseline_text
from ablation.report.numbers import level_percent, value_text
from ablation.report.prose.amounts import metric_noun
from ablation.report.prose.budget import out_of_budget_text
from ablation.report.prose.verdicts import VERDICT_WORDS, told_text
from ablation.report.replicates import in_folds
from ablation.report.task_words import can_collapse
from ablation.study.level_names import level_text

_COUNTED = VERDICT_WORDS | {
    Verdict.ONE_SEED: " with one seed, no verdict",
    Verdict.NO_VARIATION: " without variation, no verdict",
}
"""What stands behind the number of comparisons that have a verdict."""
_MOST_TOLD = 2
"""Comparisons that the headline names; the rows below it have all of them."""


def overview(analysis: Analysis) -> tuple[str, str, str, str]:
    """Return lines that stand alone: the verdict, how much is decided, against what, and whether all runs are there."""
    lines = _verdict(analysis), _decisions(analysis), _comparison(analysis), _runs_line(analysis)
    first, second, third, fourth = (in_folds(line, analysis.folds) for line in lines)
    if analysis.folds is not None:
        fourth += f" Intervals over {analysis.folds.folds} folds are corrected (Nadeau and Bengio 2003)."
    return first, second, third, fourth


def _verdict(analysis: Analysis) -> str:
    """Return what was found, the largest effects first: those on the study's metric, on others where it has none."""
    told = sorted(filter(_is_told, analysis.answers), key=_weight, reverse=True)
    if not told:
        return f"No comparison is decided: {_counts(analysis)}."
    own = [answer for answer in told if answer.is_primary] or told
    more = len(told) - len(own[:_MOST_TOLD])
    rest = [f"{more} more decided" if more else "", _counts(analysis)]
    return f"{'; '.join(filter(None, [*map(told_text, own[:_MOST_TOLD]), *rest]))}."


def _weight(answer: Answer) -> tuple[bool, bool, float]:
    """Order by size, but what is too small to matter last, and interactions after the effects that they are of."""
    mean = abs(answer.effect.mean) if answer.effect is not None else 0.0
    matters = answer.verdict is not Verdict.NO_MEANINGFUL_DIFFERENCE or answer.is_crossover
    return matters, not answer.is_interaction, mean


def _is_told(answer: Answer) -> bool:
    """Whether the headline may name the answer: others are counted."""
    return answer.verdict.is_decided or answer.is_crossover


def _counts(analysis: Analysis) -> str:
    """Return `2 undecided, 1 unstable`: the comparisons without a decision, by their verdicts."""
    untold = [answer.verdict for answer in analysis.answers if not _is_told(answer)]
    counts = [(untold.count(verdict), verdict) for verdict in Verdict]
    return ", ".join(f"{count}{_COUNTED[verdict].lstrip(',')}" for count, verdict in counts if count)


def _decisions(analysis: Analysis) -> str:
    answers = analysis.answers
    decided = sum(answer.verdict.is_decided for answer in answers)
    rate = level_percent(analysis.alpha)
    if analysis.is_extended:
        rate = f"at most {level_percent(analysis.alpha * (1 + GROWTH_SHARE))}"
    return f"{decided} of {len(answers)} comparisons decided (family-wise error rate {rate})."


def _comparison(analysis: Analysis) -> str:
    baseline = next(row for row in analysis.variants if row.is_baseline)
    spread = baseline.spreads.get(analysis.metric.name)
    if spread is None:
        return f"Compared with {baseline_text(analysis)}, which has no finished run."
    reached = f"a mean {metric_noun(analysis.metric)} of {value_text(spread.mean, analysis.metric.unit)}"
    over = f"{spread.n} seed{'s' if spread.n != 1 else ''}"
    if DATA in baseline.levels:
        there = level_text(baseline.levels[DATA])
        return f"Compared with the baseline on the same data set; on {there} it has {reached} over {over}."
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
    ends = "diverged or collapsed" if can_collapse(analysis) else "diverged"
    runs = f"Of {planned}: {bad}." if bad else f"All {planned} are done, and none {ends}."
    if saved:
        runs += f" So far {analysis.planned_runs} of at most {analysis.most_runs} runs were needed."
    if any(equal.is_sure for equal in found.equal_seeds):
        runs += " Some seeds repeat each other in every number: they are no repetitions."
    elif found.equal_seeds:
        runs += " Some variants gave the same result with every seed: does the seed reach the training?"
    if found.same_starts:
        runs += f" {same_starts_text(found.same_starts)}."
    runs += f" {out_of_budget_text(out)}" if (out := analysis.out_of_budget) is not None else ""
    number = len(analysis.deviations)
    return runs + (f" {number} deviation{'s' if number > 1 else ''} from the locked plan." if number else "")
