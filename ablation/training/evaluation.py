"""Evaluates models: mean cross entropy, accuracy, confusion matrix and Brier score of logits on a split."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ablation.records import Precision
from ablation.training.batches import TrainingData, evaluation_batches
from ablation.training.precision import compute


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A split, evaluated: mean cross entropy in nats, accuracy, logits (N, classes) on the device."""

    loss: float
    accuracy: float
    logits: Tensor


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    data: TrainingData,
    *,
    indices: Tensor | None = None,
    precision: Precision = "fp32",
) -> Evaluation:
    """Evaluate `model` on images, or on those that `indices` name; the mode of the model is restored."""
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        batches = evaluation_batches(images, indices, data)
        logits = torch.cat([compute(partial(model, batch), precision, images.device) for batch in batches])
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
