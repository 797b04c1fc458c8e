"""The metrics that runs are compared on: labels, directions, units."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["maximize", "minimize"]
Objective = Literal["loss", "accuracy"]
SIGNS: Mapping[str, int] = {"maximize": 1, "minimize": -1}
"""What a value is multiplied with so that more is better, by direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that every finished run has; `meaningful` is the default half-width of its ROPE, where there is one.

    `tuned_by` is what tuning looks at on the validation split where a study compares on the metric;
    None where a training function measures it, which nothing tunes.
    """

    label: str
    direction: Direction
    unit: Literal["fraction", "nats", "score", "seconds"]
    tuned_by: Objective | None
    meaningful: float | None = None


METRICS: Mapping[str, Metric] = {
    "test_accuracy": Metric(
        label="test accuracy", direction="maximize", unit="fraction", tuned_by="accuracy", meaningful=0.005
    ),
    "test_loss": Metric(label="test loss", direction="minimize", unit="nats", tuned_by="loss"),
    "test_brier_score": Metric(label="Brier score on test", direction="minimize", unit="score", tuned_by="loss"),
    "learning_curve_area": Metric(
        label="area under the held-out accuracy curve",
        direction="maximize",
        unit="fraction",
        tuned_by="accuracy",
        meaningful=0.005,
    ),
    "final_train_accuracy": Metric(
        label="training accuracy at the end", direction="maximize", unit="fraction", tuned_by="accuracy"
    ),
    "final_train_loss": Metric(
        label="training loss at the end", direction="minimize", unit="nats", tuned_by="accuracy"
    ),
    "generalization_gap": Metric(
        label="test loss minus training loss", direction="minimize", unit="nats", tuned_by="accuracy"
    ),
    "training_seconds": Metric(label="seconds of training", direction="minimize", unit="seconds", tuned_by="accuracy"),
}
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
