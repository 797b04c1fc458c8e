"""What the parts of the GPU benchmark train: the course assignment's network, on made-up images, and how much of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ablation.executors.cores import available_cores
from ablation.models import build_model
from ablation.records import DataShape, ModelSettings, Precision
from ablation.training import Member, TrainingData, TrainingSettings
from benchmarks.case import LEARNING_RATE, MODEL, TrainingCase

CLASSES = 10
MOST_LOADER_WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    `steps` are those of a turn, `warm_up` the turns before the counted ones; `fused` says how many runs are trained
    together, the most last; `convolved` how many images of a run a convolution is timed with, `shrunk` by what its
    images are smaller than CIFAR-10's.
    """

    batch_size: int
    steps: int
    turns: int
    warm_up: int
    fused: tuple[int, ...]
    seeds: int
    epochs: int
    images: int
    product_side: int
    copied_bytes: int
    repeats: int
    convolved: int
    shrunk: int


MEASURED = Sizes(
    batch_size=64,
    steps=200,
    turns=3,
    warm_up=2,
    fused=(8, 32),
    seeds=10,
    epochs=8,
    images=10_000,
    product_side=8192,
    copied_bytes=1 << 30,
    repeats=10,
    convolved=64,
    shrunk=1,
)
TRIED = Sizes(
    batch_size=8,
    steps=2,
    turns=1,
    warm_up=2,
    fused=(2,),
    seeds=2,
    epochs=1,
    images=40,
    product_side=64,
    copied_bytes=1 << 16,
    repeats=2,
    convolved=2,
    shrunk=4,
)


def member(
    seed: int,
    device: torch.device,
    sizes: Sizes,
    *,
    data: TrainingData | None = None,
    model: Mapping[str, Any] = MODEL,
    **settings: Any,
) -> Member:
    """Return a run of the course assignment's network with crop and flip."""
    data = data or random_data(device, sizes)
    torch.manual_seed(seed)
    _, height, width, channels = data.images.shape
    shape = DataShape(channels=channels, height=height, width=width, classes=tuple(map(str, range(CLASSES))))
    chosen: dict[str, Any] = {
        "epochs": sizes.turns + sizes.warm_up,
        "batch_size": sizes.batch_size,
        "optimizer": "adam",
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "epoch_choice": "last",
        "augmentation": "crop-flip",
        **settings,
    }
    built = build_model(ModelSettings.from_plain(model), shape).to(device)
    return Member(model=built, data=data, settings=TrainingSettings(**chosen), seed=seed)


def random_data(device: torch.device, sizes: Sizes) -> TrainingData:
    random = np.random.default_rng(0)
    count = sizes.steps * sizes.batch_size
    images = random.integers(0, 256, (max(count, sizes.images), 32, 32, 3), dtype=np.uint8)
    return _data(images, random.integers(0, CLASSES, len(images)), device, train=count, test=sizes.images)


def pattern_data(device: torch.device, sizes: Sizes) -> TrainingData:
    """Return images of faint patterns, one per class, so that runs come to accuracies between chance and 100 %."""
    random = np.random.default_rng(1)
    patterns = random.normal(0, 1, (CLASSES, 32, 32, 3))
    labels = random.integers(0, CLASSES, 2 * sizes.images)
    noisy = 128 + 8 * patterns[labels] + random.normal(0, 60, (len(labels), 32, 32, 3))
    return _data(noisy.clip(0, 255).astype(np.uint8), labels, device, train=sizes.images, test=sizes.images)


def case_of(device: torch.device, sizes: Sizes, precision: Precision) -> TrainingCase:
    """Return what the conventional loop is given: as much, of the same."""
    random = np.random.default_rng(0)
    count = (sizes.steps + 8) * sizes.batch_size
    return TrainingCase(
        images=random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=random.integers(0, CLASSES, count),
        classes=CLASSES,
        model=MODEL,
        optimizer="adam",
        augmentation="crop-flip",
        batch_size=sizes.batch_size,
        steps=sizes.steps,
        threads=torch.get_num_threads(),
        device=device,
        loader_workers=max(1, min(MOST_LOADER_WORKERS, available_cores() - 1)),  # what starves is no comparison
        loader_start="fork",
        precision=precision,
        pins_memory=sizes != TRIED,  # a device that is only simulated cannot
    )


def _data(images: np.ndarray, labels: np.ndarray, device: torch.device, *, train: int, test: int) -> TrainingData:
    on_device = torch.from_numpy(images).to(device)
    truth = torch.from_numpy(labels.astype(np.int64)).to(device)
    return TrainingData(
        images=on_device,
        labels=truth,
        train=torch.arange(train, device=device),
        validation=None,
        sample=torch.arange(min(2000, train), device=device),
        test_images=on_device[-test:],
        test_labels=truth[-test:],
        mean=torch.full((3,), 128.0, device=device),
        deviation=torch.full((3,), 64.0, device=device),
    )
