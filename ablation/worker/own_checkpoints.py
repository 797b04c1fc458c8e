"""Keeps what a training function gives to `report.checkpoint`, and finds it again when the run is resumed.

A checkpoint holds the function's state, the epochs that it has reported, the files in its folder and the states of the
random generators. It is kept as the engine's are: whole or not at all, the last two of a run, read without running
anything. The function may ask for one after every step: most are not due, and cost a microsecond.
"""

import contextlib
import dataclasses
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from ablation.errors import CarriedError
from ablation.records import Epoch, ReportedEpoch
from ablation.stopping import Preempted, stopping
from ablation.storage.run_folder import OWN, RunFolder
from ablation.training.snapshots import host_state, put_back_host_state
from ablation.worker.checkpoints import is_due, keep_checkpoint, read_checkpoint

REPORTS_WHEN_ASKED = 2
"""Epochs reported without a checkpoint, after which a run that is asked to end does so."""
ALLOWED = "tensors, arrays, numbers, texts, bytes, None, and lists, tuples, sets and mappings of these"
MOST_NAMED = 100
"""Characters of the name of a part that cannot be kept."""


class StateUnfit(CarriedError, TypeError):
    """What a training function gave to `report.checkpoint` could not be restored."""

    def __init__(self, place: str, found: Any) -> None:
        way = "; keep its state_dict()" if hasattr(found, "state_dict") else ""
        super().__init__(
            f"report.checkpoint keeps {ALLOWED}; {place[:MOST_NAMED]} is {type(found).__name__}, which could not be "
            f"restored{way}"
        )


class KeepsStates(Protocol):
    """What becomes of the states that a training function gives to be kept."""

    state: Any
    """The one that it resumes from, None where it begins."""

    def restore_random(self) -> None:
        """Set the random generators to what they were when that state was kept."""
        ...

    def keep(self, state: Any, epochs: Sequence[ReportedEpoch]) -> None:
        """Keep a state after so many epochs, where it is time for that.

        Raises:
            StateUnfit: it could not be restored.
            Preempted: this process was asked to end, and now can.
        """
        ...

    def reported(self) -> None:
        """Take note that an epoch was reported.

        Raises:
            Preempted: this process was asked to end, and no checkpoint comes.
        """
        ...


class TriedStates:
    """Keeps nothing: sees that the states of a run that is only tried could be kept."""

    def __init__(self) -> None:
        self.state: Any = None
        self._checked = _Checked()

    def restore_random(self) -> None:
        """There is none to resume from."""

    def keep(self, state: Any, epochs: Sequence[ReportedEpoch]) -> None:  # noqa: ARG002 - as the others
        self._checked.check(state)

    def reported(self) -> None:
        """Nothing is to be kept for it."""


class OwnRun(Protocol):
    """A run that a training function trains, as far as it is resumed."""

    folder: RunFolder
    identity: str
    seconds: float
    """That it has been trained so far, in trainings that were interrupted."""

    def begin_anew(self) -> None: ...

    def resume(self, epochs: Sequence[Epoch], seconds: float, *, is_latest: bool) -> None:
        """Take up what was kept; `is_latest` is false where a later checkpoint was kept and is of no use."""
        ...

    def note_resumable(self) -> None:
        """Note that epochs are undone by an interruption which come after the last checkpoint."""
        ...

    def writing(self) -> AbstractContextManager[None]: ...

    def check_owned(self) -> None: ...


class OwnCheckpoints:
    """The checkpoints of one run; those of another device or PyTorch are not resumed from.

    `said` tells in a sentence what could not be resumed from, nothing where all could.
    """

    def __init__(self, run: OwnRun, *, files: Path, device: torch.device) -> None:
        """Resume the run from its last checkpoint that can be restored, or begin it anew; `files` is its folder."""
        self._run, self._files, self._device = run, files, device
        self._made_by = {"device": device.type, "torch": str(torch.__version__), "identity": run.identity}
        self._begun = self._last = time.monotonic()
        self._number, self._cost_s, self._reports = 0, 0.0, 0
        self._is_first, self._checked = True, _Checked()
        self._random: Mapping[str, Any] | None = None
        self.state: Any = None
        self.said = ""
        self._resume()

    def restore_random(self) -> None:
        if self._random is not None:
            _put_back_random(self._random, self._device)

    def keep(self, state: Any, epochs: Sequence[ReportedEpoch]) -> None:
        """Do what KeepsStates promises; a run's first is always kept, so that one that could not be is found then.

        Raises:
            DiskFull: it cannot be written; those before it are kept.
        """
        if not self._is_first and not is_due(self._last, self._cost_s):
            return
        begun = time.monotonic()
        self._run.check_owned()
        content = {
            **self._made_by,
            "seconds": self._run.seconds + begun - self._begun,
            "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
            "state": state,
            "random": _random_state(self._device),
            "files": dict(_contents(self._files)),
        }
        self._checked.check(state)
        self._number += 1
        with self._run.writing():
            keep_checkpoint(self._run.folder, self._run.folder.own_checkpoint(self._number, len(epochs)), content)
            self._run.note_resumable()
        self._is_first, self._last = False, time.monotonic()
        self._cost_s = self._last - begun
        if stopping.is_asked:
            raise Preempted

    def reported(self) -> None:
        if stopping.is_asked:
            self._reports += 1
            if self._reports >= REPORTS_WHEN_ASKED:
                raise Preempted

    def _resume(self) -> None:
        folder, reason = self._run.folder, ""
        kept = [(number, file) for number, path, file in folder.kept_checkpoints() if path == OWN]
        for position, (number, file) in enumerate(kept):
            content = _read(file)
            reason = self._why_not(content)
            if content is not None and not reason:
                self._take_up(content, is_latest=position == 0)
                self._number = number
                if position:
                    self.said = f"its last checkpoint could not be restored ({self._why_not(_read(kept[0][1]))}); it "
                    self.said += "resumed from the one before"
                for _, newer in kept[:position]:
                    newer.unlink(missing_ok=True)
                return
        if kept:
            self.said = f"its checkpoint could not be restored ({reason}); it began anew"
        self._run.begin_anew()

    def _why_not(self, content: Mapping[str, Any] | None) -> str:
        """Say why a checkpoint is not resumed from, nothing where it can be."""
        if content is None:
            return "it is damaged"
        other = [f"{key} {content.get(key)}" for key, value in self._made_by.items() if content.get(key) != value]
        return f"it was kept with {', '.join(other)}" if other else ""

    def _take_up(self, content: Mapping[str, Any], *, is_latest: bool) -> None:
        epochs = [ReportedEpoch(**values) for values in content["epochs"]]
        self._run.resume(epochs, content["seconds"], is_latest=is_latest)
        self._run.note_resumable()
        self.state, self._random = content["state"], content["random"]
        for name, data in content["files"].items():
            path = self._files / name
            if not path.resolve().is_relative_to(self._files.resolve()):
                continue  # of no file that was below the folder
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.numpy().tobytes())


class _Checked:
    """Sees that states can be restored, once for each kind of what they hold: a state may be large."""

    def __init__(self) -> None:
        self._known: set[Any] = set()

    def check(self, state: Any) -> None:
        kinds = {kind for _, kind, _ in _parts("state", state)}
        if kinds <= self._known and state is not None:
            return
        if state is None or not _is_restorable(state):
            raise StateUnfit(*_unfit_part(state))
        self._known |= kinds


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield all that a state holds, the outermost first: where it is, its kind, and what it is."""
    yield place, (type(value), value.dtype.hasobject if isinstance(value, np.ndarray) else False), value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _parts(f"{place} key", key)
            yield from _parts(f"{place}[{key!r}]", part)
    elif isinstance(value, list | tuple | set | frozenset):
        for index, part in enumerate(value):
            yield from _parts(f"{place}[{index}]", part)


def _unfit_part(state: Any) -> tuple[str, Any]:
    """Return the innermost part of a state that cannot be restored, and where it is."""
    unfit = [(place, value) for place, _, value in _parts("state", state) if not _is_restorable(value)]
    return unfit[-1] if unfit else ("state", state)


def _is_restorable(value: Any) -> bool:
    """Whether what is written of a value can be read again without running anything."""
    written = io.BytesIO()
    try:
        torch.save(value, written)
        written.seek(0)
        with _arrays_allowed():
            torch.load(written, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it could not be resumed from
        return False
    return True


def _read(file: Path) -> dict[str, Any] | None:
    with _arrays_allowed():
        return read_checkpoint(file)


def _arrays_allowed() -> AbstractContextManager[None]:
    """Let NumPy's arrays and numbers be read, beside tensors: making them runs no code of a file's."""
    makers: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    makers += [np.ndarray, np.dtype, bytes]  # an empty array's content is written as a call of bytes
    makers += [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    return cast("AbstractContextManager[None]", torch.serialization.safe_globals(makers))


def _contents(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the files below a folder by their names, as bytes."""
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):  # it was removed meanwhile, or is no file
            if path.is_file():
                data = bytearray(path.read_bytes())
                held = torch.frombuffer(data, dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)
                yield path.relative_to(folder).as_posix(), held


def _random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's generators."""
    on_gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"host": host_state([]), "torch": torch.get_rng_state(), **on_gpu}


def _put_back_random(kept: Mapping[str, Any], device: torch.device) -> None:
    put_back_host_state([], kept["host"])
    torch.set_rng_state(kept["torch"])
    if "cuda" in kept:
        torch.cuda.set_rng_state(kept["cuda"], device)
