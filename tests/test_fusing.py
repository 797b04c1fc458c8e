"""A study whose runs are trained together comes to the same, and whatever cannot be is trained by a slower path."""

import dataclasses
import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Bench, Jobs
from replicates import Replicate as Run
from torch import Tensor, nn
from torch.nn import functional
from trainings import begun, built_in, make_data, settings_of

from ablation.errors import PrecisionUnavailable
from ablation.records import Outcome
from ablation.study import Override, Study, load_study, parse_override, parse_study
from ablation.training import Loss, Member
from ablation.training.choosing import measurement_key
from ablation.worker import devices
from ablation.worker.paths import Fusing, Trained, train_alone, train_together
from ablation.worker.run import RunRecord, path_note
from ablation.worker.setup import Beginning

CPU = torch.device("cpu")
STUDY = b"""\
name: fused
data: {name: digits, limit: 80, validation: 0.25}
model: {name: cnn, depth: 1, width: 4, dense: [], normalization: none}
training: {epochs: 2, batch_size: 16, optimizer: sgd, learning_rate: 0.01}
factors: {training.learning_rate: [0.01, 0.1], model.activation: [relu, tanh]}
seeds: 2
"""


def study(*overrides: str, source: str = "fused.yaml", **changes: Any) -> Study:
    parsed = [parse_override(text) for text in overrides]
    return parse_study(
        STUDY, source=source, overrides=[*parsed, *(Override(path=k, value=v) for k, v in changes.items())]
    )


def paths(bench: Bench) -> dict[str, str]:
    """Return where and how each run was trained, as its record tells it."""
    record = bench.tracker.find_study("fused")
    assert record is not None
    return {run.planned.name: run.device for run in bench.tracker.recorded_runs(record)}


@pytest.mark.slow
def test_fused_runs_come_to_what_they_come_to_alone(bench: Bench, tmp_path: Path) -> None:
    bench.run(study("seeds=1"))
    alone = bench.metrics(study("seeds=1"))
    other = Bench(tmp_path / "other", bench.state.data.resolve())
    other.fuse = 4

    outcome = other.run(study("seeds=1"))

    assert {Outcome.DONE: 4} == outcome.ended
    assert {"cpu, fused"} == set(paths(other).values())
    for name, metrics in other.metrics(study("seeds=1")).items():
        assert metrics == pytest.approx(alone[name], rel=1e-4)


@pytest.mark.slow
def test_a_job_has_the_runs_that_differ_in_the_optimizers_numbers_alone(bench: Bench) -> None:
    bench.fuse = 3

    bench.run(study())

    activations = [run.variant.partition("activation=")[2] for run in bench.trained]
    assert sorted(activations) in (activations, activations[::-1])  # as many as four in a row, in two jobs
    assert all((bench.state.folder / "runs" / run.identity / "result.json").exists() for run in bench.trained)


def test_on_a_cpu_nothing_is_fused_unless_asked(bench: Bench) -> None:
    bench.run(study("seeds=1"))

    assert {"cpu"} == set(paths(bench).values())
    assert not bench.state.backends.exists()


@pytest.mark.slow
def test_an_execution_that_fuses_goes_on_where_one_that_does_not_ended(bench: Bench) -> None:
    bench.run(study("seeds=1"))
    bench.fuse = 4

    outcome = bench.run(study())

    assert [1] * 4 == [run.seed for run in bench.trained]
    assert {Outcome.DONE: 8} == outcome.ended
    assert {"cpu", "cpu, fused"} == set(paths(bench).values())


def test_why_runs_are_not_fused_is_said_once(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import random\nfrom torch import nn\n\n\n"
        "class Own(nn.Module):\n"
        "    def __init__(self, data_shape):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(1024, 10)\n\n"
        "    def forward(self, images):\n"
        "        random.random()\n"
        "        return self.head(images.flatten(1))\n\n\n"
        "def build(data_shape):\n"
        "    return Own(data_shape)\n"
    )
    bench.fuse = 4
    text = STUDY.replace(b"{name: cnn, depth: 1, width: 4, dense: [], normalization: none}", b"{name: 'own.py:build'}")
    (tmp_path / "fused.yaml").write_bytes(text.replace(b", model.activation: [relu, tanh]", b""))
    own = load_study(tmp_path / "fused.yaml")

    outcome = bench.run(own)

    said = [note for note in bench.notes if "not fused" in note]
    assert ["trained by the eager path, not fused: a step draws random numbers from Python's generator, other than for "
            "dropout"] == said  # fmt: skip
    assert {Outcome.DONE: 4} == outcome.ended
    assert {"cpu"} == set(paths(bench).values())


def test_a_precision_that_the_device_has_not_is_refused_before_anything_is_created(bench: Bench) -> None:
    with pytest.raises(PrecisionUnavailable, match=r"cpu does not compute in tf32; it does in fp32, bf16 @ training\."):
        bench.run(study("training.precision=tf32"))

    assert () == bench.tracker.study_names()


@pytest.mark.parametrize("lacks", [True, False])
def test_bf16_on_a_processor_without_units_for_it_is_remarked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, lacks: bool
) -> None:
    monkeypatch.setattr(devices, "lacks_bf16_units", lambda: lacks)

    bench.run(study("seeds=1", "factors={training.precision: [fp32, bf16]}"))

    said = [note for note in bench.notes if note.startswith("bf16 is slower than fp32 on this processor")]
    assert lacks == bool(said)


def test_bf16_is_another_run_and_trains(bench: Bench) -> None:
    few = ("seeds=1", "factors={training.learning_rate: [0.01, 0.1]}")
    bench.run(study(*few))
    exact = {run.identity for run in bench.trained}

    outcome = bench.run(study(*few, "training.precision=bf16"))

    assert {Outcome.DONE: 2} == outcome.ended
    assert exact.isdisjoint({run.identity for run in bench.trained})


ALIVE: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""The models that still hold memory."""


class Replicate(Run):
    """A run that is begun on a device with room for a few models."""

    def __init__(self, seed: int, *, room: int = 99, loss: Loss = functional.cross_entropy) -> None:
        super().__init__(seed, small_member, loss=loss)
        self.room = room

    def begin(self) -> Beginning:
        gc.collect()
        if len(ALIVE) >= self.room:
            raise torch.OutOfMemoryError("no more room")
        beginning = super().begin()
        ALIVE.add(beginning.member.model)
        return beginning


def small_member(seed: int) -> Member:
    model = begun(seed, lambda: built_in(dropout=0.0))
    return Member(model=model, data=make_data(), settings=settings_of(), seed=seed)


@pytest.fixture
def together(tmp_path: Path) -> Callable[..., list[Trained]]:
    def train(runs: list[Replicate], *, must_gain: bool = False) -> list[Trained]:
        return list(train_together(runs, CPU, Fusing(cache=tmp_path / "backends.json", must_gain=must_gain)))

    return train


@pytest.mark.slow
def test_without_room_for_all_half_are_trained_at_a_time(together: Callable[..., list[Trained]]) -> None:
    runs = [Replicate(seed, room=2) for seed in range(5)]

    trained = together(runs)

    assert ["fused"] * 5 == [one.path for one in trained]
    assert [2, 2, 1, 2, 2] == [int(one.note.split()[2].rstrip(",")) for one in trained]  # runs together: N, …
    assert all(not isinstance(one.ended, Exception) for one in trained)
    assert [[1, 2]] * 5 == [[metrics.epoch for metrics in run.epochs] for run in runs]


def test_without_room_for_one_it_is_told_as_the_runs_error(together: Callable[..., list[Trained]]) -> None:
    (trained,) = together([Replicate(0, room=0)])

    assert "eager" == trained.path
    assert isinstance(trained.ended, torch.OutOfMemoryError)
    assert "not fused: OutOfMemoryError: no more room" == trained.note


@pytest.mark.slow
def test_an_error_of_the_users_own_is_each_runs_result(together: Callable[..., list[Trained]]) -> None:
    def broken(logits: Tensor, labels: Tensor) -> Tensor:
        raise ZeroDivisionError("mine")

    trained = together([Replicate(seed, loss=broken) for seed in range(2)])

    assert ["eager"] * 2 == [one.path for one in trained]
    assert all(isinstance(one.ended, ZeroDivisionError) for one in trained)


@pytest.mark.slow
def test_an_error_of_one_run_spares_those_that_are_trained_with_it(together: Callable[..., list[Trained]]) -> None:
    runs = [Replicate(seed) for seed in range(2)]
    runs[1].fails_in_epoch = 1

    well, failed = together(runs)

    assert ["eager", "eager"] == [well.path, failed.path]
    assert "not fused: ValueError: no luck" == well.note
    assert not isinstance(well.ended, Exception)
    assert isinstance(failed.ended, ValueError)
    assert [1, 2] == [metrics.epoch for metrics in runs[0].epochs]


@pytest.mark.slow
def test_what_became_of_a_run_is_known_before_the_next_is_trained(tmp_path: Path) -> None:
    runs = [Replicate(seed) for seed in range(2)]
    for run in runs:
        run.fails_in_epoch = 2
    trained = train_together(runs, CPU, Fusing(cache=tmp_path / "backends.json", must_gain=False))

    first = next(trained)

    assert "eager" == first.path
    assert [] == runs[1].epochs[2:]  # those of the fused attempt are thrown away when it is trained alone
    assert "eager" == next(trained).path


@pytest.mark.slow
def test_memory_that_runs_out_on_the_way_halves_what_is_trained_together(
    together: Callable[..., list[Trained]],
) -> None:
    runs = [Replicate(seed) for seed in range(4)]
    runs[3].fails_in_epoch, runs[3].error = 1, torch.OutOfMemoryError("no more room")

    trained = together(runs)

    assert ["fused", "fused", "fused", "fused"] == [one.path for one in trained]
    assert [2, 2, 1, 1] == [int(one.note.split()[2].rstrip(",")) for one in trained]
    assert isinstance(trained[3].ended, torch.OutOfMemoryError)
    assert all(not isinstance(one.ended, Exception) for one in trained[:3])


@pytest.mark.slow
def test_fusing_that_gains_nothing_is_left_for_each_alone(
    together: Callable[..., list[Trained]], tmp_path: Path
) -> None:
    runs = [Replicate(seed) for seed in range(2)]
    key = measurement_key([run.begin().member for run in runs], functional.cross_entropy)
    (tmp_path / "backends.json").write_text(json.dumps({key: {"together": {"grouped": 0.004}, "alone": 0.001}}))

    trained = together(runs, must_gain=True)

    assert ["eager"] * 2 == [one.path for one in trained]
    assert "not fused: a step of 2 runs takes 4 ms, and 2 ms one by one" == trained[0].note


def test_alone_on_a_cpu_a_run_is_trained_eagerly() -> None:
    trained = train_alone(Replicate(0), CPU)

    assert ("eager", "") == (trained.path, trained.note)


@pytest.mark.parametrize("is_wanted", [False, True])
def test_every_job_is_told_whether_cudnns_algorithms_are_timed(bench: Bench, is_wanted: bool) -> None:
    bench.executor = jobs = Jobs()
    bench.cudnn_benchmark = is_wanted

    bench.run(study("seeds=1"))

    assert [is_wanted] * 4 == [job.cudnn_benchmark for job in jobs.given]
    begun = RunRecord(jobs.given[0]).begin()
    assert is_wanted == begun.member.cudnn_benchmark


def test_the_note_on_a_path_says_that_cudnns_algorithms_were_timed(bench: Bench) -> None:
    bench.executor = jobs = Jobs()
    bench.cudnn_benchmark = True
    bench.run(study("seeds=1"))
    here = jobs.given[0]
    there = dataclasses.replace(here, device="cuda:0")
    trained = Trained(ended=ValueError(), path="fused", note="runs together: 2", seconds=1.0, peak_memory_mib=1.0)

    assert "runs together: 2; cuDNN's algorithms were chosen by timing" == path_note(there, trained)
    assert "cuDNN's algorithms were chosen by timing" == path_note(
        there, dataclasses.replace(trained, path="graph", note="")
    )
    assert "not graph" == path_note(there, dataclasses.replace(trained, path="eager", note="not graph"))
    assert "runs together: 2" == path_note(here, trained)
    assert "runs together: 2" == path_note(dataclasses.replace(there, cudnn_benchmark=False), trained)


def test_timing_cudnns_algorithms_changes_no_identity_and_nothing_on_a_cpu(bench: Bench, tmp_path: Path) -> None:
    bench.run(study("seeds=1"))
    other = Bench(tmp_path / "other", bench.state.data.resolve())
    other.cudnn_benchmark = True

    other.run(study("seeds=1"))

    assert [run.identity for run in bench.trained] == [run.identity for run in other.trained]
    assert paths(bench) == paths(other)


@pytest.mark.slow
def test_what_an_error_ended_holds_no_models_and_its_traceback_is_told(
    together: Callable[..., list[Trained]],
) -> None:
    """Whether it came forward or backward."""

    def broken(logits: Tensor, labels: Tensor) -> Tensor:
        return Broken.apply(functional.cross_entropy(logits, labels))

    gc.collect()
    before = len(ALIVE)

    trained = together([Replicate(seed, loss=broken) for seed in range(2)])

    gc.collect()
    assert before == len(ALIVE)
    assert all(isinstance(one.ended, ZeroDivisionError) for one in trained)
    assert all("in backward" in one.error_text for one in trained)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:
        return loss * 1

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        raise ZeroDivisionError
