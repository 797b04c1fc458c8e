"""One number per input, or several: mean squared error; RMSE, MAE and R² in the targets' unit."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from ablation.records import ERROR_QUANTILES, SCALE_DETAILS, TaskName
from ablation.training.tasks.interface import Measures, Scale, Whole

CONSTANT_WITHIN = 0.05
"""Share of the targets' deviation within which predictions count as one answer."""


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "huber": functional.huber_loss,
    "mae": functional.l1_loss,
}
"""What a regression can be trained on, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """Outputs and targets are float32 (B,) or (B, K); outputs (B, 1) do for targets (B,), and the other way round."""

    trained_on: str = "mse"
    task: ClassVar[TaskName] = "regression"
    keeps_outputs: ClassVar[bool] = True

    def size(self, targets: Tensor) -> int:
        raise NotImplementedError  # they are kept, whatever their size

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:
        return targets if scale is None else (targets - scale[0]) / scale[1]

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,  # noqa: ARG002 - there are no classes
        *,
        smoothing: float = 0.0,  # noqa: ARG002
    ) -> Tensor:
        return LOSSES[self.trained_on](fitted(outputs, targets), targets)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:
        raise NotImplementedError  # there are no classes

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(fitted(outputs, targets), targets)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(self.mean_loss)(outputs, targets)
        return losses

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return sums over examples of error², |error|, target and target², in double precision, (S, 4, K)."""
        truth = targets.double().flatten(2) if targets.dim() > 2 else targets.double().unsqueeze(-1)
        error = fitted(outputs, targets).double().reshape(truth.shape) - truth
        return torch.stack([error.square(), error.abs(), truth, truth.square()], dim=1).sum(2)

    def weights(self, tally: Tensor, size: int) -> Tensor | int:  # noqa: ARG002 - one per example
        return size

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:
        """RMSE and MAE are over all targets; R² is the mean over the targets of an example, as scikit-learn has it."""
        squares, absolutes, sums, squared = tally.cpu().numpy()
        deviation = 1.0 if scale is None else scale[1].double().cpu().numpy().reshape(-1)
        spread = squared - sums**2 / count
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.where(spread > 0, 1 - squares / spread, np.where(squares > 0, 0.0, 1.0))
        return {
            "rmse": math.sqrt(float(np.mean(squares * deviation**2)) / count),
            "mae": float(np.mean(absolutes * deviation)) / count,
            "r2": float(np.mean(explained)),
        }

    def measures(self, whole: Whole) -> Measures:
        answers = self.answers(fitted(whole.kept, whole.targets), whole.scale).double().cpu()
        truth = self.answers(whole.targets, whole.scale).double().cpu()
        errors = (answers - truth).flatten()
        near = (answers - answers.median(0).values).abs() <= CONSTANT_WITHIN * truth.std(0, correction=0)
        quantiles = np.quantile(errors.numpy(), ERROR_QUANTILES)
        return Measures(
            constant_share=near.double().mean().item(),
            details={"error_quantiles": tuple(map(float, quantiles)), **_scale_details(whole.scale)},
        )

    def confusion(self, whole: Whole) -> NDArray[np.int64] | None:  # noqa: ARG002 - there are no classes
        return None

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:
        return outputs if scale is None else outputs * scale[1] + scale[0]


def _scale_details(scale: Scale | None) -> dict[str, tuple[float, ...]]:
    """Return by what the targets were standardized: the model alone answers in that scale."""
    if scale is None:
        return {}
    return {name: tuple(part.flatten().tolist()) for name, part in zip(SCALE_DETAILS, scale, strict=True)}


def fitted(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return outputs in the shape of their targets, where they differ in a last dimension of 1.

    Raises:
        ValueError: they differ in more.
    """
    if outputs.shape == targets.shape:
        return outputs
    if outputs.shape == (*targets.shape, 1) or targets.shape == (*outputs.shape, 1):
        return outputs.reshape(targets.shape)
    raise ValueError(f"outputs {tuple(outputs.shape)} do not fit targets {tuple(targets.shape)}")
