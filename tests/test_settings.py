"""Settings as records: they give the plain values back that a study file resolves to, and say what is none."""

import json
import pickle
import re
from typing import Any

import pytest

from ablation.code import code_names
from ablation.records import DataSettings, EngineTraining, FunctionTraining, ModelSettings, Settings
from ablation.study.sections import SECTIONS, Section

EXAMPLES: dict[str, dict[str, Any]] = {
    "Digits": {"name": "digits", "limit": 60},
    "Cifar10": {"name": "cifar10", "root": "downloads", "validation": "none"},
    "Images": {"name": "images", "root": "photos.tar.gz", "size": (32, 48), "augmentation": "flip", "test": 0.25},
    "OwnData": {
        "name": "own.py:load",
        "size": 3,
        "arguments": [1],
        "root": None,
        "test": 0.1,
        "task": "tokens",
        "ignore_index": 0,
        "target_scaling": "none",
    },
    "Cnn": {
        "name": "cnn",
        "dense": (8, 4),
        "remove": ("blocks.block1", "*.pool"),
        "replace": {"*.activation": "GELU"},
        "weights": "w.pt",
        "frozen": ("blocks.block0",),
    },
    "Torchvision": {
        "name": "torchvision:resnet18",
        "weights": "w.pt",
        "frozen": ("layer1",),
        "stem": "small",
        "zero_init_residual": True,
    },
    "OwnModel": {
        "name": "own.py:build",
        "weights": "w.pt",
        "frozen": ("layer1",),
        "epochs": 3,
        "root": "x",
        "arguments": {"a": None},
    },
    "Training": {
        "optimizer": "sgd",
        "optimizer_arguments": {"nesterov": True, "dampening": 0.0},
        "schedule": "MultiStepLR",
        "schedule_arguments": {"milestones": (1, 2)},
        "schedule_unit": "step",
        "warmup": 0.5,
        "gradient_clipping": 1.0,
        "label_smoothing": 0.1,
        "class_weights": (1.0, 2.0),
        "loss": "own.py:loss",
        "patience": 3,
        "ema": 0.9,
        "precision": "bf16",
        "threads": 2,
    },
    "OwnTraining": {"name": "own.py:train", "epochs": 3, "loss": "own.py:loss", "layers": [1, [2]], "model": None},
}


def plain(**changes: Any) -> dict[str, Any]:
    """Return the plain settings of every section's first kind, with changes."""
    kinds = {section: kinds[0] for section, kinds in SECTIONS.items()}
    sections = {
        name: kind.model_validate(EXAMPLES[kind.__name__]).model_dump(mode="json") for name, kind in kinds.items()
    }
    return {**sections, "study_seed": 0, **changes}


@pytest.mark.parametrize(
    ("section", "kind"), [(section, kind) for section, kinds in SECTIONS.items() for kind in kinds]
)
def test_the_values_of_every_kind_of_section_are_given_back_in_their_order(section: str, kind: type[Section]) -> None:
    values = plain(**{section: kind.model_validate(EXAMPLES[kind.__name__]).model_dump(mode="json")})

    assert json.dumps(values) == json.dumps(Settings.from_plain(values).plain())


def test_what_code_takes_beside_our_settings_is_its_arguments() -> None:
    data = DataSettings.from_plain({"name": "own.py:load", "limit": 3, "size": 4, "arguments": 5})
    model = ModelSettings.from_plain({"name": "own.py:build", "remove": [], "epochs": 3})
    training = FunctionTraining.from_plain({"name": "own.py:train", "threads": 2, "epochs": 3})

    assert (3, None, {"size": 4, "arguments": 5}) == (data.limit, data.size, data.arguments)
    assert ((), {"epochs": 3}) == (model.remove, model.arguments)
    assert (2, {"epochs": 3}) == (training.threads, training.arguments)


def test_settings_of_the_first_version_are_trained_as_they_were() -> None:
    first = plain()
    for later in ("loss", "precision"):
        del first["training"][later]
    for later in ("remove", "replace"):
        del first["model"][later]

    settings = Settings.from_plain(first)

    assert ("cross_entropy", "fp32") == (settings.engine.loss, settings.engine.precision)
    assert settings.model is not None
    assert ((), {}) == (settings.model.remove, settings.model.replace)


def test_settings_reach_a_worker_whole() -> None:
    settings = Settings.from_plain(plain(training={"name": "own.py:train", "layers": [1, {"a": 2}]}))

    assert settings == pickle.loads(pickle.dumps(settings))


def test_a_training_function_is_told_by_its_name() -> None:
    engine, function = Settings.from_plain(plain()), Settings.from_plain(plain(training={"name": "own.py:train"}))

    assert isinstance(engine.engine, EngineTraining)
    assert (False, True) == (engine.is_own_training, function.is_own_training)


def test_code_is_named_in_the_order_that_identities_have_it() -> None:
    model = {"name": "own.py:build", "replace": {"a": "own.py:Part", "b": "GELU"}}
    engine = plain(data={"name": "own.py:load"}, model=model)
    engine["training"]["loss"] = "own.py:loss"
    function = {"name": "own.py:train", "loss": "own.py:loss", "other": "own.py:other"}

    assert ["own.py:load", "own.py:build", "own.py:loss", "own.py:Part"] == code_names(Settings.from_plain(engine))
    started = ["own.py:train", "own.py:loss", "./w.pt:weights"]
    assert started == code_names(Settings.from_plain(plain(training=function)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "digits"}, "must be a mapping, not 'digits' @ settings.data"),
        ({"data": {}}, "needs name @ settings.data"),
        ({"data": {"name": "digits", "limit": "9"}}, "cannot be '9' @ settings.data.limit"),
        ({"data": {"name": "digits", "limit": True}}, "cannot be 'True' @ settings.data.limit"),
        ({"data": {"name": "digits", "validation": None}}, "cannot be 'None' @ settings.data.validation"),
        ({"model": {"name": "cnn", "remove": "x"}}, "cannot be 'x' @ settings.model.remove"),
        ({"model": {"name": "cnn", "remove": [1]}}, "cannot be '[1]' @ settings.model.remove"),
        ({"training": None}, "must be a mapping, not 'None' @ settings.training"),
        ({"training": {"name": 3}}, "cannot be '3' @ settings.training.name"),
        ({"training": {"epochs": 1, "batch_size": 2}}, "needs optimizer, learning_rate, schedule, momentum, "),
        ({"study_seed": 0.5}, "cannot be '0.5' @ settings.study_seed"),
    ],
)
def test_what_is_no_settings_is_said_with_its_path(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        Settings.from_plain(plain(**changes))
