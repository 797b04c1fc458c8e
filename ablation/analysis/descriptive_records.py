"""The records that describe variants without judging them; their intervals are at 95 %, unadjusted, and no verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablation.analysis.answer_records import Difference, Interval, LevelChange
from ablation.records import Plan

Points = tuple[tuple[int, float], ...]
"""(epoch, value) pairs; epochs count from 1."""

Matrix = tuple[tuple[float, ...], ...]
"""A value for each [true class][answered class]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldCorrection:
    """The folds that are a study's replicates, and what intervals over them are corrected by, after Nadeau and Bengio.

    `test_to_train` is n_test/n_train: how many examples are tested on for each that is trained on.
    """

    folds: int
    repeats: int
    test_to_train: float
    correction: str = (
        "Nadeau and Bengio (2003): variance of the mean (1/J + n_test/n_train) s², J - 1 degrees of freedom"
    )

    @classmethod
    def of(cls, plan: Plan) -> "FoldCorrection | None":
        """Return that of a plan, None where its replicates are seeds."""
        if plan.replicates is None:
            return None
        return cls(folds=plan.replicates.folds, repeats=plan.replicates.repeats, test_to_train=plan.test_to_train)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A metric over the n finished runs of a variant; `sd` is None with one run."""

    n: int
    mean: float
    sd: float | None
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds over n runs of a variant that are done; `spread`, first to ninth decile, is None with one.

    Runs that were the first of their worker do not count where there are others.
    """

    n: int
    median: float
    spread: float | None
    minimum: float
    maximum: float

    def times(self, share: float) -> "Timing":
        """Return a share of them."""
        spread = share * self.spread if self.spread is not None else None
        return replace(self, median=share * self.median, spread=spread)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedValue:
    """What one seed has, and the MLflow runs it is from."""

    seed: int
    value: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRow:
    """A variant's outcomes, and its metrics over the runs that are done (collapsed ones among them).

    `spreads` holds every recorded metric and `epoch_seconds`; `values` those of the study's metric by seed;
    `differences` are to the baseline, by metric, empty for the baseline and where either is incomplete or unstable.
    `training` and `epoch` say how long training and an epoch of it take; `dominated_by` names a variant whose mean is
    at least as good in no more median seconds of training.
    """

    name: str
    levels: Mapping[str, Any]
    is_baseline: bool
    planned: int
    done: int
    diverged: int
    collapsed: int
    failed: int
    missing: int
    spreads: Mapping[str, Spread]
    values: tuple[SeedValue, ...]
    differences: Mapping[str, Difference]
    training: Timing | None
    epoch: Timing | None
    dominated_by: str | None
    parameters: int
    flops: int
    run_ids: tuple[str, ...]
    trainable: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedCurves:
    """One run's curves by the names of `epoch_metrics`."""

    seed: int
    run_id: str | None
    is_diverged: bool
    curves: Mapping[str, Points]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantCurves:
    """Every seed's curves of a variant; `median` over the runs that are done, at the epochs that all of them have."""

    variant: str
    seeds: tuple[SeedCurves, ...]
    median: Mapping[str, Points]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionMatrix:
    """Counts [true class][predicted class] on one split, summed over a variant's runs."""

    variant: str
    split: str
    counts: tuple[tuple[int, ...], ...]
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """A layer and its trainable parameters in each variant that has it."""

    name: str
    type: str
    parameters: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorCell:
    """A combination of two factors' levels: per seed, the study's metric averaged over the variants that have them.

    `values` are empty where a run of such a variant is missing, diverged or collapsed; `mean` is then None.
    """

    levels: Mapping[str, Any]
    values: tuple[SeedValue, ...]
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedInteraction:
    """A difference of differences on the study's metric, `second` at `first.after` minus at `first.before`, per seed.

    `in_logits` is the same of the metric's logits, for a metric that is a fraction strictly between 0 and 1.
    """

    first: LevelChange
    second: LevelChange
    difference: Difference
    in_logits: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorPair:
    """Two factors whose levels were all combined, each level of the first with each of the second."""

    first: str
    second: str
    cells: tuple[FactorCell, ...]
    interactions: tuple[PairedInteraction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """How fast a variant's n runs that are done reached a target.

    `epochs` and `seconds` are restricted means: of min(T, E), with T the first epoch at the target and E the last one
    trained; seconds are of training alone. Differences are to the baseline's, paired by seed; seconds are None where
    runs were timed on several hosts or devices.
    """

    variant: str
    n: int
    reached: int
    share: Interval
    epochs: Spread
    seconds: Spread | None
    epochs_difference: Difference | None
    seconds_difference: Difference | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningTarget:
    """A held-out score to reach: a share of the baseline's median one after its last epoch.

    Where less is better, shares are above 1 and a run is there at this value or below.
    """

    share_of_baseline: float
    value: float
    rows: tuple[TargetRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedLoss:
    """Held-out loss at equal training loss, both in evaluation mode, against the baseline, paired by seed.

    `train_loss` is the lowest loss on the fixed training sample that all runs of both variants reached; the held-out
    losses are interpolated where each run first passed it.
    """

    variant: str
    train_loss: float
    heldout_loss: float
    baseline_heldout_loss: float
    difference: Difference
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestEpoch:
    """What choosing each run's best epoch on the held-out curve would seem to gain over the last: means over n runs.

    `last` and `best` are of the task's score, `optimism` is how much better the best one is.
    """

    variant: str
    n: int
    last: float
    best: float
    optimism: Spread
    median_epoch: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusionDifference:
    """A variant's confusion minus the baseline's, as shares of each true class, the mean over n seeds.

    `reseeding` is the size of difference that other seeds alone would give such means: per cell, the root mean square
    difference between two seeds of the same variant, over √n; None with one seed. `size` and `reseeding_size` are the
    root mean squares of both over all cells.
    """

    variant: str
    split: str
    n: int
    difference: Matrix
    reseeding: Matrix | None
    size: float
    reseeding_size: float | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """A number that a task alone measures of the test split, over a variant's runs that are done.

    `name` is what it is called in a run's evaluation (`error_quantiles` of a regression, `f1` of a label, `iou` of a
    class), `item` which of them: a quantile, a label, a class. `difference` is to the baseline's, paired by seed.
    """

    name: str
    item: str
    variant: str
    spread: Spread
    difference: Difference | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """On which share of the test images two runs differ in being right.

    `between_seeds` is the mean over all pairs of seeds of this variant, `with_baseline` over the seeds that both have.
    """

    variant: str
    n: int
    between_seeds: float | None
    with_baseline: float | None
    run_ids: tuple[str, ...]
