"""Trains models epoch by epoch, yielding metrics; a result holds what is measured once, at the end."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ablation.records import KEPT_OUTPUTS, SIGNS, TASKS, EpochMetrics, Outcome, Task
from ablation.training.batches import TrainingData
from ablation.training.evaluation import Evaluation
from ablation.training.patience import is_out_of_patience
from ablation.training.settings import Loss, Member, OwnMetric, TrainingSettings
from ablation.training.snapshots import BestSnapshot, Checkpoints, Snapshot, SnapshotMismatch, Tensors, copied
from ablation.training.steps import EagerSteps, RunningMeans, Steps, split_of
from ablation.training.tasks import CLASSIFICATION, Objective

BYTES = 4
"""Of an output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How training ended, and what was measured at the chosen epoch, in evaluation mode.

    Confusion matrices are int64 counts [true class, predicted class], where the task has such; `test_outputs` float32
    (N, …) and `test_targets` (N, …) are in the order of the test examples, None where they are too large to keep: of a
    regression in the unit of the data's targets, else logits. `test_correct` (N,), `constant_share` and `details` are
    those of Measures. `state` holds the plain tensors of the measured model, on the CPU. `left_out` says which metrics
    have no value. A diverged run has only times, and the step whose loss was the first not to be finite, counted from
    1, where it was a step's.
    """

    outcome: Outcome
    metrics: Mapping[str, float]
    confusion: Mapping[str, NDArray[np.int64]]
    test_outputs: NDArray[np.float32] | None
    test_targets: NDArray[Any] | None
    test_correct: NDArray[np.bool_] | None
    state: Mapping[str, Tensor]
    constant_share: float | None = None
    details: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    measured_epoch: int | None = None
    diverged_epoch: int | None = None
    diverged_step: int | None = None
    left_out: tuple[str, ...] = ()


EpochsTogether = Generator[tuple[EpochMetrics | None, ...], None, tuple[TrainingResult, ...]]
"""Yields each epoch's metrics by member, None of one that has ended before."""


def train(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    study_seed: int,
    seed: int,
    loss: Loss | None = None,
    objective: Objective = CLASSIFICATION,
    metrics: tuple[OwnMetric, ...] = (),
    class_weights: Tensor | None = None,
    checkpoints: Checkpoints | None = None,
) -> Generator[EpochMetrics, None, TrainingResult]:
    """Train `model`, already on the data's device, eagerly, and yield each epoch's metrics.

    Everything random is seeded from (study seed, purpose, seed index, epoch), so on a CPU, with the same number of
    threads, a run is repeated to the bit. Nothing synchronizes with the device inside an epoch. A loss that is NaN or
    infinite ends the run as diverged in that epoch; one that is so only when measured at the end, in the last epoch.
    torch's global generator is seeded anew for every epoch. Where the settings have a patience, the run ends after so
    many epochs without a better score on validation; where they have an `ema`, what is evaluated and kept is the
    average of the weights, and the weights themselves go on to be trained.

    `loss` is what is trained on: (outputs (B, …), targets (B, …)) to a scalar; the objective's own where not given,
    with `class_weights` (K,) and the settings' label smoothing. The running `train_loss` is of it; everything evaluated
    is the objective's plain loss, so that variants with different losses are compared on one scale.

    With `checkpoints`, it goes on after the last epoch that is kept there, yields those that follow, and comes to what
    it would have without the interruption.

    Raises:
        CodeInvalid: the loss returned something that cannot be trained on.
    """
    member = Member(
        model=model,
        data=data,
        settings=settings,
        seed=seed,
        objective=objective,
        metrics=metrics,
        class_weights=class_weights,
    )
    epochs = train_eager(member, study_seed=study_seed, loss=loss, checkpoints=checkpoints)
    while True:
        try:
            (measured,) = next(epochs)
        except StopIteration as end:
            results: tuple[TrainingResult, ...] = end.value
            return results[0]
        assert measured is not None
        yield measured


def train_eager(
    member: Member, *, study_seed: int, loss: Loss | None = None, checkpoints: Checkpoints | None = None
) -> EpochsTogether:
    """Train one member as `train` does."""
    lay_out(member)
    return train_members([member], EagerSteps(member, study_seed=study_seed, loss=loss), checkpoints)


def train_members(members: Sequence[Member], steps: Steps, checkpoints: Checkpoints | None = None) -> EpochsTogether:
    """Train the members of some steps to the end; one that diverges, or runs out of patience, leaves the others be.

    The seconds of an epoch, and so of a run, are the member's share of those it was trained in; a member that has ended
    takes its share of each step still.
    """
    runs = [_Run(member, steps, index) for index, member in enumerate(members)]
    epochs = members[0].settings.epochs
    done = _go_on(runs, steps, checkpoints)
    is_each_kept = any(metric.is_of_epochs for metric in members[0].metrics)
    heldout = steps.evaluate("heldout") if done == epochs else []
    for epoch in range(done + 1, epochs + 1):
        begun = time.perf_counter()
        means = steps.train_epoch(epoch)
        seconds = (time.perf_counter() - begun) / len(runs)
        samples, heldout = steps.evaluate("sample"), steps.evaluate("heldout", keeps_outputs=is_each_kept)
        measured = zip(runs, means, samples, heldout, strict=True)
        yield tuple(run.record(epoch, seconds, mean, sample, held) for run, mean, sample, held in measured)
        if all(run.has_ended for run in runs):
            break
        if checkpoints is not None and checkpoints.is_due():
            checkpoints.save([run.snapshot(epoch) for run in runs])
    return _results(runs, steps, heldout)


def _go_on(runs: Sequence["_Run"], steps: Steps, checkpoints: Checkpoints | None) -> int:
    """Go back to where the runs were left, and return after how many epochs that was.

    Raises:
        SnapshotMismatch: they are not what they were when the snapshots were taken.
    """
    kept = checkpoints.load() if checkpoints is not None else None
    if kept is None:
        return 0
    epoch = kept[0].epoch
    try:
        steps.restore([snapshot.steps for snapshot in kept], epoch)
    except (KeyError, ValueError, RuntimeError) as error:
        raise SnapshotMismatch(str(error)) from error
    for run, snapshot in zip(runs, kept, strict=True):
        run.go_on(snapshot)
    return epoch


def lay_out(member: Member) -> None:
    """Put the weights of convolutions over images into the layout of the batches."""
    is_deep = any(parameter.dim() > 4 for parameter in member.model.parameters())  # there is no such layout of these
    if member.data.images.dim() == 4 and not is_deep:
        member.model.to(memory_format=member.data.layout)


def _results(runs: Sequence["_Run"], steps: Steps, heldout: list[Evaluation]) -> tuple[TrainingResult, ...]:
    """Evaluate the measured models on test (unless that is at hand) and on the whole training split."""
    if all(run.is_diverged for run in runs):
        return tuple(run.diverged() for run in runs)
    steps.settle()
    for run in runs:
        run.restore()
    is_at_hand = all(run.is_measured_as_left for run in runs) and runs[0].keeps_outputs
    tests = heldout if is_at_hand else steps.evaluate("test", keeps_outputs=runs[0].wants_outputs)
    trained = steps.evaluate("train")
    return tuple(run.measure(test, whole) for run, test, whole in zip(runs, tests, trained, strict=True))


class _Run:
    """What one member has come to so far."""

    def __init__(self, member: Member, steps: Steps, index: int) -> None:
        self.data, self._objective, self._metrics = member.data, member.objective, member.metrics
        self.is_diverged, self.has_ended = False, False
        self._patience = member.settings.patience
        self._state_at_end: Tensors | None = None
        self._left_out: dict[str, None] = {}
        self._diverged_step: int | None = None
        self.best = EPOCH_CHOICES[member.settings.epoch_choice](steps, index, TASKS[member.objective.task])
        self._steps, self._index = steps, index
        self._curve: list[EpochMetrics] = []
        self._measured_epoch = member.settings.epochs

    @property
    def is_measured_as_left(self) -> bool:
        """Whether the last epoch's held-out evaluation is that on test, of the very model that is measured."""
        return self.data.validation is None and self.best is None and self._state_at_end is None

    @property
    def keeps_outputs(self) -> bool:
        """Whether every evaluation has its outputs."""
        return self._objective.keeps_outputs

    @property
    def wants_outputs(self) -> bool:
        """Whether the outputs on test are wanted where the task does not keep them: to be recorded, or measured."""
        objective = self._objective
        if objective.keeps_outputs:
            return False
        return bool(self._metrics) or BYTES * objective.size(self.data.test_labels) <= KEPT_OUTPUTS

    def record(
        self, epoch: int, seconds: float, means: RunningMeans, sample: Evaluation, heldout: Evaluation
    ) -> EpochMetrics | None:
        """Return the epoch's metrics, unless the run has ended before."""
        if self.has_ended:
            return None
        metrics = EpochMetrics(
            epoch=epoch,
            train=means.values,
            sample=sample.values,
            heldout={**heldout.values, **self._own_of_epoch(heldout)},
            learning_rate=means.learning_rate,
            seconds=seconds,
            images_per_second=len(self.data.train) / seconds,
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        self._curve.append(metrics)
        self.is_diverged = not metrics.is_finite
        self._diverged_step = means.diverged_step
        if self.best is not None and not self.is_diverged:
            self.best.consider(metrics)
        self._end_in_time()
        if self.has_ended and not self.is_diverged and self.best is None:
            self._state_at_end = copied(self._steps.state(self._index))  # others may go on in the same steps
        return metrics

    def _end_in_time(self) -> None:
        """See whether the epoch was the run's last, and is measured where no better one is chosen."""
        is_out = is_out_of_patience(self._curve, self._patience, self._objective.task)
        self.has_ended = self.is_diverged or is_out
        self._measured_epoch = self._curve[-1].epoch

    def snapshot(self, epoch: int) -> Snapshot:
        return Snapshot(
            epoch=epoch,
            curve=tuple(self._curve),
            steps=self._steps.snapshot(self._index),
            best=self.best.snapshot() if self.best is not None else None,
            diverged_step=self._diverged_step,
            ended=self._state_at_end,
        )

    def go_on(self, snapshot: Snapshot) -> None:
        self._curve = list(snapshot.curve)
        self.is_diverged = not self._curve[-1].is_finite
        self._diverged_step = snapshot.diverged_step
        self._end_in_time()
        self._state_at_end = snapshot.ended
        if self.best is not None and snapshot.best is not None:
            self.best.go_on(snapshot.best)

    def restore(self) -> None:
        """Put the measured epoch's weights back, where they are not those that the steps have left."""
        if self.best is not None and not self.is_diverged:
            self._measured_epoch = self.best.restore()
        if self._state_at_end is not None:
            _put_into(self._steps.state(self._index), self._state_at_end)

    def measure(self, test: Evaluation, trained: Evaluation) -> TrainingResult:
        if self.is_diverged:
            return self.diverged()
        data, objective = self.data, self._objective
        whole = test.whole(data.test_labels, data, objective)
        trained_whole = trained.whole(data.labels[data.train], data, objective)
        measures = objective.measures(whole)
        score = next(iter(test.scores))
        metrics = {
            **{f"test_{name}": value for name, value in test.scores.items()},
            "test_loss": test.loss,
            **measures.values,
            "learning_curve_area": sum(metrics.heldout[score] for metrics in self._curve) / len(self._curve),
            f"final_train_{score}": trained.scores[score],
            "final_train_loss": trained.loss,
            "generalization_gap": test.loss - trained.loss,
            "training_seconds": self._seconds,
        }
        if not all(map(math.isfinite, metrics.values())):
            return self.diverged()
        outputs, targets = self._answers(test, data.test_labels)
        own = self._own(self._metrics, outputs, targets)
        confusion = {"train": objective.confusion(trained_whole), "test": objective.confusion(whole)}
        is_kept = outputs is not None and (objective.keeps_outputs or outputs.nbytes <= KEPT_OUTPUTS)
        too_large = f"the test outputs are left out: they are more than {KEPT_OUTPUTS // 2**20} MiB"
        state = self._steps.state(self._index)
        return TrainingResult(
            outcome=Outcome.DONE,
            metrics={**metrics, **own},
            confusion={split: counts for split, counts in confusion.items() if counts is not None},
            test_outputs=outputs if is_kept else None,
            test_targets=targets if is_kept else None,
            test_correct=measures.correct,
            constant_share=measures.constant_share,
            details=measures.details,
            state={name: tensor.detach().cpu() for name, tensor in state.items()},
            measured_epoch=self._measured_epoch,
            left_out=(*measures.undefined, *self._left_out, *(() if is_kept else (too_large,))),
        )

    def _answers(self, test: Evaluation, targets: Tensor) -> tuple[NDArray[np.float32] | None, NDArray[Any]]:
        truth: NDArray[Any] = targets.cpu().numpy()
        if test.outputs is None:
            return None, truth
        return self._objective.answers(test.outputs, self.data.scale).float().cpu().numpy(), truth

    def _own_of_epoch(self, heldout: Evaluation) -> dict[str, float]:
        asked = [metric for metric in self._metrics if metric.is_of_epochs]
        if not asked:
            return {}
        _, labels, indices = split_of(self.data, "heldout")
        return self._own(asked, *self._answers(heldout, labels if indices is None else labels[indices]))

    def _own(
        self, metrics: Sequence[OwnMetric], outputs: NDArray[np.float32] | None, targets: NDArray[Any]
    ) -> dict[str, float]:
        """Return the user's own metrics that have a value."""
        if outputs is None:
            return {}
        found = {metric.name: metric.function(outputs, targets) for metric in metrics}
        self._left_out |= dict.fromkeys(remark for metric in metrics for remark in metric.remarks)
        for name in (name for name, value in found.items() if not math.isfinite(value)):
            self._left_out[f"metric {name} is left out: it is {found[name]}"] = None
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def diverged(self) -> TrainingResult:
        return TrainingResult(
            outcome=Outcome.DIVERGED,
            metrics={"training_seconds": self._seconds},
            confusion={},
            test_outputs=None,
            test_targets=None,
            test_correct=None,
            state={},
            diverged_epoch=self._curve[-1].epoch,
            diverged_step=self._diverged_step,
        )

    @property
    def _seconds(self) -> float:
        return sum(metrics.seconds for metrics in self._curve)


def _put_into(state: Tensors, values: Tensors) -> None:
    for name, tensor in state.items():
        tensor.detach().copy_(values[name])


class _BestEpoch:
    """Keeps the weights of the epoch with the best score on validation, the first where several have it."""

    def __init__(self, steps: Steps, member: int, task: Task) -> None:
        self._steps, self._member = steps, member
        self._score = task.score
        self._sign = SIGNS[task.direction_of(task.score)]
        self._value = -self._sign * math.inf
        self._epoch = 0
        self._state: dict[str, Tensor] = {}

    def consider(self, metrics: EpochMetrics) -> None:
        value = self._sign * metrics.heldout[self._score]
        if value > self._sign * self._value:
            self._value = metrics.heldout[self._score]
            self._epoch = metrics.epoch
            self._state = {name: tensor.detach().clone() for name, tensor in self._own_state().items()}

    def snapshot(self) -> BestSnapshot:
        return BestSnapshot(epoch=self._epoch, value=self._value, state=copied(self._state))

    def go_on(self, snapshot: BestSnapshot) -> None:
        self._epoch, self._value, self._state = snapshot.epoch, snapshot.value, snapshot.state

    def restore(self) -> int:
        """Put the best weights back into the model and return their epoch."""
        _put_into(self._own_state(), self._state)
        return self._epoch

    def _own_state(self) -> dict[str, Tensor]:
        return self._steps.state(self._member)


EPOCH_CHOICES: Mapping[str, Callable[[Steps, int, Task], _BestEpoch | None]] = {
    "last": lambda _steps, _member, _task: None,
    "best-validation": _BestEpoch,
}
"""What keeps the weights of the epoch that is measured, by name; None where that is the last."""
