"""Begins the training of a run: its data on its device, its loss, its model, freshly initialized."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ablation.code import CodeFolders, is_code
from ablation.errors import CodeInvalid
from ablation.models import build_model, fastest_layout, load_weights
from ablation.records import DataShape, DeclaredMetric, EngineTraining, Settings
from ablation.streams import Purpose, stream_seed
from ablation.training import Loss, Member, TrainingSettings, set_precision
from ablation.training.class_weights import class_weights_of
from ablation.training.tasks import make_objective
from ablation.worker.data import run_data
from ablation.worker.devices import set_up
from ablation.worker.own_metrics import make_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """A run that is about to be trained."""

    member: Member
    study_seed: int
    loss: Loss | None
    shape: DataShape


def begin(
    settings: Settings,
    *,
    data_folder: Path,
    seed: int,
    device: torch.device,
    code: CodeFolders,
    metrics: Sequence[DeclaredMetric] = (),
    cudnn_benchmark: bool = False,
) -> Beginning:
    """Return a run as it begins, the same whenever it is begun; `metrics` are the user's own."""
    training, study_seed = settings.engine, settings.study_seed
    data_settings, model_settings = settings.sections()
    loss = loss_of(training, code)
    set_up(device, threads=training.threads, precision=training.precision)
    data, shape = run_data(
        data_folder,
        data_settings,
        study_seed=study_seed,
        seed=seed,
        replicates=settings.replicates,
        device=device,
        layout=fastest_layout(model_settings, device),
    )
    seed_generators(stream_seed(study_seed, Purpose.INITIALIZATION, seed))
    model = load_weights(build_model(model_settings, shape, code=code), model_settings.weights, code=code).to(device)
    objective = make_objective(shape, training.loss)
    member = Member(
        model=model,
        data=data,
        settings=training_settings(settings),
        seed=seed,
        objective=objective,
        metrics=make_metrics(metrics, shape, code=code),
        class_weights=class_weights_of(training.class_weights, data, objective, classes=len(shape.classes)),
        cudnn_benchmark=cudnn_benchmark,
    )
    set_precision(training.precision)  # again: user code may choose another where it is imported
    return Beginning(member=member, study_seed=study_seed, loss=loss, shape=shape)


def seed_generators(number: int) -> None:
    """Seed the global generators: PyTorch's, which ours use, and Python's and NumPy's, which the user's may."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def training_settings(settings: Settings) -> TrainingSettings:
    """Return what the training loop needs of settings."""
    training, (data, _) = settings.engine, settings.sections()
    return TrainingSettings(
        epochs=training.epochs,
        batch_size=training.batch_size,
        optimizer=training.optimizer,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        epoch_choice=training.epoch_choice,
        augmentation=data.augmentation,
        precision=training.precision,
        optimizer_arguments=training.optimizer_arguments,
        schedule_arguments=training.schedule_arguments,
        schedule_unit=training.schedule_unit,
        warmup=training.warmup,
        patience=None if training.patience == "none" else training.patience,
        ema=None if training.ema == "none" else training.ema,
        label_smoothing=training.label_smoothing,
        class_weights=training.class_weights,
        gradient_clipping=None if training.gradient_clipping == "none" else training.gradient_clipping,
    )


def loss_of(training: EngineTraining, code: CodeFolders) -> Loss | None:
    """Return the loss of the user's own that settings name; None where it is the task's."""
    name = training.loss
    if not is_code(name):
        return None
    loss: Loss = code.load(name, path="training.loss")
    if isinstance(loss, type):
        raise CodeInvalid(f"{name} is a class; name a function, or a loss made of it in a file", path="training.loss")
    return loss
