"""Builds a study's network as it is usually written: convolution, norm and activation as placed, then pooling."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ablation.models import build_model
from ablation.models.cnn import ACTIVATIONS
from ablation.records import DataShape, ModelSettings


def plain_model(settings: Mapping[str, Any], shape: DataShape, *, seed: int = 0) -> nn.Module:
    """Build the model of a `model` section; torchvision's are what they are."""
    torch.manual_seed(seed)
    if settings["name"] != "cnn":
        return build_model(ModelSettings.from_plain(settings), shape)
    layers: list[nn.Module] = []
    channels = shape.channels
    for block in range(settings["depth"]):
        outputs = settings["width"] * 2**block
        for repeat, inputs in enumerate((channels, *[outputs] * settings.get("repeats", 0))):
            padding = settings["kernel"] // 2
            layers.append(nn.Conv2d(inputs, outputs, settings["kernel"], padding=padding))
            layers += _activated(settings, _norm2d(settings, outputs))
            if repeat == 0:
                layers.append(nn.MaxPool2d(2))
        channels = outputs
    features = channels * (shape.height // 2 ** settings["depth"]) * (shape.width // 2 ** settings["depth"])
    return nn.Sequential(*layers, nn.Flatten(), *_dense(settings, features, len(shape.classes)))


def _dense(settings: Mapping[str, Any], features: int, classes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for outputs in settings["dense"]:
        layers += [*_dropout(settings), nn.Linear(features, outputs)]
        layers += _activated(settings, _norm1d(settings, outputs))
        features = outputs
    return [*layers, *_dropout(settings), nn.Linear(features, classes)]


def _activated(settings: Mapping[str, Any], norm: list[nn.Module]) -> list[nn.Module]:
    activation = ACTIVATIONS[settings["activation"]]()
    return [activation, *norm] if settings["normalization_placement"] == "after" else [*norm, activation]


def _norm2d(settings: Mapping[str, Any], channels: int) -> list[nn.Module]:
    match settings["normalization"]:
        case "batch":
            return [nn.BatchNorm2d(channels)]
        case "layer":
            return [nn.GroupNorm(1, channels)]
        case "group":
            return [nn.GroupNorm(settings["groups"], channels)]
        case "instance":
            return [nn.InstanceNorm2d(channels, affine=True)]
    return []


def _norm1d(settings: Mapping[str, Any], features: int) -> list[nn.Module]:
    match settings["normalization"]:
        case "batch":
            return [nn.BatchNorm1d(features)]
        case "layer":
            return [nn.LayerNorm(features)]
        case "group":
            return [nn.GroupNorm(settings["groups"], features)]
    return []


def _dropout(settings: Mapping[str, Any]) -> list[nn.Module]:
    return [nn.Dropout(settings["dropout"])] if settings["dropout"] else []
