"""Label smoothing and class weights are PyTorch's, on every path and for every task that has them; tests stay plain."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn
from torch.nn import functional
from trainings import SEED, SEEDS, SHAPE, STUDY_SEED, batches_of, begun, built_in, finished, make_data, settings_of

from ablation.errors import SettingInvalid
from ablation.records import TASKS, TaskName
from ablation.training import Backend, Member, train, train_eager, train_fused
from ablation.training.class_weights import class_weights_of
from ablation.training.paths import BACKENDS
from ablation.training.tasks import OBJECTIVES, Objective

WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.5])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plain_model() -> nn.Module:
    return built_in(dropout=0.0)


def objective_of(task: TaskName) -> Objective:
    return OBJECTIVES[task](replace(SHAPE, task=task, ignore_index=-1), TASKS[task].losses[0])


def drawn(task: TaskName) -> tuple[Tensor, Tensor]:
    """Return outputs and targets of a task, positions that count for nothing among them."""
    generator = torch.Generator().manual_seed(0)
    sizes: Mapping[TaskName, tuple[tuple[int, ...], tuple[int, ...]]] = {
        "classification": ((6, 4), (6,)),
        "multilabel": ((6, 4), (6, 4)),
        "tokens": ((3, 5, 4), (3, 5)),
        "segmentation": ((3, 4, 2, 5), (3, 2, 5)),
    }
    outputs, targets = sizes[task]
    labels = torch.randint(0, 2 if task == "multilabel" else 4, targets, generator=generator)
    if task in ("tokens", "segmentation"):
        labels[0, 0] = -1
    return torch.randn(outputs, generator=generator), labels.float() if task == "multilabel" else labels


TORCHS: Mapping[TaskName, Callable[..., Tensor]] = {
    "classification": functional.cross_entropy,
    "tokens": lambda outputs, targets, **options: functional.cross_entropy(
        outputs.mT, targets, ignore_index=-1, **options
    ),
    "segmentation": lambda outputs, targets, **options: functional.cross_entropy(
        outputs, targets, ignore_index=-1, **options
    ),
}


@pytest.mark.parametrize("task", TORCHS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_smoothed_and_weighted_loss_is_torchs(task: TaskName, smoothing: float, weights: Tensor | None) -> None:
    outputs, targets = drawn(task)
    objective = objective_of(task)

    loss = objective.loss(outputs, targets, weights, smoothing=smoothing)

    torch.testing.assert_close(loss, TORCHS[task](outputs, targets, weight=weights, label_smoothing=smoothing))
    assert objective.mean_loss(outputs, targets).item() == pytest.approx(TORCHS[task](outputs, targets).item())


def test_the_weights_of_labels_are_torchs_of_positives() -> None:
    outputs, targets = drawn("multilabel")

    loss = objective_of("multilabel").loss(outputs, targets, WEIGHTS)

    assert torch.equal(functional.binary_cross_entropy_with_logits(outputs, targets, pos_weight=WEIGHTS), loss)


@pytest.mark.parametrize("task", [task for task in OBJECTIVES if "class_weights" in TASKS[task].loss_settings])
def test_losses_of_stacked_models_are_each_with_its_own_weights(task: TaskName) -> None:
    outputs, targets = drawn(task)
    objective = objective_of(task)
    smoothing = 0.1 if "label_smoothing" in TASKS[task].loss_settings else 0.0
    many = [torch.stack([tensor, tensor.flip(0)]) for tensor in (outputs, targets)]
    weights = torch.stack([WEIGHTS, WEIGHTS.flip(0) + 0.1])

    found = torch.func.vmap(lambda *one: objective.loss(*one, smoothing=smoothing))(*many, weights)

    expected = [objective.loss(*one, smoothing=smoothing) for one in zip(*many, weights, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_positions_of_no_weight_leave_a_loss_of_zero() -> None:
    outputs, _ = drawn("tokens")
    objective = objective_of("tokens")

    for targets in (torch.full((3, 5), -1), torch.full((3, 5), 2)):
        assert 0.0 == objective.loss(outputs, targets, WEIGHTS).item()


def test_balanced_weights_are_scikit_learns_over_the_training_split() -> None:
    data = make_data(validation=True)
    labels = data.labels[data.train].numpy()

    weights = class_weights_of("balanced", data, objective_of("classification"), classes=4)

    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_balanced_weights_leave_out_what_counts_for_nothing_and_classes_that_are_not_there() -> None:
    data = replace(make_data(), labels=torch.tensor([[0, 0, -1], [0, 1, -1], [2, 2, 2]]), train=torch.tensor([0, 1]))

    weights = class_weights_of("balanced", data, objective_of("tokens"), classes=4)

    assert weights is not None
    assert [pytest.approx(4 / (4 * 3)), 1.0, 0.0, 0.0] == weights.tolist()


def test_balanced_labels_weigh_what_is_there_by_how_often_it_is_not() -> None:
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 1, 0], [1, 1, 0, 0]], dtype=torch.uint8)
    data = replace(make_data(), labels=labels, train=torch.tensor([0, 1, 2]))

    weights = class_weights_of("balanced", data, objective_of("multilabel"), classes=4)

    assert weights is not None
    assert [2.0, 1.0, 1.0, 2.0] == weights.tolist()


def test_weights_that_are_not_as_many_as_the_classes_are_refused() -> None:
    with pytest.raises(SettingInvalid) as refused:
        class_weights_of((1.0, 2.0), make_data(), objective_of("classification"), classes=4)

    assert (
        "there are 2 weights for 4 classes: give one for each, in their order, or balanced @ training.class_weights"
        == str(refused.value)
    )


@pytest.mark.parametrize(("smoothing", "weights"), [(0.1, None), (0.0, WEIGHTS), (0.1, WEIGHTS)])
def test_training_with_a_smoothed_and_weighted_loss_equals_a_plain_loop_to_the_bit(
    smoothing: float, weights: Tensor | None
) -> None:
    data = make_data()
    model = begun(SEED, plain_model).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)
    criterion = nn.CrossEntropyLoss(weight=weights, label_smoothing=smoothing)
    for images, labels in batches_of(data, epoch=1):
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()

    chosen = settings_of(epochs=1, label_smoothing=smoothing)
    own = begun(SEED, plain_model)
    _, result = finished(train(own, data, chosen, study_seed=STUDY_SEED, seed=SEED, class_weights=weights))

    logits, labels = torch.from_numpy(result.test_outputs), data.test_labels
    assert result.metrics["test_loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-6)
    assert all(torch.equal(value, result.state[name]) for name, value in model.state_dict().items())


def member(seed: int, **changes: Any) -> Member:
    data = make_data(validation=True)
    own = replace(
        data, train=data.train[torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))]
    )
    own = replace(own, train=own.train[:30])
    chosen = settings_of(optimizer="sgd", class_weights="balanced", **changes)
    return Member(
        model=begun(seed, plain_model),
        data=own,
        settings=chosen,
        seed=seed,
        class_weights=class_weights_of("balanced", own, objective_of("classification"), classes=4),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_whose_classes_have_other_weights_train_together_what_each_does_alone(backend: Backend) -> None:
    def begin() -> list[Member]:
        return [member(seed, label_smoothing=0.1) for seed in SEEDS]

    expected = [finished(train_eager(one, study_seed=STUDY_SEED)) for one in begin()]
    assert 3 == len({tuple(one.class_weights.tolist()) for one in begin() if one.class_weights is not None})

    curve, results = finished(train_fused(begin(), backend=backend, study_seed=STUDY_SEED))

    for index, (own, (result,)) in enumerate(expected):
        for key, weights in result.state.items():
            torch.testing.assert_close(results[index].state[key], weights, rtol=1e-4, atol=1e-5)
        losses = [metrics[0].train["loss"] for metrics in own]
        assert losses == pytest.approx([each[index].train["loss"] for each in curve], rel=1e-4)
