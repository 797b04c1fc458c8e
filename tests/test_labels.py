"""Labels are what people read, wherever they do; identities, names of runs and levels in JSON know nothing of them."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from factories import make_runs, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.analysis import StudyLooks, analyse, contrast_name, contrasts_of
from ablation.analysis.analysis_record import Analysis
from ablation.analysis.power import power_of
from ablation.coordinator.planning import _deviations
from ablation.errors import StudyFileError
from ablation.report import answers_text, report_text, write_report
from ablation.report.figures import KINDS
from ablation.report.labels import labelled
from ablation.report.rows import first_screen
from ablation.study import Study, locked_hash, parse_study, study_of_values
from ablation.study.labels import MOST_LETTERS, NO_LABELS, labels_of
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.tracking.mlflow.notes import experiment_description

NORMALIZATION = {"levels": ["none", "batch"], "label": "norm", "labels": {"none": "no norm", "batch": "BN"}}
DEPTH = {"levels": [2, 3], "labels": {"3": "three blocks"}}
LABELLED = {"model.normalization": NORMALIZATION, "model.depth": DEPTH}
PLAIN = {"model.normalization": ["none", "batch"], "model.depth": [2, 3]}
NAMES = {
    "normalization=none,depth=2": "norm=no norm, depth=2",
    "normalization=none,depth=3": "norm=no norm, depth=three blocks",
    "normalization=batch,depth=2": "norm=BN, depth=2",
    "normalization=batch,depth=3": "norm=BN, depth=three blocks",
}
TEXT = st.text(min_size=1, max_size=MOST_LETTERS).filter(lambda text: text.isprintable() and text == text.strip())


def values(factors: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "labelled",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 2, "normalization": "none"},
        "factors": factors,
        "seeds": 3,
        **changes,
    }


def study(factors: Mapping[str, Any] = LABELLED, **changes: Any) -> Study:
    return parse_study(json.dumps(values(factors, **changes)).encode(), source="labelled.yaml")


def analysis(factors: Mapping[str, Any] = LABELLED, **changes: Any) -> Analysis:
    plan = plan_of(study(factors, **changes))
    return analyse(plan, make_runs(plan))


def refusals(factors: Mapping[str, Any], **changes: Any) -> list[str]:
    with pytest.raises(StudyFileError) as refused:
        study(factors, **changes)
    return [f"{problem.message} @ {problem.path}" for problem in refused.value.problems]


def called(**changes: Any) -> dict[str, str]:
    return dict(labels_of(plan_of(study(**changes))).variants)


def test_labels_alter_no_identity_name_plan_hash_or_name_of_a_comparison():
    with_labels, without = (plan_of(study(factors)) for factors in (LABELLED, PLAIN))

    assert with_labels.runs == without.runs
    assert with_labels.variants == without.variants
    assert with_labels.locked_hash == without.locked_hash == locked_hash(study().locked())
    assert list(map(contrast_name, contrasts_of(with_labels))) == list(map(contrast_name, contrasts_of(without)))


def test_changed_labels_are_no_deviation():
    before, now = (plan_of(study(factors)) for factors in (PLAIN, LABELLED))

    assert _deviations(before, now, results=3) == []


def test_variants_of_a_factorial_design_are_called_by_all_labels():
    assert called() == NAMES


def test_variants_that_differ_in_one_factor_are_called_by_it():
    assert called(design="one-at-a-time") == {
        "normalization=batch": "norm=BN",
        "depth=3": "depth=three blocks",
    }


def test_a_part_is_called_by_its_label_wherever_it_is_left_out_or_left_alone():
    parts = {
        "relu": {"remove": ["blocks.*.activation"], "label": "activation"},
        "dense": {"remove": ["classifier.dense1"], "label": "dense layer"},
        "norm": {"remove": ["blocks.*.normalization"]},
    }

    assert called(factors=parts, design="leave-one-out+add-one") == {
        "relu=absent": "activation=absent",
        "dense=absent": "dense layer=absent",
        "only-relu": "only activation",
        "only-dense": "only dense layer",
        "only-norm": "only norm",
    }


def test_a_listed_variant_has_its_own_name_or_label():
    listed = {"deep": {"model.depth": 3}, "norm": {"levels": {"model.normalization": "batch"}, "label": "with BN, $"}}

    assert called(design="listed", variants=listed) == {"norm": "with BN, $"}
    text = read(analysis(design="listed", variants=listed))
    assert all("with BN, " in each for where, each in text.items())
    assert "variant with BN, $ compared with the baseline" in text["terminal"]


def test_a_labelled_variant_is_trained_and_named_as_without_its_label():
    levels = {"model.normalization": "batch"}
    plain, with_label = (
        plan_of(study(design="listed", variants={"norm": each})) for each in (levels, {"levels": levels, "label": "BN"})
    )

    assert with_label.variants == plain.variants
    assert with_label.runs == plain.runs
    assert with_label.locked_hash == plain.locked_hash


def test_mistakes_in_a_labelled_variant_are_told_where_they_are():
    listed = {
        "a": {"levels": {"model.depht": 3}, "label": "A"},
        "b": {"levels": {"model.depth": 4}, "label": ""},
        "c": {"levels": {"model.depth": 3}, "name": "C"},
    }

    assert refusals(LABELLED, design="listed", variants=listed) == [
        "a label is one line of text of at most 40 characters; this one has none @ variants.b.label",
        "unknown key 'name'; allowed: label, levels @ variants.c.name",
        "'model.depht' is not a factor of this study; did you mean 'model.depth'? @ variants.a.levels.model.depht",
        "4 is none of its levels: 2, 3 @ variants.b.levels.model.depth",
    ]


def test_what_an_experiment_asks_is_told_by_labels():
    plan = plan_of(study(questions=[{"effect": "model.normalization", "at": {"model.depth": 3}}]))
    text = experiment_description(plan, found="", links={}, others={})

    assert "What does norm no norm → BN do to test accuracy at depth three blocks?" in text
    assert "compared with norm=no norm, depth=2 by test accuracy" in text


def test_tuned_variants_keep_what_says_that_they_are_tuned():
    tune = {"training.learning_rate": {"log": [1e-4, 1e-2]}, "trials": 2, "also_untuned": True}
    found = called(tune=tune, data={"name": "digits", "validation": 0.2})

    assert found["normalization=batch,depth=3,settings=tuned"] == "norm=BN, depth=three blocks,settings=tuned"
    assert found["normalization=batch,depth=3"] == "norm=BN, depth=three blocks"


def own(levels: list[Any], labels: Mapping[str, str]) -> Study:
    return study(
        {"training.x": {"levels": levels, "labels": labels}},
        data=None,
        model=None,
        training={"name": "t.py:train", "x": levels[0]},
        metric={"name": "score", "direction": "maximize"},
    )


@pytest.mark.parametrize(
    ("levels", "key", "name"),
    [
        ([0.001, 0.01], "1e-3", "0.001"),
        ([0.001, 0.01], "0.001", "0.001"),
        ([True, False], "true", "true"),
        ([2, 3], "2", "2"),
        ([[128, 64], [64]], "128-64", "128-64"),
        ([[128, 64], [64]], "[128, 64]", "128-64"),
        (["null", "x"], "null", "null"),
        (["a b", "x"], "a b", "a b"),
    ],
)
def test_a_level_of_any_kind_has_a_label_by_how_it_is_written_or_named(levels, key, name):
    made = own(levels, {key: "one"})

    assert made.spec.document()["factors"]["training.x"]["labels"] == {name: "one"}
    assert labels_of(plan_of(made, classes=())).variants == {f"x={name}": "x=one"}


def test_in_python_a_level_that_is_no_text_is_a_key_as_it_is():
    given = values({"model.depth": {"levels": [2, 3], "labels": {2: "two", 3: "three"}}})

    assert study_of_values(given).spec.document()["factors"]["model.depth"]["labels"] == {"2": "two", "3": "three"}


def test_every_mistake_in_labels_is_told_at_once():
    wrong = {
        "model.normalization": {"levels": ["none", "batch"], "label": "x" * 41, "labels": {"bach": "BN", "none": " a"}},
        "model.depth": {"levels": [2, 3], "label": "two\nlines", "labels": {"2": "three", "3": "three"}},
        "training.learning_rate": {
            "levels": [1e-3, 1e-2],
            "label": "model.depth",
            "labels": {"1e-3": "a", "0.001": "b"},
        },
        "model.width": {"levels": [8, 32], "lable": "wide"},
    }

    assert sorted(refusals(wrong)) == sorted(
        [
            "a label is one line of text of at most 40 characters; this one has 41 @ factors.model.normalization.label",
            "'bach' is none of the factor's levels; did you mean 'batch'? @ factors.model.normalization.labels.bach",
            "a label has no spaces at its ends @ factors.model.normalization.labels.none",
            "a label is one line of printable text; this one has U+000A @ factors.model.depth.label",
            "levels 2 and 3 would both be called 'three'; change a label @ factors.model.depth.labels.3",
            "a label is what people read, and no path into the study file @ factors.training.learning_rate.label",
            "level 0.001 has a label already, 'a' @ factors.training.learning_rate.labels.0.001",
            "unknown key 'lable'; did you mean 'label'? @ factors.model.width.lable",
        ]
    )


def test_two_factors_of_one_name_are_refused():
    twice = {"model.normalization": {**NORMALIZATION, "label": "depth"}, "model.depth": [2, 3]}

    assert refusals(twice) == [
        "factors model.normalization and model.depth would both be called 'depth'; change a label @ factors.model.depth"
    ]


def test_a_label_that_is_another_levels_name_is_refused():
    swapped = {"model.normalization": {"levels": ["none", "batch"], "labels": {"none": "batch"}}}

    assert refusals(swapped) == [
        "levels none and batch would both be called 'batch'; change a label @ factors.model.normalization.labels"
    ]


def test_labels_by_which_two_variants_have_one_name_are_refused():
    commas = {
        "model.normalization": {"levels": ["none", "batch"], "label": "a", "labels": {"none": "1, b=1", "batch": "1"}},
        "model.depth": {"levels": [2, 3], "label": "b", "labels": {"2": "2", "3": "1, b=2"}},
    }

    (found,) = refusals(commas)

    assert "would both be called 'a=1, b=1, b=2'; change a label @ factors" in found


def test_levels_that_were_replaced_from_outside_keep_the_labels_that_still_fit():
    content = json.dumps(values(LABELLED)).encode()

    made = parse_study(content, source="s.yaml", levels={"model.normalization": ["none", "layer"], "model.depth": [4]})

    assert made.spec.document()["factors"] == {
        "model.normalization": {"levels": ["none", "layer"], "label": "norm", "labels": {"none": "no norm"}}
    }


def test_a_plan_with_labels_is_read_back_as_it_was_written():
    plan = plan_of(study())

    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("factors", {"model.depth": {"levels": [2, 3], "labels": {"3": 7}}}),
        ("factors", {"model.depth": {"levels": [2, 3], "label": ["x"]}}),
        ("variants", ["deep"]),
    ],
)
def test_a_plan_whose_labels_are_no_texts_is_refused(key, value):
    document = json.loads(plan_to_json(plan_of(study())))
    document["study"][key] = value

    with pytest.raises(ValueError, match=f"not a plan: .*{key}"):
        plan_from_json(json.dumps(document))


def test_a_plan_with_a_listed_variants_label_that_is_no_text_has_none():
    plan = plan_of(study(PLAIN, design="listed", variants={"deep": {"model.depth": 3}}))
    odd = {"deep": {"levels": {"model.depth": 3}, "label": ["x"]}}

    assert labels_of(dataclasses.replace(plan, study={**plan.study, "variants": odd})) == NO_LABELS


def test_a_plan_that_somebody_wrote_with_one_name_for_two_variants_has_no_labels():
    plan = plan_of(study())
    alike = {**plan.study["factors"], "model.depth": {"levels": [2, 3], "labels": {"2": "x", "3": "x"}}}

    assert labels_of(dataclasses.replace(plan, study={**plan.study, "factors": alike})) == NO_LABELS


def test_report_json_keeps_levels_and_names_and_has_the_labels_beside_them():
    with_labels, without = (json.loads(report_text(analysis(factors), "json")) for factors in (LABELLED, PLAIN))

    assert with_labels.pop("labels") == {
        "factors": {
            "model.normalization": {"label": "norm", "levels": {"none": "no norm", "batch": "BN"}},
            "model.depth": {"label": None, "levels": {"3": "three blocks"}},
        },
        "variants": NAMES,
    }
    assert without.pop("labels") == {"factors": {}, "variants": {}}
    assert with_labels.pop("study")["factors"] == {"model.normalization": NORMALIZATION, "model.depth": DEPTH}
    del without["study"]
    assert with_labels == without


def read(found: Analysis) -> dict[str, str]:
    """Return all that people read of an analysis, by where; of the report, what stands above the study file."""
    drawn = labelled(found)
    figures = [text.get_text() for draw in KINDS.values() for each in draw(drawn) for text in _texts(each.figure)]
    return {
        "markdown": report_text(found, "markdown").partition("## Reproduce")[0],
        "latex": report_text(found, "latex"),
        "terminal": answers_text(found),
        "rows": "\n".join(f"{row.change} {row.sentence}" for row in first_screen(found).rows),
        "figures": "\n".join(figures),
    }


def _texts(figure: Any) -> list[Any]:
    from matplotlib.text import Text

    return figure.findobj(Text)


def test_people_read_labels_and_no_names_that_have_one():
    seeds = "/seed-"  # names of runs stay
    for where, text in read(analysis()).items():
        shown = "\n".join(line for line in text.splitlines() if seeds not in line)
        assert "BN" in shown, where
        assert not re.search(r"model\.normalization|normalization[ =:]+(none|batch)|depth[ =:]+3", shown), where
        assert "three blocks" in shown, where


def test_labels_of_factors_that_are_not_crossed_stand_in_answers_and_tables():
    text = read(analysis(design="one-at-a-time"))

    assert "norm no norm → BN" in text["terminal"]
    assert "depth 2 → three blocks" in text["terminal"]
    assert "norm=BN" in text["markdown"]
    assert "norm=no norm, depth=2" in text["markdown"]  # the baseline's levels


def test_a_question_at_a_level_is_told_by_labels():
    asked = [{"effect": "model.normalization", "at": {"model.depth": 3}}]
    text = read(analysis(questions=asked))["markdown"]

    assert "at depth=three blocks" in text
    assert "norm=BN minus no norm in the same seed, where model.depth = three blocks" in text


def test_what_a_design_can_find_is_told_by_labels():
    power = power_of(StudyLooks.of(plan_of(study()), ()))

    assert [each.label for each in power] == ["norm: no norm → BN", "model.depth: 2 → three blocks"]
    assert [each.question for each in power] == ["model.normalization: none → batch", "model.depth: 2 → 3"]


def test_labels_are_used_once():
    once = labelled(analysis())

    assert labelled(once) is once


def test_an_analysis_without_labels_is_itself():
    plain = analysis(PLAIN)

    assert labelled(plain) is plain


@settings(deadline=None, max_examples=25)
@given(factor=TEXT, level=TEXT)
def test_any_label_is_text_in_every_form(tmp_path_factory, factor, level):
    factors = {"model.normalization": {"levels": ["none", "batch"], "label": factor, "labels": {"batch": level}}}
    try:
        made = plan_of(study(factors))
    except StudyFileError:
        return  # a path, or the other level's name
    found = analyse(made, make_runs(made))

    screen = first_screen(found)
    assert factor in screen.rows[0].change
    assert level in screen.rows[0].change
    for kind in ("markdown", "latex", "json"):
        assert report_text(found, kind)


@pytest.mark.usefixtures("vector_figures")
def test_hostile_labels_are_text_in_the_page(tmp_path: Path):
    factors = {
        "model.normalization": {
            "levels": ["none", "batch"],
            "label": "<b>$x$|*",
            "labels": {"batch": "`<script>`&\\end"},
        }
    }
    write_report(analysis(factors), tmp_path)

    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;$x$|*" in page
