"""Finds seeds that repeat each other: runs of a variant whose results are equal in every number."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ablation.analysis.document import EqualSeeds
from ablation.results import METRICS, Outcome


def equal_seeds(rows: Iterable[Mapping[Any, Any]]) -> tuple[EqualSeeds, ...]:
    """Return the groups of seeds with equal results within a variant, from rows of the run table."""
    # Accuracies are equal by chance on a small split, losses to their last digit are not; times never repeat.
    compared = [name for name, metric in METRICS.items() if metric.unit != "seconds"]
    telling = [name for name, metric in METRICS.items() if metric.unit == "nats"]
    seeds_by_result: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in rows:
        if row["outcome"] == Outcome.DONE and any(math.isfinite(row.get(name, math.nan)) for name in telling):
            seeds_by_result[row["variant"], *(repr(row.get(name)) for name in compared)].append(int(row["seed"]))
    return tuple(
        EqualSeeds(variant=variant, seeds=tuple(sorted(seeds)))
        for (variant, *_), seeds in seeds_by_result.items()
        if len(seeds) > 1
    )


def repeated_seeds(rows: Iterable[Mapping[Any, Any]]) -> tuple[int, ...]:
    """Return the seeds that are part of a repetition in any variant."""
    return tuple(sorted({seed for group in equal_seeds(rows) for seed in group.seeds}))
