"""The settings of a training, and what is trained: a run's model, data, settings and seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from ablation.records import Augmentation, ClassWeights, EpochChoice, Precision, ScheduleUnit
from ablation.training.batches import TrainingData
from ablation.training.tasks import CLASSIFICATION, Objective

Loss = Callable[..., Tensor]
"""(outputs (B, …), targets (B, …)) to a scalar; a task's own takes the weights of the classes (K,) too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How to train; the fields of a study file's `training`, but for threads and loss, and its augmentation.

    `precision` is that of products and convolutions: bf16 by autocast, in training and evaluation, with the loss in
    fp32; tf32 and fp32 differ only in what the device is set up for. `warmup` is in epochs; `gradient_clipping` is the
    largest norm of the whole gradient, None where it is not clipped. `patience` is the number of epochs without a
    better score on validation after which a run ends, `ema` the decay of the average of weights that is evaluated and
    kept; None where there is none.
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
    patience: int | None = None
    ema: float | None = None
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMetric:
    """A metric of the user's: (outputs (N, …), targets (N, …)) of a split to a number, NaN where it is undefined.

    Outputs are logits, or predictions in the unit of the targets. It is called on test, and on the held-out split after
    every epoch where `is_of_epochs`. A call may add to `remarks`, which say in sentences what to know of its value.
    """

    name: str
    function: Callable[[NDArray[Any], NDArray[Any]], float]
    is_of_epochs: bool = False
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run among those that are trained together: its freshly initialized model, on the device of its data.

    With `cudnn_benchmark`, cuDNN's algorithms are chosen on a GPU by timing them in the first steps of a graph.
    `metrics` are the user's own, beside those of the task; `class_weights` (K,) are those of the classes in its loss.
    """

    model: nn.Module
    data: TrainingData
    settings: TrainingSettings
    seed: int
    objective: Objective = CLASSIFICATION
    metrics: tuple[OwnMetric, ...] = ()
    class_weights: Tensor | None = None
    cudnn_benchmark: bool = False
