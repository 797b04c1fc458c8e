"""Turns the `data` section of a study into arrays on disk, their facts, and the split that a seed trains on.

It imports nothing but numpy beside the standard library until a data set is read.
"""

from dataclasses import replace
from pathlib import Path

from ablation.code import NO_FOLDERS, CodeFolders, is_code
from ablation.datasets.arrays import Dataset, open_dataset, outline_of
from ablation.datasets.cache import Source, kept_dataset, prepare_source, recorded_dataset
from ablation.datasets.channels import channel_statistics
from ablation.datasets.cifar10 import Cifar10
from ablation.datasets.digits import Digits
from ablation.datasets.images import Images, Size
from ablation.datasets.own import Own, own_arguments
from ablation.datasets.places import find_root, remark_on_root
from ablation.datasets.splits import Division, Split, SplitSizes, check_augmentation, make_split, split_sizes
from ablation.records import DataOutline, DataSettings, Replicates

__all__ = [
    "Dataset",
    "Split",
    "SplitSizes",
    "channel_statistics",
    "check_augmentation",
    "describe",
    "kept_dataset",
    "make_split",
    "open_dataset",
    "outline_of",
    "prepare",
    "remark_on_root",
    "split_sizes",
]


def describe(
    settings: DataSettings,
    *,
    cache: Path,
    code: CodeFolders = NO_FOLDERS,
    study_seed: int = 0,
    replicates: Replicates | None = None,
    has_targets: bool = False,
) -> DataOutline:
    """Return a data set's shape and size without preparing it, with digests of its targets where these are asked for.

    `images` looks at its files' names and headers, the user's own function is called, unless it was prepared before.

    Raises DataUnavailable where the root is not there, DataInvalid where it holds no classes of images or the function
    returns something else, CodeInvalid where that cannot be called.
    """
    division = Division(test=settings.test, replicates=replicates, study_seed=study_seed)
    source = _source(settings, cache=cache, code=code, division=division)
    recorded = recorded_dataset(source, cache=cache) if isinstance(source, Images | Own) else None
    outline = source.outline() if recorded is None else outline_of(recorded, has_targets=has_targets)
    check_augmentation(outline.shape, settings, source=source.where)
    return outline if has_targets else replace(outline, train_targets="", test_targets="")


def prepare(
    settings: DataSettings,
    *,
    cache: Path,
    code: CodeFolders = NO_FOLDERS,
    study_seed: int = 0,
    replicates: Replicates | None = None,
) -> Dataset:
    """Return a data set from the cache, its digest verified, or read it once from its source.

    Where it has no test split, `settings.test` of its examples are drawn as one by the study's seed; of `replicates`
    every fold is drawn to see that it can be, and their sizes are among the facts.

    However many processes ask at once, one of them reads; a damaged cache is made again. Raises DataUnavailable where
    the source is not there or the cache cannot be written, DataInvalid where the source is not what it should be,
    CodeInvalid where the user's own function cannot be called.
    """
    division = Division(test=settings.test, replicates=replicates, study_seed=study_seed)
    source = _source(settings, cache=cache, code=code, division=division)
    dataset = prepare_source(source, cache=cache.resolve())
    check_augmentation(dataset.facts.shape, settings, source=source.where)
    return dataset if replicates is None else _with_fold_sizes(dataset, settings, study_seed, replicates)


def _with_fold_sizes(dataset: Dataset, settings: DataSettings, study_seed: int, replicates: Replicates) -> Dataset:
    splits = (
        make_split(dataset, settings, study_seed=study_seed, seed=seed, replicates=replicates)
        for seed in range(replicates.count)
    )
    sizes = tuple((len(split.train), len(split.test)) for split in splits if split.test is not None)
    return replace(dataset, facts=replace(dataset.facts, fold_sizes=sizes))


def _source(settings: DataSettings, *, cache: Path, code: CodeFolders, division: Division) -> Source:
    place = find_root(settings.root, code.folders) if settings.root is not None else None
    match settings.name:
        case "digits":
            return Digits()
        case "cifar10":
            return Cifar10(root=place or cache.resolve() / "downloads")
        case "images":
            assert place is not None  # the section requires it
            return Images(root=place, size=_size(settings.size), division=division)
        case name if is_code(name):
            return Own(
                code_name=name,
                arguments=own_arguments(settings, place=place),
                code=code,
                task=settings.task,
                ignore_index=settings.ignore_index,
                division=division,
            )
        case name:
            raise ValueError(f"no data set is called {name!r}; there are digits, cifar10 and images")


def _size(size: int | Size | None) -> Size | None:
    """Return a height and width; one number stands for both."""
    return (size, size) if isinstance(size, int) else size
