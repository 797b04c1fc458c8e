"""Runs a training function of the user's, `train(settings, seed, report)`, and turns what it returns into a result."""

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
from ablation.results import Outcome, ReportedEpoch
from ablation.streams import Purpose, stream_seed
from ablation.worker.beginning import seed_generators

PATH = "training.name"
MAX_BATCHES = "max_batches"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitData:
    """What a training function that takes `data` is given: the study's data set, split for the seed.

    Inputs are uint8 images (N, H, W, C) or float32 features (N, …), labels int64 (N,); `validation` is None where the
    study holds none out. The arrays are read-only.
    """

    train: tuple[Any, Any]
    validation: tuple[Any, Any] | None
    test: tuple[Any, Any]
    classes: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Report:
    """Takes the metrics of one epoch per call, by name: `report(validation_accuracy=0.9)`.

    `folder` is the run's own: what the function leaves there is kept with the run in MLflow.
    """

    folder: Path
    on_epoch: Callable[[ReportedEpoch], None]
    epochs: list[ReportedEpoch] = field(default_factory=list)

    def __call__(self, metrics: Mapping[str, float] | None = None, /, **more: float) -> None:
        values = checked_metrics({**(metrics or {}), **more}, what="reported")
        epoch = ReportedEpoch(
            epoch=len(self.epochs) + 1,
            metrics={name: value for name, value in values.items() if math.isfinite(value)},
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        self.epochs.append(epoch)
        self.on_epoch(epoch)


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
    settings: Mapping[str, Any],
    *,
    seed: int,
    report: Report,
    data: SplitData | None,
    expected: Sequence[str] = (),
    max_batches: int | None = None,
) -> tuple[Outcome, dict[str, float]]:
    """Call a training function and return how it ended, with what it measured and the seconds it took.

    It is given the sections data, model and training as plain values, and a number below 2³² for its random streams
    that is the same in every variant of the seed index; Python's, NumPy's and PyTorch's own generators are seeded with
    it too. A metric that is NaN or infinite makes the run a diverged one. `expected` are the metrics that the study
    compares on.

    Raises:
        TypeError, ValueError: what it returned are no metrics, or lack an expected one.
    """
    number = stream_seed(int(settings["study_seed"]), Purpose.INITIALIZATION, seed) % 2**32
    seed_generators(number)
    offered = {"data": data, MAX_BATCHES: max_batches}
    sections = {name: section for name, section in settings.items() if name != "study_seed" and section is not None}
    begun = time.perf_counter()
    returned = function(sections, number, report, **{name: offered[name] for name in offered_names(function)})
    seconds = time.perf_counter() - begun
    metrics = {"training_seconds": seconds, **checked_metrics(returned, what="returned")}
    missing = [name for name in expected if name not in metrics]
    if missing:
        raise ValueError(
            f"the training function returned {', '.join(sorted(returned)) or 'nothing'}, and not {', '.join(missing)}: "
            "return it, or name another metric of the study (metric.name, metrics)"
        )
    if not all(map(math.isfinite, metrics.values())):
        return Outcome.DIVERGED, {"training_seconds": seconds}
    return Outcome.DONE, metrics


def checked_metrics(values: Any, *, what: str) -> dict[str, float]:
    """Return metrics as floats.

    Raises:
        TypeError: they are no mapping of names to numbers.
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            f"a training function gives metrics as a mapping of names to numbers; it {what} {values!r:.200}"
        )
    found = {}
    for name, value in values.items():
        number = value.item() if hasattr(value, "item") and getattr(value, "size", 1) != 0 else value
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"a metric is a name and a number; the training function {what} {name!r}: {value!r:.200}")
        found[name] = float(number)
    return found


def split_data(dataset: Dataset, split: Split) -> SplitData:
    def part(indices: Any) -> tuple[Any, Any]:
        return dataset.train_images[indices], dataset.train_labels[indices]

    return SplitData(
        train=part(split.train),
        validation=part(split.validation) if split.validation is not None else None,
        test=(dataset.test_images, dataset.test_labels),
        classes=dataset.facts.shape.classes,
    )


def offered_names(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in ("data", MAX_BATCHES) if name in list(parameters)[3:]]
