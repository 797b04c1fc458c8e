"""Training functions of one's own that take the study's model: built, measured and changed as the engine's is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Bench

from ablation.cli.tables import preview_json
from ablation.datasets import prepare
from ablation.errors import StudyFileError, VariantFails
from ablation.preview import preview_study, study_components
from ablation.records import Outcome, PlannedRun
from ablation.report import report_text
from ablation.storage.run_folder import RunFolder
from ablation.study import Study, load_study
from ablation.tracking.interface import RunDescription
from ablation.worker.run import Job, RunRecord

LOOP = """
import torch
from torch import nn


def train(model, data, device, learning_rate, report, seed, steps=2, max_batches=None):
    assert isinstance(device, torch.device) and next(model.parameters()).device == device
    torch.save(model.state_dict(), report.folder / "begun.pt")
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    inputs, targets = (torch.from_numpy(part[:32]) for part in data.train)
    inputs = inputs.permute(0, 3, 1, 2) / 255
    for _ in range(max_batches or steps):
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(train_loss=loss.item())
    name = f"{report.study}/{report.variant}/{report.seed_index}"
    (report.folder / "name.txt").write_text(name)
    return {"loss": loss.item(), "drawn": torch.rand(()).item()}


class Loop:
    def __call__(self, data, learning_rate):
        return {"loss": learning_rate}


untold = Loop()
"""
NETS = """
import torch
from torch import nn


def build(width, data_shape):
    layers = [nn.Flatten(), nn.Linear(1024, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, data_shape.outputs))


def alike(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, width), nn.Linear(width, 10))
"""


def write(folder: Path, **changes: Any) -> Path:
    (folder / "loop.py").write_text(LOOP)
    (folder / "nets.py").write_text(NETS)
    values: dict[str, Any] = {
        "name": "loops",
        "data": {"name": "digits", "limit": 60, "validation": "none"},
        "model": {"name": "nets.py:build", "width": 4},
        "training": {"name": "loop.py:train", "learning_rate": 0.1},
        "factors": {"model.width": [4, 8]},
        "metric": {"name": "loss", "direction": "minimize", "meaningful": 0.1},
        "seeds": 1,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return path


def own(folder: Path, **changes: Any) -> Study:
    return load_study(write(folder, **changes))


PARTS = {"norm": {"remove": ["2"]}, "activation": {"replace": {"3": "GELU"}}}


def test_parts_of_a_model_that_a_loop_takes_are_removed_measured_and_reported(tmp_path: Path, bench: Bench) -> None:
    study = own(tmp_path, factors=PARTS, design="leave-one-out")
    preview = preview_study(study, state=bench.state, device=None)
    shown = {one["name"]: one["parameters"] for one in json.loads(preview_json(preview))["variants"]}

    outcome = bench.run(study)

    assert {"full": 4158, "norm=absent": 4150, "activation=replaced": 4158} == shown
    assert {Outcome.DONE: 3} == outcome.ended
    plan = outcome.record.plan
    assert 4150 == RunDescription.of(plan.runs[1], plan).size["parameters"]
    assert outcome.analysis is not None
    assert [4158, 4150, 4158] == [row.parameters for row in outcome.analysis.variants]
    assert re.search(r"4,150", report_text(outcome.analysis, "markdown"))


def test_a_loop_is_given_the_model_as_the_engine_begins_it_and_streams_that_do_not_depend_on_it(
    tmp_path: Path, bench: Bench, data_cache: Path
) -> None:
    outcome = bench.run(own(tmp_path))
    plan, folders = outcome.record.plan, sorted((bench.state.folder / "runs").iterdir())
    engine = load_study(write(tmp_path, training={"epochs": 1}, metric=None))

    for variant in engine.variants:
        planned = PlannedRun(identity="a", variant=variant.name, seed=0)
        folder = RunFolder(path=tmp_path / variant.name)
        assert variant.settings.data is not None
        data = prepare(variant.settings.data, cache=data_cache, code=engine.code).folder
        job = Job(
            planned=planned,
            settings=variant.settings,
            heldout_split="test",
            data_folder=data,
            folder=folder,
            device="cpu",
            code=engine.code,
        )
        begun = RunRecord(job).begin().member.model.state_dict()
        (identity,) = [run.identity for run in plan.runs if run.variant == variant.name]
        (mine,) = [path for path in folders if path.name == identity]
        kept = torch.load(mine / "artifacts" / "files" / "begun.pt", weights_only=True)
        assert begun.keys() == kept.keys()
        assert all(torch.equal(begun[name], kept[name]) for name in begun)
        assert f"loops/{variant.name}/0" == (mine / "artifacts" / "files" / "name.txt").read_text()
    drawn = {run.metrics["drawn"] for run in bench.tracker.recorded_runs(outcome.record)}
    assert 1 == len(drawn)


def test_a_model_that_starts_alike_with_every_seed_is_told_of_a_loop_too(tmp_path: Path, bench: Bench) -> None:
    study = own(tmp_path, model={"name": "nets.py:alike", "width": 4})

    assert ("width=4", "width=8") == preview_study(study, state=bench.state, device=None).same_starts


def test_the_components_of_a_model_that_a_loop_takes_are_listed(tmp_path: Path, bench: Bench) -> None:
    assert "2" in [component.name for component in study_components(own(tmp_path), state=bench.state)]


@pytest.mark.parametrize(
    ("changes", "path", "said"),
    [
        ({"data": None}, "data", "is missing, and loop.py:train takes `data`; for example `data: {name: digits}`"),
        ({"model": None, "factors": {"training.learning_rate": [0.1, 1.0]}}, "model", "loop.py:train takes `model`"),
        (
            {"training": {"name": "loop.py:train", "learning_rate": 0.1, "step": 3}},
            "training.step",
            "nothing reads this key: loop.py:train has no parameter 'step'; it takes learning_rate, steps; did you",
        ),
        (
            {"training": {"name": "loop.py:train", "learnig_rate": 0.1}},
            "training.learning_rate",
            "needs `learning_rate`, and nothing gives it: add `learning_rate: …` to training, or give it a default",
        ),
    ],
    ids=["no data", "no model", "unread key", "misspelt key"],
)
def test_a_study_file_that_a_loop_cannot_be_called_with_is_refused_by_its_key(
    changes: dict[str, Any], path: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError) as caught:
        own(tmp_path, **changes)

    assert [said in problem.message for problem in caught.value.problems if problem.path == path] == [True]


def test_what_a_source_does_not_tell_is_refused_before_anything_trains(tmp_path: Path, bench: Bench) -> None:
    training = {"name": "loop.py:untold", "learning_rate": 0.1}
    parts = own(tmp_path, training=training, factors=PARTS, design="leave-one-out")
    key = own(tmp_path, training={**training, "unread": 1}, factors={"training.learning_rate": [0.1, 1]}, model=None)

    with pytest.raises(VariantFails, match=r"loop\.py:untold takes no `model`, so nothing is removed or replaced"):
        bench.run(parts)
    with pytest.raises(VariantFails, match=r"nothing reads this key: loop\.py:untold has no parameter 'unread'"):
        bench.run(key)


def test_a_function_of_numbers_alone_is_a_study(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "plain.py").write_text(
        "def train(learning_rate=1e-3, hidden=64, seed=0):\n    return {'rmse': learning_rate * hidden + seed % 7}\n"
    )
    study = own(
        tmp_path,
        data=None,
        model=None,
        training={"name": "plain.py:train", "learning_rate": 0.5},
        factors={"training.learning_rate": [0.5, 0.25]},
        metric={"name": "rmse", "direction": "minimize"},
        seeds=2,
    )

    outcome = bench.run(study)

    assert outcome.analysis is not None
    assert [-16.0, -16.0] == [each.difference for each in outcome.analysis.answers[0].differences]
