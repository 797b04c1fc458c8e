"""A user's own model, parts and training function in a study: tried before it starts, identified, recorded."""

import json
import os
import re
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from click.testing import CliRunner
from mlflow.tracking import MlflowClient

from ablation import cli
from ablation.analysis import analyse, compare_variants
from ablation.cli.summary import comparison_text
from ablation.cli.tables import preview_json, preview_text
from ablation.errors import CodeChanged, CodeInvalid, NoModel, StudyChanged, StudyFileError, VariantFails, VariantsAlike
from ablation.preview import preview_study, study_components
from ablation.records import Layer, ModelSummary, Outcome
from ablation.report import report_text
from ablation.study import Override, Study, load_study
from ablation.tracking.interface import RunDescription

NETS = """
from torch import nn

def build(width, norm=True):
    layers = [nn.Flatten(), nn.Linear(1024, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10))

def seven(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 7))

def broken(width):
    if width > 4:
        raise RuntimeError("too wide for me")
    return build(width)
"""

LOOP = """
def train(settings, seed, report):
    chosen = settings["training"]
    for epoch in range(3):
        report(progress=epoch + chosen["bonus"])
    (report.folder / "notes.txt").write_text("kept")
    return {"score": chosen["bonus"] + seed % 7 / 100, "speed": 2.0}

def infinite(settings, seed, report):
    return {"score": float("nan")}

def tried(settings, seed, report, max_batches=None):
    if settings["training"]["bonus"] > 0.5 and max_batches == 1:
        raise RuntimeError("found before it starts")
    return {"score": 1.0, "speed": 1.0}
"""


LOGGING_ITSELF = """
import mlflow

calls = []


def train(settings, seed, report):
    calls.append(seed)
    mlflow.start_run(run_name="mine")
    mlflow.log_param("x", settings["training"]["x"])
    if len(calls) == 3:
        raise ValueError("no luck")
    return {"score": 0.5}
"""


def write(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "name": "own",
        "data": {"name": "digits", "limit": 60, "validation": "none"},
        "model": {"name": "nets.py:build", "width": 4},
        "training": {"epochs": 1, "batch_size": 16},
        "factors": {"model.width": [4, 8]},
        "seeds": 2,
        **changes,
    }
    (folder / "nets.py").write_text(NETS)
    (folder / "loop.py").write_text(LOOP)
    path = folder / "study.yaml"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def own(folder: Path, **changes: Any) -> Study:
    return load_study(write(folder, **changes))


def own_training(folder: Path, function: str = "train", **changes: Any) -> Study:
    fixed: dict[str, Any] = {
        "data": None,
        "model": None,
        "training": {"name": f"loop.py:{function}", "bonus": 0.25},
        "factors": {"training.bonus": [0.25, 0.75]},
        "metric": {"name": "score", "direction": "maximize", "meaningful": 0.1},
        "metrics": {"speed": "minimize"},
    }
    return own(folder, **{**fixed, **changes})


def test_a_model_of_the_users_is_trained_with_its_arguments_as_factors(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(own(tmp_path))

    assert {Outcome.DONE: 4} == outcome.ended
    assert [4158, 8306] == [summary.parameters for summary in outcome.record.plan.summaries.values()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "nets.py:seven", "width": 4}}, r"variant width=4 .*\(2, 7\) .* not logits \(2, 10\)"),
        ({"model": {"name": "nets.py:broken", "width": 4}}, r"variant width=8 .*too wide for me"),
        ({"model": {"name": "nets.py:build", "width": 4, "nrom": True}}, r"takes no argument 'nrom'.*@ model\.nrom"),
        ({"model": {"name": "nets.py:biuld", "width": 4}}, r"no 'biuld'.*@ model\.name"),
        (
            {"training": {"epochs": 1, "loss": "nets.py:build"}},
            r"variant width=4 .*nets\.py:build raised TypeError .*@ training\.loss",
        ),
    ],
)
def test_what_is_wrong_with_a_variant_is_said_before_anything_is_created(
    changes: dict[str, Any], message: str, bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises((VariantFails, CodeInvalid), match=f"(?s){message}"):
        bench.run(own(tmp_path, **changes))

    assert () == bench.tracker.study_names()


def test_the_bytes_of_the_code_are_part_of_a_runs_identity_and_its_place_is_not(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("here", "there", "edited")]
    for folder in folders:
        folder.mkdir()
    here, there, edited = (own(folder) for folder in folders)
    (folders[2] / "nets.py").write_text(NETS + "# another thought\n")

    identities = [[run.identity for run in study.runs(data_digest="d")] for study in (here, there, edited)]

    assert identities[0] == identities[1]
    assert set(identities[0]).isdisjoint(identities[2])


def test_a_run_is_not_trained_with_code_that_was_edited_after_it_was_planned(bench: Bench, tmp_path: Path) -> None:
    study = own(tmp_path, seeds=1)
    steps = bench.steps(study)
    while next(steps).note is not None:
        pass
    (tmp_path / "nets.py").write_text(NETS.replace("nn.ReLU()", "nn.Tanh()"))

    with pytest.raises(CodeChanged, match=r"nets\.py:build was changed while the study ran"):
        list(steps)

    (tmp_path / "nets.py").write_text(NETS)
    assert {Outcome.DONE: 2} == bench.run(study).ended


def test_a_study_with_results_is_not_mixed_with_other_code(bench: Bench, tmp_path: Path) -> None:
    bench.run(own(tmp_path, seeds=1))
    (tmp_path / "nets.py").write_text(NETS + "# another thought\n")

    with pytest.raises(StudyChanged, match=r"code of width=4: '\w{32}' -> '\w{32}'"):
        bench.run(load_study(tmp_path / "study.yaml"))

    assert {Outcome.DONE: 2} == bench.run(load_study(tmp_path / "study.yaml", name="edited")).ended


def test_parts_are_removed_and_the_plan_says_which(tmp_path: Path, bench: Bench) -> None:
    factors = {"norm": {"remove": ["2"]}, "activation": {"replace": {"3": "GELU"}}}
    study = own(tmp_path, factors=factors, design="leave-one-out")

    changes = {one.name: one.changes for one in preview_study(study, state=bench.state, device=None).variants}

    assert ("2",) == changes["norm=absent"].gone
    assert -8 == changes["norm=absent"].parameters
    assert (("3", "ReLU", "GELU"),) == changes["activation=replaced"].replaced
    assert {Outcome.DONE: 6} == bench.run(study).ended


def test_a_pattern_that_matches_nothing_is_told_with_the_factor_that_has_it(tmp_path: Path, bench: Bench) -> None:
    study = own(tmp_path, factors={"norm": {"remove": ["2"]}, "typo": {"remove": ["3x"]}}, design="leave-one-out")

    with pytest.raises(
        VariantFails, match=r"(?s)variant typo=absent .*no component '3x'.*@ model\.remove \(factors\.typo\)"
    ):
        bench.run(study)


def test_two_parts_that_name_the_same_modules_are_an_error_before_anything_trains(tmp_path: Path, bench: Bench) -> None:
    factors = {"norm": {"remove": ["2"]}, "again": {"remove": ["*2"]}}

    with pytest.raises(VariantsAlike, match="norm=absent and again=absent"):
        bench.run(own(tmp_path, factors=factors, design="leave-one-out"))


def test_a_module_may_be_replaced_by_one_layer_where_it_had_several(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "one.py").write_text("from torch import nn\n\ndef one(old):\n    return nn.Conv2d(2, 2, 1)\n")
    study = own(
        tmp_path,
        model={"name": "cnn", "depth": 1, "width": 2, "repeats": 1},
        factors={"repeat": {"replace": {"blocks.block1_repeat1": "one.py:one"}}},
    )

    changes = preview_study(study, state=bench.state, device=None).variants[1].changes

    assert ("blocks.block1_repeat1",) == changes.new


def test_the_plan_finds_what_the_study_would(tmp_path: Path, bench: Bench) -> None:
    study = own(tmp_path, model={"name": "nets.py:seven", "width": 4})

    with pytest.raises(VariantFails, match=r"not logits \(2, 10\)"):
        preview_study(study, state=bench.state, device=None)


def test_the_code_is_kept_beside_the_report_and_its_packages_with_the_runs(tmp_path: Path, bench: Bench) -> None:
    outcome = bench.run(own(tmp_path))
    runs = bench.tracker.recorded_runs(outcome.record)

    assert outcome.report is not None
    assert NETS == (outcome.report.parent / "own" / "code" / "nets.py").read_text()
    assert all("torch" in run.versions for run in runs)


def test_components_are_listed_with_what_can_be_removed(tmp_path: Path, data_cache: Path) -> None:
    write(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "data").symlink_to(data_cache)
    arguments = ["components", str(tmp_path / "study.yaml"), "--state-dir", str(tmp_path / "state")]

    listed = json.loads(CliRunner().invoke(cli.main, [*arguments, "--json"], catch_exceptions=False).stdout)
    text = CliRunner().invoke(cli.main, arguments, catch_exceptions=False).stdout

    assert [("1", False), ("2", True), ("3", True), ("4", False)] == [
        (one["name"], one["is_removable"]) for one in listed if one["name"] != "0"
    ]
    assert "no: it changes the shape, (1024) -> (4)" in text


def test_a_study_without_a_model_section_has_no_components(tmp_path: Path, bench: Bench) -> None:
    with pytest.raises(NoModel, match="no model"):
        study_components(own_training(tmp_path), state=bench.state)


def test_a_training_function_of_the_users_is_reported_on_metrics_of_its_own(
    tmp_path: Path, reporting_bench: Bench
) -> None:
    outcome = reporting_bench.run(own_training(tmp_path))

    assert {Outcome.DONE: 4} == outcome.ended
    assert outcome.analysis is not None
    assert ("score", 0.5) == (
        outcome.analysis.answers[0].metric.name,
        outcome.analysis.answers[0].differences[0].difference,
    )
    assert outcome.report is not None
    run = next(iter((reporting_bench.state.folder / "runs").iterdir()))
    assert "kept" == (run / "artifacts" / "files" / "notes.txt").read_text()
    assert 4 == len((run / "artifacts" / "curves.csv").read_text().splitlines())


def test_a_seed_gives_a_training_function_the_same_number_in_every_variant(tmp_path: Path, bench: Bench) -> None:
    bench.run(own_training(tmp_path))
    record = bench.tracker.find_study("own")
    assert record is not None

    scores = {run.planned.name: run.metrics["score"] for run in bench.tracker.recorded_runs(record)}

    assert 0.5 == pytest.approx(scores["bonus=0.75/seed-1"] - scores["bonus=0.25/seed-1"])


def test_a_run_whose_compared_metric_is_no_number_has_diverged(tmp_path: Path, bench: Bench) -> None:
    ended = bench.run(own_training(tmp_path, "infinite", metrics={}, seeds=1))

    assert {Outcome.DIVERGED: 2} == ended.ended


def test_a_training_function_is_tried_as_far_as_it_can_be(tmp_path: Path, bench: Bench) -> None:
    with pytest.raises(VariantFails, match=r"(?s)variant bonus=0\.75 .*found before it starts"):
        bench.run(own_training(tmp_path, "tried"))


def test_a_training_function_is_given_the_studys_data_where_it_asks_for_it(tmp_path: Path, bench: Bench) -> None:
    data = {"name": "digits", "limit": 60, "validation": 0.2}
    study = own_training(tmp_path, "sizes", data=data, metric={"name": "score", "direction": "maximize"}, metrics={})
    (tmp_path / "loop.py").write_text(
        textwrap.dedent("""
        def sizes(settings, seed, report, data):
            sizes = [len(part[1]) for part in (data.train, data.validation, data.test)]
            assert data.train[0].shape[1:] == (32, 32, 1) and len(data.classes) == 10
            return {"score": float(sizes == [48, 12, 355])}
        """)
    )

    outcome = bench.run(study)

    assert outcome.analysis is not None
    assert {Outcome.DONE: 4} == outcome.ended
    assert all(run.metrics["score"] == 1.0 for run in bench.tracker.recorded_runs(outcome.record))


def test_runs_that_a_training_function_starts_in_mlflow_are_its_own_and_end_with_it(
    bench: Bench, tmp_path: Path, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(store_uri)
    launched = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", store_uri)
    (tmp_path / "logging_itself.py").write_text(LOGGING_ITSELF)
    document = {
        "name": "logs",
        "training": {"name": "logging_itself.py:train", "x": 1},
        "factors": {"training.x": [1, 2]},
        "metric": {"name": "score", "direction": "maximize", "meaningful": 0.01},
        "seeds": 2,
    }
    (tmp_path / "logs.yaml").write_text(json.dumps(document))

    outcome = bench.run(load_study(tmp_path / "logs.yaml"))

    assert {Outcome.DONE: 3, Outcome.FAILED: 1} == outcome.ended
    runs = {run.info.run_id: run for run in client.search_runs(["0"])}
    assert {} == runs.pop(launched).data.params
    assert ["FAILED", "FINISHED", "FINISHED", "FINISHED"] == sorted(run.info.status for run in runs.values())
    assert launched == os.environ["MLFLOW_RUN_ID"]


READING = """
def reads(settings, seed, report):
    return {"score": settings["model"]["width"] + seed / 7, "speed": 1.0}

def gets(settings, seed, report):
    chosen = settings.get("model", {})
    return {"score": chosen["width"] + seed / 7, "speed": 1.0}

def hands_on(settings, seed, report):
    return reads(settings, seed, report)
"""
OWN_MODEL, BUILT_IN = {"name": "nets.py:build", "width": 4}, {"name": "cnn", "width": 4}
DIGITS = {"name": "digits", "limit": 60, "validation": "none"}


def own_reading(folder: Path, function: str, **changes: Any) -> Study:
    (folder / "reading.py").write_text(READING)
    training = {"name": function, "bonus": 0.25}
    return own_training(folder, **{"data": DIGITS, "model": OWN_MODEL, "training": training, **changes})


@pytest.mark.parametrize(
    ("factors", "model", "why"),
    [
        (
            {"model.width": [4, 8]},
            OWN_MODEL,
            "loop.py:train reads no settings['model']; have the function take `model`, which is that model, built; or",
        ),
        ({"model.width": [4, 8]}, BUILT_IN, "is given no model, and loop.py:train reads no settings['model']"),
        ({"model.width": [32, 8]}, None, "such as training.width"),
        ({"norm": {"remove": ["1"]}}, OWN_MODEL, "is given no model, so nothing is removed or replaced in one"),
        ({"norm": {"replace": {"1": "GELU"}}}, OWN_MODEL, "such as training.norm"),
        ({"data.augmentation": ["none", "flip"]}, None, "is given the images as they are"),
        ({"data.limit": [60, 30]}, None, "loop.py:train does not, nor reads settings['data']"),
        ({"model.name": ["nets.py:build", "nets.py:seven"]}, OWN_MODEL, "such as training.model"),
    ],
    ids=["own model", "built-in model", "no model", "part removed", "part replaced", "augmentation", "limit", "name"],
)
def test_a_factor_that_a_training_function_cannot_read_is_refused_with_its_line(
    factors: dict[str, Any], model: dict[str, Any] | None, why: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError) as caught:
        own_training(tmp_path, data=DIGITS, model=model, factors=factors)

    (problem,) = caught.value.problems
    assert problem.message.startswith("nothing reads this factor: a training function of your own ")
    assert why in problem.message
    assert problem.line is not None


@pytest.mark.parametrize("function", ["reading.py:reads", "reading.py:gets", "reading.py:hands_on"])
def test_the_models_settings_are_factors_of_a_function_that_may_read_them(function: str, tmp_path: Path) -> None:
    study = own_reading(tmp_path, function, factors={"model.width": [4, 8]})

    assert [4, 8] == [variant.settings.model.arguments["width"] for variant in study.variants]


def test_the_data_are_factors_of_a_function_that_is_given_them(tmp_path: Path) -> None:
    (tmp_path / "reading.py").write_text("def train(settings, seed, report, data):\n    return {}\n")

    study = own_training(tmp_path, data=DIGITS, training={"name": "reading.py:train"}, factors={"data.limit": [60, 30]})

    assert [60, 30] == [variant.settings.data.limit for variant in study.variants]


def test_a_built_in_models_settings_are_factors_of_a_function_that_reads_them(tmp_path: Path) -> None:
    study = own_reading(tmp_path, "reading.py:reads", model=BUILT_IN, factors={"model.width": [4, 8]})
    renamed = load_study(tmp_path / "study.yaml", overrides=[Override(path="model.depth", value=2)])

    assert [4, 8] == [variant.settings.model.arguments["width"] for variant in study.variants]
    assert "own+model.depth=2" == renamed.name


def test_nothing_is_said_of_a_model_that_nobody_trained(tmp_path: Path, reporting_bench: Bench) -> None:
    study = own_reading(tmp_path, "reading.py:reads", factors={"model.width": [4, 8]})

    preview = preview_study(study, state=reporting_bench.state, device=None)
    outcome = reporting_bench.run(study)

    assert outcome.analysis is not None
    assert outcome.report is not None
    text = (outcome.report / "report.md").read_text()
    shown = json.loads(preview_json(preview))["variants"]
    assert [(None, None), (None, None)] == [(one["parameters"], one["flops"]) for one in shown]
    assert not re.search(r"parameters|FLOPs", preview_text(preview) + text)
    assert {} == RunDescription.of(outcome.record.plan.runs[0], outcome.record.plan).size


def test_a_plan_of_an_earlier_version_shows_no_model_that_nobody_trained(tmp_path: Path, bench: Bench) -> None:
    record = bench.run(own_reading(tmp_path, "reading.py:reads", factors={"model.width": [4, 8]})).record
    layer = Layer(name="0", type="Linear", parameters=10, output_shape=(4,))
    measured = ModelSummary(parameters=10, flops=20, layers=(layer,))
    old = replace(record.plan, summaries=dict.fromkeys(record.plan.summaries, measured))
    runs = bench.tracker.recorded_runs(record)

    analysis = analyse(old, runs)
    comparison = compare_variants(old, runs, "width=4", "width=8")

    assert [0, 0] == [row.parameters for row in analysis.variants]
    assert () == analysis.layers
    assert (0, 0) == comparison.parameters
    assert "parameters" not in comparison_text(comparison)
    assert not re.search(r"parameters|FLOPs", report_text(analysis, "markdown"))
