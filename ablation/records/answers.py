"""What a report answered, as trackers keep it: one record per comparison, in the plan's order."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSummary:
    """One comparison's answer in words and numbers.

    `name` is unlike the names of the study's other answers, and of characters that every tracker takes in a key.
    `sentence` begins with `headline`. `mean`, `low` and `high` are in the metric's own `unit`, not scaled, and None
    where the verdict gives no number; `seeds` are those that the numbers are of, 0 where there are none.
    """

    name: str
    change: str
    headline: str
    sentence: str
    verdict: str
    is_decided: bool
    metric: str
    unit: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    cost: str
