"""Where a study stands while it runs, as it is told about twice a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablation.records import Epoch, Outcome, PlannedRun, RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantRuns:
    """How many runs of a variant were asked for so far, and how many of those have ended."""

    variant: str
    asked: int
    ended: int

    @property
    def is_complete(self) -> bool:
        return self.ended >= self.asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands: how its runs ended so far, what is under way, and the run that ended just now.

    `planned` are the runs asked for so far, `variants` the same by variant, in the plan's order; `look` says where the
    study stands among several planned looks, `budget` what is spent of its budget, `waiting` what nothing goes on for
    now. `note` is a sentence for whoever watches; before training begins there may be nothing else. No mean and no
    difference is among it: see live_view.py.
    """

    planned: int
    ended: Mapping[Outcome, int] = field(default_factory=dict)
    variants: tuple[VariantRuns, ...] = ()
    running: tuple[tuple[PlannedRun, Epoch | None], ...] = ()
    latest: tuple[PlannedRun, RunResult] | None = None
    note: str | None = None
    look: str | None = None
    budget: str | None = None
    waiting: str | None = None


def by_variant(asked: Mapping[str, int], ended: Mapping[str, int]) -> tuple[VariantRuns, ...]:
    """Return the runs of each variant, in the order in which they were asked for."""
    return tuple(VariantRuns(variant=name, asked=count, ended=ended.get(name, 0)) for name, count in asked.items())
