"""Finds the folder or archive that a study file names as its data's root: beside the file, then where one works."""

import os
from collections.abc import Sequence
from pathlib import Path

from ablation.errors import DataUnavailable


def find_root(root: str, folders: Sequence[Path]) -> Path:
    """Return where a root is: of the folders, the study file's first, the first that has it.

    Where none has it, it is looked for, or shall be made, in the first; without folders that is the working directory.

    Raises:
        DataUnavailable: it begins with the home folder of a user that is not there.
    """
    places = _places(root, folders)
    return real_path(next(filter(is_there, places), places[0]))


def remark_on_root(root: str, folders: Sequence[Path]) -> str | None:
    """Say where a `data` section's root was found, where that could be another place than its reader thinks."""
    places = _places(root, folders)
    found = [place for place in places if is_there(place)]
    if not found:
        return None
    if found[0] != places[0]:
        return f"data.root {root} is not beside the study file; it was found in the working directory: {found[0]}"
    others = [place for place in found[1:] if not place.samefile(found[0])]
    if others:
        return f"data.root is {found[0]}, beside the study file; the working directory has another: {others[0]}"
    return None


def real_path(path: Path) -> Path:
    """Return where a path leads; links in a circle lead to one of themselves (`Path.resolve` raises)."""
    return Path(os.path.realpath(path))


def is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _places(root: str, folders: Sequence[Path]) -> list[Path]:
    """Return where a root may be; one place where it is absolute."""
    try:
        path = Path(root).expanduser()
    except RuntimeError as error:
        raise DataUnavailable(f"there is no folder {root}: {error} @ data.root") from None
    return list(dict.fromkeys(folder / path for folder in folders or [Path.cwd()]))
