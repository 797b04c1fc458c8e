"""Describes variants without judging them: spreads, differences to the baseline, curves, layers, cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ablation.analysis.analysis_record import Cost
from ablation.analysis.answer_records import Difference
from ablation.analysis.descriptive_records import LayerRow, Points, SeedCurves, VariantCurves, VariantRow
from ablation.analysis.finished import FinishedRuns, curve, metric_by_seed, seed_values, spread_of
from ablation.analysis.timing import timing_of
from ablation.records import DATA, SIGNS, Outcome, Plan, RecordedRun, Variant


def variant_rows(finished: FinishedRuns, table: pd.DataFrame) -> tuple[VariantRow, ...]:
    """Return a row per variant, the baseline first."""
    metrics = [str(name) for name in table.select_dtypes(float).columns]
    rows = {variant.name: table[table["variant"] == variant.name] for variant in finished.variants}
    found = [_variant_row(finished, variant, rows, metrics) for variant in finished.variants]
    if not finished.is_timed_alike:
        return tuple(found)
    return tuple(replace(row, dominated_by=_dominating(row, found, finished.plan)) for row in found)


def variant_curves(finished: FinishedRuns) -> tuple[VariantCurves, ...]:
    """Return the curves of every finished run, by variant, the baseline first."""
    found = []
    for variant in finished.variants:
        seeds = tuple(_seed_curves(run) for run in finished.of(variant) if run.curves)
        done = [curves.curves for curves in seeds if not curves.is_diverged]
        names = sorted(set.intersection(*(set(curves) for curves in done))) if done else []
        median = {name: _median([curves[name] for curves in done]) for name in names}
        found.append(VariantCurves(variant=variant.name, seeds=seeds, median=median))
    return tuple(found)


def layer_rows(plan: Plan) -> tuple[LayerRow, ...]:
    """Return every layer that has parameters in some variant, each after the one it follows in the models."""
    order: list[tuple[str, str]] = []
    parameters: dict[tuple[str, str], dict[str, int]] = {}
    for variant in sorted(plan.variants, key=lambda variant: not variant.is_baseline):
        position = 0
        for layer in plan.summaries[variant.name].layers:
            key = (layer.name, layer.type)
            if key not in parameters:
                order.insert(position, key)
            position = order.index(key) + 1
            parameters.setdefault(key, {})[variant.name] = layer.parameters
    return tuple(
        LayerRow(name=name, type=kind, parameters=parameters[name, kind])
        for name, kind in order
        if any(parameters[name, kind].values())
    )


def cost_of(table: pd.DataFrame) -> Cost:
    seconds = table.get("training_seconds", pd.Series(dtype=float)).dropna()
    return Cost(training_seconds=float(seconds.sum()), timed_runs=len(seconds))


def _variant_row(
    finished: FinishedRuns, variant: Variant, rows: Mapping[str, pd.DataFrame], metrics: Sequence[str]
) -> VariantRow:
    own = rows[variant.name]
    done = own[own["outcome"] == Outcome.DONE]
    summary = finished.plan.summaries[variant.name]
    values = {name: done[name].dropna().tolist() for name in metrics}
    runs = finished.done(variant)
    values["epoch_seconds"] = [seconds for run in runs if (seconds := _epoch_seconds(run)) is not None]
    return VariantRow(
        name=variant.name,
        levels=dict(variant.levels),
        is_baseline=variant.is_baseline,
        planned=len(own),
        done=len(done),
        diverged=int((own["outcome"] == Outcome.DIVERGED).sum()),
        collapsed=int(own["is_collapsed"].sum()),
        failed=int((own["outcome"] == Outcome.FAILED).sum()),
        missing=int(own["outcome"].isna().sum()),
        spreads={name: spread_of(numbers) for name, numbers in values.items() if numbers},
        values=seed_values(runs, finished.plan.locked.metric.name),
        differences=_differences(finished, variant, rows),
        training=timing_of(runs),
        epoch=timing_of(runs, _epoch_seconds),
        dominated_by=None,
        parameters=summary.parameters,
        flops=summary.flops,
        trainable=summary.trainable,
        run_ids=tuple(run_id for run_id in own["run_id"] if run_id is not None),
    )


def _differences(finished: FinishedRuns, variant: Variant, rows: Mapping[str, pd.DataFrame]) -> dict[str, Difference]:
    """Return the mean difference to the baseline by metric, paired by seed.

    None at all where a run of either is missing, diverged or collapsed; none of times that were not taken alike.
    """
    pair = (variant, finished.plan.reference(variant))
    if pair[0] is pair[1] or any(rows[each.name]["is_collapsed"].any() for each in pair):
        return {}
    found = {}
    for name, metric in finished.plan.metrics.items():
        values = {each.name: metric_by_seed(finished.done(each), name) for each in pair}
        difference = finished.paired(variant, values)
        if difference is not None and (metric.unit != "seconds" or finished.is_timed_alike):
            found[name] = difference
    return found


def _dominating(row: VariantRow, rows: Sequence[VariantRow], plan: Plan) -> str | None:
    """Return the first variant that is at least as good in the mean and as fast in the median, and better in one."""
    own, beside = _good_and_cheap(row, plan), [each for each in rows if each.levels.get(DATA) == row.levels.get(DATA)]
    better = (_good_and_cheap(other, plan) for other in beside)
    for other, theirs in zip(beside, better, strict=True):
        if own and theirs and own != theirs and theirs[0] >= own[0] and theirs[1] >= own[1]:
            return other.name
    return None


def _good_and_cheap(row: VariantRow, plan: Plan) -> tuple[float, float] | None:
    """Return (goodness, minus the seconds), both better where larger; None where the variant is not whole."""
    metric = plan.locked.metric
    good = row.spreads.get(metric.name)
    if good is None or row.training is None or row.done < row.planned or row.collapsed:
        return None
    return SIGNS[metric.direction] * good.mean, -row.training.median


def _seed_curves(run: RecordedRun) -> SeedCurves:
    curves = {name: curve(run, name) for name in run.curves}
    return SeedCurves(
        seed=run.planned.seed,
        run_id=run.run_id,
        is_diverged=run.outcome == Outcome.DIVERGED,
        curves={name: curves[name] for name in sorted(curves)},
    )


def _median(curves: Sequence[Points]) -> Points:
    by_epoch = [dict(points) for points in curves]
    epochs = sorted(set.intersection(*(set(points) for points in by_epoch)))
    return tuple((epoch, float(np.median([points[epoch] for points in by_epoch]))) for epoch in epochs)


def _epoch_seconds(run: RecordedRun) -> float | None:
    """Return a run's mean seconds per epoch, None where its epochs were not timed."""
    points = curve(run, "epoch_seconds")
    return float(np.mean([seconds for _, seconds in points])) if points else None
