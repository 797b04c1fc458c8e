"""Looks up finished runs by variant and seed, and pairs what they have with the baseline's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablation.analysis import statistics
from ablation.analysis.answer_records import Difference
from ablation.analysis.descriptive_records import Points, SeedValue, Spread
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun, Variant


@dataclass(frozen=True, kw_only=True)
class FinishedRuns:
    """A study's runs that have a result; `recorded` by identity."""

    plan: Plan
    recorded: Mapping[str, RecordedRun]

    @property
    def variants(self) -> list[Variant]:
        """All variants, the baseline first."""
        return sorted(self.plan.variants, key=lambda variant: not variant.is_baseline)

    @property
    def others(self) -> list[Variant]:
        """All variants but the baseline."""
        return [variant for variant in self.plan.variants if not variant.is_baseline]

    @cached_property
    def is_timed_alike(self) -> bool:
        """Whether all recorded runs were timed on one host and device."""
        return len(self.timed_at) <= 1

    @cached_property
    def timed_at(self) -> frozenset[tuple[str, str]]:
        """The hosts and devices of all recorded runs."""
        return frozenset((run.host, run.device) for run in self.recorded.values() if run.run_id)

    def of(self, variant: Variant) -> list[RecordedRun]:
        """Return a variant's runs that are done or diverged, by seed."""
        own = sorted(self._planned[variant.name], key=lambda run: run.seed)
        runs = [self.recorded[planned.identity] for planned in own if planned.identity in self.recorded]
        return [run for run in runs if run.has_result]

    def done(self, variant: Variant) -> list[RecordedRun]:
        """Return a variant's runs that are done, by seed."""
        return [run for run in self.of(variant) if run.outcome == Outcome.DONE]

    def paired(self, variant: Variant, values: Mapping[str, Mapping[int, float]]) -> Difference | None:
        """Return the difference to the baseline of what runs have, by variant's name and seed.

        None where a planned run of either lacks it, as nothing is averaged around a hole. Of several data sets, the
        baseline is that on the variant's own, which has no difference to itself.
        """
        if self.plan.reference(variant) is variant:
            return None
        pair = (variant.name, self.plan.reference(variant).name)
        own, base = (values.get(name, {}) for name in pair)
        is_whole = all(self.seeds(name) <= values.get(name, {}).keys() for name in pair)
        common = sorted(own.keys() & base.keys())
        if not is_whole or not common:
            return None
        return difference_of(
            [statistics.without_rounding_error([own[seed], -base[seed]]) for seed in common],
            test_to_train=self.plan.test_to_train,
        )

    def seeds(self, variant: str) -> set[int]:
        """Return the seeds that are planned for a variant."""
        return {planned.seed for planned in self._planned[variant]}

    @cached_property
    def _planned(self) -> dict[str, list[PlannedRun]]:
        planned: dict[str, list[PlannedRun]] = {variant.name: [] for variant in self.plan.variants}
        for run in self.plan.runs:
            planned[run.variant].append(run)
        return planned


def difference_of(differences: Sequence[float], *, test_to_train: float) -> Difference:
    """Return the mean of paired differences and its interval; `test_to_train` as `statistics.correction` has it."""
    return Difference(
        n=len(differences),
        mean=statistics.mean_of(differences),
        interval=statistics.paired_interval(
            differences, level=statistics.DESCRIPTIVE_LEVEL, test_to_train=test_to_train
        ),
    )


def spread_of(values: Sequence[float]) -> Spread:
    return Spread(
        n=len(values),
        mean=float(np.mean(values)),
        sd=statistics.sample_sd(values),
        minimum=min(values),
        maximum=max(values),
    )


def curve(run: RecordedRun, name: str) -> Points:
    """Return a run's curve by epoch, without what is not finite."""
    return tuple(point for point in run.curves.get(name, ()) if math.isfinite(point[1]))


def by_seed(runs: Sequence[RecordedRun], value: Callable[[RecordedRun], float | None]) -> dict[int, float]:
    """Return what each run has by its seed, without the runs that don't have it."""
    found = ((run.planned.seed, value(run)) for run in runs)
    return {seed: number for seed, number in found if number is not None and math.isfinite(number)}


def metric_by_seed(runs: Sequence[RecordedRun], metric: str) -> dict[int, float]:
    """Return a metric of each run that has it, by its seed."""
    return by_seed(runs, lambda run: run.metrics.get(metric))


def seed_values(runs: Sequence[RecordedRun], metric: str) -> tuple[SeedValue, ...]:
    """Return a metric of each run that has it, with the run's ID, by seed."""
    values = metric_by_seed(runs, metric)
    ids = {run.planned.seed: run_ids([run]) for run in runs}
    return tuple(SeedValue(seed=seed, value=value, run_ids=ids[seed]) for seed, value in values.items())


def run_ids(runs: Sequence[RecordedRun]) -> tuple[str, ...]:
    return tuple(run.run_id for run in runs if run.run_id is not None)
