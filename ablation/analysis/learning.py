"""Describes how runs learn, from their curves: epochs to a target, loss at equal training loss, the best epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from ablation.analysis import statistics
from ablation.analysis.descriptive_records import BestEpoch, LearningTarget, MatchedLoss, Points, TargetRow
from ablation.analysis.finished import FinishedRuns, by_seed, curve, run_ids, spread_of
from ablation.records import DATA, SIGNS, TASKS, Direction, RecordedRun, Variant

TARGETS: Mapping[Direction, tuple[float, ...]] = {"maximize": (0.90, 0.95, 1.0), "minimize": (1.10, 1.05, 1.0)}
"""Shares of the baseline's median held-out score after the last epoch that all runs have, by which way is better."""


def learning_targets(finished: FinishedRuns) -> tuple[LearningTarget, ...]:
    """Return how fast each variant reached each target; none where the baseline has no curve."""
    name, direction = _followed(finished)
    runs = {variant.name: [run for run in finished.done(variant) if curve(run, name)] for variant in finished.variants}
    base = runs[finished.plan.baseline.name]
    if not base or DATA in finished.plan.baseline.levels:
        return ()  # a share of what is reached on one data set says nothing of another
    last = min(curve(run, name)[-1][0] for own in runs.values() for run in own)
    reached = float(np.median([_value_at(curve(run, name), last) for run in base]))
    found = []
    for share in TARGETS[direction]:
        value = share * reached
        epochs = {
            variant: {run.planned.seed: _first_epoch(curve(run, name), value, last, direction) for run in own}
            for variant, own in runs.items()
        }
        times = _times(finished, epochs, last=last)
        rows = [
            _target_row(finished, variant, runs[variant.name], list(epochs[variant.name].values()), times)
            for variant in finished.variants
            if runs[variant.name]
        ]
        found.append(LearningTarget(share_of_baseline=share, value=value, rows=tuple(rows)))
    return tuple(found)


def matched_losses(finished: FinishedRuns) -> tuple[MatchedLoss, ...]:
    """Return each variant's held-out loss against the baseline's, at the lowest training loss that all reached.

    A variant is left out where a run is missing, or had passed that loss before its first epoch ended.
    """
    found = (_matched_loss(finished, variant) for variant in finished.others)
    return tuple(row for row in found if row is not None)


def best_epochs(finished: FinishedRuns) -> tuple[BestEpoch, ...]:
    """Return how much better the best epoch of each run's held-out score is than its last, by variant."""
    name, direction = _followed(finished)
    sign = SIGNS[direction]
    found = []
    for variant in finished.variants:
        runs = [run for run in finished.done(variant) if curve(run, name)]
        if not runs:
            continue
        best = [max(curve(run, name), key=lambda point: (sign * point[1], -point[0])) for run in runs]
        last = [curve(run, name)[-1][1] for run in runs]
        found.append(
            BestEpoch(
                variant=variant.name,
                n=len(runs),
                last=float(np.mean(last)),
                best=float(np.mean([value for _, value in best])),
                optimism=spread_of([sign * (value - end) for (_, value), end in zip(best, last, strict=True)]),
                median_epoch=float(np.median([epoch for epoch, _ in best])),
                run_ids=run_ids(runs),
            )
        )
    return tuple(found)


def loss_at(train: Points, heldout: Points, level: float) -> float | None:
    """Return the held-out loss where the training loss first falls to a level, between epochs by interpolation.

    None where it never does, or had before the first epoch ended.
    """
    held = dict(heldout)
    points = [(loss, held[epoch]) for epoch, loss in train if epoch in held]
    if points and points[0][0] == level:
        return points[0][1]
    for (before, start), (after, end) in pairwise(points):
        if before > level >= after:
            return start + (end - start) * (before - level) / (before - after)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """Restricted epochs, and seconds of training until then, by variant's name and seed."""

    epochs: Mapping[str, Mapping[int, float]]
    seconds: Mapping[str, Mapping[int, float]]


def _times(finished: FinishedRuns, first_epochs: Mapping[str, Mapping[int, int | None]], *, last: int) -> _Times:
    """Restrict the first epochs at a target, None where it was not reached, to the last epoch."""
    epochs = {
        name: {seed: float(last if epoch is None else epoch) for seed, epoch in own.items()}
        for name, own in first_epochs.items()
    }
    seconds = {
        variant.name: by_seed(finished.done(variant), partial(_seconds_until, epochs[variant.name]))
        for variant in finished.variants
        if finished.is_timed_alike
    }
    return _Times(epochs=epochs, seconds=seconds)


def _seconds_until(epochs: Mapping[int, float], run: RecordedRun) -> float | None:
    """Return the seconds that a run trained for until its restricted epoch."""
    points = curve(run, "epoch_seconds")
    summed = dict(zip([epoch for epoch, _ in points], accumulate(value for _, value in points), strict=True))
    return summed.get(int(epochs[run.planned.seed])) if run.planned.seed in epochs else None


def _target_row(
    finished: FinishedRuns,
    variant: Variant,
    runs: Sequence[RecordedRun],
    first_epochs: Sequence[int | None],
    times: _Times,
) -> TargetRow:
    epochs, seconds = (list(own.get(variant.name, {}).values()) for own in (times.epochs, times.seconds))
    reached = sum(epoch is not None for epoch in first_epochs)
    is_baseline = variant.is_baseline
    return TargetRow(
        variant=variant.name,
        n=len(runs),
        reached=reached,
        share=statistics.share_interval(reached, len(runs)),
        epochs=spread_of(epochs),
        seconds=spread_of(seconds) if len(seconds) == len(runs) else None,
        epochs_difference=None if is_baseline else finished.paired(variant, times.epochs),
        seconds_difference=None if is_baseline else finished.paired(variant, times.seconds),
        run_ids=run_ids(runs),
    )


def _matched_loss(finished: FinishedRuns, variant: Variant) -> MatchedLoss | None:
    split = finished.plan.heldout_split
    pair = (variant, finished.plan.reference(variant))
    runs = [finished.done(each) for each in pair]
    lowest = [min((loss for _, loss in curve(run, "train_sample_loss")), default=None) for own in runs for run in own]
    reached = [loss for loss in lowest if loss is not None]
    if not reached or len(reached) < len(lowest):
        return None
    level = max(reached)
    losses = {
        each.name: by_seed(
            own, lambda run: loss_at(curve(run, "train_sample_loss"), curve(run, f"{split}_loss"), level)
        )
        for each, own in zip(pair, runs, strict=True)
    }
    difference = finished.paired(variant, losses)
    if difference is None:
        return None
    own, base = (float(np.mean(list(losses[each.name].values()))) for each in pair)
    return MatchedLoss(
        variant=variant.name,
        train_loss=level,
        heldout_loss=own,
        baseline_heldout_loss=base,
        difference=difference,
        run_ids=run_ids([run for own_runs in runs for run in own_runs]),
    )


def _value_at(points: Points, epoch: int) -> float:
    """Return the value after an epoch, or after the one before it that has one."""
    return next((value for at, value in reversed(points) if at <= epoch), points[0][1])


def _first_epoch(points: Points, target: float, last: int, direction: Direction) -> int | None:
    sign = SIGNS[direction]
    return next((epoch for epoch, value in points if sign * value >= sign * target and epoch <= last), None)


def _followed(finished: FinishedRuns) -> tuple[str, Direction]:
    """Return the curve of the task's score on the held-out split, and which way is better."""
    task = TASKS[finished.plan.task]
    return f"{finished.plan.heldout_split}_{task.score}", task.scores[task.score].direction
