"""Begins an answer's sentence: what was changed, and the verdict."""

from ablation.analysis.answer_records import Answer, Verdict
from ablation.report.names import are_parts, changes_text, comparison_text
from ablation.report.numbers import scale_of, signed, unit_of_differences
from ablation.report.prose.amounts import difference_decimals, metric_noun
from ablation.report.prose.caveats import differs_text, worse_text

DIFFERS = "differs by setting"
VERDICT_WORDS = {
    Verdict.HELPS: " helps",
    Verdict.HURTS: " hurts",
    Verdict.BETTER_THAN_SUM: " do not add up",  # the interplay says how
    Verdict.WORSE_THAN_SUM: " do not add up",
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
    return _headline(answer, "")


def told_text(answer: Answer) -> str:
    """Return the headline with the size of the effect: `normalization none → batch helps (+5.7 points)`."""
    effect = answer.effect
    if effect is None or answer.is_crossover:
        return _headline(answer, "")
    size = signed(scale_of(answer.metric.unit) * effect.mean, difference_decimals(answer))
    return _headline(answer, f"{size} {unit_of_differences(answer.metric.unit)}".rstrip())


def _headline(answer: Answer, size: str) -> str:
    about = ": ".join(filter(None, ("" if answer.is_primary else metric_noun(answer.metric), size)))
    on = f" ({about})" if about else ""
    words = VERDICT_WORDS[answer.verdict]
    if answer.verdict is Verdict.OUT_OF_BUDGET:
        words += f" after {_counted_seeds(answer.effect.n if answer.effect is not None else 0)}"
    if answer.is_crossover:
        on_average = f"on average {words.lstrip(', ')}{worse_text(answer)}"
        return f"{comparison_text(answer)} {differs_text(answer)} ({on_average}){on}"
    if answer.joint is not None and answer.joint.interplay is not None:
        scale = " (depends on the scale)" if answer.joint.depends_on_scale else ""
        return f"{changes_text(answer)} {answer.joint.interplay.value}{scale}{on}"
    together = " together" if are_parts(answer) and words.startswith(",") else ""
    return f"{comparison_text(answer, joined=' and ')}{together}{words}{on}{worse_text(answer)}"


def verdict_text(answer: Answer) -> str:
    """Return the verdict for a table or a figure: an interaction that is decided by how the effects go together."""
    if answer.is_crossover:
        return f"{DIFFERS}, on average {answer.verdict.value}"
    if answer.joint is not None and answer.joint.interplay is not None:
        return answer.joint.interplay.value + (" when removed" if are_parts(answer) else "")
    return answer.verdict.value


def _counted_seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
