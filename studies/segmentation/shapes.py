"""A small U-Net, and what it is to find: discs, squares and crosses in noise, drawn with a seed."""

from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES = ["background", "disc", "square", "cross"]


def load(train_images, test_images, size, noise):
    """Return gray images uint8 (N, size, size) and the class of each pixel (N, size, size)."""
    random = np.random.default_rng(0)
    splits = {"train": train_images, "test": test_images}
    return {**{split: draw(count, size, noise, random) for split, count in splits.items()}, "classes": CLASSES}


def draw(count, size, noise, random):
    rows, columns = np.mgrid[:size, :size]
    targets = np.zeros((count, size, size), dtype=np.int64)
    for target in targets:
        for _ in range(2):  # later ones lie on top
            kind, radius = random.integers(1, len(CLASSES)), random.integers(size // 8, size // 4)
            down, right = np.abs([rows, columns] - random.integers(0, size, (2, 1, 1)))
            inside = {
                "disc": down**2 + right**2 <= radius**2,
                "square": np.maximum(down, right) <= 0.9 * radius,
                "cross": (np.minimum(down, right) <= radius / 3) & (np.maximum(down, right) <= radius),
            }
            target[inside[CLASSES[kind]]] = kind
    lightness = 96 + 64 * (targets > 0)  # the same for all shapes: form alone tells them apart
    images = random.normal(lightness, noise).clip(0, 255).astype(np.uint8)
    return images, targets


def build(width, depth, skip, normalization, data_shape):
    return UNet(data_shape.channels, len(data_shape.classes), width, depth, skip, normalization)


def convolutions(inputs, outputs, normalization):
    norms = {"batch": lambda: nn.BatchNorm2d(outputs), "none": nn.Identity}
    layers = []
    for features in (inputs, outputs):
        layers += [nn.Conv2d(features, outputs, 3, padding=1), norms[normalization](), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    def __init__(self, channels, classes, width, depth, skip, normalization):
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.skip = skip
        self.first = convolutions(channels, width, normalization)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(convolutions(above, below, normalization) for above, below in pairs)
        self.up = nn.ModuleList(
            convolutions(below + (above if skip else 0), above, normalization) for above, below in reversed(pairs)
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        features, kept = self.first(images), []
        for step in self.down:
            kept.append(features)
            features = step(functional.max_pool2d(features, 2))
        for step in self.up:
            beside, features = kept.pop(), functional.interpolate(features, scale_factor=2)
            features = step(torch.cat([features, beside], dim=1) if self.skip else features)
        return self.head(features)  # (B, classes, H, W)
