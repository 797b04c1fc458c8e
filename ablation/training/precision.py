"""Sets the precision of products and convolutions: fp32, TF32 or bf16, never by PyTorch's own choice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

from ablation.records import Precision

AMPERE = (8, 0)
"""The compute capability that TF32 and bf16 came with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """How a device computes products and convolutions in a precision, and which devices do.

    `fp32_mode` is what PyTorch calls the mode of a GPU's fp32, `autocast` the type that models are computed in where
    that is another, `capability` the compute capability that a GPU needs.
    """

    fp32_mode: str = "ieee"
    autocast: torch.dtype | None = None
    is_on_cpu: bool = True
    capability: tuple[int, int] | None = None


PRECISIONS: Mapping[str, Arithmetic] = {
    "fp32": Arithmetic(),
    "tf32": Arithmetic(fp32_mode="tf32", is_on_cpu=False, capability=AMPERE),
    "bf16": Arithmetic(autocast=torch.bfloat16, capability=AMPERE),
}


def set_precision(precision: Precision) -> None:
    """Let a GPU compute fp32 products and convolutions in fp32, or in TF32 where that is asked for; a CPU in fp32.

    PyTorch's own convolutions are TF32 by default and its products are not; a comparison takes neither silently. On a
    CPU, `torch.set_float32_matmul_precision` of a notebook or of user code makes products bf16.
    """
    chosen = PRECISIONS[precision].fp32_mode
    torch.backends.cudnn.conv.fp32_precision = chosen  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = chosen  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = chosen
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.mkldnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    torch.backends.mkldnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]


def compute(function: Callable[[], Any], precision: Precision, device: torch.device) -> Tensor:
    """Return a model's logits, computed in bf16 where PyTorch holds that safe, or as the model does it anyway."""
    dtype = PRECISIONS[precision].autocast
    if dtype is None:
        plain: Tensor = logits_of(function())
        return plain
    # Casts of weights are not kept from one call to the next: a captured step must make its own.
    with torch.autocast(device.type, dtype=dtype, cache_enabled=False):
        logits: Tensor = logits_of(function())
    return logits.float()


def logits_of(output: Any) -> Any:
    """Return a model's output, or its `logits` where it is a mapping or a dataclass that has them.

    So do the models of Hugging Face answer. Of anything else it is not known which part the loss is meant for.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits", output)
    return getattr(output, "logits", output) if is_dataclass(output) else output
