"""Compares any two variants of a study on every metric: descriptive, with unadjusted intervals and no verdict."""

from collections.abc import Sequence
from dataclasses import dataclass

from ablation.analysis import statistics
from ablation.analysis.answer_records import CrossedEffect, Difference, MeasuredMetric, Wins
from ablation.analysis.confusion import correct_answers
from ablation.analysis.contrasts import as_measured, measured_metric
from ablation.analysis.crossed import crossed_effect
from ablation.analysis.descriptive_records import FoldCorrection, Spread
from ablation.analysis.finished import FinishedRuns, difference_of, metric_by_seed, run_ids, spread_of
from ablation.analysis.looks import StudyLooks
from ablation.analysis.table import has_collapsed
from ablation.analysis.verdicts import wins_of
from ablation.errors import NameUnknown
from ablation.lookup import nearest_names
from ablation.records import InputNoun, Outcome, Plan, RecordedRun, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """A metric of two variants: spreads over their done runs; second minus first paired by seed, and its wins."""

    metric: MeasuredMetric
    first: Spread | None
    second: Spread | None
    difference: Difference | None
    wins: Wins | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two variants side by side; `withheld` says why differences are not given, where they are not."""

    study: str
    first: str
    second: str
    metrics: tuple[ComparedMetric, ...]
    crossed: CrossedEffect | None
    withheld: tuple[str, ...]
    parameters: tuple[int, int]
    flops: tuple[int, int]
    run_ids: tuple[str, ...]
    inputs: InputNoun = "images"
    folds: FoldCorrection | None = None


def compare_variants(
    plan: Plan, runs: Sequence[RecordedRun], first: str, second: str, *, is_out_of_budget: bool = False
) -> Comparison:
    """Compare two variants, named as in the run table; out of budget, a study needs no runs that were not begun.

    Raises:
        NameUnknown: the study has no such variant.
    """
    looks = StudyLooks.of(plan.of_trained_models(), runs, is_out_of_budget=is_out_of_budget)
    plan = looks.plan_so_far
    finished = FinishedRuns(plan=plan, recorded=looks.recorded)
    pair = (_variant(plan, first), _variant(plan, second))
    withheld = tuple(reason for variant in pair for reason in _reasons(finished, variant))
    return Comparison(
        study=plan.name,
        first=pair[0].name,
        second=pair[1].name,
        metrics=tuple(_compared(finished, pair, name, is_withheld=bool(withheld)) for name in finished.plan.metrics),
        crossed=_crossed(finished, pair) if not withheld else None,
        withheld=withheld,
        parameters=(plan.summaries[pair[0].name].parameters, plan.summaries[pair[1].name].parameters),
        flops=(plan.summaries[pair[0].name].flops, plan.summaries[pair[1].name].flops),
        run_ids=run_ids([run for variant in pair for run in finished.of(variant)]),
        inputs=plan.data.shape.inputs,
        folds=FoldCorrection.of(plan),
    )


def _variant(plan: Plan, name: str) -> Variant:
    known = {variant.name: variant for variant in plan.variants}
    if name not in known:
        raise NameUnknown("variant", name, near=nearest_names(name, known), known=known, option="compare")
    return known[name]


def _reasons(finished: FinishedRuns, variant: Variant) -> list[str]:
    """Say which runs of a variant leave a hole or are unstable."""
    runs = finished.of(variant)
    without = sorted(finished.seeds(variant.name) - {run.planned.seed for run in runs})
    diverged = [run.planned.seed for run in runs if run.outcome == Outcome.DIVERGED]
    collapsed = [run.planned.seed for run in runs if has_collapsed(finished.plan, run)]
    return [
        f"{variant.name} {what} with seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        for seeds, what in ((without, "has no result"), (diverged, "diverged"), (collapsed, "collapsed"))
        if seeds
    ]


def _compared(finished: FinishedRuns, pair: tuple[Variant, Variant], name: str, *, is_withheld: bool) -> ComparedMetric:
    metric = as_measured(measured_metric(finished.plan, name), finished.plan, finished.recorded.values())
    own = [metric_by_seed(finished.done(variant), name) for variant in pair]
    common = sorted(own[0].keys() & own[1].keys())
    is_timed_apart = metric.unit == "seconds" and not finished.is_timed_alike
    differences = [statistics.without_rounding_error([own[1][seed], -own[0][seed]]) for seed in common]
    is_given = bool(common) and not is_withheld and not is_timed_apart and pair[0] != pair[1]
    return ComparedMetric(
        metric=metric,
        first=spread_of(list(own[0].values())) if own[0] else None,
        second=spread_of(list(own[1].values())) if own[1] else None,
        difference=difference_of(differences, test_to_train=finished.plan.test_to_train) if is_given else None,
        wins=wins_of(differences, metric.direction) if is_given else None,
    )


def _crossed(finished: FinishedRuns, pair: tuple[Variant, Variant]) -> CrossedEffect | None:
    if finished.plan.replicates is not None:  # each fold has images of its own
        return None
    first, second = ({run.planned.seed: correct_answers(run) for run in finished.done(variant)} for variant in pair)
    common = sorted(first.keys() & second.keys())
    return crossed_effect([(1.0, [second[seed] for seed in common]), (-1.0, [first[seed] for seed in common])])
