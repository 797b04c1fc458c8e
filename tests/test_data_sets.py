"""A list of data sets is a block: every variant is trained on each, and differences are averaged over them."""

from pathlib import Path

import pytest
from bench import Bench

from ablation.analysis.contrasts import contrast_name, contrasts_of
from ablation.coordinator.planning import outline_of
from ablation.errors import StudyFileError
from ablation.report import report_text
from ablation.study import Study, load_study, parse_study
from ablation.study.plan_json import plan_from_json, plan_to_json

TEXT = """
name: blocks
data: {data}
model: {{name: cnn, depth: 1, width: 4, dense: []}}
training: {{epochs: 1}}
factors:
  model.depth: [1, 2]
  model.normalization: [none, batch]
seeds: 2
{more}
"""
TWO = "[{name: digits}, {name: cifar10, label: photos}]"


def parse(data: str = TWO, more: str = "") -> Study:
    return parse_study(TEXT.format(data=data, more=more).encode(), source="s.yaml")


def said(data: str, more: str = "") -> str:
    with pytest.raises(StudyFileError) as caught:
        parse(data, more)
    return str(caught.value)


def contrasts(more: str) -> dict[str, dict[str, float]]:
    return {contrast_name(each): dict(each.weights) for each in contrasts_of(outline_of(parse(more=more)))}


class TestFile:
    @pytest.mark.parametrize(
        "design", ["factorial", "one-at-a-time", "leave-one-out", "add-one", "leave-one-out+add-one"]
    )
    def test_every_variant_of_a_design_is_on_every_data_set(self, design: str) -> None:
        alone, both = parse("{name: digits}", f"design: {design}"), parse(more=f"design: {design}")

        expected = [f"{variant.name},data={data}" for variant in alone.variants for data in ("digits", "photos")]
        assert expected == [variant.name for variant in both.variants]
        assert alone.questions == both.questions
        assert ["digits", "cifar10"] * len(alone.variants) == [each.settings.data.name for each in both.variants]

    def test_the_first_data_set_s_runs_are_those_of_a_study_of_it_alone(self) -> None:
        alone, both = parse("{name: digits}").runs(data_digest="d"), parse().runs(data_digest="d")

        assert {run.identity for run in alone} < {run.identity for run in both}

    @pytest.mark.parametrize(
        ("data", "more", "message"),
        [
            ("[{name: digits}]", "", "is a list of one data set; write it as a mapping"),
            ("[{name: digits}, {name: digits}]", "", "is the same data set as one before it; leave it out @ data[1]"),
            ("[{name: digits}, {name: digits, label: b, limit: null}]", "", "is the same data set as one before it"),
            ("[{name: digits}, {name: digits, limit: 9}]", "", "is called 'digits' as data[0] is; give each a `label`"),
            ("[{name: digits}, {name: 'd.py:l', task: regression}]", "", "all have one task @ data[1].task"),
            ("[{name: digits, validation: none}, {name: cifar10}]", "", "a validation split, or none"),
            ("[{name: digits}, {name: digitz}]", "", "did you mean 'digits'?"),
            ("[{name: digits}, {name: cifar10, limit: no}]", "", "@ data[1].limit"),
            ("[{name: digits}, 3]", "", "must be a mapping such as {name: digits} @ data[1]"),
            (TWO.replace("cifar10,", "cifar10, root: x,"), "replicates: {folds: 3}", "folds of several data sets"),
            (TWO, "design: listed\nvariants: {a: {data: photos}}", "'data' is not a factor of this study"),
            (TWO, "questions: [{effect: model.depth, at: {data: photo}}]", "'photo' is none of its levels"),
        ],
    )
    def test_what_no_question_could_be_averaged_over_is_refused(self, data: str, more: str, message: str) -> None:
        assert message in said(data, more)

    def test_a_factor_of_data_is_one_of_every_data_set(self) -> None:
        more = "questions: []"
        text = TEXT.replace("  model.depth", "  data.features: [all, few]\n  model.depth")

        def of(data: str) -> str:
            with pytest.raises(StudyFileError) as caught:
                parse_study(text.format(data=data, more=more).encode(), source="s.yaml")
            return str(caught.value)

        assert "data[1] has no features: a factor of data is one of every data set" in of(
            '[{name: "d.py:l", features: all}, {name: digits}]'
        )
        assert "the data sets have other values of features (all, few)" in of(
            '[{name: "d.py:l", features: all}, {name: "d.py:m", features: few}]'
        )


class TestQuestions:
    def test_differences_are_paired_on_each_data_set_and_averaged(self) -> None:
        found = contrasts("design: one-at-a-time")

        assert ["model.depth: 1 → 2", "model.normalization: none → batch"] == list(found)
        assert {
            "depth=2,data=digits": 0.5,
            "baseline,data=digits": -0.5,
            "depth=2,data=photos": 0.5,
            "baseline,data=photos": -0.5,
        } == found["model.depth: 1 → 2"]

    def test_a_question_can_be_asked_of_one_data_set_or_of_their_difference(self) -> None:
        questions = "[{effect: model.depth, at: {data: photos}}, {interaction: [data, model.depth]}, {effect: data}]"
        found = contrasts(f"design: one-at-a-time\nquestions: {questions}")

        assert {"depth=2,data=photos": 1.0, "baseline,data=photos": -1.0} == found["model.depth: 1 → 2, data = photos"]
        assert {"baseline,data=photos": 1.0, "baseline,data=digits": -1.0} == found["data: digits → photos"]
        assert {1.0, -1.0} == set(found["data: digits → photos × model.depth: 1 → 2"].values())

    def test_a_listed_variant_is_compared_on_each_data_set(self) -> None:
        found = contrasts("design: listed\nvariants: {deep: {model.depth: 2}}")

        assert {"deep,data=digits": 0.5, "baseline,data=digits": -0.5} == {
            name: weight for name, weight in found["variant: baseline → deep"].items() if name.endswith("digits")
        }


DATA = """
import numpy as np

def load(classes=2, features=6, count=90):
    draw = np.random.default_rng(classes)
    inputs = draw.standard_normal((count, features)).astype("float32")
    targets = np.argsort(np.argsort(inputs[:, 0])) * classes // count
    return {"train": (inputs[30:], targets[30:]), "test": (inputs[:30], targets[:30])}
"""
MODEL = """
from torch import nn

def dense(data_shape, width=8):
    return nn.Sequential(nn.Linear(data_shape.input_shape[0], width), nn.ReLU(), nn.Linear(width, data_shape.outputs))
"""
STUDY = """
name: two
data: [{name: "d.py:load", classes: 2, label: easy}, {name: "d.py:load", classes: 5, features: 3, label: hard}]
model: {name: "m.py:dense", width: 8}
training: {epochs: 6, batch_size: 8, learning_rate: 3e-2}
factors:
  model.width: [8, 2]
seeds: 2
"""


def test_a_study_of_two_data_sets_is_trained_and_told_by_data_set(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "d.py").write_text(DATA, encoding="utf-8")
    (tmp_path / "m.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "s.yaml").write_text(STUDY, encoding="utf-8")

    outcome = bench.run(load_study(tmp_path / "s.yaml"))

    plan = outcome.record.plan
    assert plan == plan_from_json(plan_to_json(plan))
    assert [2, 5] == [len(plan.data_of(f"width=2,data={name}").shape.classes) for name in ("easy", "hard")]
    (answer,) = outcome.analysis.answers
    metrics = bench.metrics(load_study(tmp_path / "s.yaml"))
    differences = [
        sum(
            metrics[f"width=2,data={name}/seed-{seed}"]["test_accuracy"]
            - metrics[f"width=8,data={name}/seed-{seed}"]["test_accuracy"]
            for name in ("easy", "hard")
        )
        / 2
        for seed in (0, 1)
    ]
    assert pytest.approx(sum(differences) / 2) == answer.effect.mean
    assert [{"data": "easy"}, {"data": "hard"}] == [dict(each.at) for each in answer.simple_effects]
    assert answer.crossed is None
    assert "Averaged over 2 data sets, in points: " in report_text(outcome.analysis, "markdown")
