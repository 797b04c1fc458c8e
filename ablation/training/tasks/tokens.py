"""One class per position of a sequence: cross entropy per token, in nats and bits; accuracy per token."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap

from ablation.records import TaskName
from ablation.training.tasks.interface import Measures, Scale, Whole
from ablation.training.tasks.positions import mean_cross_entropy
from ablation.training.tasks.weights import balanced_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Outputs are logits (B, T, classes), targets int64 (B, T), those of `ignore_index` counting for nothing."""

    classes: tuple[str, ...]
    ignore_index: int
    task: ClassVar[TaskName] = "tokens"
    keeps_outputs: ClassVar[bool] = False

    def size(self, targets: Tensor) -> int:
        return targets.numel() * len(self.classes)

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return targets.long()

    def loss(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
    ) -> Tensor:
        return mean_cross_entropy(outputs, targets, self.ignore_index, weights, smoothing=smoothing)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        return balanced_classes(parts, classes, ignore_index=self.ignore_index)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(outputs, targets, self.ignore_index)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(self.mean_loss)(outputs, targets)
        return losses

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return counts of right answers, of positions, then of each class among the answers, (S, 2 + classes)."""
        answers, counted = outputs.argmax(-1), targets != self.ignore_index
        right = ((answers == targets) & counted).flatten(1).sum(1, keepdim=True)
        classes = outputs.shape[-1]
        given = torch.zeros(len(outputs), classes + 1, dtype=torch.int64, device=outputs.device)
        places = torch.where(counted, answers, classes).flatten(1)
        given.scatter_add_(1, places, torch.ones_like(places))
        return torch.cat([right, counted.flatten(1).sum(1, keepdim=True), given[:, :classes]], dim=1)

    def weights(self, tally: Tensor, size: int) -> Tensor | int:  # noqa: ARG002 - one per position
        return tally[..., 1]

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:  # noqa: ARG002
        right, positions = tally[:2].tolist()
        return {"accuracy": right / max(positions, 1)}

    def measures(self, whole: Whole) -> Measures:
        return Measures(
            values={"test_nll": whole.loss, "test_bits": whole.loss / math.log(2)},
            constant_share=(whole.tally[2:].max() / whole.tally[1]).item(),
        )

    def confusion(self, whole: Whole) -> NDArray[np.int64] | None:  # noqa: ARG002 - a vocabulary's would be large
        return None

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return outputs
