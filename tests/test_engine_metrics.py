"""Metrics of one's own that the engine calls: equal to their references, recorded, and said where they have none."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from bench import Bench
from sklearn import metrics as sklearn_metrics
from torchmetrics import classification, regression

from ablation.code import CodeFolders
from ablation.errors import CodeInvalid, MetricTaken, OutputsNotKept, StudyChanged, StudyFileError, TuningFailed
from ablation.pipeline import AskedMetrics, summarize_study
from ablation.records import DataShape, DeclaredMetric, Outcome, RecordedRun
from ablation.study import Study, load_study
from ablation.study.asked_metrics import metric_of, parse_metric
from ablation.training.settings import OwnMetric
from ablation.worker import make_metrics, try_metrics

CLASSES = ("a", "b", "c")
SHAPES = {
    "classification": DataShape(channels=1, height=8, width=8, classes=CLASSES),
    "multilabel": DataShape(
        channels=0, height=0, width=0, classes=CLASSES, features=(4,), task="multilabel", target_shape=(3,)
    ),
    "regression": DataShape(channels=0, height=0, width=0, classes=(), features=(4,), task="regression"),
    "tokens": DataShape(
        channels=0, height=0, width=0, classes=CLASSES, features=(5,), task="tokens", target_shape=(5,), vocabulary=3
    ),
    "segmentation": DataShape(channels=1, height=4, width=4, classes=CLASSES, task="segmentation", target_shape=(4, 4)),
}
CODE = """
import random

import numpy as np


def argmax_accuracy(outputs, targets, classes, scale=1.0):
    assert len(classes) == outputs.shape[1]
    return scale * float(np.mean(outputs.argmax(1) == targets))


def rmse(predictions, targets):
    return np.sqrt(np.mean((predictions - targets) ** 2))


def seen(y_true, y_pred):
    return y_true.dtype.kind == "i" and y_pred.dtype.kind == "f"


def ignoring(answers, targets, ignore_index):
    counts = targets != ignore_index
    return np.mean(answers[counts] == targets[counts])


def meddling(outputs, targets):
    random.random(), np.random.rand()
    outputs[:] = 0
    targets[:] = 0
    return 0.0


def nothing(outputs, targets):
    return None


def several(outputs, targets):
    return outputs.mean(0)


def undefined(outputs, targets):
    return float("nan")


def failing(outputs, targets):
    raise RuntimeError("it went wrong here")


def alone(outputs):
    return 0.0


class Kind:
    pass
"""


@pytest.fixture
def code(tmp_path: Path) -> CodeFolders:
    (tmp_path / "m.py").write_text(CODE)
    return CodeFolders(folders=(tmp_path,))


def arrays(task: str, *, ignore_index: int | None = None) -> tuple[Any, Any]:
    shape, rng = SHAPES[task], np.random.default_rng(3)
    outputs = rng.standard_normal((40, *shape.output_shape)).astype(np.float32)
    if task == "regression":
        return outputs, rng.standard_normal(40).astype(np.float32)
    if task == "multilabel":
        return outputs, rng.integers(0, 2, (40, 3)).astype(np.uint8)
    targets = rng.integers(0, 3, (40, *shape.target_shape))
    if ignore_index is not None:
        targets[rng.random(targets.shape) < 0.2] = ignore_index
    return outputs, targets


def made(code: CodeFolders, task: str, function: str, shape: DataShape | None = None, **more: Any) -> OwnMetric:
    given = {key: more.pop(key) for key in ("given", "unit", "epochs") if key in more}
    declared = DeclaredMetric(name="own", function=function, direction="maximize", arguments=more, **given)
    (metric,) = make_metrics([declared], shape or SHAPES[task], code=code)
    return metric


def measured(code: CodeFolders, task: str, function: str, **more: Any) -> float:
    ignore_index = -100 if task in ("tokens", "segmentation") else None
    return made(code, task, function, **more).function(*arrays(task, ignore_index=ignore_index))


T = torch.from_numpy
CLASSES_FIRST: Callable[[Any], Any] = lambda outputs: T(outputs).movedim(-1, 1)  # noqa: E731


@pytest.mark.parametrize(
    ("task", "name", "arguments", "reference", "form"),
    [
        ("classification", "MulticlassF1Score", {}, classification.MulticlassF1Score(3), T),
        ("classification", "F1Score", {}, classification.MulticlassF1Score(3, average="micro"), T),
        (
            "classification",
            "MulticlassAUROC",
            {"given": "probabilities"},
            classification.MulticlassAUROC(3, thresholds=None),
            T,
        ),
        (
            "classification",
            "classification.MulticlassCalibrationError",
            {"n_bins": 10},
            classification.MulticlassCalibrationError(3, n_bins=10),
            T,
        ),
        ("multilabel", "MultilabelAUROC", {}, classification.MultilabelAUROC(3), T),
        ("multilabel", "AveragePrecision", {}, classification.MultilabelAveragePrecision(3), T),
        (
            "tokens",
            "MulticlassAccuracy",
            {},
            classification.MulticlassAccuracy(3, ignore_index=-100),
            CLASSES_FIRST,
        ),
        ("segmentation", "MulticlassJaccardIndex", {}, classification.MulticlassJaccardIndex(3, ignore_index=-100), T),
        ("regression", "MeanSquaredError", {"squared": False}, regression.MeanSquaredError(squared=False), T),
        ("regression", "PearsonCorrCoef", {}, regression.PearsonCorrCoef(), T),
    ],
)
def test_a_class_of_torchmetrics_measures_what_it_does_on_the_same_arrays(
    code: CodeFolders, task: str, name: str, arguments: dict[str, Any], reference: Any, form: Any
) -> None:
    outputs, targets = arrays(task, ignore_index=-100 if task in ("tokens", "segmentation") else None)

    found = measured(code, task, f"torchmetrics:{name}", **arguments)

    if task == "regression":
        expected = reference(T(outputs.reshape(targets.shape)), T(targets))
    else:
        expected = reference(form(outputs), T(targets).long())
    assert float(expected) == pytest.approx(found, rel=1e-6)


def test_what_a_class_says_of_its_memory_is_no_remark(code: CodeFolders) -> None:
    metric = made(code, "regression", "torchmetrics:SpearmanCorrCoef")

    metric.function(*arrays("regression"))

    assert [] == metric.remarks


def test_perplexity_has_the_classes_last(code: CodeFolders) -> None:
    from torchmetrics.text import Perplexity

    outputs, targets = arrays("tokens", ignore_index=-100)
    expected = Perplexity(ignore_index=-100)(T(outputs), T(targets))

    assert float(expected) == pytest.approx(measured(code, "tokens", "torchmetrics:Perplexity"), rel=1e-5)


@pytest.mark.parametrize("given", ["outputs", "probabilities"])
def test_a_binary_metric_gets_the_second_of_two_classes(code: CodeFolders, given: str) -> None:
    shape, rng = DataShape(channels=1, height=8, width=8, classes=("no", "yes")), np.random.default_rng(0)
    outputs, targets = rng.standard_normal((40, 2)).astype(np.float32), rng.integers(0, 2, 40)
    metric = made(code, "", "torchmetrics:BinaryAUROC", shape=shape, given=given)

    expected = sklearn_metrics.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0])

    assert expected == pytest.approx(metric.function(outputs, targets), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("balanced_accuracy_score", {}, lambda truth, answers: sklearn_metrics.balanced_accuracy_score(truth, answers)),
        (
            "precision_score",
            {"average": "macro"},
            lambda truth, answers: sklearn_metrics.precision_score(truth, answers, average="macro"),
        ),
    ],
)
def test_a_function_of_scikit_learn_gets_the_targets_first(
    code: CodeFolders, name: str, arguments: dict[str, Any], expected: Any
) -> None:
    outputs, targets = arrays("classification")

    found = measured(code, "classification", f"sklearn.metrics:{name}", given="answers", **arguments)

    assert expected(targets, outputs.argmax(1)) == found
    assert found != expected(outputs.argmax(1), targets)


def test_a_function_gets_arguments_classes_and_the_ignore_index(code: CodeFolders) -> None:
    outputs, targets = arrays("classification")
    tokens, truth = arrays("tokens", ignore_index=-100)
    counts = truth != -100

    accuracy = measured(code, "classification", "m.py:argmax_accuracy", scale=2.0)
    per_token = measured(code, "tokens", "m.py:ignoring", given="answers")

    assert 2 * np.mean(outputs.argmax(1) == targets) == accuracy
    assert np.mean(tokens.argmax(-1)[counts] == truth[counts]) == per_token
    assert measured(code, "classification", "m.py:seen") == 1.0


def test_a_column_of_predictions_meets_a_row_of_targets(code: CodeFolders) -> None:
    outputs, targets = arrays("regression")

    assert (40, 1) == outputs.shape
    assert float(np.sqrt(np.mean((outputs[:, 0] - targets) ** 2))) == pytest.approx(
        measured(code, "regression", "m.py:rmse")
    )


@pytest.mark.parametrize("task", ["classification", "tokens", "segmentation"])
def test_probabilities_sum_to_one_over_the_classes(code: CodeFolders, task: str, tmp_path: Path) -> None:
    axis = {"classification": 1, "tokens": 2, "segmentation": 1}[task]
    text = f"import numpy as np\n\n\ndef off(p, t):\n    return np.abs(p.sum({axis}) - 1).max()\n"
    (tmp_path / "p.py").write_text(text)

    assert measured(code, task, "p.py:off", given="probabilities") == pytest.approx(0, abs=1e-6)


def test_a_metric_alters_nothing_of_what_is_trained(code: CodeFolders) -> None:
    outputs, targets = arrays("classification")
    kept = outputs.copy(), targets.copy()
    metric = made(code, "classification", "m.py:meddling")
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)

    metric.function(outputs, targets)

    assert expected == (random.random(), np.random.rand())
    assert (outputs == kept[0]).all()
    assert (targets == kept[1]).all()


def test_auroc_of_one_class_is_undefined_and_said(code: CodeFolders) -> None:
    shape = DataShape(channels=1, height=8, width=8, classes=("no", "yes"))
    metric = made(code, "", "torchmetrics:BinaryAUROC", shape=shape)

    value = metric.function(arrays("classification")[0][:, :2], np.zeros(40, dtype=np.int64))

    assert math.isnan(value)
    assert "No positive samples" in metric.remarks[0]


@pytest.mark.parametrize(
    ("task", "function", "more", "message"),
    [
        (
            "classification",
            "m.py:nothing",
            {},
            "m.py:nothing returned NoneType, and a metric is one number @ metrics.own",
        ),
        ("classification", "m.py:several", {}, "returned an array of shape (3,), and a metric is one number"),
        ("classification", "m.py:failing", {}, "RuntimeError: it went wrong here"),
        ("classification", "m.py:alone", {}, "alone is called with outputs and targets, and it takes 1 by position"),
        ("classification", "m.py:Kind", {}, "is a class; name a function, or a class of torchmetrics"),
        ("classification", "m.py:rmse", {"beta": 2}, "rmse takes no argument 'beta'; it takes none @ metrics.own.beta"),
        ("classification", "m.py:rsme", {}, "did you mean 'rmse'? @ metrics.own.function"),
        ("classification", "torchmetrics:F2", {}, "has no metric 'F2'"),
        ("classification", "torchmetrics:MulticlassF1Scor", {}, "did you mean 'MulticlassF1Score'?"),
        ("classification", "torchmetrics:BinaryF1Score", {}, "is for two classes, and the data has 3"),
        ("classification", "torchmetrics:MulticlassF1Score", {"average": "none"}, "returned an array of shape (3,)"),
        ("classification", "torchmetrics:MulticlassF1Score", {"top": 1}, "top"),
        ("regression", "m.py:rmse", {"given": "probabilities"}, "has no probabilities"),
    ],
)
def test_what_cannot_measure_is_refused_in_the_users_words(
    code: CodeFolders, task: str, function: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(CodeInvalid) as raised:
        measured(code, task, function, **more)

    assert message in str(raised.value)


def test_a_metric_is_tried_with_the_targets_of_the_test_split(code: CodeFolders) -> None:
    declared = DeclaredMetric(name="own", function="m.py:failing", direction="maximize")
    shape = SHAPES["classification"]

    try_metrics([declared], shape, targets=None, code=code)
    with pytest.raises(CodeInvalid, match="it went wrong here"):
        try_metrics([declared], shape, targets=np.arange(9) % 3, code=code)


F1 = {"function": "m.py:macro_f1", "direction": "maximize", "unit": "fraction"}
STUDY = {
    "name": "measured",
    "data": {"name": "digits", "limit": 120},
    "model": {"name": "cnn", "depth": 1, "width": 2, "dense": [4]},
    "training": {"epochs": 2},
    "factors": {"training.learning_rate": [0.001, 0.01]},
    "seeds": 2,
}
STUDY_CODE = """
from sklearn.metrics import f1_score


def macro_f1(outputs, targets, scale=1):
    return scale * f1_score(targets, outputs.argmax(1), average="macro", zero_division=0)


def undefined(outputs, targets):
    return float("nan")
"""


def study(folder: Path, **changes: Any) -> Study:
    if not (folder / "m.py").exists():
        (folder / "m.py").write_text(STUDY_CODE)
    (folder / "study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}))
    return load_study(folder / "study.yaml")


def runs(bench: Bench) -> tuple[RecordedRun, ...]:
    record = bench.tracker.find_study("measured")
    assert record is not None
    return bench.tracker.recorded_runs(record)


def asked(folder: Path, bench: Bench, *metrics: DeclaredMetric) -> AskedMetrics:
    return AskedMetrics(metrics=metrics, code=CodeFolders(folders=(folder,)), data_cache=bench.state.data)


def test_a_metric_is_recorded_by_its_name_and_epoch_and_alters_no_run(bench: Bench, tmp_path: Path) -> None:
    every = {**F1, "epochs": "every"}
    nan = {"function": "m.py:undefined", "direction": "maximize"}
    plain = [run.identity for run in study(tmp_path).runs(data_digest="d")]
    chosen = study(tmp_path, metrics={"macro_f1": every, "never": nan}, metric={"name": "macro_f1"})

    outcome = bench.run(chosen)

    assert plain == [run.identity for run in chosen.runs(data_digest="d")]
    for run in runs(bench):
        assert 0 <= run.metrics["macro_f1"] <= 1
        assert [1, 2] == [epoch for epoch, _ in run.curves["validation_macro_f1"]]
        assert "never" not in run.metrics
        assert "metric never is left out: it is nan" in run.problems
    assert outcome.analysis is not None
    assert ("macro_f1", "maximize", "fraction") == (
        outcome.analysis.metric.name,
        outcome.analysis.metric.direction,
        outcome.analysis.metric.unit,
    )


def test_a_summary_computes_the_metric_that_a_run_measured(bench: Bench, tmp_path: Path) -> None:
    bench.run(study(tmp_path, metrics={"macro_f1": F1}))
    later = metric_of("later", F1, source="--metric")

    _, analysis = summarize_study("measured", tracker=bench.tracker, asked=asked(tmp_path, bench, later))

    assert "later" == analysis.metric.name
    for row in analysis.variants:
        assert row.spreads["macro_f1"] == row.spreads["later"]
    assert any("asked for by this summary, after results could be seen: later" in said for said in analysis.deviations)
    assert "later" not in runs(bench)[0].metrics


def test_a_summary_says_which_runs_keep_no_outputs(bench: Bench, tmp_path: Path) -> None:
    bench.run(study(tmp_path))
    first = runs(bench)[0]
    bench.tracker._runs[str(first.run_id)].files.pop("test_logits.npz")  # type: ignore[attr-defined]
    later = metric_of("later", F1, source="--metric")

    _, analysis = summarize_study("measured", tracker=bench.tracker, asked=asked(tmp_path, bench, later))

    assert any(f"missing of {first.planned.name}: no outputs are kept" in said for said in analysis.deviations)
    assert any("no metric later" in record.problems for record in analysis.diagnostics.damaged)
    taken = metric_of("test_accuracy", F1, source="--metric")
    with pytest.raises(MetricTaken):
        summarize_study("measured", tracker=bench.tracker, asked=asked(tmp_path, bench, taken))
    for run in runs(bench):
        bench.tracker._runs[str(run.run_id)].files.clear()  # type: ignore[attr-defined]
    with pytest.raises(OutputsNotKept, match="no outputs are kept"):
        summarize_study("measured", tracker=bench.tracker, asked=asked(tmp_path, bench, later))


def test_a_metric_added_to_a_study_with_runs_is_computed_of_them(bench: Bench, tmp_path: Path) -> None:
    bench.run(study(tmp_path))
    grown = study(tmp_path, metrics={"macro_f1": F1})

    outcome = bench.run(grown)

    assert [] == bench.trained
    assert all("macro_f1" in run.metrics for run in runs(bench))
    assert any("computed from the outputs that 4 runs kept" in note for note in bench.notes)
    assert outcome.analysis is not None
    assert any("metrics added: macro_f1, after 4 results" in said for said in outcome.analysis.deviations)


def test_an_edited_metric_is_refused_once_there_are_results(bench: Bench, tmp_path: Path) -> None:
    bench.run(study(tmp_path, metrics={"macro_f1": F1}))

    with pytest.raises(StudyChanged, match=r"metrics\.macro_f1\.scale"):
        bench.run(study(tmp_path, metrics={"macro_f1": {**F1, "scale": 2}}))
    (tmp_path / "m.py").write_text(STUDY_CODE.replace("scale *", "2 * scale *"))
    with pytest.raises(StudyChanged, match=r"code of metrics\.macro_f1"):
        bench.run(study(tmp_path, metrics={"macro_f1": F1}))


def test_a_metric_that_fails_in_a_run_fails_it_with_its_traceback(bench: Bench, tmp_path: Path) -> None:
    text = (
        "def few(outputs, targets):\n    if len(targets) < 100:\n        raise ValueError('too few')\n    return 1.0\n"
    )
    (tmp_path / "m.py").write_text(text)
    few = {"function": "m.py:few", "direction": "maximize", "epochs": "every"}

    bench.run(study(tmp_path, metrics={"few": few}))

    assert all(run.outcome is Outcome.FAILED for run in runs(bench) if run.outcome is not None)
    assert "ValueError: too few" in str(runs(bench)[0].error)


def test_tuning_looks_at_a_metric_of_ones_own(bench: Bench, tmp_path: Path) -> None:
    every = {**F1, "epochs": "every"}
    tune = {"training.batch_size": {"choices": [32, 64]}, "trials": 2}

    outcome = bench.run(study(tmp_path, metrics={"f1": every}, metric={"name": "f1"}, tune=tune, seeds=1))

    (first, *_) = outcome.record.plan.tuning[0].trials
    assert first.value is not None
    assert 0 <= first.value <= 1
    assert first.curve[-1] == first.value


def test_tuning_by_what_is_undefined_says_so(bench: Bench, tmp_path: Path) -> None:
    nan = {"function": "m.py:undefined", "direction": "maximize", "epochs": "every"}
    tune = {"training.batch_size": {"choices": [32, 64]}, "trials": 1}

    with pytest.raises(TuningFailed):
        bench.run(study(tmp_path, metrics={"f1": nan}, metric={"name": "f1"}, tune=tune, seeds=1))


@pytest.mark.slow
def test_a_unit_of_ones_own_stands_in_every_form_of_the_report(reporting_bench: Bench, tmp_path: Path) -> None:
    from ablation.report import FORMATS, write_report

    mm = {**F1, "unit": "mm", "epochs": "every"}
    outcome = reporting_bench.run(study(tmp_path, metrics={"size": mm}, metric={"name": "size", "meaningful": 0.1}))

    assert outcome.analysis is not None
    write_report(outcome.analysis, tmp_path / "report", address=lambda _: None)
    assert "0.1 mm" in (tmp_path / "report" / FORMATS["markdown"]).read_text()


@pytest.mark.parametrize(
    ("text", "function", "arguments"),
    [
        ("f1=m.py:f1:maximize", "m.py:f1", {}),
        ("f1=torchmetrics:MulticlassF1Score:maximize", "torchmetrics:MulticlassF1Score", {}),
        ('f1={function: "m.py:f1", direction: maximize, average: macro}', "m.py:f1", {"average": "macro"}),
    ],
)
def test_the_command_line_names_a_metric(text: str, function: str, arguments: dict[str, Any]) -> None:
    found = parse_metric(text)

    assert ("f1", function, "maximize", arguments) == (found.name, found.function, found.direction, found.arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f1=m.py", "must be NAME=FUNCTION:DIRECTION"),
        ("f1=m.py:f1:up", "must be NAME=FUNCTION:DIRECTION"),
        ("1=m.py:f1:maximize", "must be the name of a metric"),
        ("f1={function: m.py}", "names a file and nothing in it"),
        ("f1={direction: maximize}", "is missing @ f1.function"),
        ("f1={", "f1"),
    ],
)
def test_a_metric_of_another_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(StudyFileError) as raised:
        parse_metric(text)

    assert message in str(raised.value)
