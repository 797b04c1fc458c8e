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

from ablation.training.together.dropout import Masks

Convolution = Literal["grouped", "matmul"]
Dimensions = tuple[int | None, ...]
Rule = Callable[..., tuple[Tensor, int]]


class StackedOperations(TorchFunctionMode):
    """While active inside `vmap`, layers are computed by the rules of this module, and dropout draws for each model."""

    def __init__(self, convolution: Convolution, masks: Masks) -> None:
        super().__init__()
        self._masks = masks
        self._rules: dict[Callable[..., Any], Rule] = {
            functional.conv2d: _CONVOLUTIONS[convolution],
            functional.linear: _linear,
            functional.cross_entropy: _cross_entropy,
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
        # A rule's first tensor is `inputs`: `input` would shadow Python's own.
        named = {"inputs" if name == "input" else name: value for name, value in (kwargs or {}).items()}
        bound = inspect.signature(rule).bind((), 0, *args, **named)
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
        return (self._masks.applied_to(stacked, p) if training and p else stacked), 0


class _Stacked(torch.autograd.Function):
    """Hands the physical tensors of a call inside `vmap` to a rule, whose operations autograd sees.

    The parameters of a rule are named and ordered as those of the function it stands for, but for `inputs`.
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
    # Cast before windows are built, of which there are as many times more as a kernel has pixels.
    stacked = _as_products_are(_outermost(inputs, dimensions[0], models)).permute(0, 1, 3, 4, 2)  # (S, B, H, W, C)
    kernels = _as_products_are(_outermost(weight, dimensions[1], models)).permute(0, 1, 3, 4, 2)  # (S, O, h, w, C)
    padded = (
        functional.pad(stacked, (0, 0, padding[1], padding[1], padding[0], padding[0])) if any(padding) else stacked
    )
    windows = padded.unfold(2, kernels.shape[2], stride[0]).unfold(3, kernels.shape[3], stride[1])
    rows = windows.permute(0, 1, 2, 3, 5, 6, 4)  # (S, B, H', W', h, w, C): channels stay innermost, as in memory
    biases = None if bias is None else _outermost(bias, dimensions[2], models).unsqueeze(1)
    products = _product(biases, rows.reshape(models, -1, kernels[0, 0].numel()), kernels.flatten(2).mT)
    return products.view(*rows.shape[:4], -1).permute(0, 1, 4, 2, 3), 0  # products (S, B·H'·W', O)


def _product(biases: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
    """Return the batched product, in the type that autocast gives products, with what is added to it."""
    return torch.bmm(first, second) if biases is None else torch.baddbmm(biases, first, second)


def _as_products_are(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that autocast gives products."""
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype != torch.float32:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def _pair(value: Any) -> tuple[int, int] | None:
    """Return a convolution's option as (rows, columns); None of a padding given by name."""
    if isinstance(value, str):
        return (0, 0) if value == "valid" else None
    return (value, value) if isinstance(value, int) else tuple(value)


def _linear(
    dimensions: Dimensions, models: int, inputs: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, int]:
    stacked = _outermost(inputs, dimensions[0], models)
    weights = _outermost(weight, dimensions[1], models)  # (S, outputs, inputs)
    biases = None if bias is None else _outermost(bias, dimensions[2], models)
    if stacked.dim() == 3:
        # Transposed, the gradient of the weights comes out in their own layout, and is not copied into it.
        return _product(None if biases is None else biases.unsqueeze(2), weights, stacked.mT).mT, 0
    rows = stacked.reshape(models, -1, stacked.shape[-1])
    products = _product(None if biases is None else biases.unsqueeze(1), rows, weights.mT)
    return products.view(*stacked.shape[:-1], -1), 0


def _cross_entropy(
    dimensions: Dimensions,
    models: int,
    inputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[Tensor, int]:
    """Compute the loss of every example at once, and each model's reduction; what is uncommon goes by `vmap` itself."""
    logits, truth = (_outermost(one, own, models) for one, own in zip((inputs, target), dimensions, strict=False))
    is_by_class = truth.dtype == torch.int64
    is_plain = size_average is None and reduce is None and reduction in ("mean", "sum", "none")
    if (
        not is_plain
        or dimensions[2] is not None
        or logits.dim() < 3
        or not (is_by_class or truth.dim() == logits.dim())
    ):
        options = (weight, size_average, ignore_index, reduce, reduction, label_smoothing)
        return torch.vmap(functional.cross_entropy, dimensions)(inputs, target, *options), 0
    # Of (S, classes, B, …), as a linear layer leaves logits in memory.
    losses = functional.cross_entropy(
        logits.movedim(2, 1),
        truth if is_by_class else truth.movedim(2, 1),
        weight,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )  # (S, B, …)
    match reduction:
        case "none":
            return losses, 0
        case "sum":
            return losses.flatten(1).sum(1), 0
        case _ if is_by_class:
            return losses.flatten(1).sum(1) / _counted(truth, weight, ignore_index).flatten(1).sum(1), 0
        case _:
            return losses.flatten(1).mean(1), 0


def _counted(truth: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
    """Return what each label counts in a mean: the weight of its class, and nothing where it is ignored."""
    is_counted = truth != ignore_index
    return is_counted if weight is None else weight[truth.where(is_counted, 0)].where(is_counted, 0)


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
