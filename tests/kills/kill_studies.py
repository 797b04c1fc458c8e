"""The studies that are killed: four small ones, each in a folder of its own, and what they come to undisturbed."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conftest import command_environment
from kill_injection import Kill, Orders
from kill_starting import SEARCHED, Starter
from sparing import RECORDED_BESIDE

Executor = Literal["inline", "processes"]
Reading = Literal["status", "summarize"]

DIGITS = """
name: NAME
data: {name: digits, limit: 60, validation: VALIDATION}
model: {name: cnn, depth: 1, width: 2, dense: [8], normalization: none}
training: {epochs: 2, batch_size: 16}
factors:
  model.normalization: [none, batch]
seeds: 2
"""
TUNE = """
tune: {training.learning_rate: {log: [1e-4, 1e-1]}, trials: 2, seeds: 2}
"""
OWN = """
name: NAME
training: {name: "own.py:train", rate: 0.1}
factors:
  training.rate: [0.1, 0.2]
seeds: 3
metric: {name: distance, direction: minimize, meaningful: 0.01}
"""
OWN_CODE = '''
def train(settings, seed, report):
    """Report and return one metric of one name, with different values, and leave files."""
    distance = 1.0 + seed % 1000 / 1e4
    for epoch in range(3):
        distance *= 1.0 - settings["training"]["rate"]
        report(distance=distance, progress=epoch / 3)
        (report.folder / f"epoch-{epoch}.txt").write_text(f"{distance}\\n" * 2000)
    return {"distance": distance * 1.5, "size": 3.0}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of study, and what runs it; a `new` one makes the database and the data set that others find there.

    With worker processes there is one that records, too; else a thread of the coordinator's does.
    """

    name: Literal["built-in", "own", "tuned", "new"]
    executor: Executor

    @property
    def text(self) -> str:
        if self.name == "own":
            return OWN.replace("NAME", self.name)
        validation = "0.2" if self.name == "tuned" else "none"
        study = DIGITS.replace("NAME", self.name).replace("VALIDATION", validation)
        return study + TUNE * (self.name == "tuned")

    @property
    def metric(self) -> str:
        return "distance" if self.name == "own" else "test_accuracy"

    def __str__(self) -> str:
        return f"{self.name}, {self.executor}"


KINDS = tuple(
    Kind(name=name, executor=executor)
    for executor in ("inline", "processes")
    for name in ("built-in", "own", "tuned", "new")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What studies have in common: prepared data, an MLflow database with its tables alone, what starts commands."""

    data: Path
    store: Path
    starter: Starter


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A study's own folder, and one beside it for what is to be known of its commands."""

    kind: Kind
    folder: Path
    control: Path
    environment: dict[str, str]
    starter: Starter

    @classmethod
    def make(cls, above: Path, kind: Kind, shared: Shared) -> "Place":
        folder, control = above / "study", above / "control"
        for path in (folder, control, folder / "tmp"):
            path.mkdir(parents=True)
        environment = command_environment(folder, shared.data)
        (folder / "tiny.yaml").unlink()
        (folder / "study.yaml").write_text(kind.text)
        if kind.name == "own":
            (folder / "own.py").write_text(OWN_CODE)
        if kind.name == "new":
            (folder / "state" / "data").unlink()
        else:
            shutil.copy(shared.store, folder / "mlflow.db")
        if kind.executor == "processes":
            environment[RECORDED_BESIDE] = "yes"
        environment |= {"PYTHONPATH": os.pathsep.join(map(str, SEARCHED)), "TMPDIR": str(folder / "tmp")}
        return cls(kind=kind, folder=folder, control=control, environment=environment, starter=shared.starter)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    @property
    def address(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def study_command(self) -> list[str]:
        executor = ["--executor", self.kind.executor, *(["--workers", "2"] * (self.kind.executor == "processes"))]
        return ["-m", "ablation", "study", "study.yaml", *executor]

    def reading_command(self, name: Reading) -> list[str]:
        return ["-m", "ablation", name, self.kind.name]

    def ordered(self, kills: list[Kill], control: Path) -> dict[str, str]:
        """Return the environment of a command that is watched, and killed there."""
        orders = Orders(kills=kills, below=self.folder, control=control)
        return {**self.environment, "KILLS": orders.to_json()}


def empty_store(path: Path) -> None:
    """Make an MLflow database with its tables and nothing else."""
    from ablation.tracking import open_mlflow

    tracker = open_mlflow(f"sqlite:///{path}")
    path.touch()
    assert tracker.study_names() == ()
