"""Says in which memory layout a model computes fastest."""

import torch

from ablation.code import is_code
from ablation.records import ModelSettings


def fastest_layout(settings: ModelSettings, device: torch.device) -> torch.memory_format:
    """Return the layout of a `model` section's weights and batches of images on a device.

    What a user's model gets and computes stays contiguous, as code that calls `view` needs it. PyTorch's
    instance normalization, and its group normalization of many channels, take channels-last images apart on a CPU,
    which costs more than the convolutions gain by it.
    """
    normalization, is_torchvision = settings.arguments.get("normalization"), settings.name.startswith("torchvision:")
    is_taken_apart = normalization == "instance" or (normalization == "group" and is_torchvision)
    if is_code(settings.name) or (is_taken_apart and device.type == "cpu"):
        return torch.contiguous_format
    return torch.channels_last
