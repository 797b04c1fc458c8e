"""Says what a forecast says: how likely more seeds decide a comparison, and how many would do so most of the time."""

from ablation.analysis.answer_records import Answer, Forecast, Look, Verdict
from ablation.analysis.sequential import State
from ablation.report.numbers import NONE, duration_text


def next_step(answer: Answer) -> str:
    """Return the last words on an undecided answer: what judges it next, with which chance."""
    look, forecast = answer.look, answer.forecast
    if look.state == State.OPEN and answer.verdict is Verdict.UNDECIDED:
        return _next_look(look, forecast)
    if forecast is None:
        return ""
    time = f", {duration_text(answer.seconds_per_seed)} of training each," if answer.seconds_per_seed else ""
    seeds = f"{forecast.more:,} more seeds beyond the plan{time}"
    return f"Next: {seeds} decide it with {_chance(forecast)}; {_for_power(forecast)}."


def chance_cell(answer: Answer) -> str:
    """Return `12 seeds: 45 %`, or `8 more: 45 %` beyond the plan."""
    forecast = answer.forecast
    if forecast is None:
        return NONE
    seeds = f"{forecast.seeds:,} seeds" if forecast.is_planned else f"{forecast.more:,} more"
    return f"{seeds}: {percent(forecast.chance)}"


def for_power_cell(answer: Answer) -> str:
    """Return how many seeds more decide it with a chance of 80 %."""
    forecast = answer.forecast
    if forecast is None or forecast.is_planned:
        return NONE
    if forecast.is_unclear:
        return "too few seeds to tell"
    return f"{forecast.more_for_power:,} more" if forecast.more_for_power is not None else "more than 10,000"


def percent(chance: float) -> str:
    """Return a chance in whole percent, none of them certain."""
    if chance < 0.005:
        return "below 1 %"
    return f"{100 * chance:.0f} %" if chance < 0.995 else "above 99 %"


def _next_look(look: Look, forecast: Forecast | None) -> str:
    if look.next is None:
        return "The seeds that would judge it next are not asked for, so it stays open."
    of, verb = f"the look at {look.next} seeds", "decides"
    if look.next > look.looks[-1]:
        of, verb = f"{look.next} seeds, beyond the plan", "decide"
    chance = f", which {verb} it with {_chance(forecast)}" if forecast is not None else ""
    return f"Next: {of}{chance}; the same command resumes."


def _chance(forecast: Forecast) -> str:
    text = percent(forecast.chance)
    return f"a chance of {text}" if text[0].isdigit() else f"a chance {text}"


def _for_power(forecast: Forecast) -> str:
    if forecast.is_unclear:
        return "too few seeds to tell how many decide it with 80 %"
    if forecast.more_for_power is None:
        return "for 80 % it takes more than 10,000"
    return f"for 80 % it takes {forecast.more_for_power:,}"
