"""Identities: which settings make a run another run, and that the hash itself stays as it is."""

import dataclasses
import json
from typing import Any

import pytest

from ablation.study import Override, Study, locked_hash, parse_study, run_identity
from ablation.study.sections import SECTIONS, Cifar10, Cnn, Digits, Images, Training
from ablation.training import TrainingSettings

BASELINE = b"""\
name: n
data: {name: images, root: photos}
model: {name: cnn, normalization: group}
training: {optimizer: sgd}
factors: {model.depth: [3, 4]}
"""

OTHER_VALUES: dict[str, Any] = {
    "data.name": "cifar10",
    "data.limit": 100,
    "data.size": 64,
    "data.test": 0.2,
    "data.validation": 0.2,
    "data.augmentation": "flip",
    "model.depth": 4,
    "model.width": 16,
    "model.kernel": 5,
    "model.dense": [64],
    "model.normalization": "batch",
    "model.normalization_placement": "after",
    "model.groups": 4,
    "model.dropout": 0.5,
    "model.activation": "gelu",
    "model.repeats": 1,
    "model.remove": ["blocks.block1.pool"],
    "model.weights": "start.pt",
    "model.frozen": ["blocks.block1"],
    "model.replace": {"blocks.block1.activation": "GELU"},
    "training.epochs": 3,
    "training.batch_size": 32,
    "training.optimizer": "adam",
    "training.learning_rate": 0.1,
    "training.schedule": "cosine",
    "training.optimizer_arguments": {"nesterov": True},
    "training.warmup": 0.5,
    "training.momentum": 0.5,
    "training.weight_decay": 0.1,
    "training.gradient_clipping": 1.0,
    "training.label_smoothing": 0.1,
    "training.class_weights": "balanced",
    "training.loss": "losses.py:focal",
    "training.epoch_choice": "best-validation",
    "training.patience": 2,
    "training.ema": 0.9,
    "training.precision": "bf16",
    "training.threads": 2,
    "study_seed": 1,
}
OF_A_STEPPED_SCHEDULE: dict[str, Any] = {
    "training.schedule_arguments": {"gamma": 0.5},
    "training.schedule_unit": "step",
}
"""What alters a result only where the schedule is a class of PyTorch's."""
WITHOUT_ALTERNATIVE = {"model.name"}
IRRELEVANT = {"data.root"}


def study(*, content: bytes = BASELINE, **changes: Any) -> Study:
    overrides = [Override(path=path.replace("__", "."), value=value) for path, value in changes.items()]
    return parse_study(content, source="f", overrides=overrides)


def identity(*, content: bytes = BASELINE, **changes: Any) -> str:
    baseline = study(content=content, **changes).variants[0]
    return run_identity(baseline.configuration, data_digest="d", seed=0)


def test_the_identity_of_a_known_run_is_what_it_always_was() -> None:
    """A change here makes every recorded run unknown: raise IDENTITY_VERSION, and say so in the changelog."""
    configuration = {
        "data": {"augmentation": "none", "limit": None, "name": "digits", "validation": "none"},
        "model": {"depth": 3, "dense": [128, 64], "dropout": 0.0, "name": "cnn"},
        "training": {"epochs": 5, "learning_rate": 0.001, "threads": 1},
        "study_seed": 0,
    }

    assert run_identity(configuration, data_digest="ab" * 32, seed=2) == "0c850c4e8aeb0d8e5855c91a3f6919e3"


def test_the_identity_of_the_default_study_is_what_it_always_was() -> None:
    content = b"name: n\ndata: {name: digits}\nmodel: {name: cnn}\nfactors: {model.normalization: [none, group]}\n"

    runs = parse_study(content, source="f").runs(data_digest="ab" * 32)

    assert [run.identity for run in runs[:2]] == [
        "c97e01812d5e3c66b8d8d92b88272e2c",
        "47c8c7a62d1516aace602a2e9ab94c96",
    ]


def test_the_hash_of_a_known_locked_plan_is_what_it_always_was() -> None:
    assert locked_hash(study().locked()) == "4893ebfc3198167bd02ce64778c33319"


def test_the_hash_of_a_known_locked_plan_with_looks_is_what_it_always_was() -> None:
    assert locked_hash(study(seeds={"looks": [5, 8, 12]}).locked()) == "a7cccdfa2e3af79379c4dbc219b8cca8"


def test_looks_listed_and_expanded_lock_the_same_plan_and_one_look_is_a_number() -> None:
    assert study(seeds={"first": 5, "last": 12}).locked() == study(seeds={"looks": [5, 8, 12]}).locked()
    assert study(seeds={"looks": [12]}).locked() == study(seeds=12).locked()


def test_the_alternatives_name_every_setting_there_is() -> None:
    built_in = (Digits, Cifar10, Images, Cnn, Training)
    known = {
        f"{section}.{key}"
        for section, models in SECTIONS.items()
        for model in models
        if model in built_in
        for key in model.model_fields
    }

    named = OTHER_VALUES.keys() | OF_A_STEPPED_SCHEDULE.keys() | WITHOUT_ALTERNATIVE | IRRELEVANT
    assert known | {"study_seed"} == named


@pytest.mark.parametrize("path", OTHER_VALUES)
def test_every_setting_that_can_alter_a_result_makes_another_run(path: str) -> None:
    factors = {"factors": {path: [OTHER_VALUES[path], 5]}} if path == "model.depth" else {}

    assert identity(**{path: OTHER_VALUES[path]}, **factors) != identity()


@pytest.mark.parametrize("path", OF_A_STEPPED_SCHEDULE)
def test_what_a_stepped_schedule_is_given_makes_another_run(path: str) -> None:
    stepped = {"training.schedule": "ExponentialLR", "training.schedule_arguments": {"gamma": 0.9}}

    assert identity(**{**stepped, path: OF_A_STEPPED_SCHEDULE[path]}) != identity(**stepped)


@pytest.mark.parametrize(
    ("path", "default"),
    [
        ("training.optimizer_arguments", {}),
        ("training.schedule_arguments", {}),
        ("training.schedule_unit", "epoch"),
        ("training.warmup", 0),
        ("training.gradient_clipping", "none"),
        ("training.label_smoothing", 0),
        ("training.class_weights", "none"),
        ("training.patience", "none"),
        ("training.ema", "none"),
        ("data.test", None),
    ],
)
def test_a_setting_that_came_later_makes_no_other_run_plan_or_document_by_its_default(path: str, default: Any) -> None:
    written, left_out = study(**{path: default}), study()

    assert identity(**{path: default}) == identity()
    assert written.locked() == left_out.locked()
    assert written.spec.document() == left_out.spec.document()
    assert path.removeprefix("training.") not in json.dumps(
        [written.spec.document(), written.variants[0].settings.plain(), written.variants[0].configuration]
    )


def test_seed_data_and_the_users_code_make_another_run() -> None:
    configuration = study().variants[0].configuration
    identities = {
        run_identity(configuration, data_digest=data, seed=seed, code_digest=code)
        for data in ("d", "e")
        for seed in (0, 1)
        for code in (None, "c")
    }

    assert len(identities) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"description": "other"},
        {"factors": {"model.depth": [3, 4, 5], "model.width": [32, 64]}},
        {"seeds": 12},
        {"seeds": {"looks": [5, 8, 12]}},
        {"metric": {"name": "test_loss"}},
        {"questions": [{"effect": "model.depth", "on": "test_loss"}]},
        {"alpha": 0.1},
        {"collapse_margin": 0.1},
        {"data.root": "elsewhere"},
    ],
)
def test_what_is_asked_of_the_runs_makes_no_other_run(changes: dict[str, Any]) -> None:
    assert identity(**changes) == identity()


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (b"model: {name: cnn, normalization: none}", {"model.normalization_placement": "after"}),
        (b"model: {name: cnn, normalization: none}", {"model.groups": 4}),
        (b"model: {name: cnn, normalization: batch}", {"model.groups": 4}),
        (b"training: {optimizer: adam}", {"training.momentum": 0.5}),
        (b"training: {optimizer: adamw}", {"training.momentum": 0.5}),
    ],
)
def test_a_setting_without_effect_beside_the_others_makes_no_other_run(
    settings: bytes, changes: dict[str, Any]
) -> None:
    section = settings.partition(b":")[0]
    lines = [line for line in BASELINE.splitlines() if not line.startswith(section)]
    content = b"\n".join([*lines, settings])

    assert identity(content=content, **changes) == identity(content=content)


def test_a_run_is_the_same_in_every_study_that_has_its_settings() -> None:
    wide = study(factors={"model.depth": [3, 4], "model.width": [32, 64]})
    deep = study(**{"model.depth": 4})
    runs = {run.identity for run in wide.runs(data_digest="d")}

    assert {run.identity for run in deep.runs(data_digest="d")} <= runs


def test_one_run_of_a_study_has_one_identity() -> None:
    wide = study(factors={"model.depth": [3, 4], "model.width": [32, 64], "training.optimizer": ["sgd", "adam"]})
    identities = [run.identity for run in wide.runs(data_digest="d")]

    assert len(set(identities)) == len(identities) == 8 * 5


def test_a_number_has_one_identity_however_it_is_written() -> None:
    assert identity(**{"training.learning_rate": 1}) == identity(**{"training.learning_rate": 1.0})


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": {"name": "test_accuracy", "meaningful": 0.01}},
        {"questions": [{"effect": "model.depth", "on": "test_loss"}]},
        {"alpha": 0.1},
        {"seeds": 6},
        {"seeds": {"looks": [3, 5]}},
        {"collapse_margin": 0.1},
    ],
)
def test_what_a_plan_locks_is_in_its_hash(changes: dict[str, Any]) -> None:
    assert locked_hash(study(**changes).locked()) != locked_hash(study().locked())


def test_questions_written_out_lock_the_same_plan_as_the_default_ones() -> None:
    assert study(questions=[{"effect": "model.depth"}]).locked() == study().locked()


def test_the_training_engine_takes_the_files_training_settings_but_for_the_threads() -> None:
    engine = {field.name for field in dataclasses.fields(TrainingSettings)}

    assert engine == (Training.model_fields.keys() - {"threads", "loss"}) | {"augmentation"}
    assert all("augmentation" in model.model_fields for model in (Digits, Cifar10, Images))


def test_a_study_of_images_without_a_size_is_the_run_it_was() -> None:
    runs = study().runs(data_digest="ab" * 32)

    assert "5347f8b46840279e37df4dcbdc3f2cd6" == runs[0].identity
    assert identity(data__size=None) == identity()


def test_a_size_of_equal_sides_is_the_same_run_written_in_either_way() -> None:
    assert identity(data__size=[64, 64]) == identity(data__size=64) != identity(data__size=[64, 65])
