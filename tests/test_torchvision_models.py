"""torchvision's classifiers fit the data, and take another norm, stem or width without drawing other weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ablation.errors import ModelInvalid
from ablation.models import build_torchvision, list_components, summarize_model
from ablation.models.cnn import NORMS_2D
from ablation.records import DataShape, ModelSummary

CIFAR10 = DataShape(channels=3, height=32, width=32, classes=tuple("abcdefghij"))
GRAY = DataShape(channels=1, height=32, width=32, classes=("a", "b", "c"))
IMAGENET = DataShape(channels=3, height=224, width=224, classes=tuple(map(str, range(1000))))
TINY_RESNET = {"name": "torchvision:resnet18", "width": 0.125}


def built(shape: DataShape = CIFAR10, **settings: Any) -> nn.Module:
    torch.manual_seed(0)
    return build_torchvision({**TINY_RESNET, **settings}, shape)


def on_meta(name: str, shape: DataShape = CIFAR10, **settings: Any) -> nn.Module:
    with torch.device("meta"):
        return build_torchvision({"name": f"torchvision:{name}", **settings}, shape)


def size(name: str, shape: DataShape = CIFAR10, **settings: Any) -> ModelSummary:
    return summarize_model(lambda: build_torchvision({"name": f"torchvision:{name}", **settings}, shape), shape)


def refused(build: Callable[..., nn.Module], *arguments: Any, **settings: Any) -> ModelInvalid:
    with pytest.raises(ModelInvalid) as caught:
        build(*arguments, **settings)
    return caught.value


def kinds(model: nn.Module, *kinds: type) -> int:
    return sum(isinstance(module, kinds) for module in model.modules())


@pytest.mark.parametrize(
    ("name", "parameters", "gigaflops"),
    [("resnet18", 11_689_512, 1.81), ("mobilenet_v2", 3_504_872, 0.30), ("vit_b_16", 86_567_656, 17.56)],
)
def test_models_are_as_torchvision_documents_them(name: str, parameters: int, gigaflops: float) -> None:
    measured = size(name, IMAGENET)

    assert parameters == measured.parameters
    assert pytest.approx(gigaflops, abs=0.02) == measured.flops / 2e9


def test_a_model_made_with_values_is_measured_too() -> None:
    assert size("regnet_x_400mf").parameters == 5_495_976 - 400 * 1000 - 1000 + 400 * 10 + 10


@pytest.mark.parametrize("normalization", NORMS_2D)
def test_every_normalization_learns_and_draws_the_same_convolutions(normalization: str) -> None:
    batch, model = built(stem="small").state_dict(), built(normalization=normalization, groups=4, stem="small")

    model(torch.randn(2, 3, 32, 32)).square().sum().backward()

    convolutions = {key: value for key, value in model.state_dict().items() if value.dim() == 4}
    assert 20 == len(convolutions)
    assert all(torch.equal(batch[key], value) for key, value in convolutions.items())
    assert torch.equal(batch["fc.weight"], model.state_dict()["fc.weight"])
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("normalization", sorted({*NORMS_2D} - {"none"}))
def test_every_norm_is_exchanged(normalization: str) -> None:
    model = on_meta("resnet18", CIFAR10, normalization=normalization, stem="small")

    kind = type(NORMS_2D[normalization](8, 64))
    assert 20 == kinds(model, kind) == kinds(model, kind, nn.BatchNorm2d)


def test_groups_are_those_that_were_asked_for() -> None:
    grouped = on_meta("resnet18", normalization="group", groups=16)
    layered = on_meta("resnet18", normalization="layer", groups=16)

    assert {16} == {module.num_groups for module in grouped.modules() if isinstance(module, nn.GroupNorm)}
    assert {1} == {module.num_groups for module in layered.modules() if isinstance(module, nn.GroupNorm)}


@pytest.mark.parametrize("normalization", ["batch", "group"])
def test_norms_that_start_at_zero_still_do(normalization: str) -> None:
    model = built(normalization=normalization, zero_init_residual=True)

    assert not model.get_parameter("layer1.0.bn2.weight").any()
    assert model.get_parameter("layer1.0.bn1.weight").all()


def test_settings_that_change_nothing_leave_torchvisions_own_model() -> None:
    import torchvision

    torch.manual_seed(0)
    expected = torchvision.models.resnet18(num_classes=10)

    model = built(width=1.0)

    assert repr(expected) == repr(model)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in expected.state_dict().items())


@pytest.mark.parametrize(
    ("name", "pools"),
    [("resnet18", 0), ("densenet121", 0), ("mobilenet_v2", 0), ("shufflenet_v2_x0_5", 0), ("squeezenet1_1", 2)],
)
def test_a_small_stem_keeps_the_images_size(name: str, pools: int) -> None:
    model = on_meta(name, GRAY, stem="small")

    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert (1, (3, 3), (1, 1), (1, 1)) == (first.in_channels, first.kernel_size, first.stride, first.padding)
    assert pools == kinds(model, nn.MaxPool2d)


def test_a_small_stem_lets_smaller_images_in() -> None:
    assert (
        size("inception_v3", DataShape(channels=3, height=64, width=64, classes=("a", "b")), stem="small").parameters
        > 0
    )


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "convnext_tiny", "alexnet", "vgg11"])
def test_models_without_such_a_stem_say_so(name: str) -> None:
    error = refused(on_meta, name, stem="small")

    assert "model.stem" == error.path
    assert f"{name} has no stem of stride 2 to make small; models of these families have: DenseNet, " in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "densenet121", "vgg11_bn"]
)
@pytest.mark.parametrize("width", [0.5, 2])
def test_width_multiplies_the_channels(name: str, width: float) -> None:
    whole, scaled = on_meta(name, GRAY), on_meta(name, GRAY, width=width)

    norms = [
        [module.num_features for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for model in (whole, scaled)
    ]
    assert [round(features * width) for features in norms[0]] == norms[1]


def test_width_leaves_the_images_and_the_classes_alone() -> None:
    model = built(GRAY, width=0.25)

    assert (1, 16) == (model.conv1.in_channels, model.conv1.out_channels)
    assert (128, 3) == (model.fc.in_features, model.fc.out_features)
    assert (4, 3) == model(torch.zeros(4, 1, 32, 32)).shape


def test_widened_convolutions_are_initialized_as_torchvisions() -> None:
    model = built(width=0.5)

    deviation = model.get_parameter("layer3.1.conv1.weight").std().item()
    assert pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02) == deviation


@pytest.mark.parametrize("name", ["vit_b_16", "convnext_tiny"])
def test_models_that_cannot_be_widened_say_so(name: str) -> None:
    error = refused(on_meta, name, width=0.5)

    assert "model.width" == error.path
    assert f"{name} cannot be made 0.5 times as wide: " in str(error)


def test_keywords_go_to_torchvision() -> None:
    model = on_meta("mobilenet_v2", width_mult=0.5, dropout=0.7)

    assert 16 == model.features[0][0].out_channels
    assert 0.7 == model.classifier[0].p


@pytest.mark.parametrize("name", ["googlenet", "vit_b_32"])
def test_models_have_one_output_and_the_images_size(name: str) -> None:
    logits = summarize_model(lambda: on_meta(name, GRAY), GRAY).layers[-1]

    assert (3,) == logits.output_shape


def test_the_blocks_of_a_model_for_small_images_are_listed() -> None:
    components = {
        component.name: component
        for component in list_components(lambda: build_torchvision({**TINY_RESNET, "stem": "small"}, CIFAR10), CIFAR10)
    }

    assert (8, 32, 32) == components["layer1.0"].output_shape
    assert "it does nothing already" == components["maxpool"].reason


@pytest.mark.parametrize(
    ("settings", "path", "said"),
    [
        ({"name": "torchvision:resnet19"}, "name", "torchvision has no classifier 'resnet19'; did you mean resnet18"),
        ({"name": "torchvision:fcn_resnet50"}, "name", "torchvision has no classifier 'fcn_resnet50'; "),
        ({"name": "torchvision:ResNet18"}, "name", "torchvision has no classifier 'ResNet18'; did you mean resnet18"),
        ({"name": "torchvision:alexnet"}, "name", "alexnet does not take images of 32×32: "),
        ({"zero_init": True}, "zero_init", "resnet18 has no setting 'zero_init'; it has zero_init_residual"),
        ({"layers": [1, 1, 1, 1]}, "layers", "resnet18 sets layers itself; leave it out"),
        ({"replace_stride_with_dilation": [1]}, "replace_stride_with_dilation", "torchvision cannot build resnet18: "),
        ({"weights": "DEFAULT"}, "weights", "weights cannot be set: models are untrained, with one output per class"),
        ({"normalization": "group", "groups": 3}, "groups", "3 groups do not divide the 8 channels of bn1"),
        ({"normalization": "spectral"}, "normalization", "'spectral' is none of batch, none, group, layer, instance"),
        ({"stem": "tiny"}, "stem", "'tiny' is none of imagenet, small"),
        ({"width": 0.0}, "width", "a width of 0 is no factor greater than 0"),
        (
            {"name": "torchvision:resnext50_32x4d", "width": 0.1},
            "width",
            "the 32 groups of layer1.0.conv2 would not divide its 13 channels; choose another width",
        ),
        (
            {"normalization": "instance"},
            "normalization",
            "resnet18 does not take instance normalization with images of 32×32: Expected more than 1 spatial element",
        ),
        (
            {"name": "torchvision:swin_t", "width": 1.0, "normalization": "group"},
            "normalization",
            "swin_t has no batch normalization to exchange for group; leave the setting out",
        ),
    ],
)
def test_what_cannot_be_built_is_said_at_its_key(settings: dict[str, Any], path: str, said: str) -> None:
    error = refused(built, **settings)

    assert f"model.{path}" == error.path
    assert str(error).startswith(said)


def test_features_are_refused() -> None:
    error = refused(built, DataShape(channels=0, height=0, width=0, classes=("a", "b"), features=(7,)))

    assert "resnet18 classifies images, and the data are features of shape (7,); use another model @ model.name" == str(
        error
    )
