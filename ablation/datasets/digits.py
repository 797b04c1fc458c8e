"""Gives scikit-learn's handwritten digits, which need no download, as 32x32 images of one channel."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ablation.datasets.arrays import write_arrays
from ablation.datasets.cache import Written
from ablation.records import DataOutline, DataShape

CLASSES = tuple("0123456789")
SIDE = 32
LARGEST_VALUE = 16
TEST_EVERY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """The 1,797 digits of the UCI test set (8x8, values 0..16), enlarged bilinearly.

    Test is every fifth image of each class in the order of the file: 355 images; 1,442 are for training.
    """

    @property
    def name(self) -> str:
        return "digits"

    @property
    def where(self) -> str:
        return "scikit-learn's digits"

    def key(self) -> str:
        return "digits 1"

    def outline(self) -> DataOutline:
        shape = DataShape(channels=1, height=SIDE, width=SIDE, classes=CLASSES)
        return DataOutline(shape=shape, train_images=1442, test_images=355)

    def write(self, folder: Path) -> Written:
        from sklearn.datasets import load_digits

        small, labels = load_digits(return_X_y=True)
        images = np.stack([_enlarged(image.reshape(8, 8)) for image in small])[..., np.newaxis]  # (N, H, W, 1)
        labels = labels.astype(np.int64)
        is_test = _rank_within_class(labels) % TEST_EVERY == TEST_EVERY - 1
        write_arrays(
            folder,
            {
                "train_images": images[~is_test],
                "train_labels": labels[~is_test],
                "test_images": images[is_test],
                "test_labels": labels[is_test],
            },
        )
        return Written(classes=CLASSES)


def _enlarged(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    from PIL import Image

    gray = np.rint(image * (255 / LARGEST_VALUE)).astype(np.uint8)
    return np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images of the same class come before each."""
    ranks = np.empty_like(labels)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        ranks[members] = np.arange(len(members))
    return ranks
