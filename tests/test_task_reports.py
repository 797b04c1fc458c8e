"""Holds what a report says of each task: its own numbers, in its own units and words, and no other task's."""

import dataclasses
import math
import re

import numpy as np
import pytest
from factories import make_plan, make_runs

from ablation.analysis import Analysis, analyse
from ablation.records import DETAILS, ERROR_QUANTILES, TASKS, DataShape, Plan, RecordedRun
from ablation.report import error_tables, report_text, tables
from ablation.report.figures import draw_figures
from ablation.report.task_words import WORDS

NORMALIZATION = {"model.normalization": ("none", "batch")}
SHAPES = {
    "classification": DataShape(channels=1, height=8, width=8, classes=("a", "b", "c", "d")),
    "regression": DataShape(channels=0, height=0, width=0, classes=(), features=(5,), task="regression"),
    "multilabel": DataShape(
        channels=0, height=0, width=0, classes=("red", "tall"), features=(5,), task="multilabel", target_shape=(2,)
    ),
    "tokens": DataShape(
        channels=0,
        height=0,
        width=0,
        classes=("a", "b", "c"),
        features=(16,),
        task="tokens",
        target_shape=(16,),
        vocabulary=3,
    ),
    "segmentation": DataShape(
        channels=3, height=8, width=8, classes=("sky", "ground"), task="segmentation", target_shape=(8, 8)
    ),
}
DETAILED = {
    "classification": {},
    "regression": {"error_quantiles": tuple(20 * (quantile - 0.5) for quantile in ERROR_QUANTILES)},
    "multilabel": {"f1": (0.5, 0.75)},
    "tokens": {},
    "segmentation": {"iou": (0.875, 0.25)},
}
CONFUSION = {"test": ((6000, 400), (900, 7000)), "train": ((24000, 400), (900, 30000))}
EXAMPLES = {
    "classification": "images",
    "regression": "examples",
    "multilabel": "examples",
    "tokens": "sequences",
    "segmentation": "images",
}


def plan_of_task(task: str, *, seeds: int = 3) -> Plan:
    metric = TASKS[task].default_metric
    plan = make_plan(
        factors=NORMALIZATION,
        seeds=seeds,
        metric={"name": metric, "direction": TASKS[task].metrics[metric].direction, "meaningful": None},
        validation=0.1,
    )
    facts = dataclasses.replace(plan.data, shape=SHAPES[task])
    variants = tuple(
        dataclasses.replace(
            variant,
            settings=dataclasses.replace(
                variant.settings, data=dataclasses.replace(variant.settings.data, name="d.py:load", task=task)
            ),
        )
        for variant in plan.variants
    )
    study = {**plan.study, "data": {**plan.study["data"], "task": task}}
    return dataclasses.replace(plan, study=study, variants=variants, data=facts, measured=tuple(TASKS[task].metrics))


def runs_of_task(plan: Plan, task: str) -> list[RecordedRun]:
    return [_run_of_task(plan, task, run) for run in make_runs(plan)]


def _run_of_task(plan: Plan, task: str, run: RecordedRun) -> RecordedRun:
    if task == "classification":
        return run
    gain = (0.02 if "batch" in run.planned.variant else 0.0) + 0.001 * run.planned.seed
    score = TASKS[task].score
    shapes = {"epoch_seconds": run.curves["epoch_seconds"]}
    curves = {
        f"{split}_{name}": tuple((epoch, 1.0 / epoch + gain) for epoch in range(1, 5))
        for split in ("train", "train_sample", plan.heldout_split)
        for name in ("loss", score)
    }
    details = {name: tuple(value + gain for value in values) for name, values in DETAILED[task].items()}
    metrics = dict.fromkeys(TASKS[task].metrics, 0.5 + gain)
    if task == "tokens":
        metrics |= {"test_nll": 1.0 + gain, "test_bits": (1.0 + gain) / math.log(2)}
    return dataclasses.replace(
        run,
        metrics=metrics,
        curves={**shapes, **curves},
        confusion=CONFUSION if task == "segmentation" else {},
        test_correct="",
        constant_share=0.5,
        details=details,
    )


@pytest.fixture(scope="module")
def analyses() -> dict[str, Analysis]:
    plans = {task: plan_of_task(task) for task in TASKS}
    return {task: analyse(plan, runs_of_task(plan, task)) for task, plan in plans.items()}


@pytest.mark.parametrize("table", [DETAILS, WORDS, SHAPES, DETAILED, EXAMPLES])
def test_every_table_by_task_has_every_task(table):
    assert table.keys() == TASKS.keys()


@pytest.mark.parametrize("task", TASKS)
def test_a_report_names_the_metrics_of_its_task_and_of_no_other(task, analyses):
    text = report_text(analyses[task], "markdown").partition("## The study")[0]

    assert TASKS[task].metrics[TASKS[task].default_metric].label in text
    if not any("accuracy" in name for name in TASKS[task].metrics):
        assert "accurac" not in text


@pytest.mark.parametrize("task", TASKS)
def test_examples_are_images_only_where_inputs_are(task, analyses):
    text = report_text(analyses[task], "markdown")

    assert analyses[task].data.inputs == EXAMPLES[task]
    assert f"360 test {EXAMPLES[task]}" in text
    assert EXAMPLES[task] == "images" or "image" not in text


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["html", "json", "latex", "latex-wide"])
def test_every_form_of_a_report_is_written_for_every_task(task, kind, analyses):
    assert analyses[task].name in report_text(analyses[task], kind)


def test_a_difference_of_a_regression_has_no_unit_and_of_fractions_points(analyses):
    variants = {task: tables.variants(analyses[task]).rows[1] for task in ("regression", "segmentation")}

    assert "+0.02" in " ".join(variants["regression"])
    assert "points" not in " ".join(variants["regression"])
    assert "+2.00 points" in " ".join(variants["segmentation"])


def test_the_quantiles_of_a_regressions_errors_are_means_over_runs(analyses):
    table = error_tables.details(analyses["regression"])

    assert table.head == ("variant", "lowest", "5 %", "25 %", "median", "75 %", "95 %", "highest")
    assert [row[0] for row in table.rows] == ["normalization=none", "normalization=batch"]
    shown = [float(cell.replace("−", "-")) for cell in table.rows[0][1:]]
    np.testing.assert_allclose(shown, [value + 0.001 for value in DETAILED["regression"]["error_quantiles"]], rtol=1e-3)


@pytest.mark.parametrize(
    ("task", "name", "value"),
    [("multilabel", "tall", "75.10 % ± 0.10 %"), ("segmentation", "ground", "25.10 % ± 0.10 %")],
)
def test_each_class_stands_beside_the_baselines_paired_by_seed(task, name, value, analyses):
    rows = [row for row in error_tables.details(analyses[task]).rows if row[0] == name]

    assert rows[0] == (name, "normalization=none", value, "", "", "3")
    assert rows[1][1] == "normalization=batch"
    assert rows[1][3] == "+2.00 points"


def test_of_many_classes_the_first_are_shown_and_how_many_are_not(analyses):
    known = analyses["segmentation"].details
    many = tuple(dataclasses.replace(each, item=f"class {index}") for index in range(40) for each in known[:2])
    analysis = dataclasses.replace(analyses["segmentation"], details=many)

    shown = {row[0] for row in error_tables.details(analysis).rows}

    assert len(shown) + error_tables.details_left_out(analysis) == 40


def test_tokens_are_told_in_nats_bits_and_perplexity(analyses):
    first, second = error_tables.perplexities(analyses["tokens"]).rows
    likelihood = error_tables.calibration(analyses["tokens"])

    assert ("normalization=none", "2.7210", "") == first
    assert ("normalization=batch", "2.7760") == second[:2]
    assert "1.0010" in likelihood.rows[0][1]
    assert "1.4441" in likelihood.rows[0][4]


def test_the_confusion_of_a_segmentation_is_of_pixels(analyses):
    text = report_text(analyses["segmentation"], "markdown")

    assert "(pixels; rows: true class, columns: answer)" in text
    assert "right and the other wrong" not in text


@pytest.mark.parametrize("task", TASKS)
def test_only_a_classification_is_called_calibrated(task, analyses):
    assert ("Calibration on test" in report_text(analyses[task], "markdown")) == (task == "classification")


@pytest.mark.parametrize("task", TASKS)
def test_errors_are_drawn_of_a_regression_alone(task, analyses, tmp_path):
    drawn = draw_figures(analyses[task], tmp_path, endings=(".svg",))

    assert bool(drawn["errors"]) == (task == "regression")
    assert not re.search("accuracy", " ".join(drawn)) or task == "classification"


def test_a_difference_is_withheld_where_a_run_is_missing():
    plan = plan_of_task("segmentation")
    runs = runs_of_task(plan, "segmentation")
    runs[0] = dataclasses.replace(runs[0], details={})

    details = analyse(plan, runs).details

    assert [each.difference for each in details] == [None] * 4
    assert [each.spread.n for each in details] == [2, 3, 2, 3]
