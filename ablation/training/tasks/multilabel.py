"""Several labels per input, each there or not: binary cross entropy; F1, AUROC and average precision of each label."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import vmap
from torch.nn import functional

from ablation.records import TaskName
from ablation.training.tasks.interface import Measures, Scale, Whole
from ablation.training.tasks.weights import balanced_labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Multilabel:
    """Outputs are logits (B, K), targets float32 0 or 1 (B, K); a label is answered where its logit is above 0."""

    classes: tuple[str, ...]
    task: ClassVar[TaskName] = "multilabel"
    keeps_outputs: ClassVar[bool] = True

    def size(self, targets: Tensor) -> int:
        raise NotImplementedError  # they are kept, whatever their size

    def prepared(self, targets: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return targets.float()

    def loss(
        self,
        outputs: Tensor,
        targets: Tensor,
        weights: Tensor | None = None,
        *,
        smoothing: float = 0.0,  # noqa: ARG002 - of tasks with one class
    ) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=weights)

    def balanced(self, parts: Iterable[Tensor], classes: int) -> Tensor:  # noqa: ARG002 - the targets have them
        return balanced_labels(parts)

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, targets)

    def mean_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = vmap(self.mean_loss)(outputs, targets)
        return losses

    def tally(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return counts of each label: answered and true, answered, true, (S, 3, K)."""
        answered, true = outputs > 0, targets > 0.5
        return torch.stack([answered & true, answered, true], dim=1).sum(2)

    def weights(self, tally: Tensor, size: int) -> Tensor | int:  # noqa: ARG002 - one per example
        return size

    def scores(self, tally: Tensor, count: int, scale: Scale | None) -> dict[str, float]:  # noqa: ARG002
        return {"macro_f1": float(np.mean(_f1(tally)))}

    def measures(self, whole: Whole) -> Measures:
        logits, truth = whole.kept.double().cpu().numpy(), whole.targets.cpu().numpy() > 0.5
        answered = logits > 0
        areas = [_auroc(logits[:, label], truth[:, label]) for label in range(truth.shape[1])]
        precisions = [_average_precision(logits[:, label], truth[:, label]) for label in range(truth.shape[1])]
        return Measures(
            values={
                name: float(np.nanmean(values))
                for name, values in (("test_auroc", areas), ("test_map", precisions))
                if not np.isnan(values).all()
            },
            constant_share=float(np.maximum(answered.mean(0), 1 - answered.mean(0)).mean()),
            details={"f1": tuple(map(float, _f1(whole.tally)))},
            undefined=(
                *self._undefined("AUROC", "test_auroc", areas, "one of its two answers"),
                *self._undefined("average precision", "test_map", precisions, "no example"),
            ),
        )

    def confusion(self, whole: Whole) -> NDArray[np.int64] | None:  # noqa: ARG002 - an example has several classes
        return None

    def answers(self, outputs: Tensor, scale: Scale | None) -> Tensor:  # noqa: ARG002 - of numbers alone
        return outputs

    def _undefined(self, what: str, metric: str, values: list[float], why: str) -> tuple[str, ...]:
        lacking = [name for name, value in zip(self.classes, values, strict=True) if np.isnan(value)]
        if not lacking:
            return ()
        named = f"{', '.join(lacking[:5])}{f' and {len(lacking) - 5} more' if len(lacking) > 5 else ''}"
        if len(lacking) == len(values):
            return (f"{metric} is left out: the test split has {why} of every label",)
        others = len(values) - len(lacking)
        return (f"{metric} is the mean of {others} labels: {what} is undefined for {named}, with {why} in test",)


def _f1(tally: Tensor) -> NDArray[np.float64]:
    """Return F1 by label, 0 where a label is neither answered nor true."""
    both, answered, true = tally.double().cpu().numpy()
    sizes = answered + true
    found: NDArray[np.float64] = np.divide(2 * both, sizes, out=np.zeros_like(both), where=sizes > 0)
    return found


def _auroc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a true example scores above another, ties as half; or NaN."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    if not positives or not negatives:
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _average_precision(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    """Return Σ over thresholds of the rise in recall × precision, equal scores being one threshold; or NaN."""
    positives = int(truth.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    right = np.cumsum(truth[order])[ends]
    return float((np.diff(right, prepend=0) / positives * right / (ends + 1)).sum())
