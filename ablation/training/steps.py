"""The interface of what trains and evaluates models epoch by epoch, and the plain form of it: one model, eagerly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, assert_never

import torch
from torch import Tensor, nn

from ablation.errors import CodeInvalid
from ablation.streams import Purpose, stream_seed
from ablation.training.averages import Averages, lent
from ablation.training.batches import TrainingData, batch_bounds, training_batches
from ablation.training.clipping import clip_alone
from ablation.training.evaluation import Evaluation, evaluate
from ablation.training.optimizers import make_optimizer
from ablation.training.precision import compute
from ablation.training.schedules import learning_rates
from ablation.training.settings import Loss, Member
from ablation.training.snapshots import (
    StepsSnapshot,
    copied,
    host_state,
    make_optimizer_state,
    named_tensors,
    optimizer_state,
    put_back,
    put_back_host_state,
    put_back_optimizer,
)
from ablation.training.tasks import mean_over

Split = Literal["sample", "heldout", "test", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningMeans:
    """One run's epoch in training mode: loss and scores over its batches, and the learning rate of the last step.

    `diverged_step` is the first step of the training, counted from 1, whose loss was not finite, where one was.
    """

    values: Mapping[str, float]
    learning_rate: float
    diverged_step: int | None = None


class Steps(Protocol):
    """Trains the models of its members, side by side; results are in the order of the members."""

    def train_epoch(self, epoch: int) -> list[RunningMeans]:
        """Train every member on its epoch, counted from 1; synchronizes with the device once, at the end."""
        ...

    def evaluate(self, split: Split, *, keeps_outputs: bool = False) -> list[Evaluation]:
        """Evaluate every member's model on a split of its data, in evaluation mode.

        Outputs that the task does not keep are kept on the CPU where `keeps_outputs` asks for them.
        """
        ...

    def state(self, member: int) -> dict[str, Tensor]:
        """Return a member's state by the names of its model's, as it is evaluated: copies where weights are averaged.

        Otherwise, and once training is over, they are the tensors themselves.
        """
        ...

    def settle(self) -> None:
        """End the training: where weights are averaged, their averages are the weights from now on."""
        ...

    def snapshot(self, member: int) -> StepsSnapshot:
        """Return a copy of all that a member's next epochs depend on."""
        ...

    def restore(self, snapshots: Sequence[StepsSnapshot], epoch: int) -> None:
        """Go back to where the members were after an epoch, before the first step is taken here.

        Raises:
            KeyError, ValueError, RuntimeError: the snapshots are of other models.
        """
        ...


class EagerSteps:
    """Trains one model, operation by operation."""

    def __init__(self, member: Member, *, study_seed: int, loss: Loss | None) -> None:
        self._model, self._data, self._settings = member.model, member.data, member.settings
        self._study_seed, self._seed = study_seed, member.seed
        self._objective = member.objective
        self._loss = loss or own_loss(member)
        self._weights = [member.class_weights] if loss is None and member.class_weights is not None else []
        self._device = member.data.images.device
        if self._device.type == "cpu":
            _keep_freed_memory()
        self._optimizer = make_optimizer(member.model, member.settings)
        self._rates = learning_rates(
            member.settings, len(batch_bounds(len(member.data.train), member.settings.batch_size))
        )
        decay = member.settings.ema
        self._averages: Averages | None = None if decay is None else Averages(list(member.model.parameters()), decay)

    def train_epoch(self, epoch: int) -> list[RunningMeans]:
        torch.manual_seed(stream_seed(self._study_seed, Purpose.DROPOUT, self._seed, epoch))
        settings, objective = self._settings, self._objective
        count = len(self._data.train)
        steps = len(batch_bounds(count, settings.batch_size))
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        tally: Tensor | int = 0
        batches = training_batches(
            self._data,
            batch_size=settings.batch_size,
            augmentation=settings.augmentation,
            study_seed=self._study_seed,
            seed=self._seed,
            epoch=epoch,
        )
        self._model.train()
        losses: list[Tensor] = []
        for step, (images, labels) in enumerate(batches, start=(epoch - 1) * steps):
            rate = self._rates[step]
            targets = objective.prepared(labels, self._data.scale)
            loss, outputs = self._step(images, targets, rate)
            own = objective.tally(outputs.unsqueeze(0), targets.unsqueeze(0))[0]
            losses.append(loss)
            loss_sum += loss * objective.weights(own, len(targets))
            tally = tally + own
        assert isinstance(tally, Tensor)
        loss_mean = mean_over(loss_sum, objective.weights(tally, count)).item()  # the epoch's one synchronization
        diverged = None if math.isfinite(loss_mean) else first_step_not_finite(torch.stack(losses), epoch)
        values = {"loss": loss_mean, **objective.scores(tally, count, self._data.scale)}
        return [RunningMeans(values=values, learning_rate=rate, diverged_step=diverged)]

    def evaluate(self, split: Split, *, keeps_outputs: bool = False) -> list[Evaluation]:
        images, labels, indices = split_of(self._data, split)
        with lent(self._averages):
            found = evaluate(
                self._model,
                images,
                labels,
                self._data,
                indices=indices,
                precision=self._settings.precision,
                objective=self._objective,
                keeps_outputs=keeps_outputs,
            )
        return [found]

    def state(self, member: int) -> dict[str, Tensor]:
        assert member == 0
        if self._averages is not None:
            with self._averages.lent():
                return {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        state: dict[str, Tensor] = self._model.state_dict()
        return state

    def settle(self) -> None:
        if self._averages is not None:
            self._averages.settle()
            self._averages = None

    def snapshot(self, member: int) -> StepsSnapshot:
        assert member == 0
        parameters = list(self._model.parameters())
        return StepsSnapshot(
            tensors=copied(named_tensors(self._model)),
            optimizer=optimizer_state(self._optimizer, parameters, position=None),
            host=host_state(self._modules()),
            averages=self._averages.copies(slice(None), None) if self._averages is not None else [],
        )

    def restore(self, snapshots: Sequence[StepsSnapshot], epoch: int) -> None:  # noqa: ARG002 - epochs are told apart by number
        (kept,) = snapshots
        parameters = list(self._model.parameters())
        put_back(named_tensors(self._model), kept.tensors)
        make_optimizer_state(self._optimizer, parameters, kept.optimizer)
        put_back_optimizer(self._optimizer, parameters, kept.optimizer, position=None)
        put_back_host_state(self._modules(), kept.host)
        if self._averages is not None:
            self._averages.put_back(kept.averages, slice(None), None)

    def _modules(self) -> list[nn.Module]:
        return [self._model, *([self._loss] if isinstance(self._loss, nn.Module) else [])]

    def _step(self, images: Tensor, targets: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Take one step and return the batch's loss and outputs, detached."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        outputs = compute(partial(self._model, images), self._settings.precision, self._device)
        loss = checked_loss(self._loss(outputs, targets, *self._weights))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        clip_alone(list(self._model.parameters()), self._settings.gradient_clipping)
        self._optimizer.step()
        if self._averages is not None:
            self._averages.update()
        return loss.detach(), outputs.detach()


def own_loss(member: Member) -> Loss:
    """Return the loss of a member's task, smoothed as its settings say."""
    loss: Loss = member.objective.loss
    smoothing = member.settings.label_smoothing
    return partial(loss, smoothing=smoothing) if smoothing else loss


def split_of(data: TrainingData, split: Split) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a split's images and labels, and the indices into them, or None where it is all of them."""
    match split:
        case "sample":
            return data.images, data.labels, data.sample
        case "train":
            return data.images, data.labels, data.train
        case "heldout" if data.validation is not None:
            return data.images, data.labels, data.validation
        case "heldout" | "test" if data.test is not None:
            return data.images, data.labels, data.test
        case "heldout" | "test":
            return data.test_images, data.test_labels, None
        case _:
            assert_never(split)


def first_step_not_finite(losses: Tensor, epoch: int) -> int | None:
    """Return the first step of an epoch, counted from the training's first as 1, whose loss is not finite."""
    bad = (~losses.isfinite()).nonzero()
    return (epoch - 1) * len(losses) + int(bad[0]) + 1 if len(bad) else None


def checked_loss(loss: Tensor) -> Tensor:
    """Return a loss that can be trained on.

    Raises:
        CodeInvalid: it cannot be, and why.
    """
    if not isinstance(loss, Tensor):
        what = f"returned {type(loss).__name__}"
    elif loss.dim():
        what = f"returned a tensor of shape {tuple(loss.shape)}; take its mean"
    elif not loss.requires_grad:
        what = "returned a tensor without a gradient; compute it from the outputs with torch"
    else:
        return loss
    raise CodeInvalid(f"the loss must return a scalar tensor, and {what}", path="training.loss")


def _keep_freed_memory() -> None:
    """Raise glibc's threshold for handing freed memory back to the system from the default to 62 MiB.

    It is twice the size of the largest mapped block freed so far. Without this, each step's activations are handed
    back and faulted in again, 2,000 pages a step, a tenth of its time. The block is never touched, so takes no memory.
    """
    torch.empty(31 * 1024 * 1024, dtype=torch.uint8)
