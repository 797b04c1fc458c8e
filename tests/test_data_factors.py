"""Arguments of a data function are factors: each level's data is read once, and its runs are of that data alone."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bench import Bench, Jobs

from ablation.api.trained import trained_model
from ablation.cli.tables import preview_json, preview_text
from ablation.coordinator.data import prepare_data
from ablation.coordinator.planning import plan_of
from ablation.datasets import make_split
from ablation.errors import DataIncomparable, StudyChanged, StudyFileError
from ablation.preview import preview_study
from ablation.report import report_text
from ablation.study import Study, load_study
from ablation.study.plan_json import plan_from_json, plan_to_json

DATA = '''
from pathlib import Path

import numpy as np

def load(features="all", keep=60, order=1, shift="none"):
    """Return 60 and 30 examples of six features, or of the first three; `few.txt` is added to these."""
    draw = np.random.default_rng(0)
    inputs = draw.standard_normal((90, 6)).astype("float32")
    targets = (inputs[:, 0] > 0).astype(int)
    if features == "few":
        inputs = inputs[:, :3] + float(Path(__file__).with_name("few.txt").read_text())
    test = {"none": targets, "flip": 1 - targets}[shift][60:][::order]
    return {"train": (inputs[:keep], targets[:keep]), "test": (inputs[60:][::order], test)}
'''
MODEL = """
from torch import nn

def dense(data_shape, width=4):
    return nn.Sequential(nn.Linear(data_shape.input_shape[0], width), nn.ReLU(), nn.Linear(width, data_shape.outputs))
"""
TEXT = """
name: groups
data: {{name: "d.py:load", validation: 0.2, features: all, keep: 60, order: 1, shift: none}}
model: {{name: "m.py:dense", width: 4}}
training: {{epochs: 2, batch_size: 16, learning_rate: 3e-2}}
factors:
  {factors}
seeds: 2
"""


Make = Callable[..., Study]


@pytest.fixture
def study(tmp_path: Path) -> Make:
    """Write a study with these factors, and read it."""
    (tmp_path / "d.py").write_text(DATA, encoding="utf-8")
    (tmp_path / "m.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "few.txt").write_text("0.0")
    path = tmp_path / "study.yaml"

    def made(factors: str = "data.features: [all, few]", text: str = TEXT) -> Study:
        path.write_text(text.format(factors=factors), encoding="utf-8")
        return load_study(path)

    return made


def said(made: Callable[[], object]) -> str:
    with pytest.raises(StudyFileError) as caught:
        made()
    return str(caught.value)


class TestFile:
    def test_an_argument_of_a_data_function_is_a_factor(self, study: Make) -> None:
        found = study("data.features: [all, few]\n  data.keep: [60, 40]")

        levels = [
            (each.settings.data.arguments["features"], each.settings.data.arguments["keep"]) for each in found.variants
        ]
        assert [("all", 60), ("all", 40), ("few", 60), ("few", 40)] == levels

    def test_sections_that_read_the_same_share_a_source(self, study: Make) -> None:
        text = TEXT.replace("keep", "limit: 50, keep")

        found = study("data.features: [all, few]\n  data.limit: [50, 40]", text)

        assert 2 == len({variant.settings.data.source for variant in found.variants})

    @pytest.mark.parametrize(
        ("factors", "message"),
        [
            ("data.drop: [1, 2]", "the baseline's level is missing: add `drop: …` to data"),
            ("data.root: [a, b]", "name several as a list"),
            ("data.name: [a.py:b, c.py:d]", "name several as a list"),
            ("data.validation: [0.1, 0.2]", "all variants have the same validation split"),
            ("data.task: [classification, regression]", "all variants have the same kind of target"),
            ("data.features: [few, many]", "the baseline's level 'all' is missing"),
        ],
    )
    def test_what_of_the_data_cannot_vary_says_why(self, study: Make, factors: str, message: str) -> None:
        assert message in said(lambda: study(factors))

    def test_arguments_of_data_are_not_tuned(self, study: Make) -> None:
        text = TEXT + "tune: {{data.keep: [60, 40], trials: 2}}\n"

        assert "data.keep makes other data" in said(lambda: study("data.features: [all, few]", text))


class TestData:
    def test_each_level_is_read_once_and_splits_alike(self, study: Make, bench: Bench) -> None:
        found = study("data.features: [all, few]\n  model.width: [4, 2]")

        datasets = prepare_data(found, bench.state)

        assert 2 == len(datasets)
        sections = {variant.settings.data.source: variant.settings.data for variant in found.variants}
        splits = [make_split(datasets[source], each, study_seed=0, seed=1) for source, each in sections.items()]
        assert np.array_equal(splits[0].train, splits[1].train)
        assert np.array_equal(splits[0].validation, splits[1].validation)

    @pytest.mark.parametrize(
        ("factors", "message"),
        [
            ("data.shift: [none, flip]", "data.shift flip cannot be compared: its test targets are not those"),
            ("data.order: [1, -1]", "data.order -1 cannot be compared: its test targets are not those"),
            ("data.order: [1, 2]", "it has 15 test examples, and the baseline's data 30"),
        ],
    )
    def test_other_test_targets_are_refused_when_planned_and_when_run(
        self, study: Make, bench: Bench, factors: str, message: str
    ) -> None:
        for call in (lambda each: preview_study(each, state=bench.state, device=None), bench.run):
            with pytest.raises(DataIncomparable, match=message):
                call(study(factors))

    def test_levels_that_give_the_same_data_are_refused(self, study: Make, bench: Bench, tmp_path: Path) -> None:
        study("data.keep: [60, 90]")
        (tmp_path / "d.py").write_text(DATA.replace("[:keep]", "[:60]"), encoding="utf-8")

        with pytest.raises(DataIncomparable, match=r"data\.keep 90 gives the same data as data\.keep 60"):
            bench.run(load_study(tmp_path / "study.yaml"))

    def test_other_training_examples_are_said(self, study: Make, bench: Bench) -> None:
        found = preview_study(study("data.keep: [60, 40]"), state=bench.state, device=None)

        (note,) = [note for note in found.notes if "data.keep 40" in note]
        assert "40 training examples, the baseline's data 60" in note

    def test_a_plan_shows_each_level_s_data_and_model(self, study: Make, bench: Bench) -> None:
        found = preview_study(study(), state=bench.state, device=None)

        assert (
            "data.features few: 48 examples to train on, 12 for validation and 30 to test; 2 classes, 3"
            in preview_text(found)
        )
        assert [[6], [3]] == [[found.data.shape.features[0]], list(found.other_data[0].data.shape.features)]
        assert [38, 26] == [variant.size.parameters for variant in found.variants]
        (other,) = json.loads(preview_json(found))["data"]["others"]
        assert ("data.features few", [3]) == (other["name"], other["input_shape"])


class TestRuns:
    def test_runs_of_a_level_are_those_of_a_study_that_has_it_throughout(
        self, study: Make, bench: Bench, tmp_path: Path
    ) -> None:
        both = study("data.features: [all, few]\n  model.width: [4, 2]")
        outcome = bench.run(both)

        alone = study("model.width: [4, 2]", TEXT.replace("features: all", "features: few").replace("groups", "alone"))
        bench.run(alone)

        plan = outcome.record.plan
        (other,) = plan.other_data
        assert {"features=few,width=4", "features=few,width=2"} == set(other.variants)
        few = {run.identity: run.name for run in plan.runs if run.variant in other.variants}
        assert len(few) == 4
        assert few.keys() == {run.identity for run in bench.tracker.find_study("alone").plan.runs}
        metrics = bench.metrics(both)
        for name, values in bench.metrics(alone).items():
            assert values == metrics[f"features=few,{name}"]
        report = report_text(outcome.analysis, "markdown")
        assert "- Data of data.features few: 60 training and 30 test examples" in report
        assert plan == plan_from_json(plan_to_json(plan))

    def test_a_model_is_given_back_for_the_data_of_its_variant(self, study: Make, bench: Bench, tmp_path: Path) -> None:
        record = bench.run(study()).record

        model = trained_model(record, bench.tracker, variant="features=few", seed=0, trusted=tmp_path)

        assert (1, 2) == model(torch.zeros(1, 3)).shape

    def test_changed_data_of_a_level_names_the_level(self, study: Make, bench: Bench, tmp_path: Path) -> None:
        found = study()
        bench.run(found)
        (tmp_path / "few.txt").write_text("1.0")
        (tmp_path / "d.py").write_text(DATA, encoding="utf-8")
        for record in (bench.state.data / "sources").glob("*.json"):
            record.unlink()

        with pytest.raises(StudyChanged, match=r"data \(data\.features few\)"):
            bench.run(study())

    def test_a_job_is_given_the_data_of_its_variant_alone(self, study: Make, bench: Bench) -> None:
        jobs = bench.executor = Jobs()

        bench.run(study())

        folders = {job.planned.variant: job.data_folder for job in jobs.given}
        assert 2 == len(set(folders.values()))

    def test_plans_of_one_data_set_are_written_as_before(self, study: Make, bench: Bench) -> None:
        found = study("model.width: [4, 2]")
        facts = next(iter(prepare_data(found, bench.state).values())).facts

        assert "other_data" not in json.loads(plan_to_json(plan_of(found, data=facts)))


FOLDED = """
import numpy as np

def load(scale, by):
    inputs = np.arange(180, dtype=np.float32).reshape(60, 3)
    return {"train": (inputs * scale, np.arange(60) % 3), "groups": np.arange(60) // by}
"""
FOLDED_TEXT = """
name: folded
data: {name: "folded.py:load", scale: 1, by: 5}
model: {name: "m.py:dense"}
factors: {FACTOR}
replicates: {folds: 3}
"""


def folded(tmp_path: Path, factor: str) -> Study:
    (tmp_path / "folded.py").write_text(FOLDED)
    (tmp_path / "m.py").write_text(MODEL)
    (tmp_path / "folded.yaml").write_text(FOLDED_TEXT.replace("FACTOR", factor))
    return load_study(tmp_path / "folded.yaml")


def test_levels_of_data_with_other_groups_have_other_folds_and_are_refused(tmp_path: Path, bench: Bench) -> None:
    study = folded(tmp_path, "data.by: [5, 4]")

    for call in (
        lambda: preview_study(study, state=bench.state, device=None),
        lambda: prepare_data(study, bench.state),
    ):
        with pytest.raises(DataIncomparable, match=r"data\.by 4 cannot be compared: its groups are not those"):
            call()


def test_the_plan_counts_the_folds_of_each_level_of_data(tmp_path: Path, bench: Bench) -> None:
    found = preview_study(folded(tmp_path, "data.scale: [1, 2]"), state=bench.state, device=None)

    assert found.other_data[0].splits == found.splits
    assert 20 == found.other_data[0].splits.test
