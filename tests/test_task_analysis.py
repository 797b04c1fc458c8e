"""What is computed and shown of each task: whether runs collapsed, how they learn, in which unit, with which errors."""

import dataclasses
import json
from collections.abc import Callable

import pytest
from factories import TASK_SHAPES, make_runs, make_task_plan, make_task_runs

from ablation.analysis import analyse
from ablation.analysis.analysis_record import Analysis
from ablation.analysis.table import _COMMONEST_ANSWER, has_collapsed
from ablation.records import DETAILS, TASKS, DataFacts, Plan, RecordedRun, RunEvaluation, TaskName
from ablation.report import report_text
from ablation.report.error_tables import _DETAILS, details, perplexities
from ablation.report.learning_tables import best_epochs, drawn_curves, targets
from ablation.report.numbers import differences_text, given_difference, in_brackets, value_text
from ablation.report.task_words import WORDS
from ablation.tracking.checking import checked_evaluation
from ablation.tracking.mlflow.views import _charts

NEW: tuple[TaskName, ...] = ("regression", "multilabel", "tokens", "segmentation")
AT_CHANCE: dict[TaskName, float] = {"regression": 0.0, "multilabel": 0.5, "tokens": 0.28, "segmentation": 0.28}


def analysed(task: TaskName, change: Callable[[RecordedRun], RecordedRun] = lambda run: run) -> Analysis:
    plan = make_task_plan(task, seeds=2)
    return analyse(plan, [change(run) for run in make_task_runs(plan)])


def facts(plan: Plan) -> DataFacts:
    return dataclasses.replace(plan.data, train_images=6, test_images=4)


@pytest.mark.parametrize("table", [_COMMONEST_ANSWER, DETAILS, WORDS, _DETAILS, TASK_SHAPES])
def test_every_table_has_every_task(table: dict[TaskName, object]) -> None:
    assert table.keys() == TASKS.keys()


@pytest.mark.parametrize("task", NEW)
def test_a_run_has_collapsed_where_it_is_at_chance_and_its_answers_are_nearly_one(task: TaskName) -> None:
    plan = make_task_plan(task, seeds=1)
    run = make_task_runs(plan)[0]
    same = ((95, 3, 2),) * 3 if task == "segmentation" else ()
    varied = ((90, 5, 5),) * 3 if task == "segmentation" else ()

    def found(value: float, share: float, counts: tuple[tuple[int, ...], ...]) -> bool:
        metrics = {**run.metrics, TASKS[task].chance: value}
        kept = None if task == "segmentation" else share
        return has_collapsed(
            plan, dataclasses.replace(run, metrics=metrics, constant_share=kept, confusion={"test": counts})
        )

    assert found(AT_CHANCE[task] + 0.02, 0.95, same)
    assert not found(AT_CHANCE[task] + 0.021, 0.95, same)
    assert not found(AT_CHANCE[task], 0.94, varied)
    assert not has_collapsed(
        plan,
        dataclasses.replace(
            run, metrics={TASKS[task].chance: AT_CHANCE[task]}, constant_share=None, confusion={}, details={}
        ),
    ), "what a run answered is not known"


def test_an_evaluation_is_kept_where_it_is_the_tasks_own() -> None:
    given: dict[TaskName, RunEvaluation] = {
        "regression": RunEvaluation(
            confusion={}, test_correct="", constant_share=0.4, details={"error_quantiles": tuple(map(float, range(7)))}
        ),
        "multilabel": RunEvaluation(
            confusion={}, test_correct="", constant_share=0.4, details={"f1": (0.5, 0.25, 1.0)}
        ),
        "tokens": RunEvaluation(confusion={}, test_correct="", constant_share=0.4),
        "segmentation": RunEvaluation(
            confusion={"train": ((128, 0, 0), (0, 128, 0), (0, 0, 128)), "test": ((256, 0, 0), (0, 0, 0), (0, 0, 0))},
            test_correct="",
            details={"iou": (0.5, 0.25, 1.0)},
        ),
    }
    for task, evaluation in given.items():
        data = facts(make_task_plan(task))
        assert checked_evaluation(json.dumps(evaluation.to_json()), data) == (evaluation, ())


def test_an_evaluation_that_does_not_fit_is_left_out_and_said() -> None:
    damaged = {"confusion": {"test": [[999, 0, 0], [0, 0, 0], [0, 0, 0]]}, "test_correct": "", "details": {"iou": [1]}}

    kept, problems = checked_evaluation(json.dumps(damaged), facts(make_task_plan("segmentation")))

    assert (kept.confusion, kept.details) == ({}, {})
    assert [text.removeprefix("evaluation.json ") for text in problems] == [
        "has no confusion matrix of the train split",
        "has no confusion matrix of the test split",
        "lacks iou of the test split",
    ]
    _, problems = checked_evaluation('{"confusion": {}, "test_correct": ""}', facts(make_task_plan("tokens")))
    assert problems == ("evaluation.json does not say which share of the test answers is the commonest one",)


def test_targets_of_an_error_are_reached_from_above_and_its_best_epoch_is_the_lowest() -> None:
    courses = {0: (90.0, 55.0, 52.0, 50.0), 1: (90.0, 60.0, 40.0, 50.0)}

    def falling(run: RecordedRun) -> RecordedRun:
        points = tuple(enumerate(courses[run.planned.seed], start=1))
        return dataclasses.replace(run, curves={**run.curves, "test_rmse": points})

    analysis = analysed("regression", falling)

    assert [target.value for target in analysis.targets] == pytest.approx([55.0, 52.5, 50.0])
    assert [target.rows[0].epochs.mean for target in analysis.targets] == [2.5, 3.0, 3.5]
    best = analysis.best_epochs[0]
    assert (best.last, best.best, best.optimism.mean, best.median_epoch) == (50.0, 45.0, 5.0, 3.5)
    assert targets(analysis).rows[0][0] == "55.000 (110 % of the baseline's)"
    assert best_epochs(analysis).rows[0][1:4] == ("50.000", "45.000", "5.00")


@pytest.mark.parametrize("task", TASKS)
def test_curves_are_of_the_tasks_score(task: TaskName) -> None:
    plan = make_task_plan(task, seeds=2)
    analysis = analyse(plan, make_runs(plan) if task == "classification" else make_task_runs(plan))
    score = TASKS[task].score

    shown = drawn_curves(analysis)

    assert [curve.name for curve in shown] == [f"test_{score}", "test_loss", "train_loss"]
    assert shown[0].unit == TASKS[task].scores[score].unit
    charts = _charts(plan)["compareRunCharts"]
    lines = [chart["metricKey"] for chart in charts if chart["type"] == "LINE"]
    assert lines == [f"test_{score}", "test_loss", f"train_sample_{score}", "train_loss"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(25_123.4567, "target", "25123"), (5.41234, "target", "5.4123"), (0.012345, "target", "0.0123"),
     (1.25, "bits", "1.2500"), (0.75, "mm", "0.7500 mm"), (0.8, "fraction", "80.00 %")],
)  # fmt: skip
def test_a_value_stands_in_its_unit(value: float, unit: str, text: str) -> None:
    assert text == value_text(value, unit)


def test_only_fractions_differ_by_points() -> None:
    assert given_difference(0.005, "fraction") == "0.5 points"
    assert given_difference(2.0, "target") == "2"
    assert (given_difference(1.0, "bits"), given_difference(2.0, "bits")) == ("1 bit", "2 bits")
    assert (given_difference(1.0, "lens"), given_difference(1.0, "seconds")) == ("1 lens", "1 s")
    assert differences_text([12.0], "target") == ["+12.00"]
    assert [in_brackets(unit) for unit in ("target", "bits", "mm", "fraction")] == ["", " (bits)", " (mm)", " (%)"]


@pytest.mark.parametrize("task", NEW)
def test_a_report_says_nothing_of_images_or_accuracy_that_the_task_does_not_have(task: TaskName) -> None:
    text = report_text(analysed(task), "markdown").partition("## Reproduce")[0]

    assert ("image" in text) == (task == "segmentation")
    assert ("accuracy" in text) == (task in ("tokens", "segmentation"))
    assert "Brier" not in text
    assert ("onfusion" in text) == TASKS[task].has_confusion
    assert ("points" in text) == (task != "regression")
    assert {"tokens": "test sequences;", "segmentation": "test images;"}.get(task, "test examples;") in text


def test_each_task_shows_its_own_errors() -> None:
    regression, labels, classes = (analysed(task) for task in ("regression", "multilabel", "segmentation"))

    assert details(regression).head == ("variant", "lowest", "5 %", "25 %", "median", "75 %", "95 %", "highest")
    assert len(details(regression).rows) == 4
    assert [row[0] for row in details(labels).rows] == [name for name in ("red", "round", "old") for _ in range(4)]
    assert details(classes).rows[0][2:5] == (details(classes).rows[0][2], "", "")
    assert details(classes).rows[1][3].endswith(" points")
    assert "F1 of each label on test" in report_text(labels, "html")


def test_a_class_that_is_nowhere_has_no_iou() -> None:
    def without_trees(run: RecordedRun) -> RecordedRun:
        counts = dict.fromkeys(("train", "test"), ((80, 20, 0), (20, 80, 0), (0, 0, 0)))
        return dataclasses.replace(run, confusion=counts)

    assert {detail.item for detail in analysed("segmentation", without_trees).details} == {"sky", "road"}


def test_perplexity_is_e_to_the_mean_nll() -> None:
    def of(run: RecordedRun) -> RecordedRun:
        nll = 1.0 if run.planned.variant == "depth=2,normalization=none" else 2.0
        return dataclasses.replace(run, metrics={**run.metrics, "test_nll": nll})

    rows = perplexities(analysed("tokens", of)).rows

    assert [row[1:] for row in rows[:2]] == [("2.7183", ""), ("7.3891", "+172 %")]


@pytest.mark.parametrize("task", NEW)
def test_reports_of_every_task_are_written_in_every_form(task: TaskName) -> None:
    analysis = analysed(task)

    assert json.loads(report_text(analysis, "json"))["data"]["task"] == task
    for kind in ("latex", "latex-wide"):
        assert TASKS[task].metrics[TASKS[task].default_metric].label.split()[1] in report_text(analysis, kind)
