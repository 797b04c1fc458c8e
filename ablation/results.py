"""The records that pass between stages, from the plan of a study to the result of a run; standard library only."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Self, get_args

_FILE_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,200}")
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_METRIC_NAME = re.compile(r"[/\w.\- :]{1,250}")
LONGEST_SHOWN = 60
MOST_NAMED = 5
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def is_recordable_name(name: str) -> bool:
    """Whether every tracker takes a metric or a parameter of that name.

    That is MLflow's rule, no looser: letters of any script, digits and ` _-./:`, at most 250 characters; as a path it
    leads to itself, and not up or to the root.
    """
    leads_to_itself = all(part not in ("", ".", "..") for part in name.split("/"))
    return bool(_METRIC_NAME.fullmatch(name)) and leads_to_itself and not name.startswith("..")


def is_study_name(name: str) -> bool:
    """Whether a study may have that name, also one of an earlier version: as a folder's name it leads nowhere else."""
    return _FILE_NAME.fullmatch(name) is not None


def is_identity(text: str) -> bool:
    """Whether a text may be a run's identity, which is a folder's name too."""
    return _IDENTITY.fullmatch(text) is not None


def unrecordable_name_text(name: object) -> str:
    """Say that a metric of that name is not recorded."""
    text = ascii(name)
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    return f"metric {shown} is left out: a name has 1 to 250 letters, digits and ` _-./:`, and is no path elsewhere"


def recordable_text(text: str) -> str:
    """Return a text as every tracker takes it: NUL and halves of surrogate pairs as backslash escapes."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).replace("\0", "\\x00")


Direction = Literal["maximize", "minimize"]
SIGNS: Mapping[str, int] = {"maximize": 1, "minimize": -1}
"""What a value is multiplied with so that more is better, by direction."""
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number that every finished run has; `meaningful` is the default half-width of its ROPE, where there is one."""

    label: str
    direction: Direction
    unit: Literal["fraction", "nats", "score", "seconds"]
    meaningful: float | None = None


METRICS: Mapping[str, Metric] = {
    "test_accuracy": Metric(label="test accuracy", direction="maximize", unit="fraction", meaningful=0.005),
    "test_loss": Metric(label="test loss", direction="minimize", unit="nats"),
    "test_brier_score": Metric(label="Brier score on test", direction="minimize", unit="score"),
    "learning_curve_area": Metric(
        label="area under the held-out accuracy curve", direction="maximize", unit="fraction", meaningful=0.005
    ),
    "final_train_accuracy": Metric(label="training accuracy at the end", direction="maximize", unit="fraction"),
    "final_train_loss": Metric(label="training loss at the end", direction="minimize", unit="nats"),
    "generalization_gap": Metric(label="test loss minus training loss", direction="minimize", unit="nats"),
    "training_seconds": Metric(label="seconds of training", direction="minimize", unit="seconds"),
}


FIRST_MEASURED = (
    "test_accuracy",
    "test_loss",
    "test_brier_score",
    "learning_curve_area",
    "final_train_accuracy",
    "final_train_loss",
    "generalization_gap",
    "training_seconds",
)
"""What every run measured before plans had a list of their own; never to be changed."""
RUN_COLUMNS = ("variant", "seed", "identity", "run_id", "outcome", "is_collapsed", "device", "host", "error")
"""What a run table has beside factors and metrics: no compared metric and no part of a model is called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataShape:
    """What a model needs to know of a data set before any of it is read: image size and class names.

    `features` is the shape of one input of a data set of floating features, whose image size is 0; empty for images.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    features: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input as the model gets it, without the batch."""
        return self.features or (self.channels, self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOutline:
    """What planning needs to know of a data set that is not prepared yet; `notes` say how it is read."""

    shape: DataShape
    train_images: int
    test_images: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is recorded of a prepared data set: its name, the SHA-256 of its content, shape and sizes.

    `notes` say in sentences how its files were read, and which were not.
    """

    name: str
    digest: str
    shape: DataShape
    train_images: int
    test_images: int
    largest_class_share: float
    """Share of the test images that the most frequent class has: the accuracy of always answering it."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One leaf module: its dotted name, type, trainable parameters and output shape without the batch."""

    name: str
    type: str
    parameters: int
    output_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One module of a model, its children counted with it; shapes are of its first call, None where there is none.

    `parameters` are the trainable ones, `flops` those of one example's forward pass; `reason` says why it cannot be
    removed, and is empty where it can.
    """

    name: str
    type: str
    parameters: int
    flops: int
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    is_removable: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """The size of a model; `flops` is one image's forward pass, a multiply and an add counted as two."""

    parameters: int
    flops: int
    layers: tuple[Layer, ...]


NOT_MEASURED = ModelSummary(parameters=0, flops=0, layers=())
"""Of a model that is built by nobody here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """An assignment of levels to factors, and the settings it resolves to.

    `settings` holds the sections data, model and training whole; `configuration` is the part of them that can alter a
    result (no paths, no settings without effect), which identities are made from.
    """

    name: str
    levels: Mapping[str, Any]
    settings: Mapping[str, Any]
    configuration: Mapping[str, Any]
    is_baseline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run (variant × seed) and its identity."""

    identity: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.variant}/seed-{self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningTrial:
    """One trial of a variant's tuning: the settings tried, and what they reached on validation.

    `value` is the mean over the trial's seed indices, None where it has none (pruned, diverged or failed); `curve` is
    the first seed index's by epoch. `seconds` is the training of all of them.
    """

    number: int
    settings: Mapping[str, Any]
    outcome: Literal["done", "pruned", "diverged", "failed"]
    value: float | None
    curve: tuple[float, ...]
    seconds: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedVariant:
    """A variant's tuning: every trial, and the settings of the best, which its compared runs are trained with."""

    variant: str
    trials: tuple[TuningTrial, ...]
    chosen: int
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A study before it costs anything, complete: what MLflow keeps of it and the report is made from.

    `study` is the checked study file as plain values; `locked` the part that was fixed before the first run (metric,
    questions, ROPE, alpha, seeds, collapse rule); `deviations` says in sentences what was changed since; `tuning` is
    what each variant's settings were found by, where the study tunes them; `code` has the digest of the user's code
    that a variant names, by variant. Two variants whose settings came out the same share their runs' identities.
    `measured` are the metrics that its runs have, whatever METRICS has come to hold since. `same_starts` are the
    variants whose models start from the same weights with every seed, by their names in the design.
    """

    study: Mapping[str, Any]
    variants: tuple[Variant, ...]
    summaries: Mapping[str, ModelSummary]
    runs: tuple[PlannedRun, ...]
    data: DataFacts
    locked: Mapping[str, Any]
    locked_hash: str
    deviations: tuple[str, ...] = ()
    tuning: tuple[TunedVariant, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    measured: tuple[str, ...] = FIRST_MEASURED
    same_starts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.study["name"])

    @property
    def baseline(self) -> Variant:
        return next(variant for variant in self.variants if variant.is_baseline)

    def variant(self, name: str) -> Variant:
        """Return the variant of that name."""
        return next(variant for variant in self.variants if variant.name == name)

    def of_trained_models(self) -> "Plan":
        """Return the plan without the sizes of models that a training function of the user's did not train.

        Plans of earlier versions have those of the file's `model`, whatever the function makes of it.
        """
        if not self.is_own_training:
            return self
        return replace(self, summaries=dict.fromkeys(self.summaries, NOT_MEASURED))

    def runs_to_train(self) -> tuple[PlannedRun, ...]:
        """Return the planned runs, each identity once."""
        first: dict[str, PlannedRun] = {}
        for run in self.runs:
            first.setdefault(run.identity, run)
        return tuple(first.values())

    @property
    def heldout_split(self) -> Literal["validation", "test"]:
        """The split that the per-epoch curves are drawn on."""
        return "test" if (self.study.get("data") or {}).get("validation") == "none" else "validation"

    @property
    def is_own_training(self) -> bool:
        """Whether a training function of the user's trains, which measures what it likes."""
        return "name" in self.study.get("training", {})

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What is compared beside the study's metric: what is measured, and what it declares of its own function."""
        chosen = self.locked["metric"]
        own = {**self.study.get("metrics", {}), chosen["name"]: chosen["direction"]}
        declared = {name: Metric(label=name, direction=way, unit="score") for name, way in own.items()}
        asked = [chosen["name"], *(question.get("on") for question in self.locked["questions"])]
        known = {name: METRICS[name] for name in (*self.measured, *asked) if name in METRICS}
        return {**declared, **known} if self.is_own_training else {**known, **declared, **known}

    @property
    def expected_metrics(self) -> tuple[str, ...]:
        """What every finished run of the study must have measured."""
        if not self.is_own_training:
            return tuple(name for name in self.measured if name in METRICS)
        return tuple(dict.fromkeys((self.locked["metric"]["name"], *self.study.get("metrics", {}))))


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """What one epoch of training showed.

    `train_loss` and `train_accuracy` are running means over the epoch's batches, in training mode, as Keras shows
    them; `sample_*` are in evaluation mode on a fixed sample of training images, at the epoch's end; `heldout_*` are
    on validation, or on test where the study has no validation split. `epoch` counts from 1.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    sample_loss: float
    sample_accuracy: float
    heldout_loss: float
    heldout_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedEpoch:
    """What a training function of the user's reported of one epoch, or whatever it counts; `epoch` counts from 1."""

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
    """How a run ended, and its final metrics (see METRICS; none of them non-finite, none at all where it failed).

    `path` is how it was trained: eager, graph or fused, empty where a function of the user's trained it; `path_note`
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


def is_count(value: object) -> bool:
    """Whether a value is a whole number that every database keeps exactly: from 0 to 2⁵³."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53


def is_number(value: object) -> bool:
    """Whether a value is a finite number; trackers keep an infinite one as the largest there is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < sys.float_info.max


def _is_metric(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and is_recordable_name(name) and is_number(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvaluation:
    """What a finished run's model answered, at the measured epoch; kept as the artifact EVALUATION_FILE.

    `confusion` gives counts [true class][predicted class] for the splits `train` and `test`; `test_correct` has a
    character per test image, in the order of the data set: 1 where the answer was right, else 0.
    """

    confusion: Mapping[str, tuple[tuple[int, ...], ...]]
    test_correct: str

    def to_json(self) -> dict[str, Any]:
        return {"confusion": dict(self.confusion), "test_correct": self.test_correct}

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
            correct = document["test_correct"]
        except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not an evaluation: {error!r}") from None
        is_square = all(len(row) == len(rows) for rows in confusion.values() for row in rows)
        if not is_square or not isinstance(correct, str) or set(correct) - {"0", "1"}:
            raise ValueError("not an evaluation: its matrices are not square, or its answers not 0 and 1")
        return cls(confusion=confusion, test_correct=correct)


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
    empty. `curves` gives (epoch, value) pairs by the names of `epoch_metrics`; `confusion` and `test_correct` are those
    of RunEvaluation. `commit` and `versions` (of libraries, by name) say what trained it; `problems`, in words, what
    of its record is missing or damaged. `device` names the path too that trained the run there: `cuda:0, fused`.
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


def same_starts_text(variants: Sequence[str]) -> str:
    """Say what the spread over seeds lacks where models start from the same weights with every seed."""
    named = ", ".join(variants[:MOST_NAMED]) + (
        f" and {len(variants) - MOST_NAMED} more" * (len(variants) > MOST_NAMED)
    )
    return (
        f"The model starts from the same weights whatever the seed ({named}): its code seeds itself, or loads them. So "
        "the spread over seeds does not hold what another initialization would change"
    )


def device_and_path(device: str, path: str) -> str:
    """Return where and how a run was trained, as one text: seconds are compared only where it is the same.

    The eager path of a CPU is not named.
    """
    is_usual = not path or (device == "cpu" and path == "eager")
    return device if is_usual else f"{device}, {path}"


def epoch_metrics(epoch: Epoch, *, heldout_split: str) -> dict[str, float]:
    """Return an epoch's metrics by the names they are recorded under, each split named."""
    if isinstance(epoch, ReportedEpoch):
        return dict(epoch.metrics)
    return {
        "train_loss": epoch.train_loss,
        "train_accuracy": epoch.train_accuracy,
        "train_sample_loss": epoch.sample_loss,
        "train_sample_accuracy": epoch.sample_accuracy,
        f"{heldout_split}_loss": epoch.heldout_loss,
        f"{heldout_split}_accuracy": epoch.heldout_accuracy,
        "learning_rate": epoch.learning_rate,
        "epoch_seconds": epoch.seconds,
        "images_per_second": epoch.images_per_second,
    }
