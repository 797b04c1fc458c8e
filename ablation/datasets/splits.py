"""Draws the training images that a seed trains on, its validation images, and the sample it is followed on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import Dataset
from ablation.errors import DataInvalid
from ablation.records import DataOutline, DataSettings, DataShape
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

    `limit` takes the same stratified subset for every seed, `validation` a stratified share of that which the seed
    draws. Classes keep their proportions to the image (largest remainder), and each is in every part: where that
    cannot be, DataInvalid names the setting.
    """
    check_augmentation(dataset.facts.shape, settings, source=dataset.facts.name)
    members = _members_by_class(dataset)
    if settings.limit is not None:
        _check_limit(dataset, settings.limit)
        members, _ = _drawn(members, settings.limit, _generator(study_seed, Purpose.SUBSET))
    validation = None
    if settings.validation != "none":
        held_out = round(settings.validation * sum(map(len, members)))
        _check_validation(dataset, members, held_out, fraction=settings.validation)
        chosen, members = _drawn(members, held_out, _generator(study_seed, Purpose.VALIDATION, seed))
        validation = np.sort(np.concatenate(chosen))
    train = np.sort(np.concatenate(members))
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
    labels = np.asarray(dataset.train_labels)
    return [np.flatnonzero(labels == label) for label in range(len(dataset.facts.shape.classes))]


def _check_limit(dataset: Dataset, limit: int) -> None:
    facts = dataset.facts
    if not len(facts.shape.classes) <= limit <= facts.train_images:
        raise DataInvalid(
            facts.name,
            [
                f"{limit} training images cannot be taken: it has {facts.train_images} of {len(facts.shape.classes)} "
                "classes, and each class needs one @ data.limit"
            ],
        )


def _check_validation(dataset: Dataset, members: Sequence[Indices], held_out: int, *, fraction: float) -> None:
    classes = dataset.facts.shape.classes
    problems = [
        f"class {name!r} has 1 training image, too few to hold one out @ data.validation"
        for name, indices in zip(classes, members, strict=True)
        if len(indices) == 1
    ]
    if held_out < len(classes):
        problems.append(
            f"{fraction} of {sum(map(len, members))} training images is {held_out}, too few for an image of each of "
            f"{len(classes)} classes: hold out more, or none @ data.validation"
        )
    if problems:
        raise DataInvalid(dataset.facts.name, problems)


def _drawn(
    members: Sequence[Indices], total: int, generator: np.random.Generator
) -> tuple[list[Indices], list[Indices]]:
    """Draw `total` images, stratified; return the drawn ones of each class and the others.

    The order drawn from a class does not depend on `total`, so of two totals one draws what the other does and more.
    """
    counts = _proportional([len(indices) for indices in members], total)
    orders = [generator.permutation(indices) for indices in members]
    return (
        [order[:count] for order, count in zip(orders, counts, strict=True)],
        [order[count:] for order, count in zip(orders, counts, strict=True)],
    )


def _proportional(sizes: Sequence[int], total: int) -> list[int]:
    """Divide `total` among classes by largest remainder, at least one each; `total` must not be below their number.

    A class that would get none takes one from the class that is furthest above its exact share.
    """
    population = sum(sizes)
    counts = [total * size // population for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-(total * sizes[index] % population), index))
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    for index in range(len(sizes)):
        if counts[index] == 0:
            donors = [other for other in range(len(sizes)) if counts[other] > 1]
            donor = max(donors, key=lambda other: counts[other] * population - total * sizes[other])
            counts[donor] -= 1
            counts[index] = 1
    return counts


def _generator(study_seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(stream_seed(study_seed, purpose, *indices)))
