"""Turns answers into sentences: every word that judges or orders is chosen by the number or verdict beside it."""

from ablation.analysis.answer_records import Answer, Verdict
from ablation.report.prose.budget import more_budget_text, out_of_budget_text
from ablation.report.prose.caveats import but, crossover
from ablation.report.prose.costs import cost_text, timing
from ablation.report.prose.failures import incomplete, unstable
from ablation.report.prose.findings import few_seeds, finding, luck, over_data, place, size
from ablation.report.prose.interactions import together
from ablation.report.prose.looks import growth, look_text, next_step, since
from ablation.report.prose.overview import overview
from ablation.report.prose.verdicts import headline

__all__ = ["headline", "more_budget_text", "out_of_budget_text", "overview", "sentence"]


def sentence(answer: Answer) -> str:
    """Return the answer in words, from its numbers and verdict alone; it begins with its headline."""
    if answer.verdict is Verdict.INCOMPLETE:
        parts = [incomplete(answer)]
    elif answer.verdict is Verdict.UNSTABLE:
        parts = [unstable(answer)]
    elif answer.effect is None:
        parts = ["no seed has a result of all its variants yet, so no difference is given.", next_step(answer)]
    else:
        parts = [
            finding(answer),
            but(answer),
            crossover(answer),
            together(answer),
            over_data(answer),
            place(answer),
            size(answer),
        ]
        parts += [luck(answer), look_text(answer), growth(answer)]
        parts += [few_seeds(answer), since(answer), next_step(answer), timing(answer), cost_text(answer)]
    return f"{headline(answer)}: " + " ".join(part for part in parts if part)
