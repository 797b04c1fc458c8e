"""Times our training loop beside a conventional and a careful PyTorch loop: images per second on equal cores.

    python -m benchmarks.training_loop --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. All loops
train the same network on the same images with the same batch size, threads and device, at the same precision:

- `ours`: `ablation.training.train` as a run calls it, its own `seconds` taken for each epoch.
- `conventional`: a DataLoader with worker processes (beside the threads of the loop) and torchvision's v2 transforms,
  NCHW, conv → ReLU → pool, plain Adam, loss and accuracy by `.item()` each step. Timed while its workers run, from
  and to full queues, so that their start costs it nothing.
- `careful`: written by hand: standardized float tensors in memory, channels-last, fused Adam, nothing read back inside
  the loop; augmentation by slicing padded images.
- `fixed batch`: our step on one batch, over and over: what is left of `ours` without shuffling and augmentation.

Each loop has a process of its own, so that none gets the memory that another has made ready (the fixed batch shares
that of `ours`, whose floor it is). They are run in turn, again and again; a ratio is taken within each turn, so that
what else a machine does meanwhile touches all loops alike, and its median and range over the turns are shown.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ablation.models import build_model
from ablation.results import DataShape
from ablation.training import TrainingData, TrainingSettings, train

PADDING = 4
EXTRA_BATCHES = 8
MODEL = {
    "depth": 3,
    "width": 32,
    "kernel": 3,
    "dense": (128, 64),
    "normalization_placement": "after",
    "groups": 8,
    "dropout": 0.0,
    "activation": "relu",
}
LEARNING_RATE = 1e-3

Turns = Iterator[float]
"""Each `next` runs one turn of a loop and gives its seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What every loop is given; `images` uint8 (N, H, W, C) and `labels` (N,) on the CPU."""

    images: np.ndarray
    labels: np.ndarray
    classes: int
    is_augmented: bool
    normalization: str
    batch_size: int
    steps: int
    loader_workers: int
    loader_start: str
    threads: int
    device: torch.device

    @property
    def shape(self) -> DataShape:
        _, height, width, channels = self.images.shape
        return DataShape(channels=channels, height=height, width=width, classes=tuple(map(str, range(self.classes))))

    @property
    def mean(self) -> np.ndarray:
        return self.images.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)  # 0..255

    @property
    def deviation(self) -> np.ndarray:
        return self.images.std(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)


def main() -> None:
    options = parse_options()
    images, labels = load_images(options.data, steps=options.steps, batch_size=options.batch_size)
    results = []
    print(json.dumps(environment(options), indent=1))
    for is_augmented in {"none": [False], "crop-flip": [True], "both": [False, True]}[options.augmentation]:
        case = Case(
            images=images,
            labels=labels,
            classes=int(labels.max()) + 1,
            is_augmented=is_augmented,
            normalization=options.normalization,
            batch_size=options.batch_size,
            steps=options.steps,
            loader_workers=options.loader_workers,
            loader_start=multiprocessing.get_start_method(),
            threads=options.threads,
            device=torch.device(options.device),
        )
        seconds = run_in_turn(case, turns=options.turns, warm_up=options.warm_up)
        result = summarize(case, seconds)
        print_result(result)
        results.append(result)
    if options.output is not None:
        write(options.output, {"environment": environment(options), "results": results})


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of every loop")
    parser.add_argument("--loader-workers", type=int, default=2, help="processes of the conventional loop's loader")
    parser.add_argument("--augmentation", choices=("none", "crop-flip", "both"), default="both")
    parser.add_argument("--normalization", choices=("none", "batch"), default="none")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="training steps of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that are not counted")
    parser.add_argument("--data", type=Path, help="folder of train_images.npy (uint8 N, H, W, C) and train_labels.npy")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def load_images(folder: Path | None, *, steps: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images (N, H, W, C) and int64 labels (N,), enough for a turn and for the loader to run ahead."""
    count = (steps + EXTRA_BATCHES) * batch_size
    if folder is None:
        random = np.random.default_rng(0)
        return random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.integers(0, 10, count)
    images, labels = np.load(folder / "train_images.npy"), np.load(folder / "train_labels.npy")
    if len(images) < count:
        raise SystemExit(f"{folder} has {len(images)} training images; {steps} steps need {count}")
    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    return images[chosen], labels[chosen].astype(np.int64)


def run_in_turn(case: Case, *, turns: int, warm_up: int) -> dict[str, list[float]]:
    """Return the seconds of each counted turn, by loop."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, list[float]] = {name: [] for names in PROCESSES for name in names}
    ends: dict[str, Connection] = {}
    processes = []
    for names in PROCESSES:
        here, there = context.Pipe()
        ends |= dict.fromkeys(names, here)
        processes.append(context.Process(target=serve, args=(there, case, names, turns + warm_up)))
        processes[-1].start()
    for turn in range(turns + warm_up):
        for name, end in ends.items():
            end.send(name)
            spent = end.recv()
            if turn >= warm_up:
                seconds[name].append(spent)
    for process in processes:
        process.join()
    return seconds


def serve(requests: Connection, case: Case, names: tuple[str, ...], turns: int) -> None:
    """Run a turn of the loop that is asked for and answer its seconds, until all turns are run."""
    torch.set_num_threads(case.threads)
    if case.device.type == "cuda":
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # as `ablation` sets it; the same for all loops
    running = {name: LOOPS[name](case, turns=turns) for name in names}
    for _ in range(turns * len(names)):
        requests.send(next(running[requests.recv()]))


def ours(case: Case, *, turns: int) -> Turns:
    torch.manual_seed(0)
    model = build_model({**MODEL, "normalization": case.normalization}, case.shape).to(case.device)
    settings = TrainingSettings(
        epochs=turns,
        batch_size=case.batch_size,
        optimizer="adam",
        learning_rate=LEARNING_RATE,
        schedule="constant",
        momentum=0.9,
        weight_decay=0.0,
        epoch_choice="last",
        augmentation="crop-flip" if case.is_augmented else "none",
    )
    for metrics in train(model, training_data(case), settings, study_seed=0, seed=0):
        yield metrics.seconds


def training_data(case: Case) -> TrainingData:
    images = torch.from_numpy(case.images).to(case.device)
    labels = torch.from_numpy(case.labels).to(case.device)
    few = torch.arange(2, device=case.device)
    return TrainingData(
        images=images,
        labels=labels,
        train=torch.arange(case.steps * case.batch_size, device=case.device),
        validation=None,
        sample=few,
        test_images=images[:2],
        test_labels=labels[:2],
        mean=torch.from_numpy(case.mean).to(case.device),
        deviation=torch.from_numpy(case.deviation).to(case.device),
    )


def conventional(case: Case, *, turns: int) -> Turns:
    model = plain_model(case).to(case.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(
        ImagesInMemory(case.images, case.labels, transforms(case)),
        batch_size=case.batch_size,
        shuffle=True,
        num_workers=case.loader_workers,
        # The platform's default must be said: in a spawned process it would be spawn, and importing would be timed.
        multiprocessing_context=case.loader_start if case.loader_workers else None,
        pin_memory=case.device.type == "cuda",
    )
    for _ in range(turns):
        model.train()
        total_loss, correct, seen = 0.0, 0, 0
        begun = 0.0
        for step, (images, labels) in enumerate(loader, start=1 - EXTRA_BATCHES // 2):
            images, labels = images.to(case.device, non_blocking=True), labels.to(case.device, non_blocking=True)
            optimizer.zero_grad()
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
        yield time.perf_counter() - begun


class ImagesInMemory(Dataset):
    """What torchvision.datasets.CIFAR10 does for an item: a PIL image of an array, transformed."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Callable[[Image.Image], Tensor]) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].squeeze())), int(self.labels[index])


def transforms(case: Case) -> v2.Compose:
    _, height, width, _ = case.images.shape
    augmentation = [v2.RandomCrop((height, width), padding=PADDING), v2.RandomHorizontalFlip()]
    return v2.Compose(
        [
            v2.ToImage(),
            *(augmentation if case.is_augmented else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=(case.mean / 255).tolist(), std=(case.deviation / 255).tolist()),
        ]
    )


def careful(case: Case, *, turns: int) -> Turns:
    model = plain_model(case).to(case.device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    count = case.steps * case.batch_size
    images = torch.from_numpy((case.images[:count] - case.mean) / case.deviation).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=torch.channels_last).to(case.device)
    labels = torch.from_numpy(case.labels[:count]).to(case.device)
    for _ in range(turns):
        begun = time.perf_counter()
        sums = torch.zeros(2, device=case.device)
        model.train()
        for indices in torch.randperm(count).to(case.device).split(case.batch_size):
            batch, truth = images[indices], labels[indices]
            if case.is_augmented:
                batch = sliced_and_flipped(batch)
            train_step(model, optimizer, batch, truth, sums)
        sums.tolist()
        yield time.perf_counter() - begun


def sliced_and_flipped(batch: Tensor) -> Tensor:
    """Crop each image (B, C, H, W) at a place of its own from the padded batch, and mirror half of them."""
    count, _, height, width = batch.shape
    padded = functional.pad(batch, (PADDING,) * 4)
    corners = torch.randint(0, 2 * PADDING + 1, (count, 2)).tolist()
    moved = torch.empty_like(batch)
    for image, (top, left) in enumerate(corners):
        moved[image] = padded[image, :, top : top + height, left : left + width]
    mirrored = (torch.rand(count, 1, 1, 1) < 0.5).to(batch.device)
    return torch.where(mirrored, moved.flip(3), moved)


def fixed_batch(case: Case, *, turns: int) -> Turns:
    torch.manual_seed(0)
    model = build_model({**MODEL, "normalization": case.normalization}, case.shape)
    model = model.to(case.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    images = torch.randn(case.batch_size, *case.images.shape[1:], device=case.device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(case.labels[: case.batch_size]).to(case.device)
    for _ in range(turns):
        begun = time.perf_counter()
        sums = torch.zeros(2, device=case.device)
        for _ in range(case.steps):
            train_step(model, optimizer, images, labels, sums)
        sums.tolist()
        yield time.perf_counter() - begun


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, sums: Tensor
) -> None:
    """Take one step, and add the batch's loss and its right answers to `sums` (2,)."""
    logits = model(images)
    loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    sums[0] += loss.detach() * len(labels)
    sums[1] += (logits.detach().argmax(1) == labels).sum()


def plain_model(case: Case) -> nn.Sequential:
    """Build the network as it is usually written: conv, ReLU, normalization (as in the assignment), pool."""
    torch.manual_seed(0)
    is_normalized = case.normalization == "batch"
    _, height, width, channels = case.images.shape
    layers: list[nn.Module] = []
    for outputs in (32, 64, 128):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.ReLU()]
        layers += [nn.BatchNorm2d(outputs)] if is_normalized else []
        layers += [nn.MaxPool2d(2)]
        channels = outputs
    layers.append(nn.Flatten())
    features = channels * (height // 8) * (width // 8)
    for outputs in (128, 64):
        layers += [nn.Linear(features, outputs), nn.ReLU()]
        layers += [nn.BatchNorm1d(outputs)] if is_normalized else []
        features = outputs
    return nn.Sequential(*layers, nn.Linear(features, case.classes))


LOOPS: Mapping[str, Callable[..., Turns]] = {
    "ours": ours,
    "conventional": conventional,
    "careful": careful,
    "fixed batch": fixed_batch,
}
PROCESSES = (("ours", "fixed batch"), ("conventional",), ("careful",))


def summarize(case: Case, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    images = case.steps * case.batch_size
    rates = {name: [images / turn for turn in turns] for name, turns in seconds.items()}

    def ratio(numerator: str, denominator: str) -> dict[str, float]:
        pairs = [a / b for a, b in zip(rates[numerator], rates[denominator], strict=True)]
        return {"median": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}

    return {
        "augmentation": "crop-flip" if case.is_augmented else "none",
        "normalization": case.normalization,
        "parameters": sum(parameter.numel() for parameter in plain_model(case).parameters()),
        "images_per_second": rates,
        "median_step_ms": {name: 1000 * statistics.median(turns) / case.steps for name, turns in seconds.items()},
        "ratios": {
            "ours / conventional": ratio("ours", "conventional"),
            "ours / careful": ratio("ours", "careful"),
            "ours / fixed batch": ratio("ours", "fixed batch"),
        },
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(
        f"\naugmentation {result['augmentation']}, normalization {result['normalization']}, "
        f"{result['parameters']:,} parameters"
    )
    print(f"{'loop':<14}{'ms/step':>9}{'images/s':>10}{'lowest':>10}{'highest':>10}")
    for name, rates in result["images_per_second"].items():
        step_ms = result["median_step_ms"][name]
        print(f"{name:<14}{step_ms:>9.1f}{statistics.median(rates):>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}")
    for name, ratio in result["ratios"].items():
        print(f"{name}: {ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})")


def environment(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else None,
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
    }


def cpu_model() -> str:
    """Return the processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(folder: Path, record: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.datetime.fromisoformat(record["environment"]["date"]).strftime("%Y-%m-%d-%H%M%S")
    device = record["environment"]["options"]["device"].replace(":", "")
    path = folder / f"training-loop-{moment}-{device}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
