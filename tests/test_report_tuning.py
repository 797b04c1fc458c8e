"""Holds what a report says of tuning to the trials: what was found, at which cost, beside the file's settings."""

import dataclasses
import json
from typing import Any

import pytest
from factories import make_runs, plan_of

from ablation.analysis import Analysis, analyse
from ablation.cli.summary import analysis_text
from ablation.drawing import style
from ablation.records import Plan, TunedVariant, TuningTrial, Variant
from ablation.report import report_text, tuning_tables
from ablation.report.figures.tuning import tuning_drawings
from ablation.report.prose import headline, overview
from ablation.study import parse_study

RATES = {"log": [1e-4, 1e-2]}
TRIALS = (
    (0, 0.001, "done", 0.80, (0.7, 0.80)),
    (1, 0.0001, "pruned", None, (0.4,)),
    (2, 0.00523, "done", 0.85, (0.8, 0.85)),
    (3, 0.01, "diverged", None, ()),
    (4, 0.004, "done", 0.84, (0.8, 0.84)),
)
"""(number, learning rate, outcome, value, curve) of each trial; the third is the best."""


def tuned(variant: str) -> TunedVariant:
    trials = tuple(
        TuningTrial(
            number=number,
            settings={"training.learning_rate": rate},
            outcome=outcome,  # type: ignore[arg-type]
            value=value,
            curve=curve,
            seconds=2.0,
            run_ids=(f"{variant}-{number}",),
        )
        for number, rate, outcome, value, curve in TRIALS
    )
    return TunedVariant(variant=variant, trials=trials, chosen=2, settings=trials[2].settings)


def plan(*, also_untuned: bool = True, metric: str = "test_accuracy", **tune: Any) -> Plan:
    values = {
        "name": "tuned",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 3, "normalization": "none"},
        "factors": {"model.normalization": ["none", "batch"]},
        "tune": {"training.learning_rate": RATES, "trials": 5, "also_untuned": also_untuned, **tune},
        "seeds": 5,
        "metric": {"name": metric},
    }
    study = parse_study(json.dumps(values).encode(), source="tuned.yaml")
    names = [variant.name for variant in study.design_variants()]
    made = plan_of(study.tuned(dict.fromkeys(names, tuned(names[0]).settings)))
    return dataclasses.replace(made, tuning=tuple(map(tuned, names)))


def analysed(**changes: Any) -> Analysis:
    """Analyse a study in which batch norm helps with the file's settings alone, each run trained for one second."""
    made = plan(**changes)

    def accuracy(variant: Variant, seed: int) -> float:
        gain = 0.1 if variant.name == "normalization=batch,settings=file" else 0.0
        return 0.8 + gain + 1e-3 * ((seed + made.variants.index(variant)) % 5 - 2)

    runs = make_runs(made, accuracy=accuracy)
    timed = [dataclasses.replace(run, metrics={**run.metrics, "training_seconds": 1.0}) for run in runs]
    return analyse(made, timed)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return analysed()


def test_each_variant_has_what_was_found_and_what_it_cost(analysis: Analysis) -> None:
    table = tuning_tables.tuned_variants(analysis)

    # Two tunings of five trials of 2 s, beside 20 runs of 1 s: 10 of 40 seconds each.
    found = ("0.00523", "85.00 %", "3", "3", "1", "1", "10 s", "25 %")
    assert (("normalization=none", *found), ("normalization=batch", *found)) == table.rows
    assert "validation accuracy" == table.head[2]


def test_the_budget_and_the_spaces_are_said(analysis: Analysis) -> None:
    text = tuning_tables.budget_text(analysis)

    assert "same budget: 5 trials; TPE sampler; the median pruner stops" in text
    assert "highest validation accuracy" in text
    assert "from 1,000,000 on), which no comparison uses, and never looks at the test split" in text
    assert [("training.learning_rate", "0.0001 to 0.01, on a log scale")] == tuning_tables.spaces(analysis)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"log": None, "linear": None, "integers": [8, 64], "choices": None}, "8 to 64, among whole numbers"),
        ({"log": True, "linear": None, "integers": [8, 64]}, "8 to 64, among whole numbers on a log scale"),
        ({"log": None, "linear": [0.0, 1.0]}, "0 to 1, on a linear scale"),
        ({"log": None, "choices": ["adam", "sgd"]}, "adam, sgd"),
    ],
)
def test_a_space_is_told_with_its_scale(space: dict[str, Any], text: str) -> None:
    assert text == tuning_tables._space_text(space)


def test_a_study_that_compares_losses_is_tuned_by_the_validation_loss() -> None:
    found = analysed(
        metric="test_loss", seeds=2, sampler="random", pruner="none", **{"training.momentum": {"choices": [0.5, 0.9]}}
    )

    assert "5 trials of 2 seeds each, over which it is averaged; random sampler; no trial" in tuning_tables.budget_text(
        found
    )
    assert "lowest validation loss" in tuning_tables.budget_text(found)
    assert "0.8500" == tuning_tables.tuned_variants(found).rows[0][2]
    assert ("training.momentum", "0.5, 0.9") in tuning_tables.spaces(found)


def test_comparisons_with_tuned_settings_stand_beside_those_with_the_files(analysis: Analysis) -> None:
    (row,) = tuning_tables.tuned_and_untuned(analysis).rows

    assert ("normalization none → batch", "test accuracy") == row[:2]
    assert ("no meaningful difference", "helps") == (row[4], row[7])
    assert row[5].startswith("+10.")


def test_settings_are_named_in_headlines_and_the_baseline_with_them(analysis: Analysis) -> None:
    named = ["normalization none → batch with tuned settings", "normalization none → batch with the file's settings"]

    assert [f"{named[0]}, no meaningful difference", f"{named[1]} helps"] == list(map(headline, analysis.answers))
    assert all(name in analysis_text(analysis) for name in named)
    assert "the baseline normalization=none,settings=tuned, which" in overview(analysis)[2]


def test_the_report_tells_tuning_its_limits_and_its_cost_apart(analysis: Analysis) -> None:
    text = report_text(analysis, "markdown")

    assert "## Tuning" in text
    assert "### With tuned settings and with the file's" in text
    assert (
        "All 20 timed runs together trained for 20 s. Tuning is apart from that: its 10 trials trained for 20 s, 50 %"
        in text
    )
    assert "another tuning might find others, and that uncertainty is not in the intervals" in text
    assert r"\label{tab:tuned-variants}" in report_text(analysis, "latex-wide")


def test_tuned_settings_alone_have_no_table_beside_others() -> None:
    text = report_text(analysed(also_untuned=False), "markdown")

    assert "## Tuning" in text
    assert "### With tuned settings and" not in text


def test_a_study_without_tuning_says_nothing_of_it(analysis: Analysis) -> None:
    without = dataclasses.replace(analysis, tuning=(), study={**analysis.study, "tune": None})

    assert "## Tuning" not in report_text(without, "markdown")
    assert [] == list(tuning_drawings(without))


def test_the_figure_draws_every_trial_the_best_so_far_and_the_chosen_one(analysis: Analysis) -> None:
    (drawing,) = tuning_drawings(analysis)
    axes = drawing.figure.axes[0]
    drawn = {line.get_gid(): [tuple(map(float, point)) for point in line.get_xydata()] for line in axes.get_lines()}

    assert 2 == len(drawing.figure.axes)
    assert [(1, 80), (3, 85), (5, 84)] == drawn["done"]
    assert [(1, 80), (3, 85), (5, 85), (5, 85)] == drawn["best"]
    assert [2] == [x for x, _ in drawn["stopped"]]
    assert axes.get_ylim()[0] < drawn["stopped"][0][1] < 80
    assert [(3, 85)] == drawn["chosen"]
    assert [4] == [x for x, _ in drawn["failed"]]


def test_of_losses_the_best_so_far_falls() -> None:
    (drawing,) = tuning_drawings(analysed(metric="test_loss"))
    best = next(line for line in drawing.figure.axes[0].get_lines() if line.get_gid() == "best")

    assert [0.80, 0.80, 0.80, 0.80] == [float(y) for y in best.get_ydata()]


@pytest.mark.parametrize("name", ["$x^{2$", "two\nlines", "M" * 5000, "<b>\x00\u202e", ""])
def test_a_variants_name_neither_breaks_nor_resizes_the_figure(analysis: Analysis, name: str) -> None:
    (usual,) = tuning_drawings(analysis)
    named = dataclasses.replace(
        analysis, tuning=tuple(dataclasses.replace(each, variant=name) for each in analysis.tuning)
    )

    with style():
        (drawing,) = tuning_drawings(named)
        drawing.figure.canvas.draw()

    assert tuple(usual.figure.get_size_inches()) == tuple(drawing.figure.get_size_inches())


def test_many_variants_fill_two_pages_and_the_text_says_what_is_left_out(analysis: Analysis) -> None:
    many = dataclasses.replace(analysis, tuning=analysis.tuning * 30)

    drawings = list(tuning_drawings(many))

    assert ["tuning", "tuning-2"] == [drawing.name for drawing in drawings]
    assert "first 48 of 60 variants" in drawings[0].text
