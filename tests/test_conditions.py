"""A factor with a condition varies only beside some levels of others: its variants, its effect, and what is refused."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from factories import make_runs, noisy_accuracy, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.analysis import analyse, contrast_name, contrasts_of, run_table
from ablation.api.variants import variant_name
from ablation.errors import StudyFileError
from ablation.records import Plan, Variant
from ablation.report import report_text
from ablation.scheduling.runs import _distributions, _parameters
from ablation.study import Study, study_of_values
from ablation.study.level_names import NOT_VARIED
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.tracking.interface import RunDescription
from ablation.tracking.mlflow.run_records import _described

NORMALIZATION = ["none", "batch", "group"]
GROUPS = {"levels": [2, 4], "when": {"model.normalization": "group"}}
FACTORS = {"model.normalization": NORMALIZATION, "model.groups": GROUPS, "model.depth": [2, 3]}
GROUPED = {"name": "cnn", "depth": 2, "normalization": "group", "groups": 4}


def study(factors: Mapping[str, Any] = FACTORS, **changes: Any) -> Study:
    values = {
        "name": "conditions",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 2},
        "training": {"epochs": 2},
        "factors": dict(factors),
        "seeds": 3,
    }
    return study_of_values({**values, **changes})


def plan(factors: Mapping[str, Any] = FACTORS, **changes: Any) -> Plan:
    return plan_of(study(factors, **changes))


def names(checked: Study) -> list[str]:
    return [variant.name for variant in checked.variants]


def asked(made: Plan) -> list[str]:
    return [contrast_name(contrast) for contrast in contrasts_of(made)]


def weights(made: Plan, name: str) -> dict[str, float]:
    return dict(next(contrast.weights for contrast in contrasts_of(made) if contrast_name(contrast) == name))


def errors(factors: Mapping[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        study(factors, **changes)
    return [f"{problem.message} @ {problem.path}" for problem in caught.value.problems]


def test_a_factorial_crosses_a_factor_only_where_its_condition_holds() -> None:
    checked = study()

    assert names(checked) == [
        "normalization=none,depth=2",
        "normalization=none,depth=3",
        "normalization=batch,depth=2",
        "normalization=batch,depth=3",
        "normalization=group,groups=2,depth=2",
        "normalization=group,groups=2,depth=3",
        "normalization=group,groups=4,depth=2",
        "normalization=group,groups=4,depth=3",
    ]
    assert checked.variants[0].levels["model.groups"] == NOT_VARIED


def test_its_effect_is_asked_where_it_varies_between_its_own_levels_and_the_report_says_so() -> None:
    made = plan()
    text = report_text(analyse(made, make_runs(made)), "markdown")

    assert asked(made) == [
        "model.normalization: none → batch",
        "model.normalization: none → group",
        "model.groups: 2 → 4, model.normalization = group",
        "model.depth: 2 → 3",
    ]
    assert "groups 2 → 4 at normalization=group" in text
    assert NOT_VARIED not in text.partition("In words")[0]


def test_the_effect_of_what_a_condition_hangs_on_averages_over_the_factor_where_it_varies() -> None:
    found = weights(plan(), "model.normalization: none → group")

    assert found == {
        "normalization=group,groups=2,depth=2": 0.25,
        "normalization=group,groups=4,depth=2": 0.25,
        "normalization=none,depth=2": -0.5,
        "normalization=group,groups=2,depth=3": 0.25,
        "normalization=group,groups=4,depth=3": 0.25,
        "normalization=none,depth=3": -0.5,
    }


def test_an_average_over_more_variants_on_one_side_is_measured_as_the_mean_of_each_side() -> None:
    made = plan(metric={"name": "test_accuracy", "meaningful": 0.1})
    means = {variant.name: 0.7 + 0.01 * index for index, variant in enumerate(made.variants)}

    def accuracy(variant: Variant, seed: int) -> float:
        return means[variant.name] + 0.001 * seed

    answer = analyse(made, make_runs(made, accuracy=accuracy)).answers[1]
    grouped = [mean for name, mean in means.items() if "group" in name]
    plain = [mean for name, mean in means.items() if "none" in name]
    sizes = {each.name: made.summaries[each.name].parameters for each in made.variants}

    assert answer.effect is not None
    assert answer.cost is not None
    assert answer.effect.mean == pytest.approx(sum(grouped) / 4 - sum(plain) / 2)
    assert answer.cost.parameters == pytest.approx(
        (sum(size for name, size in sizes.items() if "group" in name) / 4)
        / (sum(size for name, size in sizes.items() if "none" in name) / 2)
    )


def test_a_baseline_inside_a_condition_has_the_factors_level_of_the_file() -> None:
    made = plan(model=GROUPED)

    assert made.baseline.name == "normalization=group,groups=4,depth=2"
    assert asked(made)[2] == "model.groups: 4 → 2, model.normalization = group"


def test_one_at_a_time_changes_a_factor_where_its_condition_holds() -> None:
    outside, inside = study(design="one-at-a-time"), study(design="one-at-a-time", model=GROUPED)

    assert names(outside) == [
        "baseline",
        "normalization=batch",
        "normalization=group,groups=2",
        "normalization=group,groups=4",
        "depth=3",
    ]
    assert weights(plan_of(outside), "model.groups: 2 → 4, model.normalization = group") == {
        "normalization=group,groups=4": 1.0,
        "normalization=group,groups=2": -1.0,
    }
    assert names(inside) == ["baseline", "normalization=none", "normalization=batch", "groups=2", "depth=3"]


def test_a_listed_variant_has_the_first_level_where_it_names_none() -> None:
    checked = study(design="listed", variants={"grouped": {"model.normalization": "group"}, "deep": {"model.depth": 3}})

    assert checked.variants[1].levels == {"model.normalization": "group", "model.groups": 2, "model.depth": 2}
    assert checked.variants[2].levels["model.groups"] == NOT_VARIED


def test_a_condition_may_name_several_levels_a_recipe_and_a_factor_with_a_condition() -> None:
    recipe = {
        "adam": {"training.optimizer": "adam"},
        "sgd": {"training.optimizer": "sgd", "training.learning_rate": 0.1},
    }
    factors = {
        "recipe": recipe,
        "training.momentum": {"levels": [0.0, 0.5], "when": {"recipe": "sgd"}},
        "training.schedule": {"levels": ["constant", "cosine"], "when": {"training.momentum": [0.5]}},
    }

    checked = study(factors)

    assert names(checked) == [
        "recipe=adam",
        "recipe=sgd,momentum=0.0",
        "recipe=sgd,momentum=0.5,schedule=constant",
        "recipe=sgd,momentum=0.5,schedule=cosine",
    ]
    assert asked(plan_of(checked))[-1] == "training.schedule: constant → cosine, training.momentum = 0.5, recipe = sgd"


def test_a_part_and_a_recipe_may_have_conditions() -> None:
    factors = {
        "model.depth": [2, 3],
        "third": {"remove": ["blocks.block3"], "when": {"model.depth": 3}},
        "speed": {
            "levels": {"slow": {"training.learning_rate": 1e-3}, "fast": {"training.learning_rate": 0.1}},
            "when": {"third": "present"},
            "labels": {"fast": "quick"},
        },
    }

    checked = study(factors)

    assert names(checked) == [
        "depth=2",
        "depth=3,third=present,speed=slow",
        "depth=3,third=present,speed=fast",
        "depth=3,third=absent",
    ]
    assert [each.configuration["model"].get("remove", []) for each in checked.variants] == [
        [],
        [],
        [],
        ["blocks.block3"],
    ]


def test_interactions_of_such_factors_are_asked_where_both_vary() -> None:
    layered = {**FACTORS, "model.groups": {"levels": [2, 4], "when": {"model.depth": [2, 3]}}}
    made = plan(
        questions=[
            {"interaction": ["model.groups", "model.depth"]},
            {"interaction": ["model.normalization", "model.depth"]},
        ]
    )

    assert asked(made) == [
        "model.groups: 2 → 4 × model.depth: 2 → 3, model.normalization = group",
        "model.normalization: none → batch × model.depth: 2 → 3",
        "model.normalization: none → group × model.depth: 2 → 3",
    ]
    assert sum(weights(made, asked(made)[2]).values()) == pytest.approx(0)
    assert layered["model.groups"] != GROUPS


def test_a_plan_of_conditions_is_read_as_it_was_written_and_its_document_is_the_study() -> None:
    checked = study()
    made = plan_of(checked)

    assert plan_from_json(plan_to_json(made)) == made
    assert study_of_values(checked.spec.document()).variants == checked.variants


def test_trackers_and_tables_know_where_a_factor_does_not_vary() -> None:
    made = plan()
    absent, grouped = made.runs[0], made.runs[4]

    assert "model.groups" not in _described(RunDescription.of(absent, made))
    assert _described(RunDescription.of(grouped, made))["model.groups"] == 2
    assert [*run_table(made, make_runs(made))["model.groups"][:5]] == [NOT_VARIED] * 4 + [2]
    for run in made.runs:
        known = _distributions(made)
        assert all(
            known[path]._contains(known[path].to_internal_repr(level)) for path, level in _parameters(made, run).items()
        )


def test_a_variant_is_found_by_its_levels_beside_conditions() -> None:
    made = plan()

    assert variant_name(made, {"model.normalization": "group"}, at="compare") == "normalization=group,groups=2,depth=2"
    assert variant_name(made, {"model.depth": 3}, at="compare") == "normalization=none,depth=3"


@pytest.mark.slow
@pytest.mark.parametrize("design", ["factorial", "one-at-a-time"])
def test_every_form_of_the_report_is_written_beside_conditions(design: str) -> None:
    labelled = {**FACTORS, "model.normalization": {"levels": NORMALIZATION, "label": "norm", "labels": {"group": "GN"}}}
    made = plan(labelled, design=design)
    analysis = analyse(made, make_runs(made))

    texts = {kind: report_text(analysis, kind) for kind in ("markdown", "html", "json", "latex", "latex-wide")}

    assert "groups 2 → 4 at norm=GN" in texts["markdown"]
    assert json.loads(texts["json"])["factors"]["model.groups"] == [2, 4]


def test_a_question_is_asked_between_any_two_levels() -> None:
    made = plan(
        {"model.depth": [2, 3, 4]}, questions=[{"effect": "model.depth", "levels": [3, 4]}, {"effect": "model.depth"}]
    )

    assert asked(made) == ["model.depth: 3 → 4", "model.depth: 2 → 3", "model.depth: 2 → 4"]
    assert weights(made, "model.depth: 3 → 4") == {"depth=4": 1.0, "depth=3": -1.0}
    assert plan_from_json(plan_to_json(made)) == made
    assert made.locked.plain()["questions"][0]["levels"] == {"model.depth": [3, 4]}
    assert "levels" not in made.locked.plain()["questions"][1]


def test_a_question_between_two_levels_shares_alpha_with_the_others() -> None:
    both = plan(
        {"model.depth": [2, 3, 4]}, questions=[{"effect": "model.depth", "levels": [3, 4]}, {"effect": "model.depth"}]
    )

    analysis = analyse(both, make_runs(both, accuracy=noisy_accuracy))

    assert {answer.comparisons for answer in analysis.answers} == {3}
    assert "depth 3 → 4" in report_text(analysis, "markdown")


def test_an_interaction_is_asked_between_levels_of_one_factor() -> None:
    question = {
        "interaction": ["model.depth", "model.normalization"],
        "levels": {"model.normalization": ["batch", "group"]},
    }

    made = plan({"model.normalization": NORMALIZATION, "model.depth": [2, 3]}, questions=[question])

    assert asked(made) == ["model.depth: 2 → 3 × model.normalization: batch → group"]
    assert study_of_values(
        study({"model.normalization": NORMALIZATION, "model.depth": [2, 3]}, questions=[question]).spec.document()
    )


def _when(when: Any) -> dict[str, Any]:
    return {**FACTORS, "model.groups": {"levels": [2, 4], "when": when}}


ONLY = "model.groups varies only where model.normalization is 'group'"
REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        _when({"model.groups": 2}),
        {},
        "a factor cannot depend on itself; name another factor @ factors.model.groups.when.model.groups",
    ),
    (
        _when({"model.width": 2}),
        {},
        "'model.width' is not a factor of this study; did you mean 'model.depth'? @ "
        "factors.model.groups.when.model.width",
    ),
    (
        _when({"model.normalization": "layer"}),
        {},
        "'layer' is none of its levels: 'none', 'batch', 'group' @ factors.model.groups.when.model.normalization",
    ),
    (_when({"model.normalization": []}), {}, "names no level @ factors.model.groups.when.model.normalization"),
    (
        _when(5),
        {},
        "must be a mapping of other factors to a level, or a list of levels, beside which this one varies, "
        "such as {model.normalization: group}, not 5 @ factors.model.groups.when",
    ),
    (
        {**_when({"model.dropout": 0.5}), "model.dropout": {"levels": [0.0, 0.5], "when": {"model.groups": 2}}},
        {},
        "the conditions go in a circle: model.dropout → model.groups → model.dropout; leave one of them out "
        "@ factors.model.dropout.when",
    ),
    (
        {
            **FACTORS,
            "model.dropout": {"levels": [0.0, 0.5], "when": {"model.groups": 2, "model.normalization": "none"}},
        },
        {},
        "no combination of levels has model.groups = 2 and model.normalization = 'none', so model.dropout "
        "would never vary @ factors.model.dropout.when",
    ),
    (
        FACTORS,
        {"model": {**GROUPED, "groups": 8}},
        "the baseline's level 8 is missing from the factor's levels; add it, or set model.groups to one of "
        "them @ factors.model.groups.levels",
    ),
    (
        {**FACTORS, "model.normalization": ["none", "group"]},
        {"design": "add-one"},
        "design add-one turns all factors off at once, so none can vary beside another alone @ "
        "factors.model.groups.when",
    ),
    (
        FACTORS,
        {"questions": [{"interaction": ["model.normalization", "model.groups"]}]},
        f"{ONLY}, so there is nothing of model.normalization that it could depend on @ questions[0].interaction",
    ),
    (
        FACTORS,
        {"questions": [{"effect": "model.groups", "at": {"model.normalization": "none"}}]},
        f"{ONLY}, so it has no effect at 'none' @ questions[0].at.model.normalization",
    ),
    (
        FACTORS,
        {"design": "listed", "variants": {"a": {"model.groups": 4}}},
        f"{ONLY}; set that too, or leave model.groups out @ variants.a",
    ),
    (
        FACTORS,
        {"questions": [{"effect": "model.depth", "levels": [2, 2]}]},
        "compares 2 with itself; give two different levels @ questions[0].levels",
    ),
    (
        FACTORS,
        {"questions": [{"effect": "model.depth", "levels": [2, 5]}]},
        "5 is none of its levels: 2, 3 @ questions[0].levels[1]",
    ),
    (
        FACTORS,
        {"questions": [{"effect": "model.depth", "levels": [3, 2]}, {"effect": "model.depth"}]},
        "compares 2 with 3, as question 1 does; ask it once @ questions[1]",
    ),
    (
        FACTORS,
        {"questions": [{"interaction": ["model.normalization", "model.depth"], "levels": [2, 3]}]},
        "an interaction has two factors: name the one that has these levels, as in {levels: {model.depth: "
        "[2, 3]}} @ questions[0].levels",
    ),
    (
        FACTORS,
        {"design": "listed", "variants": {"a": {"model.depth": 3}}, "questions": [{"variant": "a", "levels": [2, 3]}]},
        "stand beside an effect or an interaction: they are two levels of its factor @ questions[0].levels",
    ),
]


@pytest.mark.parametrize(("factors", "changes", "message"), REFUSED, ids=range(len(REFUSED)))
def test_a_wrong_condition_or_pair_of_levels_is_refused_before_anything_trains(
    factors: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    assert errors(factors, **changes) == [message]


PATHS = {
    "model.depth": [2, 3],
    "model.width": [32, 16, 8],
    "model.kernel": [3, 5],
    "model.dropout": [0.0, 0.5],
    "training.batch_size": [64, 32],
}


@st.composite
def designs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw factors of which some are recipes, and each may vary only beside levels of those before it."""
    chosen = draw(st.lists(st.sampled_from(sorted(PATHS)), min_size=2, max_size=4, unique=True))
    factors: dict[str, Any] = {}
    for index, path in enumerate(chosen):
        levels = PATHS[path] if draw(st.booleans()) else PATHS[path][::-1]
        is_recipe = draw(st.booleans())
        name = f"recipe{index}" if is_recipe else path
        form: Any = {f"v{level}": {path: level} for level in levels} if is_recipe else levels
        known = list(factors)
        if known and draw(st.booleans()):
            other = draw(st.sampled_from(known))
            own = (
                factors[other]["levels"]
                if isinstance(factors[other], dict) and "levels" in factors[other]
                else factors[other]
            )
            when = draw(st.lists(st.sampled_from(list(own)), min_size=1, max_size=len(own), unique=True))
            form = {"levels": form, "when": {other: when if len(when) > 1 else when[0]}}
        factors[name] = form
    return factors


@settings(max_examples=20, deadline=None)
@given(designs(), st.sampled_from(["factorial", "one-at-a-time"]))
def test_no_two_variants_of_any_design_are_the_same_and_every_default_question_is_answered(
    factors: dict[str, Any], design: str
) -> None:
    checked = study(factors, design=design)
    made = plan_of(checked)
    contrasts = contrasts_of(made)

    configurations = [json.dumps(each.configuration, sort_keys=True) for each in checked.variants]
    assert len(set(configurations)) == len(configurations) == len(set(names(checked)))
    assert {change.factor for contrast in contrasts for change in contrast.changes} == set(factors)
    for contrast in contrasts:
        assert sum(weight for weight in contrast.weights.values() if weight > 0) == pytest.approx(1)
        assert sum(contrast.weights.values()) == pytest.approx(0)
    assert study_of_values(checked.spec.document()).variants == checked.variants
