"""Turns a plan and the recorded runs into the run table: one row per planned run."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from ablation.records import RUN_COLUMNS, Outcome, Plan, PlannedRun, RecordedRun, TaskName, Variant, is_at_chance

COLLAPSED_SHARE = 0.95
"""From this share of equal answers on a run at chance has collapsed; a poor model still tells examples apart."""
TEXT_COLUMNS = ("variant", "identity", "run_id", "outcome", "device", "host", "error")


def run_table(plan: Plan, runs: Sequence[RecordedRun]) -> pd.DataFrame:
    """Return one row per planned run, in the plan's order whatever the order of `runs`.

    Columns: variant, seed, identity, run_id, outcome ("done", "diverged", "failed", or None without a result),
    is_collapsed (by the locked collapse rule), device, host, error; a column per factor, named by its path (null is
    "null" there); a column per metric of the plan; then the other metrics that were recorded, by name, those that have
    the name of a column
    as `metric.NAME`. A metric that a run doesn't have, or that isn't finite, is NaN. Records of runs that are not
    planned are left out.
    """
    recorded = records_by_identity(runs)
    found = {name for planned in plan.runs if (record := recorded.get(planned.identity)) for name in record.metrics}
    metrics = [*plan.metrics, *sorted(found - plan.metrics.keys())]
    variants = {variant.name: variant for variant in plan.variants}
    rows = [
        _row(plan, planned, variants[planned.variant], recorded.get(planned.identity), metrics) for planned in plan.runs
    ]
    taken = (*RUN_COLUMNS, *plan.baseline.levels)
    named = [_column(name, taken) for name in metrics]
    table = pd.DataFrame(rows, columns=[*taken, *named], dtype=object)
    kinds = {"seed": int, "is_collapsed": bool, **dict.fromkeys(named, float)}
    return table.astype(kinds)


def epoch_table(plan: Plan, runs: Sequence[RecordedRun]) -> pd.DataFrame:
    """Return one row per epoch of each run that has curves: variant, seed, run_id, the factors, epoch, the curves."""
    recorded = records_by_identity(runs)
    variants = {variant.name: variant for variant in plan.variants}
    taken = ("variant", "seed", "run_id", *plan.baseline.levels, "epoch")
    rows = []
    for planned in plan.runs:
        record = recorded.get(planned.identity)
        curves = {name: dict(points) for name, points in record.curves.items()} if record else {}
        about = {"variant": planned.variant, "seed": planned.seed, "run_id": record.run_id if record else None}
        for epoch in sorted({epoch for points in curves.values() for epoch in points}):
            values = {_column(name, taken): points.get(epoch, math.nan) for name, points in curves.items()}
            rows.append({**about, **_levels(variants[planned.variant]), "epoch": epoch, **values})
    return pd.DataFrame(rows, columns=None if rows else taken)


def records_by_identity(runs: Iterable[RecordedRun]) -> Mapping[str, RecordedRun]:
    """Return the record of each run that has an outcome; of two, a finished one, then the one with the lesser ID."""
    ranked = sorted(runs, key=lambda run: (run.outcome == Outcome.FAILED, run.run_id or ""), reverse=True)
    return {run.planned.identity: run for run in ranked if run.outcome is not None}


def _levels(variant: Variant) -> dict[str, Any]:
    """Return a variant's levels, null in words: pandas leaves out what is None wherever it groups."""
    return {factor: "null" if level is None else level for factor, level in variant.levels.items()}


def _column(metric: str, taken: Collection[str]) -> str:
    return f"metric.{metric}" if metric in taken else metric


def _row(
    plan: Plan, planned: PlannedRun, variant: Variant, record: RecordedRun | None, metrics: Sequence[str]
) -> list[Any]:
    about = [planned.variant, planned.seed, planned.identity]
    levels = _levels(variant).values()
    if record is None or record.outcome is None:
        return [*about, None, None, False, None, None, None, *levels, *(math.nan for _ in metrics)]
    values = [_finite(record.metrics.get(name)) for name in metrics]
    state = [record.run_id, record.outcome.value, has_collapsed(plan, record)]
    return [*about, *state, record.device or None, record.host or None, record.error, *levels, *values]


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan


def has_collapsed(plan: Plan, record: RecordedRun) -> bool:
    """Whether a finished run is at chance and gives hardly any answer but one.

    Of a classification without a confusion matrix of the test split, being at chance is enough; of other tasks, a run
    whose answers are not known has not collapsed.
    """
    return (
        is_at_chance(plan, record.planned.variant, record.outcome, record.metrics)
        and _COMMONEST_ANSWER[plan.task](record) >= COLLAPSED_SHARE
    )


def _of_confusion(record: RecordedRun, *, unknown: float) -> float:
    """Return the share of the test answers that are the commonest class, `unknown` without a matrix."""
    answers = [sum(column) for column in zip(*record.confusion.get("test", ()), strict=True)]
    return max(answers) / sum(answers) if any(answers) else unknown


def _recorded_share(record: RecordedRun) -> float:
    return record.constant_share or 0.0


_COMMONEST_ANSWER: Mapping[TaskName, Callable[[RecordedRun], float]] = {
    "classification": partial(_of_confusion, unknown=1.0),
    "regression": _recorded_share,
    "multilabel": _recorded_share,
    "tokens": _recorded_share,
    "segmentation": partial(_of_confusion, unknown=0.0),
}
"""The share of a run's test answers that are the commonest one, by task."""
