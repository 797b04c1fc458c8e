"""Draws dropout from a generator of the run's own, so that its masks do not depend on what is trained beside it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class DropoutFrom(TorchFunctionMode):
    """While active, `dropout` draws from a generator; on a CPU its masks are those of PyTorch's own from that seed."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.dropout:
            rate, is_training = dropout_arguments(*args, **(kwargs or {}))
            return args[0] * dropout_mask(args[0], rate, self._generator) if is_training and rate else args[0]
        return func(*args, **(kwargs or {}))


def dropout_arguments(input: Tensor, p: Any = 0.5, training: bool = True, inplace: bool = False) -> tuple[Any, bool]:  # noqa: A002, ARG001
    """Return the rate and whether it is training of a call of `torch.nn.functional.dropout`."""
    return p, training


def dropout_mask(example: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask of the example's shape: 0 with the rate's probability, else 1 / (1 - rate)."""
    if rate == 1:
        return torch.zeros_like(example)
    return torch.empty_like(example).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
