"""What the evaluation of a run holds of its task alone, and what each of its numbers is of."""

from collections.abc import Callable, Mapping

from ablation.records.data import DataShape
from ablation.records.tasks import ERROR_QUANTILES, TaskName


def _classes(shape: DataShape) -> tuple[str, ...]:
    return shape.classes


def _quantiles(shape: DataShape) -> tuple[str, ...]:  # noqa: ARG001 - the same of all data
    return tuple(_NAMED_QUANTILES.get(quantile, f"{100 * quantile:g} %") for quantile in ERROR_QUANTILES)


_NAMED_QUANTILES = {0.0: "lowest", 0.5: "median", 1.0: "highest"}
DETAILS: Mapping[TaskName, Mapping[str, Callable[[DataShape], tuple[str, ...]]]] = {
    "classification": {},
    "regression": {"error_quantiles": _quantiles},
    "multilabel": {"f1": _classes},
    "tokens": {},
    "segmentation": {"iou": _classes},
}
"""What the evaluation of a task's run holds by name, and what each of its numbers is of."""
