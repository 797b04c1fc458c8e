"""A node's own folder: data and code that were brought to it, and the folders of runs that are trained there."""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.executors.nodes.files import CarriedFile, CarriedWrong, Incoming, check_name, described
from ablation.storage.permissions import make_folder

ROOM = 64 * 1024 * 1024
"""Bytes that a node must have free to be sent a job."""
FORGOTTEN_S = 7 * 24 * 3600.0
_NEED = re.compile(r"(data|code)/[^/]+")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFolder:
    """The folder; workers with the same one have the same `id` in it, whatever they call it.

    Below `path` lie `data/<name>` and `code/<name>`, and `of/<id>` for each state folder that jobs come from.
    `is_copying` has data copied to it that the node could read where the coordinator has it.
    """

    path: Path
    is_copying: bool = False

    @classmethod
    def of_this_process(cls) -> "NodeFolder":
        place = os.environ.get("ABLATION_NODE_DIR") or ".ablation-node"
        return cls(path=Path(place).expanduser().absolute(), is_copying=bool(os.environ.get("ABLATION_NODE_COPY")))

    def make(self) -> str:
        """Make the folder where it is missing, and return its id.

        Raises:
            OSError: files cannot be made in it.
        """
        make_folder(self.path)
        file = self.path / "id"
        beside = self.path / f"id.{uuid.uuid4().hex}"
        beside.write_text(uuid.uuid4().hex)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(beside, file)
        except OSError:  # a file system without links
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
        return file.read_text()

    def check_room(self) -> None:
        """See that there is room for a run.

        Raises:
            OSError: there is not.
        """
        free = shutil.disk_usage(self.path).free
        if free < ROOM:
            raise OSError(f"{self.path} has {free // 1024**2} MiB left, and a run needs {ROOM // 1024**2}")

    def home(self, of: str) -> Path:
        """Return where the names of a state folder's jobs are below; it is made where it is missing."""
        if not _ID.fullmatch(of):
            raise CarriedWrong(f"{of!r:.100} is no id of a state folder")
        home = self.path / "of" / of
        for kind in ("data", "code"):
            make_folder(home / kind)
        os.utime(home)
        return home

    def has(self, need: str, home: Path, *, files: Sequence[CarriedFile]) -> bool:
        """Whether what a job needs is there with these files, and then have the job find it below its home.

        What was damaged, as by a machine that lost its power, is removed.
        """
        _check_need(need)
        folder = self.path / need
        if not folder.is_dir():
            return False
        if not all(_is_whole(folder, file) for file in files):
            shutil.rmtree(folder)
            return False
        _link(home / need, folder)
        return True

    def find_shared(self, need: str, home: Path, *, nonce: Path, files: Mapping[str, Path]) -> bool:
        """Have a job read what it needs where the coordinator has it, if this node sees that very folder.

        `nonce` is a file that the coordinator has made for this question.
        """
        _check_need(need)
        folders = {path.parent for name, path in files.items() if path.name == name}
        is_one_folder = len(folders) == 1 and all(path.name == name for name, path in files.items())
        if self.is_copying or not is_one_folder or not nonce.is_file():
            return False
        _link(home / need, folders.pop())
        return (home / need).is_dir()

    def found(self, need: str, name: str) -> Path | None:
        """Return a file of what was brought here, or is read where a coordinator has it; None where it is not here."""
        _check_need(need)
        check_name(name)
        folders = (self.path / need, *(self.path / "of").glob(f"*/{need}"))
        return next((folder / name for folder in folders if (folder / name).is_file()), None)

    def incoming(self, need: str, incoming: Incoming) -> None:
        """Put what has arrived where jobs find it; another may have been quicker."""
        _check_need(need)
        incoming.check()
        target = self.path / need
        make_folder(target.parent)
        try:
            incoming.folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            incoming.discard()

    def beside(self) -> Path:
        """Return a place for what is on its way."""
        return self.path / "incoming" / uuid.uuid4().hex

    def sweep(self) -> None:
        """Remove what was on its way or under way a week ago, and is nobody's any more."""
        for path in (*(self.path / "incoming").glob("*"), *(self.path / "of").glob("*")):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > FORGOTTEN_S:
                    shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: Path, file: CarriedFile) -> bool:
    try:
        return described(folder, file.name) == file
    except OSError:
        return False


def leave_path(home: Path, leave: str) -> Path:
    """Return a folder that a job leaves, below its home.

    Raises:
        CarriedWrong: the name leads elsewhere, or to what is brought.
    """
    check_name(leave)
    if leave.partition("/")[0] in ("data", "code") or leave.startswith("."):
        raise CarriedWrong(f"{leave!r:.200} is no folder that a job leaves")
    return home / leave


def _check_need(need: str) -> None:
    check_name(need)
    if not _NEED.fullmatch(need):
        raise CarriedWrong(f"{need!r:.200} is neither data nor code")


def _link(link: Path, target: Path) -> None:
    """Make a link, whatever was there."""
    beside = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    beside.symlink_to(target, target_is_directory=True)
    beside.replace(link)


def folder_unusable(error: OSError) -> str:
    """Return why a node is unfit whose folder the system refuses."""
    return f"its folder cannot be used: {error} (ABLATION_NODE_DIR names another)"
