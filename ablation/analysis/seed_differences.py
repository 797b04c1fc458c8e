"""Looks up what the runs of a comparison measured: rows by variant and seed, and differences per seed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analysis import statistics
from ablation.analysis.answer_records import SeedDifference, UnstableVariant
from ablation.analysis.confusion import correct_answers
from ablation.analysis.equal_seeds import Numbers, measured
from ablation.records import Outcome, RecordedRun


class Runs:
    """Looks up the rows of a run table by variant and seed; `test_to_train` is that of folds, 0 of seeds."""

    def __init__(
        self, rows: Sequence[dict[Any, Any]], recorded: Mapping[str, RecordedRun], *, test_to_train: float = 0.0
    ) -> None:
        self.recorded, self.test_to_train = recorded, test_to_train
        self._rows = {(row["variant"], row["seed"]): row for row in rows}

    def of(self, seeds: Sequence[int]) -> "Runs":
        """Return the runs of some seeds alone."""
        kept = set(seeds)
        rows = [row for (_, seed), row in self._rows.items() if seed in kept]
        return Runs(rows, self.recorded, test_to_train=self.test_to_train)

    def unstable(self, variants: Sequence[str]) -> list[str]:
        """Return the names of these variants' runs that diverged or collapsed."""
        return [
            f"{variant}/seed-{seed}"
            for variant, seed in self._rows
            if variant in variants and self.is_unstable(variant, seed)
        ]

    def seeds(self, variants: Sequence[str]) -> list[int]:
        """Return the seeds that are planned for all of these variants."""
        seeds = sorted({seed for _, seed in self._rows})
        return [seed for seed in seeds if all((variant, seed) in self._rows for variant in variants)]

    def rows(self, variants: Sequence[str]) -> list[dict[Any, Any]]:
        return [self._rows[variant, seed] for seed in self.seeds(variants) for variant in variants]

    def value(self, variant: str, seed: int, metric: str) -> float:
        row = self._rows[variant, seed]
        return float(row[metric]) if row["outcome"] == Outcome.DONE else math.nan

    def done(self, variant: str) -> list[RecordedRun]:
        """Return the records of a variant's runs that are done."""
        found = (self.recorded.get(self._rows[variant, seed]["identity"]) for seed in self.seeds((variant,)))
        return [record for record in found if record is not None and record.outcome is Outcome.DONE]

    def correct(self, variant: str, seed: int) -> NDArray[np.bool_]:
        """Return which test images the run answered rightly, (N,); empty where that was not kept."""
        record = self.recorded.get(self._rows[variant, seed]["identity"])
        return correct_answers(record) if record is not None else np.zeros(0, dtype=np.bool_)

    def measured(self, variant: str, seed: int) -> Numbers:
        """Return what a run measured but for its cost; nothing where it is not done."""
        row = self._rows[variant, seed]
        record = self.recorded.get(row["identity"])
        return measured(record) if record is not None and row["outcome"] == Outcome.DONE else ()

    def run_id(self, variant: str, seed: int) -> str | None:
        run_id = self._rows[variant, seed]["run_id"]
        return None if run_id is None else str(run_id)

    def is_unstable(self, variant: str, seed: int) -> bool:
        return self._is_diverged(variant, seed) or bool(self._rows[variant, seed]["is_collapsed"])

    def stability(self, variant: str, seeds: Sequence[int]) -> UnstableVariant:
        return UnstableVariant(
            variant=variant,
            n=len(seeds),
            diverged=sum(self._is_diverged(variant, seed) for seed in seeds),
            collapsed=sum(bool(self._rows[variant, seed]["is_collapsed"]) for seed in seeds),
        )

    def _is_diverged(self, variant: str, seed: int) -> bool:
        return bool(self._rows[variant, seed]["outcome"] == Outcome.DIVERGED)


def seed_differences(
    weights: Mapping[str, float], runs: Runs, metric: str, *, to: Callable[[float], float] = float
) -> tuple[SeedDifference, ...]:
    """Return the weighted sum of each seed in which every variant has the metric, `to` another scale."""
    found = []
    for seed in runs.seeds(tuple(weights)):
        values = [weight * to(runs.value(variant, seed, metric)) for variant, weight in weights.items()]
        ids = tuple(run_id for variant in weights if (run_id := runs.run_id(variant, seed)) is not None)
        if all(map(math.isfinite, values)):
            found.append(SeedDifference(seed=seed, difference=statistics.without_rounding_error(values), run_ids=ids))
    return tuple(found)
