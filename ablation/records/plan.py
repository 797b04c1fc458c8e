"""A study before it costs anything: variants, runs, tuning, and the plan that is locked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from ablation.records.data import DataFacts, OtherData
from ablation.records.locked import Locked, LockedQuestion, Replicates, looks_text
from ablation.records.metrics import FIRST_MEASURED, SIGNS, Direction, Metric
from ablation.records.models import NOT_MEASURED, ModelSummary
from ablation.records.own_metrics import DeclaredMetric, declared_metrics, directions_of
from ablation.records.settings import Settings
from ablation.records.tasks import TASKS, TaskName

MOST_NAMED = 5
DATA = "data"
"""The factor of a study that has several data sets: every variant is trained on each of these levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An assignment of levels to factors, and the settings it resolves to.

    `configuration` is the part of the settings that can alter a result (no paths, no settings without effect), as
    plain values, which identities are made from.
    """

    name: str
    levels: Mapping[str, Any]
    settings: Settings
    configuration: Mapping[str, Any]
    is_baseline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run (variant × seed) and its identity."""

    identity: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}/seed-{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningTrial:
    """One trial of a variant's tuning: the settings tried, and what they reached on validation.

    `value` is the mean over the trial's seed indices, None where it has none (pruned, diverged or failed); `curve` is
    the first seed index's by epoch. `seconds` is the training of all of them.
    """

    number: int
    settings: Mapping[str, Any]
    outcome: Literal["done", "pruned", "diverged", "failed"]
    value: float | None
    curve: tuple[float, ...]
    seconds: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedVariant:
    """A variant's tuning: every trial, and the settings of the best, which its compared runs are trained with."""

    variant: str
    trials: tuple[TuningTrial, ...]
    chosen: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A study before it costs anything, complete: what MLflow keeps of it and the report is made from.

    `study` is the checked study file as plain values; `locked` the part that was fixed before the first run (metric,
    questions, ROPE, alpha, seeds, collapse rule); `deviations` says in sentences what was changed since; `tuning` is
    what each variant's settings were found by, where the study tunes them; `code` has the digest of user code
    that a variant names, by variant. Two variants whose settings came out the same share their runs' identities.
    `measured` are the metrics that its runs have, whatever its task has come to measure since. `same_starts` are the
    variants whose models start from the same weights with every seed, by their names in the design. `family` has the
    names of the contrasts that were locked at the first result; plans of earlier versions have none. `dropped` are
    questions of that family which the study file asks no more. `metric_code` has the digest of the code behind each
    metric of the user's own that the engine measures. `takes_model` says that a user's training function is
    given the study's model, built. `data` is that of the baseline, `other_data` what some variants are trained on
    instead.
    """

    study: Mapping[str, Any]
    variants: tuple[Variant, ...]
    summaries: Mapping[str, ModelSummary]
    runs: tuple[PlannedRun, ...]
    data: DataFacts
    locked: Locked
    locked_hash: str
    deviations: tuple[str, ...] = ()
    tuning: tuple[TunedVariant, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = FIRST_MEASURED
    same_starts: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    dropped: tuple[LockedQuestion, ...] = ()
    metric_code: Mapping[str, str] = field(default_factory=dict)
    takes_model: bool = False
    other_data: tuple[OtherData, ...] = ()

    @property
    def looks(self) -> tuple[int, ...]:
        """The runs per variant at each look as the study file has them now; `locked.schedule` are the first ones."""
        if self.replicates is not None:
            return (self.replicates.count,)
        seeds = self.study["seeds"]
        match seeds:
            case {"looks": looks}:
                return tuple(looks)
            case list() | tuple():
                return (len(seeds),)
            case number:
                return (number,)

    @property
    def replicates(self) -> Replicates | None:
        """The folds that its runs are of, None where they are of seeds."""
        return self.locked.replicates

    @property
    def test_to_train(self) -> float:
        """How many examples are tested on for each that is trained on, over all folds; 0 where there are none."""
        if self.replicates is None:
            return 0.0
        if sizes := self.data.fold_sizes:
            return sum(test for _, test in sizes) / sum(train for train, _ in sizes)
        validation = self.baseline.settings.data.validation if self.baseline.settings.data is not None else "none"
        share = 0.0 if validation == "none" else validation
        return 1 / (self.replicates.folds - 1) / (1 - share)  # before the data is read

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs, in the order that they are judged in: the locked ones, then as the file has them."""
        planned, listed = {run.seed for run in self.runs}, self.study.get("seeds")
        named = listed if isinstance(listed, list | tuple) else ()
        return tuple(seed for seed in dict.fromkeys((*self.locked.order, *named, *sorted(planned))) if seed in planned)

    @property
    def replicates_text(self) -> str:
        """What the study file asks for of each variant: `5`, `looks at 5, 8`, or `seeds 0, 1, 42`."""
        if self.replicates is not None:
            return str(self.replicates)
        seeds = self.study["seeds"]
        return f"[{', '.join(map(str, seeds))}]" if isinstance(seeds, list | tuple) else looks_text(self.looks)

    @property
    def name(self) -> str:
        return str(self.study["name"])

    @property
    def every_question(self) -> tuple[LockedQuestion, ...]:
        """The questions that are asked, and those that were."""
        return (*self.locked.questions, *self.dropped)

    @property
    def baseline(self) -> Variant:
        return next(variant for variant in self.variants if variant.is_baseline)

    def variant(self, name: str) -> Variant:
        """Return the variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def reference(self, variant: Variant) -> Variant:
        """Return what a variant is described beside: the baseline, of several data sets on the variant's own."""
        wanted = {**self.baseline.levels, DATA: variant.levels.get(DATA)}
        is_elsewhere = wanted[DATA] != self.baseline.levels.get(DATA)
        found = (each for each in self.variants if is_elsewhere and dict(each.levels) == wanted)
        return next(found, self.baseline)

    def data_of(self, variant: str, seed: int | None = None) -> DataFacts:
        """Return the data set that a variant, by name, is trained and tested on.

        With a seed, its counts are of the examples that this replicate is trained and tested on.
        """
        data = next((other.facts for other in self.other_data if variant in other.variants), self.data)
        if seed is None or not data.fold_sizes:
            return data
        train, test = data.fold_sizes[seed]
        return replace(data, train_images=train, test_images=test)

    @property
    def data_sets(self) -> tuple[DataFacts, ...]:
        """All data sets that variants are trained on, the baseline's first."""
        return (self.data, *(other.facts for other in self.other_data))

    def of_trained_models(self) -> "Plan":
        """Return the plan without the sizes of models that a user's training function did not train.

        Plans of earlier versions have those of the file's `model`, whatever the function makes of it.
        """
        if not self.is_own_training or self.takes_model:
            return self
        return replace(self, summaries=dict.fromkeys(self.summaries, NOT_MEASURED))

    def runs_to_train(self) -> tuple[PlannedRun, ...]:
        """Return the planned runs, each identity once."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.identity, run)
        return tuple(first.values())

    @property
    def heldout_split(self) -> Literal["validation", "test"]:
        """The split that the per-epoch curves are drawn on."""
        return "test" if self.data_section.get("validation") == "none" else "validation"

    @property
    def data_section(self) -> Mapping[str, Any]:
        """The `data` section of the study's file, the baseline's where it names several data sets."""
        data = self.study.get("data") or {}
        return data[0] if isinstance(data, list | tuple) else data

    @property
    def task(self) -> TaskName:
        """The kind of target that the study's data has."""
        data = self.baseline.settings.data
        return data.task if data is not None else "classification"

    @property
    def is_own_training(self) -> bool:
        """Whether a user's training function trains, which measures what it likes."""
        return self.baseline.settings.is_own_training

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What is compared beside the study's metric: what is measured, and what it declares of its own function."""
        chosen = self.locked.metric
        own = {**directions_of(self.study), **self._filed_metric, chosen.name: chosen.direction}
        declared = {name: Metric(label=name, direction=way, unit="score", tuned_by=None) for name, way in own.items()}
        asked = [chosen.name, *(each.on for each in self.every_question if each.on is not None)]
        engine = TASKS[self.task].metrics
        known = {name: engine[name] for name in (*self.measured, *asked) if name in engine}
        measured = {metric.name: metric.metric() for metric in self.own_metrics}
        return {**declared, **known} if self.is_own_training else {**known, **declared, **measured, **known}

    @property
    def own_metrics(self) -> tuple[DeclaredMetric, ...]:
        """The metrics of the user's own that the engine measures."""
        return () if self.is_own_training else declared_metrics(self.study)

    @property
    def _filed_metric(self) -> dict[str, Direction]:
        """The study file's metric and its direction, which a summary may judge beside another one."""
        filed = self.study.get("metric")
        name, way = (filed.get("name"), filed.get("direction")) if isinstance(filed, Mapping) else (None, None)
        return {name: cast("Direction", way)} if isinstance(name, str) and way in SIGNS else {}

    @property
    def expected_metrics(self) -> tuple[str, ...]:
        """What every finished run of the study must have measured."""
        if not self.is_own_training:
            known = (name for name in self.measured if name in TASKS[self.task].metrics)
            return (*known, *(metric.name for metric in self.own_metrics))
        return tuple(dict.fromkeys((self.locked.metric.name, *(self.study.get("metrics") or {}))))


def same_starts_text(variants: Sequence[str]) -> str:
    """Say what the spread over seeds lacks where models start from the same weights with every seed."""
    named = ", ".join(variants[:MOST_NAMED]) + (
        f" and {len(variants) - MOST_NAMED} more" * (len(variants) > MOST_NAMED)
    )
    return (
        f"The model starts from the same weights whatever the seed ({named}): its code seeds itself, or loads them. So "
        "the spread over seeds does not hold what another initialization would change"
    )
