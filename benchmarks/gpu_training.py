"""Measures the engine on a device: the paths, runs fused, what they agree in, what cannot be captured, what fits."""

import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ablation.errors import PathUnavailable
from ablation.records import Precision
from ablation.training import (
    Backend,
    EpochsTogether,
    Member,
    TrainingResult,
    free_memory,
    let_go,
    members_that_fit,
    set_precision,
    train_eager,
    train_fused,
    train_graph,
)
from ablation.training.loop import lay_out
from ablation.training.paths import BACKENDS, fused_steps
from ablation.training.steps import EagerSteps, Steps
from benchmarks.case import MODEL
from benchmarks.gpu_case import Sizes, case_of, member, pattern_data, random_data
from benchmarks.traffic import Traffic

T = TypeVar("T")
STACKED: tuple[Backend, ...] = ("grouped", "matmul")
COMPARED = 4
"""Runs whose first gradients are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoloTimes:
    """Seconds per step of one run, by turn, the paths in turn."""

    eager: tuple[float, ...]
    graph: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderTimes:
    """Seconds per step of the conventional loop, by turn, with so many processes that load images."""

    seconds_per_step: tuple[float, ...]
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedTimes:
    """So many runs together: seconds per step by backend, and by the fastest, in whole epochs, with their data.

    `errors` says why a backend has no seconds; `peak_gib` is the most memory that any of them took.
    """

    runs: int
    step_seconds: Mapping[str, float]
    errors: Mapping[str, str]
    fastest: Backend | None
    epoch_seconds_per_step: tuple[float, ...]
    peak_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTraffic:
    """What the operations of one step move, each on its own; `copies` are those that cast nothing."""

    precision: Precision
    backend: Backend
    runs: int
    kernels: int
    bytes: int
    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """How far the paths are apart at the first step, relative: a fused run's gradient from its own, losses, graph's."""

    fused: Mapping[str, float]
    graph_loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracies:
    """Test accuracies of the same seeds, alone and by backend."""

    alone: tuple[float, ...]
    fused: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationTimes:
    """Median seconds of evaluating the test images."""

    eager: float
    graph: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallbacks:
    """What is said of a model that decides by a value, how a graph after it does, and how many runs fit."""

    refusal: str
    graph_after_it: float
    runs_that_fit: int | None


def solo(device: torch.device, sizes: Sizes, *, precision: Precision) -> SoloTimes:
    set_precision(precision)
    data, turns = random_data(device, sizes), range(1, sizes.warm_up + sizes.turns + 1)
    one, other = (member(0, device, sizes, data=data, precision=precision) for _ in range(2))
    lay_out(one)
    eager = EagerSteps(one, study_seed=0, loss=functional.cross_entropy)
    graph = _steps([other], "streams")
    found = [[_epoch_seconds(steps, turn) / sizes.steps for steps in (eager, graph)] for turn in turns]
    counted = found[sizes.warm_up :]
    return SoloTimes(eager=tuple(own for own, _ in counted), graph=tuple(own for _, own in counted))


def conventional(device: torch.device, sizes: Sizes, *, precision: Precision) -> LoaderTimes:
    from benchmarks.loader_loop import conventional  # Pillow, which only this part needs

    case, turns = case_of(device, sizes, precision), sizes.warm_up + sizes.turns
    case.set_up()
    rates = list(conventional(case, turns=turns))[sizes.warm_up :]
    seconds = tuple(sizes.batch_size / rate for rate in rates)
    return LoaderTimes(seconds_per_step=seconds, workers=case.loader_workers)


def fused(device: torch.device, sizes: Sizes, *, precision: Precision) -> tuple[FusedTimes, ...]:
    set_precision(precision)
    return tuple(_fused_times(device, sizes, count, precision) for count in sizes.fused)


def _fused_times(device: torch.device, sizes: Sizes, count: int, precision: Precision) -> FusedTimes:
    data = random_data(device, sizes)
    members = [member(seed, device, sizes, data=data, precision=precision) for seed in range(count)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds: dict[Backend, float] = {}
    errors: dict[str, str] = {}
    for backend in BACKENDS:
        try:
            seconds[backend] = _steps(_copies(members), backend).seconds_per_step(sizes.repeats)
        except (RuntimeError, PathUnavailable) as error:
            errors[backend] = f"{type(error).__name__}: {str(error)[:300]}"
            let_go(error)
        free_memory()
    fastest = min(seconds, key=lambda backend: seconds[backend]) if seconds else None
    return FusedTimes(
        runs=count,
        step_seconds=seconds,
        errors=errors,
        fastest=fastest,
        epoch_seconds_per_step=() if fastest is None else _epochs(_steps(members, fastest), sizes),
        peak_gib=torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
    )


def _epochs(steps: Steps, sizes: Sizes) -> tuple[float, ...]:
    """Return the seconds per step of the counted epochs."""
    turns = range(1, sizes.warm_up + sizes.turns + 1)
    return tuple(_epoch_seconds(steps, turn) / sizes.steps for turn in turns)[sizes.warm_up :]


def _epoch_seconds(steps: Steps, epoch: int) -> float:
    begun = time.perf_counter()
    steps.train_epoch(epoch)
    return time.perf_counter() - begun


def traffic(device: torch.device, sizes: Sizes) -> tuple[StepTraffic, ...]:
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return tuple(_traffic(device, sizes, one, backend) for one in precisions for backend in BACKENDS)


def _traffic(device: torch.device, sizes: Sizes, precision: Precision, backend: Backend) -> StepTraffic:
    data, runs = random_data(device, sizes), max(sizes.fused)
    steps = _steps([member(seed, device, sizes, data=data, precision=precision) for seed in range(runs)], backend)
    steps._step(sizes.batch_size)  # makes the optimizer's state
    with Traffic() as moved:
        steps._step(sizes.batch_size)
    return StepTraffic(
        precision=precision,
        backend=backend,
        runs=runs,
        kernels=moved.kernels,
        bytes=moved.bytes,
        copies=sum(one.source == one.target for one in moved.copies),
    )


def gradients(device: torch.device, sizes: Sizes) -> Gradients:
    """Compare the paths where they begin: first gradients in fp32, and the losses of a first epoch."""
    set_precision("fp32")
    changes: dict[str, Any] = {"epochs": 1, "augmentation": "none"}
    data = pattern_data(device, sizes)
    eager, _ = _finished(_eager(member(0, device, sizes, data=data, **changes)))
    graph, _ = _finished(train_graph(member(0, device, sizes, data=data, **changes), study_seed=0))
    return Gradients(
        fused={backend: _gradient_error(device, sizes, backend) for backend in STACKED},
        graph_loss=_relative(graph[0].train_loss, eager[0].train_loss),
    )


def _gradient_error(device: torch.device, sizes: Sizes, backend: Backend) -> float:
    """Return the largest relative error of a model's first gradient, fused, from its own."""
    members = [member(seed, device, sizes) for seed in range(COMPARED)]
    together = _steps(_copies(members), backend)
    together._step(sizes.batch_size)
    stacked = together._models.parameters(slice(0, COMPARED))
    errors = []
    for index, one in enumerate(members):
        _steps([one], "streams")._step(sizes.batch_size)
        own, theirs = _joined(one.model.parameters()), _joined(stacked, of=index)
        errors.append(((own - theirs).norm() / own.norm()).item())
    return max(errors)


def _joined(parameters: Any, *, of: int | None = None) -> Tensor:
    found = [one.grad if of is None else one.grad[of] for one in parameters if one.grad is not None]
    return torch.cat([gradient.flatten() for gradient in found])


def accuracies(device: torch.device, sizes: Sizes) -> Accuracies:
    set_precision("fp32")
    data = pattern_data(device, sizes)
    changes: dict[str, Any] = {"data": data, "epochs": sizes.epochs, "augmentation": "none"}
    members = [member(seed, device, sizes, **changes) for seed in range(sizes.seeds)]
    alone = [_accuracy(_finished(train_graph(one, study_seed=0))[1][0]) for one in _copies(members)]
    together = {
        backend: tuple(map(_accuracy, _finished(train_fused(_copies(members), backend=backend, study_seed=0))[1]))
        for backend in BACKENDS
    }
    return Accuracies(alone=tuple(alone), fused=together)


def evaluation(device: torch.device, sizes: Sizes) -> EvaluationTimes:
    set_precision("fp32")
    one, other = (member(0, device, sizes) for _ in range(2))
    lay_out(one)
    eager = EagerSteps(one, study_seed=0, loss=functional.cross_entropy)
    return EvaluationTimes(
        eager=_evaluation_seconds(eager, sizes), graph=_evaluation_seconds(_steps([other], "streams"), sizes)
    )


def _evaluation_seconds(steps: Steps, sizes: Sizes) -> float:
    times = []
    for _ in range(sizes.warm_up + sizes.repeats):
        begun = time.perf_counter()
        steps.evaluate("heldout")
        times.append(time.perf_counter() - begun)
    return statistics.median(times[sizes.warm_up :])


class Decides(nn.Module):
    """Decides by a value, which no graph can."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits if logits.sum().item() > 0 else -logits


def fallbacks(device: torch.device, sizes: Sizes) -> Fallbacks:
    """Try what cannot be captured, then a graph with dropout against eager training, then what fits."""
    set_precision("fp32")
    plain = member(0, device, sizes, epochs=1)
    refusal = "captured all the same"
    try:
        _finished(train_graph(replace(plain, model=Decides(plain.model)), study_seed=0))
    except PathUnavailable as error:
        refusal = str(error)[:300]
    dropping: dict[str, Any] = {"model": {**MODEL, "dropout": 0.3}, "epochs": 1}
    graph, _ = _finished(train_graph(member(0, device, sizes, **dropping), study_seed=0))
    eager, _ = _finished(_eager(member(0, device, sizes, **dropping)))
    return Fallbacks(
        refusal=refusal,
        graph_after_it=_relative(graph[0].train_loss, eager[0].train_loss),
        runs_that_fit=members_that_fit(member(0, device, sizes)),
    )


def _eager(one: Member) -> EpochsTogether:
    return train_eager(one, study_seed=0, loss=functional.cross_entropy)


def _steps(members: Sequence[Member], backend: Backend) -> Any:
    return fused_steps(members, backend=backend, study_seed=0, loss=functional.cross_entropy)


def _copies(members: Sequence[Member]) -> list[Member]:
    return [replace(one, model=copy.deepcopy(one.model)) for one in members]


def _finished(epochs: EpochsTogether) -> tuple[list[Any], tuple[TrainingResult, ...]]:
    """Return the first member's epochs, and all members' results."""
    curve: list[Any] = []
    while True:
        try:
            curve.append(next(epochs)[0])
        except StopIteration as end:
            return curve, end.value


def _accuracy(result: TrainingResult) -> float:
    return result.metrics["test_accuracy"]


def _relative(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference)
