"""Begins the training of a run: its data on its device, its loss, its model, freshly initialized."""

import random
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ablation.code import CodeFolders, is_code
from ablation.errors import CodeInvalid
from ablation.models import build_model
from ablation.results import DataShape, EpochMetrics
from ablation.streams import Purpose, stream_seed
from ablation.training import TrainingResult, TrainingSettings, train
from ablation.worker.data import run_data
from ablation.worker.devices import set_up

Steps = Generator[EpochMetrics, None, TrainingResult]


def begin_training(
    settings: Mapping[str, Any], *, data_folder: Path, seed: int, device: torch.device, code: CodeFolders
) -> tuple[Steps, DataShape]:
    """Return a run's training, not started yet, and the shape of its data."""
    study_seed = int(settings["study_seed"])
    training, loss = training_of(settings, code)
    set_up(device, threads=training.pop("threads"))
    chosen = TrainingSettings(**training, augmentation=settings["data"]["augmentation"])
    data, shape = run_data(
        data_folder,
        settings["data"],
        study_seed=study_seed,
        seed=seed,
        device=device,
        layout=layout_of(settings["model"]),
    )
    seed_generators(stream_seed(study_seed, Purpose.INITIALIZATION, seed))
    model = build_model(settings["model"], shape, code=code).to(device)
    return train(model, data, chosen, study_seed=study_seed, seed=seed, loss=loss), shape


def seed_generators(number: int) -> None:
    """Seed the global generators: PyTorch's, which ours use, and Python's and NumPy's, which the user's may."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def training_of(
    settings: Mapping[str, Any], code: CodeFolders
) -> tuple[dict[str, Any], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Return the `training` section without the loss, and the loss: the user's own, or cross entropy."""
    training = dict(settings["training"])
    name = training.pop("loss", None)
    if not is_code(name):
        return training, functional.cross_entropy
    loss = code.load(name, path="training.loss")
    if isinstance(loss, type):
        raise CodeInvalid(f"{name} is a class; name a function, or a loss made of it in a file", path="training.loss")
    return training, loss


def layout_of(model: Mapping[str, Any]) -> torch.memory_format:
    """Keep what a model of the user's own gets and computes contiguous, as code that calls `view` needs it."""
    return torch.contiguous_format if is_code(model.get("name")) else torch.channels_last
