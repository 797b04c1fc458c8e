"""Whether a node can train what this machine would: the same versions, and the device that was asked for."""

import re
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ablation import __version__


def here() -> dict[str, str]:
    """Return the versions of this machine that a node must have too, by what they are of."""
    return {
        "ablation": __version__,
        "Python": _python(sys.version_info[:2]),
        "torch": _public(metadata.version("torch")),
    }


def why_of_versions(said: Mapping[str, str | None]) -> str | None:
    """Return why a node with these versions is unfit, both sides named; None where it is not."""
    ours = here()
    differing = [name for name in ours if name in said and _public(said[name] or "") != ours[name]]
    if not differing:
        return None
    theirs = ", ".join(f"{name} {said[name]}" if said[name] else f"no {name}" for name in differing)
    return f"it has {theirs}, and this machine {', '.join(f'{name} {ours[name]}' for name in differing)}"


def why_of_engine(versions: object) -> str | None:
    """Return why a worker is unfit, from what dask says of its Python; None where that is the same."""
    match versions:
        case {"packages": {"python": str(python)}}:
            return why_of_versions({"Python": ".".join(python.split(".")[:2])})
    return None


def why_of_agent(error: str) -> str:
    """Return why a worker is unfit which could not be given an agent, by the error that it met."""
    if re.search(r"No module named .?'ablation.?'", error):
        return f"it has no ablation, and this machine ablation {__version__}"
    if "No module named" in error or "ImportError" in error:
        return f"it has another ablation than this machine, {__version__}: {error}"
    return error


def why_of_hello(said: Mapping[str, Any]) -> str | None:
    """Return why a node is unfit, from the versions that its agent says; None where they are the same."""
    return why_of_versions({"ablation": said.get("version"), "Python": said.get("python"), "torch": said.get("torch")})


def why_of_slots(said: Mapping[str, Any], device: str) -> str | None:
    """Return why a node is unfit for a device, from what its agent says; None where it has one."""
    if said.get("slots", {}).get(device):
        return None
    reason = said.get("why_no_gpu") or "PyTorch finds none"
    return f"it has no GPU, which was asked for: {reason}"


def _public(version: str) -> str:
    """Return a version without what tells builds of the same apart, as `+cpu`."""
    return version.partition("+")[0]


def _python(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
