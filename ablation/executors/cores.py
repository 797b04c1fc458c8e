"""How many cores this process may use (affinity, container's quota, batch job's share), their bf16, and its memory."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
BF16_UNITS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
"""What Linux calls the instructions that multiply bf16 numbers, on x86 and on ARM."""


def available_cores(system: Path = SYSTEM) -> int:
    """Return the least of the affinity, the CPU quota and SLURM_CPUS_PER_TASK, at least 1.

    A quota is a share of time, not a set of cores: of half a core it is 1, of 2.5 cores 2. Quotas of the process's own
    control group and of those around it count, of both versions; `system` is where /proc and /sys are found.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    task = os.environ.get("SLURM_CPUS_PER_TASK", "")
    shares = [*_quotas(system), float(task) if task.isdecimal() else math.inf]
    return max(1, int(min(allowed, *shares)))


def available_memory(system: Path = SYSTEM) -> int | None:
    """Return the least of the machine's memory and the limits of this process's control groups, in bytes, if known."""
    lines = _read(system / "proc/meminfo").splitlines()
    whole = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]
    limits = [
        int(text)
        for folder in _control_groups(system, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")  # without a limit it is `max`, or a huge number
        if (text := _read(folder / name)).isdecimal()
    ]
    return min([*whole, *limits], default=None)


def lacks_bf16_units(system: Path = SYSTEM) -> bool:
    """Whether the processor is known to have no instructions for products of bf16, and computes them as fp32."""
    lines = _read(system / "proc/cpuinfo").lower().splitlines()
    named = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "features"))]
    return bool(named) and BF16_UNITS.isdisjoint(named[0])


def _quotas(system: Path) -> Iterator[float]:
    """Yield each quota that holds for this process, in cores; see cgroups(7) and the kernel's cgroup-v2.rst."""
    for folder in _control_groups(system, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):  # without a quota it is `max`, or -1
            yield int(quota) / int(period)


def _control_groups(system: Path, shared: str) -> Iterator[Path]:
    """Yield this process's control groups that share out `cpu` or `memory`, by folder, each with those around it."""
    memberships = dict(_memberships(system))
    for line in _read(system / "proc/self/mountinfo").splitlines():
        mount, _, kind = line.partition(" - ")
        fields, (file_system, _, options) = mount.split(), kind.split(" ")  # a source may be empty
        root, point = fields[3], system / fields[4].lstrip("/")
        for controller in _controllers(file_system, options, shared):
            if controller in memberships:
                yield from _up_to(point, _below(memberships[controller], root))


def _controllers(file_system: str, options: str, shared: str) -> tuple[str, ...]:
    """Return by what name /proc/self/cgroup tells the group in a mounted hierarchy, where that is of what is shared."""
    if file_system == "cgroup2":
        return ("",)
    return (shared,) if file_system == "cgroup" and shared in options.split(",") else ()


def _memberships(system: Path) -> Iterator[tuple[str, str]]:
    """Yield each controller with this process's control group; version 2 has one group and names no controller."""
    for line in _read(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _below(path: str, root: str) -> Path:
    """Return a group's path as seen from where its hierarchy is mounted, which may be a group of it."""
    inner = Path(path)
    return inner.relative_to(root) if inner.is_relative_to(root) else Path()


def _up_to(mount: Path, inner: Path) -> Iterator[Path]:
    folder = mount / str(inner).lstrip("/")
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _read(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes()).strip()
    except OSError:
        return ""
