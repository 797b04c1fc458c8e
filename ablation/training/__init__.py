"""Trains one model on one device: a generator of epoch metrics that knows neither Optuna nor MLflow.

It imports nothing but torch and numpy beside the standard library, so it runs wherever these are installed.
"""

from ablation.training.batches import TrainingData
from ablation.training.loop import TrainingResult, train
from ablation.training.settings import TrainingSettings

__all__ = ["TrainingData", "TrainingResult", "TrainingSettings", "train"]
