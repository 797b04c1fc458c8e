"""Puts a run's data on its device: a prepared data set, split for the seed and measured, or a made-up one."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ablation.datasets import Dataset, Split, channel_statistics, make_split, open_dataset
from ablation.records import DataSettings, DataShape, Replicates, TaskName
from ablation.training import TrainingData

Statistics = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Mean and deviation per channel; of no channels where there are features."""


def run_data(
    folder: Path,
    settings: DataSettings,
    *,
    study_seed: int,
    seed: int,
    replicates: Replicates | None = None,
    device: torch.device,
    layout: torch.memory_format,
) -> tuple[TrainingData, DataShape]:
    """Return the data that a seed's runs are trained on, and its shape; with `replicates` the seed is a fold."""
    dataset, split, statistics = _cached_data(folder, settings.limit, settings.validation, study_seed, seed, replicates)
    data = _on_device(dataset, split, statistics, device, layout=layout)
    return with_scale(data, dataset.facts.shape, settings), dataset.facts.shape


def with_scale(data: TrainingData, shape: DataShape, settings: DataSettings) -> TrainingData:
    """Return the data with what a regression's targets are standardized by, unless its study wants them as they are."""
    if shape.task != "regression" or settings.target_scaling == "none":
        return data
    return dataclasses.replace(data, scale=scale_of(data.labels[data.train]))


def scale_of(targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and (population) deviation of targets (N, …), computed in double precision, float32 (…).

    A constant target has deviation 1.
    """
    exact = targets.cpu().numpy().astype(np.float64)
    mean, deviation = exact.mean(axis=0), exact.std(axis=0)
    whole = np.where((exact == exact[:1]).all(axis=0), 1.0, deviation)
    # What underflows in float32 is no deviation that anything could be divided by.
    safe = np.where(whole.astype(np.float32) > 0, whole, 1.0)
    both = [torch.from_numpy(np.asarray(values, dtype=np.float32)).to(targets.device) for values in (mean, safe)]
    return both[0], both[1]


def made_up_data(shape: DataShape, count: int, device: torch.device, *, layout: torch.memory_format) -> TrainingData:
    """Make a data set up, of which `count` are trained on, for timing."""
    if shape.vocabulary:
        images = torch.randint(0, shape.vocabulary, (count, *shape.features), dtype=torch.int32, device=device)
    elif shape.features:
        images = torch.randn((count, *shape.features), device=device)
    else:
        size = (count, shape.height, shape.width, shape.channels)
        images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = MADE_UP_TARGETS[shape.task](count, shape).to(device)
    few = torch.arange(2, device=device)
    return TrainingData(
        images=images,
        labels=labels,
        train=torch.arange(count, device=device),
        validation=None,
        sample=few,
        test_images=images[:2],
        test_labels=labels[:2],
        mean=torch.full((shape.channels,), 128.0, device=device),
        deviation=torch.full((shape.channels,), 64.0, device=device),
        layout=layout,
    )


def _classes_of(count: int, shape: DataShape) -> torch.Tensor:
    numbers = torch.arange(count * math.prod(shape.target_shape)) % len(shape.classes)
    return numbers.view(count, *shape.target_shape)


MADE_UP_TARGETS: Mapping[TaskName, Callable[[int, DataShape], torch.Tensor]] = {
    "classification": _classes_of,
    "regression": lambda count, shape: torch.randn((count, *shape.target_shape)),
    "multilabel": lambda count, shape: torch.randint(0, 2, (count, *shape.target_shape), dtype=torch.uint8),
    "tokens": lambda count, shape: _classes_of(count, shape).int(),
    "segmentation": lambda count, shape: _classes_of(count, shape).int(),
}
"""Targets for so many made-up inputs, as prepared data has them, by task."""


def first_batch(
    dataset: Dataset, settings: DataSettings, batch_size: int, *, layout: torch.memory_format
) -> TrainingData:
    """Return a data set's first examples, as many as a batch, to train on and to evaluate, on the CPU."""
    few = np.arange(min(batch_size, len(dataset.train_labels)))
    is_undivided = not len(dataset.test_labels)
    split = Split(train=few, validation=None, sample=few[:2], test=few[:2] if is_undivided else None)
    statistics = _statistics(dataset, split)
    whole = _on_device(dataset, split, statistics, torch.device("cpu"), layout=layout)
    whole = with_scale(whole, dataset.facts.shape, settings)
    if is_undivided:
        return whole
    return dataclasses.replace(whole, test_images=whole.test_images[:2], test_labels=whole.test_labels[:2])


@functools.lru_cache(maxsize=4)
def _cached_data(
    folder: Path,
    limit: int | None,
    validation: float | Literal["none"],
    study_seed: int,
    seed: int,
    replicates: Replicates | None,
) -> tuple[Dataset, Split, Statistics]:
    """Open a data set, split it and measure it once per worker, as a seed's runs follow one another."""
    dataset = open_dataset(folder)
    drawn = DataSettings(name=dataset.facts.name, limit=limit, validation=validation)
    split = make_split(dataset, drawn, study_seed=study_seed, seed=seed, replicates=replicates)
    return dataset, split, _statistics(dataset, split)


def _statistics(dataset: Dataset, split: Split) -> Statistics:
    if dataset.facts.shape.features:
        return np.zeros(0, dtype=np.float32), np.ones(0, dtype=np.float32)
    return channel_statistics(dataset.train_images, split.train)


def _on_device(
    dataset: Dataset,
    split: Split,
    statistics: Statistics,
    device: torch.device,
    *,
    layout: torch.memory_format,
) -> TrainingData:
    """Put the data on the device; on a CPU it stays the one memory-mapped copy that all workers share."""

    images, labels, test_images, test_labels = _arrays_on(device, dataset.folder)
    mean, deviation = (_tensor(values, device) for values in statistics)
    test = _tensor(split.test, device) if split.test is not None else None
    if test is not None:
        test_images, test_labels = images, labels[test]
    return TrainingData(
        images=images,
        labels=labels,
        train=_tensor(split.train, device),
        validation=_tensor(split.validation, device) if split.validation is not None else None,
        sample=_tensor(split.sample, device),
        test_images=test_images,
        test_labels=test_labels,
        mean=mean,
        deviation=deviation,
        layout=layout,
        test=test,
    )


@functools.lru_cache(maxsize=1)
def _arrays_on(device: torch.device, folder: Path) -> tuple[torch.Tensor, ...]:
    """Return a data set's four arrays on a device: one copy for all runs of a worker, as nothing writes to them."""
    dataset = open_dataset(folder)
    arrays = (dataset.train_images, dataset.train_labels, dataset.test_images, dataset.test_labels)
    return tuple(_tensor(array, device) for array in arrays)


def _tensor(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
        return torch.from_numpy(array).to(device)
