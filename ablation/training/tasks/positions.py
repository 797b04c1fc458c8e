"""Cross entropy over the positions of an input, some of which count for nothing."""

import torch
from torch import Tensor
from torch.nn import functional


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
