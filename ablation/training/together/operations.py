"""Computes layers of S stacked models at once under `vmap`: one operation where each model alone would take its own.

PyTorch's own rules for `vmap` copy activations between layouts at each convolution, pooling and normalization. Here S
joins the channels, or stays outermost, and is left where it is until something else needs it elsewhere. Physical
shapes: (B, S, C, H, W), channels-last as (B, S·C, H, W), for `grouped`; (S, B, C, H, W), channels-last, for `matmul`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ablation.training.together.dropout import dropout_mask

Convolution = Literal["grouped", "matmul"]
Dimensions = tuple[int | None, ...]
Rule = Callable[..., tuple[Tensor, int]]


class StackedOperations(TorchFunctionMode):
    """While active inside `vmap`, layers are computed by the rules of this module, and dropout draws for each model."""

    def __init__(self, convolution: Convolution, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self._generators = tuple(generators)
        self._rules: dict[Callable[..., Any], Rule] = {
            functional.conv2d: _CONVOLUTIONS[convolution],
            functional.linear: _linear,
            functional.batch_norm: _batch_norm,
            functional.group_norm: _group_norm,
            functional.instance_norm: _instance_norm,
            functional.max_pool2d: _pooling(functional.max_pool2d),
            functional.avg_pool2d: _pooling(functional.avg_pool2d),
            functional.adaptive_avg_pool2d: _pooling(functional.adaptive_avg_pool2d),
            functional.dropout: self._dropout,
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        rule = self._rules.get(func)
        if rule is None:
            return func(*args, **(kwargs or {}))
        bound = inspect.signature(rule).bind((), 0, *args, **(kwargs or {}))
        bound.apply_defaults()
        stacked, plain = (functools.partial(called, **bound.kwargs) for called in (rule, func))
        return _Stacked.apply(stacked, plain, *bound.args[2:])

    def _dropout(
        self,
        dimensions: Dimensions,
        models: int,
        inputs: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,  # noqa: ARG002 - a parameter of the function it stands for
    ) -> tuple[Tensor, int]:
        stacked = _outermost(inputs, dimensions[0], models)
        if not training or not p:
            return stacked, 0
        masks = [dropout_mask(one, p, generator) for one, generator in zip(stacked, self._generators, strict=True)]
        return stacked * torch.stack(masks), 0


class _Stacked(torch.autograd.Function):
    """Hands the physical tensors of a call inside `vmap` to a rule, whose operations autograd sees.

    The parameters of a rule are named and ordered as those of the function it stands for.
    """

    @staticmethod
    def forward(rule: Rule, plain: Callable[..., Any], *args: Any) -> Any:  # noqa: ARG004 - as `vmap` has them
        return plain(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: autograd goes through the operations of the rule."""

    @staticmethod
    def vmap(
        info: Any,
        dimensions: Any,
        rule: Rule,
        plain: Callable[..., Any],  # noqa: ARG004 - an argument of `forward`
        *args: Any,
    ) -> tuple[Tensor, int]:
        return rule(dimensions[2:], info.batch_size, *args)


def _outermost(tensor: Tensor, dimension: int | None, models: int) -> Tensor:
    """Return (S, …)."""
    return tensor.expand(models, *tensor.shape) if dimension is None else tensor.movedim(dimension, 0)


def _beside_channels(tensor: Tensor, dimension: int | None, models: int) -> Tensor:
    """Return (B, S·C, …)."""
    return _outermost(tensor, dimension, models).movedim(0, 1).flatten(1, 2)


def _per_channel(tensor: Tensor | None, dimension: int | None, models: int) -> Tensor | None:
    """Return (S·C,), of the same memory where each model has its own."""
    return None if tensor is None else _outermost(tensor, dimension, models).flatten(0, 1)


def _all_per_channel(dimensions: Dimensions, models: int, *tensors: Tensor | None) -> list[Tensor | None]:
    """Return each of several tensors of a call as (S·C,); `dimensions` begin with the first one's."""
    return [_per_channel(tensor, dimension, models) for tensor, dimension in zip(tensors, dimensions, strict=False)]


def _apart(joined: Tensor, models: int) -> tuple[Tensor, int]:
    """Return (B, S, C, …) of (B, S·C, …), and where S is."""
    return joined.view(len(joined), models, -1, *joined.shape[2:]), 1


def _convolution_by_groups(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, int]:
    joined = _beside_channels(inputs, dimensions[0], models).contiguous(memory_format=torch.channels_last)
    weights = _outermost(weight, dimensions[1], models).flatten(0, 1)  # (S·O, C / groups, h, w)
    biases = _per_channel(bias, dimensions[2] if bias is not None else None, models)
    return _apart(functional.conv2d(joined, weights, biases, stride, padding, dilation, groups * models), models)


def _convolution_by_products(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Tensor, int]:
    """Multiply windows (im2col) with weights; a convolution with dilation or groups of its own goes by groups."""
    stride, padding, dilation = (_pair(value) for value in (stride, padding, dilation))
    if groups != 1 or dilation != (1, 1) or padding is None:
        named = {"padding": "same" if padding is None else padding, "dilation": dilation, "groups": groups}
        return _convolution_by_groups(dimensions, models, inputs, weight, bias, stride, **named)
    stacked = _outermost(inputs, dimensions[0], models)  # (S, B, C, H, W)
    kernels = _outermost(weight, dimensions[1], models)  # (S, O, C, h, w)
    height, width = kernels.shape[-2:]
    padded = functional.pad(stacked, (padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(3, height, stride[0]).unfold(4, width, stride[1])  # (S, B, C, H', W', h, w)
    rows = windows.permute(0, 1, 3, 4, 2, 5, 6)
    products = torch.bmm(rows.reshape(models, -1, kernels[0, 0].numel()), kernels.flatten(2).mT)  # (S, B·H'·W', O)
    if bias is not None:
        products = products + _outermost(bias, dimensions[2], models).unsqueeze(1)
    return products.view(models, *rows.shape[1:4], -1).permute(0, 1, 4, 2, 3), 0


def _pair(value: Any) -> tuple[int, int] | None:
    """Return a convolution's option as (rows, columns); None of a padding given by name."""
    if isinstance(value, str):
        return (0, 0) if value == "valid" else None
    return (value, value) if isinstance(value, int) else tuple(value)


def _linear(
    dimensions: Dimensions, models: int, inputs: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, int]:
    stacked = _outermost(inputs, dimensions[0], models)
    weights = _outermost(weight, dimensions[1], models).mT  # (S, inputs, outputs)
    rows = stacked.reshape(models, -1, stacked.shape[-1])
    if bias is None:
        products = torch.bmm(rows, weights)
    else:
        products = torch.baddbmm(_outermost(bias, dimensions[2], models).unsqueeze(1), rows, weights)
    return products.reshape(*stacked.shape[:-1], -1), 0


def _batch_norm(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, int]:
    mean, variance, scale, offset = _all_per_channel(dimensions[1:], models, running_mean, running_var, weight, bias)
    joined = _beside_channels(inputs, dimensions[0], models)
    return _apart(functional.batch_norm(joined, mean, variance, scale, offset, training, momentum, eps), models)


def _group_norm(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, int]:
    scale, offset = _all_per_channel(dimensions[2:], models, weight, bias)
    joined = _beside_channels(inputs, dimensions[0], models)
    return _apart(functional.group_norm(joined, num_groups * models, scale, offset, eps), models)


def _instance_norm(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, int]:
    mean, variance, scale, offset = _all_per_channel(dimensions[1:], models, running_mean, running_var, weight, bias)
    joined = _beside_channels(inputs, dimensions[0], models)
    normalized = functional.instance_norm(joined, mean, variance, scale, offset, use_input_stats, momentum, eps)
    return _apart(normalized, models)


def _pooling(pool: Callable[..., Any]) -> Rule:
    """Return the rule of a pooling, which treats every channel of every image alike: S joins what it is beside."""

    def rule(dimensions: Dimensions, models: int, inputs: Tensor, *options: Any, **named: Any) -> tuple[Tensor, int]:
        if dimensions[0] == 1:
            return _apart(pool(inputs.flatten(1, 2), *options, **named), models)
        stacked = _outermost(inputs, dimensions[0], models)
        pooled: Tensor = pool(stacked.flatten(0, 1), *options, **named)
        return pooled.view(models, -1, *pooled.shape[1:]), 0

    return rule


_CONVOLUTIONS: Mapping[Convolution, Rule] = {"grouped": _convolution_by_groups, "matmul": _convolution_by_products}
