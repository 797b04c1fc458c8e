"""Describes variants without judging them: spreads, differences to the baseline, curves, confusion, layers, cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ablation.analysis import statistics
from ablation.analysis.records import (
    ConfusionMatrix,
    Cost,
    Difference,
    LayerRow,
    Points,
    SeedCurves,
    Spread,
    VariantCurves,
    VariantRow,
)
from ablation.results import Outcome, Plan, RecordedRun, Variant

SPLITS = ("test", "train")


def variant_rows(plan: Plan, table: pd.DataFrame, recorded: Mapping[str, RecordedRun]) -> tuple[VariantRow, ...]:
    """Return a row per variant, the baseline first."""
    metrics = [str(name) for name in table.select_dtypes(float).columns]
    rows = {variant.name: table[table["variant"] == variant.name] for variant in plan.variants}
    ordered = sorted(plan.variants, key=lambda variant: not variant.is_baseline)
    found = [_variant_row(plan, variant, rows, metrics, recorded) for variant in ordered]
    is_timed_alike = table.dropna(subset=["run_id"])[["host", "device"]].drop_duplicates().shape[0] <= 1
    if not is_timed_alike:
        return tuple(found)
    return tuple(replace(row, dominated_by=_dominating(row, found, plan)) for row in found)


def variant_curves(plan: Plan, recorded: Mapping[str, RecordedRun]) -> tuple[VariantCurves, ...]:
    """Return the curves of every finished run, by variant, the baseline first."""
    found = []
    for variant in sorted(plan.variants, key=lambda variant: not variant.is_baseline):
        runs = _finished(plan, variant, recorded)
        seeds = tuple(_seed_curves(run) for run in runs if run.curves)
        done = [curves.curves for curves in seeds if not curves.is_diverged]
        names = sorted(set.intersection(*(set(curves) for curves in done))) if done else []
        median = {name: _median([curves[name] for curves in done]) for name in names}
        found.append(VariantCurves(variant=variant.name, seeds=seeds, median=median))
    return tuple(found)


def confusion_matrices(plan: Plan, recorded: Mapping[str, RecordedRun]) -> tuple[ConfusionMatrix, ...]:
    """Return the matrices summed over each variant's runs, on test and on train."""
    found = []
    for variant in sorted(plan.variants, key=lambda variant: not variant.is_baseline):
        for split in SPLITS:
            runs = [run for run in _finished(plan, variant, recorded) if run.confusion.get(split)]
            if runs:
                counts = np.sum([np.asarray(run.confusion[split]) for run in runs], axis=0)
                found.append(
                    ConfusionMatrix(
                        variant=variant.name,
                        split=split,
                        counts=tuple(tuple(int(count) for count in row) for row in counts),
                        run_ids=_run_ids(runs),
                    )
                )
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
    seconds = table["training_seconds"].dropna()
    return Cost(training_seconds=float(seconds.sum()), timed_runs=len(seconds))


def _variant_row(
    plan: Plan,
    variant: Variant,
    rows: Mapping[str, pd.DataFrame],
    metrics: Sequence[str],
    recorded: Mapping[str, RecordedRun],
) -> VariantRow:
    own = rows[variant.name]
    done = own[own["outcome"] == Outcome.DONE]
    summary = plan.summaries[variant.name]
    values = {name: done[name].dropna().tolist() for name in metrics}
    values["epoch_seconds"] = _epoch_seconds(_finished(plan, variant, recorded))
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
        spreads={name: _spread(numbers) for name, numbers in values.items() if numbers},
        difference=_difference(own, rows[plan.baseline.name], plan) if not variant.is_baseline else None,
        dominated_by=None,
        parameters=summary.parameters,
        flops=summary.flops,
        run_ids=tuple(run_id for run_id in own["run_id"] if run_id is not None),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        n=len(values),
        mean=float(np.mean(values)),
        sd=statistics.sample_sd(values),
        minimum=min(values),
        maximum=max(values),
    )


def _difference(own: pd.DataFrame, baseline: pd.DataFrame, plan: Plan) -> Difference | None:
    """Return the mean difference to the baseline, or None where a run of either is missing, diverged or collapsed."""
    metric = plan.locked["metric"]["name"]
    both = pd.concat([own, baseline])
    is_whole = (both["outcome"] == Outcome.DONE).all() and both[metric].notna().all()
    pairs = own.merge(baseline, on="seed", suffixes=("", "_baseline"))
    if not is_whole or both["is_collapsed"].any() or pairs.empty:
        return None
    differences = (pairs[metric] - pairs[f"{metric}_baseline"]).tolist()
    return Difference(
        n=len(differences),
        mean=float(np.mean(differences)),
        interval=statistics.paired_interval(differences, level=statistics.DESCRIPTIVE_LEVEL),
    )


def _dominating(row: VariantRow, rows: Sequence[VariantRow], plan: Plan) -> str | None:
    """Return the first variant that is at least as good and as fast in the mean, and better in one of them."""
    better = (_good_and_cheap(other, plan) for other in rows)
    own = _good_and_cheap(row, plan)
    for other, theirs in zip(rows, better, strict=True):
        if own and theirs and own != theirs and theirs[0] >= own[0] and theirs[1] >= own[1]:
            return other.name
    return None


def _good_and_cheap(row: VariantRow, plan: Plan) -> tuple[float, float] | None:
    """Return (goodness, minus the seconds), both better where larger; None where the variant is not whole."""
    metric = plan.locked["metric"]
    good, seconds = row.spreads.get(metric["name"]), row.spreads.get("training_seconds")
    if good is None or seconds is None or row.done < row.planned or row.collapsed:
        return None
    return (good.mean if metric["direction"] == "maximize" else -good.mean), -seconds.mean


def _finished(plan: Plan, variant: Variant, recorded: Mapping[str, RecordedRun]) -> list[RecordedRun]:
    """Return a variant's runs that are done or diverged, by seed."""
    own = sorted((planned for planned in plan.runs if planned.variant == variant.name), key=lambda run: run.seed)
    runs = [recorded[planned.identity] for planned in own if planned.identity in recorded]
    return [run for run in runs if run.has_result]


def _seed_curves(run: RecordedRun) -> SeedCurves:
    curves = {name: tuple(point for point in points if math.isfinite(point[1])) for name, points in run.curves.items()}
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


def _epoch_seconds(runs: Sequence[RecordedRun]) -> list[float]:
    """Return each done run's mean seconds per epoch."""
    timed = [dict(run.curves).get("epoch_seconds", ()) for run in runs if run.outcome == Outcome.DONE]
    return [float(np.mean([seconds for _, seconds in points])) for points in timed if points]


def _run_ids(runs: Sequence[RecordedRun]) -> tuple[str, ...]:
    return tuple(run.run_id for run in runs if run.run_id is not None)
