"""The study that trouble is made for on a cluster: four runs of seconds, and what they come to undisturbed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench import Bench
from checks import Training, trained_in
from conftest import answer_alone

from ablation.study import Override, load_study

STUDY = "nodes"
SEEDS = 2
EPOCHS = 25
PAUSE = "PAUSE_S"
"""In the environment: how long a training waits in each step, so that many can be at work on few cores."""
FILES = {
    "nodes.yaml": f"""
name: {STUDY}
data: {{name: digits, limit: 64, validation: none}}
model: {{name: "own.py:build", normalized: false}}
training: {{epochs: {EPOCHS}, batch_size: 32}}
factors:
  model.normalized: [false, true]
seeds: {SEEDS}
""",
    "own.py": f"""
import os
import time

from torch import nn


class Waiting(nn.Module):
    def forward(self, features):
        if self.training:
            time.sleep(float(os.environ.get("{PAUSE}", "0")))
        return features


def build(normalized, data_shape):
    norm = nn.BatchNorm2d(4) if normalized else nn.Identity()
    stem = nn.Conv2d(data_shape.channels, 4, kernel_size=3, stride=2)
    return nn.Sequential(stem, norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(len(data_shape.classes)), Waiting())
""",
}
TIMED = ("curves.csv",)
"""Artifacts with times in them; what else is in these, is compared as what a training measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What the study comes to on this machine alone, by identity: measurements, and digests of files by their names."""

    trainings: Mapping[str, Training]
    files: Mapping[str, Mapping[str, str]]


def alone(folder: Path, data_cache: Path, *, seeds: int = SEEDS) -> Alone:
    """Run the study in this process."""
    source = write_study(folder / "source")
    study = load_study(source, overrides=[Override(path="seeds", value=seeds)])
    bench = Bench(folder / "state", data_cache)
    with pytest.MonkeyPatch.context() as patch:
        answer_alone(patch)
        bench.run(study)
    return Alone(trainings=trained_in(bench.state.folder), files=files_in(bench.state.folder))


def write_study(folder: Path) -> Path:
    """Write the study's file, which is returned, and its model's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder / "nodes.yaml"


def files_in(state: Path) -> dict[str, dict[str, str]]:
    """Return the digests of what each run left: answers, logits, the model's state; not of pictures."""
    return {run.name: _digests(run / "artifacts") for run in sorted((state / "runs").glob("*"))}


def _digests(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in found if path.name not in TIMED and path.suffix != ".png"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}
