"""Says of what class the error of a run is."""

import torch

from ablation.errors import CarriedError, DiskFull
from ablation.records import Failure
from ablation.stopping import Preempted, stopping

OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "alloc_failed",
)
"""What PyTorch and its libraries say in a plain RuntimeError when there was none to be had."""


class DeviceLost(CarriedError):
    """A device that computes nothing more for this process, after runs that were trained together on it."""

    def __init__(self, error: str) -> None:
        super().__init__(f"its device computes nothing more in that process: {error}")


class MetricsUnfit(ValueError):
    """What a training function returned are no metrics, or lack one that the study compares on."""


def check_is_of_the_run(error: BaseException) -> None:
    """See that an error which ended a run's code is that run's failure, as SystemExit is, and ends nothing more.

    Raises:
        Preempted: this process was asked to end.
        DiskFull, KeyboardInterrupt: what was raised is not the run's.
    """
    if isinstance(error, DiskFull | Preempted):
        raise error
    if stopping.is_interruption(error):
        if stopping.is_asked:
            raise Preempted from error
        raise error


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def failure_of(error: BaseException) -> Failure:
    if isinstance(error, MetricsUnfit):
        return "metrics"
    return "out of memory" if is_out_of_memory(error) else "code"
