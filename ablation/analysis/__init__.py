"""From a plan and its recorded runs to the analysis: answers with verdicts, and all else that the report shows."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from pandas import DataFrame

from ablation.analysis.analysis_record import Analysis, CodeDescription, DataDescription, OtherDataDescription
from ablation.analysis.answer_records import Answer, Verdict
from ablation.analysis.answers import answers
from ablation.analysis.comparison import Comparison, RecordedStudy, compare_studies, compare_variants
from ablation.analysis.confusion import confusion_differences, confusion_matrices, disagreements
from ablation.analysis.contrasts import (
    as_measured,
    contrast_name,
    contrasts_of,
    factor_levels,
    measured_metric,
    part_factors,
)
from ablation.analysis.description import cost_of, layer_rows, variant_curves, variant_rows
from ablation.analysis.descriptive_records import FoldCorrection
from ablation.analysis.details import task_details
from ablation.analysis.diagnostics import diagnose
from ablation.analysis.factors import factor_pairs
from ablation.analysis.finished import FinishedRuns
from ablation.analysis.learning import best_epochs, learning_targets, matched_losses
from ablation.analysis.looks import StudyLooks
from ablation.analysis.rule import RuleChange, with_rule
from ablation.analysis.table import epoch_table, records_by_identity, run_table
from ablation.errors import NoResults
from ablation.records import DataShape, LeftOut, OutOfBudget, Plan, RecordedRun, TaskName
from ablation.study.labels import labels_of
from ablation.study.search_spaces import SETTINGS

__all__ = [
    "Analysis",
    "Answer",
    "Comparison",
    "RecordedStudy",
    "RuleChange",
    "StudyLooks",
    "Verdict",
    "analyse",
    "compare_studies",
    "compare_variants",
    "contrast_name",
    "contrasts_of",
    "epoch_table",
    "run_table",
    "with_rule",
]


def analyse(
    plan: Plan,
    runs: Sequence[RecordedRun],
    *,
    left_out: Sequence[LeftOut] = (),
    out_of_budget: OutOfBudget | None = None,
) -> Analysis:
    """Return what the report says, the same for the runs in any order; `left_out` are runs it does not count.

    `out_of_budget` is how the last execution ended for its budget, where it did.

    Raises:
        NoResults: none of the runs has ended.
    """
    plan = plan.of_trained_models()
    recorded = records_by_identity(runs)
    looks = StudyLooks(plan=plan, recorded=recorded, is_out_of_budget=out_of_budget is not None)
    whole, plan = plan, looks.plan_so_far
    table = run_table(plan, runs)
    if table["outcome"].isna().all():
        raise NoResults(plan.name)
    answered = answers(looks, table)
    metrics = [as_measured(measured_metric(plan, name), plan, recorded.values()) for name in plan.metrics]
    finished = FinishedRuns(plan=plan, recorded=recorded)
    unstable = frozenset(table[table["is_collapsed"]]["variant"])
    return Analysis(
        study=plan.study,
        name=plan.name,
        description=str(plan.study.get("description", "")),
        plan_hash=plan.locked_hash,
        data=_data(plan),
        code=_code(recorded.values()),
        heldout_split=plan.heldout_split,
        seed_varies=_seed_varies(plan),
        deviations=plan.deviations,
        seeds=len(looks.seeds),
        locked_seeds=plan.locked.seeds,
        looks=looks.rule.looks,
        look=looks.look,
        planned_runs=len(plan.runs),
        most_runs=len(whole.runs),
        alpha=plan.locked.alpha,
        collapse_margin=plan.locked.collapse_margin,
        metric=next(metric for metric in metrics if metric.name == plan.locked.metric.name),
        metrics=tuple(metric for metric in metrics if _is_measured(plan, table, metric.name)),
        design=str(plan.study.get("design", "factorial")),
        parts=part_factors(plan),
        tuning=plan.tuning,
        rope=plan.locked.metric.meaningful,
        factors=factor_levels(plan),
        baseline=plan.baseline.name,
        answers=answered,
        variants=variant_rows(finished, table),
        factor_pairs=factor_pairs(finished, unstable),
        curves=variant_curves(finished),
        targets=learning_targets(finished),
        matched_losses=matched_losses(finished),
        best_epochs=best_epochs(finished),
        confusion=confusion_matrices(finished),
        confusion_differences=confusion_differences(finished),
        disagreements=disagreements(finished),
        details=task_details(finished),
        layers=layer_rows(plan),
        diagnostics=diagnose(plan, table, answered, recorded=recorded, left_out=left_out),
        cost=cost_of(table),
        out_of_budget=out_of_budget,
        labels=labels_of(plan),
        folds=FoldCorrection.of(plan),
    )


def _data(plan: Plan) -> DataDescription:
    return DataDescription(
        name=plan.data.name,
        digest=plan.data.digest,
        train_images=plan.data.train_images,
        test_images=plan.data.test_images,
        classes=plan.data.shape.classes,
        largest_class_share=plan.data.largest_class_share,
        task=plan.task,
        inputs=plan.data.shape.inputs,
        targets=_TARGETS[plan.task](plan.data.shape),
        notes=plan.data.notes,
        others=tuple(
            OtherDataDescription(
                name=other.name,
                digest=other.facts.digest,
                train_images=other.facts.train_images,
                test_images=other.facts.test_images,
                classes=other.facts.shape.classes,
                variants=other.variants,
                remarks=(*other.facts.notes, *other.remarks),
            )
            for other in plan.other_data
        ),
    )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


_TARGETS: Mapping[TaskName, Callable[[DataShape], str]] = {
    "classification": lambda shape: f"one of {len(shape.classes):,} classes",
    "regression": lambda shape: (
        f"{_times(shape.target_shape) if shape.target_shape else 'one'} number"
        f"{'s' if math.prod(shape.target_shape) > 1 else ''}"
    ),
    "multilabel": lambda shape: f"{len(shape.classes):,} labels, each there or not",
    "tokens": lambda shape: f"one of {len(shape.classes):,} classes at each of {_times(shape.target_shape)} positions",
    "segmentation": lambda shape: (
        f"one of {len(shape.classes):,} classes at each of {_times(shape.target_shape)} pixels"
    ),
}
"""What one input's target is, by task."""


def _code(runs: Iterable[RecordedRun]) -> CodeDescription:
    recorded = list(runs)
    versions = {f"{library} {number}" for run in recorded for library, number in run.versions.items()}
    return CodeDescription(
        commits=tuple(sorted({run.commit for run in recorded if run.commit})), versions=tuple(sorted(versions))
    )


def _seed_varies(plan: Plan) -> tuple[str, ...]:
    """Return which random streams the seed draws in at least one variant."""
    sections = [variant.settings.data for variant in plan.variants if variant.settings.data is not None]
    models = [variant.settings.model for variant in plan.variants if variant.settings.model is not None]
    return (
        *(["training and test examples"] if plan.replicates is not None else []),
        *_drawn_starts(plan),
        "data order",
        *(["validation split"] if any(data.validation != "none" for data in sections) else []),
        *(["augmentation"] if any(data.augmentation != "none" for data in sections) else []),
        *(["dropout"] if any(model.arguments.get("dropout") for model in models) else []),
    )


def _drawn_starts(plan: Plan) -> tuple[str, ...]:
    """Return `initialization`, with the variants that it is not drawn for; nothing where it is drawn for none."""
    fixed = set(plan.same_starts)
    if all(variant.name.partition(f",{SETTINGS}=")[0] in fixed for variant in plan.variants):
        return ()
    return (f"initialization (not that of {', '.join(plan.same_starts)})" if fixed else "initialization",)


def _is_measured(plan: Plan, table: DataFrame, name: str) -> bool:
    """Say whether a metric is worth a column: a user's training function may not measure it at all."""
    return not plan.is_own_training or (name in table and bool(table[name].notna().any()))
