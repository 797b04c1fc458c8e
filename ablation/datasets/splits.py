"""Draws the training images that a seed trains on, its validation images, and the sample it is followed on.

Of data without a test split it draws that too: once, by the study's seed, or a fold for each replicate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import Dataset
from ablation.errors import DataInvalid
from ablation.records import TASKS, DataOutline, DataSettings, DataShape, Replicates, TaskName
from ablation.streams import Purpose, stream_seed

SAMPLE_SIZE = 2_000

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Indices into the training images, int64, each ascending; `sample` is out of `train`, at most 2,000 of it.

    `validation` is None where the study holds none out; else it shares no image with `train`. `test` is the fold that
    is tested on, None where the data set has a test split.
    """

    train: Indices
    validation: Indices | None
    sample: Indices
    test: Indices | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSizes:
    """How many images a run trains on, looks at while it trains, and is measured on."""

    train: int
    validation: int
    test: int


def split_sizes(outline: DataOutline, settings: DataSettings, replicates: Replicates | None = None) -> SplitSizes:
    """Return the sizes that a `data` section's splits have with every seed; with folds about those that each has."""
    used = min(settings.limit or outline.train_images, outline.train_images)
    test = outline.test_images if replicates is None else round(used / replicates.folds)
    used -= test if replicates is not None else 0
    held_out = 0 if settings.validation == "none" else round(settings.validation * used)
    return SplitSizes(train=used - held_out, validation=held_out, test=test)


def make_split(
    dataset: Dataset, settings: DataSettings, *, study_seed: int, seed: int, replicates: Replicates | None = None
) -> Split:
    """Split the training images of a study's `data` section for a seed index.

    `limit` takes the same subset for every seed, `validation` a share of that which the seed draws. Both are stratified
    where an example has one class: classes keep their proportions to the image (largest remainder), and each that has
    two examples is in both parts; the only one of a class stays in `train`. Of other tasks they are random. Of examples
    in groups, `validation` has whole groups. What cannot be drawn is a DataInvalid that names the setting.

    With `replicates` the seed index is a fold's number. Folds are parts of what `limit` leaves, `validation` a share of
    what the other folds have.
    """
    check_augmentation(dataset.facts.shape, settings, source=dataset.facts.name)
    members = MEMBERS[dataset.facts.shape.task](dataset)
    if settings.limit is not None:
        _check_limit(dataset, members, settings.limit)
        members, _ = _drawn(members, settings.limit, _generator(study_seed, Purpose.SUBSET))
    groups = dataset.train_groups
    test = None
    if replicates is not None:
        test = fold_of(members, groups, replicates, study_seed=study_seed, seed=seed, source=dataset.facts.name)
        members = _without(members, test)
        _check_classes_left(dataset, members, replicates)
    validation = None
    if settings.validation != "none":
        held_out = round(settings.validation * sum(map(len, members)))
        generator = _generator(study_seed, Purpose.VALIDATION, seed)
        if groups is None:
            _check_validation(dataset, members, held_out, fraction=settings.validation)
            chosen, members = _drawn(members, held_out, generator, leaving=1)
            validation = np.sort(np.concatenate(chosen))
        else:
            validation = _drawn_groups(members, groups, settings.validation, generator)
            members = _without(members, validation)
            if not len(validation) or not members:
                message = f"{settings.validation} of the groups cannot be held out whole: hold out more, or none"
                raise DataInvalid(dataset.facts.name, [f"{message} @ data.validation"])
    train = np.sort(np.concatenate(members))
    _check_targets(dataset, train, path="data.limit")
    if validation is not None:
        _check_targets(dataset, validation, path="data.validation")
    generator = _generator(study_seed, Purpose.TRAINING_SAMPLE, seed)
    sample = generator.choice(train, size=min(SAMPLE_SIZE, len(train)), replace=False)
    return Split(train=train, validation=validation, sample=np.sort(sample), test=test)


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How data without a test split is divided: a share drawn once by the study's seed, or folds; else not at all."""

    test: float | None = None
    replicates: Replicates | None = None
    study_seed: int = 0

    @property
    def is_folded(self) -> bool:
        return self.replicates is not None

    @property
    def is_wanted(self) -> bool:
        """Whether the data is to have no test split of its own."""
        return self.test is not None or self.is_folded

    @property
    def setting(self) -> str:
        """What asks for it."""
        return "replicates" if self.is_folded else "data.test"

    @property
    def key(self) -> str:
        """What tells how its data is kept: folds are drawn from it later."""
        if self.is_folded:
            return " undivided"
        return f" test {self.test} {self.study_seed}" if self.test is not None else ""


NOT_DIVIDED = Division()
WAYS_OUT = (
    "to draw a test split from train once, set `data.test: 0.2`; to test each example in turn, `replicates: {folds: 5}`"
)


def drawn_test(
    members: Sequence[Indices], groups: Indices | None, share: float, *, study_seed: int, source: Path | str
) -> tuple[Indices, Indices]:
    """Return the examples that stay for training and the test split, drawn once by the study's seed; each ascending.

    `members` are the examples of each class, or all. Both parts have some of each class of two or more; where examples
    have `groups`, (N,), whole ones.

    Raises:
        DataInvalid: a class has no two examples, or there are too few groups.
    """
    generator, total = _generator(study_seed, Purpose.TEST), sum(map(len, members))
    if groups is not None:
        test = _drawn_groups(members, groups, share, generator)
        left = _without(members, test)
        if not len(test) or len(left) < len(members):
            message = f"{share} of the examples cannot be drawn as whole groups that leave some of each class"
            raise DataInvalid(source, [f"{message}; it has {len(np.unique(groups))} groups @ data.test"])
        return np.sort(np.concatenate(left)), test
    count = round(share * total)
    if count < len(members) or min(map(len, members)) < 2:
        least = "an example of each class" if len(members) > 1 else "a test split"
        message = f"{share} of {total} examples is {count}, too few for {least} (each needs two examples): take more"
        raise DataInvalid(source, [f"{message} @ data.test"])
    chosen, left = _drawn(members, count, generator, leaving=1)
    return np.sort(np.concatenate(left)), np.sort(np.concatenate(chosen))


def fold_of(
    members: Sequence[Indices],
    groups: Indices | None,
    replicates: Replicates,
    *,
    study_seed: int,
    seed: int,
    source: Path | str,
) -> Indices:
    """Return the examples of a replicate's fold, ascending; the folds of one repeat are all examples, each once.

    Classes keep their proportions in each fold, to the example; of examples in `groups`, (N,), a fold has whole ones,
    and classes keep their proportions as far as that allows.

    Raises:
        DataInvalid: a class, or what there is, has fewer examples than folds, or there are fewer groups.
    """
    repeat, fold = divmod(seed, replicates.folds)
    generator = _generator(study_seed, Purpose.FOLDS, repeat)
    if groups is not None:
        own = np.unique(groups[np.concatenate(members)])
        if len(own) < replicates.folds:
            message = f"{replicates.folds} folds of whole groups, and it has {len(own)} groups: take fewer folds"
            raise DataInvalid(source, [f"{message} @ replicates.folds"])
        return _examples_of(members, groups, _groups_of_folds(members, groups, replicates.folds, generator)[fold])
    smallest = min(map(len, members))
    if smallest < replicates.folds:
        what = "the smallest class" if len(members) > 1 else "it"
        message = f"{replicates.folds} folds, and {what} has {smallest} examples: take fewer folds"
        raise DataInvalid(source, [f"{message} @ replicates.folds"])
    # Dealt out class after class, each going on where the one before ended: sizes differ by one at most.
    dealt = np.concatenate([generator.permutation(indices) for indices in members])
    return np.sort(dealt[fold :: replicates.folds])


def _groups_of_folds(
    members: Sequence[Indices], groups: Indices, folds: int, generator: np.random.Generator
) -> list[list[int]]:
    """Return the groups of each fold: from the largest on, each goes where its classes are rarest so far."""
    names, counts = _counts_of_groups(members, groups)
    order = generator.permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    weights = 1 / counts.sum(axis=0).astype(np.float64) ** 2
    filled = np.zeros((folds, counts.shape[1]))
    found: list[list[int]] = [[] for _ in range(folds)]
    for group in order:
        crowding = filled @ (counts[group] * weights)
        fold = min(range(folds), key=lambda each: (crowding[each], filled[each].sum(), each))
        filled[fold] += counts[group]
        found[fold].append(int(names[group]))
    return found


def _drawn_groups(members: Sequence[Indices], groups: Indices, share: float, generator: np.random.Generator) -> Indices:
    """Return the examples of groups that are drawn one by one, each taken where it brings classes nearer to a share.

    The last group is never taken; nothing is returned where no group brings them nearer.
    """
    names, counts = _counts_of_groups(members, groups)
    sizes = counts.sum(axis=0).astype(np.float64)
    lacking = np.full(len(sizes), share)
    chosen: list[int] = []
    for group in generator.permutation(len(names))[: len(names) - 1]:
        after = lacking - counts[group] / sizes
        if after @ after < lacking @ lacking:
            lacking = after
            chosen.append(int(names[group]))
    return _examples_of(members, groups, chosen)


def _counts_of_groups(members: Sequence[Indices], groups: Indices) -> tuple[Indices, Indices]:
    """Return the groups, (G,), and how many examples of each class each has, (G, classes)."""
    names = np.unique(groups[np.concatenate(members)])
    counts = [np.bincount(np.searchsorted(names, groups[own]), minlength=len(names)) for own in members]
    return names, np.stack(counts, axis=1)


def _examples_of(members: Sequence[Indices], groups: Indices, chosen: Sequence[int]) -> Indices:
    used = np.sort(np.concatenate(members))
    return used[np.isin(groups[used], chosen)]


def _without(members: Sequence[Indices], taken: Indices) -> list[Indices]:
    """Return the examples of each class but those that are taken; no class without any."""
    left = [own[~np.isin(own, taken)] for own in members]
    return [own for own in left if len(own)]


def _check_classes_left(dataset: Dataset, members: Sequence[Indices], replicates: Replicates) -> None:
    """Refuse folds that leave no example of a class to train on, as whole groups may."""
    whole = MEMBERS[dataset.facts.shape.task](dataset)
    if len(members) < len(whole):
        message = f"{replicates.folds} folds of whole groups leave nothing of a class to train on; take other groups"
        raise DataInvalid(dataset.facts.name, [f"{message} @ replicates.folds"])


def check_augmentation(shape: DataShape, settings: DataSettings, *, source: str) -> None:
    """Raise DataInvalid where a `data` section asks for augmentation of what are no images."""
    kind = settings.augmentation
    if shape.features and kind != "none":
        message = f"{kind!r} moves pixels, and these are features of shape {shape.features}; set it to none"
        raise DataInvalid(source, [f"{message} @ data.augmentation"])


def _members_by_class(dataset: Dataset) -> list[Indices]:
    """Return the training examples of each class that has any."""
    return members_of_classes(dataset.train_labels, len(dataset.facts.shape.classes))


def members_of_classes(labels: NDArray[np.int64], classes: int) -> list[Indices]:
    """Return the examples of each class that has any."""
    numbers = np.asarray(labels)
    members = [np.flatnonzero(numbers == label) for label in range(classes)]
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
