"""What this machine and its stores can do, and whether a study would be refused here; nothing is changed.

It asks what a study asks at its start: a finding is what was found, or the error that a study would end with.
"""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from shutil import disk_usage

from ablation.coordinator.planning import size_text
from ablation.errors import AblationError
from ablation.executors import Wish
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
from ablation.worker import check_device, device_remarks, device_text, resolve_devices, why_no_gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, and what was found; or why a study would be refused, and what to do."""

    what: str
    found: str = ""
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked about: a study, where there is one, with the device, state folder and stores it would have.

    `is_elsewhere` of a study that other machines would train.
    """

    study: Callable[[], Study] | None
    device: str
    state: State
    tracker: Tracker
    storage: str | None
    is_elsewhere: bool = False


def findings_of(asked: Asked) -> Iterator[Finding]:
    """Yield what is found, one after the other: a store that does not answer takes a while."""
    yield from _machine()
    if not asked.is_elsewhere:
        yield _finding("devices", lambda: _devices(asked.device))
    yield _finding("state folder", lambda: _state_folder(asked.state))
    yield _finding("data cache", lambda: _data_cache(asked.state))
    yield _finding("MLflow", lambda: _store(asked.tracker))
    yield _finding("Optuna", lambda: _storage(asked))
    if asked.study is not None:
        study = asked.study
        yield _finding("study", lambda: _study(study(), asked))


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
    url = asked.storage or default
    return f"{without_password(url)}: {storage_found(url, is_rebuilt=url == default)}"


def _study(study: Study, asked: Asked) -> str:
    """Check a study's data, models and precision, and return how large it is."""
    preview = preview_study(study, state=asked.state, device=None)
    if asked.is_elsewhere:
        return preview.lines_above()[0]
    devices = resolve_devices(asked.device)
    for device in devices:
        check_device(study.variants, device)
    return "; ".join([preview.lines_above()[0], *device_remarks(study.variants, devices)])
