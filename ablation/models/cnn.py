"""Builds the built-in CNN: convolution blocks, each halving the image, then dense layers.

With `repeats`, each block is followed by so many more of its width that leave the image's size alone.

With depth 3, width 32 and no normalization it is the course assignment's network of 364,426 parameters: 3×3 'same'
convolutions of 32, 64 and 128 channels, each with ReLU and 2×2 max pooling, then dense layers 128 → 64 → classes.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from ablation.errors import ModelInvalid
from ablation.records import DataShape

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}
Norm = Callable[[int, int], nn.Module | None]
"""(groups, channels) to a layer; None where nothing is normalized."""

NORMS_2D: Mapping[str, Norm] = {
    "batch": lambda _groups, channels: nn.BatchNorm2d(channels),
    "none": lambda _groups, _channels: None,
    "group": lambda groups, channels: nn.GroupNorm(groups, channels),
    "layer": lambda _groups, channels: nn.GroupNorm(1, channels),
    "instance": lambda _groups, channels: nn.InstanceNorm2d(channels, affine=True),
}
"""Of images (B, C, H, W)."""
NORMS_1D: Mapping[str, Norm] = {
    "batch": lambda _groups, features: nn.BatchNorm1d(features),
    "none": lambda _groups, _features: None,
    "group": lambda groups, features: nn.GroupNorm(groups, features),
    "layer": lambda _groups, features: nn.LayerNorm(features),
    "instance": lambda _groups, _features: None,  # it normalizes over an image's pixels, and features have none
}
"""Of features (B, F)."""
PLACEMENTS: Mapping[str, tuple[str, str]] = {"before": ("norm", "activation"), "after": ("activation", "norm")}


class Cnn(nn.Module):
    """Convolution blocks and a dense head; (B, C, H, W) standardized images to (B, classes) logits."""

    def __init__(self, blocks: nn.Sequential, dense: nn.Sequential) -> None:
        super().__init__()
        self.blocks = blocks
        self.dense = dense

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(images)  # (B, width × 2^(depth-1), H / 2^depth, W / 2^depth)
        logits: Tensor = self.dense(features.flatten(1))
        return logits


def build_cnn(settings: Mapping[str, Any], shape: DataShape) -> Cnn:
    """Build the model of a `model` section for images of a shape, initialized from torch's global generator.

    Raises:
        ModelInvalid: the images are too small for the depth, or the groups do not divide the channels.
    """
    _check(settings, shape)
    width, depth = int(settings["width"]), int(settings["depth"])
    channels = [shape.channels, *(width * 2**block for block in range(depth))]
    blocks = nn.Sequential()
    for block, (inputs, outputs) in enumerate(pairwise(channels), start=1):
        blocks.add_module(f"block{block}", _block(settings, inputs, outputs))
        for repeat in range(1, int(settings.get("repeats", 0)) + 1):
            blocks.add_module(f"block{block}_repeat{repeat}", _block(settings, outputs, outputs, is_pooled=False))
    features = channels[-1] * (shape.height // 2**depth) * (shape.width // 2**depth)
    return Cnn(blocks, _dense(settings, features, shape.outputs))


def _check(settings: Mapping[str, Any], shape: DataShape) -> None:
    depth, width, groups = int(settings["depth"]), int(settings["width"]), int(settings["groups"])
    side = min(shape.height, shape.width)
    if side < 2**depth:
        message = f"depth {depth} needs images of at least {2**depth}×{2**depth}, not {shape.height}×{shape.width}"
        possible = side.bit_length() - 1
        raise ModelInvalid(f"{message}; at most {possible} here", path="model.depth")
    if settings["normalization"] == "group":
        for size in (width, *settings["dense"]):
            if size % groups:
                raise ModelInvalid(f"{groups} groups do not divide {size} channels", path="model.groups")


def _block(settings: Mapping[str, Any], inputs: int, outputs: int, *, is_pooled: bool = True) -> nn.Sequential:
    kernel = int(settings["kernel"])
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    made = {
        "convolution": convolution,
        "norm": NORMS_2D[settings["normalization"]](int(settings["groups"]), outputs),
        "activation": ACTIVATIONS[settings["activation"]](),
        "pool": nn.MaxPool2d(2) if is_pooled else None,
    }
    middle = PLACEMENTS[settings["normalization_placement"]]
    order = ("convolution", *middle, "pool")
    if settings["activation"] == "relu" and (made["norm"] is None or middle[-1] == "activation"):
        # Max pooling and ReLU commute to the bit, forward and backward; pooling first leaves a quarter of the work.
        order = ("convolution", "norm", "pool", "activation")
    return _sequence({part: made[part] for part in order})


def _dense(settings: Mapping[str, Any], features: int, classes: int) -> nn.Sequential:
    head: dict[str, nn.Module | None] = {}
    for index, outputs in enumerate(settings["dense"], start=1):
        made = {
            "norm": NORMS_1D[settings["normalization"]](int(settings["groups"]), outputs),
            "activation": ACTIVATIONS[settings["activation"]](),
        }
        head[f"dropout{index}"] = _dropout(settings)
        head[f"dense{index}"] = nn.Linear(features, outputs)
        head |= {f"{part}{index}": made[part] for part in PLACEMENTS[settings["normalization_placement"]]}
        features = outputs
    head["dropout"] = _dropout(settings)
    head["logits"] = nn.Linear(features, classes)
    return _sequence(head)


def _dropout(settings: Mapping[str, Any]) -> nn.Module | None:
    return nn.Dropout(settings["dropout"]) if settings["dropout"] else None


def _sequence(modules: Mapping[str, nn.Module | None]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, module in modules.items():
        if module is not None:
            sequence.add_module(name, module)
    return sequence
