"""Makes arrays of CIFAR-shaped images up, keeps them in a folder, and reads them as a study's own data set."""

from pathlib import Path

import numpy as np

CLASSES = 10
SIZE = (32, 32, 3)
Split = tuple[np.ndarray, np.ndarray]


def load(root: str) -> dict[str, Split]:
    """Return what `data: {name: "benchmarks.arrays:load", root: FOLDER}` of a study file asks for."""
    return {split: read_split(Path(root), split) for split in ("train", "test")}


def read_split(folder: Path, split: str) -> Split:
    """Return images uint8 (N, H, W, C) and labels (N,), mapped into memory."""
    images = np.load(folder / f"{split}_images.npy", mmap_mode="r")
    return images, np.load(folder / f"{split}_labels.npy", mmap_mode="r")


def write_arrays(folder: Path, *, train: int, test: int, source: Path | None = None) -> None:
    """Write so many images of each split into the folder, made up, or drawn from the arrays of another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for split, count in {"train": train, "test": test}.items():
        images, labels = made_up(count, random) if source is None else drawn(source, split, count, random)
        np.save(folder / f"{split}_images.npy", images)
        np.save(folder / f"{split}_labels.npy", labels)


def made_up(count: int, random: np.random.Generator) -> Split:
    return random.integers(0, 256, (count, *SIZE), dtype=np.uint8), np.arange(count) % CLASSES


def drawn(source: Path, split: str, count: int, random: np.random.Generator) -> Split:
    images, labels = read_split(source, split)
    if len(images) < count:
        raise SystemExit(f"{source} has {len(images)} {split} images, and {count} are asked for")
    chosen = np.sort(random.permutation(len(images))[:count])
    return images[chosen], labels[chosen].astype(np.int64)
