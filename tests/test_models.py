"""The built-in CNN is the assignment's network, takes every normalization in either place, and is measured exactly."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablation.errors import ModelInvalid
from ablation.models import Cnn, build_model, example_input, list_components, summarize_model
from ablation.models.cnn import NORMS_1D, NORMS_2D, Norm
from ablation.records import DataShape, ModelSettings

CIFAR10 = DataShape(channels=3, height=32, width=32, classes=tuple("abcdefghij"))
SMALL = DataShape(channels=3, height=16, width=16, classes=tuple("abcde"))
ASSIGNMENT = {
    "name": "cnn",
    "depth": 3,
    "width": 32,
    "kernel": 3,
    "dense": (128, 64),
    "normalization": "none",
    "normalization_placement": "after",
    "groups": 8,
    "dropout": 0.0,
    "activation": "relu",
}
NORMALIZATIONS = sorted(NORMS_2D)
THREE_BLOCKS = [
    ("blocks.block1.convolution", 896, (32, 32, 32)),
    ("blocks.block1.pool", 0, (32, 16, 16)),
    ("blocks.block2.convolution", 18_496, (64, 16, 16)),
    ("blocks.block2.pool", 0, (64, 8, 8)),
    ("blocks.block3.convolution", 73_856, (128, 8, 8)),
    ("blocks.block3.pool", 0, (128, 4, 4)),
]
FOURTH_BLOCK = [("blocks.block4.convolution", 295_168, (256, 4, 4)), ("blocks.block4.pool", 0, (256, 2, 2))]
HEAD = [("dense.dense2", 8_256, (64,)), ("dense.logits", 650, (10,))]


def model_of(shape: DataShape = CIFAR10, /, **changes: Any) -> Cnn:
    torch.manual_seed(0)
    return build_model(ModelSettings.from_plain({**ASSIGNMENT, **changes}), shape)


def small(**changes: Any) -> Cnn:
    """Build a model that trains in milliseconds, for 3×16×16 images."""
    return model_of(SMALL, **{"width": 8, "dense": (16, 8), "groups": 4, **changes})


def layers_of(model: nn.Module) -> list[str]:
    """Name the leaf modules of a block or a head in the order they are run."""
    return [name.rpartition(".")[2].rstrip("0123456789") for name, module in model.named_modules() if is_leaf(module)]


def is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


@pytest.mark.parametrize(
    ("depth", "expected", "total"),
    [
        (3, [*THREE_BLOCKS, ("dense.dense1", 262_272, (128,)), *HEAD], 364_426),
        (4, [*THREE_BLOCKS, *FOURTH_BLOCK, ("dense.dense1", 131_200, (128,)), *HEAD], 528_522),
    ],
)
def test_network_is_the_assignments_layer_by_layer(
    depth: int, expected: list[tuple[str, int, tuple[int, ...]]], total: int
) -> None:
    summary = summarize_model(lambda: model_of(depth=depth), CIFAR10)

    measured = [
        (layer.name, layer.parameters, layer.output_shape) for layer in summary.layers if "activation" not in layer.name
    ]
    assert expected == measured
    assert total == summary.parameters == sum(layer.parameters for layer in summary.layers)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("depth", range(1, 5))
def test_every_normalization_placement_and_depth_learns(normalization: str, placement: str, depth: int) -> None:
    model = small(depth=depth, normalization=normalization, normalization_placement=placement)
    images = torch.randn(6, 3, 16, 16)

    logits = model(images)
    logits.square().sum().backward()

    assert logits.shape == (6, 5)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert any(parameter.grad.abs().sum() > 0 for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("normalization", sorted({*NORMALIZATIONS} - {"none"}))
@pytest.mark.parametrize(
    ("placement", "block"),
    [
        ("before", ["convolution", "norm", "pool", "activation"]),
        ("after", ["convolution", "activation", "norm", "pool"]),
    ],
)
def test_every_convolution_is_normalized_where_the_placement_says(
    normalization: str, placement: str, block: list[str]
) -> None:
    model = small(normalization=normalization, normalization_placement=placement)

    assert [block] * 3 == [layers_of(child) for child in model.blocks.children()]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("placement", ["before", "after"])
def test_every_hidden_dense_layer_is_normalized_but_by_instance(normalization: str, placement: str) -> None:
    model = small(normalization=normalization, normalization_placement=placement)

    pair = ["norm", "activation"] if placement == "before" else ["activation", "norm"]
    hidden = pair if normalization not in ("none", "instance") else ["activation"]
    assert ["dense", *hidden, "dense", *hidden, "logits"] == layers_of(model.dense)


@pytest.mark.parametrize("normalization", sorted({*NORMALIZATIONS} - {"none"}))
@pytest.mark.parametrize(("norms", "shape"), [(NORMS_2D, (6, 8, 4, 4)), (NORMS_1D, (6, 8))])
def test_what_is_normalized_has_no_scale_of_its_own(
    normalization: str, norms: Mapping[str, Norm], shape: tuple[int, ...]
) -> None:
    norm = norms[normalization](2, 8)
    inputs = torch.randn(*shape)

    if norm is not None:  # instance normalization of features
        torch.testing.assert_close(norm(inputs), norm(100 * inputs), rtol=1e-3, atol=1e-3)
        assert not torch.allclose(norm(inputs), inputs, atol=0.01)


def test_normalized_variants_add_a_scale_and_a_shift_per_channel() -> None:
    plain = summarize_model(lambda: model_of(normalization="none"), CIFAR10).parameters
    normalized = summarize_model(lambda: model_of(normalization="batch"), CIFAR10).parameters

    assert plain + 2 * (32 + 64 + 128 + 128 + 64) == normalized


def test_seed_gives_the_same_weights_again() -> None:
    first, again = small(normalization="batch").state_dict(), small(normalization="batch").state_dict()

    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_pooling_before_relu_is_equal_to_the_bit_forward_and_backward(normalization: str) -> None:
    model = small(normalization=normalization, normalization_placement="before").train()
    reference = small(normalization=normalization, normalization_placement="before").train()
    images = torch.randn(8, 3, 16, 16, requires_grad=True)
    same_images = images.detach().clone().requires_grad_()

    logits, expected = model(images), conv_norm_relu_pool(reference, same_images)
    logits.square().sum().backward()
    expected.square().sum().backward()

    assert torch.equal(expected, logits)
    assert torch.equal(same_images.grad, images.grad)
    for (name, parameter), other in zip(model.named_parameters(), reference.parameters(), strict=True):
        assert torch.equal(other.grad, parameter.grad), name


def conv_norm_relu_pool(model: Cnn, images: Tensor) -> Tensor:
    for block in model.blocks.children():
        named = dict(block.named_children())
        features = named["norm"](named["convolution"](images)) if "norm" in named else named["convolution"](images)
        images = nn.functional.max_pool2d(nn.functional.relu(features), 2)
    logits: Tensor = model.dense(images.flatten(1))
    return logits


@pytest.mark.parametrize("placement", ["before", "after"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_no_repeats_are_the_same_model_to_the_bit(normalization: str, placement: str) -> None:
    settings = {"normalization": normalization, "normalization_placement": placement}
    expected, model = small(**settings), small(**settings, repeats=0)

    assert repr(expected) == repr(model)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in expected.state_dict().items())


def test_repeated_blocks_follow_theirs_without_a_pool() -> None:
    model = small(depth=2, normalization="batch", normalization_placement="before", repeats=2)

    pooled, repeated = ["convolution", "norm", "pool", "activation"], ["convolution", "norm", "activation"]
    assert [
        ("block1", pooled),
        ("block1_repeat1", repeated),
        ("block1_repeat2", repeated),
        ("block2", pooled),
        ("block2_repeat1", repeated),
        ("block2_repeat2", repeated),
    ] == [(name, layers_of(block)) for name, block in model.blocks.named_children()]


def test_every_repeated_block_can_be_left_out() -> None:
    def build() -> nn.Module:
        return small(depth=2, repeats=1)

    blocks = [component for component in list_components(build, SMALL) if component.name.count(".") == 1]

    removable = {component.name for component in blocks if component.is_removable and "block" in component.name}
    assert {"blocks.block1_repeat1", "blocks.block2_repeat1"} == removable


def test_other_activations_are_pooled_after() -> None:
    model = small(activation="gelu")

    assert [["convolution", "activation", "pool"]] * 3 == [layers_of(child) for child in model.blocks.children()]


def test_dropout_stands_before_every_dense_layer() -> None:
    model = small(dropout=0.3)

    expected = ["dropout", "dense", "activation", "dropout", "dense", "activation", "dropout", "logits"]
    assert expected == layers_of(model.dense)


@pytest.mark.parametrize(("height", "width"), [(15, 64), (64, 15), (8, 8)])
def test_image_too_small_for_the_depth_is_refused_by_name(height: int, width: int) -> None:
    shape = DataShape(channels=1, height=height, width=width, classes=("a", "b"))

    with pytest.raises(ModelInvalid, match=f"depth 4 needs images of at least 16×16, not {height}×{width}") as caught:
        model_of(shape, depth=4)

    assert caught.value.path == "model.depth"
    assert str(caught.value).endswith("at most 3 here @ model.depth")


@pytest.mark.parametrize("depth", range(1, 6))
def test_smallest_image_for_a_depth_is_taken(depth: int) -> None:
    shape = DataShape(channels=1, height=2**depth, width=2**depth, classes=("a", "b"))

    assert model_of(shape, depth=depth)(torch.zeros(2, 1, 2**depth, 2**depth)).shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "size"), [({"width": 12}, 12), ({"dense": (128, 60)}, 60), ({"width": 4, "depth": 1}, 4)]
)
def test_groups_that_do_not_divide_are_refused_by_name(changes: dict[str, Any], size: int) -> None:
    with pytest.raises(ModelInvalid, match=f"8 groups do not divide {size} channels @ model.groups") as caught:
        model_of(normalization="group", **changes)

    assert caught.value.path == "model.groups"


def test_groups_do_not_matter_to_other_normalizations() -> None:
    assert summarize_model(lambda: model_of(normalization="layer", groups=7), CIFAR10).parameters > 0


@pytest.mark.parametrize(("depth", "kernel"), list(itertools.product((1, 3, 4), (1, 3, 5))))
def test_flops_are_two_per_multiplication_of_convolutions_and_products(depth: int, kernel: int) -> None:
    summary = summarize_model(lambda: model_of(depth=depth, kernel=kernel, normalization="batch"), CIFAR10)

    channels, sides = [3, *(32 * 2**block for block in range(depth))], [32 // 2**block for block in range(depth)]
    convolutions = [
        kernel**2 * inputs * outputs * side**2
        for inputs, outputs, side in zip(channels, channels[1:], sides, strict=False)
    ]
    features = channels[-1] * (32 // 2**depth) ** 2
    assert 2 * (sum(convolutions) + features * 128 + 128 * 64 + 64 * 10) == summary.flops


def test_measuring_leaves_torchs_generator_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()

    summarize_model(lambda: build_model(ModelSettings.from_plain(ASSIGNMENT), CIFAR10), CIFAR10)

    assert torch.equal(before, torch.get_rng_state())


def test_an_example_is_an_image_or_so_many_features() -> None:
    features = DataShape(channels=0, height=0, width=0, classes=("a",), features=(7,))

    assert (3, 32, 32) == CIFAR10.input_shape
    assert (7,) == features.input_shape


def test_a_model_of_whole_numbers_is_measured_with_whole_numbers() -> None:
    tokens = DataShape(
        channels=0, height=0, width=0, classes=("a", "b"), features=(6,), target_shape=(6,), vocabulary=5
    )

    summary = summarize_model(lambda: nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2)), tokens)

    assert 5 * 4 + 4 * 2 + 2 == summary.parameters
    assert torch.int64 == example_input(tokens).dtype
