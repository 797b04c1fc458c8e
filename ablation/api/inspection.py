"""What this machine, its stores and an engine's nodes can do, and whether a study would be refused; nothing is changed.

It asks what a study asks at its start: a finding is what was found, or the error that a study would end with.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from shutil import disk_usage
from typing import TYPE_CHECKING

from ablation.api.running import Execution
from ablation.coordinator.planning import size_text
from ablation.coordinator.preparation import carried_code, required_of_nodes
from ablation.errors import AblationError
from ablation.executors import Where, Wish, kind_and_where
from ablation.executors.cores import available_cores, available_memory
from ablation.output import plain
from ablation.preview import preview_study
from ablation.provenance import LIBRARIES, provenance
from ablation.scheduling import default_storage, storage_found
from ablation.storage.databases import without_password
from ablation.storage.permissions import nearest_folder
from ablation.storage.state import State
from ablation.study import Study
from ablation.tracking import Tracker, store_found
from ablation.worker import device_remarks, device_text, resolve_devices, why_no_gpu

if TYPE_CHECKING:
    from ablation.executors.nodes.inspection import NodeFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, and what was found; or why a study would be refused, and what to do."""

    what: str
    found: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked about: how a study would be run, its state folder and tracker, and the study where there is one."""

    execution: Execution
    state: State
    tracker: Tracker
    study: Callable[[], Study] | None

    @property
    def where(self) -> Where | None:
        return kind_and_where(self.execution.executor, is_open=self.execution.is_open)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What was found of this machine and its stores, and of the nodes of the engine that was asked about."""

    findings: tuple[Finding, ...]
    nodes: tuple[NodeFound, ...] = ()

    @property
    def problems(self) -> list[str]:
        return [f"{one.what}: {one.problem}" for one in self.findings if one.problem is not None]


def inspect(asked: Asked) -> Inspection:
    """Look at all of it, one after the other: what does not answer takes a while."""
    study: list[Study] = []

    def checked() -> str:
        assert asked.study is not None
        study.append(asked.study())
        return _study(study[0], asked)

    findings = [
        *_machine(),
        *([_finding("devices", lambda: _devices(asked.execution.device))] if asked.where is None else []),
        _finding("state folder", lambda: _state_folder(asked.state)),
        _finding("data cache", lambda: _data_cache(asked.state)),
        _finding("MLflow", lambda: _store(asked.tracker)),
        _finding("Optuna", lambda: _storage(asked)),
        *([_finding("study", checked)] if asked.study is not None else []),
    ]
    if asked.where is None:
        return Inspection(findings=tuple(findings))
    scheduler, nodes = _cluster(asked, asked.where, *study)
    return Inspection(findings=(*findings, *scheduler), nodes=nodes)


def _cluster(asked: Asked, where: Where, *study: Study) -> tuple[list[Finding], tuple[NodeFound, ...]]:
    """Return what was found of a scheduler and its workers, and the latter each; `study` is one that could be read."""
    from ablation.executors.nodes.inspection import cluster_found

    checks = required_of_nodes(study[0], is_here=False) if study else ()
    try:
        found = cluster_found(where, device=asked.execution.device, state=asked.state.folder, checks=checks)
    except AblationError as error:
        return [Finding(what="scheduler", problem=str(error))], ()
    fit = sum(node.why is None for node in found.nodes)
    scheduler = Finding(what="scheduler", found=found.address)
    if found.nodes and not fit:
        return [scheduler, Finding(what="workers", problem=_none_fit(found.nodes))], found.nodes
    counted = f"{len(found.nodes)}, {fit} of them fit to train on {found.device}"
    workers = Finding(what="workers", found=counted if found.nodes else "none yet: a study would wait for one")
    return [scheduler, workers], found.nodes


def _none_fit(nodes: Sequence[NodeFound]) -> str:
    return f"none of {len(nodes)} can train runs, and a study would wait for one that can; why is said of each"


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what=what, found=look())
    except AblationError as error:
        return Finding(what=what, problem=str(error))


def _machine() -> Iterator[Finding]:
    of = provenance("")
    yield Finding(what="host", found=f"{of['host']}, {platform.system()} on {platform.machine()}")
    yield Finding(what="ablation", found=f"{of['version']}, Python {of['python_version']}")
    yield Finding(what="libraries", found=", ".join(f"{name} {of[f'{name}_version']}" for name in LIBRARIES))
    memory = available_memory()
    found = f"{available_cores()} usable, {size_text(memory) if memory is not None else 'unknown'} of memory"
    yield Finding(what="cores", found=found)


def _devices(asked: str) -> str:
    devices = resolve_devices(asked)
    slots = Wish(devices=devices, workers=None, threads=1).slots
    reason = why_no_gpu()
    why = f"; no GPU can be used: {reason}" if reason is not None else ""
    return f"{', '.join(map(device_text, devices))}; {len(slots)} runs at a time{why}"


def _state_folder(state: State) -> str:
    state.check()
    folder = nearest_folder(state.folder)
    missing = "" if folder == state.folder else ", not there yet"
    return f"{state.folder}{missing}; {size_text(disk_usage(folder).free)} free"


def _data_cache(state: State) -> str:
    """Return the data sets that were prepared before, each with its size; a study reads others from their sources."""
    folders = sorted(file.parent for file in state.data.glob("*/facts.json"))
    sizes = {folder.name: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
    return ", ".join(f"{name} ({size_text(size)})" for name, size in sizes.items()) or "empty"


def _store(tracker: Tracker) -> str:
    found = store_found(tracker)
    return f"{without_password(plain(str(getattr(tracker, 'tracking_uri', ''))))}: {found}"


def _storage(asked: Asked) -> str:
    default = default_storage(asked.state.folder)
    url = asked.execution.storage or default
    return f"{without_password(url)}: {storage_found(url, is_rebuilt=url == default)}"


def _study(study: Study, asked: Asked) -> str:
    """Check a study's data, models and precision, and return how large it is."""
    preview = preview_study(study, state=asked.state, device=None)
    if asked.where is not None:
        carried_code(study)
        return preview.lines_above()[0]
    devices = resolve_devices(asked.execution.device)
    for check in required_of_nodes(study, is_here=True):
        for device in devices:
            check(device)
    return "; ".join([preview.lines_above()[0], *device_remarks(study.variants, devices)])
