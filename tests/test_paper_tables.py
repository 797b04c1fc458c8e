"""Holds the tables for a paper to one column of any class, and to what the study's answers say."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from factories import make_runs, noisy_accuracy, plan_of

from ablation.analysis import analyse
from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Verdict
from ablation.records import Variant
from ablation.report import report_text
from ablation.study import parse_study

PARTS = {
    "relu": {"remove": ["blocks.*.activation"], "label": "activation"},
    "dense": {"remove": ["classifier.dense1"]},
    "model.normalization": {"levels": ["batch", "none"], "label": "batch norm"},
}
CROSSED = {"model.depth": [2, 3], "model.normalization": ["batch", "none"]}
HOSTILE = {
    "model.normalization": {
        "levels": ["batch", "none"],
        "label": "[x]*$\\end{}&%#_^~<>|\"'`--",
        "labels": {"none": "W" * 40, "batch": "中文中文中文中文 éüß→"},
    },
    "model.depth": {"levels": [2, 3], "label": "a_very_long_name_that_has_no_space_in_it"},
}
COLUMNS = {
    "3.25 inches at 10 points": (
        r"\documentclass[10pt,twocolumn]{article}",
        r"\usepackage[textwidth=6.75in,columnsep=0.25in,textheight=9in]{geometry}",
    ),
    "7.7 cm at 11 points": (
        r"\documentclass[11pt,twocolumn,a4paper]{article}",
        r"\usepackage[textwidth=16cm,columnsep=0.6cm,textheight=24.7cm]{geometry}",
    ),
    "one column": (r"\documentclass{article}",),
}
needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex: apt-get install texlive-latex-recommended"
)


def small_noise(variant: Variant, seed: int) -> float:
    """Return an accuracy that falls by 5 points without normalization, and by nothing else."""
    noise = 0.0004 * ((7 * seed + 3 * len(variant.name)) % 5 - 2)
    return 0.93 + noise - 0.05 * (variant.levels.get("model.normalization") == "none")


def analysis(
    factors: Mapping[str, Any], *, accuracy: Callable[[Variant, int], float] = small_noise, **changes: Any
) -> Analysis:
    values = {
        "name": "paper",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 2, "normalization": "batch"},
        "factors": factors,
        "seeds": 8,
        **changes,
    }
    plan = plan_of(parse_study(json.dumps(values).encode(), source="paper.yaml"))
    return analyse(plan, make_runs(plan, accuracy=accuracy))


def tables(found: Analysis) -> list[str]:
    return re.findall(r"\\begin\{table\}.*?\\end\{table\}", report_text(found, "latex"), re.DOTALL)


def names(table: str) -> list[str]:
    """Return the first cells of a table's rows, without the head's."""
    rows = re.findall(r"^    (?!\\(?:top|mid|bottom)rule)(.*?) & ", table, re.MULTILINE)
    return [row.replace(r"\hspace*{1em}", "").replace(r"\allowbreak{}", "").strip() for row in rows[1:]]


def caption(table: str) -> str:
    (found,) = re.findall(r"\\caption\{(.*)\}$", table, re.MULTILINE)
    return found


def test_a_leave_one_out_study_has_one_table_of_the_full_model_and_what_it_is_without():
    (table,) = tables(analysis(PARTS, design="leave-one-out"))

    assert names(table)[0] == "Full model"
    assert sorted(names(table)[1:]) == ["w/o activation", "w/o batch norm", "w/o dense"]
    assert names(table)[1] == "w/o batch norm"  # which does most


def test_a_decided_difference_is_bold_and_one_too_small_to_matter_is_marked():
    found = analysis(PARTS, design="leave-one-out")
    (table,) = tables(found)

    by_part = {answer.changes[0].factor: answer.verdict for answer in found.answers}
    assert by_part["model.normalization"] is Verdict.HURTS
    assert by_part["relu"] is Verdict.NO_MEANINGFUL_DIFFERENCE
    assert re.search(r"w/o batch norm & 88.*\\textbf\{\$-\$5", table)
    assert re.search(r"w/o activation & 93.*\$\\approx\$", table)


def test_the_caption_says_design_seeds_unit_level_and_for_how_many_comparisons():
    found = analysis(PARTS, design="leave-one-out")
    said = caption(tables(found)[0])

    assert said.startswith("Leave-one-out ablation on digits (8 paired seeds). Test accuracy: mean")
    assert r"$\Delta$: change from the full model in points" in said
    assert "adjusted for 3 comparisons" in said
    assert r"\textbf{bold}: decided; $\approx$: too small to matter ($\pm$0.5 points)." in said


def test_a_caption_has_the_level_that_all_intervals_have():
    found = analysis({"model.depth": [2, 3, 4]}, accuracy=noisy_accuracy)

    assert len({answer.level for answer in found.answers}) == 1
    assert r"97.5 \% interval, adjusted for 2 comparisons" in caption(tables(found)[0])


def test_a_factorial_study_has_its_variants_by_levels_and_its_comparisons_apart():
    asked = [{"effect": "model.normalization"}, {"interaction": ["model.depth", "model.normalization"]}]
    variants, comparisons = tables(analysis(CROSSED, questions=asked))

    assert r"depth & normalization & \begin{tabular}[t]{@{}r@{}}test acc.\\(\%)\end{tabular}" in variants
    assert [row[:9] for row in re.findall(r"^    ([23] & \w+)", variants, re.MULTILINE)] == [
        *("2 & batch", "2 & none"),
        *("3 & batch", "3 & none"),
    ]
    assert "The first row is the baseline." in caption(variants)
    assert names(comparisons) == [
        r"normalization batch $\rightarrow$ none",
        r"depth 2 $\rightarrow$ 3 $\times$ normalization batch $\rightarrow$ none",
    ]
    assert "averaged over the other factors' levels" in caption(comparisons)


def test_levels_and_factors_have_their_labels():
    labelled = {
        "model.depth": [2, 3],
        "model.normalization": {"levels": ["batch", "none"], "label": "norm", "labels": {"batch": "BN", "none": "–"}},
    }
    variants, comparisons = tables(analysis(labelled))

    assert "depth & norm & " in variants
    assert "2 & BN & 9" in variants
    assert r"norm BN $\rightarrow$ --" in comparisons


def test_one_factors_variants_are_its_comparisons():
    (table,) = tables(analysis({"model.depth": [2, 3, 4]}))

    assert names(table) == ["depth=2 (baseline)", "depth=3", "depth=4"]


def test_listed_variants_keep_the_names_that_they_were_given():
    listed = {"deep": {"model.depth": 3}, "bare": {"model.normalization": "none"}}
    (table,) = tables(analysis(CROSSED, design="listed", variants=listed))

    assert names(table) == ["Baseline", "deep", "bare"]


def test_parts_that_are_alone_are_compared_in_a_table_of_their_own():
    variants, comparisons = tables(analysis(PARTS, design="add-one"))

    assert names(variants) == ["Full model", "No part", "only activation", "only dense", "only batch norm=batch"]
    assert r"batch norm batch $\rightarrow$ none" in names(comparisons)


def test_an_answer_on_another_metric_is_below_its_name():
    asked = [{"effect": "model.depth"}, {"effect": "model.depth", "on": "test_loss"}]
    found = analysis({"model.depth": [2, 3]}, questions=asked)
    _, comparisons = tables(found)

    assert "test loss, in nats" in caption(comparisons)


def test_a_comparison_without_a_difference_says_why():
    found = analysis({"model.depth": [2, 3]}, seeds=1)
    (table,) = tables(found)
    plan_less = analysis({"model.depth": [2, 3]}, accuracy=lambda variant, seed: 0.11 if seed == 2 else 0.9)

    assert found.answers[0].verdict is Verdict.ONE_SEED
    assert "(1 paired seed)" in caption(table)
    assert plan_less.answers[0].verdict is Verdict.UNSTABLE
    assert r"{\scriptsize unstable}" in tables(plan_less)[0]


def test_parameters_are_a_column_where_models_differ_in_size():
    different = tables(analysis({"model.depth": [2, 3]}))[0]
    equal = tables(analysis({"training.learning_rate": [1e-3, 1e-2]}))[0]

    assert "params" in different
    assert "params" not in equal


def test_no_table_is_shrunk_and_all_are_as_wide_as_a_column():
    text = report_text(analysis(HOSTILE), "latex")

    assert text.isascii()
    assert r"\resizebox" not in text
    assert text.count(r"\begin{tabularx}{\columnwidth}") == text.count(r"\begin{table}") == 2


def test_a_table_of_many_variants_ends_where_a_page_does():
    many = {"model.depth": [1, 2, 3, 4, 5], "model.width": [4, 8, 16, 32], "model.dense": [[128, 64], [64], [32]]}
    variants, _ = tables(analysis(many))

    assert "and 20 more rows, in tables-wide.tex" in variants


def test_the_full_tables_are_in_a_file_of_their_own():
    wide = report_text(analysis(PARTS, design="leave-one-out"), "latex-wide")

    assert "Comparisons and their verdicts of study paper" in wide
    assert r"\usepackage{booktabs, array, graphicx, rotating}" in wide


@pytest.mark.slow
@needs_tex
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(
    "found",
    [
        pytest.param(lambda: analysis(PARTS, design="leave-one-out"), id="leave-one-out"),
        pytest.param(lambda: analysis(PARTS, design="leave-one-out+add-one"), id="both part designs"),
        pytest.param(lambda: analysis(CROSSED), id="factorial"),
        pytest.param(lambda: analysis(HOSTILE), id="hostile"),
        pytest.param(lambda: analysis(HOSTILE, design="one-at-a-time"), id="hostile, with intervals"),
        pytest.param(
            lambda: analysis({"model.depth": [2, 3, 4]}, metric={"name": "test_loss", "meaningful": 0.01}), id="loss"
        ),
    ],
)
def test_a_paper_takes_the_tables_without_overfull_boxes(tmp_path: Path, column: str, found: Callable[[], Analysis]):
    (tmp_path / "tables.tex").write_text(report_text(found(), "latex"), encoding="ascii")
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs, tabularx, amssymb}"
    words = "Some words of a paper. " * 30
    lines = [*COLUMNS[column], packages, r"\begin{document}", words, r"\input{tables}", words, r"\end{document}"]
    (tmp_path / "main.tex").write_text("\n".join(lines) + "\n", encoding="ascii")

    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout[-2000:]
    log = (tmp_path / "main.log").read_text(encoding="latin-1")
    assert "Overfull" not in log
    assert "Float too large" not in log
