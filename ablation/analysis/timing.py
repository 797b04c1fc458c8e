"""Says how long training takes, by medians: the first run of a worker also takes what is imported and prepared once."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ablation.analysis.descriptive_records import Timing
from ablation.records import RecordedRun

RunsByVariant = Mapping[str, Sequence[RecordedRun]]


def usual_runs(runs: Sequence[RecordedRun]) -> Sequence[RecordedRun]:
    """Return the runs that were not the first of their worker, or all of them where each was."""
    return [run for run in runs if not run.is_first] or runs


def timing_of(
    runs: Sequence[RecordedRun], seconds: Callable[[RecordedRun], float | None] | None = None
) -> Timing | None:
    """Return what usual runs took, by default their seconds of training; None where none of them was timed."""
    measure = seconds or _training_seconds
    found = [value for run in usual_runs(runs) if (value := measure(run)) is not None and math.isfinite(value)]
    if not found:
        return None
    # Deciles: by the quartiles, two variants whose times only the machine's load had changed were told apart.
    first, median, ninth = np.quantile(found, (0.1, 0.5, 0.9))
    return Timing(
        n=len(found),
        median=float(median),
        spread=float(ninth - first) if len(found) > 1 else None,
        minimum=min(found),
        maximum=max(found),
    )


def timings_alike(runs: RunsByVariant) -> Mapping[str, Timing] | None:
    """Return each variant's timing, all of usual runs or all of first ones; None where one has fewer than two."""
    for is_first in (False, True):
        found = {name: timing_of([run for run in own if run.is_first is is_first]) for name, own in runs.items()}
        timed = {name: timing for name, timing in found.items() if timing is not None and timing.spread is not None}
        if len(timed) == len(runs):
            return timed
    return None


def is_told_apart(after: Sequence[Timing], before: Sequence[Timing]) -> bool:
    """Whether two sums of medians differ by more than runs of the same variant do, or not at all.

    How much those differ is the root of the summed squares of the variants' spreads, which all of them must have.
    """
    difference = abs(total(after) - total(before))
    return math.hypot(*(timing.spread or 0.0 for timing in (*after, *before))) <= difference


def total(timings: Sequence[Timing]) -> float:
    return sum(timing.median for timing in timings)


def _training_seconds(run: RecordedRun) -> float | None:
    return run.metrics.get("training_seconds")
