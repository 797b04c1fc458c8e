"""One class per position of a sequence: cross entropy per token, in nats and bits; accuracy per token."""

import math
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
class Tokens(PerPosition):
    """Outputs are logits (B, T, classes), targets int64 (B, T), those of `ignore_index` counting for nothing."""

    task: ClassVar[TaskName] = "tokens"

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs

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
