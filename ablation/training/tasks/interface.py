"""The interface of a task's computation: what is trained on, and what is counted of outputs and targets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ablation.records import TaskName

Scale = tuple[Tensor, Tensor]
"""Mean and deviation of a run's training targets, both of the shape of one target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What is measured once, at the end, of a finished run's answers on test.

    `values` are metrics by name; `correct` is (N,) where there is one answer per example; `constant_share` is the share
    of the answers that are the commonest one, None where the confusion matrix tells it; `details` are numbers by name,
    such as the F1 of each label; `undefined` says in sentences which metrics have no value, and why.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    correct: NDArray[np.bool_] | None = None
    constant_share: float | None = None
    details: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A split, evaluated: mean loss, its tally, targets as they are trained on, outputs where the task keeps them."""

    loss: float
    tally: Tensor
    targets: Tensor
    outputs: Tensor | None
    scale: Scale | None

    @property
    def kept(self) -> Tensor:
        """The outputs, of a task that keeps them."""
        assert self.outputs is not None
        return self.outputs


class Objective(Protocol):
    """What a task trains on and is measured by.

    Outputs are a model's, (B, …); targets what `prepared` made of the data's, (B, …). Tensors of S members side by side
    have S before that. Nothing here waits for the device but `scores` and `measures`.
    """

    @property
    def task(self) -> TaskName: ...

    @property
    def keeps_outputs(self) -> bool:
        """Whether a split is measured from all its outputs at once; else from sums over its batches."""
        ...

    def size(self, targets: Tensor) -> int:
        """Return how many numbers a model gives for so many targets, of a task that does not keep them."""
        ...

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:
        """Return targets of the data as they are trained on; `scale` broadcasts against them."""
        ...

    def loss(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, *, smoothing: float = 0.0
    ) -> Tensor:
        """Return what is trained on, a scalar, of one model; the task's row in TASKS says which settings it takes.

        `weights` (K,) are of the classes, or of the labels that are there; `smoothing` is label smoothing. Both are
        PyTorch's: `weight` or `pos_weight`, and `label_smoothing`.
        """
        ...

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        """Return the weights (K,) that balance the targets of a training split, given in parts, of a task with any."""
        ...

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what is evaluated, a scalar, of one model: neither smoothed nor weighted."""
        ...

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return `mean_loss` of S models with stacked parameters, (S,)."""
        ...

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return what scores are made of, of S models: (S, …), to be added over batches."""
        ...

    def weights(self, tally: Tensor, size: int) -> Tensor | int:
        """Return what the mean loss of a batch of `size` examples is over, (S,) or one for all."""
        ...

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:
        """Return the task's scores of one model over `count` examples, in the unit of the data's targets."""
        ...

    def measures(self, whole: "Whole") -> Measures:
        """Return what is measured of one model beside loss and scores, on its whole test split."""
        ...

    def confusion(self, whole: "Whole") -> NDArray[np.int64] | None:
        """Return counts [true class, predicted class] of one model's split; None where the task has none."""
        ...

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:
        """Return outputs in the form of the targets, and of a regression in their unit: what others' metrics take."""
        ...


def mean_over(total: Tensor, weights: Tensor | int) -> Tensor:
    """Return sums (S,) over what `weights` counts, 0 where nothing counts."""
    return total / (weights.clamp(min=1) if isinstance(weights, Tensor) else weights)
