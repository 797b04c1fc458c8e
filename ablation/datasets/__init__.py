"""Turns the `data` section of a study into uint8 arrays on disk, their facts, and the split that a seed trains on.

It imports nothing but numpy beside the standard library until a data set is read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation.datasets.arrays import Dataset, open_dataset
from ablation.datasets.cache import Source, prepare_source, recorded_facts
from ablation.datasets.channels import channel_statistics
from ablation.datasets.cifar10 import Cifar10
from ablation.datasets.digits import Digits
from ablation.datasets.images import Images
from ablation.datasets.splits import Split, make_split
from ablation.results import DataOutline

__all__ = ["Dataset", "Split", "channel_statistics", "describe", "make_split", "open_dataset", "prepare"]


def describe(settings: Mapping[str, Any], *, cache: Path) -> DataOutline:
    """Return a data set's shape and size without preparing it: only `images` looks at its files' names and a header.

    Raises DataUnavailable where the root is not there, DataInvalid where it holds no classes of images.
    """
    source = _source(settings, cache=cache)
    if not isinstance(source, Images):
        return source.outline()
    facts = recorded_facts(source, cache=cache)
    if facts is None:
        return source.outline()
    return DataOutline(shape=facts.shape, train_images=facts.train_images, test_images=facts.test_images)


def prepare(settings: Mapping[str, Any], *, cache: Path) -> Dataset:
    """Return a data set from the cache, its digest verified, or read it once from its source.

    However many processes ask at once, one of them reads; a damaged cache is made again. Raises DataUnavailable where
    the source is not there or the cache cannot be written, DataInvalid where the source is not what it should be.
    """
    return prepare_source(_source(settings, cache=cache), cache=cache.resolve())


def _source(settings: Mapping[str, Any], *, cache: Path) -> Source:
    root = settings.get("root")
    match settings["name"]:
        case "digits":
            return Digits()
        case "cifar10":
            return Cifar10(root=Path(root).expanduser().resolve() if root else cache.resolve() / "downloads")
        case "images":
            return Images(root=Path(settings["root"]).expanduser().resolve())
        case name:
            raise ValueError(f"no data set is called {name!r}; there are digits, cifar10 and images")
