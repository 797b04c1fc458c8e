"""Gives the weights that the classes of a run have in its loss."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ablation.errors import SettingInvalid
from ablation.records import ClassWeights
from ablation.training.batches import TrainingData
from ablation.training.tasks import Objective

EXAMPLES_AT_ONCE = 1000
PATH = "training.class_weights"


def class_weights_of(chosen: ClassWeights, data: TrainingData, objective: Objective, *, classes: int) -> Tensor | None:
    """Return the weights (K,) that were chosen, on the data's device: None, balanced over the training split, or given.

    Raises:
        SettingInvalid: so many were given as there are no classes.
    """
    if chosen == "none":
        return None
    if chosen == "balanced":
        return objective.balanced(_targets(data), classes)
    if len(chosen) != classes:
        count = f"{len(chosen)} weights for {classes} classes"
        raise SettingInvalid(f"there are {count}: give one for each, in their order, or balanced", path=PATH)
    return torch.tensor(chosen, dtype=torch.float32, device=data.labels.device)


def _targets(data: TrainingData) -> Iterator[Tensor]:
    """Yield the targets of the training split part by part, as those of pixels are many."""
    for indices in torch.split(data.train, EXAMPLES_AT_ONCE):
        yield data.labels[indices]
