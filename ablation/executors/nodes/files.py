"""Carries files between machines: which ones of a run's folder, in pieces, by size and digest, whole or not at all."""

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from ablation.errors import CarriedError
from ablation.storage.files import UNFINISHED
from ablation.storage.permissions import make_folder
from ablation.storage.run_folder import CHECKPOINT, EPOCHS, RESULT, STARTED, RunFolder

PIECE = 4 * 1024 * 1024
"""Bytes that are sent at once: neither the scheduler nor the coordinator holds whole files."""
MOST_BYTES = 16 * 1024**3
MOST_FILES = 20_000
"""Of what a folder may be sent."""
LONGEST_NAME = 255
"""Bytes of a file's name; Linux has none longer."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f]")


class CarriedWrong(CarriedError):
    """What was sent is not what was announced, or nothing that is taken."""


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Read what another machine has answered.

    Raises:
        CarriedWrong: it is nothing that can be read.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CarriedWrong(f"its answer cannot be read: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedFile:
    """A file by its name in its folder, its size in bytes and the SHA-256 of its content."""

    name: str
    size: int
    digest: str

    @classmethod
    def from_plain(cls, plain: object) -> "CarriedFile":
        """Read what was sent.

        Raises:
            CarriedWrong: it is no such thing, or a name that leads elsewhere.
        """
        match plain:
            case {"name": str(name), "size": int(size), "digest": str(digest)} if size >= 0:
                check_name(name)
                if _DIGEST.fullmatch(digest):
                    return cls(name=name, size=size, digest=digest)
        raise CarriedWrong(f"{plain!r:.200} describes no file")

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "size": self.size, "digest": self.digest}


def check_name(name: str) -> None:
    """See that a name leads to a place below the folder that it is of.

    Raises:
        CarriedWrong: it may lead elsewhere.
    """
    parts = name.split("/")
    if _UNSEEN.search(name) or any(part in ("", ".", "..") for part in parts) or not _is_encodable(parts):
        raise CarriedWrong(f"{name!r:.200} is no name of a file that may be sent")


def _is_encodable(parts: Iterable[str]) -> bool:
    try:
        return all(len(os.fsencode(part)) <= LONGEST_NAME for part in parts)
    except UnicodeEncodeError:
        return False


def is_of_a_run(name: str) -> bool:
    """Whether a file of a run's folder is one that nodes send: epochs, checkpoints, artifacts, the result."""
    folder, slash, rest = name.partition("/")
    if not slash:
        return name in (EPOCHS, STARTED, RESULT)
    if folder == "checkpoints":
        return CHECKPOINT.fullmatch(rest) is not None
    return folder == "artifacts" and not rest.rpartition("/")[2].startswith(UNFINISHED)


def checked(plain: object, *, is_taken: Any = is_of_a_run) -> tuple[CarriedFile, ...]:
    """Read a list of the files that a node sends.

    Raises:
        CarriedWrong: one is not taken, or they are too many or too large.
    """
    found = tuple(map(CarriedFile.from_plain, plain if isinstance(plain, list | tuple) else [plain]))
    names = {file.name for file in found}
    refused = [file.name for file in found if not is_taken(file.name) or names & _above(file.name)]
    if refused:
        raise CarriedWrong(f"it sends {refused[0]!r:.200}, which is no file of a run")
    if len(found) > MOST_FILES or sum(file.size for file in found) > MOST_BYTES:
        raise CarriedWrong(f"it sends more than {MOST_FILES} files or {MOST_BYTES // 1024**3} GiB of one run")
    return found


def _above(name: str) -> set[str]:
    """Return the names of the folders that a file is in."""
    return {str(folder) for folder in PurePosixPath(name).parents}


def described(folder: Path, name: str) -> CarriedFile:
    """Return a file as it will be announced; OSError where it is none, or a link."""
    with opened(folder / name) as file:
        digest = hashlib.file_digest(file, "sha256")
        return CarriedFile(name=name, size=file.tell(), digest=digest.hexdigest())


def opened(path: Path) -> BufferedReader:
    """Open a regular file to read; OSError for a link and for anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def read_piece(path: Path, offset: int) -> bytes:
    """Return what a file holds from an offset on, a piece at most."""
    with opened(path) as file:
        file.seek(offset)
        return file.read(PIECE)


def files_of_ended(folder: Path) -> list[str]:
    """Return the names of what is sent of a run's folder once its job has ended, the result last.

    Of a run without a result they are what it resumes from.
    """
    run = RunFolder(path=folder)
    names = [name for name in (STARTED, EPOCHS) if (folder / name).is_file()]
    if not (folder / RESULT).is_file():
        return [*names, *(str(file.relative_to(folder)) for _, _, file in run.kept_checkpoints())]
    return [*names, *(file.relative_to(folder).as_posix() for file in _regular(run.artifacts)), RESULT]


def files_of_begun(folder: Path) -> list[str]:
    """Return the names of what a run resumes from, or is not to be resumed for, of a folder that may not be there."""
    names = [name for name in (STARTED, EPOCHS, RESULT) if (folder / name).is_file()]
    kept = RunFolder(path=folder).kept_checkpoints()
    return [*names, *(str(file.relative_to(folder)) for _, _, file in kept)]


def _regular(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and not path.name.startswith(UNFINISHED):
            yield path


class Incoming:
    """A folder whose files arrive in pieces, beside the place that they are meant for."""

    def __init__(self, beside: Path, files: Iterable[CarriedFile]) -> None:
        self.folder = beside
        self.files: Mapping[str, CarriedFile] = {file.name: file for file in files}

    def begin(self) -> None:
        """Make the folder, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        make_folder(self.folder)
        for file in self.files.values():
            path = self.folder / file.name
            make_folder(path.parent)
            if not file.size:
                path.touch()

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Take a piece of a file.

        Raises:
            CarriedWrong: it was not announced, or is larger than that.
            OSError: it cannot be written.
        """
        file = self.files.get(name)
        if file is None or offset + len(data) > file.size:
            raise CarriedWrong(f"{name!r:.200} was not announced, or not of that size")
        with (self.folder / name).open("r+b" if offset else "wb") as written:
            written.seek(offset)
            written.write(data)

    def check(self) -> None:
        """See that all files have arrived as they were announced.

        Raises:
            CarriedWrong: one has not.
        """
        for file in self.files.values():
            try:
                found = described(self.folder, file.name)
            except OSError:
                found = None
            if found != file:
                raise CarriedWrong(f"{file.name!r} has not arrived as it was announced")

    def discard(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
