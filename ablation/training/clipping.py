"""Clips the gradients of runs: each run's whole gradient to its own largest norm, as PyTorch does for one model."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

EPSILON = 1e-6
"""What PyTorch adds to a norm before it divides by it."""


def clip_alone(parameters: Sequence[Tensor], largest: float | None) -> None:
    """Clip the gradient of one run, whose parameters are given; nothing waits for the device."""
    if largest is not None:
        clip_grad_norm_(parameters, largest)


def clip_stacked(parameters: Sequence[Tensor], largest: Tensor) -> None:
    """Clip the gradients of S runs, whose parameters are stacked (S, …), to their largest norms (S,), where finite.

    Each is scaled as `torch.nn.utils.clip_grad_norm_` scales it for that run alone, within rounding.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norms = torch.stack([torch.linalg.vector_norm(each.flatten(1), dim=1) for each in gradients])  # (tensors, S)
    scales = (largest / (torch.linalg.vector_norm(norms, dim=0) + EPSILON)).clamp(max=1.0)
    # A run that is not clipped keeps its gradient as it is, one that is infinite too.
    scales = torch.where(largest.isfinite(), scales, 1.0)
    for gradient in gradients:
        gradient.mul_(scales.view(-1, *(1 for _ in gradient.shape[1:])))
