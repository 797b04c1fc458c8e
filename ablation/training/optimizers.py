"""Makes the optimizer of a training: PyTorch's Adam, AdamW and SGD in their fused form, its others as they come.

A fused Adam is one pass over the parameters per step; the others take what PyTorch chooses for their device.
"""

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ablation.errors import PathUnavailable, SettingInvalid
from ablation.training.settings import TrainingSettings

Group = tuple[Sequence[Tensor], TrainingSettings]
"""Parameters, and the settings that their numbers are taken from."""
PATH = "training.optimizer_arguments"
REFUSALS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
"""What PyTorch raises where an argument is of another type or range than it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """What an optimizer can do beside its step.

    Attributes:
        is_elementwise: an element's update depends on its own gradients alone, so parameters may be stacked.
        is_captured: it reads its learning rate, and counts its steps, on the device.
    """

    is_elementwise: bool = False
    is_captured: bool = False


_BOTH = Ability(is_elementwise=True, is_captured=True)
ABILITIES: Mapping[str, Ability] = {
    **dict.fromkeys(("adam", "adamw", "sgd"), _BOTH),
    **dict.fromkeys(("ASGD", "Adadelta", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop"), _BOTH),
    "Adagrad": Ability(is_elementwise=True),
}
"""By name; what is not here can do neither: Adafactor and Muon look at a whole tensor, and at numbers on the host."""
FUSED: Mapping[str, str] = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
"""By name, the classes of `torch.optim` that are made in their fused form."""


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

    Raises:
        SettingInvalid: there is none of that name, or PyTorch refuses its arguments.
    """
    first = groups[0][1]
    kind, takes = optimizer_class(first.optimizer)
    parameters: list[dict[str, Any]] = [{"params": list(tensors), **_keys(own, takes)} for tensors, own in groups]
    for group, rate in zip(parameters, rates or (), strict=rates is not None):
        group["lr"] = rate
    chosen: dict[str, Any] = {"fused": True} if first.optimizer in FUSED else {}
    if is_captured:
        # Not tensor by tensor: those of PyTorch's loops that take a rate on the device read it there.
        chosen |= {name: True for name in ("capturable", *(["foreach"] if not chosen else [])) if name in takes}
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in first.optimizer_arguments.items()
    }
    _check_lengths(first, kind)
    try:
        # With the first group's numbers, which some classes check only where they are arguments.
        return kind(parameters, **_keys(first, takes), **given, **chosen)
    except REFUSALS as error:
        raise _refused(first, error) from error


def try_step(settings: TrainingSettings) -> None:
    """Take a step over a matrix: some arguments PyTorch looks at in a step alone.

    Raises:
        SettingInvalid: PyTorch refuses them.
    """
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    optimizer = optimizer_over([([parameter], settings)])
    try:
        optimizer.step()
    except REFUSALS as error:
        raise _refused(settings, error) from error


def check_can(settings: TrainingSettings, path: str, *, is_stacked: bool, is_captured: bool) -> None:
    """See that an optimizer can do what a path asks of it.

    Raises:
        PathUnavailable: it cannot.
    """
    can = ABILITIES.get(settings.optimizer, Ability())
    if is_stacked and not can.is_elementwise:
        raise PathUnavailable(
            path, f"an update of {settings.optimizer} looks at whole tensors, not at each element alone"
        )
    if is_captured and not can.is_captured:
        raise PathUnavailable(path, f"{settings.optimizer} needs numbers of the host in each step")


@functools.cache
def optimizer_class(name: str) -> tuple[type[Optimizer], tuple[str, ...]]:
    """Return an optimizer's class and the names of what it takes.

    Raises:
        SettingInvalid: this PyTorch has none of that name.
    """
    kind = getattr(torch.optim, FUSED.get(name, name), None)
    if not isinstance(kind, type) or not issubclass(kind, Optimizer):
        raise SettingInvalid(f"PyTorch {torch.__version__} has no optimizer {name!r}", path="training.optimizer")
    return kind, tuple(inspect.signature(kind).parameters)


def _check_lengths(settings: TrainingSettings, kind: type[Optimizer]) -> None:
    """See that lists are as long as PyTorch's own defaults: it passes over what follows."""
    for name, parameter in inspect.signature(kind).parameters.items():
        default, given = parameter.default, settings.optimizer_arguments.get(name, parameter.default)
        if isinstance(default, tuple) and not (isinstance(given, list | tuple) and len(given) == len(default)):
            shown = ", ".join(map(str, default))
            raise _refused(settings, ValueError(f"{name} are {len(default)} values, such as [{shown}]"))


def _refused(settings: TrainingSettings, error: Exception) -> SettingInvalid:
    kind, _ = optimizer_class(settings.optimizer)
    return SettingInvalid(f"{kind.__name__} refuses {_shown(settings)}: {error}", path=PATH)


def _keys(settings: TrainingSettings, takes: Sequence[str]) -> dict[str, Any]:
    numbers = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "momentum": settings.momentum}
    return {name: value for name, value in numbers.items() if name in takes}


def _shown(settings: TrainingSettings) -> str:
    given = ", ".join(f"{name}: {value}" for name, value in settings.optimizer_arguments.items())
    return f"{{{given}}}" if given else "what it is given"
