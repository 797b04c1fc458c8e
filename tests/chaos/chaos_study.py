"""The study that trouble is made for: twenty runs, four variants of five seeds, on the handwritten digits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import Bench
from checks import Training, trained_in
from conftest import command_environment
from forking import Starter
from sparing import RECORDED_BESIDE
from targets import Command

from ablation.study import parse_study

STUDY = "chaos"
RUNS = 20
TEXT = """
name: chaos
data: {name: digits, validation: none, limit: LIMIT}
model: {name: cnn, depth: 2, width: 8, dense: [32], normalization: none}
training: {epochs: EPOCHS, batch_size: 64}
factors:
  model.depth: [1, 2]
  model.normalization: [none, batch]
seeds: 5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long a run takes: on how many images it is trained, for how many epochs."""

    images: int
    epochs: int


def study_text(size: Size) -> bytes:
    return TEXT.replace("EPOCHS", str(size.epochs)).replace("LIMIT", str(size.images)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """What a study of a size comes to where nothing happens, by identity; and the identities of its runs' names."""

    size: Size
    trainings: Mapping[str, Training]
    identities: Mapping[str, str]


def undisturbed(folder: Path, data_cache: Path, *, size: Size) -> Undisturbed:
    """Run the study in this process, with nothing happening to it."""
    bench = Bench(folder, data_cache)
    outcome = bench.run(parse_study(study_text(size), source="chaos.yaml"))
    identities = {run.name: run.identity for run in outcome.record.plan.runs}
    return Undisturbed(size=size, trainings=trained_in(folder), identities=identities)


def study_command(folder: Path, data_cache: Path, starter: Starter, *, address: str, size: Size) -> Command:
    """Return the command that runs the study on two workers, which keep checkpoints twice a second."""
    environment = command_environment(folder, data_cache)
    (folder / "chaos.yaml").write_bytes(study_text(size))
    arguments = ["-m", "ablation", "study", "chaos.yaml", "--executor", "processes", "--workers", "2"]
    changed = {"MLFLOW_TRACKING_URI": address, "ABLATION_CHECKPOINT_SECONDS": "0.5", RECORDED_BESIDE: "yes"}
    return Command(arguments, environment={**environment, **changed}, folder=folder, starter=starter)
