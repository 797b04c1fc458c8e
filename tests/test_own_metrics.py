"""What a training function reports, returns and leaves: one odd entry is left out and said, and costs no run."""

import html
import json
import re
import textwrap
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric

from ablation.analysis import RuleChange
from ablation.analysis.equal_seeds import equal_seeds
from ablation.errors import MetricsMissing, StudyFileError
from ablation.pipeline import compare_study, export_study, summarize_study
from ablation.records import Outcome, PlannedRun, RecordedRun, is_number
from ablation.report import report_text
from ablation.study import Study, load_study
from ablation.tracking import MemoryTracker
from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_training import checked_metrics

FILE = """
name: own
training: {name: "loop.py:train", x: 1}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize, meaningful: 0.01}
seeds: 2
"""


def own(folder: Path, body: str, **changes: str) -> Study:
    (folder / "loop.py").write_text(
        "def train(settings, seed, report):\n" + textwrap.indent(textwrap.dedent(body), "    ")
    )
    text = FILE
    for old, new in changes.items():
        text = text.replace(f"{old}:", f"{new}\n#", 1)
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml")


def recorded(bench: Bench) -> tuple[RecordedRun, ...]:
    record = bench.tracker.find_study("own")
    assert record is not None
    return bench.tracker.recorded_runs(record)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (np.bool_(False), 0.0),
        (np.float32(0.5), 0.5),
        (np.array([0.25]), 0.25),
        (torch.tensor(2), 2.0),
        (torch.tensor(True), 1.0),
        (Fraction(1, 4), 0.25),
        (7, 7.0),
        (-(10**400), float("inf")),
    ],
)
def test_numbers_and_truth_values_of_any_library_are_numbers(value: Any, expected: float) -> None:
    assert ({"m": expected}, ()) == checked_metrics({"m": value}, what="returned")


class Odd:
    def item(self) -> float:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", ["0.5", None, [0.5], {"a": 1}, 1j, Decimal(1), np.array([1.0, 2.0]), torch.zeros(0), b"1", Odd(), object()]
)
def test_what_is_no_number_is_left_out_and_its_kind_is_said(value: Any) -> None:
    kept, said = checked_metrics({"score": 0.5, "m": value}, what="returned")

    assert {"score": 0.5} == kept
    assert (f"metric 'm' is left out: it is no number but a {type(value).__name__}",) == said


@pytest.mark.parametrize(
    "name", ["acc@1", "f1 (macro)", "loss%", "a//b", "", "/a", "..", "x" * 251, "\ud800", "a\0", 5, None]
)
def test_what_has_a_name_that_no_tracker_takes_is_left_out_and_said(name: Any) -> None:
    kept, (said,) = checked_metrics({"score": 0.5, name: 1.0}, what="returned")

    assert {"score": 0.5} == kept
    assert said.startswith(f"metric {ascii(name)[:40]}")
    assert said.isprintable()
    assert len(said) < 200


@given(st.dictionaries(st.text(max_size=8) | st.integers(), st.floats() | st.booleans() | st.none() | st.text()))
def test_what_is_kept_of_any_metrics_mlflow_takes(values: dict[Any, Any]) -> None:
    kept, said = checked_metrics(values, what="returned")

    assert len(values) == len(kept) + len(said)
    for name, value in kept.items():
        if is_number(value):
            _validate_metric(name, value, 1, 1)


@pytest.mark.parametrize("value", [None, 0.5, "score", [("score", 0.5)]])
def test_what_is_no_mapping_is_no_metrics(value: Any) -> None:
    with pytest.raises(MetricsUnfit, match=f"it returned a {type(value).__name__}"):
        checked_metrics(value, what="returned")


ODD = """
for epoch in range(2):
    report({"acc@1": 0.5, "loss": 0.25, "note": "text"})
return {"score": 0.5 + seed % 97 / 1e4, "acc@1": 0.3, "best": None, "converged": True, "auc": float("nan")}
"""


def test_one_odd_metric_costs_no_run_and_is_said_in_the_progress_the_record_and_the_report(
    bench: Bench, tmp_path: Path
) -> None:
    outcome = bench.run(own(tmp_path, ODD))

    assert {Outcome.DONE: 4} == outcome.ended
    for run in recorded(bench):
        assert {"score", "converged"} <= run.metrics.keys()
        assert ("loss",) == tuple(run.curves)
        (problem,) = run.problems
        assert ["acc@1", "note", "best", "auc"] == [said.split("'")[1] for said in problem.split("; ")]
    notes = " ".join(bench.notes)
    assert [1, 1, 1] == [notes.count(f"metric {name!r} is left out") for name in ("acc@1", "best", "auc")]
    assert outcome.analysis is not None
    assert "x=1/seed-0: metric 'acc@1' is left out" in html.unescape(report_text(outcome.analysis, "html"))


def test_what_is_left_out_alters_no_answer(bench: Bench, tmp_path: Path) -> None:
    kept = 'return {"score": 0.5 + seed % 97 / 1e4 + settings["training"]["x"] * (seed % 7) / 1e3'
    answers = []
    for body in (f"{kept}}}", f'{kept}, "acc@1": 0.3, "best": None}}'):
        bench.tracker = MemoryTracker()
        outcome = bench.run(own(tmp_path, body))
        assert outcome.analysis is not None
        (answer,) = outcome.analysis.answers
        answers.append((answer.verdict, answer.effect, [one.difference for one in answer.differences]))

    assert answers[0] == answers[1]


def test_a_question_on_the_files_metric_is_answered_beside_another_that_a_summary_judges_by(
    bench: Bench, tmp_path: Path
) -> None:
    study = own(
        tmp_path,
        'return {"score": seed % 97 / 1e4, "size": 5.0 + seed % 89}',
        seeds="metrics: {size: minimize}\nquestions: [{effect: training.x, on: score}]\nseeds: 2",
    )
    bench.run(study)

    _, analysis = summarize_study("own", tracker=bench.tracker, change=RuleChange(metric="size"))

    assert [("score", 0.01, False)] == [(each.metric.name, each.rope, each.is_primary) for each in analysis.answers]
    assert {"score", "size"} <= {metric.name for metric in analysis.metrics}


def test_an_accuracy_that_is_returned_in_percent_is_shown_in_percent_and_points(bench: Bench, tmp_path: Path) -> None:
    percent = '75.0 + settings["training"]["x"] + (seed % 7) / 100 * settings["training"]["x"]'
    study = own(
        tmp_path,
        f'report({{"validation_accuracy": {percent}}}); return {{"test_accuracy": {percent}}}',
        metric="metric: {name: test_accuracy, meaningful: 0.5}",
    )
    analysis = bench.run(study).analysis

    assert analysis is not None
    assert {"percent"} == {analysis.metric.unit, analysis.answers[0].metric.unit}
    said = report_text(analysis, "markdown")
    assert "In percent, as the training function returned it: test accuracy." in said
    assert re.search(r"a mean test accuracy of 76\.\d\d %", said)
    assert re.search(r"\| \+[01]\.\d+ points \|", said)
    assert not re.search(r"\b\d{3,}\.\d+ (%|points)", said)
    compared = compare_study("own", "x=1", "x=2", tracker=bench.tracker).metrics
    assert ["percent"] == [each.metric.unit for each in compared if each.metric.name == "test_accuracy"]


@pytest.mark.slow
def test_mlflow_has_what_is_left_out_as_a_problem_of_the_run(
    bench: Bench, tmp_path: Path, mlflow_tracker: MemoryTracker
) -> None:
    bench.tracker = mlflow_tracker
    outcome = bench.run(own(tmp_path, ODD))

    assert {Outcome.DONE: 4} == outcome.ended
    assert all("metric 'acc@1' is left out" in " ".join(run.problems) for run in recorded(bench))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (
            'return {"score": "high"}',
            "returned nothing, and not score: return it, .*'score' is left out: it is no number",
        ),
        ('return {"accuracy": 0.5}', "returned accuracy, and not score: return it, or name another metric"),
        ("return 0.5", "it returned a float"),
        ("return", "it returned a NoneType"),
    ],
)
def test_without_the_compared_metric_the_first_run_fails_and_no_other_is_begun(
    body: str, error: str, bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises(MetricsMissing, match=f"(?s)run x=1/seed-0 of study 'own' .* result: .*{error}.*--retry-failed"):
        bench.run(own(tmp_path, body))

    first, *others = recorded(bench)
    assert (Outcome.FAILED, "metrics") == (first.outcome, first.failure)
    assert [None] * 3 == [run.outcome for run in others]


def test_a_corrected_function_goes_on_with_the_same_command(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(MetricsMissing):
        bench.run(own(tmp_path, 'return {"accuracy": 0.5}'))

    outcome = bench.run(own(tmp_path, 'return {"score": 0.5 + seed % 97 / 1e4}'))

    assert {Outcome.DONE: 4} == outcome.ended


def test_a_corrected_name_trains_the_failed_run_again_where_that_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(MetricsMissing):
        bench.run(own(tmp_path, 'return {"accuracy": 0.5}'))
    bench.retry_failed = True

    corrected = "metric: {name: accuracy, direction: maximize}"
    outcome = bench.run(own(tmp_path, 'return {"accuracy": 0.5}', metric=corrected))

    assert {Outcome.DONE: 4} == outcome.ended


def test_where_others_have_a_result_a_run_without_the_metric_fails_alone(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path, 'return {"score": 0.5} if settings["training"]["x"] == 1 else {}'))

    assert {Outcome.DONE: 2, Outcome.FAILED: 2} == outcome.ended


def test_what_the_worker_measures_too_counts_as_the_function_returns_it(bench: Bench, tmp_path: Path) -> None:
    body = 'return {"score": 0.5, "training_seconds": 3.0, "peak_memory_mib": 4.0, "total_seconds": 5.0}'
    bench.run(own(tmp_path, body))

    for run in recorded(bench):
        assert [3.0, 4.0, 5.0] == [
            run.metrics[name] for name in ("training_seconds", "peak_memory_mib", "total_seconds")
        ]


def test_a_study_may_compare_what_the_worker_measures(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path, "return {}", metric="metric: {name: peak_memory_mib, direction: minimize}"))

    assert {Outcome.DONE: 4} == outcome.ended
    assert all(run.metrics["peak_memory_mib"] > 0 for run in recorded(bench))


def test_a_reported_metric_called_epoch_spoils_no_curve(bench: Bench, tmp_path: Path) -> None:
    bench.run(own(tmp_path, 'report(epoch=7, loss=0.5)\nreport(epoch=8, loss=0.25)\nreturn {"score": 0.5}'))

    for file in bench.state.folder.glob("runs/*/artifacts/curves.csv"):
        assert "epoch,loss\n1,0.5\n2,0.25\n" == file.read_text()


def test_files_that_no_store_takes_cost_no_run(bench: Bench, tmp_path: Path) -> None:
    body = """
    import os
    (report.folder / "weights.txt").write_text("kept")
    (report.folder / "latest").symlink_to("gone")
    os.mkfifo(report.folder / "pipe")
    return {"score": 0.5}
    """
    outcome = bench.run(own(tmp_path, body))

    assert {Outcome.DONE: 4} == outcome.ended
    for run in recorded(bench):
        files = bench.state.folder / "runs" / run.planned.identity / "artifacts" / "files"
        assert ["weights.txt"] == [path.name for path in files.iterdir()]
        assert (
            "file 'files/latest' is left out: it is a link that leads nowhere; "
            "file 'files/pipe' is left out: it is a pipe, a socket or a device",
        ) == run.problems


def test_many_odd_entries_are_said_in_a_handful_of_sentences(bench: Bench, tmp_path: Path) -> None:
    bench.run(own(tmp_path, 'return {"score": 0.5, **{f"top@{k}": 0.1 for k in range(100)}}'))

    for run in recorded(bench):
        (problem,) = run.problems
        assert 6 == len(problem.split("; "))
        assert problem.endswith("and 95 more are left out or renamed")


COLUMNS = ["error", "seed", "device", "variant", "outcome", "host", "identity", "run_id", "is_collapsed", "training.x"]


def test_returned_and_reported_metrics_may_have_the_names_of_columns(bench: Bench, tmp_path: Path) -> None:
    body = f"report({{name: 0.25 for name in {COLUMNS}}})\nreturn {{'score': 0.5, **dict.fromkeys({COLUMNS}, 0.75)}}"
    outcome = bench.run(own(tmp_path, body))

    assert {Outcome.DONE: 4} == outcome.ended
    table = export_study("own", tracker=bench.tracker, by_epoch=False)
    assert {0.75} == {value for name in COLUMNS for value in table[f"metric.{name}"]}
    assert (["x=1", "x=2"] * 2, [0, 0, 1, 1]) == ([*table["variant"]], [*table["seed"]])
    by_epoch = export_study("own", tracker=bench.tracker, by_epoch=True)
    assert ([0, 0, 1, 1], [0.25] * 4) == ([*by_epoch["seed"]], [*by_epoch["metric.seed"]])
    assert [1, 2, 1, 2] == [*by_epoch["training.x"]]


@pytest.mark.parametrize("name", [*COLUMNS[:-1]])
def test_a_compared_metric_with_the_name_of_a_column_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=f"'{name}' is a column of every run table; .* @ metric.name .line 5"):
        own(tmp_path, "return {}", metric=f"metric: {{name: {name}, direction: minimize}}")


def test_a_compared_metric_with_the_name_of_a_factor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"'training\.x' is a factor of this study; .* @ metrics\.training\.x"):
        own(tmp_path, "return {}", seeds="metrics: {training.x: maximize}")


@pytest.mark.parametrize(
    "body",
    ["return {'score': seed / 7, 'fit_time': time.perf_counter()}", "return {'score': 0.5, 'loss': seed / 7}"],
)
def test_a_factor_that_the_function_does_not_read_is_asked_about(body: str, bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path, f"import time\n{body}"))

    assert outcome.analysis is not None
    (answer,) = outcome.analysis.answers
    asked = "both gave identical results: does this factor reach the model?"
    assert answer.is_identical
    assert asked in report_text(outcome.analysis, "markdown")
    assert asked in html.unescape(report_text(outcome.analysis, "html"))
    assert json.loads(report_text(outcome.analysis, "json"))["answers"][0]["is_identical"]


def test_curves_that_differ_show_that_a_factor_is_read(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path, "report(loss=settings['training']['x'])\nreturn {'score': 1.0}"))

    assert outcome.analysis is not None
    assert not outcome.analysis.answers[0].is_identical


def test_seeds_that_repeat_each_other_to_the_last_digit_give_no_verdict(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path, "return {'score': 2 ** 0.5 * settings['training']['x']}"))

    assert outcome.analysis is not None
    assert [(0, 1), (0, 1)] == [equal.seeds for equal in outcome.analysis.diagnostics.equal_seeds]
    assert (0, 1) == outcome.analysis.answers[0].repeated_seeds
    assert "Some seeds repeat each other in every number: they are no repetitions." in report_text(
        outcome.analysis, "markdown"
    )


def test_shares_that_are_the_same_in_all_seeds_are_asked_about_and_withhold_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    outcome = bench.run(own(tmp_path, "x = settings['training']['x']\nreturn {'score': 0.9 if x == 1 else seed / 7}"))

    assert outcome.analysis is not None
    assert [("x=1", (0, 1), False)] == [
        (equal.variant, equal.seeds, equal.is_sure) for equal in outcome.analysis.diagnostics.equal_seeds
    ]
    assert outcome.analysis.answers[0].effect is not None
    assert outcome.analysis.answers[0].effect.interval is not None
    assert "does the seed reach the training?" in report_text(outcome.analysis, "markdown")


def test_shares_that_some_seeds_have_in_common_are_no_repetitions() -> None:
    rows = [{"variant": "a", "seed": seed, "identity": f"{seed}"} for seed in range(3)]
    recorded = {
        f"{seed}": RecordedRun(
            planned=PlannedRun(identity=f"{seed}", variant="a", seed=seed),
            run_id=None,
            outcome=Outcome.DONE,
            metrics={"score": score, "seconds": float(seed)},
            curves={},
            confusion={},
        )
        for seed, score in enumerate((0.9, 0.9, 0.8))
    }

    assert () == equal_seeds(rows, recorded)
