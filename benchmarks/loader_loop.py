"""The conventional training loop: a DataLoader with worker processes and torchvision's transforms."""

import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.case import EXTRA_BATCHES, LEARNING_RATE, TrainingCase
from benchmarks.plain_model import plain_model
from benchmarks.turns import Rates

PADDING = 4


class ImagesInMemory(Dataset):
    """What torchvision.datasets.CIFAR10 does for an item: a PIL image of an array, transformed."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].squeeze())), int(self.labels[index])


def transforms(size: tuple[int, int], *, mean: np.ndarray, deviation: np.ndarray, augmentation: str) -> v2.Compose:
    """Return the transforms of images of a size; `mean` and `deviation` are per channel, in units of 0..255."""
    crop, flip = v2.RandomCrop(size, padding=PADDING), v2.RandomHorizontalFlip()
    augmented = {"none": [], "flip": [flip], "crop": [crop], "crop-flip": [crop, flip]}[augmentation]
    return v2.Compose(
        [
            v2.ToImage(),
            *augmented,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=(mean / 255).tolist(), std=(deviation / 255).tolist()),
        ]
    )


def make_loader(case: TrainingCase) -> DataLoader:
    _, height, width, _ = case.images.shape
    transform = transforms((height, width), mean=case.mean, deviation=case.deviation, augmentation=case.augmentation)
    return DataLoader(
        ImagesInMemory(case.images, case.labels, transform),
        batch_size=case.batch_size,
        shuffle=True,
        num_workers=case.loader_workers,
        # The platform's default must be said: in a started process it would be another, and importing would be timed.
        multiprocessing_context=case.loader_start if case.loader_workers else None,
        pin_memory=case.device.type == "cuda" and case.pins_memory,
    )


def conventional(case: TrainingCase, *, turns: int) -> Rates:
    """Train with a loader, plain Adam, loss and accuracy by `.item()` each step; timed from and to full queues."""
    model = plain_model(case.model, case.shape).to(case.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    loader = make_loader(case)
    for _ in range(turns):
        model.train()
        total_loss, correct, seen = 0.0, 0, 0
        begun = 0.0
        for step, (images, labels) in enumerate(loader, start=1 - EXTRA_BATCHES // 2):
            images, labels = images.to(case.device, non_blocking=True), labels.to(case.device, non_blocking=True)
            optimizer.zero_grad()
            with torch.autocast(case.device.type, dtype=torch.bfloat16, enabled=case.precision == "bf16"):
                logits = model(images)
                loss = criterion(logits, labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
            seen += len(labels)
            if step == 0:
                begun = time.perf_counter()
            if step == case.steps:
                break
        yield case.images_per_turn / (time.perf_counter() - begun)
