"""One class per input: cross entropy, accuracy, confusion matrix and Brier score."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ablation.records import TaskName
from ablation.training.tasks.interface import Measures, Scale, Whole
from ablation.training.tasks.weights import balanced_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Outputs are logits (B, classes), targets int64 (B,)."""

    task: ClassVar[TaskName] = "classification"
    keeps_outputs: ClassVar[bool] = True

    def size(self, targets: Tensor) -> int:
        raise NotImplementedError  # they are kept, whatever their size

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return targets

    def loss(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
    ) -> Tensor:
        return functional.cross_entropy(outputs, targets, weight=weights, label_smoothing=smoothing)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        return balanced_classes(parts, classes)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, targets)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.mT, targets, reduction="none").mean(1)

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return how many answers are right, (S, 1)."""
        return (outputs.argmax(-1) == targets).sum(1, keepdim=True)

    def weights(self, tally: Tensor, size: int) -> Tensor | int:  # noqa: ARG002 - one per example
        return size

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:  # noqa: ARG002
        return {"accuracy": tally.item() / count}

    def measures(self, whole: Whole) -> Measures:
        logits, labels = whole.kept, whole.targets
        return Measures(
            values={"test_brier_score": brier_score(logits, labels)},
            correct=(logits.argmax(1) == labels).cpu().numpy(),
        )

    def confusion(self, whole: Whole) -> NDArray[np.int64]:
        return confusion_matrix(whole.kept, whole.targets)

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return outputs


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
