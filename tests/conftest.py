"""What several test files share: a study of seconds, and a fresh MLflow store that costs no seven seconds to make.

Imports wait for the fixtures that need them: tests of the training engine run where only torch and numpy are.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ablation.study import Study
    from ablation.tracking import Tracker

PROJECT = Path(__file__).parents[1]

TINY = b"""
name: tiny
data: {name: digits, limit: 60, validation: none}
model: {name: cnn, depth: 1, width: 2, dense: [8], normalization: none}
training: {epochs: 2, batch_size: 16}
factors:
  model.depth: [1, 2]
  model.normalization: [none, batch]
seeds: 2
"""


@pytest.fixture
def tiny() -> Study:
    from ablation.study import parse_study

    return parse_study(TINY, source="tiny.yaml")


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TINY)
    return path


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that prepared data sets are shared in."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing else."""
    from ablation.tracking import open_mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracker = open_mlflow(f"sqlite:///{path}")
    path.touch()
    assert tracker.study_names() == ()
    return path


@pytest.fixture
def store_uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fresh MLflow store; the working directory, where artifacts go, is the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def mlflow_tracker(store_uri: str) -> Tracker:
    from ablation.tracking import open_mlflow

    return open_mlflow(store_uri)
