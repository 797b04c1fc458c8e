"""Runs a user's training function, `train(settings, seed, report)`, and turns what it returns into a result."""

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from ablation.code import CodeFolders
from ablation.datasets import Dataset, Split
from ablation.errors import CodeInvalid
from ablation.records import Outcome, ReportedEpoch, Settings, is_number, is_recordable_name, unrecordable_name_text
from ablation.streams import Purpose, stream_seed
from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_mlflow import own_mlflow_runs
from ablation.worker.setup import seed_generators

PATH = "training.name"
SECTIONS = ("data", "model", "training")
MAX_BATCHES = "max_batches"
MEASURED_ANYWAY = ("training_seconds", "peak_memory_mib", "total_seconds")
"""Metrics that a run has whatever its training function returns; what it returns itself under such a name counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitData:
    """What a training function that takes `data` is given: the study's data set, split for the seed.

    Inputs are uint8 images (N, H, W, C), float32 features or int32 ids (N, …). Targets are as the data set has them:
    int64 classes (N,), float32 numbers (N,) or (N, K) of a regression, uint8 0 or 1 (N, K) of multilabel, int32 (N, T)
    of tokens and (N, H, W) of segmentation. `validation` is None where the study holds none out. The arrays are
    read-only.
    """

    train: tuple[Any, Any]
    validation: tuple[Any, Any] | None
    test: tuple[Any, Any]
    classes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Report:
    """Takes the metrics of one epoch per call, by name: `report(validation_accuracy=0.9)`.

    `folder` is the run's own: what the function leaves there is kept with the run in MLflow. `left_out` says of which
    entries nothing is recorded.
    """

    folder: Path
    on_epoch: Callable[[ReportedEpoch], None]
    epochs: list[ReportedEpoch] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __call__(self, metrics: Mapping[str, float] | None = None, /, **more: float) -> None:
        values, left_out = checked_metrics({**(metrics or {}), **more}, what="reported")
        self.left_out += [said for said in left_out if said not in self.left_out]
        epoch = ReportedEpoch(
            epoch=len(self.epochs) + 1,
            metrics={name: value for name, value in values.items() if math.isfinite(value)},
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        self.epochs.append(epoch)
        self.on_epoch(epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnResult:
    """How a training function ended: its metrics, all of them finite, and of which entries nothing is recorded."""

    outcome: Outcome
    metrics: Mapping[str, float]
    left_out: tuple[str, ...]


def load_training(name: str, code: CodeFolders) -> Callable[..., Any]:
    """Return the function, which must take three arguments by position.

    Raises:
        CodeInvalid: it cannot be imported, or takes other arguments.
    """
    function: Callable[..., Any] = code.load(name, path=PATH)
    try:
        inspect.signature(function).bind(None, None, None, **dict.fromkeys(offered_names(function)))
    except TypeError as error:
        message = (
            f"{name} must take (settings, seed, report), and `data` or `{MAX_BATCHES}` by name if it likes: {error}"
        )
        raise CodeInvalid(message, path=PATH) from None
    except ValueError:  # it is not written in Python
        pass
    return function


def train_own(
    function: Callable[..., Any],
    settings: Settings,
    *,
    seed: int,
    report: Report,
    data: SplitData | None,
    expected: Sequence[str] = (),
    max_batches: int | None = None,
) -> OwnResult:
    """Call a training function and return how it ended, with what it measured and the seconds it took.

    It is given the sections data, model and training as plain values, and a number below 2³² for its random streams
    that is the same in every variant of the seed index; Python's, NumPy's and PyTorch's own generators are seeded with
    it too. `expected` are the metrics that the study compares on: one that is NaN or infinite makes the run a diverged
    one. Of the others, what cannot be recorded is left out. Seconds that it returns itself stand in the place of ours.

    Raises:
        MetricsUnfit: what it returned are no metrics, or lack an expected one.
    """
    number = stream_seed(settings.study_seed, Purpose.INITIALIZATION, seed) % 2**32
    seed_generators(number)
    offered = {"data": data, MAX_BATCHES: max_batches}
    sections = {name: section for name, section in settings.plain().items() if name in SECTIONS and section is not None}
    begun = time.perf_counter()
    with own_mlflow_runs():
        returned = function(sections, number, report, **{name: offered[name] for name in offered_names(function)})
    seconds = {"training_seconds": time.perf_counter() - begun}
    metrics, left_out = checked_metrics(returned, what="returned")
    missing = [name for name in expected if name not in (*metrics, *MEASURED_ANYWAY)]
    if missing:
        raise MetricsUnfit(
            f"the training function returned {', '.join(sorted(metrics)) or 'nothing'}, and not {', '.join(missing)}: "
            "return it, or name another metric of the study (metric.name, metrics)"
            + "".join(f"; {s}" for s in left_out)
        )
    finite = {name: value for name, value in metrics.items() if is_number(value)}
    if any(name in expected for name in metrics.keys() - finite.keys()):
        return OwnResult(outcome=Outcome.DIVERGED, metrics=seconds, left_out=left_out)
    odd = (f"metric {name!r} is left out: it is {value}" for name, value in metrics.items() if name not in finite)
    return OwnResult(outcome=Outcome.DONE, metrics={**seconds, **finite}, left_out=(*left_out, *odd))


def checked_metrics(values: Any, *, what: str) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the metrics that have a name and a number, which may not be finite, and in sentences which have not.

    Truth values count as 0 and 1.

    Raises:
        MetricsUnfit: it is no mapping.
    """
    if not isinstance(values, Mapping):
        raise MetricsUnfit(
            f"a training function gives metrics as a mapping of names to numbers; it {what} a {type(values).__name__}"
        )
    found, left_out = {}, []
    for name, value in values.items():
        number = _number(value)
        if not isinstance(name, str) or not is_recordable_name(name):
            left_out.append(unrecordable_name_text(name))
        elif number is None:
            left_out.append(f"metric {name!r} is left out: it is no number but a {type(value).__name__}")
        else:
            found[name] = number
    return found, tuple(left_out)


def _number(value: Any) -> float | None:
    """Return a number of Python's, NumPy's or PyTorch's as a float, None for anything else."""
    try:
        number = value.item() if hasattr(value, "item") else value
        return float(number) if isinstance(number, Real) else None
    except OverflowError:
        return math.inf
    except Exception:  # noqa: BLE001 - the user's object is asked, and it is no number
        return None


def split_data(dataset: Dataset, split: Split) -> SplitData:
    def part(indices: Any) -> tuple[Any, Any]:
        return dataset.train_images[indices], dataset.train_labels[indices]

    return SplitData(
        train=part(split.train),
        validation=part(split.validation) if split.validation is not None else None,
        test=part(split.test) if split.test is not None else (dataset.test_images, dataset.test_labels),
        classes=dataset.facts.shape.classes,
    )


def offered_names(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in ("data", MAX_BATCHES) if name in list(parameters)[3:]]
