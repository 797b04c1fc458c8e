"""Says what a forecast says: how likely more seeds decide a comparison, and how many would do so most of the time."""

from ablation.analysis.answer_records import Answer, Forecast
from ablation.report.numbers import NONE


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


def chance_text(forecast: Forecast) -> str:
    """Return `a chance of 45 %`, or `a chance below 1 %`."""
    text = percent(forecast.chance)
    return f"a chance of {text}" if text[0].isdigit() else f"a chance {text}"


def for_power_text(forecast: Forecast) -> str:
    """Say how many seeds more decide it with a chance of 80 %, or that it cannot be told."""
    if forecast.is_unclear:
        return "too few seeds to tell how many decide it with 80 %"
    if forecast.more_for_power is None:
        return "for 80 % it takes more than 10,000"
    return f"for 80 % it takes {forecast.more_for_power:,}"
