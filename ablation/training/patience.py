"""Says when a run has gone on for long enough without a better score on validation."""

from collections.abc import Sequence

from ablation.records import SIGNS, TASKS, EpochMetrics, TaskName


def is_out_of_patience(curve: Sequence[EpochMetrics], patience: int | None, task: TaskName) -> bool:
    """Whether the best score on the held-out split, the first where several have it, is so many epochs ago.

    It is the score that the best epoch is chosen by. A run whose loss is not finite has other reasons to end.
    """
    if patience is None or len(curve) <= patience:
        return False
    score = TASKS[task].score
    sign = SIGNS[TASKS[task].direction_of(score)]
    values = [sign * metrics.heldout[score] for metrics in curve]
    return len(values) - 1 - values.index(max(values)) >= patience
