"""Estimates what a run costs before it is trained."""

from dataclasses import replace

import torch

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.datasets import check_augmentation, split_sizes
from ablation.models import build_model, fastest_layout
from ablation.records import DataOutline, Settings
from ablation.training import train
from ablation.training.tasks import make_objective
from ablation.worker.data import made_up_data
from ablation.worker.devices import set_up
from ablation.worker.setup import loss_of, training_settings

TIMED_STEPS = 3
SAMPLE_IMAGES = 2_000


def estimate_seconds(settings: Settings, outline: DataOutline, *, device: str, code: CodeFolders = NO_FOLDERS) -> float:
    """Estimate how long one run takes, from a few timed steps on made-up data; evaluation is taken as a third.

    The estimate is for a machine with nothing else to do; runs side by side take longer.

    Raises:
        PrecisionUnavailable: the device does not compute in the run's precision.
        CodeInvalid, DataInvalid: the run's own code, or its augmentation, does not go with the data.
    """
    training, (data_settings, model_settings) = settings.engine, settings.sections()
    loss = loss_of(training, code)
    check_augmentation(outline.shape, data_settings, source=data_settings.name)
    set_up(torch.device(device), threads=training.threads, precision=training.precision)
    timed = replace(training_settings(settings), epochs=2, patience=None)
    count = TIMED_STEPS * timed.batch_size
    model = build_model(model_settings, outline.shape, code=code).to(device)
    layout = fastest_layout(model_settings, torch.device(device))
    data = made_up_data(outline.shape, count, torch.device(device), layout=layout)
    *_, last = train(
        model, data, timed, study_seed=0, seed=0, loss=loss, objective=make_objective(outline.shape, training.loss)
    )
    sizes = split_sizes(outline, data_settings, settings.replicates)
    heldout = sizes.test if data_settings.validation == "none" else sizes.validation
    per_image = last.seconds / count
    evaluated = training.epochs * (min(sizes.train, SAMPLE_IMAGES) + heldout) + sizes.train + sizes.test
    return float(per_image * (training.epochs * sizes.train + evaluated / 3))
