"""Measures a model: parameters and output shape per layer, and the FLOPs of one image's forward pass."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ablation.results import DataShape, Layer, ModelSummary


def summarize_model(build: Callable[[], nn.Module], shape: DataShape) -> ModelSummary:
    """Build the model on the meta device, where nothing is computed, and measure it.

    FLOPs are what `torch.utils.flop_counter` counts: matrix products and convolutions, a multiply and an add as two;
    normalization, activation and pooling count as none.
    """
    with torch.device("meta"):
        model = build().eval()
        image = torch.empty(1, shape.channels, shape.height, shape.width)
    shapes: dict[str, tuple[int, ...]] = {}
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    for name, module in leaves:
        module.register_forward_hook(_record_shape(name, shapes))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return ModelSummary(
        parameters=_trainable(model),
        flops=int(counter.get_total_flops()),
        layers=tuple(
            Layer(name=name, type=type(module).__name__, parameters=_trainable(module), output_shape=shapes[name])
            for name, module in leaves
        ),
    )


def _record_shape(
    name: str, shapes: dict[str, tuple[int, ...]]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    return record


def _trainable(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
