"""Reads a folder or archive of train/<class>/* and test/<class>/* into arrays, naming every file that cannot be used.

It goes through the files twice: once for the names, which give classes and order, once to decode each image to its
place, so the pixels are never in memory together and the digest is the same however the files are packed.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ablation.datasets.arrays import IMAGES, SPLITS, array_header, write_arrays
from ablation.datasets.image_files import Item, list_items, state_of
from ablation.errors import DataInvalid
from ablation.results import DataOutline, DataShape

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
GRAY_MODES = ("1", "L", "LA")
COLOR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
LARGEST_SIDE = 4096
LARGEST_FILE_MIB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Images of one size in `root`, a folder or a tar archive, with or without one folder around `train` and `test`.

    They are ordered by class, then by file name. One channel where every file is gray, else RGB; transparency is
    dropped. Hidden files and files without an image's suffix are passed over; more than 8 bits are refused.
    """

    root: Path

    @property
    def name(self) -> str:
        return "images"

    @property
    def where(self) -> str:
        return str(self.root)

    def key(self) -> str:
        return f"images 1 {state_of(self.root)}"

    def outline(self) -> DataOutline:
        survey = _survey(self.root)
        counts = {split: len(places) for split, places in survey.places.items()}
        return DataOutline(shape=survey.shape, train_images=counts["train"], test_images=counts["test"])

    def write(self, folder: Path) -> tuple[str, ...]:
        survey = _survey(self.root)
        _write_images(self.root, survey, folder)
        labels = {name: label for label, name in enumerate(survey.shape.classes)}
        for split, places in survey.places.items():
            array = np.asarray([labels[place.class_name] for place in places], dtype=np.int64)
            write_arrays(folder, {f"{split}_labels": array})
        return survey.shape.classes


class _Place(NamedTuple):
    """What a path means; `file` is empty for the folder of a class."""

    top: str
    split: str
    class_name: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Survey:
    """What the names tell, the size of the first training image, and whether all images are gray."""

    shape: DataShape
    places: Mapping[str, list[_Place]]
    """The images of each split, in order."""


def _survey(root: Path) -> _Survey:
    """Go through the names, the header of the first training image and, while all are gray, those of the others."""
    places: set[_Place] = set()
    problems, unreadable = [], []
    first: tuple[int, _Place, tuple[int, int]] | None = None
    are_gray = True
    with _bombs_are_errors():
        for item in list_items(root):
            try:
                place = _place(item)
            except ValueError as error:
                problems.append(f"{_shown(item)} {error}")
                continue
            if place is None:
                continue
            places.add(place)
            rank = SPLITS.index(place.split)
            if place.file and (are_gray or first is None or (rank, place) < first[:2]):
                try:
                    is_gray, size = _header(item)
                except ValueError as error:
                    unreadable.append(f"{_shown(item)} {error}")
                    continue
                are_gray = are_gray and is_gray
                first = min(first or (rank, place, size), (rank, place, size))
    problems += _problems_of_layout(places)
    if problems or first is None:
        raise DataInvalid(root, problems or unreadable)
    width, height = first[2]
    classes = tuple(sorted({place.class_name for place in places}))
    images = sorted(place for place in places if place.file)
    return _Survey(
        shape=DataShape(channels=1 if are_gray else 3, height=height, width=width, classes=classes),
        places={split: [place for place in images if place.split == split] for split in SPLITS},
    )


def _place(item: Item) -> _Place | None:
    """Return what a path means, None where it is nothing to us; ValueError says why it cannot be used."""
    parts = [part for part in item.name.split("/") if part not in ("", ".")]
    if item.name.startswith("/") or ".." in parts:
        raise ValueError("has a name that leads outside the archive")
    if any(part.startswith(".") for part in parts) or parts[:1] == ["__MACOSX"]:
        return None
    if parts[:1] and parts[0] in SPLITS:
        top, inner = "", parts
    elif parts[1:] and parts[1] in SPLITS:
        top, inner = parts[0], parts[1:]
    else:
        return None
    return _place_in_split(item, top, inner)


def _place_in_split(item: Item, top: str, parts: list[str]) -> _Place | None:
    if item.kind == "other":
        raise ValueError("is a link or a special file, which is not read; links are followed inside a folder only")
    if item.kind == "folder":
        if len(parts) > 2:
            raise ValueError("is a folder inside a class; images are read from train/<class>/ and test/<class>/ only")
        return _Place(top, parts[0], parts[1], "") if len(parts) == 2 else None
    if not item.name.lower().endswith(SUFFIXES):
        return None
    if len(parts) != 3:
        raise ValueError("does not lie in train/<class>/ or test/<class>/")
    return _Place(top, *parts)


def _problems_of_layout(places: set[_Place]) -> list[str]:
    if not places:
        return ["it has no images in train/<class>/ and test/<class>/"]
    tops = sorted({place.top or "." for place in places})
    if len(tops) > 1:
        return [f"train and test lie in more than one folder: {', '.join(tops)}"]
    filled = {(place.class_name, place.split) for place in places if place.file}
    return [
        f"class {name!r} has no images in {split}"
        for name in sorted({place.class_name for place in places})
        for split in SPLITS
        if (name, split) not in filled
    ]


def _write_images(root: Path, survey: _Survey, folder: Path) -> None:
    """Decode every image to its place in the arrays' files."""
    shape = survey.shape
    size = (shape.height, shape.width, shape.channels)
    positions = {place: position for places in survey.places.values() for position, place in enumerate(places)}
    unseen = set(positions)
    problems = []
    with ExitStack() as stack:
        stack.enter_context(_bombs_are_errors())
        files = {split: stack.enter_context((folder / f"{split}_images.npy").open("wb")) for split in SPLITS}
        headers = {split: array_header(IMAGES, (len(places), *size)) for split, places in survey.places.items()}
        for split, file in files.items():
            file.write(headers[split])
        for item in list_items(root):
            try:
                place = _place(item)
                if place is None or place not in positions:
                    continue
                unseen.discard(place)
                pixels = _pixels(item, shape)
            except ValueError as error:
                problems.append(f"{_shown(item)} {error}")
                continue
            files[place.split].seek(len(headers[place.split]) + positions[place] * len(pixels))
            files[place.split].write(pixels)
    problems += [f"{'/'.join(place[1:])} went away while it was read" for place in sorted(unseen)]
    if problems:
        raise DataInvalid(root, problems)


def _header(item: Item) -> tuple[bool, tuple[int, int]]:
    """Return whether an image is gray, and its width and height."""
    with _opened(item) as image:
        return image.mode in GRAY_MODES, image.size


def _pixels(item: Item, shape: DataShape) -> bytes:
    with _opened(item) as image:
        if image.size != (shape.width, shape.height):
            width, height = image.size
            raise ValueError(
                f"is {width}x{height}, the first training image is {shape.width}x{shape.height}; all must be alike"
            )
        # PIL warns of a palette with transparency unless it is resolved first.
        opaque = image.convert("RGBA") if "transparency" in image.info else image
        return opaque.convert("L" if shape.channels == 1 else "RGB").tobytes()


@contextmanager
def _opened(item: Item) -> Iterator["Image"]:
    """Open an image whose size and depth can be used; whatever PIL raises of a bad file becomes a ValueError."""
    import struct
    import zlib
    from io import BytesIO

    from PIL import Image, UnidentifiedImageError

    if item.size > LARGEST_FILE_MIB << 20:
        raise ValueError(f"has more than {LARGEST_FILE_MIB} MiB")
    data = item.read()
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if max(image.size) > LARGEST_SIDE:
                raise ValueError(f"is larger than {LARGEST_SIDE}x{LARGEST_SIDE}")
            if image.mode not in GRAY_MODES + COLOR_MODES:
                raise ValueError(f"has more than 8 bits per channel (mode {image.mode})")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"is larger than {LARGEST_SIDE}x{LARGEST_SIDE}") from error
    except UnidentifiedImageError as error:
        raise ValueError("is not an image of a known format") from error
    except (OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error, zlib.error) as error:
        raise ValueError(f"cannot be decoded: {error}") from error


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PIL's of odd metadata; what matters is raised
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _shown(item: Item) -> str:
    return item.name if item.name.isprintable() else ascii(item.name)
