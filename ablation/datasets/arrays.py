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
from ablation.records import DataFacts, DataShape, recordable_text

SPLITS = ("train", "test")
ARRAYS = tuple(f"{split}_{what}" for split in SPLITS for what in ("images", "labels"))
DIGEST_VERSION = "ablation-data-1"
CHUNK_BYTES = 1 << 20

IMAGES = np.dtype("uint8")
FEATURES = np.dtype("<f4")
LABELS = np.dtype("<i8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A prepared data set: its facts, and its arrays in `folder`.

    Images are uint8 (N, H, W, C), or float32 (N, …) where the facts have features; labels are int64 (N,). Each access
    maps the file into memory anew, read-only, so a Dataset is pickled as its facts and its path.
    """

    facts: DataFacts
    folder: Path

    @property
    def train_images(self) -> NDArray[Any]:
        return _mapped(self.folder / "train_images.npy")

    @property
    def train_labels(self) -> NDArray[np.int64]:
        return _mapped(self.folder / "train_labels.npy")

    @property
    def test_images(self) -> NDArray[Any]:
        return _mapped(self.folder / "test_images.npy")

    @property
    def test_labels(self) -> NDArray[np.int64]:
        return _mapped(self.folder / "test_labels.npy")


def open_dataset(folder: Path) -> Dataset:
    """Open a folder that `prepare` returned, without verifying its digest again; its facts have no notes."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    sequences = {"classes": tuple(facts["shape"]["classes"]), "features": tuple(facts["shape"].get("features", ()))}
    shape = DataShape(**{**facts["shape"], **sequences})
    return Dataset(facts=DataFacts(**{**facts, "shape": shape, "notes": ()}), folder=folder)


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name: `train_images`, `train_labels`, `test_images`, `test_labels`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def write_facts(folder: Path, *, name: str, classes: tuple[str, ...], source: str) -> DataFacts:
    """Check the arrays in `folder`, write their facts beside them and return these; `source` is named in errors."""
    unchecked = Dataset(facts=_NO_FACTS, folder=folder)
    problems = array_problems({name: _mapped(folder / f"{name}.npy") for name in ARRAYS}, classes)
    if problems:
        raise DataInvalid(source, problems)
    facts = _measure(unchecked, name=name, classes=tuple(map(recordable_text, classes)))
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


def array_problems(arrays: Mapping[str, NDArray[Any]], classes: tuple[str, ...]) -> list[str]:
    """Return in words what is wrong with arrays by their names."""
    train, test = arrays["train_images"], arrays["test_images"]
    problems = [f"it has {len(classes)} classes; a study needs two at least"] if len(classes) < 2 else []
    if train.dtype != test.dtype:
        problems.append(f"training inputs are {train.dtype}, test inputs {test.dtype}")
    elif train.shape[1:] != test.shape[1:]:
        kind = "images are" if train.dtype == IMAGES else "inputs are"
        axes = " (height, width, channels)" if train.dtype == IMAGES else ""
        problems.append(f"training {kind} {train.shape[1:]}, test {kind[:-4]} {test.shape[1:]}{axes}")
    for split in SPLITS:
        problems += _problems_of_split(split, arrays[f"{split}_images"], arrays[f"{split}_labels"], classes)
    return problems


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


def _problems_of_split(split: str, images: NDArray[Any], labels: NDArray[Any], classes: tuple[str, ...]) -> list[str]:
    problem = _problem_of_features(images) if images.dtype == FEATURES else _problem_of_images(images)
    if problem is not None:
        return [f"{split} {problem}"]
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


def _problem_of_images(images: NDArray[Any]) -> str | None:
    if images.dtype != IMAGES or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
        return f"images are {images.dtype} {images.shape}, not uint8 (N, height, width, 1 or 3)"
    return None


def _problem_of_features(features: NDArray[Any]) -> str | None:
    if features.ndim < 2 or 0 in features.shape[1:]:
        return f"features are {features.shape}, not (N, features…)"
    rows = max(1, CHUNK_BYTES // features[:1].nbytes) if len(features) else 1
    wrong = sum(int((~np.isfinite(features[at : at + rows])).sum()) for at in range(0, len(features), rows))
    return f"features have {wrong} values that are NaN or infinite as float32" if wrong else None


def _measure(dataset: Dataset, *, name: str, classes: tuple[str, ...], digest: str | None = None) -> DataFacts:
    """Return the facts of checked arrays; `digest` is theirs where the caller has computed it already."""
    images, labels = dataset.train_images, dataset.test_labels
    if images.dtype == FEATURES:
        shape = DataShape(channels=0, height=0, width=0, classes=classes, features=images.shape[1:])
    else:
        _, height, width, channels = images.shape
        shape = DataShape(channels=channels, height=height, width=width, classes=classes)
    counts = {"train": len(images), "test": len(labels)}
    return DataFacts(
        name=name,
        digest=digest or _content_digest(dataset, shape, counts),
        shape=shape,
        train_images=len(images),
        test_images=len(labels),
        largest_class_share=float(np.bincount(labels).max() / len(labels)),
    )


def _content_digest(dataset: Dataset, shape: DataShape, counts: Mapping[str, int]) -> str:
    """Return the SHA-256 of class names, shapes and content; ValueError where a file is not an array of that shape."""
    size = shape.features or (shape.height, shape.width, shape.channels)
    description: list[object] = [DIGEST_VERSION, shape.classes, size, [counts[split] for split in SPLITS]]
    description += ["float32"] if shape.features else []
    digest = hashlib.sha256(json.dumps(description).encode())
    for split in SPLITS:
        for name, header in (
            ("images", array_header(FEATURES if shape.features else IMAGES, (counts[split], *size))),
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
