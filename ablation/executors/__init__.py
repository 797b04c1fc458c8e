"""Runs callables and returns futures: in this process, or in processes of which one may be killed."""

from collections.abc import Callable, Mapping

from ablation.executors.cores import available_cores
from ablation.executors.inline import InlineExecutor
from ablation.executors.interface import Executor, Files, JobExited, Needed, NodeLost, Place, WorkerLost, free_slots
from ablation.executors.processes import ProcessExecutor


def make_executor(kind: str, *, devices: tuple[str, ...], workers: int | None, threads: int) -> Executor:
    """Return an executor of a kind in EXECUTORS; `auto` is `processes`, as many as there is room for.

    Args:
        devices: what jobs may run on; workers take turns on them.
        workers: jobs at a time; by default one per GPU, or one per `threads` cores.
        threads: CPU threads of a job.
    """
    on_gpu = devices[0] != "cpu"
    count = workers or (len(devices) if on_gpu else max(1, available_cores() // threads))
    return EXECUTORS[kind](tuple(devices[index % len(devices)] for index in range(count)))


EXECUTORS: Mapping[str, Callable[[tuple[str, ...]], Executor]] = {
    "auto": lambda slots: ProcessExecutor(slots=slots),
    "inline": lambda slots: InlineExecutor(device=slots[0]),
    "processes": lambda slots: ProcessExecutor(slots=slots),
}
"""By name: slots to an executor."""

__all__ = [
    "EXECUTORS",
    "Executor",
    "Files",
    "InlineExecutor",
    "JobExited",
    "Needed",
    "NodeLost",
    "Place",
    "ProcessExecutor",
    "WorkerLost",
    "free_slots",
    "make_executor",
]
