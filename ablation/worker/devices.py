"""Names the devices there are, sets one up for a run, and measures the memory that the run takes at most."""

import resource
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ablation.errors import DeviceUnavailable, PrecisionUnavailable
from ablation.executors.cores import lacks_bf16_units
from ablation.records import Precision, Variant
from ablation.training import set_precision
from ablation.training.precision import PRECISIONS

MIB = 1024 * 1024
CLEAR_PEAK = "5"


def resolve_devices(asked: str) -> tuple[str, ...]:
    """Return the devices that `--device` names: `auto` takes every GPU that can be used, else the CPU.

    Raises:
        DeviceUnavailable: there is no such device.
    """
    count = 0 if why_no_gpu() is not None else torch.cuda.device_count()
    gpus = tuple(f"cuda:{index}" for index in range(count))
    if asked in ("auto", "cuda") and gpus:
        return gpus
    if asked in ("auto", "cpu"):
        return ("cpu",)
    if asked not in gpus:
        raise DeviceUnavailable(asked, ("auto", "cpu", *gpus), reason=why_no_gpu())
    return (asked,)


def device_at(slot: str) -> str:
    """Return the device that a slot's name means in this process: `cuda` is the first GPU that it sees."""
    return "cuda:0" if slot == "cuda" else slot


def device_text(device: str) -> str:
    """Return a device with its model and memory, where it is a GPU, and whether bf16 is a gain on it."""
    if device == "cpu":
        return f"cpu{' (no instructions for bf16)' if lacks_bf16_units() else ''}"
    found, lacking = torch.cuda.get_device_properties(device), ""
    try:
        check_precision("bf16", torch.device(device))
    except PrecisionUnavailable:
        lacking = ", no bf16"
    return f"{device} ({found.name}, {found.total_memory / MIB / 1024:.1f} GiB{lacking})"


def why_no_gpu() -> str | None:
    """Return why PyTorch cannot use a GPU, where it says so, as with a driver that is too old; else None."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        is_usable = torch.cuda.is_available()
    return None if is_usable or not said else str(said[0].message).splitlines()[0]


def set_up(device: torch.device, *, threads: int, precision: Precision = "fp32") -> None:
    """Set this process up for a run on a device.

    Raises:
        PrecisionUnavailable: the device does not compute in that precision.
    """
    torch.set_num_threads(threads)
    set_precision(precision)
    check_precision(precision, device)
    if device.type == "cuda":
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.set_device(device)  # or this process would take memory of the first GPU too
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _clear_peak_memory()


def computes(device: torch.device) -> bool:
    """Whether a device still computes for this process: after an assertion in a kernel it never does again."""
    return _succeeds(device, lambda: torch.cuda.synchronize(device))


def can_train_more(device: torch.device) -> bool:
    """Whether this process can train other runs on a device: it computes, and gives memory back.

    PyTorch's allocator never gives any back once it takes a capture that failed for one that goes on.
    """
    return computes(device) and _succeeds(device, torch.cuda.empty_cache)


def _succeeds(device: torch.device, call: Callable[[], object]) -> bool:
    if device.type != "cuda":
        return True
    try:
        call()
    except RuntimeError:
        return False
    return True


def check_precision(precision: str, device: torch.device) -> None:
    """See that a device computes in a precision.

    Raises:
        PrecisionUnavailable: it does not, or only by way of another.
    """
    asked = PRECISIONS[precision]
    if device.type == "cpu":
        if not asked.is_on_cpu:
            there = tuple(name for name, one in PRECISIONS.items() if one.is_on_cpu)
            raise PrecisionUnavailable(precision, "cpu", there)
    elif asked.capability is not None and torch.cuda.get_device_capability(device) < asked.capability:
        there = tuple(name for name, one in PRECISIONS.items() if one.capability is None)
        raise PrecisionUnavailable(precision, str(device), there)


def check_device(variants: Sequence[Variant], slot: str) -> None:
    """See that a slot's device computes in the precision of every variant; a training function's own keys are its own.

    Raises:
        PrecisionUnavailable: it does not.
    """
    for precision in _precisions(variants):
        check_precision(precision, torch.device(device_at(slot)))


def device_remarks(variants: Sequence[Variant], devices: Sequence[str]) -> tuple[str, ...]:
    """Say where a variant's precision is no gain on these devices."""
    if "bf16" not in _precisions(variants) or "cpu" not in devices or not lacks_bf16_units():
        return ()
    return ("bf16 is slower than fp32 on this processor, which has no instructions for it",)


def _precisions(variants: Sequence[Variant]) -> list[str]:
    found = [variant.settings for variant in variants]
    return ["fp32" if settings.is_own_training else settings.engine.precision for settings in found]


def _clear_peak_memory() -> None:
    """Let the peak start anew for this run, where Linux allows it."""
    try:
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    except OSError:
        return


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak of the device's allocated memory, or of this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
