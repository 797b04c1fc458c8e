"""Gives CIFAR-10 with its original pixels: what torchvision finds intact in a folder, or downloads into it."""

import contextlib
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np

from ablation.datasets.arrays import write_arrays
from ablation.datasets.cache import Written
from ablation.errors import DataUnavailable
from ablation.records import DataOutline, DataShape

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE = 32
SILENCE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cifar10:
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, RGB.

    `root` holds, or shall hold, the folder `cifar-10-batches-py` or the archive `cifar-10-python.tar.gz`.
    """

    root: Path

    @property
    def name(self) -> str:
        return "cifar10"

    @property
    def where(self) -> str:
        return f"CIFAR-10 in {self.root}"

    def key(self) -> str:
        # torchvision accepts files with known MD5 sums only, so the content is the same wherever they lie.
        return "cifar10 1"

    def outline(self) -> DataOutline:
        shape = DataShape(channels=3, height=SIDE, width=SIDE, classes=CLASSES)
        return DataOutline(shape=shape, train_images=50_000, test_images=10_000)

    def write(self, folder: Path) -> Written:
        from torchvision.datasets import CIFAR10

        with _quiet():
            try:
                splits = {
                    split: CIFAR10(self.root, train=split == "train", download=True) for split in ("train", "test")
                }
            except (OSError, RuntimeError, HTTPException) as error:
                raise self._unavailable(error) from error
        for split, data in splits.items():
            labels = np.asarray(data.targets, dtype=np.int64)
            write_arrays(folder, {f"{split}_images": np.ascontiguousarray(data.data), f"{split}_labels": labels})
        return Written(classes=CLASSES)

    def _unavailable(self, error: Exception) -> DataUnavailable:
        return DataUnavailable(
            f"CIFAR-10 is not in {self.root} and could not be downloaded there: {error}.\n"
            "Put its folder cifar-10-batches-py or its archive cifar-10-python.tar.gz there; or say where it is with "
            "--set data.root=FOLDER; or train on a folder of images with --set data.name=images; or run the study of "
            "the digits, which needs no download."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torchvision off standard output, and give up on a server that is silent for SILENCE_S seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            # The batches hold dtypes as an old numpy pickled them; numpy 2.4 may warn of these.
            warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
            yield
    finally:
        socket.setdefaulttimeout(before)
