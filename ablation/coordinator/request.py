"""An execution of a study as it was asked for: what to run, on what, into which stores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablation.coordinator.progress import Progress

if TYPE_CHECKING:
    from ablation.executors import Executor
    from ablation.storage.state import State
    from ablation.study import Study
    from ablation.tracking import Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The study, the executor that trains it, the stores that remember it, and how that is wished.

    `fuse` is how many runs a job may train together; by default as many as pay on a GPU, and one on a CPU. With
    `cudnn_benchmark`, cuDNN's algorithms are chosen on a GPU by timing. Runs that have failed are trained again with
    `retry_failed` only. `is_fresh` deletes what is recorded of the study first; `is_reused` takes what was trained of
    it before it was deleted in the tracker. `budget_s` is what the executions of the study may take in all, this one
    counted by its `clock`.
    """

    study: Study
    tracker: Tracker
    executor: Executor
    storage_url: str
    state: State
    fuse: int | None = None
    cudnn_benchmark: bool = False
    retry_failed: bool = False
    is_fresh: bool = False
    is_reused: bool = False
    budget_s: float | None = None
    clock: Callable[[], float] = time.monotonic

    def note(self, text: str | None) -> Progress:
        """Return a sentence as news of this execution, which has trained nothing yet."""
        return Progress(planned=len(self.study.variants) * self.study.spec.most_seeds, note=text)
