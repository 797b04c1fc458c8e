"""Measures the mean and standard deviation that a run's images are standardized with."""

import math

import numpy as np
from numpy.typing import NDArray

CHUNK_PIXELS = 1 << 22


def channel_statistics(
    images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and (population) standard deviation per channel, in units of 0..255, of the images at `indices`.

    Both come from integer counts, so they are exact whatever the order; a constant channel has deviation 1.
    """
    counts = _value_counts(images, indices)
    moments = [_moments([int(count) for count in channel]) for channel in counts]
    means, deviations = zip(*moments, strict=True)
    return np.asarray(means, dtype=np.float32), np.asarray(deviations, dtype=np.float32)


def _value_counts(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often each value occurs, int64 (C, 256), a few images at a time."""
    _, height, width, channels = images.shape
    counts = np.zeros((channels, 256), dtype=np.int64)
    step = max(1, CHUNK_PIXELS // (height * width * channels))
    for start in range(0, len(indices), step):
        chunk = images[indices[start : start + step]]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    return counts


def _moments(counts: list[int]) -> tuple[float, float]:
    total = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    squared = total * second - first * first  # total² times the variance
    return first / total, math.sqrt(squared) / total if squared > 0 else 1.0
