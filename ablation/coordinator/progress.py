"""Where a study stands while it runs, as it is told about twice a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ablation.records import Epoch, Outcome, PlannedRun, RunResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands: how its runs ended so far, what is under way, and the run that ended just now.

    `planned` are the runs asked for so far; `look` says where the study stands among several planned looks, `budget`
    what is spent of its budget. `note` is a sentence for whoever watches; before training begins there may be nothing
    else.
    """

    planned: int
    ended: Mapping[Outcome, int] = field(default_factory=dict)
    running: tuple[tuple[PlannedRun, Epoch | None], ...] = ()
    latest: tuple[PlannedRun, RunResult] | None = None
    note: str | None = None
    look: str | None = None
    budget: str | None = None
