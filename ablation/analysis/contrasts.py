"""Turns a plan's questions into contrasts: which variants a comparison weighs against which."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ablation.analysis.answer_records import LevelChange, MeasuredMetric
from ablation.records import DATA, LockedQuestion, Plan, RecordedRun, Variant
from ablation.study.comparisons import LISTED, Comparison, Groups, Side, comparisons
from ablation.study.conditions import conditions_of
from ablation.study.design import declared_levels
from ablation.study.factors import is_part
from ablation.study.labels import NO_LABELS, Labels
from ablation.study.level_names import NOT_VARIED, level_text, short_names, varied
from ablation.study.spec import OTHERS, PART_DESIGNS


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleContrast:
    """One change at one setting of the other factors."""

    change: LevelChange
    at: Mapping[str, Any]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One comparison of a question: `weights` by variant, `sides` the variants by the levels that are compared.

    `combinations` are those of the other factors' levels that it is made at.
    """

    changes: tuple[LevelChange, ...]
    at: Mapping[str, Any]
    combinations: tuple[Mapping[str, Any], ...]
    averaged_over: Mapping[str, tuple[Any, ...]]
    metric: MeasuredMetric
    is_primary: bool
    rope: float | None
    weights: Mapping[str, float]
    sides: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]
    simple: tuple[SimpleContrast, ...]


def contrasts_of(plan: Plan) -> tuple[Contrast, ...]:
    """Return the family: L - 1 contrasts of a question on a factor with L levels, (La - 1)(Lb - 1) of an interaction.

    A question on a listed variant has one, on a part beside all others one.

    Raises:
        ValueError: a question's factor has no two variants that differ in it alone.
    """
    return tuple(contrast for question in plan.locked.questions for contrast in _contrasts(plan, question))


def dropped_contrasts(plan: Plan) -> tuple[Contrast, ...]:
    """Return the contrasts of the locked family that are asked no more."""
    kept = set(plan.family) - set(map(contrast_name, contrasts_of(plan)))
    found = (contrast for question in plan.dropped for contrast in _contrasts(plan, question))
    return tuple(contrast for contrast in found if contrast_name(contrast) in kept)


def contrast_name(contrast: Contrast, *, labels: Labels = NO_LABELS) -> str:
    """Return what tells a comparison from all others of a study, whatever it was asked beside."""

    def text(factor: str, level: Any) -> str:
        return labels.variant(level) if factor == LISTED else level_text(labels.level(factor, level))

    changes = " × ".join(
        f"{labels.factor(each.factor)}: {text(each.factor, each.before)} → {text(each.factor, each.after)}"
        for each in contrast.changes
    )
    at = "".join(f", {labels.factor(factor)} = {text(factor, level)}" for factor, level in contrast.at.items())
    return f"{changes}{at}" + ("" if contrast.is_primary else f" on {contrast.metric.name}")


def measured_metric(plan: Plan, name: str) -> MeasuredMetric:
    """Return a metric with the split that the per-epoch curves are drawn on written into its label."""
    metric = plan.metrics[name]
    label = metric.label.replace("held-out", plan.heldout_split)
    return MeasuredMetric(name=name, label=label, direction=metric.direction, unit=metric.unit)


def as_measured(metric: MeasuredMetric, plan: Plan, runs: Iterable[RecordedRun]) -> MeasuredMetric:
    """Return a metric in the unit that it was measured in.

    A user's training function may return what is a fraction elsewhere in percent: it is that where the median of all
    values is beyond 1.
    """
    if metric.unit != "fraction" or not plan.is_own_training:
        return metric
    values = [abs(value) for run in runs if math.isfinite(value := run.metrics.get(metric.name, math.nan))]
    return replace(metric, unit="percent") if values and median(values) > 1 else metric


def before_runs(metric: MeasuredMetric, plan: Plan) -> MeasuredMetric:
    """Return a metric in the unit that is known before it was measured.

    What a user's training function returns of a fraction may be in percent: until then it is told as it is returned.
    """
    return replace(metric, unit="score") if metric.unit == "fraction" and plan.is_own_training else metric


def factor_levels(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """Return each factor's levels: the baseline's first, then as the study file lists them."""
    declared = declared_levels(plan.study)
    return {factor: _levels(plan, factor, declared.get(factor, ())) for factor in plan.baseline.levels}


def part_factors(plan: Plan) -> tuple[str, ...]:
    """Return the factors that are a part of the model, there or not; none where a study has other factors too.

    All of them are where the design takes parts away or adds them; else those that name modules.
    """
    factors = plan.study.get("factors", {})
    if plan.study.get("design") in PART_DESIGNS:
        return tuple(factors)
    return tuple(factors) if all(map(is_part, factors.values())) else ()


def _levels(plan: Plan, factor: str, declared: Sequence[Any]) -> tuple[Any, ...]:
    baseline = plan.baseline.levels[factor]
    used = [variant.levels[factor] for variant in plan.variants]
    levels = [baseline] if baseline != NOT_VARIED else []
    for level in (*declared, *used):
        if level in used and level not in levels and level != NOT_VARIED:
            levels.append(level)
    return tuple(levels)


def level_change(plan: Plan, factor: str, before: Any, after: Any) -> LevelChange:
    """Return a factor's change, with the factor's short name."""
    label = short_names([*plan.baseline.levels, OTHERS]).get(factor, factor)
    return LevelChange(factor=factor, label=label, before=before, after=after)


def _contrasts(plan: Plan, question: LockedQuestion) -> Iterator[Contrast]:
    design = str(plan.study.get("design", "factorial"))
    conditions = conditions_of(plan.study.get("factors"))
    found = comparisons(question, plan.variants, levels=factor_levels(plan), design=design, conditions=conditions)
    for comparison in found:
        yield _contrast(plan, question, comparison)


def _contrast(plan: Plan, question: LockedQuestion, comparison: Comparison) -> Contrast:
    groups = comparison.groups
    changes = tuple(level_change(plan, each.factor, each.before, each.after) for each in comparison.changes)
    if not groups:
        named = ", ".join(change.factor for change in changes)
        raise ValueError(f"no variants of study {plan.name!r} differ in {named} alone")
    primary = plan.locked.metric.name
    name = question.on or primary
    beside = [levels for group in groups for levels in _beside(plan, group, changes) if levels]
    return Contrast(
        changes=changes,
        at=dict(question.at),
        combinations=_distinct(levels for levels in beside if levels),
        averaged_over={
            factor: _distinct(levels[factor] for levels in beside if factor in levels)
            for factor in sorted({factor for levels in beside for factor in levels})
        },
        metric=measured_metric(plan, name),
        is_primary=name == primary,
        rope=_rope(plan, question, name),
        weights={
            variant.name: sign / len(groups) / len(side)
            for group in groups
            for side, sign in zip(group, _signs(changes), strict=True)
            for variant in side
        },
        sides=tuple(_sides(comparison)),
        simple=tuple(_simple(plan, groups, changes)),
    )


def _rope(plan: Plan, question: LockedQuestion, metric: str) -> float | None:
    if question.meaningful is not None:
        return question.meaningful or None  # 0, which no file can give, is none whatever the metric has
    chosen = plan.locked.metric
    return chosen.meaningful if metric == chosen.name else plan.metrics[metric].meaningful


def _signs(changes: Sequence[LevelChange]) -> tuple[int, ...]:
    return (1, -1) if len(changes) == 1 else (1, -1, -1, 1)


def _sides(comparison: Comparison) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    for index, corner in enumerate(comparison.corners):
        yield corner, tuple(variant.name for group in comparison.groups for variant in group[index])


def _beside(plan: Plan, group: Sequence[Side], changes: Sequence[LevelChange]) -> list[dict[str, Any]]:
    """Return the combinations of levels of the factors that are not asked about and vary somewhere in a group."""
    found = _distinct(_levels_beside(plan, variant, changes) for side in group for variant in side)
    return [each for each in found if not any(each.items() < other.items() for other in found)]


def _levels_beside(plan: Plan, variant: Variant, changes: Sequence[LevelChange]) -> dict[str, Any]:
    """Return the levels of the factors that are not asked about; of parts that come and go together, as one."""
    asked = {change.factor for change in changes}
    if asked & {OTHERS, LISTED}:  # which stand for whole variants, on each of several data sets
        return {DATA: variant.levels[DATA]} if DATA in variant.levels else {}
    levels = {factor: level for factor, level in varied(variant.levels).items() if factor not in asked}
    parts = [factor for factor in levels if factor in plan.study.get("factors", {})]
    if plan.study.get("design") not in PART_DESIGNS or len(parts) < 2:
        return levels
    are_there = all(levels[part] == plan.baseline.levels[part] for part in parts)
    kept = {factor: level for factor, level in levels.items() if factor not in parts}
    return {OTHERS: "present" if are_there else "absent", **kept}


def _simple(plan: Plan, groups: Groups, changes: Sequence[LevelChange]) -> Iterator[SimpleContrast]:
    """Yield the change in each group; of an interaction, the second change at either level of the first."""
    if len(changes) == 2:
        first, second = changes
        share = 1 / len(groups)
        for level, (after, before) in ((first.before, (2, 3)), (first.after, (0, 1))):
            weights = {
                variant.name: sign / len(group[corner])
                for group in groups
                for corner, sign in ((after, share), (before, -share))
                for variant in group[corner]
            }
            yield SimpleContrast(change=second, at={first.factor: level}, weights=weights)
    elif len(groups) > 1:
        for group in groups:
            found = _beside(plan, group, changes)
            at = {
                factor: level for factor, level in found[0].items() if all(each.get(factor) == level for each in found)
            }
            weights = {each.name: sign / len(side) for side, sign in zip(group, (1, -1), strict=True) for each in side}
            yield SimpleContrast(change=changes[0], at=at, weights=weights)


def _distinct(values: Iterator[Any]) -> tuple[Any, ...]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return tuple(kept)
