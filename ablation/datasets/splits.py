"""Draws the training images that a seed trains on, its validation images, and the sample it is followed on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import Dataset
from ablation.errors import DataInvalid
from ablation.records import TASKS, DataOutline, DataSettings, DataShape, TaskName
from ablation.streams import Purpose, stream_seed

SAMPLE_SIZE = 2_000

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Indices into the training images, int64, each ascending; `sample` is out of `train`, at most 2,000 of it.

    `validation` is None where the study holds none out; else it shares no image with `train`.
    """

    train: Indices
    validation: Indices | None
    sample: Indices


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """How many images a run trains on, looks at while it trains, and is measured on."""

    train: int
    validation: int
    test: int


def split_sizes(outline: DataOutline, settings: DataSettings) -> SplitSizes:
    """Return the sizes that a `data` section's splits have with every seed."""
    used = min(settings.limit or outline.train_images, outline.train_images)
    held_out = 0 if settings.validation == "none" else round(settings.validation * used)
    return SplitSizes(train=used - held_out, validation=held_out, test=outline.test_images)


def make_split(dataset: Dataset, settings: DataSettings, *, study_seed: int, seed: int) -> Split:
    """Split the training images of a study's `data` section for a seed index.

    `limit` takes the same subset for every seed, `validation` a share of that which the seed draws. Both are stratified
    where an example has one class: classes keep their proportions to the image (largest remainder), and each that has
    two examples is in both parts; the only one of a class stays in `train`. Of other tasks they are random. What cannot
    be drawn is a DataInvalid that names the setting.
    """
    check_augmentation(dataset.facts.shape, settings, source=dataset.facts.name)
    members = MEMBERS[dataset.facts.shape.task](dataset)
    if settings.limit is not None:
        _check_limit(dataset, members, settings.limit)
        members, _ = _drawn(members, settings.limit, _generator(study_seed, Purpose.SUBSET))
    validation = None
    if settings.validation != "none":
        held_out = round(settings.validation * sum(map(len, members)))
        _check_validation(dataset, members, held_out, fraction=settings.validation)
        chosen, members = _drawn(members, held_out, _generator(study_seed, Purpose.VALIDATION, seed), leaving=1)
        validation = np.sort(np.concatenate(chosen))
    train = np.sort(np.concatenate(members))
    _check_targets(dataset, train, path="data.limit")
    if validation is not None:
        _check_targets(dataset, validation, path="data.validation")
    generator = _generator(study_seed, Purpose.TRAINING_SAMPLE, seed)
    sample = generator.choice(train, size=min(SAMPLE_SIZE, len(train)), replace=False)
    return Split(train=train, validation=validation, sample=np.sort(sample))


def check_augmentation(shape: DataShape, settings: DataSettings, *, source: str) -> None:
    """Raise DataInvalid where a `data` section asks for augmentation of what are no images."""
    kind = settings.augmentation
    if shape.features and kind != "none":
        message = f"{kind!r} moves pixels, and these are features of shape {shape.features}; set it to none"
        raise DataInvalid(source, [f"{message} @ data.augmentation"])


def _members_by_class(dataset: Dataset) -> list[Indices]:
    """Return the training examples of each class that has any."""
    labels = np.asarray(dataset.train_labels)
    members = [np.flatnonzero(labels == label) for label in range(len(dataset.facts.shape.classes))]
    return [indices for indices in members if len(indices)]


def _all_members(dataset: Dataset) -> list[Indices]:
    return [np.arange(dataset.facts.train_images)]


MEMBERS: Mapping[TaskName, Callable[[Dataset], list[Indices]]] = {
    "classification": _members_by_class,
    "regression": _all_members,
    "multilabel": _all_members,
    "tokens": _all_members,
    "segmentation": _all_members,
}
"""The groups of training examples that keep their proportions in each part, by task."""


def _check_limit(dataset: Dataset, members: Sequence[Indices], limit: int) -> None:
    facts = dataset.facts
    if max(2, len(members)) <= limit <= facts.train_images:
        return
    start = f"{limit} training images cannot be taken: it has {facts.train_images}"
    of_classes = f" of {len(members)} classes, and each class needs one"
    why = of_classes if facts.shape.task == "classification" else ", and two are the least"
    raise DataInvalid(facts.name, [f"{start}{why} @ data.limit"])


def _check_validation(dataset: Dataset, members: Sequence[Indices], held_out: int, *, fraction: float) -> None:
    """Refuse a validation split that has not one example of each group of two, or leaves none of them."""
    divisible = [len(indices) for indices in members if len(indices) > 1]
    share = f"{fraction} of {sum(map(len, members))} training images is {held_out}"
    if held_out < max(1, len(divisible)):
        each = f"an image of each of {len(divisible)} classes" if len(divisible) > 1 else "a validation split"
        problem = f"{share}, too few for {each}: hold out more, or none"
    elif held_out > sum(divisible) - len(divisible):
        problem = f"{share}, and {len(members) - len(divisible)} classes have 1, which is not held out: hold out less"
    else:
        return
    raise DataInvalid(dataset.facts.name, [f"{problem} @ data.validation"])


def _check_targets(dataset: Dataset, part: Indices, *, path: str) -> None:
    """Refuse a part of the training examples all of whose targets count for nothing."""
    shape = dataset.facts.shape
    if not TASKS[shape.task].has_positions:
        return
    targets = dataset.train_labels
    if not any((targets[index] != shape.ignore_index).any() for index in part):
        message = f"all targets of {len(part)} examples drawn are the ignore index, {shape.ignore_index}; take more"
        raise DataInvalid(dataset.facts.name, [f"{message} @ {path}"])


def _drawn(
    members: Sequence[Indices], total: int, generator: np.random.Generator, *, leaving: int = 0
) -> tuple[list[Indices], list[Indices]]:
    """Draw `total` images, stratified; return the drawn ones of each class and the others, so many at least.

    The order drawn from a class does not depend on `total`, so of two totals one draws what the other does and more.
    """
    counts = _proportional([len(indices) for indices in members], total, leaving=leaving)
    orders = [generator.permutation(indices) for indices in members]
    return (
        [order[:count] for order, count in zip(orders, counts, strict=True)],
        [order[count:] for order, count in zip(orders, counts, strict=True)],
    )


def _proportional(sizes: Sequence[int], total: int, *, leaving: int) -> list[int]:
    """Divide `total` among classes by largest remainder: at least one of each, at most all but `leaving`.

    `total` must allow it. What is too many for a class goes to the class that is furthest below its exact share; a
    class that would get none takes one from the class that is furthest above it.
    """
    population = sum(sizes)
    most = [size - leaving for size in sizes]
    counts = [total * size // population for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-(total * sizes[index] % population), index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1

    def excess(index: int) -> int:
        return counts[index] * population - total * sizes[index]

    for index in range(len(sizes)):
        while counts[index] > most[index]:
            taker = min((other for other in range(len(sizes)) if counts[other] < most[other]), key=excess)
            counts[index] -= 1
            counts[taker] += 1
    for index in range(len(sizes)):
        if counts[index] == 0 < most[index]:
            donor = max((other for other in range(len(sizes)) if counts[other] > 1), key=excess)
            counts[donor] -= 1
            counts[index] = 1
    return counts


def _generator(study_seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stream_seed(study_seed, purpose, *indices)))
