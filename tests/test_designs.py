"""Designs: which variants each makes of the same factors, what it asks, and what each comparison weighs."""

import json
import math
from typing import Any

import pytest
from factories import make_runs, plan_of
from hypothesis import given
from hypothesis import strategies as st

from ablation.analysis import analyse
from ablation.analysis.contrasts import contrasts_of
from ablation.errors import StudyFileError
from ablation.report import sentence
from ablation.study import Study, parse_study

PARTS = {
    "norm": {"remove": ["*.norm*"]},
    "second": {"remove": ["blocks.block2"]},
    "third": {"remove": ["blocks.block3"]},
}
FACTORS: dict[str, Any] = {"model.depth": [3, 4, 5], "model.normalization": ["none", "batch"]}


def study(**changes: Any) -> Study:
    values: dict[str, Any] = {
        "name": "designed",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 3, "normalization": "none"},
        "factors": FACTORS,
        "seeds": 3,
        **changes,
    }
    return parse_study(json.dumps(values).encode(), source="designed.yaml")


def variants(**changes: Any) -> list[str]:
    return [variant.name for variant in study(**changes).variants]


def weights(**changes: Any) -> list[dict[str, float]]:
    return [dict(contrast.weights) for contrast in contrasts_of(plan_of(study(**changes)))]


def test_one_at_a_time_changes_one_factor_of_the_baseline() -> None:
    assert variants(design="one-at-a-time") == ["baseline", "depth=4", "depth=5", "normalization=batch"]
    assert weights(design="one-at-a-time") == [
        {"depth=4": 1.0, "baseline": -1.0},
        {"depth=5": 1.0, "baseline": -1.0},
        {"normalization=batch": 1.0, "baseline": -1.0},
    ]


def test_leave_one_out_takes_each_part_away_from_the_whole() -> None:
    assert variants(design="leave-one-out", factors=PARTS) == ["full", "norm=absent", "second=absent", "third=absent"]
    assert weights(design="leave-one-out", factors=PARTS)[0] == {"norm=absent": 1.0, "full": -1.0}


def test_add_one_puts_each_part_alone_and_keeps_the_baseline() -> None:
    assert variants(design="add-one", factors=PARTS) == ["full", "all-off", "only-norm", "only-second", "only-third"]
    assert weights(design="add-one", factors=PARTS)[0] == {"all-off": 1.0, "only-norm": -1.0}


def test_both_part_designs_average_removal_and_addition_and_read_their_gap_as_an_interaction() -> None:
    parts = {**PARTS, "fourth": {"remove": ["blocks.block4"]}}
    asked = weights(design="leave-one-out+add-one", factors=parts)

    assert len(variants(design="leave-one-out+add-one", factors=parts)) == 10
    assert asked[0] == {"norm=absent": 0.5, "full": -0.5, "all-off": 0.5, "only-norm": -0.5}
    assert asked[4] == {"all-off": 1.0, "only-norm": -1.0, "norm=absent": -1.0, "full": 1.0}


def test_two_parts_have_one_interaction_and_not_the_same_one_twice() -> None:
    two = {name: PARTS[name] for name in ("norm", "second")}

    asked = [question.locked().plain() for question in study(design="leave-one-out+add-one", factors=two).questions]

    assert [question["interaction"] for question in asked] == [None, None, ["norm", "second"]]


def test_with_three_parts_only_the_whole_and_the_bare_model_are_points_of_comparison() -> None:
    # Without one of three parts and with the two others alone are the same variant: more pairs exist than are meant.
    asked = weights(design="leave-one-out+add-one", factors=PARTS)

    assert asked[0] == {"norm=absent": 0.5, "full": -0.5, "all-off": 0.5, "only-norm": -0.5}


def test_a_listed_design_compares_each_variant_with_the_baseline() -> None:
    listed = {"deep": {"model.depth": 4}, "all of it": {}}
    with pytest.raises(StudyFileError, match="variants"):
        study(design="listed", variants=listed)
    listed = {"deep": {"model.depth": 4}, "deep-norm": {"model.depth": 4, "model.normalization": "batch"}}

    assert variants(design="listed", variants=listed) == ["baseline", "deep", "deep-norm"]
    assert weights(design="listed", variants=listed) == [
        {"deep": 1.0, "baseline": -1.0},
        {"deep-norm": 1.0, "baseline": -1.0},
    ]


def test_a_listed_design_answers_a_factors_effect_where_two_variants_differ_in_it_alone() -> None:
    listed = {"deep": {"model.depth": 4}, "deep-norm": {"model.depth": 4, "model.normalization": "batch"}}
    questions = [{"effect": "model.normalization"}]

    assert weights(
        design="listed", variants=listed, factors=FACTORS | {"model.depth": [3, 4]}, questions=questions
    ) == [{"deep-norm": 1.0, "deep": -1.0}]


def test_forbidden_combinations_are_not_trained_and_not_averaged_over() -> None:
    forbid = [{"model.depth": 5, "model.normalization": "none"}]
    questions = [{"effect": "model.normalization"}]

    assert "depth=5,normalization=none" not in variants(forbid=forbid, questions=questions)
    assert len(weights(forbid=forbid, questions=questions)[0]) == 4


def estimands_and_sentences(**changes: Any) -> list[tuple[str, str]]:
    plan = plan_of(study(**changes))
    return [(answer.estimand, sentence(answer)) for answer in analyse(plan, make_runs(plan)).answers]


def test_what_is_averaged_over_is_named_without_what_is_forbidden() -> None:
    factors = {"model.normalization": ["none", "batch"], "model.depth": [3, 4], "model.width": [32, 16]}
    forbid = [{"model.depth": 4, "model.width": 16}]
    asked = [{"effect": "model.normalization"}]
    ((some, said),) = estimands_and_sentences(factors=factors, forbid=forbid, questions=asked)
    ((whole, _),) = estimands_and_sentences(factors=factors, questions=asked)

    assert some.endswith(
        "averaged over model.depth = 3, model.width = 32; model.depth = 3, model.width = 16; "
        "model.depth = 4, model.width = 32"
    )
    assert whole.endswith("averaged over model.depth = 3, 4; model.width = 32, 16")
    assert "Seen only" not in said


def test_an_answer_that_rests_on_one_combination_says_at_which() -> None:
    forbid = [{"model.depth": depth, "model.normalization": "batch"} for depth in (4, 5)]
    by_forbidding = estimands_and_sentences(forbid=forbid, questions=[{"effect": "model.normalization"}])
    by_design = estimands_and_sentences(design="one-at-a-time")
    asked = estimands_and_sentences(questions=[{"effect": "model.normalization", "at": {"model.depth": 4}}])
    without = estimands_and_sentences(design="add-one", factors=PARTS)

    assert "Seen only at depth=3." in by_forbidding[0][1]
    assert ["normalization=none", "normalization=none", "depth=3"] == [
        said.partition("Seen only at ")[2].partition(".")[0] for _, said in by_design
    ]
    assert "Seen only" not in asked[0][1]
    assert "Seen only when alone." in without[0][1]


def test_one_combination_of_many_factors_is_named_in_the_methods_alone() -> None:
    factors = FACTORS | {"model.width": [32, 16], "training.epochs": [20, 4], "training.batch_size": [32, 64]}
    estimand, said = estimands_and_sentences(design="one-at-a-time", factors=factors)[0]

    assert "Seen only at one combination of the other 4 factors' levels." in said
    assert (
        "where model.normalization = none, model.width = 32, training.batch_size = 64, training.epochs = 20" in estimand
    )


def test_what_forbidding_leaves_unanswerable_is_said() -> None:
    forbid = [{"model.depth": 5, "model.normalization": "none"}, {"model.depth": 5, "model.normalization": "batch"}]

    with pytest.raises(
        StudyFileError, match="no variants of this design differ in model.depth alone".replace(".", r"\.")
    ):
        study(forbid=forbid)


def test_a_combination_that_no_variant_has_forbids_nothing_and_is_said() -> None:
    with pytest.raises(StudyFileError, match="matches no variant"):
        study(design="one-at-a-time", forbid=[{"model.depth": 5, "model.normalization": "batch"}])


def test_a_question_may_be_asked_at_some_levels_only() -> None:
    asked = weights(questions=[{"effect": "model.normalization", "at": {"model.depth": 4}}])

    assert asked == [{"depth=4,normalization=batch": 1.0, "depth=4,normalization=none": -1.0}]


def test_tuned_and_untuned_variants_are_each_asked_everything_and_never_mixed() -> None:
    tune = {"training.learning_rate": {"log": [1e-4, 1e-2]}, "also_untuned": True}
    both = study(factors={"model.normalization": ["none", "batch"]}, tune=tune)

    assert [variant.name for variant in both.variants] == [
        "normalization=none,settings=tuned",
        "normalization=none,settings=file",
        "normalization=batch,settings=tuned",
        "normalization=batch,settings=file",
    ]
    assert [dict(contrast.weights) for contrast in contrasts_of(plan_of(both))] == [
        {"normalization=batch,settings=tuned": 1.0, "normalization=none,settings=tuned": -1.0},
        {"normalization=batch,settings=file": 1.0, "normalization=none,settings=file": -1.0},
    ]


def test_settings_found_by_tuning_are_those_of_the_tuned_variants_alone() -> None:
    tune = {"training.learning_rate": {"log": [1e-4, 1e-2]}, "also_untuned": True}
    both = study(factors={"model.normalization": ["none", "batch"]}, tune=tune)

    tuned = both.tuned({"normalization=batch": {"training.learning_rate": 0.005}})

    assert [variant.settings.engine.learning_rate for variant in tuned.variants] == [1e-3, 1e-3, 0.005, 1e-3]
    assert [variant.name for variant in both.design_variants()] == ["normalization=none", "normalization=batch"]


def test_a_part_that_is_absent_is_removed_from_the_model_and_a_replaced_one_replaced() -> None:
    factors = {"block": {"remove": ["blocks.block2"]}, "activation": {"replace": {"*.activation": "GELU"}}}
    made = {variant.name: variant.settings.model for variant in study(factors=factors).variants}

    assert made["block=present,activation=original"].remove == ()
    assert made["block=absent,activation=replaced"].remove == ("blocks.block2",)
    assert made["block=absent,activation=replaced"].replace == {"*.activation": "GELU"}


@given(
    parts=st.integers(min_value=1, max_value=5),
    design=st.sampled_from(["factorial", "one-at-a-time", "leave-one-out", "add-one", "leave-one-out+add-one"]),
)
def test_every_design_has_the_baseline_first_no_variant_twice_and_weights_that_cancel(parts: int, design: str) -> None:
    factors = {f"part{index}": {"remove": [f"blocks.block{index}"]} for index in range(parts)}
    designed = study(design=design, factors=factors)
    levels = [json.dumps(variant.levels) for variant in designed.variants]

    assert [variant.is_baseline for variant in designed.variants] == [True] + [False] * (len(levels) - 1)
    assert len(set(levels)) == len(levels) == len({variant.name for variant in designed.variants})
    for contrast in contrasts_of(plan_of(designed)):
        assert math.isclose(sum(contrast.weights.values()), 0.0, abs_tol=1e-12)
        assert set(contrast.weights) <= {variant.name for variant in designed.variants}


@pytest.mark.parametrize("design", ["one-at-a-time", "leave-one-out", "add-one", "leave-one-out+add-one"])
def test_each_design_is_analysed_whole(design: str) -> None:
    plan = plan_of(study(design=design, factors=PARTS))

    analysis = analyse(plan, make_runs(plan))

    assert len(analysis.answers) == len(contrasts_of(plan))
    assert all(answer.comparisons == len(analysis.answers) for answer in analysis.answers)
