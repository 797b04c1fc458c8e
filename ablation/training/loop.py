"""Trains models epoch by epoch, yielding metrics; a result holds what is measured once, at the end."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ablation.records import EpochMetrics, Outcome
from ablation.training.batches import TrainingData
from ablation.training.evaluation import Evaluation, brier_score, confusion_matrix
from ablation.training.settings import Loss, Member, TrainingSettings
from ablation.training.snapshots import BestSnapshot, Checkpoints, Snapshot, SnapshotMismatch, copied
from ablation.training.steps import EagerSteps, RunningMeans, Steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """How training ended, and what was measured at the chosen epoch, in evaluation mode.

    Confusion matrices are int64 counts [true class, predicted class]; `test_logits` float32 (N, classes) and
    `test_correct` bool (N,) are in the order of the test images; `state` holds the plain tensors of the measured
    model, on the CPU. A diverged run has only times, and the step whose loss was the first not to be finite, counted
    from 1, where it was a step's.
    """

    outcome: Outcome
    metrics: Mapping[str, float]
    confusion: Mapping[str, NDArray[np.int64]]
    test_logits: NDArray[np.float32] | None
    test_correct: NDArray[np.bool_] | None
    state: Mapping[str, Tensor]
    measured_epoch: int | None = None
    diverged_epoch: int | None = None
    diverged_step: int | None = None


EpochsTogether = Generator[tuple[EpochMetrics | None, ...], None, tuple[TrainingResult, ...]]
"""Yields each epoch's metrics by member, None of one that has diverged before."""


def train(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    study_seed: int,
    seed: int,
    loss: Loss = functional.cross_entropy,
    checkpoints: Checkpoints | None = None,
) -> Generator[EpochMetrics, None, TrainingResult]:
    """Train `model`, already on the data's device, eagerly, and yield each epoch's metrics.

    Everything random is seeded from (study seed, purpose, seed index, epoch), so on a CPU, with the same number of
    threads, a run is repeated to the bit. Nothing synchronizes with the device inside an epoch. A loss that is NaN or
    infinite ends the run as diverged in that epoch; one that is so only when measured at the end, in the last epoch.
    torch's global generator is seeded anew for every epoch.

    `loss` is what is trained on: (logits (B, classes), labels (B,)) to a scalar. The running `train_loss` is of it;
    everything evaluated stays cross entropy, so that variants with different losses are compared on one scale.

    With `checkpoints`, it goes on after the last epoch that is kept there, yields those that follow, and comes to what
    it would have without the interruption.

    Raises:
        CodeInvalid: the loss returned something that cannot be trained on.
    """
    member = Member(model=model, data=data, settings=settings, seed=seed)
    epochs = train_eager(member, study_seed=study_seed, loss=loss, checkpoints=checkpoints)
    while True:
        try:
            (metrics,) = next(epochs)
        except StopIteration as end:
            results: tuple[TrainingResult, ...] = end.value
            return results[0]
        assert metrics is not None
        yield metrics


def train_eager(
    member: Member, *, study_seed: int, loss: Loss, checkpoints: Checkpoints | None = None
) -> EpochsTogether:
    """Train one member as `train` does."""
    lay_out(member)
    return train_members([member], EagerSteps(member, study_seed=study_seed, loss=loss), checkpoints)


def train_members(members: Sequence[Member], steps: Steps, checkpoints: Checkpoints | None = None) -> EpochsTogether:
    """Train the members of some steps to the end, all for as many epochs; a member that diverges leaves the others be.

    The seconds of an epoch, and so of a run, are the member's share of those it was trained in.
    """
    runs = [_Run(member, steps, index) for index, member in enumerate(members)]
    epochs = members[0].settings.epochs
    done = _go_on(runs, steps, checkpoints)
    heldout = steps.evaluate("heldout") if done == epochs else []
    for epoch in range(done + 1, epochs + 1):
        begun = time.perf_counter()
        means = steps.train_epoch(epoch)
        seconds = (time.perf_counter() - begun) / len(runs)
        samples, heldout = steps.evaluate("sample"), steps.evaluate("heldout")
        measured = zip(runs, means, samples, heldout, strict=True)
        yield tuple(run.record(epoch, seconds, mean, sample, held) for run, mean, sample, held in measured)
        if all(run.is_diverged for run in runs):
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
    for run in runs:
        run.restore()
    is_at_hand = all(run.data.validation is None and run.best is None for run in runs)
    tests = heldout if is_at_hand else steps.evaluate("test")
    trained = steps.evaluate("train")
    return tuple(run.measure(test, whole) for run, test, whole in zip(runs, tests, trained, strict=True))


class _Run:
    """What one member has come to so far."""

    def __init__(self, member: Member, steps: Steps, index: int) -> None:
        self.data = member.data
        self.is_diverged = False
        self._diverged_step: int | None = None
        self.best = EPOCH_CHOICES[member.settings.epoch_choice](steps, index)
        self._steps, self._index = steps, index
        self._curve: list[EpochMetrics] = []
        self._measured_epoch = member.settings.epochs

    def record(
        self, epoch: int, seconds: float, means: RunningMeans, sample: Evaluation, heldout: Evaluation
    ) -> EpochMetrics | None:
        """Return the epoch's metrics, unless the run has diverged before."""
        if self.is_diverged:
            return None
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=means.loss,
            train_accuracy=means.accuracy,
            sample_loss=sample.loss,
            sample_accuracy=sample.accuracy,
            heldout_loss=heldout.loss,
            heldout_accuracy=heldout.accuracy,
            learning_rate=means.learning_rate,
            seconds=seconds,
            images_per_second=len(self.data.train) / seconds,
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        self._curve.append(metrics)
        self.is_diverged = _is_diverged(metrics)
        self._diverged_step = means.diverged_step
        if self.best is not None and not self.is_diverged:
            self.best.consider(metrics)
        return metrics

    def snapshot(self, epoch: int) -> Snapshot:
        return Snapshot(
            epoch=epoch,
            curve=tuple(self._curve),
            steps=self._steps.snapshot(self._index),
            best=self.best.snapshot() if self.best is not None else None,
            diverged_step=self._diverged_step,
        )

    def go_on(self, snapshot: Snapshot) -> None:
        self._curve = list(snapshot.curve)
        self.is_diverged = _is_diverged(self._curve[-1])
        self._diverged_step = snapshot.diverged_step
        if self.best is not None and snapshot.best is not None:
            self.best.go_on(snapshot.best)

    def restore(self) -> None:
        """Put the measured epoch's weights back, where they are not the last one's."""
        if self.best is not None and not self.is_diverged:
            self._measured_epoch = self.best.restore()

    def measure(self, test: Evaluation, trained: Evaluation) -> TrainingResult:
        if self.is_diverged:
            return self.diverged()
        data = self.data
        metrics = {
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
            "test_brier_score": brier_score(test.logits, data.test_labels),
            "learning_curve_area": sum(metrics.heldout_accuracy for metrics in self._curve) / len(self._curve),
            "final_train_accuracy": trained.accuracy,
            "final_train_loss": trained.loss,
            "generalization_gap": test.loss - trained.loss,
            "training_seconds": self._seconds,
        }
        if not all(map(math.isfinite, metrics.values())):
            return self.diverged()
        state = self._steps.state(self._index)
        return TrainingResult(
            outcome=Outcome.DONE,
            metrics=metrics,
            confusion={
                "train": confusion_matrix(trained.logits, data.labels[data.train]),
                "test": confusion_matrix(test.logits, data.test_labels),
            },
            test_logits=test.logits.float().cpu().numpy(),
            test_correct=(test.logits.argmax(1) == data.test_labels).cpu().numpy(),
            state={name: tensor.detach().cpu() for name, tensor in state.items()},
            measured_epoch=self._measured_epoch,
        )

    def diverged(self) -> TrainingResult:
        return TrainingResult(
            outcome=Outcome.DIVERGED,
            metrics={"training_seconds": self._seconds},
            confusion={},
            test_logits=None,
            test_correct=None,
            state={},
            diverged_epoch=self._curve[-1].epoch,
            diverged_step=self._diverged_step,
        )

    @property
    def _seconds(self) -> float:
        return sum(metrics.seconds for metrics in self._curve)


def _is_diverged(metrics: EpochMetrics) -> bool:
    return not all(map(math.isfinite, (metrics.train_loss, metrics.sample_loss, metrics.heldout_loss)))


class _BestEpoch:
    """Keeps the weights of the epoch with the highest validation accuracy, the first where several have it."""

    def __init__(self, steps: Steps, member: int) -> None:
        self._steps, self._member = steps, member
        self._accuracy = -1.0
        self._epoch = 0
        self._state: dict[str, Tensor] = {}

    def consider(self, metrics: EpochMetrics) -> None:
        if metrics.heldout_accuracy > self._accuracy:
            self._accuracy = metrics.heldout_accuracy
            self._epoch = metrics.epoch
            self._state = {name: tensor.detach().clone() for name, tensor in self._own_state().items()}

    def snapshot(self) -> BestSnapshot:
        return BestSnapshot(epoch=self._epoch, accuracy=self._accuracy, state=copied(self._state))

    def go_on(self, snapshot: BestSnapshot) -> None:
        self._epoch, self._accuracy, self._state = snapshot.epoch, snapshot.accuracy, snapshot.state

    def restore(self) -> int:
        """Put the best weights back into the model and return their epoch."""
        for name, tensor in self._own_state().items():
            tensor.detach().copy_(self._state[name])
        return self._epoch

    def _own_state(self) -> dict[str, Tensor]:
        return self._steps.state(self._member)


EPOCH_CHOICES: Mapping[str, Callable[[Steps, int], _BestEpoch | None]] = {
    "last": lambda _steps, _member: None,
    "best-validation": _BestEpoch,
}
"""What keeps the weights of the epoch that is measured, by name; None where that is the last."""
