"""Describes pairs of factors: the study's metric at each combination of their levels, and their interactions."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from ablation.analysis.answer_records import Difference, LevelChange
from ablation.analysis.contrasts import factor_levels, level_change
from ablation.analysis.descriptive_records import FactorCell, FactorPair, PairedInteraction, SeedValue
from ablation.analysis.finished import FinishedRuns, difference_of, seed_values
from ablation.analysis.statistics import without_rounding_error
from ablation.records import Variant


def factor_pairs(finished: FinishedRuns, unstable: frozenset[str]) -> tuple[FactorPair, ...]:
    """Return the pairs of factors that are fully crossed; `unstable` names variants with a collapsed run.

    Fully crossed: each level of one occurs with each level of the other, beside the same levels of all other factors.
    """
    levels = factor_levels(finished.plan)
    values = _whole_variants(finished, unstable)
    pairs = (_pair(finished, first, second, levels, values) for first, second in itertools.combinations(levels, 2))
    return tuple(pair for pair in pairs if pair is not None)


def _whole_variants(finished: FinishedRuns, unstable: frozenset[str]) -> dict[str, tuple[SeedValue, ...]]:
    """Return the study's metric by variant and seed, for the variants all of whose planned runs have it."""
    metric = finished.plan.locked.metric.name
    found = {}
    for variant in finished.variants:
        values = seed_values(finished.done(variant), metric)
        if variant.name not in unstable and {value.seed for value in values} == finished.seeds(variant.name):
            found[variant.name] = values
    return found


def _pair(
    finished: FinishedRuns,
    first: str,
    second: str,
    levels: Mapping[str, Sequence[Any]],
    values: Mapping[str, tuple[SeedValue, ...]],
) -> FactorPair | None:
    corners = [{first: one, second: two} for one in levels[first] for two in levels[second]]
    variants = [_with_levels(finished.plan.variants, corner) for corner in corners]
    beside = [_other_levels(own, (first, second)) for own in variants]
    if not beside[0] or any(other != beside[0] for other in beside):
        return None
    cells = [
        _cell(corner, [values.get(variant.name, ()) for variant in own])
        for corner, own in zip(corners, variants, strict=True)
    ]
    changes = itertools.product(*(_changes(finished, factor, levels[factor]) for factor in (first, second)))
    found = (_interaction(finished, change, other, cells) for change, other in changes)
    return FactorPair(
        first=first,
        second=second,
        cells=tuple(cells),
        interactions=tuple(interaction for interaction in found if interaction is not None),
    )


def _with_levels(variants: Sequence[Variant], levels: Mapping[str, Any]) -> list[Variant]:
    return [variant for variant in variants if all(variant.levels[name] == level for name, level in levels.items())]


def _other_levels(variants: Sequence[Variant], factors: tuple[str, str]) -> list[str]:
    """Return the levels beside two factors, in an order and form that can be compared."""
    return sorted(
        repr([(name, level) for name, level in variant.levels.items() if name not in factors]) for variant in variants
    )


def _changes(finished: FinishedRuns, factor: str, levels: Sequence[Any]) -> list[LevelChange]:
    return [level_change(finished.plan, factor, levels[0], level) for level in levels[1:]]


def _cell(levels: Mapping[str, Any], values: Sequence[tuple[SeedValue, ...]]) -> FactorCell:
    """Average the variants of a cell in each seed that is planned for all of them."""
    by_variant = [{value.seed: value for value in own} for own in values]
    seeds = sorted(set.intersection(*(set(own) for own in by_variant)))
    averaged = tuple(
        SeedValue(
            seed=seed,
            value=float(np.mean([own[seed].value for own in by_variant])),
            run_ids=tuple(run_id for own in by_variant for run_id in own[seed].run_ids),
        )
        for seed in seeds
    )
    mean = float(np.mean([value.value for value in averaged])) if averaged else None
    return FactorCell(levels=levels, values=averaged, mean=mean)


def _interaction(
    finished: FinishedRuns, first: LevelChange, second: LevelChange, cells: Sequence[FactorCell]
) -> PairedInteraction | None:
    def value_by_seed(one: Any, two: Any) -> dict[int, float]:
        wanted = {first.factor: one, second.factor: two}
        cell = next(cell for cell in cells if cell.levels == wanted)
        return {value.seed: value.value for value in cell.values}

    corners = [value_by_seed(one, two) for one in (first.after, first.before) for two in (second.after, second.before)]
    seeds = sorted(set.intersection(*(set(corner) for corner in corners)))
    if not seeds:
        return None
    values = [[corner[seed] for corner in corners] for seed in seeds]
    return PairedInteraction(
        first=first,
        second=second,
        difference=difference_of(
            [_difference_of_differences(each) for each in values], test_to_train=finished.plan.test_to_train
        ),
        in_logits=_in_logits(
            values,
            finished.plan.metrics[finished.plan.locked.metric.name].unit,
            test_to_train=finished.plan.test_to_train,
        ),
    )


def _in_logits(values: Sequence[Sequence[float]], unit: str, *, test_to_train: float) -> Difference | None:
    if unit != "fraction" or not all(0 < value < 1 for each in values for value in each):
        return None
    return difference_of(
        [_difference_of_differences([float(special.logit(value)) for value in each]) for each in values],
        test_to_train=test_to_train,
    )


def _difference_of_differences(values: Sequence[float]) -> float:
    """Return the difference of differences, exactly 0 where it is what rounding leaves of equal numbers."""
    both, first, second, neither = values
    return without_rounding_error([both, -first, -second, neither])
