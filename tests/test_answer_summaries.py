"""Answers as trackers keep them: under names that read well, that MLflow takes as keys, and that are never alike."""

from dataclasses import replace

import pytest
from factories import make_plan, make_runs
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_tag

from ablation.analysis import Analysis, analyse
from ablation.analysis.answer_records import LevelChange
from ablation.report import answer_summaries
from ablation.report.answer_summaries import MOST_NAME, answer_names, key_name
from ablation.study.labels import FactorLabels, Labels

QUESTIONS = [
    {"effect": "model.depth"},
    {"effect": "model.normalization", "on": "test_loss"},
    {"interaction": ("model.depth", "model.normalization")},
]
HOSTILE = ("a", "A", "a.low", "a low", "", "💥", "a - question 2", "question 1", "x" * 300, "../a", "a/b", "a:b")
LABELS = st.one_of(st.text(max_size=400), st.sampled_from(HOSTILE))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    plan = make_plan(questions=QUESTIONS)
    return analyse(plan, make_runs(plan))


def test_names_say_what_was_changed_and_on_which_metric_but_for_the_studys_own(analysis: Analysis) -> None:
    assert [
        "depth 2 to 3",
        "normalization none to batch on test_loss",
        "depth 2 to 3 and normalization none to batch",
    ] == [summary.name for summary in answer_summaries(analysis)]


def test_a_summary_has_the_numbers_as_they_were_measured(analysis: Analysis) -> None:
    summary, effect = answer_summaries(analysis)[0], analysis.answers[0].effect

    assert effect is not None
    assert effect.interval is not None
    assert (effect.mean, effect.interval.low, effect.interval.high, effect.n) == (
        summary.mean,
        summary.low,
        summary.high,
        summary.seeds,
    )
    assert ("test accuracy", "fraction") == (summary.metric, summary.unit)
    assert summary.sentence.startswith(f"{summary.headline}: ")


def test_labels_are_in_the_words_of_a_summary_and_not_in_its_name(analysis: Analysis) -> None:
    depth = FactorLabels(label="blocks", levels={"2": "two"})
    named = replace(analysis, labels=Labels(factors={"model.depth": depth}, variants={}))

    before, after = answer_summaries(analysis)[0], answer_summaries(named)[0]
    assert ("depth 2 to 3", "depth 2 to 3") == (before.name, after.name)
    assert ("depth 2 → 3", "blocks two → 3") == (before.change, after.change)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("learning_rate 0.1 → 1e-05", "learning_rate 0.1 to 1e-05"),
        ("removing block.2/conv", "removing block 2 conv"),
        ("act gelu(tanh) → c++", "act gelu tanh to c"),
        ("x.low", "x low"),
        ("../..", ""),
    ],
)
def test_a_key_keeps_words_and_numbers_and_leads_nowhere(text: str, name: str) -> None:
    assert name == key_name(text)


@given(st.lists(LABELS, min_size=1, max_size=8))
def test_no_name_is_refused_by_mlflow_or_has_a_key_of_another(levels: list[str]) -> None:
    plan = make_plan(questions=QUESTIONS[:1], seeds=2)
    answer = analyse(plan, make_runs(plan)).answers[0]
    changes = [LevelChange(factor="model.x", label=level, before="", after="") for level in levels]
    names = answer_names([replace(answer, changes=(change,)) for change in changes])

    keys = [f"effect.{name}{end}" for name in names for end in ("", ".low", ".high")]
    for name, key in zip(names, keys[::3], strict=True):
        assert len(name) <= MOST_NAME
        _validate_tag(f"verdict.{name}", "helps")
        _validate_metric_name(f"{key}.high")
    assert len(keys) == len({key.casefold() for key in keys})
