"""Runs a user's training function with what its parameters are called, and turns what it returns into a result."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablation.code import NO_FOLDERS, CodeFolders, TrainingCall, training_call, training_signature
from ablation.datasets import Dataset, make_split
from ablation.errors import CodeInvalid
from ablation.models import build_model, load_weights
from ablation.records import (
    DataShape,
    Outcome,
    ReportedEpoch,
    Settings,
    is_number,
    is_recordable_name,
    unrecordable_name_text,
)
from ablation.streams import Purpose, stream_seed
from ablation.worker.failures import MetricsUnfit
from ablation.worker.own_checkpoints import KeepsStates, TriedStates
from ablation.worker.own_mlflow import own_mlflow_runs
from ablation.worker.setup import seed_generators

CPU = torch.device("cpu")
PATH = "training.name"
SECTIONS = ("data", "model", "training")
MAX_BATCHES = "max_batches"
NEEDS: Mapping[str, tuple[str, ...]] = {"data": ("data",), "model": ("data", "model")}
"""The sections that something offered is made from: a model is built for the shape of the data."""
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

    `folder` is the run's own: what the function leaves there is kept with the run in MLflow. `seed_index`, `variant`
    and `study` say which run it is. `left_out` says of which entries nothing is recorded.
    """

    folder: Path
    on_epoch: Callable[[ReportedEpoch], None]
    states: KeepsStates = field(default_factory=TriedStates)
    seed_index: int = 0
    variant: str = ""
    study: str = ""
    epochs: list[ReportedEpoch] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def restored(self) -> Any:
        """The state of the last checkpoint, where an interrupted run is resumed; None where it begins.

        Reading it sets Python's, NumPy's and PyTorch's random generators to what they were at that checkpoint: read it
        where the loop begins, after what draws random numbers before it, as a model's initialization does.
        """
        self.states.restore_random()
        return self.states.state

    def checkpoint(self, state: Any) -> None:
        """Keep a state to resume from, where it is time for that: call it as often as there is one to resume from.

        It holds the epochs reported before it: report an epoch, then keep the state after it. Tensors are kept on the
        CPU.

        Raises:
            StateUnfit: it could not be restored.
        """
        self.states.keep(state, self.epochs)

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
        self.states.reported()


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnResult:
    """How a training function ended: its metrics, all of them finite, and of which entries nothing is recorded."""

    outcome: Outcome
    metrics: Mapping[str, float]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFunction:
    """A user's training function, and how it is called with its study's settings."""

    function: Callable[..., Any]
    call: TrainingCall


def load_training(settings: Settings, code: CodeFolders) -> TrainingFunction:
    """Return the training function that settings name.

    Raises:
        CodeInvalid: it cannot be imported, or cannot be called with what there is.
    """
    training = settings.function
    function = code.load(training.name, path=PATH)
    call = training_call(training_signature(function), training.plain(), name=training.name)
    for offered in call.needed:
        for section in NEEDS.get(offered, ()):
            if getattr(settings, section) is None:
                message = f"{training.name} takes `{offered}`, and the study has no section {section}"
                raise CodeInvalid(message, path=section)
    return TrainingFunction(function=function, call=call)


def train_own(
    training: TrainingFunction,
    settings: Settings,
    *,
    seed: int,
    report: Report,
    dataset: Dataset | None = None,
    device: torch.device = CPU,
    code: CodeFolders = NO_FOLDERS,
    expected: Sequence[str] = (),
    max_batches: int | None = None,
    seconds_before: float = 0.0,
) -> OwnResult:
    """Call a training function and return how it ended, with what it measured and the seconds it took.

    It is given what its parameters are called. The sections data, model and training are plain values, the seed is a
    number below 2³² for its random streams that is the same in every variant of the seed index; Python's, NumPy's and
    PyTorch's own generators are seeded with it too. The model is built and initialized as the engine does it.
    `expected` are the metrics that the study compares on: one that is NaN or infinite makes the run a diverged one. Of
    the others, what cannot be recorded is left out. Seconds that it returns itself stand in the place of ours, which
    begin with `seconds_before`.

    Raises:
        MetricsUnfit: what it returned are no metrics, or lack an expected one.
    """
    number = stream_seed(settings.study_seed, Purpose.INITIALIZATION, seed) % 2**32
    call, plain = training.call, copy.deepcopy(settings.plain())
    offered: dict[str, Any] = {
        "settings": {name: section for name, section in plain.items() if name in SECTIONS and section is not None},
        "seed": number,
        "report": report,
        MAX_BATCHES: max_batches,
        "device": device,
    }
    if call.takes("data") and (dataset is not None or call.is_by_position):
        offered["data"] = data_of(settings, dataset, seed=seed)
    if call.takes("model") and dataset is not None and settings.model is not None:
        offered["model"] = begun_model(settings, dataset.facts.shape, seed=seed, code=code).to(device)
    seed_generators(number)
    by_position, by_name = call.arguments(offered, plain["training"])
    begun = time.perf_counter() - seconds_before
    with own_mlflow_runs():
        returned = training.function(*by_position, **by_name)
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


def begun_model(settings: Settings, shape: DataShape, *, seed: int, code: CodeFolders) -> nn.Module:
    """Build the study's model on the CPU, initialized as the engine does it with a seed index."""
    assert settings.model is not None
    seed_generators(stream_seed(settings.study_seed, Purpose.INITIALIZATION, seed))
    return load_weights(build_model(settings.model, shape, code=code), settings.model.weights, code=code)


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


def data_of(settings: Settings, dataset: Dataset | None, *, seed: int) -> SplitData | None:
    """Return a study's data set, split for a seed index; None where it has none."""
    if dataset is None or settings.data is None:
        return None
    split = make_split(
        dataset, settings.data, study_seed=settings.study_seed, seed=seed, replicates=settings.replicates
    )

    def part(indices: Any) -> tuple[Any, Any]:
        return dataset.train_images[indices], dataset.train_labels[indices]

    return SplitData(
        train=part(split.train),
        validation=part(split.validation) if split.validation is not None else None,
        test=part(split.test) if split.test is not None else (dataset.test_images, dataset.test_labels),
        classes=dataset.facts.shape.classes,
    )
