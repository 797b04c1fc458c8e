"""Lays out the files behind names of code such that they are found alike on another machine."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ablation.code.imports import packages_of
from ablation.code.names import is_file
from ablation.code.sources import code_parts, content_digest
from ablation.errors import CodeInvalid, CodeMissing

NOT_THERE = "is not installed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedCode:
    """Files of the study's own by their names below a folder, and the folders below it to look in, first to last.

    They lie there as they do here, so that packages and relative imports stay what they are; `digest` is of all of it.
    """

    files: Mapping[str, Path]
    folders: tuple[str, ...]
    digest: str


def carried_code(names: Iterable[str], folders: Sequence[Path]) -> CarriedCode:
    """Return what is to be brought to another machine for names of code.

    Raises:
        CodeInvalid: a name is an absolute path, which is no other machine's.
    """
    names = sorted(set(names))
    for name in names:
        location = name.rpartition(":")[0]
        if is_file(location) and Path(location).expanduser().is_absolute():
            raise CodeInvalid(
                f"{name!r} is an absolute path, which other machines do not have; put the file below the study file's "
                "folder, and name it from there",
                path="",
            )
    files = code_parts(names, folders)[0]
    resolved = [folder.resolve() for folder in folders]
    searched = [folder for folder in resolved if any(file.is_relative_to(folder) for file in files)]
    beyond = [_root(file) for file in files if not any(file.is_relative_to(folder) for folder in searched)]
    roots = tuple(dict.fromkeys([*searched, *beyond]))
    top = Path(os.path.commonpath(roots)) if roots else Path()
    named = {file.relative_to(top).as_posix(): file for file in files}
    where = tuple(root.relative_to(top).as_posix() for root in roots)
    said = repr([sorted((name, content_digest(file)) for name, file in named.items()), where])
    return CarriedCode(files=named, folders=where, digest=hashlib.sha256(said.encode()).hexdigest()[:32])


def _root(file: Path) -> Path:
    """Return the folder that a file is imported from: that around its packages."""
    packages = packages_of(file)
    return packages[0].parent.parent if packages else file.parent


def check_packages(
    expected: Sequence[str], _device: str = "", *, version: Callable[[str], str] = metadata.version
) -> None:
    """See that the packages that code imports are here in the versions that it was identified with.

    Raises:
        CodeMissing: one is not.
    """
    for package in ", ".join(expected).split(", "):
        name, _, wanted = package.rpartition(" ")
        if not name or package.endswith(NOT_THERE):
            continue
        try:
            found = version(name)
        except metadata.PackageNotFoundError:
            found = None
        if found != wanted:
            raise CodeMissing(name, wanted, found)
