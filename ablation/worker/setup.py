"""Begins the training of a run: its data on its device, its loss, its model, freshly initialized."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablation.code import CodeFolders, is_code
from ablation.errors import CodeInvalid
from ablation.models import build_model, fastest_layout
from ablation.records import DataShape
from ablation.streams import Purpose, stream_seed
from ablation.training import Loss, Member, TrainingSettings
from ablation.training.settings import LOSSES
from ablation.worker.data import run_data
from ablation.worker.devices import set_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A run that is about to be trained."""

    member: Member
    study_seed: int
    loss: Loss
    shape: DataShape


def begin(
    settings: Mapping[str, Any],
    *,
    data_folder: Path,
    seed: int,
    device: torch.device,
    code: CodeFolders,
    cudnn_benchmark: bool = False,
) -> Beginning:
    """Return a run as it begins, the same whenever it is begun."""
    study_seed = int(settings["study_seed"])
    training, loss = training_of(settings, code)
    set_up(device, threads=training.pop("threads"), precision=training.get("precision", "fp32"))
    chosen = TrainingSettings(**training, augmentation=settings["data"]["augmentation"])
    data, shape = run_data(
        data_folder,
        settings["data"],
        study_seed=study_seed,
        seed=seed,
        device=device,
        layout=fastest_layout(settings["model"], device),
    )
    seed_generators(stream_seed(study_seed, Purpose.INITIALIZATION, seed))
    model = build_model(settings["model"], shape, code=code).to(device)
    member = Member(model=model, data=data, settings=chosen, seed=seed, cudnn_benchmark=cudnn_benchmark)
    return Beginning(member=member, study_seed=study_seed, loss=loss, shape=shape)


def seed_generators(number: int) -> None:
    """Seed the global generators: PyTorch's, which ours use, and Python's and NumPy's, which the user's may."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def training_of(settings: Mapping[str, Any], code: CodeFolders) -> tuple[dict[str, Any], Loss]:
    """Return the `training` section without the loss, and the loss: the user's own, or one of LOSSES."""
    training = dict(settings["training"])
    name = training.pop("loss", "cross_entropy")
    if not is_code(name):
        return training, LOSSES[name]
    loss = code.load(name, path="training.loss")
    if isinstance(loss, type):
        raise CodeInvalid(f"{name} is a class; name a function, or a loss made of it in a file", path="training.loss")
    return training, loss
