"""Builds torchvision's classifiers, untrained, for a data set: its channels and classes, another norm, stem or width.

The modules are exchanged after torchvision has built and initialized them, in an order that draws the same initial
weights whatever the normalization. torchvision is imported when a model of it is built.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ablation.errors import ModelInvalid
from ablation.lookup import nearest_names
from ablation.models.cnn import NORMS_2D
from ablation.models.probe import example_input
from ablation.records import DataShape

PREFIX = "torchvision:"
SMALL_STEMS = (
    *("DenseNet", "EfficientNet", "GoogLeNet", "Inception3", "MNASNet", "MobileNetV2", "MobileNetV3"),
    *("RegNet", "ResNet", "ShuffleNetV2", "SqueezeNet"),
)
WITH_AUXILIARY = ("googlenet", "inception_v3")
STEMS: Mapping[str, bool] = {"imagenet": False, "small": True}
"""Whether the stem is made small."""
SET_HERE = ("weights", "progress", "num_classes", "aux_logits")


def build_torchvision(settings: Mapping[str, Any], shape: DataShape) -> nn.Module:
    """Build the model `torchvision:<name>`, initialized from torch's global generator; nothing is downloaded.

    Settings: `normalization` (batch: torchvision's own norms; any other of NORMS_2D in place of every BatchNorm2d),
    `groups`, `stem` (imagenet; small: a 3×3 first convolution of stride 1 and no max pool after it), `width` (a factor
    of all channels but the images' and the classes'). Other keys go to torchvision.

    Raises:
        ModelInvalid: there is no such model or setting, or it does not go with the images.
    """
    options = dict(settings)
    name = str(options.pop("name")).removeprefix(PREFIX)
    normalization, groups = options.pop("normalization", "batch"), int(options.pop("groups", 8))
    stem, width = options.pop("stem", "imagenet"), float(options.pop("width", 1.0))
    _check_values(name, shape, normalization=normalization, stem=stem, width=width)
    model = _built(name, options, shape)
    size = f"{shape.height}×{shape.width}"
    _adapt_stem(model, name, shape.channels, is_small=STEMS[stem])
    _check_runs(model, shape, f"{name} does not take images of {size}", path="model.name")
    if width != 1:
        _scale_width(model, width)
        _check_runs(model, shape, f"{name} cannot be made {width:g} times as wide", path="model.width")
    if normalization != "batch":
        _exchange_norms(model, name, normalization, groups)
        message = f"{name} does not take {normalization} normalization with images of {size}"
        _check_runs(model, shape, message, path="model.normalization")
    return model


def _check_values(name: str, shape: DataShape, *, normalization: str, stem: str, width: float) -> None:
    if shape.features:
        message = f"{name} classifies images, and the data are features of shape {shape.features}"
        raise ModelInvalid(f"{message}; use another model", path="model.name")
    for path, value, allowed in (
        ("model.normalization", normalization, NORMS_2D),
        ("model.stem", stem, STEMS),
    ):
        if value not in allowed:
            raise ModelInvalid(f"{value!r} is none of {', '.join(allowed)}", path=path)
    if not 0 < width < float("inf"):
        raise ModelInvalid(f"a width of {width:g} is no factor greater than 0", path="model.width")


def _built(name: str, options: Mapping[str, Any], shape: DataShape) -> nn.Module:
    builder = _builder(name)
    for key in SET_HERE:
        if key in options:
            raise ModelInvalid(
                f"{key} cannot be set: models are untrained, with one output per class", path=f"model.{key}"
            )
    fixed: dict[str, Any] = {"weights": None, "num_classes": shape.outputs}
    if name in WITH_AUXILIARY:
        fixed |= {"aux_logits": False, "init_weights": True}
    try:
        model: nn.Module = builder(**{**fixed, **_image_size(builder, shape), **options})
    except NotImplementedError:  # some are built with values, which the meta device has none of
        raise
    except Exception as error:
        raise _refusal(name, builder, options, error) from error
    return model


def _builder(name: str) -> Callable[..., nn.Module]:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = nearest_names(name.lower(), known)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known[:5])}, …"
        raise ModelInvalid(f"torchvision has no classifier {name!r}; {hint}", path="model.name")
    builder: Callable[..., nn.Module] = torchvision.models.get_model_builder(name)
    return builder


def _image_size(builder: Callable[..., nn.Module], shape: DataShape) -> dict[str, Any]:
    """Return the image size for the models that are made for one size alone."""
    keywords = _keywords(builder)
    if "input_size" in keywords:
        return {"input_size": (shape.height, shape.width)}
    return {"image_size": shape.height} if "image_size" in keywords else {}


def _keywords(builder: Callable[..., nn.Module]) -> list[str]:
    """Return the keywords of the class that a builder makes."""
    made = inspect.signature(builder).return_annotation
    return list(inspect.signature(made).parameters) if isinstance(made, type) else []


def _refusal(
    name: str, builder: Callable[..., nn.Module], options: Mapping[str, Any], error: Exception
) -> ModelInvalid:
    """Say why torchvision would not build a model, at the key that its error names."""
    named = [word for word in re.findall(r"\w+", str(error)) if word in options]
    if not named:
        return ModelInvalid(f"torchvision cannot build {name}: {_said(error)}", path="model.name")
    key = named[0]
    if "unexpected keyword" in str(error):
        known = [keyword for keyword in _keywords(builder) if keyword not in SET_HERE]
        near = nearest_names(key, known) or known
        return ModelInvalid(f"{name} has no setting {key!r}; it has {', '.join(near)}", path=f"model.{key}")
    if "multiple values" in str(error):
        return ModelInvalid(f"{name} sets {key} itself; leave it out", path=f"model.{key}")
    return ModelInvalid(f"torchvision cannot build {name}: {_said(error)}", path=f"model.{key}")


def _adapt_stem(model: nn.Module, name: str, channels: int, *, is_small: bool) -> None:
    if is_small and type(model).__name__ not in SMALL_STEMS:
        families = ", ".join(SMALL_STEMS)
        message = f"{name} has no stem of stride 2 to make small; models of these families have: {families}"
        raise ModelInvalid(message, path="model.stem")
    convolutions = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    first = model.get_submodule(convolutions[0])
    assert isinstance(first, nn.Conv2d)
    small = {"kernel_size": 3, "stride": 1, "padding": 1} if is_small else {}
    if is_small or first.in_channels != channels:
        model.set_submodule(convolutions[0], _convolution_like(first, in_channels=channels, **small))
    if is_small:
        keys = [key for key, _ in model.named_modules()]
        for key in keys[keys.index(convolutions[0]) : keys.index(convolutions[1])]:
            if isinstance(model.get_submodule(key), nn.MaxPool2d):
                model.set_submodule(key, nn.Identity())


def _scale_width(model: nn.Module, factor: float) -> None:
    """Exchange every layer for one of so many times the channels, but for the images' and the classes'."""

    def scaled(channels: int) -> int:
        return max(1, round(channels * factor))

    weighted = [key for key, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for key, module in list(model.named_modules()):
        inputs = (lambda channels: channels) if key == weighted[0] else scaled
        outputs = (lambda channels: channels) if key == weighted[-1] else scaled
        match module:
            case nn.Conv2d():
                new: nn.Module = _scaled_convolution(module, key, inputs, outputs)
            case nn.Linear():
                new = nn.Linear(inputs(module.in_features), outputs(module.out_features), module.bias is not None)
            case nn.BatchNorm2d():
                new = nn.BatchNorm2d(scaled(module.num_features), eps=module.eps, momentum=module.momentum)
                _fill(new, module.weight[:1], module.bias[:1])
            case nn.LayerNorm():
                new = type(module)([scaled(size) for size in module.normalized_shape], eps=module.eps)
                _fill(new, module.weight[:1], module.bias[:1])
            case _:
                continue
        model.set_submodule(key, new)


def _scaled_convolution(
    module: nn.Conv2d, key: str, inputs: Callable[[int], int], outputs: Callable[[int], int]
) -> nn.Conv2d:
    in_channels, out_channels = inputs(module.in_channels), outputs(module.out_channels)
    is_depthwise = module.groups == module.in_channels > 1
    groups = in_channels if is_depthwise else module.groups
    for channels in (in_channels, out_channels):
        if channels % groups:
            message = f"the {groups} groups of {key} would not divide its {channels} channels; choose another width"
            raise ModelInvalid(message, path="model.width")
    return _convolution_like(module, in_channels=in_channels, out_channels=out_channels, groups=groups)


def _convolution_like(convolution: nn.Conv2d, **changes: Any) -> nn.Conv2d:
    """Return a new convolution with some arguments changed, initialized as torchvision's ResNet does."""
    kept = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    arguments = {key: getattr(convolution, key) for key in kept} | changes
    new = nn.Conv2d(**arguments, bias=convolution.bias is not None)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def _exchange_norms(model: nn.Module, name: str, normalization: str, groups: int) -> None:
    norms = [(key, module) for key, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        message = f"{name} has no batch normalization to exchange for {normalization}; leave the setting out"
        raise ModelInvalid(message, path="model.normalization")
    for key, module in norms:
        if normalization == "group" and module.num_features % groups:
            message = f"{groups} groups do not divide the {module.num_features} channels of {key}"
            raise ModelInvalid(message, path="model.groups")
        new = NORMS_2D[normalization](groups, module.num_features)
        if new is not None:
            # A norm that starts at zero, as with zero_init_residual, still does.
            _fill(new, module.weight, module.bias)
        model.set_submodule(key, new or nn.Identity())


def _fill(norm: Any, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(bias)


def _check_runs(model: nn.Module, shape: DataShape, message: str, *, path: str) -> None:
    """Run the model without computing anything, on the meta device."""
    tensors = {key: tensor.to("meta") for key, tensor in [*model.named_parameters(), *model.named_buffers()]}
    try:
        with torch.no_grad(), torch.device("meta"):
            functional_call(model.eval(), tensors, (example_input(shape),))
    except Exception as error:
        raise ModelInvalid(f"{message}: {_said(error)}", path=path) from error
    finally:
        model.train()


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
