"""What a state folder tells nodes by: its id, a file that only those see which share it, and room for what arrives."""

import contextlib
import hashlib
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ablation.errors import DiskFull, is_no_room
from ablation.storage.permissions import make_folder

FORGOTTEN_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorFolder:
    """The part of a state folder that is of its nodes, while one coordinator uses it."""

    folder: Path
    id: str
    nonce: Path

    @classmethod
    def of(cls, home: Path) -> "CoordinatorFolder":
        """Make it, and forget what a coordinator that was killed has left a day ago."""
        folder = home.resolve() / "nodes"
        make_folder(folder)
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if path.name != "id" and time.time() - path.stat().st_mtime > FORGOTTEN_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        nonce = folder / uuid.uuid4().hex
        nonce.touch()
        return cls(folder=folder, id=_id_in(folder), nonce=nonce)

    def beside(self) -> Path:
        """Return a place for what is on its way."""
        return self.folder / f"incoming-{self.nonce.name}" / uuid.uuid4().hex

    def leave(self) -> None:
        """Remove all but the id."""
        shutil.rmtree(self.folder / f"incoming-{self.nonce.name}", ignore_errors=True)
        self.nonce.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Write on this machine what a node sends.

    Raises:
        DiskFull: there is no room in the folder.
    """
    try:
        yield
    except OSError as error:
        raise of_this_disk(error, folder) from error


def of_this_disk(error: OSError, folder: Path) -> Exception:
    """Return an error of this machine's files in the user's terms, where there is no room."""
    return DiskFull(folder, error.strerror or str(error)) if is_no_room(error) else error


def _id_in(folder: Path) -> str:
    """Return what tells a state folder from others, its copies too."""
    file = folder / "id"
    with contextlib.suppress(FileExistsError), file.open("x") as made:
        made.write(uuid.uuid4().hex)
    where = f"{file.read_text()}:{socket.gethostname()}:{file.stat().st_ino}"
    return hashlib.sha256(where.encode()).hexdigest()[:32]
