"""Describes what a task alone has numbers of: the F1 or IoU of each class, the quantiles of a regression's errors."""

from collections.abc import Callable, Iterator, Mapping

from ablation.analysis.descriptive_records import TaskDetail
from ablation.analysis.finished import FinishedRuns, by_seed, run_ids, spread_of
from ablation.records import ERROR_QUANTILES, DataShape, RecordedRun, TaskName, Variant

Names = Callable[[DataShape], tuple[str, ...]]


def _classes(shape: DataShape) -> tuple[str, ...]:
    return shape.classes


def _quantiles(_: DataShape) -> tuple[str, ...]:
    return tuple(f"{quantile:g}" for quantile in ERROR_QUANTILES)


DETAILS: Mapping[TaskName, Mapping[str, Names]] = {
    "classification": {},
    "regression": {"error_quantiles": _quantiles},
    "multilabel": {"f1": _classes},
    "tokens": {},
    "segmentation": {"iou": _classes},
}
"""What each number of a task's details is of, by their name."""


def task_details(finished: FinishedRuns) -> tuple[TaskDetail, ...]:
    """Return every number of the task's details in each variant with a run that has it, the baseline first."""
    shape = finished.plan.data.shape
    return tuple(
        detail
        for name, names in DETAILS[finished.plan.task].items()
        for index, of in enumerate(names(shape))
        for detail in _of_variants(finished, name, index, of)
    )


def _of_variants(finished: FinishedRuns, name: str, index: int, of: str) -> Iterator[TaskDetail]:
    def value(run: RecordedRun) -> float | None:
        values = run.details.get(name, ())
        return values[index] if index < len(values) else None

    found = {variant.name: by_seed(finished.done(variant), value) for variant in finished.variants}
    for variant in finished.variants:
        if found[variant.name]:
            yield _detail(finished, variant, found, name, of)


def _detail(
    finished: FinishedRuns, variant: Variant, found: Mapping[str, Mapping[int, float]], name: str, of: str
) -> TaskDetail:
    own = found[variant.name]
    return TaskDetail(
        variant=variant.name,
        name=name,
        of=of,
        spread=spread_of(list(own.values())),
        difference=None if variant.is_baseline else finished.paired(variant, found),
        run_ids=run_ids([run for run in finished.done(variant) if run.planned.seed in own]),
    )
