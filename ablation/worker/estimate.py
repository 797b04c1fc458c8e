"""Estimates what a run costs before it is trained."""

from collections.abc import Mapping
from typing import Any

import torch

from ablation.code import NO_FOLDERS, CodeFolders
from ablation.datasets import check_augmentation
from ablation.models import build_model, fastest_layout
from ablation.records import DataOutline
from ablation.training import TrainingSettings, train
from ablation.worker.data import made_up_data
from ablation.worker.devices import set_up
from ablation.worker.setup import training_of

TIMED_STEPS = 3
SAMPLE_IMAGES = 2_000


def estimate_seconds(
    settings: Mapping[str, Any], outline: DataOutline, *, device: str, code: CodeFolders = NO_FOLDERS
) -> float:
    """Estimate how long one run takes, from a few timed steps on made-up data; evaluation is taken as a third.

    The estimate is for a machine with nothing else to do; runs side by side take longer.

    Raises:
        PrecisionUnavailable: the device does not compute in the run's precision.
        CodeInvalid, DataInvalid: the run's own code, or its augmentation, does not go with the data.
    """
    training, loss = training_of(settings, code)
    check_augmentation(outline.shape, settings["data"], source=settings["data"]["name"])
    set_up(torch.device(device), threads=training.pop("threads"), precision=training.get("precision", "fp32"))
    timed = TrainingSettings(**{**training, "epochs": 2}, augmentation=settings["data"]["augmentation"])
    count = TIMED_STEPS * timed.batch_size
    model = build_model(settings["model"], outline.shape, code=code).to(device)
    layout = fastest_layout(settings["model"], torch.device(device))
    data = made_up_data(outline.shape, count, torch.device(device), layout=layout)
    *_, last = train(model, data, timed, study_seed=0, seed=0, loss=loss)
    used = min(settings["data"]["limit"] or outline.train_images, outline.train_images)
    validation = settings["data"]["validation"]
    heldout = outline.test_images if validation == "none" else round(used * validation)
    trained = used if validation == "none" else used - heldout
    per_image = last.seconds / count
    evaluated = training["epochs"] * (min(trained, SAMPLE_IMAGES) + heldout) + trained + outline.test_images
    return float(per_image * (training["epochs"] * trained + evaluated / 3))
