"""Says at which look an answer was judged, what came after it, and what comes next."""

from ablation.analysis.answer_records import Answer, Forecast, Look, Verdict
from ablation.analysis.sequential import State
from ablation.analysis.statistics import largest_e_value
from ablation.lookup import few
from ablation.report.numbers import count_text, duration_text
from ablation.report.prose.budget import what_did_not_fit
from ablation.report.prose.forecasts import chance_text, for_power_text


def look_text(answer: Answer) -> str:
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


def growth(answer: Answer) -> str:
    effect = answer.effect
    if not answer.is_grown or effect is None or effect.e_value is None:
        return ""
    came = "It was added after results could be seen" if answer.look.is_added else "Seeds were added beyond the plan"
    if shown_e_value(answer) is None:
        return f"{came}, so the e-value decides; with {effect.n} seeds it cannot."
    needed = f"the {answer.decisive_e_value:,.4g} needed"
    if effect.e_value > answer.decisive_e_value:
        found = f"{effect.e_value:.3g}, above {needed}"
    elif answer.verdict.is_decided and answer.verdict is not Verdict.NO_MEANINGFUL_DIFFERENCE:
        found = f"with fewer seeds it was above {needed}, and is {effect.e_value:.3g} now"
    else:
        found = f"{effect.e_value:.3g}, not above {needed}"
    return f"{came}, so the e-value decides: {found}."


def shown_e_value(answer: Answer) -> float | None:
    """Return the e-value where it can decide: for seeds beyond the plan, as many as may bring it to what is needed."""
    effect = answer.effect
    if effect is None or not answer.is_grown or largest_e_value(effect.n) <= answer.decisive_e_value:
        return None
    return effect.e_value


def since(answer: Answer) -> str:
    """Say what came after the look that decided, and what versions before planned looks said."""
    said = []
    if (later := answer.look.later_unstable) and answer.verdict.is_judged:
        number = len(later)
        runs = "a later run" if number == 1 else f"{count_text(number)} later runs"
        said.append(f"Since then {runs} diverged or collapsed ({few(later)}), which changes no verdict.")
    if answer.earlier_verdict is not None:
        said.append(f"Versions before planned looks called this “{answer.earlier_verdict}”.")
    return " ".join(said)


def next_step(answer: Answer) -> str:
    """Say what judges an undecided answer next, and with which chance it decides it."""
    look, forecast = answer.look, answer.forecast
    if look.state == State.OPEN and answer.verdict is Verdict.UNDECIDED:
        return _next_look(look, forecast)
    if look.state == State.OUT_OF_BUDGET:
        return what_did_not_fit(look, forecast)
    if forecast is None:
        return ""
    time = f", {duration_text(answer.seconds_per_seed)} of training each," if answer.seconds_per_seed else ""
    last = look.looks[-1]
    beyond = f"({forecast.seeds:,} in all, beyond the plan's {last:,})" if look.seeds < last else "beyond the plan"
    seeds = f"{forecast.more:,} more seeds {beyond}{time}"
    return f"Next: {seeds} decide it with {chance_text(forecast)}; {for_power_text(forecast)}."


def _next_look(look: Look, forecast: Forecast | None) -> str:
    if look.next is None:
        return "The seeds that would judge it next are not asked for, so it stays open."
    of, verb = f"the look at {look.next} seeds", "decides"
    if look.next > look.looks[-1]:
        of, verb = f"{look.next} seeds, beyond the plan", "decide"
    chance = f", which {verb} it with {chance_text(forecast)}" if forecast is not None else ""
    return f"Next: {of}{chance}; the same command resumes."
