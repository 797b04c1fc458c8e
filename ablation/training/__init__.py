"""Trains models on one device: a generator of epoch metrics that knows neither Optuna nor MLflow.

It imports nothing but torch and numpy beside the standard library, so it runs wherever these are installed.
"""

from ablation.training.batches import TrainingData
from ablation.training.choosing import choose_backend, free_memory, let_go, members_that_fit
from ablation.training.loop import EpochsTogether, TrainingResult, train, train_eager
from ablation.training.paths import Backend, train_fused, train_graph
from ablation.training.precision import set_precision
from ablation.training.settings import Loss, Member, TrainingSettings
from ablation.training.snapshots import Checkpoints, Snapshot, SnapshotMismatch

__all__ = [
    "Backend",
    "Checkpoints",
    "EpochsTogether",
    "Loss",
    "Member",
    "Snapshot",
    "SnapshotMismatch",
    "TrainingData",
    "TrainingResult",
    "TrainingSettings",
    "choose_backend",
    "free_memory",
    "let_go",
    "members_that_fit",
    "set_precision",
    "train",
    "train_eager",
    "train_fused",
    "train_graph",
]
