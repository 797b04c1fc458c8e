"""Builds a `model` section's model: built in, torchvision's or the user's own; then takes parts out, freezes others."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ablation.code import NO_FOLDERS, CodeFolders, bound, is_code, running
from ablation.errors import CodeInvalid, ModelInvalid
from ablation.models.cnn import build_cnn
from ablation.models.component_names import names_of
from ablation.models.components import Replacement, edit_model
from ablation.models.frozen import freeze
from ablation.models.probe import example_input
from ablation.models.replacements import replacement
from ablation.models.torchvision_models import build_torchvision
from ablation.records import DataShape, ModelSettings

BUILT_IN: Mapping[str, Callable[[Mapping[str, Any], DataShape], nn.Module]] = {"cnn": build_cnn}


def build_model(settings: ModelSettings, shape: DataShape, *, code: CodeFolders = NO_FOLDERS) -> nn.Module:
    """Build the model of a `model` section for data of a shape, initialized from torch's global generator.

    Parts are taken out, replaced and frozen; the weights of its file are for `load_weights`.

    Raises:
        ModelInvalid: the settings do not fit each other, or the data.
        ComponentInvalid: what shall be removed, replaced or frozen is not there, or cannot be.
        CodeInvalid: the user's code cannot be imported, or raised an error.
    """
    model = _whole(settings, shape, code)
    if not settings.remove and not settings.replace:
        return freeze(model, settings.frozen)
    whole, example = names_of(model), _example(model, shape)
    replacements = {pattern: _replacement(name, code) for pattern, name in settings.replace.items()}
    return freeze(
        edit_model(model, example, remove=settings.remove, replace=replacements), settings.frozen, whole=whole
    )


def _whole(settings: ModelSettings, shape: DataShape, code: CodeFolders) -> nn.Module:
    name = settings.name
    if is_code(name):
        return _own(settings, shape, code)
    if shape.features:
        raise ModelInvalid(f"{name} is for images, and the data are features {shape.features}", path="model.name")
    if name.startswith("torchvision:"):
        return build_torchvision({"name": name, **settings.arguments}, shape)
    return BUILT_IN[name](settings.arguments, shape)


def _own(settings: ModelSettings, shape: DataShape, code: CodeFolders) -> nn.Module:
    name = settings.name
    function: Callable[..., Any] = code.load(name, path="model.name")
    keywords = bound(function, settings.arguments, offered={"data_shape": shape}, section="model")
    with running(name, path="model.name", doing="it built the model"):
        model = function(**keywords)
        if isinstance(model, nn.Module):
            _initialize_lazy(model, shape)
    if not isinstance(model, nn.Module):
        raise CodeInvalid(f"{name} returned {type(model).__name__}, not an nn.Module", path="model.name")
    return model


def _initialize_lazy(model: nn.Module, shape: DataShape) -> None:
    """Give torch's lazy modules their shapes, which they take from the first example they see."""
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        was_training = model.training
        with torch.no_grad():
            model.eval()(_example(model, shape))
        model.train(was_training)


def _example(model: nn.Module, shape: DataShape) -> torch.Tensor:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return example_input(shape).to(device)


def _replacement(name: str, code: CodeFolders) -> Replacement:
    if not is_code(name):
        return replacement(name)
    function: Replacement = code.load(name, path="model.replace")
    return function
