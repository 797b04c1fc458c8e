"""Finds runs that repeat each other in every number: seeds of a variant, and variants in every seed."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ablation.analysis.analysis_record import EqualSeeds
from ablation.records import ENGINE_METRICS, TASKS, Outcome, RecordedRun

LARGEST_SPLIT = 100_000
"""Examples of a split on which two runs' shares of right answers may well be equal by chance."""
_COSTS = re.compile(
    r"(?<![a-z])(seconds?|minutes?|hours?|(wall|run)?time|wall|duration|latency|speed|throughput|memory|mib|gib|[mnu]?s)(?![a-z])",
    re.IGNORECASE,
)

Numbers = tuple[tuple[str, Any], ...]
"""What a run measured, by name: final metrics, and curves as pairs of epoch and value."""


def equal_seeds(rows: Iterable[Mapping[Any, Any]], recorded: Mapping[str, RecordedRun]) -> tuple[EqualSeeds, ...]:
    """Return the groups of seeds with equal results within a variant, from rows of the run table.

    Numbers that may be equal by chance, as accuracies are, are no sign of a repetition unless they are the same in all
    seeds of a variant; even then it is not sure.
    """
    found: dict[str, dict[Numbers, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        record = recorded.get(row["identity"])
        if record is not None and record.outcome == Outcome.DONE and (numbers := measured(record)):
            found[row["variant"]][numbers].append(int(row["seed"]))
    return tuple(
        EqualSeeds(variant=variant, seeds=tuple(sorted(seeds)), is_sure=is_sure)
        for variant, groups in found.items()
        for numbers, seeds in groups.items()
        if len(seeds) > 1 and ((is_sure := _is_telling(numbers)) or len(groups) == 1)
    )


def repeated_seeds(rows: Iterable[Mapping[Any, Any]], recorded: Mapping[str, RecordedRun]) -> tuple[int, ...]:
    """Return the seeds that are surely part of a repetition in any variant."""
    return tuple(sorted({seed for group in equal_seeds(rows, recorded) if group.is_sure for seed in group.seeds}))


def first_repetition(by_seed: Sequence[Mapping[str, float]], *, metric: str) -> int | None:
    """Return among how many first seeds of a variant one surely repeats another, by the final metrics of each.

    `metric` is one that runs that are equal have equal: only those are compared in all metrics.
    """
    known: dict[float | None, list[Numbers]] = defaultdict(list)
    for number, metrics in enumerate(by_seed, start=1):
        alike = known[None if _COSTS.search(metric) else metrics.get(metric)]
        own = _without_costs(metrics)
        if own in alike and _is_telling(own):
            return number
        alike.append(own)
    return None


def measured(record: RecordedRun) -> Numbers:
    """Return what a run measured but for time, memory and speed; its curves too where its metrics may be by chance."""
    metrics = _without_costs(record.metrics)
    if _is_telling(metrics):
        return metrics
    curves = ((f"{name} by epoch", tuple(points)) for name, points in sorted(record.curves.items()))
    return (*metrics, *(curve for curve in curves if not _COSTS.search(curve[0])))


def _without_costs(metrics: Mapping[str, float]) -> Numbers:
    return tuple(item for item in sorted(metrics.items()) if not _COSTS.search(item[0]))


def _is_telling(numbers: Numbers) -> bool:
    """Whether another run with equal numbers is the same run: losses to their last digit are not equal by chance."""
    return any(
        _is_fine(name, value)
        for name, found in numbers
        for _, value in (found if isinstance(found, tuple) else ((0, found),))
    )


def _is_fine(name: str, value: float) -> bool:
    """Whether a number is neither whole nor the share that something has of a split's examples."""
    if name in ENGINE_METRICS:
        return not _UNITS[name] & {"fraction", "seconds"}
    if not math.isfinite(value):
        return False
    nearest = Fraction(value).limit_denominator(LARGEST_SPLIT)
    return abs(value - float(nearest)) > 1e-15 * max(1.0, abs(value))


_UNITS = {name: {task.metrics[name].unit for task in TASKS.values() if name in task.metrics} for name in ENGINE_METRICS}
