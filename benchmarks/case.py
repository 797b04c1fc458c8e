"""What the loops of a benchmark are given alike: images, model, optimizer, augmentation, threads, device."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ablation.models import build_model, list_components, summarize_model
from ablation.records import DataShape, ModelSettings, Precision
from ablation.training import set_precision

Optimizer = Literal["adam", "adamw", "sgd"]
Augmentation = Literal["none", "flip", "crop", "crop-flip"]
EXTRA_BATCHES = 8
"""Batches beyond a turn's steps: half before it is timed and half after, with which a loader's workers stay busy."""
MODEL: Mapping[str, Any] = {
    "name": "cnn",
    "depth": 3,
    "width": 32,
    "kernel": 3,
    "dense": (128, 64),
    "normalization": "none",
    "normalization_placement": "after",
    "groups": 8,
    "dropout": 0.0,
    "activation": "relu",
}
"""The course assignment's network; its `model` section, written out."""
LEARNING_RATE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCase:
    """What every loop is given; `images` uint8 (N, H, W, C) and `labels` (N,) on the CPU."""

    images: np.ndarray
    labels: np.ndarray
    classes: int
    model: Mapping[str, Any]
    optimizer: Optimizer
    augmentation: Augmentation
    batch_size: int
    steps: int
    threads: int
    device: torch.device
    loader_workers: int = 0
    loader_start: str | None = None
    precision: Precision = "fp32"
    pins_memory: bool = True

    def set_up(self) -> None:
        torch.set_num_threads(self.threads)
        set_precision(self.precision)  # as `ablation` sets it; the same for all loops

    @property
    def shape(self) -> DataShape:
        _, height, width, channels = self.images.shape
        return DataShape(channels=channels, height=height, width=width, classes=tuple(map(str, range(self.classes))))

    @property
    def images_per_turn(self) -> int:
        return self.steps * self.batch_size

    @property
    def mean(self) -> np.ndarray:
        return self.images.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)  # 0..255

    @property
    def deviation(self) -> np.ndarray:
        return self.images.std(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)


def load_images(folder: Path | None, *, steps: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (N, H, W, C) and int64 labels (N,), enough for a turn and for a loader to run ahead.

    `folder` has train_images.npy (uint8 N, H, W, C) and train_labels.npy; without one they are made up.
    """
    count = (steps + EXTRA_BATCHES) * batch_size
    if folder is None:
        random = np.random.default_rng(0)
        return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, count)
    images, labels = np.load(folder / "train_images.npy"), np.load(folder / "train_labels.npy")
    if len(images) < count:
        raise SystemExit(f"{folder} has {len(images)} training images; {steps} steps need {count}")
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return images[chosen], labels[chosen].astype(np.int64)


def training_flops(case: TrainingCase) -> int:
    """Return the FLOPs that training on one image takes: 3 × forward - forward of the first layer.

    The backward pass is a product for the gradient of the weights and one for that of the input, each as large as the
    forward pass's; the first layer's input needs no gradient. A multiply and an add are two.
    """

    def build() -> torch.nn.Module:
        return build_model(ModelSettings.from_plain(case.model), case.shape)

    summary = summarize_model(build, case.shape)
    first = next(layer.name for layer in summary.layers if layer.parameters)
    flops = {component.name: component.flops for component in list_components(build, case.shape)}
    return 3 * summary.flops - flops[first]
