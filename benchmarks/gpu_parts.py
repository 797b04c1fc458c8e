"""The parts of what is measured of a GPU: its rates, the paths of the engine, what they agree in, what fits."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from ablation.errors import PathUnavailable
from ablation.models import build_model
from ablation.results import DataShape
from ablation.training import (
    Member,
    TrainingData,
    TrainingSettings,
    members_that_fit,
    set_precision,
    train,
    train_graph,
)
from ablation.training.choosing import measure_backends
from ablation.training.loop import lay_out
from ablation.training.paths import fused_steps, train_fused
from ablation.training.steps import EagerSteps, Steps
from benchmarks.case import LEARNING_RATE, MODEL, TrainingCase

PRODUCT_SIDE = 8192
COPIED_BYTES = 1 << 30
REPEATS = 10
CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured; smaller on a CPU, where the parts are only tried."""

    batch_size: int
    steps: int
    turns: int
    fused: tuple[int, ...]
    seeds: int
    epochs: int
    images: int
    product_side: int
    copied_bytes: int


def device_rates(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Measure bytes per second of a copy (read and written), and FLOP per second of products by precision."""
    source = torch.empty(sizes.copied_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    found = {"copy_bytes_per_second": 2 * sizes.copied_bytes / _seconds(lambda: target.copy_(source), device)}
    for name, precision, dtype in (
        ("fp32", "fp32", torch.float32),
        ("tf32", "tf32", torch.float32),
        ("bf16", "fp32", torch.bfloat16),
    ):
        set_precision(precision)  # type: ignore[arg-type]
        left = torch.randn(sizes.product_side, sizes.product_side, device=device, dtype=dtype)
        result = torch.empty_like(left)
        seconds = _seconds(lambda: torch.mm(left, left, out=result), device)  # noqa: B023 - called at once
        found[f"{name}_flop_per_second"] = 2 * sizes.product_side**3 / seconds
    set_precision("fp32")
    return found


def solo_paths(device: torch.device, sizes: Sizes, conventional: Iterator[float] | None) -> dict[str, list[float]]:
    """Measure seconds per step of one run, in turn: eagerly, as a graph, and in a conventional loop."""
    data = random_data(device, sizes)
    members = {name: member(0, device, sizes, data=data) for name in ("eager", "graph")}
    steps: dict[str, Steps] = {
        "eager": EagerSteps(laid_out(members["eager"]), study_seed=0, loss=functional.cross_entropy),
        "graph": fused_steps([members["graph"]], backend="streams", study_seed=0, loss=functional.cross_entropy),
    }
    found: dict[str, list[float]] = {name: [] for name in (*steps, "conventional")}
    for turn in range(sizes.turns + 2):
        for name, one in steps.items():
            begun = time.perf_counter()
            one.train_epoch(turn + 1)
            if turn >= 2:
                found[name].append((time.perf_counter() - begun) / sizes.steps)
        if conventional is not None:
            rate = next(conventional)
            if turn >= 2:
                found["conventional"].append(sizes.batch_size / rate)
    return found


def evaluations(device: torch.device, sizes: Sizes) -> dict[str, float]:
    """Measure the median seconds of evaluating the test images, eagerly and as a graph."""
    alone = laid_out(member(0, device, sizes))
    found: dict[str, Steps] = {
        "eager": EagerSteps(alone, study_seed=0, loss=functional.cross_entropy),
        "graph": fused_steps(
            [member(0, device, sizes)], backend="streams", study_seed=0, loss=functional.cross_entropy
        ),
    }
    seconds = {}
    for name, steps in found.items():
        times = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            steps.evaluate("heldout")
            times.append(time.perf_counter() - begun)
        seconds[name] = statistics.median(times[2:])
    return seconds


def fused_paths(device: torch.device, sizes: Sizes) -> list[dict[str, Any]]:
    """Measure S runs together, by precision: seconds per step of each backend, and of whole epochs by the fastest."""
    found = []
    for precision in ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16"):
        set_precision(precision)  # type: ignore[arg-type]
        for count in sizes.fused:
            try:
                found.append({"precision": precision, "runs": count, **fused_times(device, sizes, count, precision)})
            except (RuntimeError, PathUnavailable) as error:
                found.append({"precision": precision, "runs": count, "error": str(error)[:300]})
    set_precision("fp32")
    return found


def fused_times(device: torch.device, sizes: Sizes, count: int, precision: Any) -> dict[str, Any]:
    data = random_data(device, sizes)
    members = [member(seed, device, sizes, data=data, precision=precision) for seed in range(count)]
    times = measure_backends(members)
    steps = fused_steps(members, backend=times.fastest, study_seed=0, loss=functional.cross_entropy)
    seconds = []
    for epoch in range(1, sizes.turns + 1):
        begun = time.perf_counter()
        steps.train_epoch(epoch)
        seconds.append((time.perf_counter() - begun) / sizes.steps)
    return {
        "step_seconds": dict(times.together),
        "step_seconds_alone": times.alone,
        "fastest": times.fastest,
        "epoch_seconds_per_step": seconds[1:],
    }


def bytes_moved(device: torch.device, sizes: Sizes, *, backend: Any, precision: Any) -> int:
    """Count the bytes that the operations of one fused step read and write, each on its own."""
    data = random_data(device, sizes)
    members = [member(seed, device, sizes, data=data, precision=precision) for seed in range(max(sizes.fused))]
    steps = fused_steps(members, backend=backend, study_seed=0, loss=functional.cross_entropy)
    steps._step(sizes.batch_size)  # makes the optimizer's state
    with _ByteCounter() as counter:
        steps._step(sizes.batch_size)
    return counter.bytes


def agreement(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Compare the paths: losses of the graph's with the eager one's, gradients and accuracies of fused with alone."""
    patterned = pattern_data(device, sizes)
    changes: dict[str, Any] = {"epochs": sizes.epochs, "augmentation": "none"}
    alone = [
        finished(train_alone(member(seed, device, sizes, data=patterned, **changes))) for seed in range(sizes.seeds)
    ]
    graph_curve, _ = finished(train_graph(member(0, device, sizes, data=patterned, **changes), study_seed=0))
    members = [member(seed, device, sizes, data=patterned, **changes) for seed in range(sizes.seeds)]
    found: dict[str, Any] = {
        "graph_epoch_1_loss_relative": relative(graph_curve[0][0].train_loss, alone[0][0][0][0].train_loss),
        "gradient_relative": {backend: gradient_error(device, sizes, backend) for backend in ("grouped", "matmul")},
        "accuracy_alone": [result.metrics["test_accuracy"] for _, (result,) in alone],
    }
    for backend in ("grouped", "matmul", "streams"):
        copies = [replace(one, model=copy.deepcopy(one.model)) for one in members]
        _, results = finished(train_fused(copies, backend=backend, study_seed=0))  # type: ignore[arg-type]
        found[f"accuracy_{backend}"] = [result.metrics.get("test_accuracy") for result in results]
    return found


def gradient_error(device: torch.device, sizes: Sizes, backend: Any) -> float:
    """Return the largest relative error of a model's first gradient, fused, from its own."""
    members = [member(seed, device, sizes) for seed in range(4)]
    copies = [replace(one, model=copy.deepcopy(one.model)) for one in members]
    fused = fused_steps(copies, backend=backend, study_seed=0, loss=functional.cross_entropy)
    fused._step(sizes.batch_size)
    stacked = [parameter.grad for parameter in fused._models.parameters(slice(0, 4))]
    errors = []
    for index, one in enumerate(members):
        alone = fused_steps([one], backend="streams", study_seed=0, loss=functional.cross_entropy)
        alone._step(sizes.batch_size)
        own = torch.cat(
            [parameter.grad.flatten() for parameter in one.model.parameters() if parameter.grad is not None]
        )
        theirs = torch.cat([gradient[index].flatten() for gradient in stacked if gradient is not None])
        errors.append(((own - theirs).norm() / own.norm()).item())
    return max(errors)


def fallbacks(device: torch.device, sizes: Sizes) -> dict[str, Any]:
    """Try what cannot be captured, see that eager training with dropout still works after it, and what fits."""

    class Decides(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.inner(images)
            return logits if logits.sum().item() > 0 else -logits

    plain = member(0, device, sizes, epochs=1)
    said = "captured all the same"
    try:
        finished(train_graph(replace(plain, model=Decides(plain.model)), study_seed=0))
    except PathUnavailable as error:
        said = str(error)[:300]
    after = member(0, device, sizes, model={**MODEL, "dropout": 0.3}, epochs=1)
    curve, _ = finished(train_graph(after, study_seed=0))
    eager_curve, _ = finished(train_alone(member(0, device, sizes, model={**MODEL, "dropout": 0.3}, epochs=1)))
    return {
        "a_model_that_decides_by_a_value": said,
        "graph_with_dropout_after_it_relative": relative(curve[0][0].train_loss, eager_curve[0][0].train_loss),
        "runs_that_fit": members_that_fit(member(0, device, sizes)),
    }


def train_alone(one: Member) -> Any:
    epochs = train(one.model, one.data, one.settings, study_seed=0, seed=one.seed)
    while True:
        try:
            yield (next(epochs),)
        except StopIteration as end:
            return (end.value,)


def finished(epochs: Any) -> tuple[list[Any], Any]:
    curve = []
    while True:
        try:
            curve.append(next(epochs))
        except StopIteration as end:
            return curve, end.value


def member(
    seed: int,
    device: torch.device,
    sizes: Sizes,
    *,
    data: TrainingData | None = None,
    model: Mapping[str, Any] = MODEL,
    **settings: Any,
) -> Member:
    """Return a run of the course assignment's network with crop and flip."""
    data = data or random_data(device, sizes)
    torch.manual_seed(seed)
    _, height, width, channels = data.images.shape
    shape = DataShape(channels=channels, height=height, width=width, classes=tuple(map(str, range(CLASSES))))
    chosen: dict[str, Any] = {
        "epochs": sizes.turns + 2,
        "batch_size": sizes.batch_size,
        "optimizer": "adam",
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "momentum": 0.9,
        "weight_decay": 0.0,
        "epoch_choice": "last",
        "augmentation": "crop-flip",
        **settings,
    }
    return Member(model=build_model(model, shape).to(device), data=data, settings=TrainingSettings(**chosen), seed=seed)


def laid_out(one: Member) -> Member:
    lay_out(one)
    return one


def random_data(device: torch.device, sizes: Sizes) -> TrainingData:
    random = np.random.default_rng(0)
    count = sizes.steps * sizes.batch_size
    images = random.integers(0, 256, (max(count, sizes.images), 32, 32, 3), dtype=np.uint8)
    return _data(images, random.integers(0, CLASSES, len(images)), device, train=count, test=sizes.images)


def pattern_data(device: torch.device, sizes: Sizes) -> TrainingData:
    """Return images of faint patterns, one per class, so that runs come to accuracies between chance and 100 %."""
    random = np.random.default_rng(1)
    patterns = random.normal(0, 1, (CLASSES, 32, 32, 3))
    labels = random.integers(0, CLASSES, 2 * sizes.images)
    noisy = 128 + 8 * patterns[labels] + random.normal(0, 60, (len(labels), 32, 32, 3))
    return _data(noisy.clip(0, 255).astype(np.uint8), labels, device, train=sizes.images, test=sizes.images)


def relative(value: float, reference: float) -> float:
    return abs(value - reference) / abs(reference)


def case_of(device: torch.device, sizes: Sizes) -> TrainingCase:
    """Return what the conventional loop is given: as much, of the same."""
    random = np.random.default_rng(0)
    count = (sizes.steps + 8) * sizes.batch_size
    return TrainingCase(
        images=random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        labels=random.integers(0, CLASSES, count),
        classes=CLASSES,
        model=MODEL,
        optimizer="adam",
        augmentation="crop-flip",
        batch_size=sizes.batch_size,
        steps=sizes.steps,
        threads=torch.get_num_threads(),
        device=device,
        loader_workers=2,
        loader_start="fork",
    )


def _data(images: np.ndarray, labels: np.ndarray, device: torch.device, *, train: int, test: int) -> TrainingData:
    on_device = torch.from_numpy(images).to(device)
    truth = torch.from_numpy(labels.astype(np.int64)).to(device)
    return TrainingData(
        images=on_device,
        labels=truth,
        train=torch.arange(train, device=device),
        validation=None,
        sample=torch.arange(min(2000, train), device=device),
        test_images=on_device[-test:],
        test_labels=truth[-test:],
        mean=torch.full((3,), 128.0, device=device),
        deviation=torch.full((3,), 64.0, device=device),
    )


def _seconds(operation: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds of a few calls."""
    times = []
    for _ in range(REPEATS):
        _wait(device)
        begun = time.perf_counter()
        operation()
        _wait(device)
        times.append(time.perf_counter() - begun)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _ByteCounter(TorchDispatchMode):
    """Sums the sizes of what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            touched = [*_tensors(args), *_tensors(kwargs or {}), *_tensors(result)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in touched)
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
