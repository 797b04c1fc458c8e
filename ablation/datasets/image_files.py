"""Lists the files of a folder or of a tar archive alike, each to be opened on demand; nothing is extracted."""

import errno
import gzip
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import IO, Literal, Self, cast

from ablation.datasets.places import is_there, real_path
from ablation.errors import DataInvalid, DataUnavailable

GZIP_SUFFIXES = (".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = (*GZIP_SUFFIXES, ".tar")
LEADS_NOWHERE = (errno.ENOENT, errno.ELOOP)
CHUNK_BYTES = 1 << 20
LONGEST_NAME_BYTES = 1 << 20
NAME_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Kinds of members that say something of the next one; tarfile reads them whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file or folder: its path below the root, with slashes, its size in bytes and its time in nanoseconds.

    `link` is a link that is not followed: one in an archive, one that is broken or leads out of the folder; `target` is
    where it leads. `other` is a pipe, a socket or a device. `open` is to be called before the next item is asked for;
    it raises ValueError where this file cannot be read, DataInvalid where its archive is damaged.
    """

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int
    modified_ns: int
    open: Callable[[], IO[bytes]]
    target: str = ""


def list_items(root: Path) -> Iterator[Item]:
    """Yield what lies in an archive, or down to four levels (`top/train/class/file`) below a folder.

    Of a folder, what lies beside train and test is named, and not gone into.

    Raises DataUnavailable where `root` is not there or cannot be read, DataInvalid where it is no archive or a damaged
    one.
    """
    check_root(root)
    return chain(_items_beside(root), _items_in_folder(root)) if root.is_dir() else _items_in_archive(root)


def check_root(root: Path) -> None:
    """Raise unless there is a folder or an archive at `root`."""
    with _reading(root):
        is_there, is_folder = root.exists(), root.is_dir()
    if not is_there:
        raise DataUnavailable(
            f"there is no folder or archive {root}; give a folder, or a .tar.gz, .tgz or .tar archive, of "
            "train/<class>/* and test/<class>/* @ data.root"
        )
    if not is_folder and not root.name.endswith(ARCHIVE_SUFFIXES):
        raise DataInvalid(root, [f"it is neither a folder nor one of {', '.join(ARCHIVE_SUFFIXES)} @ data.root"])


def state_of(root: Path) -> str:
    """Return a text that changes with an archive's size or time, or with those of any file in a folder."""
    check_root(root)
    if root.is_dir():
        listing = hashlib.sha256()
        for item in _items_in_folder(root):
            listing.update(f"{item.name!a} {item.kind} {item.size} {item.modified_ns}\n".encode())
        return f"{os.fspath(root)!a} {listing.hexdigest()}"
    facts = root.stat()
    return f"{os.fspath(root)!a} {facts.st_size} {facts.st_mtime_ns}"


def state_of_any(root: Path) -> str:
    """Return a text that changes with the size or time of any file at or below `root`, or with its being there."""
    listing = hashlib.sha256()
    with _reading(root):
        paths = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in paths:
            item = _item_at(path, path.relative_to(root).as_posix())
            listing.update(f"{item.name!a} {item.kind} {item.size} {item.modified_ns}\n".encode())
    return f"{os.fspath(root)!a} {listing.hexdigest()}"


class _Header(tarfile.TarInfo):
    """A member's header; tarfile takes a damaged or a missing one for the end of the archive, here it is an error."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) == tarfile.BLOCKSIZE and not any(buf):
            return super().frombuf(buf, encoding, errors)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if header.type in NAME_TYPES and header.size > LONGEST_NAME_BYTES:
            raise tarfile.ReadError(f"a name of {header.size} bytes")
        return header


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataInvalid(root, [f"the archive is damaged: {error}"]) from error
    except OSError as error:
        raise DataUnavailable(f"the data in {root} cannot be read: {error}") from error


def _items_in_archive(path: Path) -> Iterator[Item]:
    with _reading(path), _stream(path) as stream, tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            yield Item(
                name=member.name,
                kind=_kind_of_member(member),
                size=member.size,
                modified_ns=int(member.mtime * 1e9),
                open=partial(_open_member, archive, member, path),
                target=member.linkname,
            )
        # Only at its very end does gzip compare its check sum.
        while stream.read(CHUNK_BYTES):
            pass


def _stream(path: Path) -> IO[bytes]:
    if path.name.endswith(GZIP_SUFFIXES):
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def _kind_of_member(member: tarfile.TarInfo) -> Literal["file", "folder", "link", "other"]:
    if member.issym() or member.islnk():
        return "link"
    return "file" if member.isreg() else "folder" if member.isdir() else "other"


def _open_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> IO[bytes]:
    """Return the content whole: the archive is a stream, in which nobody can go back."""
    with _reading(path):
        content = archive.extractfile(member)
        return BytesIO(content.read() if content is not None else b"")


def _items_beside(root: Path) -> Iterator[Item]:
    """Yield what lies where train and test are, or should be: in the root, and in a folder of it that holds them.

    A root's only folder is taken for one.
    """
    root = root.resolve()
    with _reading(root):
        entries = [entry for entry in _entries(root) if entry.name not in ("train", "test")]
        yield from _named(entries, "", root)
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in folders:
            if len(entries) == 1 or any(Path(folder.path, split).is_dir() for split in ("train", "test")):
                yield from _named(_entries(Path(folder.path)), f"{folder.name}/", root)


def _named(entries: Iterable[os.DirEntry[str]], before: str, root: Path) -> Iterator[Item]:
    return (_item(entry, f"{before}{entry.name}", root) for entry in entries if entry.name not in ("train", "test"))


def _items_in_folder(root: Path) -> Iterator[Item]:
    """Yield what is in root/train and root/test, and in those of each folder of the root, two levels down."""
    root = root.resolve()
    with _reading(root):
        for entry in _entries(root):
            if entry.name in ("train", "test"):
                yield from _items_of_split(Path(entry.path), entry.name, root)
            elif Path(entry.path).is_dir():  # an entry's own method raises of links in a circle
                for split in ("train", "test"):
                    if Path(entry.path, split).is_dir():
                        yield from _items_of_split(Path(entry.path, split), f"{entry.name}/{split}", root)


def _items_of_split(folder: Path, name: str, root: Path) -> Iterator[Item]:
    if is_there(folder) and real_path(folder).is_relative_to(root):
        yield from _items_below(folder, name, root, levels=2)
    else:
        yield replace(_item_at(folder, name), kind="link", target=os.fspath(real_path(folder)))


def _items_below(folder: Path, name: str, root: Path, *, levels: int) -> Iterator[Item]:
    for entry in _entries(folder):
        item = _item(entry, f"{name}/{entry.name}", root)
        yield item
        if item.kind == "folder" and levels > 1:
            yield from _items_below(Path(entry.path), item.name, root, levels=levels - 1)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name, without what is hidden."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _item(entry: os.DirEntry[str], name: str, root: Path) -> Item:
    item = _item_at(entry, name)
    if not entry.is_symlink():
        return item
    target = real_path(Path(entry.path))
    is_followed = item.kind != "link" and target.is_relative_to(root)
    return item if is_followed else replace(item, kind="link", target=os.fspath(target))


def _item_at(entry: os.DirEntry[str] | Path, name: str) -> Item:
    opened = partial(_open_file, Path(entry))
    try:
        facts = entry.stat()
    except OSError as error:
        if error.errno not in LEADS_NOWHERE:
            raise
        return Item(name=name, kind="link", size=0, modified_ns=0, open=opened)
    if stat.S_ISDIR(facts.st_mode):
        return Item(name=name, kind="folder", size=0, modified_ns=0, open=opened)
    kind: Literal["file", "other"] = "file" if stat.S_ISREG(facts.st_mode) else "other"
    return Item(name=name, kind=kind, size=facts.st_size, modified_ns=facts.st_mtime_ns, open=opened)


def _open_file(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
