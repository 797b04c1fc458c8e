"""Runs trained together, or with each step as one graph, come to what each comes to alone."""

import copy
import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from trainings import (
    SEEDS,
    SHAPE,
    STUDY_SEED,
    Build,
    alone,
    begun,
    built_in,
    finished,
    make_data,
    make_features,
    settings_of,
    states_equal,
    untimed,
)

from ablation.errors import PathUnavailable
from ablation.models import build_torchvision
from ablation.models.cnn import NORMS_2D
from ablation.records import DataShape, Outcome
from ablation.training import Member, TrainingData, TrainingResult, choose_backend
from ablation.training.choosing import BackendTimes, measure_backends, measurement_key, members_that_fit
from ablation.training.paths import BACKENDS, Backend, check_alike, train_fused, train_graph
from ablation.training.together.dropout import GeneratedMasks
from ablation.training.together.models import Models, SideBySide
from ablation.training.together.stacked import Stacked

FUSED: tuple[Backend, ...] = ("grouped", "matmul")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def member(seed: int, build: Build = built_in, *, data: TrainingData | None = None, **settings: Any) -> Member:
    return Member(model=begun(seed, build), data=data or make_data(), settings=settings_of(**settings), seed=seed)


def fused(members: Sequence[Member], backend: Backend) -> tuple[list[Any], tuple[TrainingResult, ...]]:
    return finished(train_fused(members, backend=backend, study_seed=STUDY_SEED))


def noise(members: Sequence[Member]) -> tuple[Tensor, Tensor]:
    """Return a batch of eight images and labels for each member."""
    draw = torch.Generator().manual_seed(0)
    size = members[0].data.images.shape[1:3]
    inputs = torch.randn(len(members), 8, *size, 3, generator=draw).movedim(-1, -3)
    return inputs, torch.randint(0, 4, (len(members), 8), generator=draw)


def first_step(models: Models, members: Sequence[Member]) -> tuple[Tensor, Tensor]:
    """Return the losses of a batch of noise, and the gradient of each model as one row."""
    inputs, labels = noise(members)
    parameters = [models.parameters(slice(0, len(members)))]
    losses, _ = models.backward(inputs, labels, functional.cross_entropy)
    gradients = [parameter.grad for parameter in parameters[0]]
    return losses, torch.cat([gradient.reshape(len(members), -1) for gradient in gradients if gradient is not None], 1)


def own_first_step(model: nn.Module, index: int, members: Sequence[Member]) -> tuple[float, Tensor]:
    """Return the loss of a member's part of that batch, and the gradient of its model alone."""
    inputs, labels = noise(members)
    drawn = [generators(len(members))[index]] * 2
    one = SideBySide([model, copy.deepcopy(model)], precision="fp32", generators=drawn)
    losses, _ = one.backward(inputs[[index, index]], labels[[index, index]], functional.cross_entropy)
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return losses[0].item(), torch.cat(gradients)


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


VARIANTS: list[dict[str, Any]] = [
    *({"normalization": kind, "dropout": 0.3} for kind in NORMS_2D),
    {"normalization": "batch", "normalization_placement": "after", "activation": "gelu"},
    {"depth": 3, "kernel": 5, "repeats": 1},
]


@pytest.mark.parametrize("convolution", FUSED)
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_first_gradient_of_stacked_models_is_each_models_own(changes: dict[str, Any], convolution: Any) -> None:
    members = [member(seed, lambda: built_in(**changes)) for seed in SEEDS]
    models = [one.model for one in members]
    stacked = Stacked(models, convolution=convolution, precision="fp32", masks=GeneratedMasks(generators(3)))

    losses, gradients = first_step(stacked, members)

    for index, model in enumerate(models):
        loss, expected = own_first_step(model, index, members)
        assert (gradients[index] - expected).norm() < 1e-4 * expected.norm()
        assert losses[index].item() == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"augmentation": "crop-flip", "schedule": "one-cycle", "epochs": 3},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"optimizer": "sgd", "epoch_choice": "best-validation", "epochs": 4},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_steps_as_a_graph_has_them_train_to_the_bit_what_eager_ones_do(settings: dict[str, Any]) -> None:
    one = member(1, data=make_data(validation=True), **settings)
    curve, expected = alone(one)

    found, (result,) = finished(train_graph(one, study_seed=STUDY_SEED))

    assert untimed(curve) == untimed([metrics for (metrics,) in found])
    assert states_equal(dict(expected.state), dict(result.state))
    assert np.array_equal(expected.test_outputs, result.test_outputs)
    assert expected.measured_epoch == result.measured_epoch


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_models_side_by_side_train_to_the_bit_what_each_does_alone(optimizer: str) -> None:
    members = [member(seed, optimizer=optimizer, augmentation="flip") for seed in SEEDS]
    expected = [alone(one) for one in members]

    curves, results = fused(members, "streams")

    for index, (curve, result) in enumerate(expected):
        assert untimed(curve) == untimed([metrics[index] for metrics in curves])
        assert states_equal(dict(result.state), dict(results[index].state))


@pytest.mark.parametrize(
    ("augmentation", "backend"), [("none", "grouped"), ("flip", "matmul"), ("crop", "grouped"), ("crop-flip", "matmul")]
)
def test_fused_training_is_each_runs_own_within_rounding(augmentation: str, backend: Backend) -> None:
    build = lambda: built_in(normalization="group")  # noqa: E731 - batch norm hides the bias before it, whose gradient is noise
    members = [member(seed, build, augmentation=augmentation, learning_rate=1e-3, epochs=3) for seed in SEEDS]
    expected = [alone(one) for one in members]

    curves, results = fused(members, backend)

    for index, (curve, result) in enumerate(expected):
        for name in ("train", "sample", "heldout"):
            own = [getattr(metrics, name)["loss"] for metrics in curve]
            assert own == pytest.approx([getattr(metrics[index], name)["loss"] for metrics in curves], rel=1e-3)
        for name, tensor in result.state.items():
            torch.testing.assert_close(results[index].state[name], tensor, rtol=1e-2, atol=1e-4)


def test_members_have_splits_statistics_and_batch_norm_of_their_own() -> None:
    data = make_data(validation=True)
    shuffled = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(5))
    count = len(data.train)
    other = dataclasses.replace(
        data,
        train=shuffled[:count],
        validation=shuffled[count:],
        sample=shuffled[:10],
        mean=data.mean + 20,
        deviation=data.deviation * 2,
    )
    members = [member(0, data=data, optimizer="sgd"), member(1, data=other, optimizer="sgd")]
    expected = [alone(one) for one in members]

    curves, results = fused(members, "grouped")

    for index, (curve, result) in enumerate(expected):
        assert [metrics.heldout["loss"] for metrics in curve] == pytest.approx(
            [metrics[index].heldout["loss"] for metrics in curves], rel=1e-4
        )
        torch.testing.assert_close(
            results[index].state["blocks.block1.norm.running_mean"], result.state["blocks.block1.norm.running_mean"]
        )
        assert np.trace(results[index].confusion["train"]) == np.trace(result.confusion["train"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_members_may_differ_in_the_optimizers_numbers(backend: Backend) -> None:
    numbers: list[dict[str, Any]] = [
        {"learning_rate": 0.01},
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "schedule": "cosine", "momentum": 0.5, "weight_decay": 0.01},
    ]
    members = [member(seed, optimizer="sgd", **own) for seed, own in enumerate(numbers)]
    expected = [alone(one) for one in members]

    curves, _ = fused(members, backend)

    for index, (curve, _) in enumerate(expected):
        assert [metrics.learning_rate for metrics in curve] == [metrics[index].learning_rate for metrics in curves]
        assert [metrics.train["loss"] for metrics in curve] == pytest.approx(
            [metrics[index].train["loss"] for metrics in curves], rel=1e-4
        )


def test_what_is_trained_beside_a_run_does_not_change_it() -> None:
    members = [member(seed) for seed in SEEDS]
    _, (_, _, last) = fused([member(seed) for seed in SEEDS], "streams")

    _, (only, _) = fused([members[2], members[0]], "streams")

    assert states_equal(dict(last.state), dict(only.state))


class Explodes(nn.Module):
    """Answers infinity from some step on, where its flag is set."""

    def __init__(self, *, explodes: bool) -> None:
        super().__init__()
        self.inner = built_in(dropout=0.0)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("last", torch.tensor(8.0 if explodes else 1e9))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        logits: Tensor = self.inner(images)
        return torch.where(self.steps >= self.last, torch.inf, logits)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_member_that_diverges_leaves_the_others_be(backend: Backend) -> None:
    members = [
        member(seed, lambda seed=seed: Explodes(explodes=seed == 1), optimizer="sgd", epochs=3) for seed in SEEDS
    ]
    _, expected = alone(members[2])
    _, diverged = alone(members[1])

    curves, results = fused(members, backend)

    assert diverged.diverged_step is not None
    assert diverged.diverged_step == results[1].diverged_step
    assert [Outcome.DONE, Outcome.DIVERGED, Outcome.DONE] == [result.outcome for result in results]
    assert results[1].diverged_epoch == 2  # of 6 steps an epoch
    assert [[metrics is None for metrics in curve] for curve in curves][2] == [False, True, False]
    assert results[2].metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], rel=1e-3)


def test_training_ends_where_all_have_diverged() -> None:
    members = [member(seed, lambda: Explodes(explodes=True), epochs=9) for seed in SEEDS]

    curves, results = fused(members, "grouped")

    assert len(curves) == 2
    assert {Outcome.DIVERGED} == {result.outcome for result in results}


class Residual(nn.Module):
    """Convolutions of several kinds, a sum, a concatenation and functional calls, as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding="same", bias=False)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.strided = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6, affine=False, momentum=0.5)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.relu(self.first(images))
        both = torch.cat([features, features + self.depthwise(features)], dim=1)
        pooled = functional.avg_pool2d(functional.max_pool2d(both, 2, stride=1, padding=1), kernel_size=2)
        scaled = self.norm(self.strided(pooled)) * self.scale
        logits: Tensor = self.head(functional.adaptive_avg_pool2d(scaled, 1).flatten(1))
        return logits


@pytest.mark.parametrize("backend", FUSED)
def test_models_of_the_users_own_are_fused_as_they_are(backend: Backend) -> None:
    data = dataclasses.replace(make_data(), layout=torch.contiguous_format)
    members = [member(seed, Residual, data=data, optimizer="sgd") for seed in SEEDS]
    expected = [alone(one) for one in members]

    curves, results = fused(members, backend)

    for index, (curve, result) in enumerate(expected):
        assert [metrics.train["loss"] for metrics in curve] == pytest.approx(
            [metrics[index].train["loss"] for metrics in curves], rel=1e-4
        )
        assert results[index].state.keys() == result.state.keys()


class Answering(Residual):
    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(images)}


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_that_answer_with_a_mapping_are_fused_as_those_that_answer_with_logits(backend: Backend) -> None:
    data = dataclasses.replace(make_data(), layout=torch.contiguous_format)
    expected, _ = fused([member(seed, Residual, data=data) for seed in SEEDS], backend)

    curves, _ = fused([member(seed, Answering, data=data) for seed in SEEDS], backend)

    assert [[one.train["loss"] for one in epoch] for epoch in expected] == [
        [one.train["loss"] for one in epoch] for epoch in curves
    ]


@pytest.mark.parametrize("convolution", FUSED)
def test_torchvisions_models_are_fused(convolution: Any) -> None:
    """Their first gradients are compared: after an epoch of so deep a model with batch norm, CPUs differ by 2 %."""
    shape = DataShape(channels=3, height=12, width=8, classes=SHAPE.classes)
    build = lambda: build_torchvision({"name": "torchvision:resnet18", "stem": "small", "width": 0.125}, shape)  # noqa: E731
    members = [member(seed, build) for seed in SEEDS]
    models = [one.model for one in members]
    stacked = Stacked(models, convolution=convolution, precision="fp32", masks=GeneratedMasks(generators(3)))

    losses, gradients = first_step(stacked, members)

    for index, model in enumerate(models):
        loss, expected = own_first_step(model, index, members)
        assert (gradients[index] - expected).norm() < 1e-3 * expected.norm()
        assert losses[index].item() == pytest.approx(loss, rel=1e-3)


def test_features_are_trained_on_together() -> None:
    data = make_features(5)
    members = [
        member(seed, lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)), data=data) for seed in SEEDS
    ]
    curve, _ = alone(members[2])

    curves, _ = fused(members, "grouped")

    assert curves[-1][2].train["loss"] == pytest.approx(curve[-1].train["loss"], rel=1e-4)


def test_tied_and_frozen_parameters_stay_so() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
            self.second.weight = self.first.weight
            self.head = nn.Linear(5, 4)
            self.head.bias.requires_grad_(False)

        def forward(self, features: Tensor) -> Tensor:
            logits: Tensor = self.head(self.second(self.first(features)))
            return logits

    members = [member(seed, Tied, data=make_features(5)) for seed in SEEDS]
    before = members[0].model.head.bias.clone()

    _, (result, *_) = fused(members, "grouped")

    assert torch.equal(result.state["first.weight"], result.state["second.weight"])
    assert torch.equal(before, result.state["head.bias"])
    assert alone(member(0, Tied, data=make_features(5)))[1].state.keys() == result.state.keys()


class Draws(nn.Module):
    """Does what a graph would freeze, or fusing would mix."""

    def __init__(self, does: Callable[["Draws"], Any]) -> None:
        super().__init__()
        self.inner, self.calls, self.last = nn.Linear(5, 4), 0, None
        self.register_buffer("mean", torch.ones(()))
        self.does = does

    def forward(self, features: Tensor) -> Tensor:
        self.does(self)
        logits: Tensor = self.inner(features)
        return logits


def counts(model: Draws) -> None:
    model.calls += 1


def replaces(model: Draws) -> None:
    model.mean = model.mean * 0.9


def makes(model: Draws) -> None:
    model.last = model.mean + 1


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (replaces, "puts another tensor in the place of the model's .mean"),
        (makes, "puts another tensor in the place of the model's .last"),
        (lambda _: random.random(), "draws random numbers from Python's generator"),
        (lambda _: np.random.rand(), "draws random numbers from NumPy's generator"),
        (counts, "changes the model's attribute .calls"),
    ],
)
def test_what_a_graph_would_freeze_is_refused(does: Any, said: str) -> None:
    one = member(0, lambda: Draws(does), data=make_features(5))

    with pytest.raises(PathUnavailable, match=said):
        finished(train_graph(one, study_seed=STUDY_SEED))


@pytest.mark.parametrize("does", [replaces, makes])
def test_a_buffer_that_is_replaced_cannot_be_fused(does: Any) -> None:
    members = [member(seed, lambda: Draws(does), data=make_features(5)) for seed in SEEDS]

    with pytest.raises(PathUnavailable, match="puts another tensor in the place of the model's"):
        fused(members, "grouped")


def test_a_loss_that_counts_its_calls_is_refused() -> None:
    class Counting(nn.Module):
        calls = 0

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            self.calls += 1
            return functional.cross_entropy(logits, labels)

    one = member(0)

    with pytest.raises(PathUnavailable, match=r"changes the model's attribute \.calls"):
        finished(train_graph(one, study_seed=STUDY_SEED, loss=Counting()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_numbers_that_runs_would_share_are_refused(backend: Backend) -> None:
    members = [member(seed, lambda: Draws(lambda _: torch.rand(1)), data=make_features(5)) for seed in SEEDS]

    with pytest.raises((PathUnavailable, RuntimeError), match=r"device's one generator|random"):
        fused(members, backend)


def test_a_decision_by_a_value_cannot_be_fused() -> None:
    class Decides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 4)

        def forward(self, features: Tensor) -> Tensor:
            logits: Tensor = self.inner(features)
            return logits if logits.sum() > 0 else -logits

    with pytest.raises(RuntimeError, match="data-dependent control flow"):
        fused([member(seed, Decides, data=make_features(5)) for seed in SEEDS], "grouped")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"build": lambda: built_in(depth=1)}, "parameters"),
        ({"batch_size": 4}, "settings"),
        ({"data": make_data(train_images=20)}, "sizes of their splits"),
    ],
)
def test_members_that_are_not_alike_are_refused(other: dict[str, Any], said: str) -> None:
    with pytest.raises(PathUnavailable, match=f"seeds 0 and 1 differ in the {said}"):
        check_alike([member(0), member(1, **other)])


def test_every_backend_is_timed_and_the_fastest_taken_from_then_on(tmp_path: Path) -> None:
    members, cache = [member(seed) for seed in SEEDS], tmp_path / "backends.json"
    before = [{name: tensor.clone() for name, tensor in one.model.state_dict().items()} for one in members]

    times = measure_backends(members)
    chosen = choose_backend(members, cache=cache)
    kept = cache.read_text()
    again = choose_backend(members, cache=cache)

    assert set(BACKENDS) == set(times.together)
    assert times.together[times.fastest] == min(times.together.values())
    assert chosen == again
    assert kept == cache.read_text()
    assert all(states_equal(old, one.model.state_dict()) for old, one in zip(before, members, strict=True))


def test_fusing_that_does_not_gain_is_refused_where_it_must(tmp_path: Path) -> None:
    members, cache = [member(seed) for seed in SEEDS], tmp_path / "backends.json"
    slow = BackendTimes(together={"matmul": 0.004}, alone=0.001)
    cache.write_text(json.dumps({measurement_key(members, functional.cross_entropy): dataclasses.asdict(slow)}))

    assert choose_backend(members, cache=cache) == "matmul"
    with pytest.raises(PathUnavailable, match="a step of 3 runs takes 4 ms, and 3 ms one by one"):
        choose_backend(members, cache=cache, must_gain=True)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {"seconds": 1}}'])
def test_a_damaged_file_of_times_is_measured_anew(content: str, tmp_path: Path) -> None:
    cache = tmp_path / "backends.json"
    cache.write_text(content)

    choose_backend([member(seed) for seed in SEEDS], cache=cache)

    assert cache.read_text().startswith('{\n "')


def test_a_measurement_holds_for_its_model_batch_and_number_of_runs() -> None:
    loss = functional.cross_entropy
    members = [member(seed) for seed in SEEDS]
    changed = [
        members[:2],
        [member(seed, lambda: built_in(width=8)) for seed in SEEDS],
        [member(seed, batch_size=4) for seed in SEEDS],
        [member(seed, precision="bf16") for seed in SEEDS],
        [dataclasses.replace(one, cudnn_benchmark=True) for one in members],
    ]

    keys = {measurement_key(those, loss) for those in [members, *changed]}

    assert len(keys) == 6
    assert measurement_key([member(seed, learning_rate=0.5) for seed in SEEDS], loss) in keys  # it takes no longer


def test_a_cpu_has_room_for_all() -> None:
    assert members_that_fit(member(0)) is None


@pytest.mark.slow
def test_final_accuracy_over_ten_seeds_is_within_seed_noise() -> None:
    data, seeds = make_data(train_images=200), range(10)
    build = lambda: built_in(dropout=0.2)  # noqa: E731
    changes: dict[str, Any] = {"augmentation": "crop-flip", "epochs": 4, "batch_size": 16}
    members = [member(seed, build, data=data, **changes) for seed in seeds]
    own = [alone(one)[1].metrics["final_train_loss"] for one in members]

    _, results = fused(members, "grouped")

    differences = np.array([result.metrics["final_train_loss"] for result in results]) - own
    assert abs(differences.mean()) < 3 * np.std(own, ddof=1) / np.sqrt(len(own))
    assert differences.std() < np.std(own, ddof=1)


def test_precision_is_that_of_the_products_in_every_path() -> None:
    one = member(0, lambda: built_in(dropout=0.0), precision="bf16")
    exact = dataclasses.replace(one, model=copy.deepcopy(one.model), settings=settings_of())
    coarse, _ = alone(one)
    fine, _ = alone(exact)

    curves, _ = fused([one], "grouped")

    assert coarse[0].train["loss"] != fine[0].train["loss"]
    assert coarse[0].train["loss"] == pytest.approx(fine[0].train["loss"], rel=0.05)
    assert curves[0][0].train["loss"] == pytest.approx(coarse[0].train["loss"], rel=1e-2)
