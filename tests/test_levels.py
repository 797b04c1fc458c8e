"""Levels of one's own code may be nested settings, null, lists and mappings: each with a name of its own everywhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from factories import make_runs, plan_of

from ablation.analysis import analyse, contrast_name, contrasts_of, run_table
from ablation.api.variants import variant_name
from ablation.errors import StudyFileError
from ablation.report import report_text
from ablation.study import Study, parse_override, study_of_values
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.tracking.interface import RunDescription
from ablation.tracking.mlflow.run_records import _described

POOLS = [None, "max", [2, 2], {"kind": "attention", "heads": 4}]
POOL = {"levels": POOLS, "labels": [None, "largest", None, "attention"]}
OPTIMIZER = {"lr": 0.1, "decay": {"weight": 0.0}}
NAMES = ["pool=null", "pool=max", "pool=2-2", "pool=attention"]


@pytest.fixture(autouse=True)
def _own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text("def train(settings, seed, report):\n    return {}\n")
    monkeypatch.chdir(tmp_path)


def study(factors: Mapping[str, Any] = {"training.pool": POOL}, **changes: Any) -> Study:
    values = {
        "name": "levels",
        "data": {"name": "digits"},
        "training": {"name": "own.py:train", "opt": OPTIMIZER, "pool": None},
        "factors": dict(factors),
        "seeds": 3,
    }
    return study_of_values({**values, **changes})


def errors(factors: Mapping[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        study(factors, **changes)
    return [f"{problem.message} @ {problem.path}" for problem in caught.value.problems]


def test_null_lists_and_mappings_are_levels_and_the_function_is_given_them() -> None:
    variants = study().variants

    assert [each.name for each in variants] == NAMES
    assert [each.configuration["training"]["pool"] for each in variants] == POOLS
    assert [each.levels["training.pool"] for each in variants] == [None, "max", [2, 2], "attention"]


def test_a_nested_setting_is_a_factor_and_what_stands_beside_it_stays() -> None:
    variants = study({"training.opt.lr": [0.1, 0.01], "training.opt.decay.weight": [0.0, 1e-4]}).variants

    assert [each.name for each in variants][:2] == [
        "opt.lr=0.1,opt.decay.weight=0.0",
        "opt.lr=0.1,opt.decay.weight=0.0001",
    ]
    assert variants[-1].configuration["training"]["opt"] == {"lr": 0.01, "decay": {"weight": 1e-4}}


def test_arguments_of_an_optimizer_of_torchs_are_factors() -> None:
    training = {"epochs": 2, "optimizer_arguments": {"eps": 1e-8, "betas": [0.9, 0.99]}}

    variants = study(
        {"training.optimizer_arguments.eps": [1e-8, 1e-6]}, model={"name": "cnn"}, training=training
    ).variants

    given = [each.configuration["training"]["optimizer_arguments"] for each in variants]
    assert given == [{"eps": 1e-8, "betas": [0.9, 0.99]}, {"eps": 1e-6, "betas": [0.9, 0.99]}]


def test_labels_are_a_mapping_or_a_list_and_mean_the_same() -> None:
    by_level = {"levels": POOLS, "labels": {"max": "largest", "{heads: 4, kind: attention}": "attention"}}

    again = study({"training.pool": by_level})

    assert again.variants == study().variants
    assert again.spec.document() == study().spec.document()


def test_a_plan_of_such_levels_is_read_as_it_was_written_and_its_document_is_the_study() -> None:
    checked = study({"training.pool": POOL, "training.opt.lr": [0.1, 0.01]})
    plan = plan_of(checked)

    assert plan_from_json(plan_to_json(plan)) == plan
    assert study_of_values(checked.spec.document()).variants == checked.variants


def test_variants_forbidden_combinations_and_questions_name_such_levels() -> None:
    factors = {"training.pool": POOL, "training.opt.lr": [0.1, 0.01]}
    checked = study(
        factors,
        forbid=[{"training.pool": [2, 2], "training.opt.lr": 0.01}],
        questions=[{"effect": "training.opt.lr", "at": {"training.pool": level}} for level in (None, "attention")],
    )
    plan = plan_of(checked)

    assert len(checked.variants) == 7
    assert [contrast_name(each) for each in contrasts_of(plan)] == [
        "training.opt.lr: 0.1 → 0.01, training.pool = null",
        "training.opt.lr: 0.1 → 0.01, training.pool = attention",
    ]
    assert variant_name(plan, {"training.pool": "attention"}, at="compare") == "pool=attention,opt.lr=0.1"
    assert variant_name(plan, {"training.pool": None, "training.opt.lr": 0.01}, at="compare") == "pool=null,opt.lr=0.01"


def test_every_table_has_each_level_by_a_name_of_its_own() -> None:
    plan = plan_of(study())
    runs = make_runs(plan)
    analysis = analyse(plan, runs)
    markdown = report_text(analysis, "markdown")

    for name in ("pool=null", "pool=largest", "pool=2-2", "pool=attention", "pool null → attention"):
        assert name in markdown
    assert json.loads(report_text(analysis, "json"))["factors"] == {"training.pool": [None, "max", [2, 2], "attention"]}
    assert [*run_table(plan, runs)["training.pool"][:4]] == ["null", "max", [2, 2], "attention"]


def test_mlflow_is_given_a_level_by_its_name_beside_the_whole_setting() -> None:
    plan = plan_of(study({"training.pool": POOL, "training.opt.lr": [0.1, 0.01]}))

    described = [_described(RunDescription.of(run, plan)) for run in plan.runs[:8]]

    assert {each["training.pool"] for each in described if not isinstance(each["training.pool"], list)} == {
        "null",
        "max",
        "attention",
    }
    assert {each["training.opt.lr"] for each in described} == {0.1, 0.01}


def test_a_nested_setting_is_tuned() -> None:
    tuned = study(
        {"model.depth": [2, 3]},
        model={"name": "own.py:build", "depth": 2, "pool": {"heads": 2, "rate": 0.1}},
        training={"epochs": 2},
        tune={"model.pool.heads": {"log": [1, 8]}, "trials": 2},
    )

    variant = tuned.with_settings(tuned.variants[1], {"model.pool.heads": 4})

    assert tuned.whole_settings() == {"model.pool.heads"}
    assert variant.configuration["model"]["pool"] == {"heads": 4, "rate": 0.1}


def test_an_override_reaches_a_nested_setting_of_the_baseline() -> None:
    values = study().spec.document()

    changed = study_of_values(values, overrides=[parse_override("training.opt.lr=0.2")])

    assert changed.variants[0].configuration["training"]["opt"]["lr"] == 0.2


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {"training.pool": POOLS},
        {},
        "level {kind: 'attention', heads: 4} is named by its label, and has none; write `training.pool: {levels: "
        "[null, 'max', [2, 2], {kind: 'attention', heads: 4}], labels: [null, null, null, NAME]}` "
        "@ factors.training.pool[3]",
    ),
    (
        {"training.pool": {"levels": POOLS, "labels": [None, None, None, "max"]}},
        {},
        "two levels are both called `max`: 'max' and {kind: 'attention', heads: 4}; change a label "
        "@ factors.training.pool.levels[3]",
    ),
    (
        {"training.pool": {"levels": POOLS, "labels": [None, None, None, "4"]}},
        {},
        "the label names this level, and 4 is read as something else; begin it with a letter "
        "@ factors.training.pool.levels[3]",
    ),
    (
        {"training.pool": POOL},
        {"questions": [{"effect": "training.pool", "at": {"training.pool": {"kind": "attention", "heads": 4}}}]},
        "must be a number, a printable word, true, false, null or a list of these; a mapping by its label, not {kind: "
        "'attention', heads: 4} @ questions[0].at.training.pool",
    ),
    (
        {"training.opt.momentum": [0.9, 0.0]},
        {},
        "the baseline's level is missing: add `momentum: …` to training.opt, one of the factor's levels "
        "@ factors.training.opt.momentum",
    ),
    (
        {"training.opt": {"levels": [OPTIMIZER, {"lr": 1}], "labels": ["slow", "fast"]}, "training.opt.lr": [0.1, 1]},
        {},
        "training.opt.lr is a factor of this study too; a setting is varied by one factor alone @ factors.training.opt",
    ),
    (
        {"training.pool": [None, "not varied"]},
        {},
        "no level can be called 'not varied', which means something else here @ factors.training.pool[1]",
    ),
    (
        {"training.pool": [None, "null"]},
        {},
        "two levels are both called `null`: null and 'null'; runs are told apart by it, so change one "
        "@ factors.training.pool[1]",
    ),
    (
        {"training.pool": [None, ["a\nb"]]},
        {},
        'must be a number, a printable word, true, false, null, or a list or mapping of these, not ["a\\nb"] '
        "@ factors.training.pool[1]",
    ),
]


@pytest.mark.parametrize(("factors", "changes", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_level_without_a_name_of_its_own_is_refused(
    factors: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert message in errors(factors, **changes)
