"""Weights of classes that are balanced over a training split: what is rare counts for more."""

from collections.abc import Iterable

import torch
from torch import Tensor


def balanced_classes(parts: Iterable[Tensor], classes: int, *, ignore_index: int | None = None) -> Tensor:
    """Return n / (K · count) of each of K classes among n targets, float32 (K,); 0 of a class that none is of.

    It is scikit-learn's `compute_class_weight("balanced")` where every class is there. `parts` are the targets.
    """
    counts: Tensor | int = 0
    for part in parts:
        targets = part.flatten().long()
        kept = targets if ignore_index is None else targets[targets != ignore_index]
        counts = counts + torch.bincount(kept, minlength=classes)
    assert isinstance(counts, Tensor)
    weights = counts.sum() / (classes * counts.double())
    return torch.where(counts > 0, weights, 0.0).float()


def balanced_labels(parts: Iterable[Tensor]) -> Tensor:
    """Return (n - count) / count of each label among n examples (…, K), float32 (K,); 1 where all answers are one."""
    count, there = 0, torch.zeros(())
    for part in parts:
        count += len(part)
        there = there.to(part.device) + (part > 0.5).double().sum(0)
    is_mixed = (there > 0) & (there < count)
    return torch.where(is_mixed, (count - there) / there, 1.0).float()
