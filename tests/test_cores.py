"""How many workers start is what this process may use, not what the machine has."""

import os
from pathlib import Path

import pytest

from ablation.executors.cores import available_cores, available_memory, lacks_bf16_units

V2 = "31 23 0:28 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
)


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


def made(system: Path, *, membership: str, mounts: str, **quotas: str) -> Path:
    files = {"proc/self/cgroup": membership, "proc/self/mountinfo": mounts, **quotas}
    for name, text in files.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(text)
    return system


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("50000 100000", 1), ("250000 100000", 2), ("max 100000", 64), ("", 64), ("9900000 1", 64)],
)
def test_a_containers_quota_counts(tmp_path: Path, quota: str, cores: int) -> None:
    quotas = {"sys/fs/cgroup/cpu.max": quota}

    assert cores == available_cores(made(tmp_path, membership="0::/\n", mounts=V2.format(root="/"), **quotas))


@pytest.mark.parametrize("tight", ["", "pods", "pods/one"])
def test_the_tightest_quota_around_a_process_counts(tmp_path: Path, tight: str) -> None:
    quotas = {f"sys/fs/cgroup/{place}/cpu.max": "800000 100000" for place in ("pods", "pods/one")}
    quotas[f"sys/fs/cgroup/{tight}/cpu.max"] = "300000 100000"

    assert 3 == available_cores(made(tmp_path, membership="0::/pods/one\n", mounts=V2.format(root="/"), **quotas))


@pytest.mark.parametrize(
    ("root", "place"), [("/", "docker/one/"), ("/docker/one", ""), ("/docker", "one/"), ("/other", "")]
)
def test_a_quota_of_version_1_counts_wherever_the_hierarchy_is_mounted(tmp_path: Path, root: str, place: str) -> None:
    folder = f"sys/fs/cgroup/cpu,cpuacct/{place}"
    quotas = {f"{folder}cpu.cfs_quota_us": "400000\n", f"{folder}cpu.cfs_period_us": "100000\n"}
    membership = "4:cpuset:/\n3:cpu,cpuacct:/docker/one\n1:name=systemd:/x:y\n0::/\n"

    assert 4 == available_cores(made(tmp_path, membership=membership, mounts=V1.format(root=root), **quotas))


def test_no_quota_of_version_1_is_none(tmp_path: Path) -> None:
    quotas = {f"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{name}_us": text for name, text in (("quota", "-1"), ("period", "1"))}

    assert 64 == available_cores(made(tmp_path, membership="3:cpu,cpuacct:/\n", mounts=V1.format(root="/"), **quotas))


def test_a_system_that_tells_nothing_leaves_the_affinity(tmp_path: Path) -> None:
    assert 64 == available_cores(tmp_path)


@pytest.mark.parametrize(("given", "cores"), [("4", 4), ("100", 64), ("0", 1), ("", 64), ("4(x2)", 64)])
def test_a_batch_jobs_share_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, cores: int) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)

    assert cores == available_cores(tmp_path)


@pytest.mark.parametrize(
    "other", [b"30 25 0:27 / /mnt/one rw - tmpfs  rw\n", b"30 25 0:27 / /mnt/\xe4 rw - tmpfs none rw\n"]
)
def test_other_mounts_may_have_no_source_and_a_name_that_is_not_utf_8(tmp_path: Path, other: bytes) -> None:
    quotas = {"sys/fs/cgroup/cpu.max": "200000 100000"}
    system = made(tmp_path, membership="0::/\n", mounts=V2.format(root="/"), **quotas)
    mounts = system / "proc/self/mountinfo"
    mounts.write_bytes(other + mounts.read_bytes())

    assert 2 == available_cores(system)


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16\n", False),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", False),
        ("Features\t: fp asimd bf16 i8mm\n", False),
        ("Features\t: fp asimd\n", True),
        ("", False),
    ],
)
def test_a_processor_without_bf16_units_is_known_by_what_linux_says_of_it(
    tmp_path: Path, text: str, lacks: bool
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\n{text}")

    assert lacks == lacks_bf16_units(tmp_path)


MEMORY_V1 = "33 31 0:31 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(("limit", "expected"), [("1048576", 2**20), ("max", 2**30), ("", 2**30)])
def test_a_containers_memory_is_its_limit(tmp_path: Path, limit: str, expected: int) -> None:
    files = {"sys/fs/cgroup/pods/memory.max": limit, "proc/meminfo": "MemTotal:       1048576 kB\nMemFree: 9 kB\n"}

    assert expected == available_memory(made(tmp_path, membership="0::/pods\n", mounts=V2.format(root="/"), **files))


@pytest.mark.parametrize(("limit", "expected"), [("1048576", 2**20), ("9223372036854771712", 2**30)])
def test_a_limit_of_memory_of_version_1_counts(tmp_path: Path, limit: str, expected: int) -> None:
    files = {"sys/fs/cgroup/memory/one/memory.limit_in_bytes": limit, "proc/meminfo": "MemTotal: 1048576 kB\n"}

    found = made(tmp_path, membership="5:memory:/one\n", mounts=MEMORY_V1.format(root="/"), **files)

    assert expected == available_memory(found)


def test_memory_that_nothing_tells_is_not_guessed(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None
