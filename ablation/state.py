"""The state folder: where data caches, run folders, locks and reports lie.

A run's folder gets what the run measured before anything else does. `metrics.jsonl` grows by a line per epoch,
`artifacts/` holds what MLflow shall keep, and `result.json` is written last and whole: a folder that has it is a
finished run, whatever became of its upload.
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ablation.results import Epoch, EpochMetrics, Outcome, ReportedEpoch, RunResult

EPOCHS = "metrics.jsonl"
PROVENANCE = "provenance.json"
RESULT = "result.json"
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

    def keep(self, study: str, identity: str) -> None:
        """Move a finished run to where every study finds it, unless it is there."""
        begun, kept = self.begun(study, identity).path, self.folder / "runs" / identity
        kept.parent.mkdir(exist_ok=True)
        if RunFolder(path=kept).result() is None:
            shutil.rmtree(kept, ignore_errors=True)
        try:
            begun.rename(kept)
        except OSError:  # it is there
            shutil.rmtree(begun)

    def tuning(self, study: str, identity: str) -> "RunFolder":
        """Return where a study's tuning trains: its own, as where a trial was stopped depends on those before it."""
        return RunFolder(path=self.folder / "tuning" / study / identity)

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

    def begin(self, provenance: Mapping[str, str]) -> None:
        """Make the folder empty, as what an interrupted run left is of no use, and note where this one is from."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.artifacts.mkdir(parents=True)
        (self.path / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")

    def provenance(self) -> dict[str, str]:
        """Return where the run came from, nothing where that was lost."""
        try:
            return dict(json.loads((self.path / PROVENANCE).read_text()))
        except (OSError, ValueError):
            return {}

    def append_epoch(self, metrics: Epoch) -> None:
        with (self.path / EPOCHS).open("a") as file:
            file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")

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
        write_whole(self.path / RESULT, json.dumps(dataclasses.asdict(result), indent=1) + "\n")

    def result(self) -> RunResult | None:
        """Return the result of a run that has one: done or diverged; None for any other, and for a damaged file."""
        try:
            values = json.loads((self.path / RESULT).read_text())
            result = RunResult(**{**values, "outcome": Outcome(values["outcome"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return result if result.outcome is not Outcome.FAILED else None


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
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
