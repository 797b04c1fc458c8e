"""One class per pixel: cross entropy per pixel; IoU, Dice and pixel accuracy from the confusion of pixels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ablation.records import TaskName
from ablation.training.tasks.interface import Measures, Scale, Whole
from ablation.training.tasks.positions import PerPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation(PerPosition):
    """Outputs are logits (B, classes, H, W), targets int64 (B, H, W), those of `ignore_index` counting for nothing."""

    task: ClassVar[TaskName] = "segmentation"

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs.movedim(1, -1)

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


def _overlaps(tally: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by class how many pixels are true and answered, and how many are one or both."""
    counts = tally.double().cpu().numpy()
    both = counts.diagonal().copy()
    return both, counts.sum(0) + counts.sum(1) - both
