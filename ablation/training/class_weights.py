"""Gives the weights that the classes of a run have in its loss."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ablation.errors import SettingInvalid
from ablation.records import ClassWeights, DataShape
from ablation.training.batches import TrainingData
from ablation.training.tasks import make_objective

EXAMPLES_AT_ONCE = 1000
PATH = "training.class_weights"


def class_weights_of(chosen: ClassWeights, data: TrainingData, shape: DataShape) -> Tensor | None:
    """Return the weights (K,) that were chosen, on the data's device: None, balanced over the training split, or given.

    Raises:
        SettingInvalid: so many were given as there are no classes.
    """
    if chosen == "none":
        return None
    if chosen == "balanced":
        return make_objective(shape).balanced(_targets(data), len(shape.classes))
    if len(chosen) != len(shape.classes):
        count = f"{len(chosen)} weights for {len(shape.classes)} classes"
        raise SettingInvalid(f"there are {count}: give one for each, in their order, or balanced", path=PATH)
    return torch.tensor(chosen, dtype=torch.float32, device=data.labels.device)


def _targets(data: TrainingData) -> Iterator[Tensor]:
    """Yield the targets of the training split part by part, as those of pixels are many."""
    for indices in torch.split(data.train, EXAMPLES_AT_ONCE):
        yield data.labels[indices]
