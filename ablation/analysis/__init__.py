"""From a plan and its recorded runs to the analysis: answers with verdicts, and all else that the report shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.analysis.answers import answers
from ablation.analysis.contrasts import factor_levels, measured_metric
from ablation.analysis.description import confusion_matrices, cost_of, layer_rows, variant_curves, variant_rows
from ablation.analysis.diagnostics import diagnose
from ablation.analysis.records import Analysis, Answer, DataDescription, Verdict
from ablation.analysis.table import records_by_identity, run_table
from ablation.errors import NoResults
from ablation.results import METRICS, Plan, RecordedRun

__all__ = ["Analysis", "Answer", "Verdict", "analyse", "run_table"]


def analyse(plan: Plan, runs: Sequence[RecordedRun]) -> Analysis:
    """Return what the report says, the same for the runs in any order.

    Raises:
        NoResults: none of the runs has ended.
    """
    table = run_table(plan, runs)
    recorded = records_by_identity(runs)
    if table["outcome"].isna().all():
        raise NoResults(plan.name)
    answered = answers(plan, table)
    return Analysis(
        study=plan.study,
        name=plan.name,
        description=str(plan.study.get("description", "")),
        plan_hash=plan.locked_hash,
        data=_data(plan),
        heldout_split=plan.heldout_split,
        seed_varies=_seed_varies(plan),
        deviations=plan.deviations,
        seeds=len({run.seed for run in plan.runs}),
        locked_seeds=plan.locked["seeds"],
        planned_runs=len(plan.runs),
        alpha=plan.locked["alpha"],
        collapse_margin=plan.locked["collapse_margin"],
        metric=measured_metric(plan, plan.locked["metric"]["name"]),
        metrics=tuple(measured_metric(plan, name) for name in METRICS),
        rope=plan.locked["metric"].get("meaningful"),
        factors=factor_levels(plan),
        baseline=plan.baseline.name,
        answers=answered,
        variants=variant_rows(plan, table, recorded),
        curves=variant_curves(plan, recorded),
        confusion=confusion_matrices(plan, recorded),
        layers=layer_rows(plan),
        diagnostics=diagnose(plan, table, answered),
        cost=cost_of(table),
    )


def _data(plan: Plan) -> DataDescription:
    return DataDescription(
        name=plan.data.name,
        digest=plan.data.digest,
        train_images=plan.data.train_images,
        test_images=plan.data.test_images,
        classes=plan.data.shape.classes,
        largest_class_share=plan.data.largest_class_share,
    )


def _seed_varies(plan: Plan) -> tuple[str, ...]:
    """Return which random streams the seed draws in at least one variant."""
    splits = [_setting(variant.settings, "data", "validation") for variant in plan.variants]
    augmentations = [_setting(variant.settings, "data", "augmentation") for variant in plan.variants]
    dropouts = [_setting(variant.settings, "model", "dropout") for variant in plan.variants]
    return (
        "initialization",
        "data order",
        *(["validation split"] if any(split not in (None, "none") for split in splits) else []),
        *(["augmentation"] if any(kind not in (None, "none") for kind in augmentations) else []),
        *(["dropout"] if any(dropouts) else []),
    )


def _setting(settings: Mapping[str, Any], section: str, key: str) -> Any:
    return settings.get(section, {}).get(key)
