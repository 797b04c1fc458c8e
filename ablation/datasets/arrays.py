"""Opens, checks and identifies the four arrays that a prepared data set is kept as."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.targets import FORMS, inputs_problem, positions_problem, range_of
from ablation.errors import DataInvalid
from ablation.records import IGNORED, TASKS, DataFacts, DataOutline, DataShape, TaskName, recordable_text

SPLITS = ("train", "test")
ARRAYS = tuple(f"{split}_{what}" for split in SPLITS for what in ("images", "labels"))
GROUPS = "train_groups"
GROUPS_FILE = f"{GROUPS}.npy"
DIGEST_VERSION = "ablation-data-1"
CHUNK_BYTES = 1 << 20

IMAGES = np.dtype("uint8")
FEATURES = np.dtype("<f4")
IDS = np.dtype("<i4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A prepared data set: its facts, and its arrays in `folder`.

    Images are uint8 (N, H, W, C), or, where the facts have features, float32 (N, …), or int32 where these are whole
    numbers; labels are the targets as their task keeps them, int64 (N,) of a classification. Each access maps the file
    into memory anew, read-only, so a Dataset is pickled as its facts and its path.
    """

    facts: DataFacts
    folder: Path

    @property
    def train_images(self) -> NDArray[Any]:
        return _mapped(self.folder / "train_images.npy")

    @property
    def train_labels(self) -> NDArray[Any]:
        return _mapped(self.folder / "train_labels.npy")

    @property
    def test_images(self) -> NDArray[Any]:
        return _mapped(self.folder / "test_images.npy")

    @property
    def test_labels(self) -> NDArray[Any]:
        return _mapped(self.folder / "test_labels.npy")

    @property
    def train_groups(self) -> NDArray[np.int64] | None:
        """The group of each training example, int64 (N,); None where they are in none."""
        path = self.folder / GROUPS_FILE
        return _mapped(path) if path.exists() else None


def open_dataset(folder: Path) -> Dataset:
    """Open a folder that `prepare` returned, without verifying its digest again; its facts have no notes."""
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    sequences = {name: tuple(facts["shape"].get(name, ())) for name in ("classes", "features", "target_shape")}
    shape = DataShape(**{**facts["shape"], **sequences})
    return Dataset(facts=DataFacts(**{**facts, "shape": shape, "notes": ()}), folder=folder)


def outline_of(dataset: Dataset, *, has_targets: bool = False) -> DataOutline:
    """Return what planning needs to know of a prepared data set, with the digests of its targets where asked for."""
    facts = dataset.facts
    groups = dataset.train_groups if has_targets else None
    return DataOutline(
        shape=facts.shape,
        train_images=facts.train_images,
        test_images=facts.test_images,
        notes=facts.notes,
        train_targets=targets_digest(dataset.train_labels) if has_targets else "",
        test_targets=targets_digest(dataset.test_labels) if has_targets else "",
        train_groups=targets_digest(groups) if groups is not None else "",
    )


def targets_digest(targets: NDArray[Any]) -> str:
    """Return the SHA-256 of targets, in their order."""
    digest = hashlib.sha256(json.dumps([targets.dtype.str, targets.shape]).encode())
    rows = max(1, CHUNK_BYTES // max(1, targets[:1].nbytes))
    for at in range(0, len(targets), rows):
        digest.update(np.ascontiguousarray(targets[at : at + rows]).tobytes())
    return digest.hexdigest()


def write_arrays(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name: `train_images`, `train_labels`, `test_images`, `test_labels`, and maybe `train_groups`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def write_facts(
    folder: Path,
    *,
    name: str,
    classes: tuple[str, ...],
    source: str,
    task: TaskName = "classification",
    ignore_index: int = IGNORED,
    is_undivided: bool = False,
) -> DataFacts:
    """Check the arrays in `folder`, write their facts beside them and return these; `source` is named in errors.

    What is undivided has no test examples.
    """
    unchecked = Dataset(facts=_NO_FACTS, folder=folder)
    arrays = {name: _mapped(folder / f"{name}.npy") for name in ARRAYS}
    problems = array_problems(arrays, classes, task=task, ignore_index=ignore_index, is_undivided=is_undivided)
    if problems:
        raise DataInvalid(source, problems)
    shape = shape_of(arrays, tuple(map(recordable_text, classes)), task=task, ignore_index=ignore_index)
    facts = _measure(unchecked, name=name, shape=shape)
    values = {name: value for name, value in dataclasses.asdict(facts).items() if name != "fold_sizes"}
    (folder / "facts.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    return facts


def verified(folder: Path, *, digest: str) -> Dataset | None:
    """Open a prepared data set, or return None where it is missing, damaged or not the one with that digest."""
    try:
        dataset = open_dataset(folder)
        facts = dataset.facts
        if facts.digest != digest or _content_digest(dataset, facts.shape, _counts(facts)) != digest:
            return None
        arrays = {name: _mapped(folder / f"{name}.npy") for name in ARRAYS}
        recorded = facts.shape
        shape = shape_of(arrays, recorded.classes, task=recorded.task, ignore_index=recorded.ignore_index)
        is_intact = _measure(dataset, name=facts.name, shape=shape, digest=digest) == facts
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return dataset if is_intact else None


def shape_of(
    arrays: Mapping[str, NDArray[Any]], classes: tuple[str, ...], *, task: TaskName, ignore_index: int
) -> DataShape:
    """Return the shape of arrays by their names, which are a data set."""
    images, labels = arrays["train_images"], arrays["train_labels"]
    is_image = images.dtype == IMAGES
    height, width, channels = images.shape[1:] if is_image else (0, 0, 0)
    highest = [range_of(arrays[f"{split}_images"]) or (0, 0) for split in SPLITS] if images.dtype == IDS else []
    return DataShape(
        channels=channels,
        height=height,
        width=width,
        classes=classes,
        features=() if is_image else images.shape[1:],
        task=task,
        target_shape=labels.shape[1:],
        vocabulary=max((high + 1 for _, high in highest), default=0),
        ignore_index=ignore_index if TASKS[task].has_positions else IGNORED,
    )


def array_problems(
    arrays: Mapping[str, NDArray[Any]],
    classes: tuple[str, ...],
    *,
    task: TaskName = "classification",
    ignore_index: int = IGNORED,
    is_undivided: bool = False,
) -> list[str]:
    """Return in words what is wrong with arrays by their names; what is undivided has no test examples."""
    train, test = arrays["train_images"], arrays["test_images"]
    least = LEAST_CLASSES[task]
    few = f"it has {len(classes)} classes; a study needs {'two' if least == 2 else 'one'} at least"
    problems = [few] if len(classes) < least else []
    if train.dtype != test.dtype:
        problems.append(f"training inputs are {train.dtype}, test inputs {test.dtype}")
    elif train.shape[1:] != test.shape[1:]:
        kind = "images are" if train.dtype == IMAGES else "inputs are"
        axes = " (height, width, channels)" if train.dtype == IMAGES else ""
        problems.append(f"training {kind} {train.shape[1:]}, test {kind[:-4]} {test.shape[1:]}{axes}")
    targets = [arrays[f"{split}_labels"] for split in SPLITS]
    if targets[0].shape[1:] != targets[1].shape[1:]:
        shapes = [_target_shape_text(one) for one in targets]
        return [*problems, f"a training target is {shapes[0]}, a test target {shapes[1]}"]
    for split in SPLITS[:1] if is_undivided else SPLITS:
        problems += _problems_of_split(
            split, arrays[f"{split}_images"], arrays[f"{split}_labels"], classes, task, ignore_index
        )
    return problems


LEAST_CLASSES: Mapping[TaskName, int] = {
    "classification": 2,
    "regression": 0,
    "multilabel": 1,
    "tokens": 2,
    "segmentation": 2,
}
"""How many classes or labels a data set of a task has at least."""


def data_notes(
    arrays: Mapping[str, NDArray[Any]], classes: tuple[str, ...], *, task: TaskName, ignore_index: int
) -> tuple[str, ...]:
    """Return in sentences what is to be known of arrays that are a data set, such as classes without examples."""
    filled = [split for split in SPLITS if len(arrays[f"{split}_labels"])]
    found = (FORMS[task].notes(split, arrays[f"{split}_labels"], classes, ignore_index) for split in filled)
    return tuple(note for notes in found for note in notes)


def _target_shape_text(targets: NDArray[Any]) -> str:
    return f"of shape {targets.shape[1:]}" if targets.ndim > 1 else "one number"


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


def _problems_of_split(
    split: str,
    images: NDArray[Any],
    targets: NDArray[Any],
    classes: tuple[str, ...],
    task: TaskName,
    ignore_index: int,
) -> list[str]:
    kind, form = INPUTS.get(images.dtype, _problem_of_images), FORMS[task]
    problem = kind(images) or inputs_problem(task, images)
    if problem is not None:
        return [f"{split} {problem}"]
    if targets.dtype != form.dtype or len(targets) != len(images):
        wanted = (len(images), *targets.shape[1:])
        return [f"{split} {form.word} are {targets.dtype} {targets.shape}, not {form.dtype} {wanted}"]
    if len(images) == 0:
        return [f"{split} has no images"]
    misplaced = positions_problem(task, images, targets)
    return [f"{split} {misplaced}"] if misplaced else form.problems(split, targets, classes, ignore_index)


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


def _problem_of_ids(ids: NDArray[Any]) -> str | None:
    if ids.ndim < 2 or 0 in ids.shape[1:]:
        return f"inputs are {ids.shape}, not (N, …)"
    low, high = range_of(ids) or (0, 0)
    return f"inputs are whole numbers {low}..{high}; ids are not below 0" if low < 0 else None


INPUTS: Mapping[np.dtype[Any], Callable[[NDArray[Any]], str | None]] = {
    IMAGES: _problem_of_images,
    FEATURES: _problem_of_features,
    IDS: _problem_of_ids,
}
"""Says what is wrong with inputs, by the type that they are kept as."""


def _measure(dataset: Dataset, *, name: str, shape: DataShape, digest: str | None = None) -> DataFacts:
    """Return the facts of checked arrays; `digest` is theirs where the caller has computed it already."""
    images, labels = dataset.train_images, dataset.test_labels
    counts = {"train": len(images), "test": len(labels)}
    judged = labels if len(labels) else dataset.train_labels
    return DataFacts(
        name=name,
        digest=digest or _content_digest(dataset, shape, counts),
        shape=shape,
        train_images=len(images),
        test_images=len(labels),
        largest_class_share=FORMS[shape.task].share(judged, shape.ignore_index),
    )


def _content_digest(dataset: Dataset, shape: DataShape, counts: Mapping[str, int]) -> str:
    """Return the SHA-256 of class names, shapes and content, and of the task where it is another than classification.

    Raises:
        ValueError: a file is not an array of that shape.
    """
    size = shape.features or (shape.height, shape.width, shape.channels)
    kind = (IDS if shape.vocabulary else FEATURES) if shape.features else IMAGES
    description: list[object] = [DIGEST_VERSION, shape.classes, size, [counts[split] for split in SPLITS]]
    description += [kind.name] if shape.features else []
    description += [shape.task, shape.target_shape, shape.ignore_index] if shape.task != "classification" else []
    digest = hashlib.sha256(json.dumps(description).encode())
    for split in SPLITS:
        for name, header in (
            ("images", array_header(kind, (counts[split], *size))),
            ("labels", array_header(FORMS[shape.task].dtype, (counts[split], *shape.target_shape))),
        ):
            with (dataset.folder / f"{split}_{name}.npy").open("rb") as file:
                if file.read(len(header)) != header:
                    raise ValueError(f"{split}_{name}.npy is not an array of the shape recorded")
                while chunk := file.read(CHUNK_BYTES):
                    digest.update(chunk)
    groups = dataset.train_groups
    if groups is not None:
        if groups.dtype != np.int64 or groups.shape != (counts["train"],):
            raise ValueError(f"{GROUPS_FILE} is not one group per training example")
        digest.update(b"groups" + groups.tobytes())
    return digest.hexdigest()


def _counts(facts: DataFacts) -> dict[str, int]:
    return {"train": facts.train_images, "test": facts.test_images}
