"""Says where a run comes from: git commit, library versions, device and host."""

import functools
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from ablation import __version__

LIBRARIES = ("torch", "torchvision", "numpy", "mlflow", "optuna")


def provenance(device: str, *, packages: Sequence[str] = (), commit: str | None = None) -> Mapping[str, str]:
    """Return the tags of a run on a device, by name.

    `packages` are what the user's code imports, each with its version; `commit` is where its study was begun.
    """
    return {
        "device": device,
        "host": platform.node(),
        "python_version": platform.python_version(),
        "version": __version__,
        **{f"{library}_version": _version(library) for library in LIBRARIES},
        **({"code_packages": ", ".join(packages)} if packages else {}),
        **({"git_commit": commit, "mlflow.source.git.commit": commit.partition("+")[0]} if commit else {}),
    }


@functools.cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the working directory's repository, or None outside of one.

    One with uncommitted changes ends in `+changes`.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()  # noqa: S603
