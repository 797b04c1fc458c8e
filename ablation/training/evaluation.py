"""Evaluates models on a split: from all outputs at once, or batch by batch where those are too large to keep."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ablation.records import Precision
from ablation.training.batches import TrainingData, evaluation_batches
from ablation.training.precision import compute
from ablation.training.tasks import CLASSIFICATION, Objective, Whole, mean_over


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A split, evaluated: mean loss, the task's scores, the tally that they are made of, on the device.

    `outputs` are (N, …), on the device where the task keeps them, else on the CPU where they were asked for.
    """

    loss: float
    scores: Mapping[str, float]
    tally: Tensor
    outputs: Tensor | None = None

    @property
    def values(self) -> dict[str, float]:
        """The loss and the scores, by name."""
        return {"loss": self.loss, **self.scores}

    def whole(self, targets: Tensor, data: TrainingData, objective: Objective) -> Whole:
        """Return the split with its targets, as they are in the data."""
        prepared = objective.prepared(targets, data.scale)
        outputs = self.outputs if objective.keeps_outputs else None
        return Whole(loss=self.loss, tally=self.tally, targets=prepared, outputs=outputs, scale=data.scale)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    data: TrainingData,
    *,
    indices: Tensor | None = None,
    precision: Precision = "fp32",
    objective: Objective = CLASSIFICATION,
    keeps_outputs: bool = False,
) -> Evaluation:
    """Evaluate `model` on images, or on those that `indices` name; the mode of the model is restored.

    Outputs that the task does not keep are kept on the CPU where `keeps_outputs` asks for them.
    """
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        batches = evaluation_batches(images, indices, data)
        answers = (compute(partial(model, batch), precision, images.device) for batch in batches)
        truth = objective.prepared(labels if indices is None else labels[indices], data.scale)
        if objective.keeps_outputs:
            found = _measured_whole(torch.cat(list(answers)), truth, data, objective)
        else:
            found = _measured_in_parts(answers, truth, data, objective, keeps_outputs=keeps_outputs)
    model.train(was_training)
    return found


def _measured_whole(outputs: Tensor, truth: Tensor, data: TrainingData, objective: Objective) -> Evaluation:
    tally = objective.tally(outputs.unsqueeze(0), truth.unsqueeze(0))[0]
    return Evaluation(
        loss=objective.mean_loss(outputs, truth).item(),
        scores=objective.scores(tally, len(truth), data.scale),
        tally=tally,
        outputs=outputs,
    )


def _measured_in_parts(
    answers: Iterable[Tensor], truth: Tensor, data: TrainingData, objective: Objective, *, keeps_outputs: bool
) -> Evaluation:
    tally, kept, start = torch.zeros((), dtype=torch.int64, device=truth.device), [], 0
    loss_sum = torch.zeros((), dtype=torch.float64, device=truth.device)
    for outputs in answers:
        part = truth[start : start + len(outputs)]
        own = objective.tally(outputs.unsqueeze(0), part.unsqueeze(0))[0]
        loss_sum += objective.mean_loss(outputs, part) * objective.weights(own, len(part))
        tally = tally + own
        start += len(outputs)
        if keeps_outputs:
            kept.append(outputs.cpu())
    return Evaluation(
        loss=mean_over(loss_sum, objective.weights(tally, len(truth))).item(),
        scores=objective.scores(tally, len(truth), data.scale),
        tally=tally,
        outputs=torch.cat(kept) if keeps_outputs else None,
    )
