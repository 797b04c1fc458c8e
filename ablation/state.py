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
import stat
import tempfile
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ablation.errors import StateUnavailable
from ablation.permissions import make_folder
from ablation.results import (
    Epoch,
    EpochMetrics,
    ReportedEpoch,
    RunResult,
    is_count,
    is_identity,
    is_number,
    is_recordable_name,
    is_study_name,
    recordable_text,
)

EPOCHS = "metrics.jsonl"
STARTED = "started.json"
RESULT = "result.json"
ABOUT = "about.json"
CHECKPOINT = re.compile(r"epoch-(\d+)-(eager|graph|fused)\.pt")
ATTEMPT = re.compile(r"[\w-]{1,64}")
_NOT_IN_FILE_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\\#?]|%(?=[0-9A-Fa-f]{2})")
_HALF_COPIED = re.compile(r"\.unfinished-copy-\d+")
UNFINISHED = ".unfinished-"
BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state folder; Optuna's database lies in it too, unless it is elsewhere."""

    folder: Path

    def make(self) -> None:
        """Make the folder where it is missing, and see that files can be made in it.

        Raises:
            StateUnavailable: they cannot.
        """
        try:
            make_folder(self.folder)
            tempfile.TemporaryFile(dir=self.folder).close()
        except OSError as error:
            raise StateUnavailable(self.folder, error) from None

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
        self.forget_begun(study)

    def folders_of(self, study: str, identities: Collection[str]) -> tuple[Path, ...]:
        """Return what lies here of a study: runs under way and of its tuning, its report, and runs by identity.

        A name or an identity that is none has nothing here: names are typed and identities come from the tracker, and
        what is found is moved and removed.
        """
        if not is_study_name(study):
            return ()
        kept = [self.folder / "runs" / identity for identity in sorted(filter(is_identity, identities))]
        begun = sorted(path for kind in ("begun", "tuning") for path in (self.folder / kind / study).glob("*"))
        found = [*kept, *begun, self.report(study), self._deleted(study)]
        return tuple(path for path in found if path.exists())

    def remove(self, study: str, identities: Collection[str]) -> None:
        """Remove what lies here of a study for good.

        Raises:
            OSError: a folder cannot be removed.
        """
        if not is_study_name(study):
            return
        for path in self.folders_of(study, identities):
            shutil.rmtree(path)
        with contextlib.suppress(OSError):  # others were set aside too, or none
            self._deleted(study).parent.rmdir()
        self.forget_begun(study)
        self.forget_tuning(study)

    def set_aside(self, study: str, identities: Collection[str]) -> Path | None:
        """Put a study's runs where no study finds them, and return where that is; None where there are none."""
        place, moved = self._deleted(study), False
        for path in self.folders_of(study, identities):
            if path not in (place, self.report(study)):
                to = place / path.relative_to(self.folder).parts[0] / path.name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(to, ignore_errors=True)
                path.rename(to)
                moved = True
        self.forget_begun(study)
        self.forget_tuning(study)
        return place if moved else None

    def take_back(self, study: str) -> None:
        """Put runs that were set aside where they were, but for those that have been trained again since."""
        for path in sorted(self._deleted(study).glob("*/*")):
            kind = path.parent.name
            to = self.folder / kind / path.name if kind == "runs" else self.folder / kind / study / path.name
            if not to.exists():
                to.parent.mkdir(parents=True, exist_ok=True)
                path.rename(to)
        shutil.rmtree(self._deleted(study), ignore_errors=True)

    def _deleted(self, study: str) -> Path:
        return self.folder / "deleted" / study

    def forget_begun(self, study: str) -> None:
        """Remove the folder of a study's runs under way once it is empty."""
        with contextlib.suppress(OSError):  # there is none, or others have begun
            (self.folder / "begun" / study).rmdir()

    def tuning(self, study: str, identity: str) -> "RunFolder":
        """Return where a study's tuning trains: its own, as where a trial was stopped depends on those before it."""
        return RunFolder(path=self.folder / "tuning" / study / identity)

    def unrecorded_tuning(self, study: str) -> "tuple[tuple[RunFolder, About], ...]":
        """Return the folders of a study's tuning that have ended and are not recorded, and what they are of."""
        found = [RunFolder(path=path) for path in sorted((self.folder / "tuning" / study).glob("*"))]
        ended = [(folder, folder.about()) for folder in found if folder.ended() is not None]
        return tuple((folder, about) for folder, about in ended if about is not None)

    def forget_tuning(self, study: str) -> None:
        """Remove what a study's tuning left, once its settings are frozen in the plan."""
        shutil.rmtree(self.folder / "tuning" / study, ignore_errors=True)

    def report(self, study: str) -> Path:
        return self.folder / "reports" / study


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
        """Keep how the run ended; it is not gone on with any more."""
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

    def _set_attempt(self) -> None:
        started = {**self._started(), "attempt": uuid.uuid4().hex}
        write_whole(self.path / STARTED, json.dumps(started, indent=1) + "\n")

    def _started(self) -> dict[str, Any]:
        return _read_mapping(self.path / STARTED)


def keep_recordable_files(folder: Path) -> tuple[str, ...]:
    """Make what lies in a folder such that every artifact store takes it, and say in sentences what was done.

    Links to files become copies of them, and names that a store refuses or takes for another become ones that it keeps.
    Links to folders and to nothing, pipes, sockets, devices and what cannot be read are removed. Doing it again changes
    nothing.

    Raises:
        OSError: there is no room for a copy.
    """
    return tuple(_made_recordable(folder, folder))


def _made_recordable(folder: Path, top: Path) -> Iterator[str]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _HALF_COPIED.fullmatch(path.name):
            path.unlink()
            continue
        shown, reason = ascii(str(path.relative_to(top))), _why_unrecordable(path)
        if reason is not None:
            _remove(path)
            yield f"file {shown} is left out: it is {reason}"
            continue
        if path.is_symlink():
            _copy_in_place(path)
        name = _recordable_file_name(path.name)
        if name != path.name:
            path = path.rename(_free(path.with_name(name)))
            yield f"file {shown} is kept as {path.name!r}: artifact stores refuse its name, or take it for another"
        yield from _made_recordable(path, top)


def _why_unrecordable(path: Path) -> str | None:
    """Say what stands in the way of uploading what lies at a path, None where nothing does."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return "a link that leads nowhere" if path.is_symlink() else "not there any more"
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return "a pipe, a socket or a device"
    if path.is_symlink() and stat.S_ISDIR(mode):
        return "a link to a folder"
    needed = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK
    return None if os.access(path, needed) else "not readable"


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.chmod(stat.S_IRWXU)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_in_place(link: Path) -> None:
    beside = link.with_name(f"{UNFINISHED}copy-{os.getpid()}")
    shutil.copyfile(link, beside)
    beside.replace(link)


def _recordable_file_name(name: str) -> str:
    """Return a name without what stores refuse, or a server takes for a part of an address."""
    return _NOT_IN_FILE_NAMES.sub("_", os.fsencode(name).decode("utf-8", errors="replace"))


def _free(path: Path) -> Path:
    while os.path.lexists(path):
        path = path.with_name(f"{path.name}_")
    return path


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
        epoch = ReportedEpoch(**values) if "metrics" in values else EpochMetrics(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    if not (is_count(epoch.epoch) and epoch.epoch and is_count(epoch.timestamp_ms)):
        return None
    if isinstance(epoch, EpochMetrics):
        measured = [value for name, value in values.items() if name not in ("epoch", "timestamp_ms")]
        return epoch if all(isinstance(value, float) or is_number(value) for value in measured) else None
    return _recordable(epoch) if isinstance(epoch.metrics, Mapping) else None


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
