"""Trains one run as a script does that is written for it: the other side of `benchmarks.whole_study`.

    python -m benchmarks.conventional_script --data FOLDER --depth 3 --norm batch --seed 0 --epochs 2

A DataLoader with worker processes and torchvision's transforms, NCHW, Adam; the loss is read and logged to MLflow at
each step, and the test split is evaluated after each epoch.
"""

import argparse
from pathlib import Path

import mlflow
import torch
from torch import nn
from torch.utils.data import DataLoader

from ablation.records import DataShape
from benchmarks.arrays import CLASSES, SIZE, read_split
from benchmarks.case import LEARNING_RATE, MODEL
from benchmarks.loader_loop import ImagesInMemory, transforms
from benchmarks.plain_model import plain_model

EXPERIMENT = "conventional"


def main() -> None:
    options = parse_options()
    torch.manual_seed(options.seed)
    loaders = {split: make_loader(split, options) for split in ("train", "test")}
    model = make_model(options)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    mlflow.set_experiment(EXPERIMENT)
    with mlflow.start_run(run_name=f"depth={options.depth},norm={options.norm},seed={options.seed}"):
        mlflow.log_params({name: getattr(options, name) for name in ("depth", "norm", "seed", "epochs")})
        step = 0
        for epoch in range(options.epochs):
            step = train_epoch(model, optimizer, loaders["train"], step=step)
            mlflow.log_metric("test_accuracy", test_accuracy(model, loaders["test"]), step=epoch)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of arrays")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--norm", choices=("none", "batch"), default="none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--loader-workers", type=int, default=2)
    return parser.parse_args()


def make_loader(split: str, options: argparse.Namespace) -> DataLoader:
    train_images, _ = read_split(options.data, "train")
    images, labels = read_split(options.data, split)
    transform = transforms(
        (SIZE[0], SIZE[1]),
        mean=train_images.mean(axis=(0, 1, 2)),
        deviation=train_images.std(axis=(0, 1, 2)),
        augmentation="crop-flip" if split == "train" else "none",
    )
    return DataLoader(
        ImagesInMemory(images, labels, transform),
        batch_size=options.batch_size,
        shuffle=split == "train",
        num_workers=options.loader_workers,
    )


def make_model(options: argparse.Namespace) -> nn.Module:
    height, width, channels = SIZE
    shape = DataShape(channels=channels, height=height, width=width, classes=tuple(map(str, range(CLASSES))))
    return plain_model({**MODEL, "depth": options.depth, "normalization": options.norm}, shape, seed=options.seed)


def train_epoch(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, *, step: int) -> int:
    """Train on all batches and return the number of steps so far."""
    criterion = nn.CrossEntropyLoss()
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        mlflow.log_metric("train_loss", loss.item(), step=step)
        step += 1
    return step


@torch.no_grad()
def test_accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    correct, seen = 0, 0
    for images, labels in loader:
        correct += (model(images).argmax(1) == labels).sum().item()
        seen += len(labels)
    return correct / seen


if __name__ == "__main__":
    main()
