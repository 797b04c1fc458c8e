"""Keeps what was read from a source as arrays in a folder, so that it is read once, whoever asks and however many.

A data set lies in `<cache>/<name>-<digest>/`; `<cache>/sources/` records which source, in which state, it came from.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ablation.datasets.arrays import Dataset, open_dataset, verified, write_facts
from ablation.errors import DataUnavailable
from ablation.records import IGNORED, DataFacts, DataOutline, TaskName
from ablation.storage.permissions import make_folder

_IN_NAMES = 12
"""Digits of a digest in the name of a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a source that was written to a folder says beside its arrays: class names, and notes on how it was read.

    `task` is that of its targets, `ignore_index` the one that counts for nothing. What is undivided has no test
    examples, as each replicate tests on a fold.
    """

    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    task: TaskName = "classification"
    ignore_index: int = IGNORED
    is_undivided: bool = False


class Source(Protocol):
    """Where a data set is read from."""

    @property
    def name(self) -> str:
        """What the data set is called in a study file."""

    @property
    def where(self) -> str:
        """What messages call the source."""

    def key(self) -> str:
        """Return a text that is another one where the content may be another one; DataUnavailable where it is gone."""

    def outline(self) -> DataOutline:
        """Return image size, class names and counts, reading as little as that takes."""

    def write(self, folder: Path) -> Written:
        """Write the four arrays into `folder`; called by one process at a time."""


def recorded_dataset(source: Source, *, cache: Path) -> Dataset | None:
    """Return the data set of a source that was prepared before, unverified, or None."""
    try:
        record = _read_record(_record_path(source.key(), cache), cache)
        dataset = open_dataset(record.folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return _noted(dataset, record.notes) if dataset.facts.digest == record.digest else None


def kept_dataset(facts: DataFacts, *, cache: Path) -> Dataset | None:
    """Return the data set of a recorded study from the cache, verified, or None where it is not there."""
    ending = f"-{facts.digest[:_IN_NAMES]}"
    kept = (verified(folder, digest=facts.digest) for folder in cache.glob("*-*") if folder.name.endswith(ending))
    return next(filter(None, kept), None)


def prepare_source(source: Source, *, cache: Path) -> Dataset:
    """Return the source's data set from the cache, verified, or write it there, under a lock.

    Raises:
        DataUnavailable, DataInvalid, LockUnavailable.
    """
    from ablation.storage.locks import locked

    record = _record_path(source.key(), cache)
    found = _find(record, cache)
    if found is not None:
        return found
    try:
        make_folder(record.parent)
        with locked(cache / "lock"):
            return _find(record, cache) or _make(source, record, cache)
    except OSError as error:
        raise DataUnavailable(
            f"cannot prepare {source.where} in {cache}: {error}. Choose a folder that can be written with --state-dir."
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """Where a source's data set lies. The notes are the source's own: another one may have the same content."""

    folder: Path
    digest: str
    notes: tuple[str, ...]


def _record_path(key: str, cache: Path) -> Path:
    return cache / "sources" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read_record(record: Path, cache: Path) -> _Record:
    values = json.loads(record.read_text(encoding="utf-8"))
    return _Record(
        folder=cache / Path(str(values["folder"])).name,
        digest=str(values["digest"]),
        notes=tuple(map(str, values.get("notes", ()))),
    )


def _find(record: Path, cache: Path) -> Dataset | None:
    try:
        found = _read_record(record, cache)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    dataset = verified(found.folder, digest=found.digest)
    return _noted(dataset, found.notes) if dataset is not None else None


def _noted(dataset: Dataset, notes: tuple[str, ...]) -> Dataset:
    return replace(dataset, facts=replace(dataset.facts, notes=notes))


def _make(source: Source, record: Path, cache: Path) -> Dataset:
    """Read the source into a temporary folder and rename that; the caller holds the lock."""
    temporary = cache / "preparing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        written = source.write(temporary)
        facts = write_facts(
            temporary,
            name=source.name,
            classes=written.classes,
            source=source.where,
            task=written.task,
            ignore_index=written.ignore_index,
            is_undivided=written.is_undivided,
        )
        dataset = _put_in_place(temporary, cache / f"{facts.name}-{facts.digest[:_IN_NAMES]}", digest=facts.digest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    beside = record.with_suffix(".new")
    values = {"source": source.where, "folder": dataset.folder.name, "digest": facts.digest, "notes": written.notes}
    beside.write_text(json.dumps(values, indent=1), encoding="utf-8")
    beside.replace(record)
    return _noted(dataset, written.notes)


def _put_in_place(temporary: Path, folder: Path, *, digest: str) -> Dataset:
    """Rename, unless the same content lies there intact already, read from another source."""
    there = verified(folder, digest=digest)
    if there is not None:
        return there
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return open_dataset(folder)
