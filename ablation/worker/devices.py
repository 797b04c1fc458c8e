"""Names the devices there are, sets one up for a run, and measures the memory that the run takes at most."""

import resource
from pathlib import Path

import torch

from ablation.errors import DeviceUnavailable

MIB = 1024 * 1024
CLEAR_PEAK = "5"


def resolve_devices(asked: str) -> tuple[str, ...]:
    """Return the devices that `--device` names: `auto` takes every GPU there is, else the CPU.

    Raises:
        DeviceUnavailable: there is no such device.
    """
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if asked in ("auto", "cuda") and gpus:
        return gpus
    if asked in ("auto", "cpu"):
        return ("cpu",)
    if asked not in gpus:
        raise DeviceUnavailable(asked, ("auto", "cpu", *gpus))
    return (asked,)


def set_up(device: torch.device, *, threads: int) -> None:
    torch.set_num_threads(threads)
    if device.type == "cuda":
        # PyTorch's convolutions are TF32 by default and its products are not; a comparison takes neither silently.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _clear_peak_memory()


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
