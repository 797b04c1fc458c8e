"""Sets the precision of products and convolutions: fp32, TF32 or bf16, never by PyTorch's own choice."""

from collections.abc import Callable

import torch
from torch import Tensor

from ablation.training.settings import Precision


def set_precision(precision: Precision) -> None:
    """Let a GPU compute fp32 products and convolutions in fp32, or in TF32 where that is asked for.

    PyTorch's own convolutions are TF32 by default and its products are not; a comparison takes neither silently.
    """
    chosen = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = chosen  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = chosen  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = chosen


def compute(function: Callable[[], Tensor], precision: Precision, device: torch.device) -> Tensor:
    """Return a model's logits, computed in bf16 where PyTorch holds that safe, or as the model does it anyway."""
    if precision != "bf16":
        return function()
    # Casts of weights are not kept from one call to the next: a captured step must make its own.
    with torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False):
        logits = function()
    return logits.float()
