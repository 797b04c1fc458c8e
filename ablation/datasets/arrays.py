"""Opens, checks and identifies the four arrays that a prepared data set is kept as."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.errors import DataInvalid
from ablation.results import DataFacts, DataShape

SPLITS = ("train", "test")
DIGEST_VERSION = "ablation-data-1"
CHUNK_BYTES = 1 << 20

IMAGES = np.dtype("uint8")
LABELS = np.dtype("<i8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A prepared data set: its facts, and its arrays in `folder`.

    Images are uint8 (N, H, W, C), labels int64 (N,). Each access maps the file into memory anew, read-only, so a
    Dataset is pickled as its facts and its path.
    """

    facts: DataFacts
    folder: Path

    @property
    def train_images(self) -> NDArray[np.uint8]:
        return _mapped(self.folder / "train_images.npy")

    @property
    def train_labels(self) -> NDArray[np.int64]:
        return _mapped(self.folder / "train_labels.npy")

    @property
    def test_images(self) -> NDArray[np.uint8]:
        return _mapped(self.folder / "test_images.npy")

    @property
    def test_labels(self) -> NDArray[np.int64]:
        return _mapped(self.folder / "test_labels.npy")


def open_dataset(folder: Path) -> Dataset:
    """Open a folder that `prepare` returned, without verifying its digest again."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    sequences = {key: tuple(value) for key, value in facts["shape"].items() if isinstance(value, list)}
    shape = DataShape(**{**facts["shape"], **sequences})
    return Dataset(facts=DataFacts(**{**facts, "shape": shape}), folder=folder)


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name: `train_images`, `train_labels`, `test_images`, `test_labels`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def write_facts(folder: Path, *, name: str, classes: tuple[str, ...], source: str) -> DataFacts:
    """Check the arrays in `folder`, write their facts beside them and return these; `source` is named in errors."""
    unchecked = Dataset(facts=_NO_FACTS, folder=folder)
    problems = _problems(unchecked, classes)
    if problems:
        raise DataInvalid(source, problems)
    facts = _measure(unchecked, name=name, classes=classes)
    (folder / "facts.json").write_text(json.dumps(dataclasses.asdict(facts), indent=1), encoding="utf-8")
    return facts


def verified(folder: Path, *, digest: str) -> Dataset | None:
    """Open a prepared data set, or return None where it is missing, damaged or not the one with that digest."""
    try:
        dataset = open_dataset(folder)
        facts = dataset.facts
        if facts.digest != digest or _content_digest(dataset, facts.shape, _counts(facts)) != digest:
            return None
        is_intact = _measure(dataset, name=facts.name, classes=facts.shape.classes, digest=digest) == facts
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return dataset if is_intact else None


def array_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the bytes that a .npy file of that type and shape begins with."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    return buffer.getvalue()


_NO_FACTS = DataFacts(
    name="",
    digest="",
    shape=DataShape(channels=0, height=0, width=0, classes=()),
    train_images=0,
    test_images=0,
    largest_class_share=0.0,
)


def _mapped(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def _problems(dataset: Dataset, classes: tuple[str, ...]) -> list[str]:
    train, test = dataset.train_images, dataset.test_images
    problems = [f"it has {len(classes)} classes; a study needs two at least"] if len(classes) < 2 else []
    if train.shape[1:] != test.shape[1:]:
        problems.append(
            f"training images are {train.shape[1:]}, test images {test.shape[1:]} (height, width, channels)"
        )
    for split, images, labels in (("train", train, dataset.train_labels), ("test", test, dataset.test_labels)):
        problems += _problems_of_split(split, images, labels, classes)
    return problems


def _problems_of_split(split: str, images: NDArray[Any], labels: NDArray[Any], classes: tuple[str, ...]) -> list[str]:
    if images.dtype != IMAGES or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        return [f"{split} images are {images.dtype} {images.shape}, not uint8 (N, height, width, 1 or 3)"]
    if labels.dtype != LABELS or labels.shape != (len(images),):
        return [f"{split} labels are {labels.dtype} {labels.shape}, not int64 ({len(images)},)"]
    if len(images) == 0:
        return [f"{split} has no images"]
    if labels.min() < 0 or labels.max() >= len(classes):
        return [f"{split} labels are {labels.min()}..{labels.max()}, not within 0..{len(classes) - 1}"]
    counts = np.bincount(labels, minlength=len(classes))
    return [
        f"class {name!r} has no images in {split}" for name, count in zip(classes, counts, strict=True) if count == 0
    ]


def _measure(dataset: Dataset, *, name: str, classes: tuple[str, ...], digest: str | None = None) -> DataFacts:
    """Return the facts of checked arrays; `digest` is theirs where the caller has computed it already."""
    labels = dataset.test_labels
    train_count, height, width, channels = dataset.train_images.shape
    shape = DataShape(channels=channels, height=height, width=width, classes=classes)
    counts = {"train": train_count, "test": len(labels)}
    return DataFacts(
        name=name,
        digest=digest or _content_digest(dataset, shape, counts),
        shape=shape,
        train_images=train_count,
        test_images=len(labels),
        largest_class_share=float(np.bincount(labels).max() / len(labels)),
    )


def _content_digest(dataset: Dataset, shape: DataShape, counts: Mapping[str, int]) -> str:
    """Return the SHA-256 of class names, shapes and content; ValueError where a file is not an array of that shape."""
    size = (shape.height, shape.width, shape.channels)
    description = [DIGEST_VERSION, shape.classes, size, [counts[split] for split in SPLITS]]
    digest = hashlib.sha256(json.dumps(description).encode())
    for split in SPLITS:
        for name, header in (
            ("images", array_header(IMAGES, (counts[split], *size))),
            ("labels", array_header(LABELS, (counts[split],))),
        ):
            with (dataset.folder / f"{split}_{name}.npy").open("rb") as file:
                if file.read(len(header)) != header:
                    raise ValueError(f"{split}_{name}.npy is not an array of the shape recorded")
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


def _counts(facts: DataFacts) -> dict[str, int]:
    return {"train": facts.train_images, "test": facts.test_images}
