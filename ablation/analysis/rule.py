"""Judges a study by another rule than the one it was locked with, and says so as a deviation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ablation.analysis.contrasts import contrast_name, contrasts_of
from ablation.errors import NameUnknown
from ablation.lookup import nearest_names
from ablation.records import LockedMetric, LockedQuestion, Plan
from ablation.study.level_names import level_text

_SEEN = "by this summary, after results could be seen"


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

    A metric that is not the locked one brings its own ROPE, where it has one; what questions that are judged on it had
    of their own was in the locked metric's unit, and is left out. Questions on a metric that they name stay what they
    were. `meaningful` applies to the questions on the metric that have none of their own.

    Raises:
        NameUnknown: there is no such metric.
    """
    locked = plan.locked
    before, metric = locked.metric, _metric(plan, change.metric)
    questions, dropped = (
        tuple(_carried_over(question, before, metric) for question in asked)
        for asked in (locked.questions, plan.dropped)
    )
    kept = [question for question in questions if _is_on(question, metric) and question.meaningful is None]
    if change.meaningful is not None and kept:
        metric = replace(metric, meaningful=change.meaningful)
    alpha = locked.alpha if change.alpha is None else change.alpha
    said = [
        f"{what} changed from {old} to {new} {_SEEN}{only}"
        for what, old, new, only in (
            ("metric", before.name, metric.name, ""),
            ("meaningful", before.meaningful, metric.meaningful, _only(kept, questions)),
            ("alpha", locked.alpha, alpha, ""),
        )
        if old != new
    ]
    if change.meaningful is not None and not kept:
        said.append(f"meaningful of {change.meaningful} was asked for {_SEEN}, and applies to no question")
    said += _left_out(locked.questions, questions, before)
    changed = replace(plan, locked=replace(locked, metric=metric, alpha=alpha, questions=questions), dropped=dropped)
    return replace(changed, family=_family(plan, changed), deviations=(*plan.deviations, *said))


def _metric(plan: Plan, name: str | None) -> LockedMetric:
    if name is None or name == plan.locked.metric.name:
        return plan.locked.metric
    if name not in plan.metrics:
        near = nearest_names(name, plan.metrics)
        raise NameUnknown("metric", name, near=near, known=plan.metrics, option="--metric")
    known = plan.metrics[name]
    return LockedMetric(name=name, direction=known.direction, meaningful=known.meaningful)


def _carried_over(question: LockedQuestion, before: LockedMetric, metric: LockedMetric) -> LockedQuestion:
    """Return a question as it is asked beside another primary metric: each `meaningful` in its own metric's unit."""
    if metric.name == before.name:
        return question
    if question.on is None:
        return replace(question, meaningful=None)
    if question.on == before.name and question.meaningful is None:
        return replace(question, meaningful=before.meaningful or 0.0)
    return question


def _is_on(question: LockedQuestion, metric: LockedMetric) -> bool:
    return question.on in (None, metric.name)


def _only(kept: Sequence[LockedQuestion], questions: Sequence[LockedQuestion]) -> str:
    """Say which questions a ROPE of the study's metric is not for."""
    others = [_asked(question) for question in questions if question not in kept]
    return f"; not for {', '.join(others)}: on another metric, or with a meaningful of its own" if others else ""


def _left_out(before: Sequence[LockedQuestion], after: Sequence[LockedQuestion], metric: LockedMetric) -> Iterator[str]:
    for old, new in zip(before, after, strict=True):
        if old.meaningful is not None and new.meaningful is None:
            yield f"meaningful of {_asked(old)}, {old.meaningful}, left out {_SEEN}: it was that of {metric.name}"


def _asked(question: LockedQuestion) -> str:
    """Name a question: `the effect of model.depth at model.width = 8 on test_loss`."""
    asked = f"variant {question.variant}" if question.variant else f"the effect of {question.effect}"
    if question.interaction is not None:
        asked = f"the interaction of {' and '.join(question.interaction)}"
    for factor, (first, second) in question.levels.items():
        asked += f" between {level_text(first)} and {level_text(second)}" + (
            f" of {factor}" * bool(question.interaction)
        )
    at = ", ".join(f"{factor} = {level_text(level)}" for factor, level in question.at.items())
    return asked + (f" at {at}" if at else "") + (f" on {question.on}" if question.on is not None else "")


def _family(before: Plan, after: Plan) -> tuple[str, ...]:
    """Return the locked family by the names that its comparisons have beside another primary metric."""
    whole = [replace(plan, locked=replace(plan.locked, questions=plan.every_question)) for plan in (before, after)]
    pairs = zip(*map(contrasts_of, whole), strict=True)
    renamed = {contrast_name(old): contrast_name(new) for old, new in pairs} if before.family else {}
    return tuple(renamed.get(name, name) for name in before.family)
