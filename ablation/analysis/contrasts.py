"""Turns a plan's questions into contrasts: which variants a comparison weighs against which."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.analysis.records import LevelChange, MeasuredMetric
from ablation.results import METRICS, Plan, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class SimpleContrast:
    """One change at one setting of the other factors."""

    change: LevelChange
    at: Mapping[str, Any]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """One comparison of a question: `weights` by variant, `sides` the variants by the levels that are compared."""

    changes: tuple[LevelChange, ...]
    averaged_over: Mapping[str, tuple[Any, ...]]
    metric: MeasuredMetric
    is_primary: bool
    rope: float | None
    weights: Mapping[str, float]
    sides: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]
    simple: tuple[SimpleContrast, ...]


def contrasts_of(plan: Plan) -> tuple[Contrast, ...]:
    """Return the family: L - 1 contrasts of a question on a factor with L levels, (La - 1)(Lb - 1) of an interaction.

    Raises:
        ValueError: a question's factor has no two variants that differ in it alone.
    """
    return tuple(contrast for question in plan.locked["questions"] for contrast in _contrasts(plan, question))


def measured_metric(plan: Plan, name: str) -> MeasuredMetric:
    """Return a metric with the split that the per-epoch curves are drawn on written into its label."""
    metric = METRICS[name]
    label = metric.label.replace("held-out", plan.heldout_split)
    return MeasuredMetric(name=name, label=label, direction=metric.direction, unit=metric.unit)


def factor_levels(plan: Plan) -> dict[str, tuple[Any, ...]]:
    """Return each factor's levels: the baseline's first, then as the study file lists them."""
    return {factor: _levels(plan, factor) for factor in plan.baseline.levels}


def _levels(plan: Plan, factor: str) -> tuple[Any, ...]:
    baseline = plan.baseline.levels[factor]
    used = [variant.levels[factor] for variant in plan.variants]
    listed = plan.study.get("factors", {}).get(factor, used)
    levels = [baseline]
    for level in (*listed, *used):
        if level in used and level not in levels:
            levels.append(level)
    return tuple(levels)


def _contrasts(plan: Plan, question: Mapping[str, Any]) -> Iterator[Contrast]:
    factors = [question["effect"]] if question.get("effect") else list(question["interaction"])
    changes = [
        [level_change(plan, factor, first, level) for level in others]
        for factor, (first, *others) in ((factor, _levels(plan, factor)) for factor in factors)
    ]
    for chosen in itertools.product(*changes):
        yield _contrast(plan, question, chosen)


def level_change(plan: Plan, factor: str, before: Any, after: Any) -> LevelChange:
    """Return a factor's change, with the factor's short name."""
    return LevelChange(factor=factor, label=_label(plan, factor), before=before, after=after)


def _label(plan: Plan, factor: str) -> str:
    """Return the last part of a factor's path, or the whole where another factor shares it, as in variants' names."""
    short = factor.rpartition(".")[2]
    return short if [other.rpartition(".")[2] for other in plan.baseline.levels].count(short) == 1 else factor


def _contrast(plan: Plan, question: Mapping[str, Any], changes: tuple[LevelChange, ...]) -> Contrast:
    blocks = list(_blocks(plan, changes))
    if not blocks:
        named = ", ".join(change.factor for change in changes)
        raise ValueError(f"no variants of study {plan.name!r} differ in {named} alone")
    primary = plan.locked["metric"]["name"]
    name = question.get("on") or primary
    varied = {factor for factor in plan.baseline.levels if factor not in {change.factor for change in changes}}
    return Contrast(
        changes=changes,
        averaged_over={factor: _distinct(block[0].levels[factor] for block in blocks) for factor in sorted(varied)},
        metric=measured_metric(plan, name),
        is_primary=name == primary,
        rope=_rope(plan, question, name),
        weights={
            variant.name: sign / len(blocks)
            for block in blocks
            for variant, sign in zip(block, _signs(changes), strict=True)
        },
        sides=tuple(_sides(blocks, changes)),
        simple=tuple(_simple(blocks, changes)),
    )


def _rope(plan: Plan, question: Mapping[str, Any], metric: str) -> float | None:
    if question.get("meaningful") is not None:
        return float(question["meaningful"])
    chosen = plan.locked["metric"]
    meaningful = chosen.get("meaningful") if metric == chosen["name"] else METRICS[metric].meaningful
    return None if meaningful is None else float(meaningful)


def _corners(changes: Sequence[LevelChange]) -> list[dict[str, Any]]:
    """Return the combinations of the levels compared: (after, before), or (both, first alone, second alone, none)."""
    levels = itertools.product(*((change.after, change.before) for change in changes))
    return [{change.factor: level for change, level in zip(changes, corner, strict=True)} for corner in levels]


def _signs(changes: Sequence[LevelChange]) -> tuple[int, ...]:
    return (1, -1) if len(changes) == 1 else (1, -1, -1, 1)


def _blocks(plan: Plan, changes: Sequence[LevelChange]) -> Iterator[tuple[Variant, ...]]:
    """Yield the variants of every corner that are equal in all other factors, in the order of the factors' levels."""
    others = {factor: levels for factor, levels in factor_levels(plan).items() if factor not in _corners(changes)[0]}
    for combination in itertools.product(*others.values()):
        rest = dict(zip(others, combination, strict=True))
        block = [_find(plan, {**rest, **corner}) for corner in _corners(changes)]
        if all(block):
            yield tuple(variant for variant in block if variant is not None)


def _find(plan: Plan, levels: Mapping[str, Any]) -> Variant | None:
    return next((variant for variant in plan.variants if dict(variant.levels) == levels), None)


def _sides(
    blocks: Sequence[tuple[Variant, ...]], changes: Sequence[LevelChange]
) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
    for index, corner in enumerate(_corners(changes)):
        yield corner, tuple(block[index].name for block in blocks)


def _simple(blocks: Sequence[tuple[Variant, ...]], changes: Sequence[LevelChange]) -> Iterator[SimpleContrast]:
    """Yield the change in each block; of an interaction, the second change at either level of the first."""
    if len(changes) == 2:
        first, second = changes
        share = 1 / len(blocks)
        for level, (after, before) in ((first.before, (2, 3)), (first.after, (0, 1))):
            weights = {
                block[corner].name: sign for block in blocks for corner, sign in ((after, share), (before, -share))
            }
            yield SimpleContrast(change=second, at={first.factor: level}, weights=weights)
    elif len(blocks) > 1:
        for after_variant, before_variant in blocks:
            at = {factor: level for factor, level in after_variant.levels.items() if factor != changes[0].factor}
            yield SimpleContrast(change=changes[0], at=at, weights={after_variant.name: 1, before_variant.name: -1})


def _distinct(values: Iterator[Any]) -> tuple[Any, ...]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return tuple(kept)
