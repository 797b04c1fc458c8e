"""Holds what a report says of parts, of designs and of the user's own training to worked examples."""

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from factories import make_runs, plan_of

from ablation.analysis import Analysis, Verdict, analyse
from ablation.cli.summary import analysis_text
from ablation.records import ModelSummary, Plan, Variant
from ablation.report import error_tables, part_tables, report_text, sentence, tables, write_report
from ablation.report.names import comparison_lines
from ablation.report.prose import headline, overview
from ablation.study import parse_study

PARTS = {
    "norm": {"remove": ["*.norm*"]},
    "second": {"remove": ["blocks.block2"]},
    "third": {"remove": ["blocks.block3"]},
}
WORKED = {
    "full": 0.900,
    "norm=absent": 0.880,
    "second=absent": 0.875,
    "third=absent": 0.890,
    "all-off": 0.790,
    "only-norm": 0.800,
    "only-second": 0.800,
    "only-third": 0.850,
}
"""Removing second costs 2.5 points beside the others and 1 point when alone; third 1 and 6 points."""


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "name": "designed",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 3, "normalization": "none"},
        "factors": PARTS,
        "seeds": 5,
        **changes,
    }
    return plan_of(parse_study(json.dumps(values).encode(), source="designed.yaml"))


def analysed(accuracies: Mapping[str, float] | None = None, **changes: Any) -> Analysis:
    """Analyse a design whose variants have these accuracies, give or take a ten-thousandth by seed and variant."""
    made = plan(**changes)
    orders = list(itertools.permutations((-2, -1, 0, 1, 2)))

    def accuracy(variant: Variant, seed: int) -> float:
        found = next((value for name, value in (accuracies or {}).items() if variant.name == name), 0.8)
        return found + 1e-4 * orders[7 * made.variants.index(variant) % len(orders)][seed]

    return analyse(made, make_runs(made, accuracy=accuracy))


@pytest.fixture(scope="module")
def both() -> Analysis:
    return analysed(WORKED, design="leave-one-out+add-one")


def test_a_part_is_removed_or_replaced_in_words() -> None:
    factors = {"second": PARTS["second"], "activation": {"replace": {"*.activation": "GELU"}}}
    found = analysed({"full": 0.9}, design="leave-one-out", factors=factors)

    assert ["removing second hurts", "replacing activation hurts"] == list(map(headline, found.answers))
    assert ["removing second", "replacing activation"] == [row[0] for row in tables.scorecard(found).rows]


def test_the_gap_of_a_part_beside_the_others_reads_as_it_was_worked_out(both: Analysis) -> None:
    text = sentence(both.answers[4])

    assert Verdict.BETTER_THAN_SUM is both.answers[4].verdict
    assert text.startswith(
        "removing second and removing the others overlap each other: test accuracy is 1.500 points higher than the sum "
        "of both effects ("
    )
    assert (
        "Removing second: 2.500 points lower beside the others, 1.000 points lower when alone; the difference is the "
        "gap between the two." in text
    )


def test_the_losses_of_parts_that_make_up_for_each_other_reinforce_each_other(both: Analysis) -> None:
    text = sentence(both.answers[5])

    assert Verdict.WORSE_THAN_SUM is both.answers[5].verdict
    assert text.startswith(
        "removing third and removing the others reinforce each other: test accuracy is 5.000 points "
    )
    assert "Removing third: 1.000 points lower beside the others, 6.000 points lower when alone" in text


def test_two_parts_together_are_named_by_themselves() -> None:
    factors = {name: PARTS[name] for name in ("norm", "second")}
    questions = [{"interaction": ["norm", "second"]}]
    found = analysed({"norm=present,second=present": 0.9}, factors=factors, questions=questions)
    same = analysed(factors=factors, questions=questions)

    assert "removing norm and removing second overlap each other" == headline(found.answers[0])
    assert "norm and second together, no meaningful difference" == headline(same.answers[0])
    assert "overlap each other when removed" in tables.scorecard(found).rows[0][2]


def test_a_listed_variant_is_compared_with_the_baseline_and_the_baseline_is_named_once() -> None:
    factors = {"model.depth": [3, 4], "model.normalization": ["none", "batch"]}
    found = analysed({"deep": 0.9}, design="listed", factors=factors, variants={"deep": {"model.depth": 4}})

    assert "variant deep compared with the baseline helps" == headline(found.answers[0])
    assert ["variant deep"] == comparison_lines(found.answers[0])
    assert overview(found)[2].startswith("Compared with the baseline, which has a mean test accuracy of 80")
    assert ["baseline", "deep"] == [row[0] for row in tables.variants(found).rows]
    assert "baseline baseline" not in report_text(found, "markdown")


def test_the_levels_at_which_alone_a_question_was_asked_are_said_wherever_it_is_named() -> None:
    factors = {"model.depth": [3, 4], "model.normalization": ["none", "batch"]}
    questions = [{"effect": "model.normalization", "at": {"model.depth": depth}} for depth in (3, 4)]
    found = analysed({"depth=4,normalization=batch": 0.9}, factors=factors, questions=questions)

    named = [f"normalization none → batch at depth={depth}" for depth in (3, 4)]
    assert named[1] + " helps" == headline(found.answers[1])
    for rows in (tables.scorecard(found).rows, tables.sureness(found).rows, tables.crossed(found).rows):
        assert named == [row[0] for row in rows]
    assert named == [comparison for comparison, _ in tables.estimands(found)]
    assert found.answers[1].estimand.endswith(" in the same seed, where model.depth = 4")
    assert ["normalization none → batch", "at depth=4"] == comparison_lines(found.answers[1])
    assert named[1] + " helps: test accuracy is" in analysis_text(found)


def test_the_table_of_parts_ticks_what_each_variant_has() -> None:
    found = analysed({"full": 0.9, "norm=absent": 0.88, "second=absent": 0.875}, design="leave-one-out")

    table = part_tables.parts(found)

    assert (
        "variant",
        "norm",
        "second",
        "third",
        "test accuracy, mean ± SD",
        "difference to baseline",
        "95 % interval",
        "parameters",
        "FLOPs",
    ) == table.head
    # One layer more of 1,168 parameters than the baseline's 410, and two more, and three.
    assert [
        ("full (baseline)", "✓", "✓", "✓", "90.00 ± 0.02 %", "", "", "", ""),
        ("norm=absent", "–", "✓", "✓", "88.00 ± 0.02 %", "+285 %", "+285 %"),
        ("second=absent", "✓", "–", "✓", "87.50 ± 0.02 %", "+570 %", "+570 %"),
        ("third=absent", "✓", "✓", "–", "80.00 ± 0.02 %", "+855 %", "+855 %"),
    ] == [row if index == 0 else (*row[:5], *row[7:]) for index, row in enumerate(table.rows)]
    assert ["", "−2.000 points", "−2.500 points"] == [row[5] for row in table.rows[:3]]


def test_the_table_of_parts_stands_in_the_report_and_in_latex_with_ticks(both: Analysis) -> None:
    markdown, latex = report_text(both, "markdown"), report_text(both, "latex-wide")

    assert "| full (baseline) | ✓ | ✓ | ✓ | 90.00 ± 0.02 % |" in markdown
    assert "| all-off | – | – | – | 79.00 ± 0.02 % |" in markdown
    assert markdown.index("## Answers") < markdown.index("## Parts") < markdown.index("## The study")
    assert r"full (baseline) & $\checkmark$ & $\checkmark$ & $\checkmark$ & 90.00 $\pm$ 0.02 \%" in latex
    assert "amssymb" in latex.partition(r"\begin")[0]


def test_the_answers_on_parts_have_their_verdicts_in_html(both: Analysis) -> None:
    html = report_text(both, "html")

    assert ["hurts"] * 3 + ["interplay"] * 3 == sorted(re.findall(r'<details class="row ([a-z-]+)">', html))
    assert '<td class="center">✓</td>' in html


def test_a_study_without_parts_has_no_table_of_them() -> None:
    found = analysed(factors={"model.depth": [3, 4]})

    assert () == part_tables.parts(found).rows
    assert "## Parts" not in report_text(found, "markdown")
    assert "checkmark" not in report_text(found, "latex-wide").partition(r"\begin")[2]


def test_simple_effects_of_parts_are_beside_the_others_or_alone_and_stand_once(both: Analysis) -> None:
    places = [(row[0], row[1]) for row in tables.simple_effects(both).rows]

    assert {"beside the others", "when alone"} == {place for _, place in places}
    assert len(places) == len(set(places)) == 6


def own_training(curves: Mapping[str, tuple[tuple[int, float], ...]], **metrics: float) -> Analysis:
    """Analyse a study whose runs were trained by a user's function, with these metrics beside macro_f1."""
    values = {
        "name": "svm",
        "training": {"name": "svm.py:train", "c": 1.0},
        "factors": {"training.kernel": ["rbf", "linear"]},
        "seeds": 4,
        "metric": {"name": "macro_f1", "direction": "maximize"},
        "metrics": dict.fromkeys(metrics.keys() - {"training_seconds"}, "minimize"),
    }
    values["training"] |= {"kernel": "rbf"}
    made = plan_of(parse_study(json.dumps(values).encode(), source="svm.yaml"), classes=())
    data = dataclasses.replace(made.data, name="none", train_images=0, test_images=0, largest_class_share=0.0)
    nothing = ModelSummary(parameters=0, flops=0, layers=())
    made = dataclasses.replace(made, data=data, summaries=dict.fromkeys(made.summaries, nothing))
    runs = [
        dataclasses.replace(
            run,
            metrics={"macro_f1": 0.7 + 0.01 * number + 0.02 * ("linear" in run.planned.variant), **metrics},
            curves=curves,
            confusion={},
            test_correct="",
        )
        for number, run in enumerate(make_runs(made))
    ]
    return analyse(made, runs)


@pytest.mark.usefixtures("vector_figures")
def test_a_study_of_the_users_own_training_reports_what_it_measured_and_nothing_else(tmp_path: Path) -> None:
    found = own_training({"inner/score": ((1, 0.5), (2, 0.75))}, hinge=0.25, training_seconds=2.0)

    paths = write_report(found, tmp_path)

    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Learning speed" in text
    assert "inner/score by epoch" in text
    assert "figures/reported-1.png" in text
    assert "| kernel=rbf (baseline) | 0.2500 ± 0.0000 |" in text
    assert not re.search(
        r"images|collapsed|FLOPs|parameters|Generalization|digest|nats|accurac", text.partition("# Method")[0]
    )
    assert all(path.exists() for path in paths)


@pytest.mark.usefixtures("vector_figures")
def test_a_study_of_the_users_own_training_without_curves_and_times_has_no_empty_sections_or_tables(
    tmp_path: Path,
) -> None:
    write_report(own_training({}), tmp_path)

    text = (tmp_path / "report.md").read_text(encoding="utf-8")

    assert ["Answers", "Variants", "The study", "Scorecard", "Factors"] == re.findall("^## (.*)", text, re.MULTILINE)[
        :5
    ]
    assert not re.search(r"Learning speed|Generalization|Errors and calibration|## Cost", text)
    assert not re.search(r"^\|.*\|\n\| [:| -]+ \|\n(?!\|)", text, re.MULTILINE)
    assert not re.search(r"^##.*\n\n##|<details>.*\n\n</details>", text, re.MULTILINE)


def test_a_study_of_the_users_own_training_is_summarized_without_empty_tables() -> None:
    text = analysis_text(own_training({}))

    assert "Variants" in text
    assert "Cost" not in text


def test_metrics_that_the_users_own_training_shares_with_the_built_in_have_their_columns_alone() -> None:
    table = error_tables.calibration(own_training({}, test_loss=0.5))

    assert ("variant", "NLL (nats), mean ± SD", "difference", "95 % interval") == table.head
    assert {len(table.head)} == set(map(len, table.rows))


def test_runs_without_classes_have_no_confusion_and_none_has_collapsed() -> None:
    found = own_training({}, test_accuracy=0.01)

    assert () == found.confusion
    assert () == found.diagnostics.collapsed
