"""Watches a step for what a graph would freeze, or fusing would mix: random numbers and counts kept by the host."""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ablation.errors import PathUnavailable


@contextlib.contextmanager
def watching(models: Sequence[nn.Module], device: torch.device, *, is_drawn_alone: bool) -> Iterator[None]:
    """Look at what a step changes beside its tensors.

    Args:
        is_drawn_alone: whether the step may draw from the device's global generator, as one model's may.

    Raises:
        PathUnavailable: on leaving: the host drew random numbers, the models keep numbers in their attributes, or
            several models drew from one generator.
    """
    drawn, attributes = _drawn_by(device, is_drawn_alone), _attributes(models)
    yield
    for name, state in _drawn_by(device, is_drawn_alone).items():
        if state != drawn[name]:
            raise PathUnavailable("graph", f"a step draws random numbers from {name}, other than for dropout")
    for name, value in _attributes(models).items():
        before = attributes.get(name)
        if isinstance(value, Tensor) or isinstance(before, Tensor):
            if value is not before:
                raise PathUnavailable("graph", f"a step puts another tensor in the place of the model's {name}")
        elif value != before:
            raise PathUnavailable("graph", f"a step changes the model's attribute {name}, which is not a tensor")


def _drawn_by(device: torch.device, is_drawn_alone: bool) -> dict[str, Any]:
    """Return the states of the generators that a step must leave alone."""
    states: dict[str, Any] = {
        "Python's generator": random.getstate(),
        "NumPy's generator": str(np.random.get_state(legacy=False)),
    }
    if device.type != "cpu":
        states["the CPU's generator"] = torch.get_rng_state().numpy().tobytes()
    if not is_drawn_alone:
        own = torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)
        states["the device's one generator"] = own.cpu().numpy().tobytes()
    return states


def _attributes(models: Sequence[nn.Module]) -> dict[str, Any]:
    """Return what modules hold beside their parameters: plain values, tensors and buffers."""
    return {
        f"{name}.{attribute}": value
        for model in models
        for name, module in model.named_modules()
        for attribute, value in {**vars(module), **dict(module.named_buffers(recurse=False))}.items()
        if (value is None or isinstance(value, int | float | str | Tensor)) and attribute != "training"
    }
