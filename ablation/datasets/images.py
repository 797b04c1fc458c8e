"""Reads a folder or archive of train/<class>/* and test/<class>/* into arrays, naming every file that cannot be used.

It goes through the files twice: once for the names and headers, which give classes, order and size, once to decode each
image to its place, so the pixels are never in memory together and the digest is the same however the files are packed.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ablation.datasets.arrays import IMAGES, SPLITS, array_header, write_arrays
from ablation.datasets.cache import Written
from ablation.datasets.image_decoding import SUFFIXES, Header, bombs_are_errors, read_header, read_pixels
from ablation.datasets.image_files import Item, list_items, state_of
from ablation.datasets.image_layout import (
    Place,
    class_names,
    counted,
    is_in_split,
    layout_problems,
    link_problems,
    parts_of,
    passed_over_text,
    place_of,
    shown_name,
    sizes_problem,
    unread_validation,
)
from ablation.datasets.splits import NOT_DIVIDED, Division, drawn_test, members_of_classes
from ablation.errors import DataInvalid
from ablation.records import DataOutline, DataShape

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images in `root`, a folder or a tar archive, with or without one folder around `train` and `test`.

    They are of one size, or scaled to `size` (bilinear with antialiasing, so that they cover it) and cut at the center.
    They are ordered by class, then by file name. One channel where every file is gray, else RGB; the EXIF orientation
    is applied, transparency laid over white. Hidden files are passed over, and files without an image's suffix, which
    are counted; more than 8 bits are refused.
    """

    root: Path
    size: Size | None = None
    division: Division = NOT_DIVIDED

    @property
    def name(self) -> str:
        return "images"

    @property
    def where(self) -> str:
        return str(self.root)

    def key(self) -> str:
        return f"images 2 {self.size} {state_of(self.root)}{self.division.key}"

    def outline(self) -> DataOutline:
        survey = _survey(self.root, self.size, self.division)
        counts = {split: len(places) for split, places in survey.places.items()}
        return DataOutline(
            shape=survey.shape, train_images=counts["train"], test_images=counts["test"], notes=survey.notes
        )

    def write(self, folder: Path) -> Written:
        survey = _survey(self.root, self.size, self.division)
        _write_images(self.root, survey, folder)
        labels = {name: label for label, name in enumerate(survey.shape.classes)}
        for split, places in survey.places.items():
            array = np.asarray([labels[survey.classes[place.class_name]] for place in places], dtype=np.int64)
            write_arrays(folder, {f"{split}_labels": array})
        return Written(classes=survey.shape.classes, notes=survey.notes, is_undivided=self.division.is_folded)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    """What the names and headers tell; `classes` are by the names of their folders."""

    shape: DataShape
    classes: Mapping[str, str]
    places: Mapping[str, list[Place]]
    """The images of each split, in order."""
    is_scaled: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Findings:
    """What is found while the items are gone through; `places` are all classes and images, readable or not."""

    places: set[Place] = field(default_factory=set)
    headers: dict[Place, Header] = field(default_factory=dict)
    links: list[Item] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    beside: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    kinds: dict[Header, Header] = field(default_factory=dict)
    """The headers that differ, so that those of many images take little memory."""

    def add(self, item: Item) -> None:
        try:
            parts = parts_of(item)
            if not parts:
                return
            if not is_in_split(parts):
                self._add_beside(item, parts)
            elif item.kind == "link":
                self.links.append(item)
            else:
                self._add_place(item, place_of(item, parts))
        except ValueError as error:
            self.problems.append(f"{shown_name(item.name)} {error}")

    def _add_beside(self, item: Item, parts: list[str]) -> None:
        """Keep the names of the two upper levels, a folder's with a slash."""
        for depth in range(1, min(2, len(parts)) + 1):
            is_folder = depth < len(parts) or item.kind == "folder"
            self.beside.add("/".join(parts[:depth]) + ("/" if is_folder else ""))

    def _add_place(self, item: Item, place: Place | None) -> None:
        if place is None:
            return
        if not place.class_name:
            self.passed_over.append(place.file)
            return
        self.places.add(place)
        if place.file:
            self._add_header(item, place)

    def _add_header(self, item: Item, place: Place) -> None:
        try:
            header = read_header(item)
        except ValueError as error:
            self.unreadable.append(f"{shown_name(item.name)} {error}")
            return
        self.headers[place] = self.kinds.setdefault(header, header)


def _survey(root: Path, size: Size | None, division: Division) -> _Survey:
    """Go through the names and headers.

    Raises:
        DataInvalid: with all that can be seen without decoding an image.
    """
    found = _Findings()
    with bombs_are_errors():
        for item in list_items(root):
            found.add(item)
    problems = [*found.problems, *link_problems(found.links, files=_file_count(found), root=root)]
    problems += [] if found.links else _layout_problems(found, division)
    problems = problems or found.unreadable
    if problems:
        raise DataInvalid(root, problems)
    return _surveyed(root, found, size, division)


def _layout_problems(found: _Findings, division: Division) -> list[str]:
    """Say what is wrong with the folders, and first what was passed over, as that may be why."""
    problems = layout_problems(found.places, found.beside, division)
    passed_over = passed_over_text(found.passed_over)
    is_told = problems and passed_over is not None
    return [*([f"{passed_over}; what is read ends in {', '.join(SUFFIXES)}"] if is_told else []), *problems]


def _file_count(found: _Findings) -> int:
    return len(found.links) + len(found.headers) + len(found.unreadable) + len(found.passed_over)


def _surveyed(root: Path, found: _Findings, size: Size | None, division: Division) -> _Survey:
    classes = class_names(found.places)
    ordered = sorted(found.headers, key=lambda place: (classes[place.class_name], place.file))
    places = {split: [place for place in ordered if place.split == split] for split in SPLITS}
    sizes: dict[Size, Place] = {}
    for place in (*places["train"], *places["test"]):
        sizes.setdefault((found.headers[place].height, found.headers[place].width), place)
    if size is None and len(sizes) > 1:
        raise DataInvalid(root, [sizes_problem(sizes)])
    height, width = size or next(iter(sizes))
    are_gray = all(header.is_gray for header in found.kinds)
    names = tuple(sorted(set(classes.values())))
    if division.test is not None:
        places = _divided(
            root, places["train"], [names.index(classes[place.class_name]) for place in places["train"]], division
        )
    return _Survey(
        shape=DataShape(channels=1 if are_gray else 3, height=height, width=width, classes=names),
        classes=classes,
        places=places,
        is_scaled=size is not None,
        notes=_notes(found),
    )


def _divided(root: Path, places: Sequence[Place], labels: Sequence[int], division: Division) -> dict[str, list[Place]]:
    """Return training images with a share of them as test split, both in their order."""
    assert division.test is not None
    members = members_of_classes(np.asarray(labels), max(labels) + 1)
    train, test = drawn_test(members, None, division.test, study_seed=division.study_seed, source=root)
    return {"train": [places[index] for index in train], "test": [places[index] for index in test]}


def _notes(found: _Findings) -> tuple[str, ...]:
    """Return in sentences what was done to the images and what was not read."""
    headers, beside = found.headers.values(), unread_validation(found.places, found.beside)
    turned = sum(header.is_turned for header in headers)
    transparent = sum(header.is_transparent for header in headers)
    animated = sum(header.has_frames for header in headers)
    unread = [f"{shown_name(name)} is not read: validation is drawn from train" for name in beside]
    passed_over = passed_over_text(found.passed_over)
    return (
        *([passed_over] if passed_over is not None else []),
        *unread,
        *([f"{counted(turned, 'image')} turned upright, as the EXIF orientation says"] if turned else []),
        *(
            [f"{counted(transparent, 'image')} with an alpha channel or a transparent color, laid over white"]
            if transparent
            else []
        ),
        *([f"{counted(animated, 'image')} of several frames, of which the first is used"] if animated else []),
    )


def _write_images(root: Path, survey: _Survey, folder: Path) -> None:
    """Decode every image to its place in the arrays' files."""
    shape = survey.shape
    size = (shape.height, shape.width, shape.channels)
    positions = {place: position for places in survey.places.values() for position, place in enumerate(places)}
    unseen = set(positions)
    problems = []
    with ExitStack() as stack:
        stack.enter_context(bombs_are_errors())
        files = {split: stack.enter_context((folder / f"{split}_images.npy").open("wb")) for split in SPLITS}
        headers = {split: array_header(IMAGES, (len(places), *size)) for split, places in survey.places.items()}
        for split, file in files.items():
            file.write(headers[split])
        for item in list_items(root):
            try:
                place = _image_place(item)
                if place is None or place not in positions:
                    continue
                unseen.discard(place)
                pixels = read_pixels(item, shape, is_scaled=survey.is_scaled)
            except ValueError as error:
                problems.append(f"{shown_name(item.name)} {error}")
                continue
            files[place.split].seek(len(headers[place.split]) + positions[place] * len(pixels))
            files[place.split].write(pixels)
    problems += [f"{'/'.join(place[1:])} went away while it was read" for place in sorted(unseen)]
    if problems:
        raise DataInvalid(root, problems)


def _image_place(item: Item) -> Place | None:
    parts = parts_of(item)
    return place_of(item, parts) if parts and is_in_split(parts) else None
