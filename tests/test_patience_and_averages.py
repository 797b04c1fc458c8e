"""Runs end for want of a better score on validation, and keep averages of weights, as a plain loop of PyTorch does."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_checkpoints import PATHS, Interruption, Kept, same
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from trainings import (
    SEED,
    TIMES,
    alone,
    batches_of,
    begun,
    built_in,
    finished,
    make_data,
    member_of_task,
    run,
    settings_of,
    untimed,
)

from ablation.datasets import prepare
from ablation.errors import StudyFileError
from ablation.records import SIGNS, TASKS, EpochMetrics, Outcome, PlannedRun, TaskName
from ablation.storage.run_folder import RunFolder
from ablation.study import study_of_values
from ablation.training import Member
from ablation.training.evaluation import evaluate
from ablation.training.patience import is_out_of_patience
from ablation.worker.tuning_runs import TuningJob, run_tuning_job

DATA = make_data(validation=True)
STOPPING = {"epochs": 10, "patience": 3, "learning_rate": 0.005}
"""The seeds end after different epochs."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def accuracy(model: nn.Module) -> float:
    found = evaluate(model, DATA.images, DATA.labels, DATA, indices=DATA.validation, precision="fp32")
    return found.scores["accuracy"]


def plain_loop(
    model: nn.Module, *, epochs: int, patience: int | None, decay: float | None, is_best_kept: bool = False
) -> tuple[int, Mapping[str, Tensor]]:
    """Train as one would by hand, and return how many epochs that took, and the weights."""
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, fused=True)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay is not None else None
    kept: nn.Module = averaged.module if averaged is not None else model
    best, waited, state = -1.0, 0, kept.state_dict()
    for epoch in range(1, epochs + 1):
        model.train()
        for images, labels in batches_of(DATA, epoch=epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            if averaged is not None:
                averaged.update_parameters(model)
        score = accuracy(kept)
        if score > best:
            best, waited, state = score, 0, copy.deepcopy(kept.state_dict())
        else:
            waited += 1
        if waited == patience:
            break
    return epoch, state if is_best_kept else kept.state_dict()


def equal(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> bool:
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def without_dropout() -> nn.Module:
    return built_in(dropout=0.0)


@pytest.mark.parametrize("choice", ["last", "best-validation"])
@pytest.mark.parametrize(("patience", "decay"), [(2, None), (None, 0.9), (2, 0.6)])
def test_a_training_equals_a_plain_loop_to_the_bit(patience: int | None, decay: float | None, choice: Any) -> None:
    epochs = 12 if patience else 3
    count, state = plain_loop(
        begun(SEED, without_dropout), epochs=epochs, patience=patience, decay=decay, is_best_kept=choice != "last"
    )

    chosen = settings_of(epochs=epochs, learning_rate=0.02, patience=patience, ema=decay, epoch_choice=choice)
    curve, result = run(begun(SEED, without_dropout), DATA, chosen)

    assert (count < epochs) is (patience is not None)
    assert count == len(curve)
    assert equal(state, result.state)


def of_task(task: TaskName, count: int, **changes: Any) -> list[Member]:
    return [member_of_task(task, seed, **changes) for seed in range(count)]


def lasting(curve: list[tuple[EpochMetrics | None, ...]], index: int) -> int:
    return len([1 for epochs in curve if epochs[index] is not None])


@pytest.mark.parametrize("path", ["graph", "grouped", "streams"])
@pytest.mark.parametrize("more", [{}, {"epoch_choice": "best-validation"}, {"ema": 0.8}])
def test_a_run_that_ends_before_those_beside_it_is_what_it_was_then_to_the_bit(path: str, more: Any) -> None:
    train, count = PATHS[path]
    curve, results = finished(train(of_task("classification", count, **STOPPING, **more), None))

    counts = [lasting(curve, index) for index in range(count)]
    assert len(set(counts)) == count
    assert 10 > min(counts)
    for index, epochs in enumerate(counts):
        chosen = {**STOPPING, **more, "epochs": epochs, "patience": None}
        shorter, undisturbed = finished(train(of_task("classification", count, **chosen), None))
        assert same(undisturbed[index], results[index])
        assert untimed([one for each in shorter if (one := each[index])]) == untimed(
            [one for each in curve if (one := each[index])]
        )


@pytest.mark.parametrize("path", ["eager", "graph", "matmul", "streams"])
def test_a_training_gone_on_with_when_one_run_has_ended_is_equal_to_one_that_was_not_interrupted(path: str) -> None:
    train, count = PATHS[path]
    chosen = {**STOPPING, "ema": 0.7}
    curve, undisturbed = finished(train(of_task("classification", count, **chosen), None))
    lasted = [lasting(curve, index) for index in range(count)]
    kept = Kept(until=max(lasted) - 1)
    with pytest.raises(Interruption):
        finished(train(of_task("classification", count, **chosen), kept))

    rest, again = finished(train(of_task("classification", count, **chosen), kept))

    assert 1 == len(rest)
    assert all(same(one, other) for one, other in zip(undisturbed, again, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_runs_of_any_task_end_in_time_and_keep_averages_together_as_alone(task: TaskName) -> None:
    chosen: dict[str, Any] = {"epochs": 6, "patience": 1, "ema": 0.5, "learning_rate": 0.05}
    train, _ = PATHS["streams"]
    expected = [alone(one) for one in of_task(task, 2, **chosen)]

    curve, results = finished(train(of_task(task, 2, **chosen), None))

    for index, (epochs, result) in enumerate(expected):
        assert len(epochs) == lasting(curve, index)
        for name, weights in result.state.items():
            torch.testing.assert_close(results[index].state[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_averages_are_kept_in_any_precision_as_in_single(precision: Any) -> None:
    _, result = alone(member_of_task("classification", ema=0.5, precision=precision))

    _, single = alone(member_of_task("classification", ema=0.5))
    for name, weights in single.state.items():
        assert weights.dtype == result.state[name].dtype == torch.float32
        torch.testing.assert_close(result.state[name], weights, rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([0.5, 0.6, 0.6], 1, True),  # as good is not better
        ([0.5, 0.6, 0.6], 2, False),
        ([0.5, 0.4, 0.45], 2, True),
        ([0.5, 0.4, 0.55], 2, False),
        ([0.5], 1, False),
        ([0.5, 0.4], None, False),
    ],
)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_run_is_out_of_patience_after_so_many_epochs_without_a_better_score(
    scores: list[float], patience: int | None, expected: bool, task: TaskName
) -> None:
    name, sign = TASKS[task].score, SIGNS[TASKS[task].direction_of(TASKS[task].score)]
    values: dict[str, Any] = {"train": {}, "sample": {}, "learning_rate": 0.1, **TIMES}
    curve = [EpochMetrics(epoch=epoch, heldout={name: sign * one}, **values) for epoch, one in enumerate(scores, 1)]

    assert expected is is_out_of_patience(curve, patience, task)


@pytest.mark.parametrize(
    "changes",
    [
        {"training": {"patience": 2}},
        {"factors": {"training.patience": ["none", 2]}},
        {"factors": {"both": {"no": {"training.patience": "none"}, "yes": {"training.patience": 2}}}},
    ],
)
def test_no_run_ends_by_what_is_measured_on_test(changes: dict[str, Any]) -> None:
    values = {"name": "n", "data": {"name": "digits", "validation": "none"}, "model": {"name": "cnn"}}

    with pytest.raises(StudyFileError, match="ending by patience needs a validation split"):
        study_of_values({**values, "factors": {"model.depth": [2, 3]}, **changes})


def test_a_replicate_of_tuning_that_ends_by_patience_is_never_measured_on_test(tmp_path: Path) -> None:
    values = {
        "name": "n",
        "data": {"name": "digits", "limit": 100, "validation": 0.3},
        "model": {"name": "cnn", "depth": 1, "width": 2, "dense": [4]},
        "training": {"epochs": 9, "patience": 1, "learning_rate": 1e-5},
        "factors": {"model.depth": [1, 2]},
    }
    settings = study_of_values(values).variants[0].settings
    assert settings.data is not None
    dataset = prepare(settings.data, cache=tmp_path / "data")
    job = TuningJob(
        planned=PlannedRun(identity="a" * 32, variant="v", seed=0),
        settings=settings,
        heldout_split="validation",
        data_folder=dataset.folder,
        folder=RunFolder(path=tmp_path / "run"),
        device="cpu",
        variant="v",
        objective="accuracy",
        stops_below=(),
        is_minimized=False,
    )

    result = run_tuning_job(job)

    assert Outcome.DONE is result.outcome
    assert {"training_seconds", "total_seconds", "pruned"} == result.metrics.keys()
    assert (0.0, True) == (result.metrics["pruned"], 2 <= result.epochs < 9)
