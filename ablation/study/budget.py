"""The wall-clock time that a study's executions may take in all, as a study file has it and as an option does."""

import math
import re
from typing import Annotated

from pydantic import Field, model_validator

from ablation.study.sections import Section

BUDGET_FORM = "a time such as 2h, 90m, 1h30m or 45s"
MOST_HOURS = 100_000
_TIME = re.compile(r"(?:(\d{1,9}(?:\.\d{1,9})?)h)?(?:(\d{1,9}(?:\.\d{1,9})?)m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?")
_UNITS_S = (3600.0, 60.0, 1.0)
_ROUNDED_FROM_MIN, _ROUNDED_TO_MIN = 60, 5


class Budget(Section):
    """What the executions of a study may take in all; hours and minutes are added up."""

    hours: Annotated[float, Field(gt=0.0, le=MOST_HOURS)] | None = Field(
        default=None, description="of wall-clock time that the executions of the study may take in all"
    )
    minutes: Annotated[float, Field(gt=0.0, le=60 * MOST_HOURS)] | None = Field(
        default=None, description="the same in minutes, added to the hours where both are given"
    )

    @model_validator(mode="after")
    def _has_a_time(self) -> "Budget":
        if self.hours is None and self.minutes is None:
            raise ValueError("is empty; write {hours: 2} or {minutes: 90}")
        return self

    @property
    def seconds(self) -> float:
        return 3600 * (self.hours or 0.0) + 60 * (self.minutes or 0.0)


def budget_seconds(text: str) -> float:
    """Read a budget as the option has it: `2h`, `90m`, `1h30m`, `45s`.

    Raises:
        ValueError: it is something else, or no time at all.
    """
    found = _TIME.fullmatch(text.strip())
    parts = found.groups() if found is not None else ()
    seconds = math.fsum(float(part) * unit for part, unit in zip(parts, _UNITS_S, strict=False) if part is not None)
    if not any(parts) or not 0 < seconds <= 3600 * MOST_HOURS:
        has_no_unit = re.fullmatch(r"\d+(\.\d+)?", text.strip()) is not None
        why = "has no unit" if has_no_unit else "is no budget"
        raise ValueError(f"{text!r} {why}; give {BUDGET_FORM}, above 0 and at most {MOST_HOURS:,} hours")
    return seconds


def enough_text(seconds: float) -> str:
    """Return a budget of at least so many seconds as the option has it, in whole minutes, from an hour on in fives."""
    minutes = math.ceil(seconds / 60)
    if minutes >= _ROUNDED_FROM_MIN:
        minutes = math.ceil(minutes / _ROUNDED_TO_MIN) * _ROUNDED_TO_MIN
    hours, minutes = divmod(minutes, 60)
    return "".join([f"{hours}h" if hours else "", f"{minutes}m" if minutes or not hours else ""])
