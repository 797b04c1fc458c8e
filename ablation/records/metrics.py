"""The metrics that runs are compared on: labels, directions, units."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Unit = Literal["fraction", "nats", "bits", "score", "target", "seconds"]
"""`target`: that of a regression's targets; `score` has no name. A metric of the user's own may have any other."""
SIGNS: Mapping[str, int] = {"maximize": 1, "minimize": -1}
"""What a value is multiplied with so that more is better, by direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that every finished run has; `meaningful` is the default half-width of its ROPE, where there is one.

    `tuned_by` is what tuning looks at on the validation split where a study compares on the metric: `loss`, a score of
    the task, or the metric itself; None where that is not measured after every epoch, or by a training function.
    """

    label: str
    direction: Direction
    unit: Unit | str
    tuned_by: str | None
    meaningful: float | None = None


FIRST_MEASURED = (
    "test_accuracy",
    "test_loss",
    "test_brier_score",
    "learning_curve_area",
    "final_train_accuracy",
    "final_train_loss",
    "generalization_gap",
    "training_seconds",
)
"""What every run measured before plans had a list of their own; never to be changed."""


def is_count(value: object) -> bool:
    """Whether a value is a whole number that every database keeps exactly: from 0 to 2⁵³."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def is_number(value: object) -> bool:
    """Whether a value is a finite number; trackers keep an infinite one as the largest there is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max
