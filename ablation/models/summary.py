"""Measures a model: parameters and output shape per layer, and the FLOPs of one example's forward pass."""

from collections.abc import Callable

from torch import nn

from ablation.models.probe import Probe, build_and_probe, count_parameters, without_batch
from ablation.records import DataShape, Layer, ModelSummary


def summarize_model(build: Callable[[], nn.Module], shape: DataShape) -> ModelSummary:
    """Build the model on the meta device, where nothing is computed, and measure it.

    A model that computes with values when it is built or run is measured on the CPU. FLOPs are what
    `torch.utils.flop_counter` counts: matrix products and convolutions, a multiply and an add as two; normalization,
    activation and pooling count as none. Layers are the modules that hold no others, and those that have parameters of
    their own beside them.

    Raises:
        ModelInvalid: the model cannot be run on an example of the shape.
    """
    model, probe = build_and_probe(build, shape)
    return ModelSummary(
        parameters=count_parameters(model),
        flops=probe.calls[""][0].flops,
        layers=tuple(
            Layer(
                name=name or "(model)",
                type=type(module).__name__,
                parameters=_own_parameters(module),
                output_shape=_output_shape(probe, name),
            )
            for name, module in model.named_modules()
            if not list(module.children()) or _own_parameters(module)
        ),
    )


def _own_parameters(module: nn.Module) -> int:
    """Count the trainable parameters of a module itself, without those of the modules in it."""
    return sum(one.numel() for one in module.parameters(recurse=False) if one.requires_grad)


def _output_shape(probe: Probe, name: str) -> tuple[int, ...]:
    """Return the shape of what a module gives first, without the batch; `()` where it gives nothing."""
    calls = probe.calls.get(name)
    return (without_batch(calls[0].output_shape) if calls else None) or ()
