"""The settings of a training, and what is trained: a run's model, data, settings and seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from ablation.records import Augmentation, EpochChoice, Precision, ScheduleUnit
from ablation.training.batches import TrainingData

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (B, classes), labels (B,)) to a scalar."""
LOSSES: Mapping[str, Loss] = {"cross_entropy": functional.cross_entropy}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How to train; the fields of a study file's `training`, but for threads and loss, and its augmentation.

    `precision` is that of products and convolutions: bf16 by autocast, in training and evaluation, with the loss in
    fp32; tf32 and fp32 differ only in what the device is set up for. `warmup` is in epochs; `gradient_clipping` is the
    largest norm of the whole gradient, None where it is not clipped.
    """

    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    momentum: float
    weight_decay: float
    epoch_choice: EpochChoice
    augmentation: Augmentation
    precision: Precision = "fp32"
    optimizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule_arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule_unit: ScheduleUnit = "epoch"
    warmup: float = 0.0
    gradient_clipping: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run among those that are trained together: its freshly initialized model, on the device of its data.

    With `cudnn_benchmark`, cuDNN's algorithms are chosen on a GPU by timing them in the first steps of a graph.
    """

    model: nn.Module
    data: TrainingData
    settings: TrainingSettings
    seed: int
    cudnn_benchmark: bool = False
