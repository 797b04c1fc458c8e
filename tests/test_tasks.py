"""What the engine computes for each task: against torchmetrics, scikit-learn and a plain loop; on every path."""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import classification, regression
from trainings import (
    SEED,
    SEEDS,
    STUDY_SEED,
    TASK_MODELS,
    alone,
    begun,
    finished,
    make_task,
    member_of_task,
    states_equal,
    untimed,
)

from ablation.records import IGNORED, TASKS, Outcome, TaskName
from ablation.streams import Purpose, stream_seed
from ablation.training import train_eager, train_fused, train_graph
from ablation.training.batches import TrainingData, training_batches
from ablation.training.evaluation import evaluate
from ablation.training.paths import BACKENDS, Backend
from ablation.training.settings import OwnMetric
from ablation.training.tasks import OBJECTIVES, Objective, make_objective
from ablation.training.tasks.regression import Regression, fitted

NEW: tuple[TaskName, ...] = ("regression", "multilabel", "tokens", "segmentation")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def evaluated(task: TaskName, outputs: Tensor, data_targets: Tensor) -> tuple[Objective, dict[str, float], Any]:
    """Measure given outputs as the engine does, unscaled; return the scores and what is measured beside them."""
    shape, data = make_task(task)
    objective = make_objective(shape)
    whole = dataclasses.replace(data, scale=None, test_labels=data_targets, test_images=outputs)
    found = evaluate(nn.Identity(), outputs, data_targets, whole, objective=objective)
    return objective, dict(found.scores), objective.measures(found.whole(data_targets, whole, objective))


def outputs_of(task: TaskName, count: int = 50) -> tuple[Tensor, Tensor]:
    """Return outputs that are partly right, and their targets."""
    generator = torch.Generator().manual_seed(1)
    shape, _ = make_task(task)
    outputs = torch.randn((count, *shape.output_shape), generator=generator)
    if task == "regression":
        return outputs, outputs + torch.randn(outputs.shape, generator=generator)
    if task == "multilabel":
        return outputs, (outputs + torch.randn(outputs.shape, generator=generator) > 0.4).to(torch.uint8)
    noisy = outputs + torch.randn(outputs.shape, generator=generator)
    targets = noisy.argmax(-1 if task == "tokens" else 1).int()
    targets[::4, 0] = IGNORED
    return outputs, targets


def test_a_regression_is_measured_as_torchmetrics_does_it() -> None:
    outputs, targets = outputs_of("regression")

    _, scores, _ = evaluated("regression", outputs, targets)

    assert scores["rmse"] == pytest.approx(regression.MeanSquaredError(squared=False)(outputs, targets).item())
    assert scores["mae"] == pytest.approx(regression.MeanAbsoluteError()(outputs, targets).item())
    assert scores["r2"] == pytest.approx(regression.R2Score()(outputs, targets).item(), rel=1e-5)


def test_labels_are_measured_as_torchmetrics_does_it() -> None:
    outputs, targets = outputs_of("multilabel")
    truth = targets.int()

    _, scores, measures = evaluated("multilabel", outputs, targets)

    f1 = classification.MultilabelF1Score(num_labels=3, average="none")(outputs, truth)
    assert scores["macro_f1"] == pytest.approx(f1.mean().item())
    assert measures.details["f1"] == pytest.approx(f1.tolist())
    assert measures.values["test_auroc"] == pytest.approx(classification.MultilabelAUROC(3)(outputs, truth).item())
    average = classification.MultilabelAveragePrecision(3)(outputs, truth).item()
    assert measures.values["test_map"] == pytest.approx(average)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30))
def test_equal_scores_count_as_torchmetrics_counts_them(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = (torch.tensor(values) for values in zip(*pairs, strict=True))
    if truth.all() or not truth.any():
        return
    outputs = scores.float().unsqueeze(1).repeat(1, 3)
    targets = truth.to(torch.uint8).unsqueeze(1).repeat(1, 3)

    _, _, measures = evaluated("multilabel", outputs, targets)

    area = classification.BinaryAUROC()(scores.float(), truth.int())
    precision = classification.BinaryAveragePrecision()(scores.float(), truth.int())
    assert measures.values["test_auroc"] == pytest.approx(area.item(), abs=1e-6)
    assert measures.values["test_map"] == pytest.approx(precision.item(), abs=1e-6)


def test_a_label_without_positives_is_left_out_of_the_mean_and_named() -> None:
    outputs, targets = outputs_of("multilabel")
    targets[:, 1] = 0

    _, _, measures = evaluated("multilabel", outputs, targets)

    others = [classification.BinaryAUROC()(outputs[:, label], targets[:, label].int()).item() for label in (0, 2)]
    assert measures.values["test_auroc"] == pytest.approx(np.mean(others))
    assert (
        "test_auroc is the mean of 2 labels: AUROC is undefined for b, with one of its two answers in test",
        "test_map is the mean of 2 labels: average precision is undefined for b, with no example in test",
    ) == measures.undefined


def test_without_any_positive_neither_area_nor_precision_is_given() -> None:
    outputs, targets = outputs_of("multilabel")

    _, _, measures = evaluated("multilabel", outputs, torch.zeros_like(targets))

    assert {} == measures.values
    assert "test_auroc is left out: the test split has one of its two answers of every label" == measures.undefined[0]


def test_tokens_are_measured_as_torchmetrics_does_it() -> None:
    outputs, targets = outputs_of("tokens")
    flat = outputs.flatten(0, 1), targets.flatten().long()

    _, scores, measures = evaluated("tokens", outputs, targets)

    accuracy = classification.MulticlassAccuracy(5, average="micro", ignore_index=IGNORED)(*flat)
    assert scores["accuracy"] == pytest.approx(accuracy.item())
    loss = functional.cross_entropy(*flat, ignore_index=IGNORED).item()
    assert measures.values == pytest.approx({"test_nll": loss, "test_bits": loss / math.log(2)})


def test_segments_are_measured_as_torchmetrics_does_it() -> None:
    outputs, targets = outputs_of("segmentation")
    truth = targets.long()

    objective, scores, measures = evaluated("segmentation", outputs, targets)

    iou = classification.MulticlassJaccardIndex(3, average="none", ignore_index=IGNORED)(outputs, truth)
    dice = classification.MulticlassF1Score(3, average="macro", ignore_index=IGNORED)(outputs, truth)
    pixels = classification.MulticlassAccuracy(3, average="micro", ignore_index=IGNORED)(outputs, truth)
    assert scores == pytest.approx(
        {"iou": iou.mean().item(), "dice": dice.item(), "pixel_accuracy": pixels.item()}, rel=1e-5
    )
    assert measures.details["iou"] == pytest.approx(iou.tolist())
    tally = objective.tally(outputs[None], truth[None])[0]
    confusion = classification.MulticlassConfusionMatrix(3, ignore_index=IGNORED)(outputs, truth)
    assert torch.equal(confusion, tally)


def test_a_class_that_is_nowhere_counts_for_no_mean() -> None:
    outputs, targets = outputs_of("segmentation")
    outputs[:, 2], targets[targets == 2] = -9.0, 0

    _, scores, _ = evaluated("segmentation", outputs, targets)

    iou = classification.MulticlassJaccardIndex(3, average="macro", ignore_index=IGNORED)(outputs, targets.long())
    assert scores["iou"] == pytest.approx(iou.item(), rel=1e-5)


PLAIN_LOSSES: Mapping[TaskName, Callable[[Tensor, Tensor, TrainingData], Tensor]] = {
    "regression": lambda outputs, targets, data: functional.mse_loss(
        outputs,
        (targets - data.scale[0]) / data.scale[1],  # type: ignore[index]
    ),
    "multilabel": lambda outputs, targets, _: functional.binary_cross_entropy_with_logits(outputs, targets.float()),
    "tokens": lambda outputs, targets, _: (
        functional.cross_entropy(outputs.flatten(0, 1), targets.flatten().long(), ignore_index=IGNORED, reduction="sum")
        / (targets != IGNORED).sum()
    ),
    "segmentation": lambda outputs, targets, _: (
        functional.cross_entropy(
            outputs.movedim(1, -1).flatten(0, 2), targets.flatten().long(), ignore_index=IGNORED, reduction="sum"
        )
        / (targets != IGNORED).sum()
    ),
}


@pytest.mark.parametrize("task", NEW)
def test_a_run_ends_with_the_weights_of_a_plain_loop(task: TaskName) -> None:
    one = member_of_task(task)
    model = copy.deepcopy(one.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=one.settings.learning_rate, fused=True)
    for epoch in range(1, one.settings.epochs + 1):
        torch.manual_seed(stream_seed(STUDY_SEED, Purpose.DROPOUT, SEED, epoch))
        batches = training_batches(
            one.data,
            batch_size=one.settings.batch_size,
            augmentation="none",
            study_seed=STUDY_SEED,
            seed=SEED,
            epoch=epoch,
        )
        for inputs, targets in batches:
            optimizer.zero_grad()
            PLAIN_LOSSES[task](model(inputs), targets, one.data).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    _, result = alone(one)

    assert states_equal(dict(result.state), model.state_dict())


@pytest.mark.parametrize("task", NEW)
def test_what_is_measured_at_the_end_has_every_metric_of_the_task(task: TaskName) -> None:
    curve, result = alone(member_of_task(task, epochs=3))

    assert Outcome.DONE is result.outcome
    assert TASKS[task].metrics.keys() == result.metrics.keys()
    score = TASKS[task].score
    assert result.metrics["learning_curve_area"] == sum(metrics.heldout[score] for metrics in curve) / 3
    assert result.test_outputs is not None
    assert len(result.test_outputs) == 7
    assert TASKS[task].has_confusion is ("test" in result.confusion)


def test_a_regression_is_measured_in_the_unit_of_its_targets() -> None:
    one = member_of_task("regression", epochs=3)

    _, result = alone(one)

    assert result.test_outputs is not None
    errors = result.test_outputs - one.data.test_labels.numpy()
    assert result.metrics["test_rmse"] == pytest.approx(math.sqrt(np.mean(errors.astype(float) ** 2)), rel=1e-5)
    assert result.details["error_quantiles"][3] == pytest.approx(float(np.median(errors)), rel=1e-4)


@pytest.mark.parametrize("task", NEW)
def test_tasks_learn(task: TaskName) -> None:
    curve, _ = alone(member_of_task(task, epochs=20))

    score = TASKS[task].score
    first, last = curve[0].sample[score], curve[-1].sample[score]
    assert last < 0.7 * first if TASKS[task].direction_of(score) == "minimize" else last > first + 0.05
    assert curve[-1].sample["loss"] < 0.9 * curve[0].sample["loss"]


@pytest.mark.parametrize("task", OBJECTIVES)
def test_a_graph_trains_as_steps_one_by_one_do(task: TaskName) -> None:
    one = member_of_task(task)
    expected_curve, expected = alone(one)

    curve, (result,) = finished(train_graph(one, study_seed=STUDY_SEED))

    assert states_equal(dict(expected.state), dict(result.state))
    for own, (other,) in zip(expected_curve, curve, strict=True):
        assert other is not None
        for split in ("train", "sample", "heldout"):
            assert getattr(own, split) == pytest.approx(getattr(other, split), rel=1e-6)
    assert np.array_equal(expected.test_outputs, result.test_outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "backend"), [*itertools.product(OBJECTIVES, BACKENDS)])
def test_fused_runs_of_a_task_have_the_curves_of_each_alone(task: TaskName, backend: Backend) -> None:
    members = [member_of_task(task, seed) for seed in SEEDS]
    expected = [alone(one) for one in members]

    curves, results = finished(train_fused(members, backend=backend, study_seed=STUDY_SEED))

    for index, (curve, result) in enumerate(expected):
        for own, together in zip(curve, curves, strict=True):
            for split in ("train", "sample", "heldout"):
                assert getattr(own, split) == pytest.approx(getattr(together[index], split), rel=1e-3, abs=1e-6)
        for name, tensor in result.state.items():
            torch.testing.assert_close(results[index].state[name], tensor, rtol=1e-2, atol=1e-4)
        assert results[index].metrics["test_loss"] == pytest.approx(result.metrics["test_loss"], rel=1e-3)
        assert results[index].constant_share == pytest.approx(result.constant_share, abs=1e-9)


@pytest.mark.parametrize(("task", "backend"), [*itertools.product(OBJECTIVES, BACKENDS)])
def test_the_first_gradients_of_fused_runs_are_those_of_each_alone(task: TaskName, backend: Backend) -> None:
    changes = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "epochs": 1, "batch_size": 29}
    members = [member_of_task(task, seed, **changes) for seed in SEEDS]  # one step: what it changes is the gradient
    before = [copy.deepcopy(one.model.state_dict()) for one in members]
    expected = [alone(one)[1].state for one in members]

    _, results = finished(train_fused(members, backend=backend, study_seed=STUDY_SEED))

    for start, own, result in zip(before, expected, results, strict=True):
        for name in start:
            gradient = start[name] - own[name]
            torch.testing.assert_close(start[name] - result.state[name], gradient, rtol=1e-4, atol=1e-6)


def test_members_of_a_fused_regression_are_each_scaled_by_their_own_split() -> None:
    members = [member_of_task("regression", seed) for seed in SEEDS]
    scaled = [
        dataclasses.replace(
            one, data=dataclasses.replace(one.data, scale=(one.data.scale[0] + index, one.data.scale[1] * (1 + index)))
        )
        for index, one in enumerate(members)
        if one.data.scale is not None
    ]
    expected = [alone(one)[1].metrics["test_rmse"] for one in scaled]

    _, results = finished(train_fused(scaled, backend="matmul", study_seed=STUDY_SEED))

    assert expected == pytest.approx([result.metrics["test_rmse"] for result in results], rel=1e-4)


@pytest.mark.parametrize("task", ["tokens", "segmentation"])
def test_evaluating_in_parts_is_evaluating_at_once(task: TaskName, monkeypatch: pytest.MonkeyPatch) -> None:
    shape, data = make_task(task)
    model, objective = begun(0, TASK_MODELS[task]), make_objective(shape)
    whole = evaluate(model, data.images, data.labels, data, objective=objective, keeps_outputs=True)
    monkeypatch.setattr("ablation.training.batches.CPU_EVALUATION_IMAGES", 3)

    parts = evaluate(model, data.images, data.labels, data, objective=objective, keeps_outputs=True)

    assert whole.values == pytest.approx(parts.values, rel=1e-6)
    assert torch.equal(whole.tally, parts.tally)
    torch.testing.assert_close(whole.outputs, parts.outputs)


@pytest.mark.parametrize("task", ["tokens", "segmentation"])
def test_examples_whose_targets_are_all_ignored_change_nothing(task: TaskName) -> None:
    shape, _ = make_task(task)
    objective = make_objective(shape)
    outputs = torch.randn(4, *shape.output_shape, requires_grad=True)
    nothing = torch.full((4, *shape.target_shape), IGNORED)

    loss = objective.loss(outputs, nothing)
    loss.backward()  # type: ignore[no-untyped-call]

    assert 0.0 == loss.item()
    assert outputs.grad is not None
    assert not outputs.grad.any()


@pytest.mark.parametrize("is_outer", [True, False])
def test_a_last_dimension_of_one_makes_no_difference_to_a_regression(is_outer: bool) -> None:
    outputs, targets = torch.randn(5, 1), torch.randn(5)
    if not is_outer:
        outputs, targets = outputs.squeeze(1), targets.unsqueeze(1)

    assert Regression().loss(outputs, targets) == functional.mse_loss(outputs.reshape(5), targets.reshape(5))


def test_outputs_that_do_not_fit_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"outputs \(5, 2\) do not fit targets \(5,\)"):
        fitted(torch.zeros(5, 2), torch.zeros(5))


@pytest.mark.parametrize("name", TASKS["regression"].losses)
def test_a_regression_trains_on_the_loss_that_is_named(name: str) -> None:
    losses = {"mse": functional.mse_loss, "huber": functional.huber_loss, "mae": functional.l1_loss}
    outputs, targets = torch.randn(9, 2) * 3, torch.randn(9, 2)

    objective = make_objective(make_task("regression")[0], name)

    assert torch.equal(losses[name](outputs, targets), objective.loss(outputs, targets))
    assert torch.equal(functional.mse_loss(outputs, targets), objective.mean_loss(outputs, targets))


def test_pixels_keep_their_targets_when_an_image_is_moved() -> None:
    labels = torch.randint(0, 200, (12, 6, 5), dtype=torch.int32, generator=torch.Generator().manual_seed(0))
    images = labels.to(torch.uint8).unsqueeze(-1)
    _, data = make_task("segmentation")
    moved = dataclasses.replace(
        data,
        images=images,
        labels=labels,
        train=torch.arange(12),
        mean=torch.zeros(1),
        deviation=torch.ones(1),
    )

    batches = list(
        training_batches(moved, batch_size=5, augmentation="crop-flip", study_seed=STUDY_SEED, seed=SEED, epoch=1)
    )

    for inputs, targets in batches:
        assert torch.equal(inputs.squeeze(1).int(), targets)
    assert not torch.equal(torch.cat([targets for _, targets in batches]).sum(0), labels.sum(0))


def own_metric(function: Callable[[Any, Any], float], **changes: Any) -> OwnMetric:
    return OwnMetric(name="own", function=function, **changes)


@pytest.mark.parametrize("task", OBJECTIVES)
def test_a_metric_of_ones_own_is_given_all_outputs_and_targets_of_the_split(task: TaskName) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def counted(outputs: Any, targets: Any) -> float:
        seen.append((outputs.shape, targets.shape))
        return float(len(targets))

    one = dataclasses.replace(member_of_task(task), metrics=(own_metric(counted, is_of_epochs=True),))

    curve, result = alone(one)

    shape = make_task(task)[0]
    assert [((7, *shape.output_shape), (7, *shape.target_shape))] * 3 == seen
    assert [7.0, 7.0] == [metrics.heldout["own"] for metrics in curve]
    assert 7.0 == result.metrics["own"]


def test_a_metric_without_a_value_is_left_out_and_the_run_is_none_the_worse() -> None:
    one = dataclasses.replace(member_of_task("regression"), metrics=(own_metric(lambda _o, _t: math.nan),))

    _, result = alone(one)

    assert Outcome.DONE is result.outcome
    assert "own" not in result.metrics
    assert ("metric own is left out: it is nan",) == result.left_out


@pytest.mark.parametrize("task", NEW)
def test_the_epoch_with_the_best_score_on_validation_is_measured(task: TaskName) -> None:
    one = member_of_task(task, epochs=6, epoch_choice="best-validation", learning_rate=0.3)

    curve, result = alone(one)

    score = TASKS[task].score
    values = [metrics.heldout[score] for metrics in curve]
    best = min(values) if TASKS[task].direction_of(score) == "minimize" else max(values)
    assert values.index(best) + 1 == result.measured_epoch


def test_outputs_that_are_too_large_are_left_out_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablation.training.loop.KEPT_OUTPUTS", 2**20)
    monkeypatch.setattr("ablation.training.loop.BYTES", 2**20)

    _, result = alone(member_of_task("tokens"))

    assert result.test_outputs is None
    assert ("the test outputs are left out: they are more than 1 MiB",) == result.left_out


def test_runs_of_a_task_are_the_same_whenever_they_are_trained() -> None:
    one = member_of_task("segmentation")

    first, second = alone(one), alone(one)

    assert untimed(first[0]) == untimed(second[0])
    assert states_equal(dict(first[1].state), dict(second[1].state))


def test_an_epoch_of_ignored_targets_alone_is_no_divergence() -> None:
    one = member_of_task("tokens")
    data = dataclasses.replace(one.data, labels=torch.full_like(one.data.labels, IGNORED))

    curve, _ = finished(train_eager(dataclasses.replace(one, data=data), study_seed=STUDY_SEED))

    assert 0.0 == curve[0][0].train["loss"]  # type: ignore[union-attr]
