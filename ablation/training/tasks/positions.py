"""Cross entropy over the positions of an input, some of which count for nothing."""

from torch import Tensor
from torch.nn import functional


def mean_cross_entropy(outputs: Tensor, targets: Tensor, ignore_index: int) -> Tensor:
    """Return the mean over positions of logits (…, classes) against targets (…); 0 where no position counts."""
    total = functional.cross_entropy(
        outputs.flatten(0, -2), targets.flatten(), ignore_index=ignore_index, reduction="sum"
    )
    return total / (targets != ignore_index).sum().clamp(min=1)
