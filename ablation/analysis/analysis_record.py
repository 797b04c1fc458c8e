"""The analysis whole: every number and word of a report stands here, and so in report.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablation.analysis.answer_records import Answer, MeasuredMetric, MissingRun
from ablation.analysis.descriptive_records import (
    BestEpoch,
    ConfusionDifference,
    ConfusionMatrix,
    Disagreement,
    FactorPair,
    FoldCorrection,
    LayerRow,
    LearningTarget,
    MatchedLoss,
    TaskDetail,
    VariantCurves,
    VariantRow,
)
from ablation.records import DATA, InputNoun, LeftOut, OutOfBudget, TaskName, TunedVariant
from ablation.study.labels import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualSeeds:
    """Seeds of a variant whose results are equal in every number, so that they are not repetitions.

    Where it is not sure, all numbers are such as may be equal by chance, and all seeds of the variant have them.
    """

    variant: str
    seeds: tuple[int, ...]
    is_sure: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRecord:
    """A planned run whose record lacks something that parts of the report need, which leave the run out."""

    variant: str
    seed: int
    run_id: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostics:
    """What a reader should know before believing the numbers; runs by name (variant/seed-n)."""

    equal_seeds: tuple[EqualSeeds, ...]
    devices: tuple[str, ...]
    hosts: tuple[str, ...]
    collapsed: tuple[str, ...]
    diverged: tuple[str, ...]
    missing: tuple[MissingRun, ...]
    skewed: tuple[int, ...]
    """Positions of the answers whose differences, of 8 seeds or more, are skewed as 5 % of normal ones would be."""
    left_out: tuple[LeftOut, ...]
    damaged: tuple[DamagedRecord, ...]
    same_starts: tuple[str, ...] = ()
    """Variants whose models start from the same weights with every seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Training time of all recorded runs together, in seconds, and how many runs that is."""

    training_seconds: float
    timed_runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherDataDescription:
    """A data set that some variants have instead of the baseline's; `name` says what is other in it."""

    name: str
    digest: str
    train_images: int
    test_images: int
    classes: tuple[str, ...]
    variants: tuple[str, ...]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """The data set as the report's front names it; `notes` say how its files were read, and which were not.

    `inputs` is what its inputs are called, `targets` says in words what one input's target is.
    """

    name: str
    digest: str
    train_images: int
    test_images: int
    classes: tuple[str, ...]
    largest_class_share: float
    task: TaskName = "classification"
    inputs: InputNoun = "images"
    targets: str = ""
    notes: tuple[str, ...] = ()
    others: tuple[OtherDataDescription, ...] = ()
    """What some variants are trained and tested on instead."""

    def classes_of(self, variant: str) -> tuple[str, ...]:
        """Return the classes of a variant's data."""
        return next((other.classes for other in self.others if variant in other.variants), self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeDescription:
    """What trained the runs: git commits (those with uncommitted changes end in `+changes`) and library versions."""

    commits: tuple[str, ...]
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that a report says of a study.

    `locked_seeds` is the number of seeds that was fixed before the first run, `seeds` the number planned now.
    `looks` are the seeds of each planned look, of which `look` are complete; `planned_runs` are those that the looks so
    far asked for, of the `most_runs` that the whole plan may take. `parts`
    are the factors that are a part of the model, there or not: the first of their levels in `factors` means there.
    `tuning` is every trial of each variant's tuning, where the study has one. `out_of_budget` is how its last execution
    ended for its budget, None where it did not. `labels` are what people call factors, levels and variants, which stand
    by their own names in everything else. `folds` are there where they take the place of seeds: `seeds` is their number
    then.
    """

    study: Mapping[str, Any]
    name: str
    description: str
    plan_hash: str
    data: DataDescription
    code: CodeDescription
    heldout_split: str
    seed_varies: tuple[str, ...]
    deviations: tuple[str, ...]
    seeds: int
    locked_seeds: int
    looks: tuple[int, ...]
    look: int
    planned_runs: int
    most_runs: int
    alpha: float
    collapse_margin: float
    metric: MeasuredMetric
    metrics: tuple[MeasuredMetric, ...]
    design: str
    parts: tuple[str, ...]
    tuning: tuple[TunedVariant, ...]
    rope: float | None
    factors: Mapping[str, tuple[Any, ...]]
    baseline: str
    answers: tuple[Answer, ...]
    variants: tuple[VariantRow, ...]
    factor_pairs: tuple[FactorPair, ...]
    curves: tuple[VariantCurves, ...]
    targets: tuple[LearningTarget, ...]
    matched_losses: tuple[MatchedLoss, ...]
    best_epochs: tuple[BestEpoch, ...]
    confusion: tuple[ConfusionMatrix, ...]
    confusion_differences: tuple[ConfusionDifference, ...]
    disagreements: tuple[Disagreement, ...]
    details: tuple[TaskDetail, ...]
    layers: tuple[LayerRow, ...]
    diagnostics: Diagnostics
    cost: Cost
    out_of_budget: OutOfBudget | None
    labels: Labels
    folds: FoldCorrection | None

    def reference(self, row: VariantRow) -> VariantRow:
        """Return what a variant is described beside: the baseline, of several data sets on the variant's own."""
        baseline = next((each for each in self.variants if each.is_baseline), row)
        wanted = {**baseline.levels, DATA: row.levels.get(DATA)}
        found = (each for each in self.variants if DATA in baseline.levels and each.levels == wanted)
        return next(found, baseline)

    @property
    def is_grown(self) -> bool:
        return self.locked_seeds < self.seeds

    @property
    def is_extended(self) -> bool:
        """Whether seeds or comparisons came after the plan was locked: they have an alpha of their own."""
        return self.is_grown or any(answer.look.is_added for answer in self.answers)
