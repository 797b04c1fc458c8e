"""A model that seeds itself, or loads its weights, is told: the spread over its seeds is not that of initialization."""

import json
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from factories import make_plan, make_runs

from ablation.analysis import analyse
from ablation.cli.tables import preview_json, preview_text
from ablation.preview import preview_study
from ablation.report import answers_text, report_text
from ablation.study import Study, load_study
from ablation.study.plan_json import plan_from_json, plan_to_json

NETS = """
import random
import numpy
import torch
from torch import nn

def seeded(width):
    torch.manual_seed(42)
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 10))

def drawn(width, fixed=False):
    if fixed:
        torch.manual_seed(42)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, width), nn.BatchNorm1d(width), nn.Linear(width, 10))

def constant(width):
    model = drawn(width)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    return model

WEIGHTS = torch.rand(1024, generator=torch.Generator().manual_seed(0)).repeat(16, 1)

def loaded(width):
    model = drawn(width)
    with torch.no_grad():
        model[1].weight.copy_(WEIGHTS[:width])
    return model

def by_numpy(width):
    model = constant(width)
    with torch.no_grad():
        model[3].bias += torch.from_numpy(numpy.random.rand(10)).float()
    return model

def by_python(width):
    model = constant(width)
    with torch.no_grad():
        model[3].bias += random.random()
    return model

made = constant(4)

def shared(width):
    return made
"""


def own(folder: Path, function: str, **changes: Any) -> Study:
    (folder / "nets.py").write_text(NETS)
    values = {
        "name": "starts",
        "data": {"name": "digits", "limit": 60, "validation": "none"},
        "model": {"name": f"nets.py:{function}", "width": 4},
        "training": {"epochs": 1, "batch_size": 16},
        "factors": {"model.width": [4, 8]},
        "seeds": 2,
        **changes,
    }
    (folder / "study.yaml").write_text(json.dumps(values))
    return load_study(folder / "study.yaml")


@pytest.mark.parametrize("function", ["seeded", "constant", "shared"])
def test_a_model_that_starts_alike_whatever_the_seed_is_told_in_the_plan(
    function: str, tmp_path: Path, bench: Bench
) -> None:
    preview = preview_study(own(tmp_path, function), state=bench.state, device=None)

    assert ("width=4", "width=8") == preview.same_starts
    assert ["width=4", "width=8"] == json.loads(preview_json(preview))["same_starts"]
    assert "The model starts from the same weights whatever the seed (width=4, width=8)" in preview_text(preview)


@pytest.mark.parametrize("function", ["drawn", "loaded", "by_numpy", "by_python"])
def test_a_model_of_which_anything_is_drawn_by_the_seed_is_not(function: str, tmp_path: Path, bench: Bench) -> None:
    preview = preview_study(own(tmp_path, function), state=bench.state, device=None)

    assert () == preview.same_starts
    assert "same weights" not in preview_text(preview)


def test_the_notes_the_record_and_the_report_say_that_initialization_is_not_drawn(tmp_path: Path, bench: Bench) -> None:
    outcome = bench.run(own(tmp_path, "seeded"))

    assert outcome.analysis is not None
    report = report_text(outcome.analysis, "markdown")
    said = "The model starts from the same weights whatever the seed (width=4, width=8)"
    assert any(note.startswith(said) for note in bench.notes)
    assert f"- {said}" in report
    assert "A seed draws data order, the same in every variant." in report
    assert said in answers_text(outcome.analysis).splitlines()[3]


def test_variants_that_alone_start_alike_are_named(tmp_path: Path, bench: Bench) -> None:
    model = {"name": "nets.py:drawn", "width": 4, "fixed": False}
    outcome = bench.run(own(tmp_path, "drawn", model=model, factors={"model.fixed": [False, True]}))

    assert outcome.analysis is not None
    assert "A seed draws initialization (not that of fixed=true) and data order" in report_text(
        outcome.analysis, "markdown"
    )


def test_tuned_variants_are_known_by_their_names_in_the_design(tmp_path: Path, bench: Bench) -> None:
    tune = {"training.learning_rate": {"log": [1e-3, 1e-2]}, "trials": 1, "also_untuned": True}
    data = {"name": "digits", "limit": 60, "validation": 0.2}

    outcome = bench.run(own(tmp_path, "seeded", tune=tune, data=data))

    assert outcome.analysis is not None
    assert ("data order", "validation split") == outcome.analysis.seed_varies


def test_a_plan_without_the_field_is_of_models_that_draw() -> None:
    plan = make_plan()
    document = json.loads(plan_to_json(plan))
    del document["same_starts"]

    analysis = analyse(plan_from_json(json.dumps(document)), make_runs(plan))

    assert ("initialization", "data order") == analysis.seed_varies
