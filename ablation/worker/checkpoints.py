"""Keeps checkpoints of runs that are trained together, each in its run's folder, and finds those to go on from.

A checkpoint ends with its content's digest, so that one that was cut off or has lost a bit is known before it is read.
It is read without running anything: tensors and plain types are all that it may hold.
"""

import hashlib
import io
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, cast

import torch

from ablation.stopping import Preempted, stopping
from ablation.storage.files import writing_whole
from ablation.storage.run_folder import RunFolder
from ablation.training import Snapshot

EVERY_S = float(os.environ.get("ABLATION_CHECKPOINT_SECONDS", "5"))
"""Seconds from one checkpoint to the next, at least."""
MOST_SHARE = 0.05
"""Of the time of training that is spent on keeping checkpoints."""
KEPT = 2
DIGEST = hashlib.sha256


class Resumable(Protocol):
    """A run whose training can be resumed."""

    folder: RunFolder
    identity: str
    seconds: float
    """That it has been trained so far, all interrupted trainings counted."""

    def begin_anew(self) -> None: ...

    def go_on(self, snapshot: Snapshot, seconds: float, *, is_latest: bool) -> None:
        """Take up what was kept; `is_latest` is false where a later checkpoint was kept and is of no use."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Say in the user's terms that there is no room."""
        ...

    def check_owned(self) -> None:
        """Raise where another process has taken the run over."""
        ...


class JobCheckpoints:
    """The checkpoints of a job's runs on one path; those of another path, device or PyTorch are not gone on from."""

    def __init__(self, runs: Sequence[Resumable], *, path: str, device: torch.device) -> None:
        self._runs = runs
        self._path = path
        self._made_by = {"device": device.type, "torch": str(torch.__version__)}
        self._begun = self._last = time.monotonic()
        self.is_going_on = False
        self._cost = 0.0

    def load(self) -> list[Snapshot] | None:
        """Return the last snapshots after one common epoch; where there are none, the runs begin anew."""
        all_kept = [run.folder.kept_checkpoints() for run in self._runs]
        latest = [max((epoch for epoch, _, _ in files), default=0) for files in all_kept]
        kept = [{epoch: file for epoch, path, file in files if path == self._path} for files in all_kept]
        for epoch in sorted(set.intersection(*map(set, kept)), reverse=True):
            found = [self._read(files[epoch], run) for files, run in zip(kept, self._runs, strict=True)]
            whole = [one for one in found if one is not None]
            if len(whole) == len(found):
                for run, (snapshot, seconds), last in zip(self._runs, whole, latest, strict=True):
                    run.go_on(snapshot, seconds, is_latest=epoch == last)
                self.is_going_on = True
                return [snapshot for snapshot, _ in whole]
        for run in self._runs:
            run.begin_anew()
        return None

    def is_due(self) -> bool:
        return is_due(self._last, self._cost)

    def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Keep a checkpoint of each run.

        Raises:
            Preempted: this process was asked to end, and now can.
            DiskFull: it cannot be written; those before it are kept.
        """
        begun = time.monotonic()
        for run, snapshot in zip(self._runs, snapshots, strict=True):
            run.check_owned()
            content = {
                **self._made_by,
                "identity": run.identity,
                "seconds": run.seconds + (begun - self._begun) / len(self._runs),
                "snapshot": snapshot.to_plain(),
            }
            with run.writing():
                write_checkpoint(run.folder, snapshot.epoch, content, trained_by=self._path)
        self._last = time.monotonic()
        self._cost = self._last - begun
        if stopping.is_asked:
            raise Preempted

    def _read(self, path: Path, run: Resumable) -> tuple[Snapshot, float] | None:
        """Return what a checkpoint holds, or None where it is damaged, or of another training."""
        content = read_checkpoint(path)
        wanted = {**self._made_by, "identity": run.identity}
        if content is None or any(content.get(key) != value for key, value in wanted.items()):
            return None
        try:
            return Snapshot.from_plain(content["snapshot"]), float(content["seconds"])
        except (KeyError, TypeError, ValueError):
            return None


def is_due(last: float, cost_s: float) -> bool:
    """Whether it is time for a checkpoint: `last` is when the last was kept, by the monotonic clock, in `cost_s`."""
    return stopping.is_asked or time.monotonic() - last >= max(EVERY_S, cost_s / MOST_SHARE)


def write_checkpoint(folder: RunFolder, epoch: int, content: dict[str, Any], *, trained_by: str = "eager") -> None:
    """Write a checkpoint whole, then remove all but the last two."""
    keep_checkpoint(folder, folder.checkpoint(epoch, trained_by), content)


def keep_checkpoint(folder: RunFolder, path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole to a path of the folder, then remove all but the last two."""
    folder.checkpoints.mkdir(exist_ok=True)
    with writing_whole(path) as file:
        digesting = _Digesting(file)
        torch.save(content, cast("IO[bytes]", digesting))
        file.write(digesting.digest.digest())
    for _, _, path in folder.kept_checkpoints()[KEPT:]:
        path.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint's content, or None where it is damaged."""
    try:
        data = memoryview(path.read_bytes())
        size = len(data) - DIGEST().digest_size
        if size < 0 or DIGEST(data[:size]).digest() != data[size:]:
            return None
        content = torch.load(io.BytesIO(data[:size]), map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not gone on from
        return None
    return content if isinstance(content, dict) else None


class _Digesting(io.RawIOBase):
    """Passes on what is written, and digests it."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.digest = DIGEST()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._file.write(data)
        return len(data)
