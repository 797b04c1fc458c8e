"""Small trainings that several test files begin: made-up data, a built-in model, settings, and running one to its end.

It needs torch and numpy alone, as the tests on a GPU do.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ablation.models import build_model
from ablation.records import IGNORED, DataShape, EpochMetrics, ModelSettings, TaskName
from ablation.streams import Purpose, stream_seed
from ablation.training import Member, TrainingData, TrainingResult, TrainingSettings, train, train_eager
from ablation.training.batches import training_batches
from ablation.training.tasks import make_objective

SHAPE = DataShape(channels=3, height=12, width=8, classes=("a", "b", "c", "d"))
STUDY_SEED, SEED = 7, 2
TIMES = {"seconds": 0.0, "images_per_second": 0.0, "timestamp_ms": 0}
MODEL = {
    "depth": 2,
    "width": 4,
    "kernel": 3,
    "dense": (8,),
    "normalization": "batch",
    "normalization_placement": "before",
    "groups": 2,
    "dropout": 0.2,
    "activation": "relu",
}
DEFAULTS = TrainingSettings(
    epochs=2,
    batch_size=8,
    optimizer="adam",
    learning_rate=1e-2,
    schedule="constant",
    momentum=0.9,
    weight_decay=0.0,
    epoch_choice="last",
    augmentation="none",
)


SEEDS = (0, 1, 2)
Build = Callable[[], nn.Module]


def make_data(*, train_images: int = 43, validation: bool = False, channels: int = 3) -> TrainingData:
    """Make images whose brightness tells their class, the training split scattered among those held out."""
    random = np.random.default_rng(0)
    count = train_images + 12
    labels = random.integers(0, 4, count)
    brightness = (30 + 40 * labels)[:, None, None, None]
    images = (brightness + random.integers(0, 60, (count, 12, 8, channels))).astype(np.uint8)
    order = random.permutation(count)
    kept = images[order[:train_images]].astype(np.float64)
    return TrainingData(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        train=torch.from_numpy(order[:train_images]),
        validation=torch.from_numpy(order[train_images:]) if validation else None,
        sample=torch.from_numpy(order[:10]),
        test_images=torch.from_numpy(images[order[train_images:]]),
        test_labels=torch.from_numpy(labels[order[train_images:]]),
        mean=torch.from_numpy(kept.mean((0, 1, 2)).astype(np.float32)),
        deviation=torch.from_numpy(kept.std((0, 1, 2)).astype(np.float32)),
    )


def make_features(*shape: int) -> TrainingData:
    """Make float32 features (55, *shape) around their class, in data that is otherwise as `make_data` has it."""
    data = make_data()
    noise = torch.rand((len(data.labels), *shape), generator=torch.Generator().manual_seed(0))
    features = data.labels.reshape(-1, *(1 for _ in shape)) + noise
    held_out = torch.tensor([index for index in range(len(features)) if index not in data.train.tolist()])
    return dataclasses.replace(
        data,
        images=features,
        test_images=features[held_out],
        test_labels=data.labels[held_out],
        mean=torch.zeros(0),
        deviation=torch.ones(0),
    )


def make_task(task: TaskName, *, train: int = 29, validation: bool = True) -> tuple[DataShape, TrainingData]:
    """Make a data set of a task, small enough for a run to take a moment: what is to be learnt stands in the inputs."""
    shape = TASK_SHAPES[task]
    generator = torch.Generator().manual_seed(3)
    count = train + 14
    if shape.vocabulary:
        inputs = torch.randint(0, shape.vocabulary, (count, *shape.features), generator=generator, dtype=torch.int32)
    else:
        inputs = torch.randn((count, *shape.input_shape), generator=generator)
    targets = TASK_TARGETS[task](inputs)
    order = torch.randperm(count, generator=generator)
    kept = targets[order[:train]].double()
    is_scaled = task == "regression"
    return shape, TrainingData(
        images=inputs,
        labels=targets,
        train=order[:train],
        validation=order[train : train + 7] if validation else None,
        sample=order[:10],
        test_images=inputs[order[train + 7 :]],
        test_labels=targets[order[train + 7 :]],
        mean=torch.zeros(0),
        deviation=torch.ones(0),
        scale=(kept.mean(0).float(), kept.std(0, correction=0).float()) if is_scaled else None,
    )


def _ignoring(targets: Tensor) -> Tensor:
    """Put the ignore index in the place of the first targets of every third example."""
    changed = targets.clone()
    changed[::3, :2] = IGNORED
    return changed


TASK_SHAPES: Mapping[TaskName, DataShape] = {
    "classification": DataShape(channels=0, height=0, width=0, classes=("a", "b", "c"), features=(6,)),
    "regression": DataShape(
        channels=0, height=0, width=0, classes=(), features=(6,), task="regression", target_shape=(2,)
    ),
    "multilabel": DataShape(
        channels=0,
        height=0,
        width=0,
        classes=("a", "b", "c"),
        features=(6,),
        task="multilabel",
        target_shape=(3,),
    ),
    "tokens": DataShape(
        channels=0,
        height=0,
        width=0,
        classes=tuple("abcde"),
        features=(7,),
        task="tokens",
        target_shape=(7,),
        vocabulary=5,
    ),
    "segmentation": DataShape(
        channels=0,
        height=0,
        width=0,
        classes=("a", "b", "c"),
        features=(2, 6, 5),
        task="segmentation",
        target_shape=(6, 5),
    ),
}
TASK_TARGETS: Mapping[TaskName, Callable[[Tensor], Tensor]] = {
    "classification": lambda inputs: inputs[:, :3].argmax(1),
    "regression": lambda inputs: 100 + 20 * inputs[:, :2] + inputs[:, 2:4],
    "multilabel": lambda inputs: (inputs[:, :3] + 0.2 * inputs[:, 3:] > 0.3).to(torch.uint8),
    "tokens": lambda inputs: _ignoring((inputs + inputs.roll(1, 1)) % 5),
    "segmentation": lambda inputs: _ignoring((inputs[:, 0] > 0).int() + (inputs[:, 1] > 0.5).int()),
}


class TokenModel(nn.Module):
    """An embedding, what came before at every position, and a layer for the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 12)
        self.mixed = nn.Linear(12, 12)
        self.head = nn.Linear(12, 5)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids)
        before = functional.pad(embedded, (0, 0, 1, 0))[:, :-1]
        answers: Tensor = self.head(torch.relu(self.mixed(embedded + before)))
        return answers


TASK_MODELS: Mapping[TaskName, Build] = {
    "classification": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "regression": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)),
    "multilabel": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "tokens": TokenModel,
    "segmentation": lambda: nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1)),
}


def member_of_task(task: TaskName, seed: int = SEED, *, validation: bool = True, **changes: Any) -> Member:
    shape, data = make_task(task, validation=validation)
    return Member(
        model=begun(seed, TASK_MODELS[task]),
        data=data,
        settings=settings_of(**changes),
        seed=seed,
        objective=make_objective(shape),
    )


def make_model(**changes: Any) -> nn.Module:
    torch.manual_seed(stream_seed(STUDY_SEED, Purpose.INITIALIZATION, SEED))
    return build_model(ModelSettings(name="cnn", arguments={**MODEL, **changes}), SHAPE)


def settings_of(**changes: Any) -> TrainingSettings:
    return dataclasses.replace(DEFAULTS, **changes)


def run(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingSettings,
    *,
    seed: int = SEED,
    between: Callable[[EpochMetrics], object] = lambda _: None,
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy,
) -> tuple[list[EpochMetrics], TrainingResult]:
    """Train to the end, calling `between` at each epoch, and return the curve and the result."""
    curve = []
    epochs = train(model, data, settings, study_seed=STUDY_SEED, seed=seed, loss=loss)
    while True:
        try:
            metrics = next(epochs)
        except StopIteration as end:
            return curve, end.value
        curve.append(metrics)
        between(metrics)


def batches_of(data: TrainingData, **changes: Any) -> list[tuple[Tensor, Tensor]]:
    chosen = {"batch_size": 8, "augmentation": "none", "study_seed": STUDY_SEED, "seed": SEED, "epoch": 1, **changes}
    return list(training_batches(data, **chosen))


def untimed(curve: list[EpochMetrics]) -> list[EpochMetrics]:
    return [dataclasses.replace(metrics, **TIMES) for metrics in curve]


def states_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def built_in(**changes: Any) -> nn.Module:
    return build_model(ModelSettings(name="cnn", arguments={**MODEL, **changes}), SHAPE)


def begun(seed: int, build: Build = built_in) -> nn.Module:
    torch.manual_seed(stream_seed(STUDY_SEED, Purpose.INITIALIZATION, seed))
    return build()


def finished(epochs: Any) -> tuple[list[tuple[EpochMetrics | None, ...]], tuple[TrainingResult, ...]]:
    curve = []
    while True:
        try:
            curve.append(next(epochs))
        except StopIteration as end:
            return curve, end.value


def alone(one: Member) -> tuple[list[EpochMetrics], TrainingResult]:
    epochs = train_eager(dataclasses.replace(one, model=copy.deepcopy(one.model)), study_seed=STUDY_SEED)
    curve, (result,) = finished(epochs)
    return [metrics for (metrics,) in curve if metrics is not None], result
