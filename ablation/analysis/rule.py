"""Judges a study by another rule than the one it was locked with, and says so as a deviation."""

from dataclasses import dataclass, replace

from ablation.errors import NameUnknown
from ablation.lookup import nearest_names
from ablation.records import LockedMetric, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """What a summary judges by instead of what was locked; None leaves it as it was.

    `meaningful` is the half-width of the ROPE in the metric's unit (a fraction, nats, seconds), `alpha` the
    family-wise error rate.
    """

    metric: str | None = None
    meaningful: float | None = None
    alpha: float | None = None


def with_rule(plan: Plan, change: RuleChange) -> Plan:
    """Return the plan with a changed rule, each change added to its deviations; its locked hash stays.

    A metric that is not the locked one brings its own ROPE, where it has one.

    Raises:
        NameUnknown: there is no such metric.
    """
    locked = plan.locked
    before = metric = locked.metric
    if change.metric is not None and change.metric != before.name:
        if change.metric not in plan.metrics:
            near = nearest_names(change.metric, plan.metrics)
            raise NameUnknown("metric", change.metric, near=near, known=plan.metrics, option="--metric")
        known = plan.metrics[change.metric]
        metric = LockedMetric(name=change.metric, direction=known.direction, meaningful=known.meaningful)
    if change.meaningful is not None:
        metric = replace(metric, meaningful=change.meaningful)
    alpha = locked.alpha if change.alpha is None else change.alpha
    said = [
        f"{what} changed from {old} to {new} by this summary, after results could be seen"
        for what, old, new in (
            ("metric", before.name, metric.name),
            ("meaningful", before.meaningful, metric.meaningful),
            ("alpha", locked.alpha, alpha),
        )
        if old != new
    ]
    return replace(plan, locked=replace(locked, metric=metric, alpha=alpha), deviations=(*plan.deviations, *said))
