"""Makes the optimizer of a training in PyTorch's fused form: one pass over the parameters per step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from ablation.training.settings import TrainingSettings

Group = tuple[Sequence[Tensor], TrainingSettings]
"""Parameters, and the settings that their numbers are taken from."""
OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], bool], Optimizer]] = {
    "adam": lambda groups, is_captured: Adam(groups, fused=True, capturable=is_captured),
    "adamw": lambda groups, is_captured: AdamW(groups, fused=True, capturable=is_captured),
    "sgd": lambda groups, _is_captured: SGD(groups, fused=True),
}
"""By name: (groups, whether steps are captured) to an optimizer."""
WITH_MOMENTUM = ("sgd",)


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """Return the optimizer of one model, which takes its learning rate from the host."""
    return optimizer_over([(list(model.parameters()), settings)])


def optimizer_over(
    groups: Sequence[Group], *, rates: Sequence[Tensor] | None = None, is_captured: bool = False
) -> Optimizer:
    """Return an optimizer over groups of one kind, each with the learning rate, decay and momentum of its settings.

    Args:
        rates: learning rates on the device, one per group, to be set before each step.
        is_captured: whether its steps are captured in a CUDA graph.
    """
    parameters: list[dict[str, Any]] = [
        {"params": list(tensors), "lr": settings.learning_rate, "weight_decay": settings.weight_decay}
        for tensors, settings in groups
    ]
    for group, rate in zip(parameters, rates or (), strict=rates is not None):
        group["lr"] = rate
    name = groups[0][1].optimizer
    if name in WITH_MOMENTUM:
        for group, (_, settings) in zip(parameters, groups, strict=True):
            group["momentum"] = settings.momentum
    return OPTIMIZERS[name](parameters, is_captured)
