"""Finds what an answer must not be read without: effects that turn round, and other metrics that got worse."""

from collections.abc import Sequence

from ablation.analysis.answer_records import SimpleEffect, WorseMetric
from ablation.analysis.contrasts import Contrast, measured_metric
from ablation.analysis.finished import difference_of
from ablation.analysis.joint import sure_sign
from ablation.analysis.seed_differences import Runs, seed_differences
from ablation.records import SIGNS, Plan

_OF_TRAINING = ("final_train_accuracy", "final_train_loss", "generalization_gap")
"""Metrics that tell how training went and not how good the model is: dropout, say, is meant to make them worse."""


def is_crossover(effects: Sequence[SimpleEffect], contrast: Contrast) -> bool:
    """Whether an effect surely goes one way at some setting, the other way at another, and matters at both."""
    return len(contrast.changes) == 1 and {1, -1} <= {effect_sign(effect, contrast.rope) for effect in effects}


def effect_sign(effect: SimpleEffect, rope: float | None) -> int:
    """Return the way that a simple effect surely goes, 0 where its 95 % interval holds 0 or its mean is in the ROPE."""
    if effect.interval is None or abs(effect.mean) <= (rope or 0.0):
        return 0
    return effect.interval.sign


def worse_metrics(contrast: Contrast, runs: Runs, plan: Plan) -> tuple[WorseMetric, ...]:
    """Return the other metrics of quality that the change surely makes worse, of those that every run has."""
    own = seed_differences(contrast.weights, runs, contrast.metric.name)
    found = []
    for name in _quality_metrics(plan, but=contrast.metric.name):
        values = [each.difference for each in seed_differences(contrast.weights, runs, name)]
        metric = measured_metric(plan, name)
        if not values or len(values) != len(own):
            continue
        difference = difference_of(values, test_to_train=runs.test_to_train)
        if SIGNS[metric.direction] * sure_sign(difference) < 0:
            found.append(WorseMetric(metric=metric, difference=difference))
    return tuple(found)


def _quality_metrics(plan: Plan, *, but: str) -> tuple[str, ...]:
    """Return the metrics of a study that say how good a model is, without one of them: no times, nothing of training.

    Where the metric itself is of training, the others of training count too.
    """
    left_out = () if but in _OF_TRAINING else _OF_TRAINING
    return tuple(
        name
        for name, metric in plan.metrics.items()
        if name != but and name not in left_out and metric.unit != "seconds"
    )
