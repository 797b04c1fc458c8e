"""An MLP that predicts the progression of diabetes after a year from ten measurements, with scikit-learn's own data."""

from collections import OrderedDict

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import nn


def load():
    measurements, progression = load_diabetes(return_X_y=True, scaled=False)
    parts = train_test_split(measurements.astype(np.float32), progression, test_size=0.25, random_state=0)
    train_inputs, test_inputs, train_targets, test_targets = parts
    return {"train": (train_inputs, train_targets), "test": (test_inputs, test_targets)}


def build(width, depth, dropout):
    inputs, _ = load()["train"]
    layers = [("standardize", Standardize(inputs))]
    features = inputs.shape[1]
    for index in range(depth):
        layers += [
            (f"linear{index}", nn.Linear(features, width)),
            (f"norm{index}", nn.BatchNorm1d(width)),
            (f"relu{index}", nn.ReLU()),
            (f"dropout{index}", nn.Dropout(dropout)),
        ]
        features = width
    return nn.Sequential(OrderedDict([*layers, ("head", nn.Linear(features, 1))]))


class Standardize(nn.Module):
    """Gives each measurement mean 0 and deviation 1 over the training data: years and mg/dl differ by far."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(inputs.mean(0)))
        self.register_buffer("deviation", torch.from_numpy(inputs.std(0)))

    def forward(self, inputs):
        return (inputs - self.mean) / self.deviation
