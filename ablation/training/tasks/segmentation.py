"""One class per pixel: cross entropy per pixel; IoU, Dice and pixel accuracy from the confusion of pixels."""

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
class Segmentation:
    """Outputs are logits (B, classes, H, W), targets int64 (B, H, W), those of `ignore_index` counting for nothing."""

    classes: tuple[str, ...]
    ignore_index: int
    task: ClassVar[TaskName] = "segmentation"
    keeps_outputs: ClassVar[bool] = False

    def size(self, targets: Tensor) -> int:
        return targets.numel() * len(self.classes)

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return targets.long()

    def loss(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
    ) -> Tensor:
        return mean_cross_entropy(outputs.movedim(1, -1), targets, self.ignore_index, weights, smoothing=smoothing)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        return balanced_classes(parts, classes, ignore_index=self.ignore_index)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_cross_entropy(outputs.movedim(1, -1), targets, self.ignore_index)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(self.mean_loss)(outputs, targets)
        return losses

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return counts of pixels [true class, answered class], (S, classes, classes)."""
        classes, members = outputs.shape[2], len(outputs)
        pairs = torch.where(targets != self.ignore_index, targets * classes + outputs.argmax(2), classes * classes)
        pairs = pairs.flatten(1)
        counts = torch.zeros(members, classes * classes + 1, dtype=torch.int64, device=outputs.device)
        counts.scatter_add_(1, pairs, torch.ones_like(pairs))
        return counts[:, :-1].view(members, classes, classes)

    def weights(self, tally: Tensor, size: int) -> Tensor | int:  # noqa: ARG002 - one per pixel
        return tally.sum((-2, -1))

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:  # noqa: ARG002
        """IoU and Dice are means over the classes that are true or answered somewhere."""
        both, either = _overlaps(tally)
        there = either > 0
        iou, dice = both[there] / either[there], 2 * both[there] / (either + both)[there]
        pixels = tally.sum().item()
        return {
            "iou": float(np.mean(iou)) if there.any() else 0.0,
            "dice": float(np.mean(dice)) if there.any() else 0.0,
            "pixel_accuracy": float(both.sum()) / max(pixels, 1),
        }

    def measures(self, whole: Whole) -> Measures:
        both, either = _overlaps(whole.tally)
        iou = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
        return Measures(details={"iou": tuple(map(float, iou))})

    def confusion(self, whole: Whole) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = whole.tally.cpu().numpy()
        return counts

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return outputs


def _overlaps(tally: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by class how many pixels are true and answered, and how many are one or both."""
    counts = tally.double().cpu().numpy()
    both = counts.diagonal().copy()
    return both, counts.sum(0) + counts.sum(1) - both
