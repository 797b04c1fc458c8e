"""Compares any two variants, of one study or of two: a verdict on the primary metric, and all others descriptively."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ablation.analysis import statistics
from ablation.analysis.answer_records import CrossedEffect, Difference, MeasuredMetric, Verdict, Wins
from ablation.analysis.confusion import correct_answers
from ablation.analysis.crossed import crossed_effect
from ablation.analysis.descriptive_records import FoldCorrection, Spread
from ablation.analysis.finished import FinishedRuns, difference_of, metric_by_seed, run_ids, spread_of
from ablation.analysis.looks import StudyLooks
from ablation.analysis.pairing import Pairing, Side, pairing_of
from ablation.analysis.pairs import JudgedPair, judged_pair
from ablation.analysis.table import has_collapsed
from ablation.analysis.verdicts import wins_of
from ablation.errors import FoldsApart, NameUnknown, StudiesApart
from ablation.lookup import nearest_names
from ablation.records import InputNoun, ModelSummary, Outcome, Plan, RecordedRun, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """A metric of two variants: spreads over their done runs; second minus first, and its wins where it is paired.

    The interval is unadjusted, at 95 %: paired by seed, or Welch's, of which `n` is the smaller number of seeds.
    """

    metric: MeasuredMetric
    first: Spread | None
    second: Spread | None
    difference: Difference | None
    wins: Wins | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two variants side by side; `withheld` says why differences are not given, where they are not.

    `judged` is the verdict on the primary metric, None of a variant with itself and of seconds that were measured on
    more than one host or device. `second_study` is `study` where both are of one; `metrics` are those that both studies
    have, `not_compared` says of which metrics that is not so, and why.
    """

    study: str
    second_study: str
    first: str
    second: str
    judged: JudgedPair | None
    pairing: Pairing
    metrics: tuple[ComparedMetric, ...]
    not_compared: tuple[str, ...]
    crossed: CrossedEffect | None
    withheld: tuple[str, ...]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    run_ids: tuple[str, ...]
    inputs: InputNoun = "images"
    folds: FoldCorrection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStudy:
    """A study to compare variants of: its plan and its runs; out of budget, it needs none that were not begun."""

    plan: Plan
    runs: Sequence[RecordedRun]
    is_out_of_budget: bool = False


def compare_variants(
    plan: Plan, runs: Sequence[RecordedRun], first: str, second: str, *, is_out_of_budget: bool = False
) -> Comparison:
    """Compare two variants of a study, named as in the run table.

    Raises:
        NameUnknown: the study has no such variant.
    """
    one = _side(RecordedStudy(plan=plan, runs=runs, is_out_of_budget=is_out_of_budget), first)
    return _comparison(one, Side(looks=one.looks, finished=one.finished, variant=_variant(one.finished.plan, second)))


def compare_studies(first: tuple[RecordedStudy, str], second: tuple[RecordedStudy, str]) -> Comparison:
    """Compare a variant of one study with a variant of another.

    Their runs are paired by seed where a seed means the same in both (see `pairing_of`), else compared as two samples.

    Raises:
        NameUnknown: a study has no such variant.
        StudiesApart: they are not judged on the same metric.
        FoldsApart: replicates of either are folds, and they are not the same in both.
    """
    one, other = (_side(study, name) for study, name in (first, second))
    _check_metrics(one, other)
    return _comparison(one, other)


def _side(study: RecordedStudy, name: str) -> Side:
    looks = StudyLooks.of(study.plan.of_trained_models(), study.runs, is_out_of_budget=study.is_out_of_budget)
    plan = looks.plan_so_far
    finished = FinishedRuns(plan=plan, recorded=looks.recorded)
    return Side(looks=looks, finished=finished, variant=_variant(plan, name))


def _variant(plan: Plan, name: str) -> Variant:
    known = {variant.name: variant for variant in plan.variants}
    if name not in known:
        raise NameUnknown("variant", name, near=nearest_names(name, known), known=known, option="compare")
    return known[name]


def _check_metrics(first: Side, second: Side) -> None:
    """See that both studies are judged on the same metric.

    Raises:
        StudiesApart: they are not.
    """
    names = [side.looks.plan.locked.metric.name for side in (first, second)]
    texts = _apart(first, second, names[0]) if names[0] == names[1] else (names[0], names[1])
    if texts is not None:
        raise StudiesApart((first.study, second.study), texts)


def _apart(first: Side, second: Side, name: str) -> tuple[str, str] | None:
    """Return what a metric is in either study where it is not the same, None where it is."""
    found = [side.metric(name) for side in (first, second)]
    codes = [str(side.looks.plan.metric_code.get(name, "")) for side in (first, second)]
    for one, other in (
        (found[0].direction, found[1].direction),
        (f"in {found[0].unit}", f"in {found[1].unit}"),
        (f"by the code {codes[0][:8]}", f"by the code {codes[1][:8]}"),
    ):
        if one != other:
            return f"{name} {one}", f"{name} {other}"
    return None


def _comparison(first: Side, second: Side) -> Comparison:
    sides, pairing = (first, second), pairing_of(first, second)
    if not pairing.is_paired and any(side.finished.plan.replicates for side in sides):
        raise FoldsApart((first.study, second.study), pairing.differs)
    names = [name for name in first.finished.plan.metrics if name in second.finished.plan.metrics]
    apart = {name: texts for name in names if (texts := _apart(first, second, name)) is not None}
    reasons = [reason for side in sides for reason in _reasons(side, pairing)]
    withheld = tuple(dict.fromkeys(text for _, text in reasons))
    is_given = not withheld and not _is_same(first, second)
    judged_on = first.looks.plan.locked.metric.name
    is_judged = not _is_same(first, second) and not _is_timed_apart(first, second, first.metric(judged_on))
    kinds = [kind for kind, _ in reasons]
    verdict = next((kind for kind in (Verdict.INCOMPLETE, Verdict.UNSTABLE) if kind in kinds), None)
    return Comparison(
        study=first.study,
        second_study=second.study,
        first=first.variant.name,
        second=second.variant.name,
        judged=judged_pair(first, second, pairing, withheld=verdict) if is_judged else None,
        pairing=pairing,
        metrics=tuple(_compared(sides, pairing, name, is_given=is_given) for name in names if name not in apart),
        not_compared=tuple(f"{one} and {other}" for one, other in apart.values()),
        crossed=_crossed(sides, pairing) if not withheld else None,
        withheld=withheld,
        parameters=(_summary(first).parameters, _summary(second).parameters),
        flops=(_summary(first).flops, _summary(second).flops),
        run_ids=run_ids([run for side in sides for run in side.finished.of(side.variant)]),
        inputs=first.finished.plan.data.shape.inputs,
        folds=FoldCorrection.of(first.finished.plan),
    )


def _is_same(first: Side, second: Side) -> bool:
    return first.looks is second.looks and first.variant == second.variant


def _summary(side: Side) -> ModelSummary:
    return side.finished.plan.summaries[side.variant.name]


def _reasons(side: Side, pairing: Pairing) -> Iterator[tuple[Verdict, str]]:
    """Yield which runs of a variant leave a hole or are unstable, of the seeds that are compared."""
    finished, name = side.finished, side.variant.name
    seeds = set(pairing.seeds) if pairing.is_paired else finished.seeds(name)
    runs = [run for run in finished.of(side.variant) if run.planned.seed in seeds]
    without = sorted(seeds - {run.planned.seed for run in runs})
    diverged = [run.planned.seed for run in runs if run.outcome == Outcome.DIVERGED]
    collapsed = [run.planned.seed for run in runs if has_collapsed(finished.plan, run)]
    for those, verdict, what in (
        (without, Verdict.INCOMPLETE, "has no result"),
        (diverged, Verdict.UNSTABLE, "diverged"),
        (collapsed, Verdict.UNSTABLE, "collapsed"),
    ):
        if those:
            yield verdict, f"{name} {what} with seed{'s' if len(those) > 1 else ''} {', '.join(map(str, those))}"


def _is_timed_apart(first: Side, second: Side, metric: MeasuredMetric) -> bool:
    """Whether a metric is in seconds that were measured on more than one host or device."""
    places = {place for side in (first, second) for place in side.finished.timed_at}
    return metric.unit == "seconds" and len(places) > 1


def _compared(sides: tuple[Side, Side], pairing: Pairing, name: str, *, is_given: bool) -> ComparedMetric:
    metric = sides[0].metric(name)
    own = [metric_by_seed(side.finished.done(side.variant), name) for side in sides]
    common = sorted(seed for seed in own[0].keys() & own[1].keys() if seed in pairing.seeds)
    is_given = is_given and not _is_timed_apart(*sides, metric)
    differences = [statistics.without_rounding_error([own[1][seed], -own[0][seed]]) for seed in common]
    samples = (list(own[0].values()), list(own[1].values()))
    is_paired, is_welch = is_given and bool(differences), is_given and not pairing.is_paired and all(samples)
    return ComparedMetric(
        metric=metric,
        first=spread_of(samples[0]) if samples[0] else None,
        second=spread_of(samples[1]) if samples[1] else None,
        difference=difference_of(differences, test_to_train=sides[0].finished.plan.test_to_train)
        if is_paired
        else _unpaired(*samples)
        if is_welch
        else None,
        wins=wins_of(differences, metric.direction) if is_paired else None,
    )


def _unpaired(first: Sequence[float], second: Sequence[float]) -> Difference:
    return Difference(
        n=min(len(first), len(second)),
        mean=statistics.difference_of_means(first, second),
        interval=statistics.welch_interval(first, second, alpha=1 - statistics.DESCRIPTIVE_LEVEL),
    )


def _crossed(sides: tuple[Side, Side], pairing: Pairing) -> CrossedEffect | None:
    """Return the effect on other test inputs too, where both have answered the same ones with the same seeds."""
    if sides[0].finished.plan.replicates is not None:  # each fold has inputs of its own
        return None
    first, second = (
        {run.planned.seed: correct_answers(run) for run in side.finished.done(side.variant)} for side in sides
    )
    common = sorted(seed for seed in first.keys() & second.keys() if seed in pairing.seeds)
    return crossed_effect([(1.0, [second[seed] for seed in common]), (-1.0, [first[seed] for seed in common])])
