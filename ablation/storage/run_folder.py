"""A run's folder, which gets what the run measured before anything else does.

`metrics.jsonl` grows by a line per epoch, `checkpoints/` holds what an interrupted training resumes from, `artifacts/`
what MLflow shall keep, and `result.json` is written last and whole: a folder that has it is a run that has ended,
whatever became of its upload.
"""

import dataclasses
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ablation.records import (
    EVALUATION_FILE,
    Epoch,
    EpochMetrics,
    ReportedEpoch,
    RunResult,
    is_count,
    is_number,
    is_recordable_name,
    recordable_text,
)
from ablation.storage.files import UNFINISHED, write_whole

EPOCHS = "metrics.jsonl"
STARTED = "started.json"
RESULT = "result.json"
ABOUT = "about.json"
CHECKPOINT = re.compile(r"epoch-(\d+)-(eager|graph|fused)\.pt|own-(\d+)-epoch-(\d+)\.pt")
OWN = "own"
"""The path of what a user's training function keeps."""
ATTEMPT = re.compile(r"[\w-]{1,64}")
BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a folder of tuning is of: the run's name, and its settings, with its variant, trial and seed."""

    identity: str
    name: str
    settings: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def is_valid(self) -> bool:
        """Whether all of it is what it should be: it may have been read from a file."""
        settings = self.settings if isinstance(self.settings, Mapping) else {}
        is_named = isinstance(self.identity, str) and isinstance(self.name, str)
        texts = [text for text in (self.name, *settings.values()) if isinstance(text, str)]
        is_recordable = all(map(is_recordable_name, settings)) and all(recordable_text(text) == text for text in texts)
        of_what = isinstance(settings.get("variant"), str) and is_count(settings.get("seed"))
        return is_named and is_recordable and of_what


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
        """Make the folder this process's and return the token that says so; what may be resumed is left there."""
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

    def note_about(self, about: About | None) -> None:
        """Note what the run is, where nothing else tells that; nothing once it is recorded."""
        self.path.mkdir(parents=True, exist_ok=True)
        noted = dataclasses.asdict(about) if about is not None else {}
        write_whole(self.path / ABOUT, json.dumps(noted, indent=1) + "\n")

    def about(self) -> About | None:
        """Return what was noted of the run; None where that is nothing, damaged, or of another run."""
        try:
            found = About(**_read_mapping(self.path / ABOUT))
        except TypeError:
            return None
        return found if found.is_valid and found.identity == self.path.name else None

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
        return found if isinstance(found, str) and ATTEMPT.fullmatch(found) else None

    def provenance(self) -> dict[str, str]:
        """Return where the run came from, nothing where that was lost."""
        found = self._started().get("provenance")
        pairs = found.items() if isinstance(found, dict) else ()
        return {
            name: recordable_text(text) for name, text in pairs if isinstance(text, str) and is_recordable_name(name)
        }

    def lasting_epochs(self) -> int:
        """Return how many epochs no interruption can undo: all where the run has ended, or is never resumed."""
        latest = self.latest_epoch()  # before it is looked whether it is resumed, which may come to be so meanwhile
        if self._started().get("is_resumable") and not (self.path / RESULT).exists():
            return max((_epochs_of(file) for _, _, file in self.kept_checkpoints()), default=0)
        return latest.epoch if latest is not None else 0

    def progress(self) -> int:
        """Return a number that grows as the run gets on for good: by epochs, or by checkpoints of its own."""
        return max(self.lasting_epochs(), *(position for position, _, _ in [*self.kept_checkpoints(), (0, "", None)]))

    def checkpoint(self, epoch: int, trained_by: str) -> Path:
        return self.checkpoints / f"epoch-{epoch:06d}-{trained_by}.pt"

    def own_checkpoint(self, number: int, epochs: int) -> Path:
        """Return the file of the checkpoint of that number that a training function keeps, after so many epochs."""
        return self.checkpoints / f"own-{number:06d}-epoch-{epochs:06d}.pt"

    def kept_checkpoints(self) -> list[tuple[int, str, Path]]:
        """Return the epochs after which a checkpoint was kept, the path that trained it, and its file, latest first.

        Those that a training function keeps itself are counted: their number is in the place of the epoch.
        """
        found = [(CHECKPOINT.fullmatch(file.name), file) for file in self.checkpoints.glob("*.pt")]
        return sorted(
            ((int(match[1] or match[3]), match[2] or OWN, file) for match, file in found if match is not None),
            reverse=True,
        )

    def trained_by(self) -> str | None:
        """Return the path that trained what may be resumed, None where there is nothing."""
        return next((trained_by for _, trained_by, _ in self.kept_checkpoints()), None)

    def note_resumable(self, is_resumable: bool) -> None:
        """Note whether what is measured from now on may be undone by an interruption, as far as none is kept of it."""
        started = {**self._started(), "is_resumable": is_resumable}
        write_whole(self.path / STARTED, json.dumps(started, indent=1) + "\n")

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
        """Return the epochs so far; a last line that is still being written is left out, and so are damaged lines."""
        try:
            lines = (self.path / EPOCHS).read_bytes().split(b"\n")[:-1]
        except OSError:
            return ()
        found: list[Epoch] = []
        for epoch in map(_epoch, lines):
            if epoch is not None and (not found or epoch.epoch > found[-1].epoch):
                found.append(epoch)
        return tuple(found)

    def latest_epoch(self) -> Epoch | None:
        """Return the last of `epochs`, without reading those before it where its line is whole, or None."""
        try:
            with (self.path / EPOCHS).open("rb") as file:
                line = _last_line(file)
        except OSError:
            return None
        latest = _epoch(line) if line is not None else None
        return latest if latest is not None or line is None else next(reversed(self.epochs()), None)

    def write_json(self, name: str, value: Mapping[str, Any] | Sequence[Any]) -> None:
        (self.artifacts / name).write_text(json.dumps(value, indent=1) + "\n")

    def finish(self, result: RunResult) -> None:
        """Keep how the run ended; it is not resumed any more."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / RESULT, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
        self.clear_checkpoints()

    def ended(self) -> RunResult | None:
        """Return how the run ended, None where it has not, or its file is damaged, or of another run."""
        try:
            result = RunResult.from_plain(_read_mapping(self.path / RESULT))
        except ValueError:
            return None
        return result if result.identity == self.path.name else None

    def result(self) -> RunResult | None:
        """Return the result of a run that has one: done or diverged."""
        ended = self.ended()
        return ended if ended is not None and ended.outcome.is_result else None

    def evaluation(self) -> str | None:
        """Return the text of what the run's model answered, None where there is none."""
        try:
            return (self.artifacts / EVALUATION_FILE).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None

    def _set_attempt(self) -> None:
        started = {**self._started(), "attempt": uuid.uuid4().hex}
        write_whole(self.path / STARTED, json.dumps(started, indent=1) + "\n")

    def _started(self) -> dict[str, Any]:
        return _read_mapping(self.path / STARTED)


def _epochs_of(checkpoint: Path) -> int:
    """Return after how many epochs a checkpoint was kept, as its name says."""
    match = CHECKPOINT.fullmatch(checkpoint.name)
    return int(match[1] or match[4]) if match is not None else 0


def _line(metrics: Epoch) -> str:
    return json.dumps(dataclasses.asdict(metrics)) + "\n"


def _read_mapping(path: Path) -> dict[str, Any]:
    """Return what a file of JSON holds; nothing where it cannot be read, or holds something else."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _epoch(line: bytes) -> Epoch | None:
    """Return the epoch that a line is of, without metrics that no tracker takes; None where it is damaged."""
    try:
        values = json.loads(line)
        epoch = ReportedEpoch(**values) if "metrics" in values else EpochMetrics.from_plain(values)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (is_count(epoch.epoch) and epoch.epoch and is_count(epoch.timestamp_ms)):
        return None
    if isinstance(epoch, EpochMetrics):
        return epoch if _has_numbers(epoch) else None
    return _recordable(epoch) if isinstance(epoch.metrics, Mapping) else None


def _has_numbers(epoch: EpochMetrics) -> bool:
    """Whether an epoch holds what it should; a loss that is not finite is a number too."""
    splits = (epoch.train, epoch.sample, epoch.heldout)
    if not all(isinstance(values, Mapping) and "loss" in values for values in splits):
        return False
    if not all(is_recordable_name(name) for values in splits for name in values):
        return False
    measured = [*(value for values in splits for value in values.values())]
    measured += [epoch.learning_rate, epoch.seconds, epoch.images_per_second]
    return all(isinstance(value, float) or is_number(value) for value in measured)


def _recordable(epoch: ReportedEpoch) -> ReportedEpoch:
    named = epoch.metrics.items()
    kept = {name: value for name, value in named if is_recordable_name(name) and is_number(value)}
    return dataclasses.replace(epoch, metrics=kept)


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
