"""What a task is, without computing anything: its targets, its metrics, what a run's epochs are followed by.

A task is the kind of target that the engine trains for. What is computed for it stands in `training/tasks`, what its
targets are checked by in `datasets`, its section of the report in `report`; each has one row per task too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ablation.records.metrics import Direction, Metric, Unit

TaskName = Literal["classification", "regression", "multilabel", "tokens", "segmentation"]
LossSetting = Literal["label_smoothing", "class_weights"]
ERROR_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of a regression's errors on test, prediction minus target, that are recorded."""
IGNORED = -100
"""The target of positions that count for nothing, unless a study names another: PyTorch's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a split is measured by beside its loss, at every epoch: `accuracy` in `validation_accuracy`.

    `meaningful` is the default half-width of its ROPE.
    """

    label: str
    direction: Direction
    unit: Unit
    meaningful: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A kind of target.

    `targets` says in words what a data set gives. `losses` are the names of those that it can be trained on, the usual
    one first; what is evaluated is always that one, plain. The first of `scores` is what runs are followed by: curves,
    the choice of an epoch, `learning_curve_area`. `loss_unit` is that of `test_loss`. `metrics` are what runs are
    compared on, by name: of the test split its scores, its loss and what is measured beside them, then those of curves
    and of the training split. A run is at chance whose metric `chance` is within the collapse margin of
    `chance_level`, or of the largest class's share where that is None. `has_positions` says whether an example has a
    target for each of its positions: outputs are kept up to a size only then. `loss_settings` are the settings of
    training that its own loss takes.
    """

    targets: str
    scores: Mapping[str, Score]
    losses: tuple[str, ...]
    loss_unit: Unit
    metrics: Mapping[str, Metric]
    chance: str
    chance_level: float | None
    default_metric: str
    has_confusion: bool
    has_classes: bool = True
    has_positions: bool = False
    loss_settings: tuple[LossSetting, ...] = ("label_smoothing", "class_weights")

    @property
    def has_one_answer(self) -> bool:
        """Whether each example has one answer that is right or wrong."""
        return self.has_confusion and not self.has_positions

    @property
    def score(self) -> str:
        """The name of what runs are followed by."""
        return next(iter(self.scores))

    def direction_of(self, objective: str) -> Direction:
        """Return which way is better of what an epoch is measured by: `loss`, or a score."""
        return "minimize" if objective == "loss" else self.scores[objective].direction


def _metrics(scores: Mapping[str, Score], loss_unit: Unit, further: Mapping[str, Metric]) -> dict[str, Metric]:
    """Return the metrics of a task, with `further` ones of its test split."""
    name, score = next(iter(scores.items()))
    of_test = {
        f"test_{each}": Metric(
            label=f"test {own.label}",
            direction=own.direction,
            unit=own.unit,
            tuned_by=each,
            meaningful=own.meaningful,
        )
        for each, own in scores.items()
    }
    area, trained = f"area under the held-out {score.label} curve", f"training {score.label} at the end"
    way, unit = score.direction, score.unit
    return {
        **of_test,
        "test_loss": Metric(label="test loss", direction="minimize", unit=loss_unit, tuned_by="loss"),
        **further,
        "learning_curve_area": Metric(label=area, direction=way, unit=unit, tuned_by=name, meaningful=score.meaningful),
        f"final_train_{name}": Metric(label=trained, direction=way, unit=unit, tuned_by=name),
        "final_train_loss": Metric(
            label="training loss at the end", direction="minimize", unit=loss_unit, tuned_by=name
        ),
        "generalization_gap": Metric(
            label="test loss minus training loss", direction="minimize", unit=loss_unit, tuned_by=name
        ),
        "training_seconds": Metric(label="seconds of training", direction="minimize", unit="seconds", tuned_by=name),
    }


def _task(*, further: Mapping[str, Metric], scores: Mapping[str, Score], loss_unit: Unit, **rest: Any) -> Task:
    return Task(scores=scores, loss_unit=loss_unit, metrics=_metrics(scores, loss_unit, further), **rest)


TASKS: Mapping[TaskName, Task] = {
    "classification": _task(
        targets="integers 0..K-1 or class names, one per input, (N,)",
        scores={"accuracy": Score(label="accuracy", direction="maximize", unit="fraction", meaningful=0.005)},
        losses=("cross_entropy",),
        loss_unit="nats",
        further={
            "test_brier_score": Metric(label="Brier score on test", direction="minimize", unit="score", tuned_by="loss")
        },
        chance="test_accuracy",
        chance_level=None,
        default_metric="test_accuracy",
        has_confusion=True,
    ),
    "regression": _task(
        targets="numbers, (N,) or (N, K)",
        scores={
            "rmse": Score(label="RMSE", direction="minimize", unit="target"),
            "mae": Score(label="MAE", direction="minimize", unit="target"),
            "r2": Score(label="R²", direction="maximize", unit="score"),
        },
        losses=("mse", "huber", "mae"),
        loss_unit="score",
        further={},
        chance="test_r2",
        chance_level=0.0,
        default_metric="test_rmse",
        has_confusion=False,
        has_classes=False,
        loss_settings=(),
    ),
    "multilabel": _task(
        targets="0 or 1 for each label, (N, K)",
        scores={"macro_f1": Score(label="macro F1", direction="maximize", unit="fraction", meaningful=0.005)},
        losses=("binary_cross_entropy",),
        loss_unit="nats",
        further={
            "test_auroc": Metric(
                label="test AUROC, the labels' mean", direction="maximize", unit="fraction", tuned_by="loss"
            ),
            "test_map": Metric(
                label="test average precision, the labels' mean", direction="maximize", unit="fraction", tuned_by="loss"
            ),
        },
        chance="test_auroc",
        chance_level=0.5,
        default_metric="test_macro_f1",
        has_confusion=False,
        loss_settings=("class_weights",),
    ),
    "tokens": _task(
        targets="integers 0..K-1 for each position of a sequence, (N, T), or the ignore index",
        scores={"accuracy": Score(label="accuracy per token", direction="maximize", unit="fraction", meaningful=0.005)},
        losses=("cross_entropy",),
        loss_unit="nats",
        further={
            "test_nll": Metric(
                label="test negative log-likelihood per token", direction="minimize", unit="nats", tuned_by="loss"
            ),
            "test_bits": Metric(label="test bits per token", direction="minimize", unit="bits", tuned_by="loss"),
        },
        chance="test_accuracy",
        chance_level=None,
        default_metric="test_nll",
        has_confusion=False,
        has_positions=True,
    ),
    "segmentation": _task(
        targets="integers 0..K-1 for each pixel, (N, H, W), or the ignore index",
        scores={
            "iou": Score(label="IoU", direction="maximize", unit="fraction", meaningful=0.005),
            "dice": Score(label="Dice", direction="maximize", unit="fraction", meaningful=0.005),
            "pixel_accuracy": Score(label="pixel accuracy", direction="maximize", unit="fraction", meaningful=0.005),
        },
        losses=("cross_entropy",),
        loss_unit="nats",
        further={},
        chance="test_pixel_accuracy",
        chance_level=None,
        default_metric="test_iou",
        has_confusion=True,
        has_positions=True,
    ),
}
ENGINE_METRICS = frozenset(name for task in TASKS.values() for name in task.metrics)
"""The names of all that the engine measures of a finished run, whatever its task."""
