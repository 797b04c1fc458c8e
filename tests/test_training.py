"""Training equals a plain PyTorch loop to the bit, shows every image once an epoch, and is repeated by its seeds."""

import dataclasses
import json
import math
import subprocess
import sys
from collections import UserDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from trainings import (
    SEED,
    STUDY_SEED,
    batches_of,
    make_data,
    make_features,
    make_model,
    run,
    settings_of,
    states_equal,
    untimed,
)

from ablation.errors import CodeInvalid
from ablation.records import TASKS, EpochMetrics, Outcome
from ablation.streams import Purpose, stream_seed
from ablation.training import TrainingData
from ablation.training.batches import CROP_PIXELS, _reflected, batch_bounds
from ablation.training.evaluation import evaluate
from ablation.training.optimizers import make_optimizer
from ablation.training.schedules import SCHEDULES, learning_rates
from ablation.training.tasks.classification import brier_score, confusion_matrix


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class InPlace(nn.Module):
    """Takes anything apart in place, as nobody should."""

    def __init__(self, *, features: int) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(features, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs -= 1
        logits: Tensor = self.linear(inputs.view(len(inputs), -1))
        return logits


def standardized(images: np.ndarray, data: TrainingData) -> Tensor:
    """Standardize uint8 (N, H, W, C) images one operation at a time; (N, C, H, W)."""
    floats = (images.astype(np.float32) - data.mean.numpy()) / data.deviation.numpy()
    return torch.from_numpy(floats.transpose(0, 3, 1, 2).copy())


def plain_loop(
    model: nn.Module, data: TrainingData, optimizer: torch.optim.Optimizer, *, epochs: int, batch_size: int
) -> list[tuple[float, float]]:
    """Train as one would by hand: no gathers, no fused anything; return (loss, accuracy) of each epoch."""
    model.to(memory_format=torch.channels_last)
    images = standardized(data.images.numpy(), data)
    curve = []
    for epoch in range(1, epochs + 1):
        shuffled = torch.Generator().manual_seed(stream_seed(STUDY_SEED, Purpose.ORDER, SEED, epoch))
        order = data.train[torch.randperm(len(data.train), generator=shuffled)].tolist()
        torch.manual_seed(stream_seed(STUDY_SEED, Purpose.DROPOUT, SEED, epoch))
        model.train()
        loss_sum, correct = 0.0, 0
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            optimizer.zero_grad()
            logits = model(torch.stack([images[index] for index in batch]).to(memory_format=torch.channels_last))
            loss = nn.CrossEntropyLoss()(logits, data.labels[batch])
            loss.backward()
            optimizer.step()
            loss_sum += float(np.float32(loss.item()) * np.float32(len(batch)))
            correct += int((logits.argmax(1) == data.labels[batch]).sum())
        curve.append((loss_sum / len(order), correct / len(order)))
    return curve


@pytest.mark.parametrize("normalization", ["none", "batch", "group"])
@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        ("adam", lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=1e-3, fused=True)),
        ("adamw", lambda weights: torch.optim.AdamW(weights, lr=0.01, weight_decay=1e-3, fused=True)),
        ("sgd", lambda weights: torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-3, fused=True)),
    ],
)
def test_training_equals_a_plain_loop_to_the_bit(
    optimizer: str, plain: Callable[..., torch.optim.Optimizer], normalization: str
) -> None:
    data = make_data()
    reference = make_model(normalization=normalization)
    expected = plain_loop(reference, data, plain(reference.parameters()), epochs=3, batch_size=8)

    settings = settings_of(epochs=3, optimizer=optimizer, weight_decay=1e-3)
    curve, result = run(make_model(normalization=normalization), data, settings)

    assert expected == [(metrics.train["loss"], metrics.train["accuracy"]) for metrics in curve]
    assert states_equal(reference.state_dict(), dict(result.state))


@pytest.mark.parametrize(
    ("optimizer", "plain"),
    [
        ("adam", lambda weights: torch.optim.Adam(weights, lr=1e-3, foreach=False)),
        ("adamw", lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.0, foreach=False)),
        ("sgd", lambda weights: torch.optim.SGD(weights, lr=1e-3, momentum=0.9, foreach=False)),
    ],
)
def test_fused_optimizer_is_the_plain_one_within_rounding(
    optimizer: str, plain: Callable[..., torch.optim.Optimizer]
) -> None:
    data = make_data()
    # Without normalization, whose biases before it have gradients of pure rounding that Adam scales up to full steps.
    reference = make_model(normalization="none")
    plain_loop(reference, data, plain(reference.parameters()), epochs=2, batch_size=8)

    _, result = run(make_model(normalization="none"), data, settings_of(optimizer=optimizer, learning_rate=1e-3))

    for name, weights in reference.state_dict().items():
        torch.testing.assert_close(result.state[name], weights, rtol=1e-4, atol=1e-6)


def test_convolutions_are_channels_last() -> None:
    model = make_model(width=8)
    seen: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda module, inputs, output: seen.extend(
                    tensor.is_contiguous(memory_format=torch.channels_last)
                    for tensor in (module.weight, inputs[0], output)
                )
            )

    run(model, make_data(), settings_of(epochs=1))

    assert seen
    assert all(seen)


def test_epoch_shows_every_training_image_exactly_once() -> None:
    data = make_data()
    data = dataclasses.replace(data, labels=torch.arange(len(data.labels)))  # a label now names its image

    for epoch in (1, 2):
        shown = torch.cat([labels for _, labels in batches_of(data, epoch=epoch)])
        assert sorted(data.train.tolist()) == sorted(shown.tolist())


def test_image_keeps_its_label() -> None:
    data = make_data()
    marked = torch.arange(len(data.labels))
    data = dataclasses.replace(
        data,
        images=marked.to(torch.uint8)[:, None, None, None].expand(-1, 12, 8, 3).contiguous(),
        labels=marked,
        mean=torch.zeros(3),
        deviation=torch.ones(3),
    )

    for augmentation in ("none", "flip", "crop", "crop-flip"):
        for images, labels in batches_of(data, augmentation=augmentation):
            assert torch.equal(images, labels.float()[:, None, None, None].expand(-1, 3, 12, 8))


def test_order_depends_on_study_seed_seed_and_epoch_alone() -> None:
    data = dataclasses.replace(make_data(), labels=torch.arange(55))

    def order(**changes: Any) -> list[int]:
        return [label for _, labels in batches_of(data, **changes) for label in labels.tolist()]

    assert order() == order() == order(augmentation="crop-flip") == order(batch_size=5)
    others = [order(study_seed=8), order(seed=3), order(epoch=2)]
    assert all(order() != other for other in others)
    assert len({tuple(other) for other in others}) == len(others)


def test_variants_of_a_seed_see_the_same_batches() -> None:
    data = make_data()

    def seen_by(model: nn.Module) -> list[Tensor]:
        images: list[Tensor] = []
        model.register_forward_pre_hook(
            lambda module, inputs: images.append(inputs[0].clone()) if module.training else None
        )
        run(model, data, settings_of(augmentation="crop-flip"))
        return images

    first, second = seen_by(make_model()), seen_by(make_model(depth=1, normalization="none", dropout=0.0))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@given(count=st.integers(1, 300), batch_size=st.integers(2, 80))
def test_batches_follow_one_another_and_none_but_the_only_one_has_one_image(count: int, batch_size: int) -> None:
    bounds = batch_bounds(count, batch_size)

    assert [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), count]
    sizes = [stop - start for start, stop in bounds]
    assert all(size == batch_size for size in sizes[:-1])
    assert count == 1 or 2 <= sizes[-1] <= batch_size + 1


def test_last_batch_of_one_joins_the_one_before() -> None:
    assert [8, 8, 9] == [len(labels) for _, labels in batches_of(make_data(train_images=25))]
    assert [8, 8, 8, 2] == [len(labels) for _, labels in batches_of(make_data(train_images=26))]


@given(size=st.integers(1, 40), shift=st.integers(-CROP_PIXELS, CROP_PIXELS))
def test_reflection_is_numpys(size: int, shift: int) -> None:
    padded = np.pad(np.arange(size), CROP_PIXELS, mode="reflect")

    reflected = _reflected(torch.arange(size) + shift, size)

    assert padded[CROP_PIXELS + shift : CROP_PIXELS + shift + size].tolist() == reflected.tolist()


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop", "crop-flip"])
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_equal_images_moved_and_mirrored_one_by_one(augmentation: str, channels: int) -> None:
    data = make_data(channels=channels)
    count = len(data.train)
    shuffled = torch.Generator().manual_seed(stream_seed(STUDY_SEED, Purpose.ORDER, SEED, 1))
    drawn = torch.Generator().manual_seed(stream_seed(STUDY_SEED, Purpose.AUGMENTATION, SEED, 1))
    order = torch.randperm(count, generator=shuffled).tolist()
    flips = (torch.rand(count, generator=drawn) < 0.5).tolist()
    shifts = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (count, 2), generator=drawn).tolist()
    expected = []
    for position in order:
        image = data.images[data.train[position]].numpy()
        if "crop" in augmentation:
            padded = np.pad(image, ((CROP_PIXELS, CROP_PIXELS), (CROP_PIXELS, CROP_PIXELS), (0, 0)), mode="reflect")
            top, left = (CROP_PIXELS + shift for shift in shifts[position])
            image = padded[top : top + 12, left : left + 8]
        if "flip" in augmentation:
            image = image[:, ::-1] if flips[position] else image
        expected.append(image)

    images = torch.cat([images for images, _ in batches_of(data, augmentation=augmentation)])

    assert torch.equal(standardized(np.stack(expected), data), images)


def test_augmentation_differs_from_epoch_to_epoch_and_seed_to_seed() -> None:
    data = dataclasses.replace(make_data(train_images=43), train=torch.zeros(43, dtype=torch.int64))  # one image only

    def shown(**changes: Any) -> Tensor:
        return torch.cat([images for images, _ in batches_of(data, augmentation="crop-flip", **changes)])

    assert not torch.equal(shown(), shown(epoch=2))
    assert not torch.equal(shown(), shown(seed=3))


def test_training_images_are_standardized_by_the_training_split() -> None:
    data = make_data()

    images = torch.cat([images for images, _ in batches_of(data)])

    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-5)


def test_training_does_not_write_to_the_data() -> None:
    data = make_data(validation=True)
    before = [tensor.clone() for tensor in (data.images, data.labels, data.test_images, data.mean)]

    run(make_model(), data, settings_of(augmentation="crop-flip"))

    now = (data.images, data.labels, data.test_images, data.mean)
    assert all(torch.equal(one, other) for one, other in zip(before, now, strict=True))


def rates_of(schedule: str, total_steps: int, *, peak: float) -> list[float]:
    return learning_rates(settings_of(epochs=1, schedule=schedule, learning_rate=peak), total_steps)


@pytest.mark.parametrize("total_steps", [4, 30, 1000])
def test_cosine_is_torchs(total_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = CosineAnnealingLR(optimizer, T_max=total_steps)

    assert_follows(schedule, optimizer, total_steps, name="cosine", tolerance=1e-9)


@pytest.mark.parametrize("total_steps", [1, 2, 4, 30, 1000])
def test_one_cycle_is_torchs(total_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = OneCycleLR(optimizer, max_lr=0.3, total_steps=total_steps, cycle_momentum=False)

    assert_follows(schedule, optimizer, total_steps, name="one-cycle", tolerance=1e-12)


def assert_follows(
    schedule: CosineAnnealingLR | OneCycleLR,
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    *,
    name: str,
    tolerance: float,
) -> None:
    rates = rates_of(name, total_steps, peak=0.3)
    for step in range(total_steps):
        expected = schedule.get_last_lr()[0]
        assert rates[step] == pytest.approx(expected, rel=tolerance, abs=1e-12)
        optimizer.step()
        if step + 1 < total_steps:
            schedule.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 7, 100])
def test_every_schedule_stays_within_its_peak_comes_near_it_and_scales_with_it(name: str, total_steps: int) -> None:
    rates = rates_of(name, total_steps, peak=0.5)

    assert all(0 <= rate <= 0.5 for rate in rates)
    assert total_steps < 7 or max(rates) > 0.9 * 0.5
    assert [rate * 2 for rate in rates] == pytest.approx(rates_of(name, total_steps, peak=1.0))


def test_constant_is_the_peak() -> None:
    assert [0.3] * 10 == rates_of("constant", 10, peak=0.3)


def test_schedule_spans_all_epochs_step_by_step() -> None:
    curve, _ = run(make_model(), make_data(), settings_of(epochs=3, schedule="one-cycle", learning_rate=0.1))

    steps = 6  # 43 images in batches of 8
    last_of_epoch = [rates_of("one-cycle", steps * 3, peak=0.1)[steps * epoch - 1] for epoch in (1, 2, 3)]
    assert last_of_epoch == [metrics.learning_rate for metrics in curve]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_optimizers_take_the_settings(optimizer: str) -> None:
    made = make_optimizer(
        nn.Linear(2, 2), settings_of(optimizer=optimizer, learning_rate=0.3, weight_decay=0.02, momentum=0.7)
    )

    group = made.param_groups[0]
    assert (0.3, 0.02, True) == (group["lr"], group["weight_decay"], group["fused"])
    assert group.get("momentum", 0.7) == 0.7


def test_evaluation_equals_direct_computation() -> None:
    data = make_data(train_images=300)
    model = make_model()
    indices = data.train[torch.randperm(300, generator=torch.Generator().manual_seed(1))]

    evaluation = evaluate(model, data.images, data.labels, data, indices=indices)

    model.eval()
    with torch.no_grad():
        logits = model(standardized(data.images[indices].numpy(), data))
    truth = data.labels[indices]
    chosen = functional.log_softmax(logits.double(), 1)[torch.arange(300), truth]
    torch.testing.assert_close(evaluation.outputs.clone(), logits, rtol=1e-5, atol=1e-6)
    assert -chosen.mean().item() == pytest.approx(evaluation.loss, rel=1e-5)
    assert (logits.argmax(1) == truth).double().mean().item() == evaluation.scores["accuracy"]


@pytest.mark.parametrize("is_training", [True, False])
def test_evaluation_leaves_the_models_mode_and_statistics(is_training: bool) -> None:
    data = make_data()
    model = make_model().train(is_training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    evaluate(model, data.test_images, data.test_labels, data)

    assert model.training is is_training
    assert states_equal(before, model.state_dict())


def test_epoch_metrics_are_the_models_at_the_epochs_end() -> None:
    data = make_data(validation=True)
    model = make_model()
    expected: list[tuple[float, ...]] = []

    def look(_: EpochMetrics) -> None:
        sample = evaluate(model, data.images, data.labels, data, indices=data.sample)
        heldout = evaluate(model, data.images, data.labels, data, indices=data.validation)
        expected.append((sample.loss, sample.scores["accuracy"], heldout.loss, heldout.scores["accuracy"]))

    curve, _ = run(model, data, settings_of(epochs=3), between=look)

    assert [1, 2, 3] == [metrics.epoch for metrics in curve]
    assert expected == [
        (metrics.sample["loss"], metrics.sample["accuracy"], metrics.heldout["loss"], metrics.heldout["accuracy"])
        for metrics in curve
    ]


def test_without_a_validation_split_test_is_held_out() -> None:
    curve, result = run(make_model(), make_data(), settings_of(epochs=3))

    assert (curve[-1].heldout["loss"], curve[-1].heldout["accuracy"]) == (
        result.metrics["test_loss"],
        result.metrics["test_accuracy"],
    )


def test_final_metrics_are_those_of_the_final_model() -> None:
    data = make_data(validation=True)
    model = make_model()

    curve, result = run(model, data, settings_of(epochs=3))

    test = evaluate(model, data.test_images, data.test_labels, data)
    trained = evaluate(model, data.images, data.labels, data, indices=data.train)
    assert {
        "test_accuracy": test.scores["accuracy"],
        "test_loss": test.loss,
        "test_brier_score": brier_score(test.outputs, data.test_labels),
        "learning_curve_area": sum(metrics.heldout["accuracy"] for metrics in curve) / 3,
        "final_train_accuracy": trained.scores["accuracy"],
        "final_train_loss": trained.loss,
        "generalization_gap": test.loss - trained.loss,
        "training_seconds": sum(metrics.seconds for metrics in curve),
    } == result.metrics
    assert TASKS["classification"].metrics.keys() == result.metrics.keys()
    assert (Outcome.DONE, 3, None) == (result.outcome, result.measured_epoch, result.diverged_epoch)
    assert np.array_equal(test.outputs.numpy(), result.test_outputs)
    assert states_equal(model.state_dict(), dict(result.state))


def test_confusion_counts_true_classes_by_row_and_predictions_by_column() -> None:
    logits = torch.tensor([[9.0, 0, 0], [0, 9, 0], [0, 9, 0], [0, 0, 9]])
    labels = torch.tensor([0, 0, 1, 0])

    assert [[1, 1, 1], [0, 1, 0], [0, 0, 0]] == confusion_matrix(logits, labels).tolist()


def test_confusion_matrices_agree_with_the_accuracies() -> None:
    data = make_data()

    _, result = run(make_model(), data, settings_of(epochs=2))

    for split, name, labels in (
        ("train", "final_train_accuracy", data.labels[data.train]),
        ("test", "test_accuracy", data.test_labels),
    ):
        counts = result.confusion[split]
        assert np.bincount(labels.numpy(), minlength=4).tolist() == counts.sum(1).tolist()
        assert np.trace(counts) / counts.sum() == pytest.approx(result.metrics[name])


def test_best_validation_measures_the_epoch_with_the_highest_validation_accuracy() -> None:
    data = make_data(validation=True)
    model = make_model()
    states: list[dict[str, Tensor]] = []
    settings = settings_of(epochs=8, learning_rate=0.3, epoch_choice="best-validation")

    curve, result = run(
        model,
        data,
        settings,
        between=lambda _: states.append({name: tensor.clone() for name, tensor in model.state_dict().items()}),
    )

    accuracies = [metrics.heldout["accuracy"] for metrics in curve]
    best = accuracies.index(max(accuracies))
    assert best != 7, "the last epoch must not be the best one for this test to mean anything"
    assert best + 1 == result.measured_epoch
    assert states_equal(states[best], dict(result.state))
    assert (
        evaluate(model, data.test_images, data.test_labels, data).scores["accuracy"] == result.metrics["test_accuracy"]
    )


class FailsAt(nn.Module):
    """Answers NaN or infinity for images of one brightness (standardized), in one mode; else as its inner model."""

    def __init__(self, inner: nn.Module, *, value: float, step: int | None = None, brightness: float | None = None):
        super().__init__()
        self.inner, self.value, self.step, self.brightness = inner, value, step, brightness
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        self.steps += self.training
        if self.training and self.steps == self.step:
            logits = logits * self.value
        if self.brightness is not None:
            logits = torch.where((images > self.brightness).all(dim=(1, 2, 3))[:, None], self.value, logits)
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_the_run_as_diverged_in_its_epoch(value: float) -> None:
    model = FailsAt(make_model(), value=value, step=8)  # of 6 steps an epoch

    curve, result = run(model, make_data(), settings_of(epochs=5))

    assert [1, 2] == [metrics.epoch for metrics in curve]
    assert (Outcome.DIVERGED, 2, None) == (result.outcome, result.diverged_epoch, result.measured_epoch)
    assert 8 == result.diverged_step
    assert {"training_seconds"} == result.metrics.keys()
    assert (None, {}, {}) == (result.test_outputs, result.confusion, result.state)


def test_learning_rate_that_is_far_too_large_diverges() -> None:
    settings = settings_of(epochs=5, optimizer="sgd", learning_rate=1000.0)

    # A leaky ReLU, as ReLUs that such a step has killed would leave a finite loss.
    curve, result = run(make_model(normalization="none", activation="leaky_relu"), make_data(), settings)

    assert result.outcome is Outcome.DIVERGED
    assert len(curve) == result.diverged_epoch


def test_loss_that_is_not_finite_on_test_alone_is_diverged_in_the_last_epoch() -> None:
    data = make_data(validation=True)
    data = dataclasses.replace(data, test_images=torch.full_like(data.test_images, 255))
    model = FailsAt(make_model(), value=math.nan, brightness=float((250 - data.mean).max() / data.deviation.min()))

    curve, result = run(model, data, settings_of(epochs=2))

    assert all(math.isfinite(metrics.heldout["loss"]) for metrics in curve)
    assert (Outcome.DIVERGED, 2) == (result.outcome, result.diverged_epoch)


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_run_is_repeated_to_the_bit(augmentation: str) -> None:
    data, settings = make_data(validation=True), settings_of(augmentation=augmentation, schedule="cosine")

    first_curve, first = run(make_model(), data, settings)
    second_curve, second = run(make_model(), data, settings)

    assert untimed(first_curve) == untimed(second_curve)
    assert states_equal(dict(first.state), dict(second.state))
    assert np.array_equal(first.test_outputs, second.test_outputs)


def test_other_seed_is_another_run() -> None:
    data = make_data()

    first, _ = run(make_model(), data, settings_of(epochs=1))
    second, _ = run(make_model(), data, settings_of(epochs=1), seed=SEED + 1)

    assert untimed(first) != untimed(second)


def test_dropout_does_not_depend_on_the_callers_generator() -> None:
    data, settings = make_data(), settings_of(epochs=3)

    undisturbed, _ = run(make_model(dropout=0.5), data, settings)
    model = make_model(dropout=0.5)
    torch.manual_seed(99)
    disturbed, _ = run(model, data, settings, between=lambda _: torch.rand(17))

    assert untimed(undisturbed) == untimed(disturbed)


def test_dropout_differs_from_epoch_to_epoch() -> None:
    masks: list[Tensor] = []
    model = make_model(dropout=0.5)
    model.dense.get_submodule("dropout1").register_forward_hook(
        lambda module, inputs, output: masks.append(output == 0) if module.training else None
    )

    run(model, make_data(train_images=8), settings_of(epochs=2))

    assert len(masks) == 2
    assert not torch.equal(masks[0], masks[1])


def test_training_and_models_import_torch_numpy_and_the_standard_library_alone() -> None:
    script = """
import json, sys
import numpy, torch, torch.utils.flop_counter
before = set(sys.modules)
import ablation.models, ablation.training
print(json.dumps([sorted({name.partition(".")[0] for name in set(sys.modules) - before}), sorted(sys.modules)]))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root)

    added, loaded = json.loads(done.stdout)
    assert set(added) <= {"ablation", "torch", "numpy"} | sys.stdlib_module_names
    assert {"optuna", "mlflow", "pydantic", "click"}.isdisjoint(loaded)
    ours = {name for name in loaded if name.startswith("ablation.")}
    below = {"records", "streams", "errors", "lookup", "code", "stopping", "storage", "commands"}
    assert {name.split(".")[1] for name in ours} <= {"models", "training", *below}


NOT_NEEDED_TO_TRAIN = (
    *("click", "filelock", "jinja2", "matplotlib", "mlflow", "optuna", "pandas", "PIL", "pydantic", "ruamel"),
    *("scipy", "sklearn", "sqlalchemy", "threadpoolctl"),
)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ablation.worker", "benchmarks.gpu"])
def test_the_worker_and_the_benchmark_of_a_gpu_need_torch_torchvision_and_numpy_alone(module: str) -> None:
    script = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({NOT_NEEDED_TO_TRAIN}))  # None: importing it raises
importlib.import_module({module!r})
print(*sorted({{name.partition(".")[2].partition(".")[0] for name in sys.modules if name.startswith("ablation.")}}))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=root)

    assert 0 == done.returncode, done.stderr
    assert {"study", "tracking", "scheduling", "report", "analysis"}.isdisjoint(done.stdout.split())


@pytest.mark.parametrize("classes", [2, 5])
def test_brier_score_is_the_mean_squared_distance_of_the_probabilities_from_the_truth(classes: int) -> None:
    random = np.random.default_rng(classes)
    logits, labels = random.normal(size=(40, classes)), random.integers(classes, size=40)
    powers = np.exp(logits)
    probabilities = powers / powers.sum(1, keepdims=True)
    expected = np.mean(np.sum((probabilities - np.eye(classes)[labels]) ** 2, axis=1))

    assert brier_score(torch.from_numpy(logits), torch.from_numpy(labels)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 4, 2), (2, 3, 2, 2)])
def test_features_are_trained_on_as_they_are_and_as_in_a_plain_loop(shape: tuple[int, ...]) -> None:
    data = make_features(*shape)
    reference = InPlace(features=math.prod(shape))
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01, fused=True)
    losses = []
    for epoch in (1, 2):
        shuffled = torch.Generator().manual_seed(stream_seed(STUDY_SEED, Purpose.ORDER, SEED, epoch))
        order = data.train[torch.randperm(len(data.train), generator=shuffled)]
        total = 0.0
        for batch in order.split(8):
            loss = functional.cross_entropy(reference(data.images[batch]), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(order))

    curve, result = run(InPlace(features=math.prod(shape)), data, settings_of())

    assert losses == pytest.approx([metrics.train["loss"] for metrics in curve], rel=1e-6)
    assert states_equal(reference.state_dict(), dict(result.state))


def test_a_model_that_works_in_place_changes_no_feature() -> None:
    data = make_features(5)
    before = data.images.clone(), data.test_images.clone()

    run(InPlace(features=5), data, settings_of())

    assert torch.equal(before[0], data.images)
    assert torch.equal(before[1], data.test_images)


@dataclasses.dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


class Answering(nn.Module):
    """Gives its logits in whatever `wrap` puts them into."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear, self.wrap = nn.Linear(5, 4), wrap

    def forward(self, inputs: Tensor) -> Any:
        return self.wrap(self.linear(inputs))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: {"states": logits + 1, "logits": logits},
        lambda logits: UserDict(logits=logits),
        lambda logits: Answer(loss=None, logits=logits),
    ],
    ids=["dict", "mapping", "dataclass"],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_may_answer_with_a_mapping_or_dataclass_that_has_logits(
    wrap: Callable[[Tensor], Any], precision: str
) -> None:
    settings = settings_of(precision=precision)

    plain, expected = run(Answering(lambda logits: logits), make_features(5), settings)
    curve, result = run(Answering(wrap), make_features(5), settings)

    assert untimed(plain) == untimed(curve)
    assert states_equal(dict(expected.state), dict(result.state))


def test_a_contiguous_layout_serves_models_that_call_view() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3, padding=1)
            self.linear = nn.Linear(4 * 12 * 8, 4)

        def forward(self, images: Tensor) -> Tensor:
            assert images.is_contiguous()
            logits: Tensor = self.linear(self.convolution(images).view(len(images), -1))
            return logits

    _, result = run(Viewing(), dataclasses.replace(make_data(), layout=torch.contiguous_format), settings_of())

    assert Outcome.DONE is result.outcome


def test_a_contiguous_layout_is_the_same_training_within_rounding() -> None:
    data = make_data()
    settings = settings_of(learning_rate=1e-3)

    first, _ = run(make_model(), data, settings)
    second, _ = run(make_model(), dataclasses.replace(data, layout=torch.contiguous_format), settings)

    assert [metrics.train["loss"] for metrics in first] == pytest.approx(
        [metrics.train["loss"] for metrics in second], rel=1e-3
    )


def test_convolutions_over_volumes_can_be_trained() -> None:
    volumes = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.LazyLinear(4))
    volumes(torch.zeros(2, 3, 12, 8))

    _, result = run(volumes, make_data(), settings_of())

    assert Outcome.DONE is result.outcome


def test_a_loss_is_trained_on_and_everything_evaluated_stays_cross_entropy() -> None:
    data, rate = make_data(), settings_of(learning_rate=1e-30)

    def ten_more(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels) + 10

    plain, expected = run(make_model(), data, rate)
    other, result = run(make_model(), data, rate, loss=ten_more)

    assert [metrics.train["loss"] + 10 for metrics in plain] == pytest.approx(
        [metrics.train["loss"] for metrics in other]
    )
    evaluated = ("sample", "heldout")
    assert [[getattr(one, name) for name in evaluated] for one in plain] == [
        [getattr(one, name) for name in evaluated] for one in other
    ]
    assert (expected.metrics["test_loss"], expected.metrics["final_train_loss"]) == (
        result.metrics["test_loss"],
        result.metrics["final_train_loss"],
    )


def test_another_loss_is_another_training() -> None:
    data = make_data()

    first, _ = run(make_model(), data, settings_of())
    second, _ = run(make_model(), data, settings_of(), loss=nn.MultiMarginLoss())

    assert first[-1].heldout["loss"] != second[-1].heldout["loss"]


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda logits, labels: None, "and returned NoneType"),
        (lambda logits, labels: 1.0, "and returned float"),
        (nn.CrossEntropyLoss(reduction="none"), r"and returned a tensor of shape \(8,\); take its mean"),
        (lambda logits, labels: logits.mean().detach(), "and returned a tensor without a gradient"),
        (lambda logits, labels: (logits.argmax(1) != labels).sum(), "and returned a tensor without a gradient"),
    ],
)
def test_a_loss_that_cannot_be_trained_on_is_refused_at_the_first_step(loss: Any, said: str) -> None:
    with pytest.raises(CodeInvalid, match=f"the loss must return a scalar tensor, {said}.* @ training.loss"):
        run(make_model(), make_data(), settings_of(), loss=loss)
