"""What becomes of runs whose worker or node was lost: they go on, unless that has happened too often."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

from ablation.errors import CarriedError
from ablation.executors import NodeLost, WorkerLost
from ablation.records import Outcome, PlannedRun, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.worker import DeviceLost

MAX_TRIES = 3
"""Deaths of a run's worker, without an epoch kept in between, after which the run has failed."""
MOST_NODES_LOST = 10
"""The same of nodes that were lost with it, which is no fault of the run."""


class ResultLost(NodeLost):
    """A job said that it is done, and its run's folder has no result."""

    def __init__(self) -> None:
        CarriedError.__init__(self, "its result did not reach its folder")


@dataclass(slots=True, kw_only=True)
class Deaths:
    """How often a run was lost since it last got on, and after which epoch it was kept then; `most` is too often."""

    most: int
    count: int = 0
    epoch: int = 0

    def one_more(self, folder: RunFolder) -> bool:
        """Count a death; say whether there were too many without getting on."""
        kept = folder.progress()
        self.count = self.count + 1 if kept <= self.epoch else 1
        self.epoch = max(kept, self.epoch)
        return self.count >= self.most


@dataclass(frozen=True, slots=True)
class Losses:
    """How often each run was lost with its worker, and with its node."""

    workers: defaultdict[str, Deaths] = field(default_factory=lambda: defaultdict(lambda: Deaths(most=MAX_TRIES)))
    nodes: defaultdict[str, Deaths] = field(default_factory=lambda: defaultdict(lambda: Deaths(most=MOST_NODES_LOST)))

    def are_too_many(self, error: BaseException | None, run: PlannedRun, folder: RunFolder) -> bool:
        """Count what ended a run's job, where the run was lost with it; say whether it has failed now."""
        if isinstance(error, NodeLost):
            return self.nodes[run.identity].one_more(folder)
        return is_death(error) and self.workers[run.identity].one_more(folder)


def is_death(error: BaseException | None) -> bool:
    """Whether a worker was lost, and not asked to end."""
    return isinstance(error, DeviceLost) or (isinstance(error, WorkerLost) and not error.is_preemption)


def fate(error: BaseException) -> str:
    """Say what became of the worker of a run that is given back."""
    if isinstance(error, NodeLost):
        return str(error)
    return f"its worker died: {error}" if is_death(error) else "its worker was asked to end"


def result_of_lost_worker(planned: PlannedRun, error: BaseException) -> RunResult:
    """Return the result of a run that was lost too often, with its workers or its nodes."""
    often = (
        f"{MOST_NODES_LOST} nodes were lost with it before it got on"
        if isinstance(error, NodeLost)
        else f"its worker died {MAX_TRIES} times without getting on"
    )
    return RunResult(
        identity=planned.identity,
        outcome=Outcome.FAILED,
        metrics={},
        epochs=0,
        error=f"{often}; the last time, {error}",
        failure="lost worker",
        ended_ms=time.time_ns() // 1_000_000,
    )
