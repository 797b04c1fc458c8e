"""Says in which memory layout a model computes fastest."""

from collections.abc import Mapping
from typing import Any

import torch

from ablation.code import is_code


def fastest_layout(settings: Mapping[str, Any], device: torch.device) -> torch.memory_format:
    """Return the layout of a `model` section's weights and batches of images on a device.

    What a model of the user's own gets and computes stays contiguous, as code that calls `view` needs it. PyTorch's
    instance normalization, and its group normalization of many channels, take channels-last images apart on a CPU,
    which costs more than the convolutions gain by it.
    """
    name, normalization = str(settings.get("name")), settings.get("normalization")
    is_taken_apart = normalization == "instance" or (normalization == "group" and name.startswith("torchvision:"))
    if is_code(name) or (is_taken_apart and device.type == "cpu"):
        return torch.contiguous_format
    return torch.channels_last
