"""A recipe is a factor whose levels set several settings: in every design what the settings themselves would be."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from factories import make_runs, plan_of

from ablation.analysis import analyse, contrast_name, contrasts_of
from ablation.errors import StudyFileError
from ablation.report import report_text
from ablation.study import Override, Study, locked_hash, parse_override, parse_study, study_of_values
from ablation.study.labels import labels_of
from ablation.study.plan_json import plan_from_json, plan_to_json

ADAM = {"training.optimizer": "adam", "training.learning_rate": 1e-3}
SGD = {"training.optimizer": "sgd", "training.learning_rate": 0.1, "training.optimizer_arguments": {"nesterov": True}}
RECIPE = {"adam": ADAM, "sgd": SGD}
DIGEST = "0" * 64


def values(factors: Mapping[str, Any] = {"recipe": RECIPE, "model.depth": [2, 3]}, **changes: Any) -> dict[str, Any]:
    return {
        "name": "recipes",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 2},
        "training": {"epochs": 2},
        "factors": dict(factors),
        "seeds": 3,
        **changes,
    }


def study(factors: Mapping[str, Any] = {"recipe": RECIPE, "model.depth": [2, 3]}, **changes: Any) -> Study:
    return study_of_values(values(factors, **changes))


def identities(checked: Study) -> dict[str, str]:
    return {each.name: checked.identity(each, data_digest=DIGEST, seed=0) for each in checked.variants}


def errors(factors: Mapping[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        study(factors, **changes)
    return [f"{problem.message} @ {problem.path}" for problem in caught.value.problems]


def test_runs_of_a_recipe_are_those_of_the_same_settings_written_otherwise() -> None:
    sgd = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1, "optimizer_arguments": {"nesterov": True}}
    written = study({"model.depth": [2, 3]}, training=sgd)

    found = identities(study())

    assert found["recipe=sgd,depth=2"] == identities(written)["depth=2"]
    assert found["recipe=sgd,depth=3"] == identities(written)["depth=3"]
    assert found["recipe=adam,depth=3"] == identities(study({"model.depth": [2, 3]}))["depth=3"]


def test_the_baseline_is_the_level_that_sets_what_the_file_has_wherever_it_stands() -> None:
    first = study(
        training={"epochs": 2, "optimizer": "sgd", "learning_rate": 0.1, "optimizer_arguments": {"nesterov": True}}
    )

    assert [each.name for each in first.variants if each.is_baseline] == ["recipe=sgd,depth=2"]
    assert first.variants[0].levels == {"recipe": "sgd", "model.depth": 2}


def test_a_setting_that_a_level_leaves_out_is_the_files() -> None:
    slow = {"plain": {"training.learning_rate": 1e-3}, "clipped": {"training.gradient_clipping": 1.0}}

    _, clipped = study({"recipe": slow}).variants

    assert clipped.configuration["training"]["learning_rate"] == 1e-3
    assert clipped.configuration["training"]["gradient_clipping"] == 1.0


@pytest.mark.parametrize(
    ("design", "names"),
    [
        ("factorial", ["recipe=adam,depth=2", "recipe=adam,depth=3", "recipe=sgd,depth=2", "recipe=sgd,depth=3"]),
        ("one-at-a-time", ["baseline", "recipe=sgd", "depth=3"]),
        ("leave-one-out", ["full", "recipe=sgd", "depth=3"]),
        ("add-one", ["full", "all-off", "only-recipe=adam", "only-depth=2"]),
        ("leave-one-out+add-one", ["full", "recipe=sgd", "depth=3", "all-off"]),
    ],
)
def test_a_recipe_is_a_factor_of_every_design(design: str, names: list[str]) -> None:
    checked = study(design=design)

    assert [each.name for each in checked.variants][: len(names)] == names
    assert [contrast_name(each) for each in contrasts_of(plan_of(checked))][:2] == [
        "recipe: adam → sgd",
        "model.depth: 2 → 3",
    ]


def test_variants_forbidden_combinations_and_questions_name_a_level_of_a_recipe() -> None:
    listed = study(design="listed", variants={"quick": {"recipe": "sgd", "model.depth": 3}})
    forbidden = study(
        forbid=[{"recipe": "sgd", "model.depth": 3}], questions=[{"effect": "recipe", "at": {"model.depth": 2}}]
    )
    at = study(
        questions=[{"effect": "model.depth", "at": {"recipe": "sgd"}}, {"interaction": ["recipe", "model.depth"]}]
    )

    assert listed.variants[1].configuration["training"]["optimizer"] == "sgd"
    assert [each.name for each in forbidden.variants] == [
        "recipe=adam,depth=2",
        "recipe=adam,depth=3",
        "recipe=sgd,depth=2",
    ]
    assert [contrast_name(each) for each in contrasts_of(plan_of(at))] == [
        "model.depth: 2 → 3, recipe = sgd",
        "recipe: adam → sgd × model.depth: 2 → 3",
    ]


def test_a_plan_of_recipes_is_read_as_it_was_written_and_its_document_is_a_study() -> None:
    checked = study()
    plan = plan_of(checked)

    again = study_of_values(checked.spec.document())

    assert plan_from_json(plan_to_json(plan)) == plan
    assert identities(again) == identities(checked)
    assert locked_hash(again.locked()) == locked_hash(checked.locked())


def test_a_report_and_its_tables_name_the_levels_of_a_recipe() -> None:
    plan = plan_of(study({"recipe": {"levels": RECIPE, "label": "optimizer", "labels": {"sgd": "SGD"}}}))
    analysis = analyse(plan, make_runs(plan))

    assert "optimizer adam → SGD" in report_text(analysis, "markdown")
    assert json.loads(report_text(analysis, "json"))["factors"] == {"recipe": ["adam", "sgd"]}
    assert labels_of(plan).variants == {"recipe=adam": "optimizer=adam", "recipe=sgd": "optimizer=SGD"}


def test_an_override_reaches_a_setting_of_a_recipes_level() -> None:
    changed = parse_study(
        json.dumps(values()).encode(),
        source="recipes.yaml",
        overrides=[parse_override("factors.recipe.sgd.training.learning_rate=0.2")],
    )

    assert changed.variants[-1].configuration["training"]["learning_rate"] == 0.2
    assert changed.name == "recipes"


def test_the_levels_of_a_recipe_can_be_chosen_and_one_becomes_the_baseline() -> None:
    content = json.dumps(values({"recipe": {**RECIPE, "long": {"training.epochs": 4}}, "model.depth": [2, 3]})).encode()

    one = parse_study(content, source="recipes.yaml", levels={"recipe": ["sgd"]})
    two = parse_study(content, source="recipes.yaml", levels={"recipe": ["sgd", "long"]})

    assert [each.configuration["training"]["optimizer"] for each in one.variants] == ["sgd", "sgd"]
    assert one.variants[0].levels == {"model.depth": 2}
    assert two.variants[0].levels == {"recipe": "sgd", "model.depth": 2}
    with pytest.raises(StudyFileError, match="'fast' is none of its levels: 'adam', 'sgd', 'long'"):
        parse_study(content, source="recipes.yaml", levels={"recipe": ["fast", "sgd"]})


def test_a_recipe_may_be_tuned_beside() -> None:
    tuned = study(tune={"training.weight_decay": {"log": [1e-5, 1e-2]}, "trials": 2})

    variant = tuned.with_settings(tuned.variants[-1], {"training.weight_decay": 1e-4})

    assert variant.configuration["training"]["optimizer"] == "sgd"
    assert variant.configuration["training"]["weight_decay"] == 1e-4


PATHS = "training.optimizer is a factor of this study too; a setting is varied by one factor alone"
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"recipe": RECIPE},
        {"training": {"learning_rate": 0.01}},
        "one level must set what the file has, as it is the baseline's; the nearest is 'adam', whose "
        "training.learning_rate is 0.001 where the file has 0.01; change that level or the file @ factors.recipe",
    ),
    (
        {
            "recipe": {"a": {"training.optimizer": "adam"}, "b": {"training.optimizer": "sgd"}},
            "training.optimizer": ["adam", "sgd"],
        },
        {},
        f"{PATHS} @ factors.recipe.a.training.optimizer",
    ),
    (
        {"recipe": RECIPE, "other": {"a": {"training.learning_rate": 1e-3}, "b": {"training.learning_rate": 1e-2}}},
        {},
        "other sets training.learning_rate of this study too; a setting is varied by one factor alone "
        "@ factors.recipe.adam.training.learning_rate",
    ),
    (
        {"recipe": RECIPE},
        {"tune": {"training.learning_rate": {"log": [1e-4, 1e-1]}}},
        "training.learning_rate is set by recipe, which is a factor of this study: it is compared, so it cannot be "
        "tuned @ tune.training.learning_rate",
    ),
    (
        {"recipe": {**RECIPE, "remove": {"training.epochs": 3}}},
        {},
        "no level can be called 'remove', which means something else here; give it another name "
        "@ factors.recipe.remove",
    ),
    (
        {"recipe": {**RECIPE, "1e-3": {"training.epochs": 3}}},
        {},
        "the name of a level is text, and 1e-3 is read as something else; begin it with a letter @ factors.recipe.1e-3",
    ),
    (
        {"recipe": {**RECIPE, "empty": {}}},
        {},
        "must be a mapping of settings to values, such as {training.optimizer: sgd}, not {} @ factors.recipe.empty",
    ),
    (
        {"recipe": {**RECIPE, "far": {"training.lerning_rate": 1}}},
        {},
        "there is no setting 'training.lerning_rate'; did you mean 'training.learning_rate'? "
        "@ factors.recipe.far.training.lerning_rate",
    ),
    (
        {"recipe": {**RECIPE, "far": {"training.learning_rate": "fast"}}},
        {},
        "must be a number greater than 0 and at most 1000, not 'fast' @ factors.recipe.far.training.learning_rate",
    ),
    (
        {"recipe": {**RECIPE, "same": {"training.optimizer": "adam"}}},
        {},
        "sets the same as 'adam' (what a level leaves out is as in the file); change one of them or leave it out "
        "@ factors.recipe.same",
    ),
    (
        {"recipe": {**RECIPE, "odd": {"training.optimizer": "sdg"}}},
        {},
        "unknown optimizer 'sdg'; did you mean 'sgd'?; there are: adam, adamw, sgd, ASGD, Adadelta, Adafactor, "
        "Adagrad, Adamax, Muon, NAdam, RAdam, RMSprop, Rprop @ factors.recipe.odd.training.optimizer",
    ),
    (
        {"recipe": {**RECIPE, "steps": {"training.schedule": "StepLR"}}},
        {},
        "StepLR needs step_size; add `schedule_arguments: {step_size: …}` to training @ factors.recipe.steps",
    ),
    (
        {"recipe": {**RECIPE, "warm": {"training.warmup": 3}}},
        {},
        "a warm-up of 3 epochs is longer than a training of 2; it is in epochs @ factors.recipe.warm.training.warmup",
    ),
    ({"seed": RECIPE}, {}, "'seed' is a column of every run table; give the factor another name @ factors.seed"),
    (
        {"others": RECIPE},
        {},
        "a factor's name has at most 200 letters, digits, - and _; 'others' and 'settings' are taken @ factors.others",
    ),
    ({"data": RECIPE}, {}, "'data' is a section of the study file; give it another name @ factors.data"),
    (
        {"recipe": {"adam": ADAM}},
        {},
        "needs at least two levels, one of them with the settings that the file has: `{adam: {training.optimizer: "
        "adam}, sgd: {training.optimizer: sgd, training.learning_rate: 0.1}}` @ factors.recipe",
    ),
]


@pytest.mark.parametrize(("factors", "changes", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_recipe_is_refused_with_a_way_out(
    factors: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert errors(factors, **changes)[0] == message


def test_settings_that_fit_only_together_are_checked_level_by_level() -> None:
    both = {"short": {"training.epochs": 2}, "long": {"training.epochs": 20, "training.warmup": 5}}
    steps = {
        "plain": {"training.schedule": "constant"},
        "steps": {"training.schedule": "StepLR", "training.schedule_arguments": {"step_size": 1}},
    }

    assert len(study({"recipe": both}).variants) == 2
    assert len(study({"recipe": steps}).variants) == 2


def test_a_changed_baseline_is_a_study_of_its_own_beside_recipes() -> None:
    changed = study_of_values(values(), overrides=[Override(path="training.weight_decay", value=0.1)])

    assert changed.name == "recipes+training.weight_decay=0.1"
