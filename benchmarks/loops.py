"""Training loops on data in memory, ours and written by hand, and their bounds: each gives its rate, turn by turn."""

import time
from collections.abc import Callable, Generator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from ablation.models import build_model, fastest_layout
from ablation.records import EpochMetrics, ModelSettings, Precision
from ablation.training import TrainingData, TrainingResult, TrainingSettings, train
from benchmarks.case import LEARNING_RATE, TrainingCase
from benchmarks.plain_model import plain_model
from benchmarks.turns import Rates

PADDING = 4
MOMENTUM = 0.9
MATRIX_SIDES = (1024, 1536, 2048)
PRODUCTS = 8


def ours(case: TrainingCase, *, turns: int, precision: Precision = "fp32") -> Rates:
    """Train as a run does; the images per second are those that the epochs say themselves."""
    for metrics in our_epochs(case, epochs=turns, precision=precision):
        yield metrics.images_per_second


def our_epochs(
    case: TrainingCase, *, epochs: int, precision: Precision = "fp32"
) -> Generator[EpochMetrics, None, TrainingResult]:
    torch.manual_seed(0)
    model = build_model(ModelSettings.from_plain(case.model), case.shape).to(case.device)
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=case.batch_size,
        optimizer=case.optimizer,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        momentum=MOMENTUM,
        weight_decay=0.0,
        epoch_choice="last",
        augmentation=case.augmentation,
        precision=precision,
    )
    return train(model, _training_data(case), settings, study_seed=0, seed=0)


def eager(case: TrainingCase, *, turns: int) -> Rates:
    """Train as one writes it first, without a loader: standardized images (N, C, H, W) in memory, a plain optimizer."""
    model = plain_model(case.model, case.shape).to(case.device)
    return _rates(case, model, _optimizer(case, model, fused=None), layout=torch.contiguous_format, turns=turns)


def careful(case: TrainingCase, *, turns: int) -> Rates:
    """Train as one who knows writes it: channels-last, with a fused optimizer."""
    model = plain_model(case.model, case.shape).to(case.device, memory_format=torch.channels_last)
    return _rates(case, model, _optimizer(case, model, fused=True), layout=torch.channels_last, turns=turns)


def fixed_batch(case: TrainingCase, *, turns: int) -> Rates:
    """Take our step on one batch, over and over."""
    torch.manual_seed(0)
    model = (
        build_model(ModelSettings.from_plain(case.model), case.shape)
        .to(case.device, memory_format=torch.channels_last)
        .train()
    )
    optimizer = _optimizer(case, model, fused=True)
    images = torch.randn(case.batch_size, *case.images.shape[1:], device=case.device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(case.labels[: case.batch_size]).to(case.device)
    for _ in range(turns):
        begun = time.perf_counter()
        sums = torch.zeros(2, device=case.device)
        for _ in range(case.steps):
            _train_step(model, optimizer, images, labels, sums)
        sums.tolist()
        yield case.images_per_turn / (time.perf_counter() - begun)


def matrix_product(case: TrainingCase, *, turns: int) -> Rates:
    """Multiply square float32 matrices, and give the FLOP per second of the size that is fastest in the turn.

    It is what the machine sustains, as the loops must, not its best moment.
    """
    for _ in range(turns):
        yield max(_product_rate(side, case.device) for side in MATRIX_SIDES)


def _product_rate(side: int, device: torch.device) -> float:
    left, right = torch.randn(side, side, device=device), torch.randn(side, side, device=device)
    result = left @ right
    _wait(device)
    begun = time.perf_counter()
    for _ in range(PRODUCTS):
        torch.mm(left, right, out=result)
    _wait(device)
    return PRODUCTS * 2 * side**3 / (time.perf_counter() - begun)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _training_data(case: TrainingCase) -> TrainingData:
    images = torch.from_numpy(case.images).to(case.device)
    labels = torch.from_numpy(case.labels).to(case.device)
    few = torch.arange(2, device=case.device)
    return TrainingData(
        images=images,
        labels=labels,
        train=torch.arange(case.images_per_turn, device=case.device),
        validation=None,
        sample=few,
        test_images=images[:2],
        test_labels=labels[:2],
        mean=torch.from_numpy(case.mean).to(case.device),
        deviation=torch.from_numpy(case.deviation).to(case.device),
        layout=fastest_layout(ModelSettings.from_plain(case.model), case.device),
    )


def _rates(
    case: TrainingCase, model: nn.Module, optimizer: Optimizer, *, layout: torch.memory_format, turns: int
) -> Rates:
    count, augment = case.images_per_turn, AUGMENTATIONS[case.augmentation]
    images = torch.from_numpy((case.images[:count] - case.mean) / case.deviation).permute(0, 3, 1, 2)
    images = images.contiguous(memory_format=layout).to(case.device)
    labels = torch.from_numpy(case.labels[:count]).to(case.device)
    model.train()
    for _ in range(turns):
        begun = time.perf_counter()
        sums = torch.zeros(2, device=case.device)
        for indices in torch.randperm(count).to(case.device).split(case.batch_size):
            _train_step(model, optimizer, augment(images[indices]), labels[indices], sums)
        sums.tolist()
        yield count / (time.perf_counter() - begun)


def _optimizer(case: TrainingCase, model: nn.Module, *, fused: bool | None) -> Optimizer:
    """Return the case's optimizer; `fused` None is what PyTorch does unless it is told."""
    match case.optimizer:
        case "adam":
            return Adam(model.parameters(), lr=LEARNING_RATE, fused=fused)
        case "adamw":
            return AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=fused)
        case "sgd":
            return SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=fused)


def _train_step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor, sums: Tensor) -> None:
    """Take one step, and add the batch's loss and its right answers to `sums` (2,)."""
    logits = model(images)
    loss = functional.cross_entropy(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    sums[0] += loss.detach() * len(labels)
    sums[1] += (logits.detach().argmax(1) == labels).sum()


def _cropped(batch: Tensor) -> Tensor:
    """Crop each image of (B, C, H, W) at a place of its own from the padded batch."""
    count, _, height, width = batch.shape
    padded = functional.pad(batch, (PADDING,) * 4)
    corners = torch.randint(0, 2 * PADDING + 1, (count, 2)).tolist()
    moved = torch.empty_like(batch)
    for image, (top, left) in enumerate(corners):
        moved[image] = padded[image, :, top : top + height, left : left + width]
    return moved


def _flipped(batch: Tensor) -> Tensor:
    mirrored = (torch.rand(len(batch), 1, 1, 1) < 0.5).to(batch.device)
    return torch.where(mirrored, batch.flip(3), batch)


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda batch: batch,
    "flip": _flipped,
    "crop": _cropped,
    "crop-flip": lambda batch: _flipped(_cropped(batch)),
}
