"""Says which machine and versions a benchmark ran on, and keeps its result as a dated JSON file."""

import argparse
import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ablation.executors.cores import available_cores

TRAINING_LIBRARIES = ("torch", "torchvision", "numpy")


def environment(
    options: argparse.Namespace, *, libraries: Sequence[str] = TRAINING_LIBRARIES, gpu: str | None = None
) -> dict[str, Any]:
    """Return date, hardware, load, versions of installed libraries, and the options, paths by their last part."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": available_cores(),
        "gpu": gpu,
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        **_versions(libraries),
        "options": {name: value.name if isinstance(value, Path) else value for name, value in vars(options).items()},
    }


def cpu_model() -> str:
    """Return the processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write_record(folder: Path, record: Mapping[str, Any], *, name: str, kind: str) -> None:
    """Write `<name>-<date of its environment>-<kind>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.datetime.fromisoformat(record["environment"]["date"]).strftime("%Y-%m-%d-%H%M%S")
    path = folder / f"{name}-{moment}-{kind}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


def _versions(libraries: Sequence[str]) -> dict[str, str]:
    found = {}
    for library in libraries:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
