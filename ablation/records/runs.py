"""What a run measured and how it ended, as its folder has it and as the tracker does."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self, get_args

from ablation.records.metrics import is_count, is_number
from ablation.records.names import is_recordable_name, recordable_text, unrecordable_name_text
from ablation.records.plan import Plan, PlannedRun
from ablation.records.tasks import TASKS, TaskName

EVALUATION_FILE = "evaluation.json"
SCALE_DETAILS = ("target_mean", "target_deviation")
"""Details of a regression whose targets were standardized, by which its model's answers are turned back."""
MODEL_FILE = "model_state.pt"
"""A finished run's tensors by their names, as torch saves them."""
KEPT_OUTPUTS = 64 * 2**20
"""Bytes of a run's outputs on test, as float32, up to which they are kept with it."""
RUN_COLUMNS = ("variant", "seed", "identity", "run_id", "outcome", "is_collapsed", "device", "host", "error")
"""What a run table has beside factors and metrics: no compared metric and no part of a model is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """What one epoch of training showed.

    `train`, `sample` and `heldout` give the loss, the task's scores and metrics of the user's own by their names:
    `loss`, `accuracy`. `train` are running means over the epoch's batches, in training mode, as Keras shows them;
    `sample` are in evaluation mode on a fixed sample of training examples, at the epoch's end; `heldout` are on
    validation, or on test where the study has no validation split. `epoch` counts from 1.
    """

    epoch: int
    train: Mapping[str, float]
    sample: Mapping[str, float]
    heldout: Mapping[str, float]
    learning_rate: float
    seconds: float
    images_per_second: float
    timestamp_ms: int

    def by_name(self, heldout_split: str) -> dict[str, float]:
        """Return the metrics by the names they are recorded under, each split named."""
        splits = {"train": self.train, "train_sample": self.sample, heldout_split: self.heldout}
        return {
            **{f"{split}_{name}": value for split, values in splits.items() for name, value in values.items()},
            "learning_rate": self.learning_rate,
            "epoch_seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }

    @property
    def is_finite(self) -> bool:
        """Whether all its losses are finite: a run has diverged in an epoch where one is not."""
        return all(math.isfinite(values["loss"]) for values in (self.train, self.sample, self.heldout))

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` gave, of earlier versions too: `train_loss` and `train_accuracy` beside it.

        Raises:
            TypeError, KeyError: it is something else.
        """
        if "train" in values:
            return cls(**values)
        splits: dict[str, Any] = {
            split: {name: values[f"{split}_{name}"] for name in ("loss", "accuracy")} for split in _SPLITS
        }
        return cls(**splits, **{name: values[name] for name in _OF_EPOCHS})


_SPLITS = ("train", "sample", "heldout")
_OF_EPOCHS = ("epoch", "learning_rate", "seconds", "images_per_second", "timestamp_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEpoch:
    """What a user's training function reported of one epoch, or whatever it counts; `epoch` counts from 1."""

    epoch: int
    metrics: Mapping[str, float]
    timestamp_ms: int


Epoch = EpochMetrics | ReportedEpoch
Failure = Literal["out of memory", "code", "metrics", "lost worker", "record"]
"""Why a run failed: the device's memory or the machine's, an error of the code's, what the training function returned,
its process was killed, or MLflow refuses its record."""


class Outcome(StrEnum):
    """How a run ended: with a result (`done`, `diverged`) or without one (`failed`)."""

    DONE = "done"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def is_result(self) -> bool:
        return _IS_RESULT[self]


_IS_RESULT: Mapping[Outcome, bool] = {Outcome.DONE: True, Outcome.DIVERGED: True, Outcome.FAILED: False}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run ended, and its final metrics (see Task.metrics; none of them non-finite, none at all where it failed).

    `path` is how it was trained: eager, graph or fused, empty where a user's function trained it; `path_note`
    says how it was fused, or why it was trained by no faster path. `failure` is the class of a failed run's error.
    `left_out` says in sentences what is not recorded: what the training function gave and no tracker takes, and what
    could not be drawn. `is_first` is whether its worker had trained nothing before, so that its seconds hold what a
    process imports and prepares once; it says nothing of what was trained, and two results that differ in it alone are
    equal.

    Whatever there is one of can be recorded: texts that no database takes are kept as escapes.

    Raises:
        ValueError: a field has another type, a metric no finite value or a name that no tracker takes.
    """

    identity: str
    outcome: Outcome
    metrics: Mapping[str, float]
    epochs: int
    diverged_epoch: int | None = None
    diverged_step: int | None = None
    error: str | None = None
    failure: Failure | None = None
    path: str = ""
    path_note: str = ""
    ended_ms: int = 0
    left_out: tuple[str, ...] = ()
    is_first: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        wrong = [name for name, is_right in self._checked() if not is_right]
        if wrong:
            raise ValueError(f"no result of a run, for its {', '.join(wrong)}")
        for name in ("error", "path", "path_note"):
            text = getattr(self, name)
            object.__setattr__(self, name, text if text is None else recordable_text(text))
        object.__setattr__(self, "left_out", tuple(map(recordable_text, self.left_out)))

    def _checked(self) -> Iterator[tuple[str, bool]]:
        yield "identity", isinstance(self.identity, str)
        yield "outcome", isinstance(self.outcome, Outcome)
        yield "metrics", isinstance(self.metrics, Mapping) and all(map(_is_metric, self.metrics.items()))
        yield "epochs", is_count(self.epochs)
        yield "diverged_epoch", self.diverged_epoch is None or is_count(self.diverged_epoch)
        yield "diverged_step", self.diverged_step is None or is_count(self.diverged_step)
        yield "error", self.error is None or isinstance(self.error, str)
        yield "failure", self.failure is None or self.failure in get_args(Failure)
        yield "path", isinstance(self.path, str)
        yield "path_note", isinstance(self.path_note, str)
        yield "ended_ms", is_count(self.ended_ms)
        yield "is_first", isinstance(self.is_first, bool)
        yield "left_out", isinstance(self.left_out, tuple) and all(isinstance(one, str) for one in self.left_out)

    @classmethod
    def from_plain(cls, values: Any) -> Self:
        """Read what `dataclasses.asdict` gave, of earlier versions too: their metrics may have names to leave out.

        Raises:
            ValueError: it is something else.
        """
        try:
            kept = {name: value for name, value in values["metrics"].items() if is_recordable_name(name)}
            odd = [unrecordable_name_text(name) for name in values["metrics"] if name not in kept]
            left_out = (*values.get("left_out", ()), *odd)
            return cls(**{**values, "outcome": Outcome(values["outcome"]), "metrics": kept, "left_out": left_out})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no result of a run: {error!r}") from None


def _is_metric(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and is_recordable_name(name) and is_number(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvaluation:
    """What a finished run's model answered, at the measured epoch; kept as the artifact EVALUATION_FILE.

    `confusion` gives counts [true class][predicted class] for the splits `train` and `test`, where the task has such;
    `test_correct` has a character per test image of a classification, in the order of the data set: 1 where the answer
    was right, else 0. `constant_share` is the share of the test answers that are the commonest one, None where
    `confusion` tells it; `details` are a task's own numbers of the test split, by name, such as the F1 of each label.
    """

    confusion: Mapping[str, tuple[tuple[int, ...], ...]]
    test_correct: str
    constant_share: float | None = None
    details: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        further = {"constant_share": self.constant_share, "details": dict(self.details)}
        return {
            "confusion": dict(self.confusion),
            "test_correct": self.test_correct,
            **{name: value for name, value in further.items() if value},
        }

    @classmethod
    def from_json(cls, text: str) -> "RunEvaluation":
        """Read what `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        try:
            document = json.loads(text)
            confusion = {
                str(split): tuple(tuple(int(count) for count in row) for row in rows)
                for split, rows in document["confusion"].items()
            }
            correct, share = document["test_correct"], document.get("constant_share")
            details = {
                str(name): tuple(float(value) for value in values)
                for name, values in document.get("details", {}).items()
            }
        except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not an evaluation: {error!r}") from None
        is_square = all(len(row) == len(rows) for rows in confusion.values() for row in rows)
        if not is_square or not isinstance(correct, str) or set(correct) - {"0", "1"}:
            raise ValueError("not an evaluation: its matrices are not square, or its answers not 0 and 1")
        if not (share is None or is_number(share)) or not all(map(is_number, itertools.chain(*details.values()))):
            raise ValueError("not an evaluation: its numbers are not finite")
        return cls(confusion=confusion, test_correct=correct, constant_share=share, details=details)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A run that stands beside the study's, and why the report does not count it."""

    run_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A planned run as the tracker has it, or the lack of it.

    `outcome` is None where there is no result yet (never started, under way, interrupted), then all else may be
    empty. `curves` gives (epoch, value) pairs by the names of `epoch_metrics`; `confusion`, `test_correct`,
    `constant_share` and `details` are those of RunEvaluation. `commit` and `versions` (of libraries, by name) say what
    trained it; `problems`, in words, what of its record is missing or damaged. `device` names the path too that trained
    the run there: `cuda:0, fused`.
    `is_first` is that of RunResult, and False of versions that did not record it.
    `attempt` is that of the run's folder which it is the record of, empty where it is not known; `is_read_back`
    whether the metrics were seen to be those of the folder when they were recorded.
    """

    planned: PlannedRun
    run_id: str | None
    outcome: Outcome | None
    metrics: Mapping[str, float]
    curves: Mapping[str, tuple[tuple[int, float], ...]]
    confusion: Mapping[str, tuple[tuple[int, ...], ...]]
    test_correct: str = ""
    constant_share: float | None = None
    details: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    device: str = ""
    host: str = ""
    commit: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    error: str | None = None
    failure: Failure | None = None
    diverged_epoch: int | None = None
    is_first: bool = False
    attempt: str = ""
    is_read_back: bool = False

    @property
    def has_result(self) -> bool:
        return self.outcome is not None and self.outcome.is_result


def is_at_chance(plan: Plan, variant: str, outcome: Outcome | None, metrics: Mapping[str, float]) -> bool:
    """Whether a variant's finished run is no better than a constant answer, give or take the plan's margin.

    What it answered then tells whether it collapsed. Of a task that has classes, no run is where the data has none, as
    with a user's training function.
    """
    task, data = TASKS[plan.task], plan.data_of(variant)
    if outcome is not Outcome.DONE or (task.has_classes and not data.shape.classes):
        return False
    level = data.largest_class_share if task.chance_level is None else task.chance_level
    return metrics.get(task.chance, math.nan) <= level + plan.locked.collapse_margin


def output_file(task: TaskName) -> tuple[str, str]:
    """Return the file of a finished run's outputs on test, and their name in it, beside `targets`."""
    return ("test_logits.npz", "logits") if task == "classification" else ("test_outputs.npz", "outputs")


def device_and_path(device: str, path: str) -> str:
    """Return where and how a run was trained, as one text: seconds are compared only where it is the same.

    The eager path of a CPU is not named.
    """
    is_usual = not path or (device == "cpu" and path == "eager")
    return device if is_usual else f"{device}, {path}"


def epoch_metrics(epoch: Epoch, *, heldout_split: str) -> dict[str, float]:
    """Return an epoch's metrics by the names they are recorded under, each split named."""
    return dict(epoch.metrics) if isinstance(epoch, ReportedEpoch) else epoch.by_name(heldout_split)
