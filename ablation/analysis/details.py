"""Describes what a task alone measures of the test split: errors of a regression, F1 of labels, IoU of classes."""

from collections.abc import Sequence

from ablation.analysis.descriptive_records import TaskDetail
from ablation.analysis.finished import FinishedRuns, by_seed, run_ids, spread_of
from ablation.records import DETAILS, RecordedRun, Variant


def task_details(finished: FinishedRuns) -> tuple[TaskDetail, ...]:
    """Return the means over each variant's runs and the differences to the baseline's, the baseline first."""
    found: list[TaskDetail] = []
    for name, items in DETAILS[finished.plan.task].items():
        own = {variant.name: items(finished.plan.data_of(variant.name).shape) for variant in finished.variants}
        for each in dict.fromkeys(own.values()):  # of several data sets, each has items of its own
            variants = [variant for variant in finished.variants if own[variant.name] == each]
            found += [one for place, item in enumerate(each) for one in _details(finished, variants, name, place, item)]
    return tuple(found)


def _details(finished: FinishedRuns, variants: Sequence[Variant], name: str, place: int, item: str) -> list[TaskDetail]:
    values = {
        variant.name: by_seed(finished.done(variant), lambda run: _value(run, name, place)) for variant in variants
    }
    return [
        TaskDetail(
            name=name,
            item=item,
            variant=variant.name,
            spread=spread_of(list(own.values())),
            difference=None if variant.is_baseline else finished.paired(variant, values),
            run_ids=run_ids([run for run in finished.done(variant) if run.planned.seed in own]),
        )
        for variant in variants
        if (own := values[variant.name])
    ]


def _value(run: RecordedRun, name: str, place: int) -> float | None:
    """Return a number of a run; None of a class that no test target has and no answer names."""
    values = run.details.get(name, ())
    counts = run.confusion.get("test", ())
    is_nowhere = bool(counts) and not any(counts[place]) and not any(row[place] for row in counts)
    return values[place] if place < len(values) and not is_nowhere else None
