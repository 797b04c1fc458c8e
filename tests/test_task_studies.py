"""A study of each task from its file to its report: planned, trained by the engine, recorded, judged, written."""

from pathlib import Path

import pytest
from bench import Bench

from ablation.records import DETAILS, TASKS, Outcome
from ablation.report import report_text
from ablation.study import load_study

DATA = '''
import numpy as np

def load(kind="regression", seed=0):
    """Return 60 and 30 examples whose targets depend on their inputs, in the form of a task's targets."""
    def part(count, seed):
        draw = np.random.default_rng(seed)
        floats = draw.standard_normal((count, 6)).astype("float32")
        ids = draw.integers(0, 5, (count, 8))
        pixels = draw.standard_normal((count, 1, 8, 8)).astype("float32")
        return {
            "classification": (floats, (floats[:, 0] > 0).astype(int)),
            "regression": (floats, 50 + 20 * floats[:, 0]),
            "multilabel": (floats, (floats[:, :3] > 0).astype(int)),
            "tokens": (ids, np.roll(ids, 1, axis=1)),
            "segmentation": (pixels, (pixels[:, 0] > 0).astype(int)),
        }[kind]
    return {"train": part(60, seed), "test": part(30, seed + 1)}
'''
MODEL = '''
import math

import torch
from torch import nn

class Positions(nn.Module):
    """Gives logits (B, T, K) of whole numbers (B, T)."""
    def __init__(self, classes, width):
        super().__init__()
        self.embedding, self.output = nn.Embedding(5, width), nn.Linear(width, classes)

    def forward(self, ids):
        return self.output(torch.relu(self.embedding(ids)))

def dense(width, data_shape):
    size = math.prod(data_shape.input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, data_shape.outputs))

def positions(width, data_shape):
    return Positions(data_shape.outputs, width)

def pixels(width, data_shape):
    first = nn.Conv2d(data_shape.input_shape[0], width, 1)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, data_shape.outputs, 1))
'''
BUILDERS = {
    "classification": "dense",
    "regression": "dense",
    "multilabel": "dense",
    "tokens": "positions",
    "segmentation": "pixels",
}


def study_of(task: str, folder: Path) -> Path:
    (folder / "d.py").write_text(DATA, encoding="utf-8")
    (folder / "m.py").write_text(MODEL, encoding="utf-8")
    path = folder / "study.yaml"
    metric = TASKS[task].default_metric
    path.write_text(
        f"""
name: {task}
data: {{name: "d.py:load", task: {task}, kind: {task}}}
model: {{name: "m.py:{BUILDERS[task]}", width: 8}}
training: {{epochs: 5, batch_size: 8, optimizer: adam, learning_rate: 3e-2}}
factors:
  model.width: [8, 4]
seeds: 2
metric: {{name: {metric}, direction: {TASKS[task].metrics[metric].direction}}}
""",
        encoding="utf-8",
    )
    return path


def test_every_task_has_a_study_here():
    assert BUILDERS.keys() == TASKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_study_of_every_task_is_trained_judged_and_reported_without_a_gap(task: str, bench: Bench, tmp_path: Path):
    study = load_study(study_of(task, tmp_path))

    outcome = bench.run(study)

    analysis = outcome.analysis
    assert analysis is not None
    assert outcome.ended == {Outcome.DONE: 4}
    assert analysis.data.task == task
    assert analysis.diagnostics.damaged == ()
    assert analysis.answers[0].effect is not None
    assert {metric.name for metric in analysis.metrics} == set(TASKS[task].metrics)
    assert DETAILS[task].keys() == {each.name for each in analysis.details}
    assert analysis.curves[0].median[f"validation_{TASKS[task].score}"]
    assert "nan" not in report_text(analysis, "markdown").lower().split()
