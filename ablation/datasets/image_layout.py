"""Says what a path below a data set's root means, and in words what is wrong with folders laid out otherwise."""

import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize

from ablation.datasets.arrays import SPLITS
from ablation.datasets.image_decoding import SUFFIXES
from ablation.datasets.image_files import Item
from ablation.datasets.places import is_there
from ablation.datasets.splits import NOT_DIVIDED, WAYS_OUT, Division

LAYOUT = "train/<class>/ and test/<class>/"
OTHER_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation", "dev"),
}
"""What the folders of a split are called elsewhere, in lower case."""
VALIDATION = ("val", "valid", "validation", "dev")
LISTS = (".txt", ".csv", ".tsv", ".json")
MOST_SHOWN = 5


class Place(NamedTuple):
    """What a path means; `file` is empty for the folder of a class, `class_name` for what is no image."""

    top: str
    split: str
    class_name: str
    file: str


def parts_of(item: Item) -> list[str]:
    """Return the names that a path is made of, none where it is hidden; ValueError where it leads out."""
    parts = [part for part in item.name.split("/") if part not in ("", ".")]
    if item.name.startswith("/") or ".." in parts:
        raise ValueError("has a name that leads outside the archive")
    return [] if any(part.startswith(".") for part in parts) or parts[:1] == ["__MACOSX"] else parts


def is_in_split(parts: Sequence[str]) -> bool:
    """Whether a path is, or lies in, a train or test folder in the root or in one folder of it."""
    return parts[0] in SPLITS or (len(parts) > 1 and parts[1] in SPLITS)


def place_of(item: Item, parts: Sequence[str]) -> Place | None:
    """Return what a path in a split means, None for the split itself; ValueError says why it cannot be used."""
    top, inner = ("", parts) if parts[0] in SPLITS else (parts[0], parts[1:])
    if len(inner) == 2 and item.kind == "folder":
        return Place(top, inner[0], inner[1], "")
    if item.kind == "folder":
        if len(inner) > 2:
            raise ValueError(f"is a folder inside a class; images are read from {LAYOUT} only")
        return None
    if item.kind != "file":
        raise ValueError("is a pipe, a socket or a device, which is not read")
    if not item.name.lower().endswith(SUFFIXES):
        return Place(top, inner[0], "", inner[-1])
    if len(inner) != 3:
        raise ValueError("does not lie in train/<class>/ or test/<class>/")
    return Place(top, inner[0], inner[1], inner[2])


def class_names(places: Iterable[Place]) -> dict[str, str]:
    """Return the class of each folder's name.

    Names of the same letters, composed in one split and decomposed in the other, are one class, by the composed name. A
    name that is the same in both splits stays as it is: it is part of the data's digest.
    """
    forms: dict[str, set[str]] = {}
    for place in places:
        forms.setdefault(normalize("NFC", place.class_name), set()).add(place.class_name)
    return {name: composed if len(names) > 1 else name for composed, names in forms.items() for name in names}


def layout_problems(places: Collection[Place], beside: Collection[str], division: Division = NOT_DIVIDED) -> list[str]:
    """Return in words what is wrong with the folders; `beside` are the names of what lies next to train and test.

    A folder among them ends in a slash, and what is in it is named with it. Where a `division` is wanted there is
    train alone.
    """
    tops = sorted({place.top or "." for place in places})
    if len(tops) > 1:
        return [f"train and test lie in more than one folder: {', '.join(tops)}"]
    splits = SPLITS[:1] if division.is_wanted else SPLITS
    if division.is_wanted and any(place.split == "test" for place in places):
        return [
            f"it has test/, and the study asks for a test split made of train @ {division.setting}; leave either out"
        ]
    missing = [split for split in splits if all(place.split != split for place in places)]
    if missing:
        ways_out = f"; {WAYS_OUT}" if missing == ["test"] else ""
        return [f"{_missing_text(missing, _siblings(places, beside))}{ways_out}"]
    return [*_name_problems(places), *_twin_problems(places), *_empty_problems(places, splits)]


def unread_validation(places: Collection[Place], beside: Collection[str]) -> list[str]:
    """Return the folders next to train and test that hold a validation split, which is not read."""
    return [name for name in _siblings(places, beside) if name.endswith("/") and name[:-1].lower() in VALIDATION]


def _siblings(places: Collection[Place], beside: Collection[str]) -> list[str]:
    """Return what lies where train and test are, or should be: in the folder around them where there is one."""
    folders = [name for name in beside if name.endswith("/") and name.count("/") == 1]
    around = [f"{place.top}/" for place in places if place.top][:1] or (folders if len(folders) == 1 else [])
    inner = {name.removeprefix(top) for top in around for name in beside if name.startswith(top) and name != top}
    is_around = bool(places) or any(name.endswith("/") for name in inner)
    is_in_root = any(not place.top for place in places) or not is_around
    names = beside if is_in_root else inner
    return sorted(name for name in names if "/" not in name.removesuffix("/"))


def _missing_text(missing: Sequence[str], siblings: Sequence[str]) -> str:
    """Say which split is not there, what is there instead, and what to do."""
    start = f"it has no images in {LAYOUT}" if len(missing) == 2 else f"it has no images in {missing[0]}/<class>/"
    folders = [name[:-1] for name in siblings if name.endswith("/")]
    lists = [
        name for name in siblings if name.lower().endswith(LISTS) and any(split in name.lower() for split in SPLITS)
    ]
    renamed = {split: found for split in missing if (found := _called_otherwise(split, folders)) is not None}
    if renamed:
        return "; ".join([start, *(_rename_text(split, found) for split, found in renamed.items())])
    if lists:
        return f"{start}, but {_few(lists)}: copy or hard-link the files that such a list names to {LAYOUT}"
    if folders and len(missing) == 2:
        return (
            f"{start}, but the folders {_few([f'{name}/' for name in folders])}. Where these are the classes, split "
            "them first: move some files of each, a fifth say, to test/<class>/ and the others to train/<class>/"
        )
    there = f"; beside it there are {_few([f'{name}/' for name in folders])}" if folders else ""
    return f"{start}{there}"


def _called_otherwise(split: str, folders: Sequence[str]) -> str | None:
    return next((name for other in OTHER_NAMES[split] for name in folders if name.lower() == other), None)


def _rename_text(split: str, found: str) -> str:
    shown = shown_name(found)
    if found.lower() not in VALIDATION:
        return f"there is {shown}/: rename it {split}"
    return (
        f"there is {shown}/: rename it {split} where its images are what the variants shall be compared on (those for "
        "validation are drawn from train, see data.validation)"
    )


def _name_problems(places: Collection[Place]) -> list[str]:
    """Say which names of classes no report could show."""
    return [
        f"class {shown_name(name)} has a name that is not UTF-8; rename its folders, or convert all names with `convmv "
        "-f latin1 -t utf8 -r --notest FOLDER`"
        for name in sorted({place.class_name for place in places})
        if not _is_utf8(name)
    ]


def _twin_problems(places: Collection[Place]) -> list[str]:
    """Say which classes of one split have names of the same letters."""
    names = sorted({(place.split, place.class_name) for place in places})
    forms: dict[tuple[str, str], list[str]] = {}
    for split, name in names:
        forms.setdefault((split, normalize("NFC", name)), []).append(name)
    return [
        f"{split} has two folders {found[1]!r}, composed and decomposed: {' and '.join(map(ascii, found))}; put their "
        "images into one"
        for (split, _), found in forms.items()
        if len(found) > 1
    ]


def _empty_problems(places: Collection[Place], splits: Sequence[str]) -> list[str]:
    called = class_names(places)
    filled = {(called[place.class_name], place.split) for place in places if place.file}
    return [
        f"class {name!r} has no images in {split}"
        for name in sorted(set(called.values()))
        for split in splits
        if (name, split) not in filled
    ]


def link_problems(links: Sequence[Item], *, files: int, root: Path) -> list[str]:
    """Say once of each kind which files are links that are not followed; `files` is how many there are with them."""
    if not root.is_dir():
        return [_archived_links_text(links, files)] if links else []
    outside: list[Item] = []
    broken: list[Item] = []
    for link in links:
        (outside if link.target and is_there(Path(link.target)) else broken).append(link)
    return [
        *([f"{_share_text(broken, files)} to what is not there: {_names_text(broken)}"] if broken else []),
        *([_outside_links_text(outside, files, root)] if outside else []),
    ]


def _archived_links_text(links: Sequence[Item], files: int) -> str:
    return (
        f"{_share_text(links, files)}: {_names_text(links)}. They are not followed in an archive; pack the files "
        "themselves, with `tar --dereference --hard-dereference`"
    )


def _outside_links_text(links: Sequence[Item], files: int, root: Path) -> str:
    place = shown_name(os.path.commonpath([Path(link.target).parent for link in links]))
    folder = shlex.quote(os.fspath(root))
    return (
        f"{_share_text(links, files)} to {place}, outside the folder: {_names_text(links)}. They are not followed, as "
        "a link could make any file of this machine part of the data. Copy the folder with the files themselves, "
        f"`cp -rL {folder} COPY`, or with hard links to them, `cp -rlL {folder} COPY`, and give COPY as data.root"
    )


def _share_text(links: Sequence[Item], files: int) -> str:
    return f"{len(links):,} of {counted(files, 'file')} {'is a link' if len(links) == 1 else 'are links'}"


def _names_text(links: Sequence[Item]) -> str:
    return _few([shown_name(link.name) for link in links])


def passed_over_text(names: Iterable[str]) -> str | None:
    """Return how many files of which suffix were passed over, such as `6 files passed over: 3 .gif, 3 .avif`."""
    suffixes = Counter(shown_name(PurePosixPath(name).suffix.lower()) or "without a suffix" for name in names)
    if not suffixes:
        return None
    count = suffixes.total()
    kinds = [f"{number} {suffix}" for suffix, number in sorted(suffixes.items(), key=lambda pair: (-pair[1], pair[0]))]
    return f"{counted(count, 'file')} passed over: {_few(kinds)}"


def sizes_problem(sizes: Mapping[tuple[int, int], Place]) -> str:
    """Say that images are of several sizes, (height, width) with an image of each, and what to do."""
    first, second = (
        f"{shown_name('/'.join(place[1:]))} is {width}x{height}" for (height, width), place in list(sizes.items())[:2]
    )
    return (
        f"its images are of {len(sizes)} sizes, and all must be alike: {first}, {second}. Scale them with `size: 64` "
        "(the shorter side to 64 pixels, the center cut out) @ data.size, resize the files, or read them with a "
        "function of your own (docs/extending.md)"
    )


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shown_name(name: str) -> str:
    """Return a name as it is where it can be printed, else in quotes with escapes: of bytes where it is not UTF-8."""
    if name.isprintable():
        return name
    return ascii(name) if _is_utf8(name) else ascii(os.fsencode(name))[1:]


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more
