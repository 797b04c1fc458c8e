"""Runs a checked study where and how it is asked to, shows how it goes, and ends it in good order when interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablation.api.arguments import check_kind, check_switches
from ablation.errors import AblationError
from ablation.executors import kind_and_where
from ablation.records import is_count
from ablation.stopping import stopping

if TYPE_CHECKING:
    from ablation.coordinator.conclusion import StudyOutcome
    from ablation.executors import Executor
    from ablation.storage.state import State
    from ablation.study import Study
    from ablation.tracking import Tracker

OF_AN_ENGINE = ("auto", "cpu", "cuda")
"""The devices that can be asked of an engine."""
MOST_WORKERS = 1024
MOST_RUNS_OF_A_JOB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Where and how a study is run; `workers`, `fuse` and `storage` have defaults that depend on where that is.

    `is_open` accepts an engine's network in which others may reach what runs code as this user.

    Raises:
        AblationError: a value is none that there is, or two contradict each other.
    """

    device: str = "auto"
    executor: str = "auto"
    is_open: bool = False
    workers: int | None = None
    fuse: int | None = None
    cudnn_benchmark: bool = False
    storage: str | None = None
    retry_failed: bool = False
    is_fresh: bool = False
    is_reused: bool = False
    budget: str | None = None

    def __post_init__(self) -> None:
        check_switches(
            insecure_network=self.is_open,
            cudnn_benchmark=self.cudnn_benchmark,
            retry_failed=self.retry_failed,
            fresh=self.is_fresh,
            reuse=self.is_reused,
        )
        if self.is_fresh and self.is_reused:
            raise AblationError("--fresh trains all anew, and --reuse takes what was trained before: give one of them")
        check_kind("executor", self.executor)
        check_kind("storage", self.storage, is_optional=True)
        check_kind("budget", self.budget, is_optional=True)
        _, where = kind_and_where(self.executor, is_open=self.is_open)
        if where is not None and self.device not in OF_AN_ENGINE:
            raise AblationError(
                f"{self.device!r} cannot be asked of {self.executor}, which gives its workers their GPUs; "
                f"there are: {', '.join(OF_AN_ENGINE)} @ --device"
            )
        for what, count, most in (("workers", self.workers, MOST_WORKERS), ("fuse", self.fuse, MOST_RUNS_OF_A_JOB)):
            if count is not None and not (is_count(count) and 1 <= count <= most):
                raise AblationError(f"{count!r} is no number from 1 to {most} @ {what}")
        try:
            self.budget_s(None)
        except ValueError as error:
            raise AblationError(f"{error} @ budget") from None

    def budget_s(self, of_file: float | None) -> float | None:
        """Return what the study's executions may take in all, in seconds: this option, else what the file says."""
        from ablation.study.budget import budget_seconds

        return of_file if self.budget is None else budget_seconds(self.budget)


def execute(
    study: Study,
    execution: Execution,
    *,
    tracker: Tracker,
    state: State,
    is_quiet: bool,
    say: Callable[[str], object],
) -> StudyOutcome:
    """Run a study, or what is left of it; `say` is told what of the options comes to nothing, and what is waited for.

    Raises:
        AblationError: it cannot be run as it is; see `ablation.pipeline.run_study`.
        KeyboardInterrupt: it was interrupted, and has ended in good order.
    """
    from ablation.api.progress import follow
    from ablation.coordinator.request import Request
    from ablation.pipeline import run_study
    from ablation.scheduling import default_storage
    from ablation.storage.databases import check_database

    if execution.storage is not None:
        check_database(execution.storage)
    with (
        _executor(execution, threads=study.spec.training.threads, say=say) as pool,
        closing(
            run_study(
                Request(
                    study=study,
                    tracker=tracker,
                    executor=pool,
                    storage_url=execution.storage or default_storage(state.folder),
                    state=state,
                    fuse=execution.fuse,
                    cudnn_benchmark=execution.cudnn_benchmark,
                    retry_failed=execution.retry_failed,
                    is_fresh=execution.is_fresh,
                    is_reused=execution.is_reused,
                    budget_s=execution.budget_s(budget.seconds if (budget := study.spec.budget) is not None else None),
                )
            )
        ) as steps,
    ):
        return follow(steps, study=study, is_quiet=is_quiet)


def _executor(execution: Execution, *, threads: int, say: Callable[[str], object]) -> Executor:
    """Return the executor that is asked for; what devices there are is an engine's matter where it has one."""
    from ablation.executors import make_executor
    from ablation.worker import resolve_devices, why_no_gpu

    kind, where = kind_and_where(execution.executor, is_open=execution.is_open)
    devices = (execution.device,) if where is not None else resolve_devices(execution.device)
    if where is None and execution.device == "auto" and (reason := why_no_gpu()) is not None:
        say(f"Training on the CPU, as no GPU can be used: {reason}")
    if execution.cudnn_benchmark and devices == ("cpu",):
        say("--cudnn-benchmark on changes nothing on a CPU")
    return make_executor(kind, devices=devices, workers=execution.workers, threads=threads, where=where, say=say)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT end what runs here in good order, where Python's own handler would raise KeyboardInterrupt.

    A second one raises it at once. Only the main thread can set a handler, and one of the caller's own is left alone.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    with stopping.listening(to=(signal.SIGINT,), on_insisted=_raise_interrupt):
        yield


def _raise_interrupt(_number: int) -> None:
    raise KeyboardInterrupt
