"""Says that a study ended for its budget, and with which one it goes on."""

from ablation.analysis.answer_records import Forecast, Look
from ablation.records import OutOfBudget
from ablation.report.numbers import share_of_time_text
from ablation.report.prose.forecasts import chance_text
from ablation.study.budget import enough_text


def out_of_budget_text(out: OutOfBudget) -> str:
    """Say that a study ended for its budget, and what is needed to go on."""
    spent = share_of_time_text(out.spent_s, out.limit_s)
    return f"Out of budget: {spent} were spent, and what comes next did not fit; {more_budget_text(out)}."


def more_budget_text(out: OutOfBudget) -> str:
    """Return with which budget a study goes on that has ended for its budget, as far as that is known."""
    budget = "a larger --budget" if out.needed_s is None else f"--budget {enough_text(out.needed_s)} or more"
    return f"the same command with {budget} resumes it"


def what_did_not_fit(look: Look, forecast: Forecast | None) -> str:
    at = f"the look at {look.next} seeds" if look.next and look.next <= look.looks[-1] else f"{look.next} seeds"
    chance = f" ({chance_text(forecast)} that it decides)" if forecast is not None else ""
    return f"Next: {at}, which did not fit into the budget{chance}; the same command with a larger one resumes."
