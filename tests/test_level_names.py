"""Levels and variants are told apart by their names alone, so two that could be taken for one are refused."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from factories import plan_of
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param

from ablation.coordinator.planning import _settled_runs
from ablation.errors import StudyFileError
from ablation.lookup import differences
from ablation.records import TunedVariant, is_recordable_name
from ablation.scheduling import default_storage, open_tuning
from ablation.study import Study, parse_override, parse_study
from ablation.study.level_names import level_text
from ablation.study.search_spaces import Tuning

MAX_OPTUNA_NAME = 512
PLAIN = st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 0.5, 128.0]) | st.sampled_from("01ab,=-")
TEXTS = st.sampled_from(["true", "false", "1", "0.5", "1-2", "empty", "", "full", "baseline", "1,b=2", "2,c=0"])
LEVELS = PLAIN | TEXTS | st.lists(PLAIN, max_size=2)


def own(*, name: str = "own", **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "training": {"name": "t.py:train", "x": 1},
        "factors": {"training.x": [1, 2]},
        "metric": {"name": "score", "direction": "maximize"},
        "seeds": 1,
        **changes,
    }


def levels(first: Any, *others: Any, **changes: Any) -> dict[str, Any]:
    return own(training={"name": "t.py:train", "x": first}, factors={"training.x": [first, *others]}, **changes)


def parsed(values: Mapping[str, Any]) -> Study:
    return parse_study(json.dumps(values, indent=1).encode(), source="own.yaml")


def refusal(values: Mapping[str, Any]) -> str:
    with pytest.raises(StudyFileError) as refused:
        parsed(values)
    (problem,) = refused.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("1", 1, "two levels are both called `1`: '1' and 1; runs are told apart by it, so change one"),
        ("true", True, "two levels are both called `true`: 'true' and true; "),
        ([128, 64], "128-64", "two levels are both called `128-64`: [128, 64] and '128-64'; "),
        (0.1, "0.1", "two levels are both called `0.1`: 0.1 and '0.1'; "),
        ([], "empty", "two levels are both called `empty`: [] and 'empty'; "),
        (1, True, "two levels are equal as numbers: 1 and true; runs could not be told apart, so change one"),
        (False, 0, "two levels are equal as numbers: false and 0; "),
        (1, 1.0, "two levels are equal as numbers: 1 and 1.0; "),
        ([1, 0], [True, 0], "two levels are equal as numbers: [1, 0] and [true, 0]; "),
    ],
)
def test_levels_that_could_be_taken_for_one_are_refused_with_their_line(first: Any, second: Any, message: str) -> None:
    said = refusal(levels(first, second))

    assert said.startswith(message)
    assert " @ factors.training.x[1] (line " in said


def test_a_baseline_of_another_type_than_its_equal_level_is_none_of_the_levels() -> None:
    said = refusal(own(training={"name": "t.py:train", "x": True}, factors={"training.x": [1, 2]}))

    assert said.startswith("the baseline's level true is missing from the factor's levels")


def test_a_forbidden_level_of_another_type_is_none_of_the_levels() -> None:
    assert refusal(own(forbid=[{"training.x": True}])).startswith("true is none of its levels: 1, 2")


def test_a_whole_number_is_the_level_of_a_baseline_that_is_read_as_a_fraction() -> None:
    study = parse_study(
        b"name: s\ndata: {name: digits}\nmodel: {name: cnn}\ntraining: {learning_rate: 1}\n"
        b"factors: {training.learning_rate: [1, 0.1]}\n",
        source="s",
    )

    assert ["learning_rate=1", "learning_rate=0.1"] == [variant.name for variant in study.variants]


def test_variants_whose_levels_make_one_name_are_refused_and_both_are_named() -> None:
    said = refusal(
        own(
            training={"name": "t.py:train", "x": "1", "y": "3"},
            factors={"training.x": ["1", "1,y=2"], "training.y": ["3", "2,y=3"]},
        )
    )

    assert said.startswith("two variants are both called x=1,y=2,y=3: ")
    assert "{training.x: '1', training.y: '2,y=3'} and {training.x: '1,y=2', training.y: '3'}" in said


def test_a_variant_name_that_no_tracker_keeps_whole_is_refused_before_anything_is_trained() -> None:
    said = refusal(levels("a", "b" * 4100))

    assert "characters; at most 4000 are kept: choose shorter or other levels, or name the variants yourself" in said


@given(st.lists(LEVELS, min_size=2, max_size=3), st.lists(LEVELS, min_size=2, max_size=2), st.booleans())
def test_whatever_is_accepted_has_variants_and_levels_that_differ_by_name(
    x: list[Any], y: list[Any], is_factorial: bool
) -> None:
    values = own(
        training={"name": "t.py:train", "x": x[0], "y": y[0]},
        factors={"training.x": x, "training.y": y},
        design="factorial" if is_factorial else "one-at-a-time",
    )
    try:
        study = parsed(values)
    except StudyFileError:
        return

    names = [variant.name for variant in study.variants]
    assert len(names) == len(set(names))
    for own_levels in (x, y):
        assert all(
            level_text(one) != level_text(other) and one != other
            for one, other in itertools.combinations(own_levels, 2)
        )


def test_a_changed_truth_value_is_a_difference_from_its_number() -> None:
    assert {"a.b": (1, True)} == differences({"a": {"b": 1}}, {"a": {"b": True}})


def test_an_override_with_a_truth_value_in_the_place_of_its_number_makes_a_study_of_its_own() -> None:
    values = own(training={"name": "t.py:train", "x": 1, "gated": 1})
    override = parse_override("training.gated=true")

    study = parse_study(json.dumps(values).encode(), source="own.yaml", overrides=[override])

    assert "own+training.gated=true" == study.name


def test_equal_choices_of_a_tuned_setting_are_refused() -> None:
    values = {
        "name": "s",
        "data": {"name": "digits"},
        "model": {"name": "m.py:build", "width": 4, "gated": 1},
        "factors": {"model.width": [4, 8]},
        "tune": {"model.gated": {"choices": [1, True]}},
    }

    assert refusal(values).startswith("choices 1 and true are equal; leave one out @ tune.model.gated")


def test_a_tuned_setting_of_another_type_was_not_found_by_its_tuning() -> None:
    space = Tuning.model_validate({"model.gated": {"choices": (0, 1)}}).spaces["model.gated"]

    assert (True, False) == (space.holds(1), space.holds(True))


@pytest.mark.parametrize("key", ["k" * 201, "e\u0301", "a\u00b7b"])
def test_an_argument_whose_name_no_tracker_takes_is_refused(key: str) -> None:
    said = refusal(own(training={"name": "t.py:train", "x": 1, key: 2}))

    assert "the name of an argument" in said


@pytest.mark.slow
@given(st.text(max_size=300) | st.from_regex(r"\w{190,210}", fullmatch=True))
def test_the_name_of_an_accepted_argument_is_one_of_a_parameter(key: str) -> None:
    try:
        parsed(own(training={"name": "t.py:train", "x": 1, key: 2}))
    except StudyFileError:
        return

    assert is_recordable_name(f"training.{key}")
    _validate_param(f"training.{key}", "2")


@pytest.mark.parametrize("text", ["a\0b", "\ud800", ["\udfff"], {"deep": "\0"}])
def test_an_argument_with_a_text_that_no_database_takes_is_refused(text: Any) -> None:
    said = refusal(own(training={"name": "t.py:train", "x": 1, "note": text}))

    assert said.startswith("note has a text with NUL or half of a surrogate pair, which no database takes")


def test_a_long_variants_tuning_has_a_name_that_optunas_column_holds(tmp_path: Path) -> None:
    url = default_storage(tmp_path)
    tuning = Tuning.model_validate({"training.learning_rate": {"log": (1e-4, 1e-1)}})
    for basis in ("one", "other"):
        open_tuning(
            url,
            name="study",
            variant="long" * 1000,
            tuning=tuning,
            start={},
            direction="maximize",
            study_seed=0,
            basis=basis,
        )

    names = optuna.get_all_study_names(url)
    assert 2 == len(set(names))
    assert MAX_OPTUNA_NAME >= max(map(len, names))


def test_a_listed_variants_own_name_is_not_taken_for_how_it_was_tuned() -> None:
    study = parsed(
        {
            "name": "s",
            "data": {"name": "digits"},
            "model": {"name": "cnn"},
            "factors": {"model.depth": [3, 4]},
            "design": "listed",
            "variants": {"deep,settings=mine": {"model.depth": 4}},
            "tune": {"training.learning_rate": {"log": [1e-4, 1e-2]}},
            "seeds": 1,
        }
    )
    found = tuple(
        TunedVariant(variant=name, trials=(), chosen=0, settings={}) for name in ("baseline", "deep,settings=mine")
    )
    plan = replace(plan_of(study), tuning=found)

    assert ["baseline", "deep,settings=mine"] == [run.variant for run in _settled_runs(plan)]
