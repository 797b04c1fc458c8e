"""Begins an answer's sentence: what was changed, and the verdict."""

from ablation.analysis.answer_records import Answer, Verdict
from ablation.report.names import are_parts, comparison_text
from ablation.report.prose.amounts import metric_noun

VERDICT_WORDS = {
    Verdict.HELPS: " helps",
    Verdict.HURTS: " hurts",
    Verdict.BETTER_THAN_SUM: " do better together than the sum of both",
    Verdict.WORSE_THAN_SUM: " do worse together than the sum of both",
    Verdict.NO_MEANINGFUL_DIFFERENCE: ", no meaningful difference",
    Verdict.UNDECIDED: ", undecided",
    Verdict.INCOMPLETE: ", incomplete",
    Verdict.UNSTABLE: ", unstable",
    Verdict.ONE_SEED: ", one seed, no verdict",
    Verdict.OUT_OF_BUDGET: ", out of budget",
    Verdict.NO_VARIATION: ", no variation, no verdict",  # of the difference, though each variant's seeds may vary
}


def headline(answer: Answer) -> str:
    """Return the beginning of the answer's sentence: what was changed, where alone it was asked, and the verdict."""
    on = "" if answer.is_primary else f" ({metric_noun(answer.metric)})"
    words = VERDICT_WORDS[answer.verdict]
    if answer.verdict is Verdict.OUT_OF_BUDGET:
        words += f" after {_counted_seeds(answer.effect.n if answer.effect is not None else 0)}"
    together = " together" if are_parts(answer) and words.startswith(",") else ""
    return f"{comparison_text(answer, joined=' and ')}{together}{words}{on}"


def _counted_seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
