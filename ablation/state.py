"""The state folder: where data caches, run folders, locks and reports lie.

A run's folder gets what the run measured before anything else does. `metrics.jsonl` grows by a line per epoch,
`checkpoints/` holds what an interrupted training goes on from, `artifacts/` what MLflow shall keep, and `result.json`
is written last and whole: a folder that has it is a run that has ended, whatever became of its upload.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ablation.results import Epoch, EpochMetrics, Outcome, ReportedEpoch, RunResult

EPOCHS = "metrics.jsonl"
STARTED = "started.json"
RESULT = "result.json"
ABOUT = "about.json"
CHECKPOINT = re.compile(r"epoch-(\d+)-(eager|graph|fused)\.pt")
UNFINISHED = ".unfinished-"
BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state folder; Optuna's database lies in it too, unless it is elsewhere."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def backends(self) -> Path:
        """Return the file of what was measured of ways to fuse runs."""
        return self.folder / "backends.json"

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def begun(self, study: str, identity: str) -> "RunFolder":
        """Return where a study trains a run: its own, as two studies may train the same run at the same time."""
        return RunFolder(path=self.folder / "begun" / study / identity)

    def finished(self, study: str, identity: str) -> "RunFolder | None":
        """Return the folder of a run that has a result, whichever study trained it, or None."""
        kept = RunFolder(path=self.folder / "runs" / identity)
        return next((folder for folder in (kept, self.begun(study, identity)) if folder.result() is not None), None)

    def unrecorded(self, study: str) -> int:
        """Return how many runs of a study have ended here and are not recorded."""
        folders = (self.folder / "begun" / study).glob("*")
        return sum(RunFolder(path=path).ended() is not None for path in folders)

    def begun_studies(self) -> tuple[str, ...]:
        """Return the studies that have runs here which are not recorded to their end."""
        return tuple(sorted({path.parent.name for path in (self.folder / "begun").glob("*/*")}))

    def keep(self, study: str, identity: str) -> None:
        """Move a recorded run to where every study finds it, unless it is there; nothing is kept of a failed one."""
        begun, kept = self.begun(study, identity), self.folder / "runs" / identity
        kept.parent.mkdir(exist_ok=True)
        if RunFolder(path=kept).result() is None:
            shutil.rmtree(kept, ignore_errors=True)
        begun.sweep()
        if begun.result() is not None and not kept.exists():
            begun.path.rename(kept)
        else:
            shutil.rmtree(begun.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # others have begun
            begun.path.parent.rmdir()

    def tuning(self, study: str, identity: str) -> "RunFolder":
        """Return where a study's tuning trains: its own, as where a trial was stopped depends on those before it."""
        return RunFolder(path=self.folder / "tuning" / study / identity)

    def unrecorded_tuning(self, study: str) -> "tuple[RunFolder, ...]":
        """Return the folders of a study's tuning that have ended and are not recorded."""
        found = [RunFolder(path=path) for path in sorted((self.folder / "tuning" / study).glob("*"))]
        return tuple(folder for folder in found if folder.ended() is not None and folder.about())

    def forget_tuning(self, study: str) -> None:
        """Remove what a study's tuning left, once its settings are frozen in the plan."""
        shutil.rmtree(self.folder / "tuning" / study, ignore_errors=True)

    def report(self, study: str) -> Path:
        return self.folder / "reports" / study


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder of one run, named by its identity."""

    path: Path

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def take_over(self, provenance: Mapping[str, str], *, is_resumable: bool) -> str:
        """Make the folder this process's and return the token that says so; what may be gone on with is left there."""
        shutil.rmtree(self.artifacts, ignore_errors=True)
        self.artifacts.mkdir(parents=True)
        for path in (*self.path.glob(f"{UNFINISHED}*"), *self.checkpoints.glob(f"{UNFINISHED}*")):
            path.unlink()
        attempt = None if (self.path / RESULT).exists() else self.attempt()
        (self.path / RESULT).unlink(missing_ok=True)
        owner = uuid.uuid4().hex
        started = {"attempt": attempt, "owner": owner, "provenance": provenance, "is_resumable": is_resumable}
        write_whole(self.path / STARTED, json.dumps(started, indent=1) + "\n")
        return owner

    def note_about(self, about: Mapping[str, Any]) -> None:
        """Note what the run is, where nothing else tells that; nothing once it is recorded."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / ABOUT, json.dumps(about, indent=1) + "\n")

    def about(self) -> dict[str, Any]:
        """Return what was noted of the run."""
        try:
            found = json.loads((self.path / ABOUT).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def is_owned_by(self, owner: str) -> bool:
        """Whether no other process has taken the folder over since."""
        return self._started().get("owner") == owner

    def begin_anew(self) -> None:
        """Throw away what an earlier training left: what is measured from now on is another attempt's."""
        if self.attempt() is None or self.latest_epoch() is not None:
            self._set_attempt()
        self.clear_checkpoints()
        (self.path / EPOCHS).unlink(missing_ok=True)

    def go_on(self, epochs: Sequence[Epoch], *, is_latest: bool) -> None:
        """Keep these epochs and none after them; where others may have been recorded, this is another attempt."""
        write_whole(self.path / EPOCHS, "".join(map(_line, epochs)))
        if not is_latest:
            self._set_attempt()

    def attempt(self) -> str | None:
        """Return what identifies the training that the folder is of, across interruptions; None before it begins."""
        found = self._started().get("attempt")
        return str(found) if found else None

    def provenance(self) -> dict[str, str]:
        """Return where the run came from, nothing where that was lost."""
        found = self._started().get("provenance")
        return found if isinstance(found, dict) else {}

    def lasting_epochs(self) -> int:
        """Return how many epochs no interruption can undo: all where the run has ended, or is never gone on with."""
        if self._started().get("is_resumable") and not (self.path / RESULT).exists():
            return max((epoch for epoch, _, _ in self.kept_checkpoints()), default=0)
        latest = self.latest_epoch()
        return latest.epoch if latest is not None else 0

    def checkpoint(self, epoch: int, trained_by: str) -> Path:
        return self.checkpoints / f"epoch-{epoch:06d}-{trained_by}.pt"

    def kept_checkpoints(self) -> list[tuple[int, str, Path]]:
        """Return the epochs after which a checkpoint was kept, the path that trained it, and its file, latest first."""
        found = [(CHECKPOINT.fullmatch(file.name), file) for file in self.checkpoints.glob("epoch-*")]
        return sorted(((int(match[1]), match[2], file) for match, file in found if match is not None), reverse=True)

    def trained_by(self) -> str | None:
        """Return the path that trained what may be gone on with, None where there is nothing."""
        return next((trained_by for _, trained_by, _ in self.kept_checkpoints()), None)

    def clear_checkpoints(self) -> None:
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a run that has ended needs no more, and what a killed process left half written."""
        self.clear_checkpoints()
        for path in self.path.glob(f"{UNFINISHED}*"):
            path.unlink(missing_ok=True)

    def append_epoch(self, metrics: Epoch) -> None:
        with (self.path / EPOCHS).open("a") as file:
            file.write(_line(metrics))

    def epochs(self) -> tuple[Epoch, ...]:
        """Return the epochs so far; a last line that is still being written is left out."""
        try:
            lines = (self.path / EPOCHS).read_text().split("\n")[:-1]
        except FileNotFoundError:
            return ()
        return tuple(_epoch(json.loads(line)) for line in lines)

    def latest_epoch(self) -> Epoch | None:
        """Return the last of `epochs`, without reading those before it, or None."""
        try:
            with (self.path / EPOCHS).open("rb") as file:
                line = _last_line(file)
        except FileNotFoundError:
            return None
        return _epoch(json.loads(line)) if line is not None else None

    def write_json(self, name: str, value: Mapping[str, Any] | Sequence[Any]) -> None:
        (self.artifacts / name).write_text(json.dumps(value, indent=1) + "\n")

    def finish(self, result: RunResult) -> None:
        """Keep how the run ended; it is not gone on with any more."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / RESULT, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
        self.clear_checkpoints()

    def ended(self) -> RunResult | None:
        """Return how the run ended, None where it has not, or its file is damaged."""
        try:
            values = json.loads((self.path / RESULT).read_text())
            return RunResult(**{**values, "outcome": Outcome(values["outcome"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def result(self) -> RunResult | None:
        """Return the result of a run that has one: done or diverged."""
        ended = self.ended()
        return ended if ended is not None and ended.outcome.is_result else None

    def _set_attempt(self) -> None:
        started = {**self._started(), "attempt": uuid.uuid4().hex}
        write_whole(self.path / STARTED, json.dumps(started, indent=1) + "\n")

    def _started(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / STARTED).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _line(metrics: Epoch) -> str:
    return json.dumps(dataclasses.asdict(metrics)) + "\n"


def _epoch(values: Mapping[str, Any]) -> Epoch:
    return ReportedEpoch(**values) if "metrics" in values else EpochMetrics(**values)


def _last_line(file: BinaryIO) -> bytes | None:
    """Return the last line that is written to its end, or None."""
    end = file.seek(0, os.SEEK_END)
    start = end
    while True:
        start = max(0, start - BLOCK)
        file.seek(start)
        lines = file.read(end - start).split(b"\n")[:-1]
        if start == 0 or len(lines) > 1:  # the first may have lost its beginning
            return lines[-1] if lines else None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    with writing_whole(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def writing_whole(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write to that takes its place at the end, whole; where writing fails nothing is left of it."""
    beside = path.with_name(f"{UNFINISHED}{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
