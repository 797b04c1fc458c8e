"""What tasks share that have one class per position of an input, some of which count for nothing: cross entropy."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from ablation.training.tasks.interface import Scale
from ablation.training.tasks.weights import balanced_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class PerPosition:
    """Targets are int64 (B, …), one per position; those of `ignore_index` count for nothing."""

    classes: tuple[str, ...]
    ignore_index: int
    keeps_outputs: ClassVar[bool] = False

    @abstractmethod
    def logits(self, outputs: Tensor) -> Tensor:
        """Return a model's outputs with the classes last, (B, …, classes)."""

    def size(self, targets: Tensor) -> int:
        return targets.numel() * len(self.classes)

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return targets.long()

    def loss(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
    ) -> Tensor:
        return mean_cross_entropy(self.logits(outputs), targets, self.ignore_index, weights, smoothing=smoothing)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        return balanced_classes(parts, classes, ignore_index=self.ignore_index)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(self.logits(outputs), targets, self.ignore_index)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(self.mean_loss)(outputs, targets)
        return losses

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return outputs


def mean_cross_entropy(
    outputs: Tensor, targets: Tensor, ignore_index: int, weights: Tensor | None = None, *, smoothing: float = 0.0
) -> Tensor:
    """Return the mean over positions of logits (…, classes) against targets (…); 0 where no position counts.

    With `weights` of the classes it is over the weights of the positions, as PyTorch's.
    """
    total = functional.cross_entropy(
        outputs.flatten(0, -2),
        targets.flatten(),
        weight=weights,
        ignore_index=ignore_index,
        reduction="sum",
        label_smoothing=smoothing,
    )
    counted = targets != ignore_index
    if weights is None:
        return total / counted.sum().clamp(min=1)
    weight = (weights.gather(0, torch.where(counted, targets, 0).flatten()) * counted.flatten()).sum()
    return total / torch.where(weight > 0, weight, 1.0)
