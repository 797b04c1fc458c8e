"""Holds the report to its analysis: words that agree with numbers, escaped names, equal bytes, a golden report.

After a meant change of the report, write the golden file and the schema anew and read their diff:

    ABLATION_WRITE_GOLDEN=1 pytest tests/test_report.py -k 'golden or schema'
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from factories import make_plan, make_runs, noisy_accuracy
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import TypeAdapter

from ablation.analysis import Analysis, Answer, Verdict, analyse
from ablation.records import TASKS, Outcome, Plan, Variant
from ablation.report import (
    answer_summaries,
    answers_text,
    error_tables,
    learning_tables,
    overview,
    part_tables,
    report_text,
    sentence,
    tables,
    write_report,
)
from ablation.report.characters import first_screen_text
from ablation.report.markup import escaped
from ablation.report.prose import headline
from ablation.report.prose.amounts import difference_decimals
from ablation.report.rows import first_screen
from ablation.report.schema import SCHEMA_VERSION, report_schema
from ablation.report.table import Table
from ablation.tracking.mlflow.notes import study_note

METRICS = TASKS["classification"].metrics

GOLDEN = Path(__file__).parent / "golden" / "report.md"
SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"
QUESTIONS = (
    {"effect": "model.depth"},
    {"effect": "model.normalization"},
    {"effect": "model.normalization", "on": "learning_curve_area"},
    {"interaction": ["model.depth", "model.normalization"]},
)
NORMALIZATION = {"model.normalization": ("none", "batch")}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    plan = make_plan(
        description="Does a third block help | does batch norm?",
        questions=QUESTIONS,
        deviations=("alpha: 0.1 before, 0.05 now",),
    )
    return analyse(plan, make_runs(plan))


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(analysis, folder)
    return folder


def answer_on(metric: str, differences: list[float], *, rope: float | None = None, locked_seeds: int | None = None):
    """Answer a question whose seeds differ by these amounts in a metric."""
    question = {"effect": "model.normalization", "on": metric, "meaningful": rope}
    plan = make_plan(factors=NORMALIZATION, seeds=len(differences), questions=[question], locked_seeds=locked_seeds)
    runs = [
        dataclasses.replace(
            run, metrics={**run.metrics, metric: 1.0 + (differences[run.planned.seed] if batch else 0.0)}
        )
        for run in make_runs(plan)
        for batch in ["batch" in run.planned.variant]
    ]
    return analyse(plan, runs).answers[0]


def study_of_the_assignment(question: dict[str, str]) -> tuple[Plan, list]:
    """Return the assignment's comparison of depths: 0.7231 and 1.4876 against 0.7336 and 1.3954, one run each."""
    plan = make_plan(factors={"model.depth": (3, 4)}, seeds=1, questions=[{"effect": "model.depth", **question}])
    measured = {"depth=3": (0.7231, 1.4876), "depth=4": (0.7336, 1.3954)}
    runs = []
    for run in make_runs(plan):
        accuracy, loss = measured[run.planned.variant]
        runs.append(dataclasses.replace(run, metrics={**run.metrics, "test_accuracy": accuracy, "test_loss": loss}))
    return plan, runs


def test_the_assignments_second_mistake_cannot_be_written():
    accuracy = sentence(analyse(*study_of_the_assignment({"on": "test_accuracy"})).answers[0])
    loss = sentence(analyse(*study_of_the_assignment({"on": "test_loss"})).answers[0])

    assert "test accuracy is 1.05 points higher" in accuracy
    assert "lower" not in accuracy
    assert "test loss is 0.09 nats lower" in loss
    assert "higher" not in loss
    assert "no verdict" in accuracy
    assert "no verdict" in loss


WORDS = "(higher|lower|longer|shorter)"
NUMBER = r"([\d,.]+(?:e−?\d+)?)"
FIRST_NUMBER = re.compile(rf" is {NUMBER} (?:(?:points|nats|s) )?{WORDS}")
SPAN = re.compile(rf"interval: {NUMBER}(?:(?: points| nats| s)? {WORDS})? to {NUMBER}(?: points| nats| s)? {WORDS}\)")
SIGNS = {"higher": 1, "longer": 1, "lower": -1, "shorter": -1}


def rounded_alike(value: float, shown: str) -> str:
    """Return the size of a value with as many decimals as were shown, and by its power of ten where that was."""
    digits, _, power = shown.partition("e")
    decimals = len(digits.partition(".")[2])
    if not power:
        return f"{abs(value):,.{decimals}f}"
    found, _, exponent = f"{abs(value):.{decimals}e}".partition("e")
    return f"{found}e{int(exponent)}".replace("-", "−")


def number(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(METRICS)),
    st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=5),
    st.one_of(st.none(), st.floats(0.0005, 0.5)),
    st.booleans(),
)
def test_words_never_contradict_the_numbers_beside_them(metric, differences, rope, is_grown):
    answer = answer_on(metric, differences, rope=rope, locked_seeds=1 if is_grown else None)
    if answer.effect is None:  # an accuracy at chance has collapsed
        return
    text = sentence(answer)
    mean, scale = answer.effect.mean, 100 if METRICS[metric].unit == "fraction" else 1

    found = FIRST_NUMBER.search(text)
    assert (found is None) == (mean == 0)
    if found:
        assert SIGNS[found[2]] * mean > 0
        assert number(found[1]) > 0
        assert found[1] == rounded_alike(scale * mean, found[1])
    interval = answer.effect.interval
    if interval is not None:
        span = SPAN.search(text)
        assert span is not None
        reach = {"fraction": 1.0}.get(METRICS[metric].unit, 2.0 if "brier" in metric else math.inf)
        bounds = [scale * max(interval.low, -reach), scale * min(interval.high, reach)]
        first, second = bounds if interval.high > 0 else bounds[::-1]
        assert SIGNS[span[2] or span[4]] * first >= 0
        assert SIGNS[span[4]] * second >= 0
        assert (span[1], span[3]) == (rounded_alike(first, span[1]), rounded_alike(second, span[3]))
    is_good = (mean > 0) == (METRICS[metric].direction == "maximize")
    assert (" helps" in text) == (answer.verdict is Verdict.HELPS)
    assert (" hurts" in text) == (answer.verdict is Verdict.HURTS)
    assert answer.verdict is not Verdict.HELPS or is_good
    assert answer.verdict is not Verdict.HURTS or not is_good
    assert ("Meaningfully" in text) == bool(answer.is_meaningful)
    is_too_small = "interval is too small to matter (±" in text
    assert is_too_small == (answer.verdict is Verdict.NO_MEANINGFUL_DIFFERENCE)
    is_possibly_small = answer.is_meaningful is False and answer.verdict in (Verdict.HELPS, Verdict.HURTS)
    assert "Possibly too small to matter" not in text or is_possibly_small
    assert ("Next: " in text) == (answer.verdict is Verdict.UNDECIDED)


def test_sentence_begins_with_its_headline(analysis):
    assert all(sentence(answer).startswith(f"{headline(answer)}: ") for answer in analysis.answers)


def answer_with(outcome: Outcome | None) -> Answer:
    plan = make_plan(factors=NORMALIZATION)
    return analyse(plan, make_runs(plan, outcomes={("normalization=batch", 1): outcome})).answers[0]


def test_incomplete_answer_names_the_run_and_gives_no_difference():
    text = sentence(answer_with(Outcome.FAILED))

    assert "normalization=batch/seed-1 failed" in text
    assert "higher" not in text


@pytest.mark.parametrize(
    ("outcomes", "steps"),
    [
        ([Outcome.FAILED], ["fix what failed; the same command with --retry-failed trains it again"]),
        ([None], ["the same command trains what has not ended"]),
        (
            [Outcome.FAILED, None, Outcome.DONE],
            [
                "fix what failed; the same command with --retry-failed trains it again",
                "delete in MLflow the runs that lack the metric; the same command records them again",
                "the same command trains what has not ended",
            ],
        ),
    ],
)
def test_each_kind_of_lack_has_its_own_way_out(outcomes: list[Outcome | None], steps: list[str]) -> None:
    plan = make_plan(factors=NORMALIZATION)
    runs = make_runs(plan, outcomes={("normalization=batch", seed): way for seed, way in enumerate(outcomes)})
    lacking = [
        dataclasses.replace(run, metrics={}) if run.planned.seed == 2 and len(outcomes) == 3 else run for run in runs
    ]

    text = sentence(analyse(plan, lacking).answers[0])

    assert text.endswith(f"Next: {'; '.join(steps)}.")


def test_a_failed_run_is_named_with_the_last_line_of_its_error() -> None:
    answer = answer_with(Outcome.FAILED)
    long = dataclasses.replace(answer.missing[0], error=f"Traceback:\n  x\nValueError: {'a' * 500}\n\n")

    assert "normalization=batch/seed-1 failed: RuntimeError: lost | worker)" in sentence(answer)
    assert f"failed: ValueError: {'a' * 148}…)" in sentence(dataclasses.replace(answer, missing=(long,)))


def test_unstable_answer_gives_rates_and_no_difference():
    text = sentence(answer_with(Outcome.DIVERGED))

    assert "1 of 5 runs with normalization=batch diverged, none of 5 with normalization=none" in text
    assert "higher" not in text


@pytest.mark.usefixtures("vector_figures")
def test_grown_study_says_so_in_every_answer_and_in_the_report(tmp_path):
    plan = make_plan(factors=NORMALIZATION, locked_seeds=3)
    analysis = analyse(plan, make_runs(plan))
    write_report(analysis, tmp_path)

    assert "Seeds were added beyond the plan, so the e-value decides" in sentence(analysis.answers[0])
    assert "(3 then, 5 now)" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("metric", "rope", "words"),
    [
        ("test_accuracy", 0.01, "beyond the 1 point that matters"),
        ("test_accuracy", 0.02, "beyond the 2 points that matter"),
        ("test_accuracy", 0.015, "beyond the 1.5 points that matter"),
        ("test_loss", 1.0, "beyond the 1 nat that matters"),
        ("training_seconds", 1.0, "beyond the 1 s that matters"),
        ("training_seconds", 2.0, "beyond the 2 s that matter"),
    ],
)
def test_noun_and_verb_agree_with_the_size_that_matters(metric: str, rope: float, words: str):
    answer = answer_on(metric, [3.0, 3.1, 3.2, 3.0, 3.1], rope=rope)

    assert f"Meaningfully: the whole interval is {words}." in sentence(answer)


def test_golden_report(report):
    text = (report / "report.md").read_text(encoding="utf-8")
    if os.environ.get("ABLATION_WRITE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8", newline="\n")

    assert text == GOLDEN.read_text(encoding="utf-8")


def first_screens(analysis, report):
    """Return the first screen as each place has it, by the name of its golden file."""
    links = {"report.html": "#/report"}
    return {
        "terminal-80.txt": first_screen_text(first_screen(analysis), 80).plain + "\n",
        "terminal-120.txt": first_screen_text(first_screen(analysis), 120).plain + "\n",
        "note.md": study_note(overview(analysis), answer_summaries(analysis), links=links, figure="#/forest") + "\n",
        "tables.tex": (report / "tables.tex").read_text(encoding="utf-8"),
        "rows.html": re.search(
            r'<section aria-labelledby="answers".*?</section>\n', (report / "report.html").read_text("utf-8"), re.DOTALL
        ).group(),
        "forest.svg": (report / "figures" / "forest.svg").read_text(encoding="utf-8"),
        "forest-column.svg": (report / "figures" / "forest-column.svg").read_text(encoding="utf-8"),
    }


def test_golden_first_screens(analysis, report):
    for name, text in first_screens(analysis, report).items():
        path = GOLDEN.parent / name
        if os.environ.get("ABLATION_WRITE_GOLDEN"):
            path.write_text(text, encoding="utf-8", newline="\n")

        assert text == path.read_text(encoding="utf-8"), name


def test_equal_inputs_give_equal_bytes(analysis, report, tmp_path):
    again = write_report(analysis, tmp_path)

    assert {"report.md", "report.html", "report.json", "tables.tex"} < {path.name for path in again}
    for path in again:
        assert path.read_bytes() == (report / path.relative_to(tmp_path)).read_bytes()


def test_every_figure_that_the_report_shows_is_written(report):
    shown = re.findall(r"\]\((figures/[^)]+)\)", (report / "report.md").read_text(encoding="utf-8"))

    written = {f"figures/{path.name}" for path in (report / "figures").glob("*.png")}
    assert sorted(shown) == sorted(written - {"figures/forest-column.png"})  # that one is for papers


def test_report_json_has_every_answer_with_its_runs_and_no_nan(report, analysis):
    document = json.loads((report / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)

    assert len(document["answers"]) == len(analysis.answers)
    run_ids = {run_id for row in document["variants"] for run_id in row["run_ids"]}
    assert len(run_ids) == 20
    for answer in document["answers"]:
        assert {run_id for difference in answer["differences"] for run_id in difference["run_ids"]} == run_ids


def test_documented_schema_is_that_of_report_json(report):
    text = json.dumps(report_schema(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("ABLATION_WRITE_GOLDEN"):
        SCHEMA.write_text(text, encoding="utf-8", newline="\n")
    document = json.loads((report / "report.json").read_text(encoding="utf-8"))
    version = document.pop("schema_version")

    assert text == SCHEMA.read_text(encoding="utf-8")
    assert SCHEMA_VERSION == version
    assert set(report_schema()["required"]) - {"schema_version"} == set(document)
    TypeAdapter(Analysis).validate_json(json.dumps(document))


@pytest.mark.usefixtures("vector_figures")
def test_curves_name_their_split(tmp_path):
    question = {"effect": "model.normalization", "on": "learning_curve_area"}
    plan = make_plan(factors=NORMALIZATION, validation=0.1, seeds=2, questions=[question])
    paths = write_report(analyse(plan, make_runs(plan)), tmp_path)

    assert {"validation-accuracy.png", "validation-loss.png"} <= {path.name for path in paths}
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Validation accuracy by epoch" in text
    assert "area under the validation accuracy curve" in text


HOSTILE = "<img src=x onerror=alert(1)> | *b* `c` [l](http://x) $y$ ![i](z)\n# h"


@pytest.mark.usefixtures("vector_figures")
def test_markup_from_users_is_shown_as_text(tmp_path):
    classes = (HOSTILE, "_one_", "</details>", "3")
    plan = make_plan(
        name=HOSTILE,
        description=HOSTILE,
        factors={"model.normalization": ("none", HOSTILE)},
        classes=classes,
        deviations=(HOSTILE,),
        seeds=2,
    )
    runs = make_runs(plan, host=HOSTILE, device=HOSTILE)
    runs[-1] = dataclasses.replace(runs[-1], outcome=Outcome.FAILED, error=f"```\n{HOSTILE}\n```")
    write_report(analyse(plan, runs), tmp_path)

    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render((tmp_path / "report.md").read_text())

    assert "<img src=x" not in html.replace('<img src="figures/', "")
    assert "<a " not in html
    assert "<em>b</em>" not in html
    assert "<h1>h</h1>" not in html
    found = re.findall(r"<table>.*?</table>", html, re.DOTALL)
    assert found
    for table in found:
        widths = {row.count("<th") + row.count("<td") for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)}
        assert len(widths) == 1


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_escaped_text_has_no_markup(text):
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(f"before\n\n{escaped(text)}")

    assert set(re.findall(r"<(/?\w+)", html)) <= {"p", "/p"}


@settings(deadline=None)
@given(st.text(alphabet="|*_`[]()<>\\&#-+=1. ab~$!", max_size=25))
def test_escaped_text_stays_one_cell_of_a_table(text):
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(f"| h |\n| --- |\n| {escaped(text)} |")

    assert html.count("<td>") == 1
    assert set(re.findall(r"</?(\w+)", html)) <= {"table", "thead", "tbody", "tr", "th", "td"}


def test_terminal_answers_have_no_control_characters():
    plan = make_plan(factors={"model.normalization": ("none", "\x1b[31mred\x07")}, seeds=2)

    text = answers_text(analyse(plan, make_runs(plan)))

    assert "\x1b" not in text
    assert "\x07" not in text


def test_answers_for_a_terminal_are_the_overview_and_a_line_per_answer(analysis):
    lines = answers_text(analysis).splitlines()

    assert len(lines) == 4 + len(analysis.answers)
    assert lines[4].startswith("1. ")


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
@pytest.mark.parametrize(
    ("seeds", "factors"),
    [
        (1, {"model.depth": (2, 3)}),
        (2, {"model.depth": (2, 3), "model.normalization": ("none", "batch"), "training.optimizer": ("adam", "sgd")}),
    ],
)
def test_report_of_any_size_is_written(tmp_path, seeds, factors):
    plan = make_plan(factors=factors, seeds=seeds)

    assert all(path.exists() for path in write_report(analyse(plan, make_runs(plan)), tmp_path))


@pytest.mark.usefixtures("vector_figures")
def test_report_is_written_when_every_run_failed(tmp_path):
    plan = make_plan(factors=NORMALIZATION, seeds=2)
    outcomes = {(run.variant, run.seed): Outcome.FAILED for run in plan.runs}

    write_report(analyse(plan, make_runs(plan, outcomes=outcomes)), tmp_path)

    assert "RuntimeError: lost | worker" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_interaction_is_worded_without_calling_it_help_or_harm():
    def accuracy(variant: Variant, seed: int) -> float:
        together = variant.levels == {"model.depth": 3, "model.normalization": "batch"}
        return noisy_accuracy(variant, seed) - (0.05 if together else 0.0)

    plan = make_plan(questions=[{"interaction": ["model.depth", "model.normalization"]}])
    text = sentence(analyse(plan, make_runs(plan, accuracy=accuracy)).answers[0])

    assert text.startswith("depth 2 → 3 and normalization none → batch do not add up: test accuracy is ")
    assert "lower than the sum of both effects" in text
    assert not re.search(r"\b(helps|hurts)\b", text)


def cells_of(table: Table, head: str) -> list[str]:
    return [row[table.head.index(head)] for row in table.rows]


def decimals(cells: Sequence[str]) -> set[int]:
    """Return how many decimals the numbers of a column have."""
    return {len(number.partition(".")[2]) for cell in cells for number in re.findall(r"[\d,]+\.?\d*", cell)}


def test_differences_on_a_metric_have_the_same_decimals_in_answers_and_tables(analysis: Analysis) -> None:
    (expected,) = {difference_decimals(answer) for answer in analysis.answers if answer.is_primary}
    made = [tables.scorecard(analysis), tables.variants(analysis), tables.simple_effects(analysis)]
    made += [tables.crossed(analysis), part_tables.parts(analysis)]

    found = [
        cell
        for table in made
        for head in ("difference", "difference to baseline")
        if head in table.head
        for cell in cells_of(table, head)
        if cell
    ]
    assert {expected} == decimals(found)


def test_numbers_of_a_column_have_the_same_decimals_whatever_their_sizes() -> None:
    def accuracy(variant: Variant, seed: int) -> float:
        return noisy_accuracy(variant, seed) + (0.2 * (seed % 2) if variant.levels["model.depth"] == 4 else 0.0)

    plan = make_plan(factors={"model.depth": (2, 3, 4)})
    found = analyse(plan, make_runs(plan, accuracy=accuracy))

    for table in (tables.variants(found), error_tables.calibration(found), learning_tables.matched_losses(found)):
        for head in ("difference", "difference to baseline", "95 % interval"):
            columns = [index for index, name in enumerate(table.head) if name == head]
            for column in columns:
                assert len(decimals([row[column].replace("95 %", "") for row in table.rows])) == 1


def test_of_many_variants_the_baseline_and_the_best_are_in_sight_and_all_in_a_fold() -> None:
    plan = make_plan(factors={"model.width": tuple(range(20))}, seeds=2)
    found = analyse(plan, make_runs(plan))
    shown, every = tables.first_variants(found), tables.variants(found)

    means = sorted((row.spreads["test_accuracy"].mean for row in found.variants if not row.is_baseline), reverse=True)
    assert [f"{100 * mean:.2f} %" for mean in means[:11]] == cells_of(shown, "mean")[1:]
    assert shown.rows[0] == every.rows[0]
    assert (12, 20) == (len(shown.rows), len(every.rows))
    few = analyse(make_plan(), make_runs(make_plan()))
    assert tables.variants(few) == tables.first_variants(few)


def test_of_a_metric_that_is_better_when_lower_the_lowest_means_are_in_sight() -> None:
    loss = {"name": "test_loss", "direction": "minimize"}
    plan = make_plan(factors={"model.width": tuple(range(20))}, seeds=2, metric=loss)
    found = analyse(plan, make_runs(plan))

    shown = [float(cell) for cell in cells_of(tables.first_variants(found), "mean")[1:]]
    assert (
        sorted(row.spreads["test_loss"].mean for row in found.variants if not row.is_baseline)[10] <= max(shown) + 1e-4
    )
    assert shown == sorted(shown)


def test_failed_runs_are_in_sight_with_the_last_line_of_their_errors_and_all_errors_in_a_fold() -> None:
    plan = make_plan(seeds=4)
    failed = {(run.variant, run.seed): Outcome.FAILED for run in plan.runs if run.seed}
    found = analyse(plan, make_runs(plan, outcomes=failed))

    text = report_text(found, "markdown").partition("## Failed runs")[2].partition("\n## ")[0]

    assert 12 == len(failed) == text.count("Error of ")
    seen, folded = text.split("<details>")
    assert 12 == seen.count("RuntimeError: lost") == len(tables.failures(found).rows)
    assert "`--retry-failed`" in seen
    assert "Traceback" in folded
    assert "Traceback" not in seen
