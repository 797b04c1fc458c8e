"""Makes the files that a run leaves such that every tracker takes them: names, links, special files."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ablation.storage.files import UNFINISHED

_NOT_IN_FILE_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\\#?]|%(?=[0-9A-Fa-f]{2})")
_HALF_COPIED = re.compile(r"\.unfinished-copy-\d+")


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
