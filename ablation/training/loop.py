"""Trains a model epoch by epoch, yielding metrics; the result holds what is measured once, at the end."""

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from ablation.errors import CodeInvalid
from ablation.results import EpochMetrics, Outcome
from ablation.streams import Purpose, stream_seed
from ablation.training.batches import TrainingData, batch_bounds, evaluation_batches, training_batches
from ablation.training.schedules import learning_rate_at

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How to train; the fields of a study file's `training`, but for threads and loss, and its augmentation."""

    epochs: int
    batch_size: int
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: float
    schedule: Literal["constant", "cosine", "one-cycle"]
    momentum: float
    weight_decay: float
    epoch_choice: Literal["last", "best-validation"]
    augmentation: Literal["none", "flip", "crop", "crop-flip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How training ended, and what was measured at the chosen epoch, in evaluation mode.

    Confusion matrices are int64 counts [true class, predicted class]; `test_logits` float32 (N, classes) and
    `test_correct` bool (N,) are in the order of the test images; `state` holds the plain tensors of the measured
    model, on the CPU. A diverged run has only times.
    """

    outcome: Outcome
    metrics: Mapping[str, float]
    confusion: Mapping[str, NDArray[np.int64]]
    test_logits: NDArray[np.float32] | None
    test_correct: NDArray[np.bool_] | None
    state: Mapping[str, Tensor]
    measured_epoch: int | None = None
    diverged_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A split, evaluated: mean cross entropy in nats, accuracy, logits (N, classes) on the device."""

    loss: float
    accuracy: float
    logits: Tensor


def train(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    study_seed: int,
    seed: int,
    loss: Loss = functional.cross_entropy,
) -> Generator[EpochMetrics, None, TrainingResult]:
    """Train `model`, already on the data's device, and yield each epoch's metrics.

    Everything random is seeded from (study seed, purpose, seed index, epoch), so on a CPU, with the same number of
    threads, a run is repeated to the bit. Nothing synchronizes with the device inside an epoch. A loss that is NaN or
    infinite ends the run as diverged in that epoch; one that is so only when measured at the end, in the last epoch.
    torch's global generator is seeded anew for every epoch.

    `loss` is what is trained on: (logits (B, classes), labels (B,)) to a scalar. The running `train_loss` is of it;
    everything evaluated stays cross entropy, so that variants with different losses are compared on one scale.

    Raises:
        CodeInvalid: the loss returned something that cannot be trained on.
    """
    _lay_out(model, data)
    if data.images.device.type == "cpu":
        _keep_freed_memory()
    optimizer = make_optimizer(model, settings)
    curve: list[EpochMetrics] = []
    best = _BestEpoch(model) if settings.epoch_choice == "best-validation" else None
    for epoch in range(1, settings.epochs + 1):
        torch.manual_seed(stream_seed(study_seed, Purpose.DROPOUT, seed, epoch))
        metrics, heldout = _train_epoch(
            model, data, settings, optimizer, loss, study_seed=study_seed, seed=seed, epoch=epoch
        )
        curve.append(metrics)
        yield metrics
        if not _is_finite(metrics):
            return _diverged(curve)
        if best is not None:
            best.consider(metrics)
    measured_epoch = best.restore() if best is not None else settings.epochs
    at_hand = heldout if data.validation is None and best is None else None
    result = _measure(model, data, curve, measured_epoch=measured_epoch, test=at_hand)
    return result if all(map(math.isfinite, result.metrics.values())) else _diverged(curve)


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """Return the optimizer, in its fused form: one pass over the parameters per step."""
    parameters = list(model.parameters())
    rate, decay = settings.learning_rate, settings.weight_decay
    match settings.optimizer:
        case "adam":
            return Adam(parameters, lr=rate, weight_decay=decay, fused=True)
        case "adamw":
            return AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
        case "sgd":
            return SGD(parameters, lr=rate, momentum=settings.momentum, weight_decay=decay, fused=True)


def evaluate(
    model: nn.Module, images: Tensor, labels: Tensor, data: TrainingData, *, indices: Tensor | None = None
) -> Evaluation:
    """Evaluate `model` on images, or on those that `indices` name; the mode of the model is restored."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in evaluation_batches(images, indices, data)])
        truth = labels if indices is None else labels[indices]
        loss = functional.cross_entropy(logits, truth)
        accuracy = (logits.argmax(1) == truth).double().mean()
    model.train(was_training)
    return Evaluation(loss=loss.item(), accuracy=accuracy.item(), logits=logits)


def confusion_matrix(logits: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Return counts [true class, predicted class], square in the number of logits."""
    classes = logits.shape[1]
    pairs = labels * classes + logits.argmax(1)
    counts: NDArray[np.int64] = (
        torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes).cpu().numpy()
    )
    return counts


def brier_score(logits: Tensor, labels: Tensor) -> float:
    """Return the mean over images of Σ over classes (probability - truth)², in 0..2 (Brier, 1950); 0 is best."""
    probabilities = logits.double().softmax(1)
    truth = functional.one_hot(labels, logits.shape[1])
    return (probabilities - truth).square().sum(1).mean().item()


def _train_epoch(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    optimizer: Optimizer,
    loss_of: Loss,
    *,
    study_seed: int,
    seed: int,
    epoch: int,
) -> tuple[EpochMetrics, Evaluation]:
    begun = time.perf_counter()
    count = len(data.train)
    steps = len(batch_bounds(count, settings.batch_size))
    loss_sum = torch.zeros((), dtype=torch.float64, device=data.images.device)
    correct = torch.zeros((), dtype=torch.int64, device=data.images.device)
    batches = training_batches(
        data,
        batch_size=settings.batch_size,
        augmentation=settings.augmentation,
        study_seed=study_seed,
        seed=seed,
        epoch=epoch,
    )
    rate = settings.learning_rate
    model.train()
    for step, (images, labels) in enumerate(batches, start=(epoch - 1) * steps):
        rate = learning_rate_at(step, steps * settings.epochs, schedule=settings.schedule, peak=settings.learning_rate)
        for group in optimizer.param_groups:
            group["lr"] = rate
        logits = model(images)
        loss = _checked_loss(loss_of(logits, labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.detach() * len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
    train_loss, train_accuracy = (loss_sum / count).item(), correct.item() / count  # the epoch's one synchronization
    seconds = time.perf_counter() - begun
    sample = evaluate(model, data.images, data.labels, data, indices=data.sample)
    heldout = _evaluate_heldout(model, data)
    metrics = EpochMetrics(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        sample_loss=sample.loss,
        sample_accuracy=sample.accuracy,
        heldout_loss=heldout.loss,
        heldout_accuracy=heldout.accuracy,
        learning_rate=rate,
        seconds=seconds,
        images_per_second=count / seconds,
        timestamp_ms=time.time_ns() // 1_000_000,
    )
    return metrics, heldout


def _lay_out(model: nn.Module, data: TrainingData) -> None:
    """Put the weights of convolutions over images into the layout of the batches."""
    is_deep = any(parameter.dim() > 4 for parameter in model.parameters())  # there is no such layout of these
    if data.images.dim() == 4 and not is_deep:
        model.to(memory_format=data.layout)


def _checked_loss(loss: Tensor) -> Tensor:
    if not isinstance(loss, Tensor):
        what = f"returned {type(loss).__name__}"
    elif loss.dim():
        what = f"returned a tensor of shape {tuple(loss.shape)}; take its mean"
    elif not loss.requires_grad:
        what = "returned a tensor without a gradient; compute it from the logits with torch"
    else:
        return loss
    raise CodeInvalid(f"the loss must return a scalar tensor, and {what}", path="training.loss")


def _keep_freed_memory() -> None:
    """Raise glibc's threshold for handing freed memory back to the system from the default to 62 MiB.

    It is twice the size of the largest mapped block freed so far. Without this, each step's activations are handed
    back and faulted in again, 2,000 pages a step, a tenth of its time. The block is never touched, so takes no memory.
    """
    torch.empty(31 * 1024 * 1024, dtype=torch.uint8)


def _evaluate_heldout(model: nn.Module, data: TrainingData) -> Evaluation:
    if data.validation is None:
        return evaluate(model, data.test_images, data.test_labels, data)
    return evaluate(model, data.images, data.labels, data, indices=data.validation)


def _is_finite(metrics: EpochMetrics) -> bool:
    return all(map(math.isfinite, (metrics.train_loss, metrics.sample_loss, metrics.heldout_loss)))


def _diverged(curve: list[EpochMetrics]) -> TrainingResult:
    return TrainingResult(
        outcome=Outcome.DIVERGED,
        metrics={"training_seconds": sum(metrics.seconds for metrics in curve)},
        confusion={},
        test_logits=None,
        test_correct=None,
        state={},
        diverged_epoch=curve[-1].epoch,
    )


def _measure(
    model: nn.Module, data: TrainingData, curve: list[EpochMetrics], *, measured_epoch: int, test: Evaluation | None
) -> TrainingResult:
    """Evaluate the measured model on test (unless that is at hand) and on the whole training split."""
    test = test or evaluate(model, data.test_images, data.test_labels, data)
    trained = evaluate(model, data.images, data.labels, data, indices=data.train)
    return TrainingResult(
        outcome=Outcome.DONE,
        metrics={
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
            "test_brier_score": brier_score(test.logits, data.test_labels),
            "learning_curve_area": sum(metrics.heldout_accuracy for metrics in curve) / len(curve),
            "final_train_accuracy": trained.accuracy,
            "final_train_loss": trained.loss,
            "generalization_gap": test.loss - trained.loss,
            "training_seconds": sum(metrics.seconds for metrics in curve),
        },
        confusion={
            "train": confusion_matrix(trained.logits, data.labels[data.train]),
            "test": confusion_matrix(test.logits, data.test_labels),
        },
        test_logits=test.logits.float().cpu().numpy(),
        test_correct=(test.logits.argmax(1) == data.test_labels).cpu().numpy(),
        state={name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        measured_epoch=measured_epoch,
    )


class _BestEpoch:
    """Keeps the weights of the epoch with the highest validation accuracy, the first where several have it."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._accuracy = -1.0
        self._epoch = 0
        self._state: dict[str, Tensor] = {}

    def consider(self, metrics: EpochMetrics) -> None:
        if metrics.heldout_accuracy > self._accuracy:
            self._accuracy = metrics.heldout_accuracy
            self._epoch = metrics.epoch
            self._state = copy.deepcopy(self._model.state_dict())

    def restore(self) -> int:
        """Put the best weights back into the model and return their epoch."""
        self._model.load_state_dict(self._state)
        return self._epoch
