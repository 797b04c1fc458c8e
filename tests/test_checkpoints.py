"""A training that was interrupted and resumed comes to what it would have without, to the bit on a CPU."""

import io
import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainings import STUDY_SEED, begun, built_in, finished, make_data, settings_of

from ablation.training import (
    Backend,
    Checkpoints,
    Member,
    Snapshot,
    SnapshotMismatch,
    TrainingResult,
    TrainingSettings,
    train_eager,
    train_fused,
    train_graph,
)
from ablation.training.loop import EpochsTogether

Train = Callable[[list[Member], Checkpoints | None], EpochsTogether]


class Interruption(Exception):
    pass


class Kept:
    """Checkpoints after every epoch, in memory, as plain bytes; the training is interrupted after one of them."""

    def __init__(self, *, until: int) -> None:
        self.until = until
        self.files: list[bytes] = []

    def load(self) -> list[Snapshot] | None:
        read = [torch.load(io.BytesIO(data), weights_only=True) for data in self.files]
        return [Snapshot.from_plain(values) for values in read] or None

    def is_due(self) -> bool:
        return True

    def save(self, snapshots: Sequence[Snapshot]) -> None:
        files = [io.BytesIO() for _ in snapshots]
        for file, snapshot in zip(files, snapshots, strict=True):
            torch.save(snapshot.to_plain(), file)
        self.files = [file.getvalue() for file in files]
        if snapshots[0].epoch == self.until:
            raise Interruption


def eager(members: list[Member], checkpoints: Checkpoints | None) -> EpochsTogether:
    return train_eager(members[0], study_seed=STUDY_SEED, loss=nn.functional.cross_entropy, checkpoints=checkpoints)


def graph(members: list[Member], checkpoints: Checkpoints | None) -> EpochsTogether:
    return train_graph(members[0], study_seed=STUDY_SEED, checkpoints=checkpoints)


def fused(backend: Backend) -> Train:
    def train(members: list[Member], checkpoints: Checkpoints | None) -> EpochsTogether:
        return train_fused(members, backend=backend, study_seed=STUDY_SEED, checkpoints=checkpoints)

    return train


def same(first: TrainingResult, second: TrainingResult) -> bool:
    """Whether two results are equal to the bit, but for how long it took."""
    one, other = (
        {name: value for name, value in result.metrics.items() if not name.endswith("seconds")}
        for result in (first, second)
    )
    return (
        one == other
        and (first.outcome, first.measured_epoch) == (second.outcome, second.measured_epoch)
        and np.array_equal(first.test_outputs, second.test_outputs, equal_nan=True)
        and first.state.keys() == second.state.keys()
        and all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    )


PATHS: dict[str, tuple[Train, int]] = {
    "eager": (eager, 1),
    "graph": (graph, 1),
    "grouped": (fused("grouped"), 2),
    "matmul": (fused("matmul"), 2),
    "streams": (fused("streams"), 2),
}
TRAININGS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "epoch_choice": "best-validation", "schedule": "cosine", "augmentation": "crop-flip"},
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.05, "schedule": "one-cycle"},
}


@pytest.mark.parametrize(
    ("path", "training"),
    [
        ("eager", "adam"),
        ("eager", "sgd"),
        ("graph", "adam"),
        ("grouped", "sgd"),
        ("matmul", "adam"),
        ("streams", "sgd"),
    ],
)
def test_a_training_gone_on_with_is_equal_to_one_that_was_not_interrupted(path: str, training: str) -> None:
    train, count = PATHS[path]
    chosen = settings_of(epochs=3, **TRAININGS[training])
    _, undisturbed = finished(train(members(chosen, count), None))

    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(train(members(chosen, count), kept))
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    curve, again = finished(train(members(chosen, count), kept))

    assert [3] == [metrics[0].epoch for metrics in curve if metrics[0] is not None]
    assert all(same(one, other) for one, other in zip(undisturbed, again, strict=True))


def test_a_training_interrupted_after_its_last_epoch_is_measured_as_it_would_have_been() -> None:
    chosen = settings_of(epochs=2)
    _, undisturbed = finished(eager(members(chosen, 1), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(eager(members(chosen, 1), kept))

    curve, again = finished(eager(members(chosen, 1), kept))

    assert [] == curve
    assert same(undisturbed[0], again[0])


def test_members_of_different_numbers_go_on_each_with_its_own() -> None:
    def two() -> list[Member]:
        fast, slow = settings_of(epochs=3, learning_rate=0.01), settings_of(epochs=3, learning_rate=0.001)
        return [member(0, fast), member(1, fast), member(0, slow)]

    _, undisturbed = finished(PATHS["grouped"][0](two(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(PATHS["grouped"][0](two(), kept))

    _, again = finished(PATHS["grouped"][0](two(), kept))

    assert all(same(one, other) for one, other in zip(undisturbed, again, strict=True))


class Mode(StrEnum):
    FAST = "fast"


class Restless(nn.Module):
    """Keeps numbers where no checkpoint of PyTorch's would look: in an attribute, and in the host's generators."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 12 * 8, 4)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.calls = 0
        self.scale, self.mode = np.sqrt(4.0), Mode.FAST

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.seen += 1
            self.scale = self.scale * 1.1
        noise = self.scale + random.random() + np.random.random() + self.calls / 10 + self.seen / 10
        logits: Tensor = self.head(images.flatten(1)) * noise
        return logits


def test_what_an_eager_model_keeps_beside_its_tensors_is_kept_too() -> None:
    def one() -> list[Member]:
        random.seed(0)
        np.random.seed(0)
        return [Member(model=begun(0, Restless), data=make_data(), settings=settings_of(epochs=3), seed=0)]

    _, undisturbed = finished(eager(one(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(eager(one(), kept))

    assert same(undisturbed[0], finished(eager(one(), kept))[1][0])


def test_a_snapshot_of_another_model_is_refused() -> None:
    kept = Kept(until=1)
    with pytest.raises(Interruption):
        finished(eager(members(settings_of(epochs=2), 1), kept))
    other = Member(model=begun(0, Restless), data=make_data(), settings=settings_of(epochs=2), seed=0)

    with pytest.raises(SnapshotMismatch, match="other tensors"):
        finished(eager([other], kept))


def members(chosen: TrainingSettings, count: int) -> list[Member]:
    return [member(seed, chosen) for seed in range(count)]


def member(seed: int, chosen: TrainingSettings) -> Member:
    model = begun(seed, lambda: built_in(dropout=0.2))
    return Member(model=model, data=make_data(validation=True), settings=chosen, seed=seed)
