"""Checkpoints on a disk: whole or not there, known to be damaged before they are read, the last two of a run kept."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Bench
from factories import make_plan
from hypothesis import given, settings, strategies
from test_checkpoints import eager, member, members, same
from torch import nn
from trainings import STUDY_SEED, begun, finished, make_data, settings_of

from ablation.errors import DiskFull
from ablation.executors import InlineExecutor
from ablation.records import DataShape, Outcome, PlannedRun
from ablation.stopping import Preempted, stopping
from ablation.storage.run_folder import RunFolder
from ablation.study import Study
from ablation.training import Member
from ablation.worker import checkpoints as module
from ablation.worker.checkpoints import JobCheckpoints, read_checkpoint, write_checkpoint
from ablation.worker.paths import train_alone
from ablation.worker.run import Job, RunRecord
from ablation.worker.setup import Beginning

CONTENT = {"identity": "a", "snapshot": {"weights": torch.arange(40.0), "epoch": 3}}
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(path=tmp_path / "run")


@pytest.fixture
def _after_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "MOST_SHARE", float("inf"))


def record_of(folder: RunFolder, identity: str = "a") -> RunRecord:
    job = Job(
        planned=PlannedRun(identity=identity, variant="baseline", seed=0),
        settings=make_plan().baseline.settings,
        heldout_split="test",
        data_folder=None,
        folder=folder,
        device="cpu",
    )
    return RunRecord(job)


def test_a_checkpoint_is_read_as_it_was_written(folder: RunFolder) -> None:
    write_checkpoint(folder, 3, CONTENT)

    found = read_checkpoint(folder.checkpoint(3, "eager"))

    assert found is not None
    assert torch.equal(CONTENT["snapshot"]["weights"], found["snapshot"]["weights"])  # type: ignore[index]


def test_the_last_two_are_kept(folder: RunFolder) -> None:
    for epoch in range(1, 6):
        write_checkpoint(folder, epoch, CONTENT)

    assert [5, 4] == [epoch for epoch, _, _ in folder.kept_checkpoints()]
    assert 2 == len(list(folder.checkpoints.iterdir()))


@given(position=strategies.floats(0, 1, exclude_max=True), bit=strategies.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_checkpoint_with_a_flipped_bit_is_not_read(
    tmp_path_factory: pytest.TempPathFactory, position: float, bit: int
) -> None:
    folder = RunFolder(path=tmp_path_factory.mktemp("run"))
    write_checkpoint(folder, 1, CONTENT)
    data = bytearray(folder.checkpoint(1, "eager").read_bytes())
    data[int(position * len(data))] ^= 1 << bit
    folder.checkpoint(1, "eager").write_bytes(data)

    assert read_checkpoint(folder.checkpoint(1, "eager")) is None


@pytest.mark.parametrize("kept", [0, 1, 31, 32, 33, -1])
def test_a_checkpoint_that_was_cut_off_is_not_read(folder: RunFolder, kept: int) -> None:
    write_checkpoint(folder, 1, CONTENT)
    data = folder.checkpoint(1, "eager").read_bytes()
    folder.checkpoint(1, "eager").write_bytes(data[:kept])

    assert read_checkpoint(folder.checkpoint(1, "eager")) is None


def test_reading_a_checkpoint_runs_no_code(folder: RunFolder, tmp_path: Path) -> None:
    write_checkpoint(folder, 1, {"snapshot": Malice(str(tmp_path / "ran"))})

    assert read_checkpoint(folder.checkpoint(1, "eager")) is None
    assert not (tmp_path / "ran").exists()


class Malice:
    """What makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(folder: RunFolder) -> None:
    write_checkpoint(folder, 1, CONTENT)
    moments = random.Random(0)
    for _ in range(25):
        child = os.fork()
        if child == 0:
            for epoch in range(2, 10_000):
                write_checkpoint(folder, epoch, CONTENT)
            os._exit(0)
        time.sleep(moments.uniform(0.0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kept = folder.kept_checkpoints()

        assert kept
        assert all(read_checkpoint(path) is not None for _, _, path in kept)

    folder.clear_checkpoints()
    assert not folder.checkpoints.exists()


def test_without_room_the_checkpoints_before_stay(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(folder)
    write_checkpoint(folder, 1, CONTENT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DiskFull, match="No space left on device"), record.writing():
        write_checkpoint(folder, 2, CONTENT)

    assert [folder.checkpoint(1, "eager")] == list(folder.checkpoints.iterdir())


@pytest.mark.usefixtures("_after_each_epoch")
class TestGoingOn:
    """A training whose process ends after an epoch, and another that goes on from its folder."""

    @pytest.fixture
    def train(self, folder: RunFolder) -> Callable[..., Any]:
        def run(*, until: int | None = None, path: str = "eager", identity: str = "a") -> Any:
            record = record_of(folder, identity)
            kept = JobCheckpoints([record], path=path, device=CPU)
            epochs = eager(members(settings_of(epochs=4), 1), kept)
            if until is None:
                return record, *finished(epochs)
            for (metrics,) in epochs:
                assert metrics is not None
                record.take(metrics)
                if metrics.epoch == until:
                    stopping.ask(signal.SIGTERM)
            return None

        return run

    @pytest.fixture(autouse=True)
    def _not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stopping, "_asked", None)

    def left_after(self, train: Callable[..., Any], epoch: int) -> None:
        with pytest.raises(Preempted):
            train(until=epoch)
        stopping._asked = None

    def test_it_comes_to_what_an_undisturbed_one_comes_to(self, train: Callable[..., Any]) -> None:
        self.left_after(train, 3)
        _, curve, again = train()

        _, undisturbed = finished(eager(members(settings_of(epochs=4), 1), None))
        assert [4] == [metrics[0].epoch for metrics in curve]
        assert same(undisturbed[0], again[0])

    def test_a_damaged_checkpoint_costs_the_epochs_since_the_one_before(
        self, train: Callable[..., Any], folder: RunFolder
    ) -> None:
        self.left_after(train, 3)
        attempt = folder.attempt()
        folder.checkpoint(3, "eager").write_bytes(b"lost")

        _, curve, again = train()

        _, undisturbed = finished(eager(members(settings_of(epochs=4), 1), None))
        assert [3, 4] == [metrics[0].epoch for metrics in curve]
        assert [1, 2] == [epoch.epoch for epoch in folder.epochs()]
        assert same(undisturbed[0], again[0])
        assert attempt != folder.attempt()  # what was recorded of epoch 3 is another training's

    def test_without_a_whole_checkpoint_it_begins_anew(self, train: Callable[..., Any], folder: RunFolder) -> None:
        self.left_after(train, 3)
        for _, _, path in folder.kept_checkpoints():
            path.write_bytes(b"")

        _, curve, _ = train()

        assert [1, 2, 3, 4] == [metrics[0].epoch for metrics in curve]

    @pytest.mark.parametrize("other", [{"path": "graph"}, {"identity": "b"}], ids=["path", "run"])
    def test_it_does_not_go_on_from_another_trainings(self, train: Callable[..., Any], other: dict[str, str]) -> None:
        self.left_after(train, 3)

        _, curve, _ = train(**other)

        assert [1, 2, 3, 4] == [metrics[0].epoch for metrics in curve]

    def test_it_ends_where_another_process_has_taken_the_run_over(self, folder: RunFolder) -> None:
        suspended = record_of(folder)
        suspended.begin_anew()
        record_of(folder)
        (metrics,) = next(eager([member(0, settings_of(epochs=1))], None))

        with pytest.raises(Preempted):
            suspended.take(metrics)

        assert () == folder.epochs()


class Late(nn.Module):
    """Makes a buffer in its first step, so that what is kept of it later does not fit it as it begins."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 12 * 8, 4)
        self.register_buffer("seen", None)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = torch.ones(()) if self.seen is None else self.seen + 1
        logits: torch.Tensor = self.head(images.flatten(1))
        return logits


class LateRecord(RunRecord):
    """The record of a run of such a model."""

    def begin(self) -> Beginning:
        one = Member(model=begun(0, Late), data=make_data(), settings=settings_of(epochs=3), seed=0)
        shape = DataShape(channels=3, height=12, width=8, classes=tuple("abcd"))
        return Beginning(member=one, study_seed=STUDY_SEED, loss=nn.functional.cross_entropy, shape=shape)


@pytest.mark.usefixtures("_after_each_epoch")
def test_a_training_that_cannot_be_gone_on_with_begins_anew(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    job = record_of(folder).job
    with monkeypatch.context() as patched:
        patched.setattr(stopping, "_asked", signal.SIGTERM)
        with pytest.raises(Preempted):
            train_alone(LateRecord(job), CPU)
    assert [(1, "eager")] == [(epoch, path) for epoch, path, _ in folder.kept_checkpoints()]

    trained = train_alone(LateRecord(job), CPU)

    assert not isinstance(trained.ended, Exception)
    assert [1, 2, 3] == [epoch.epoch for epoch in folder.epochs()]


@pytest.mark.usefixtures("_after_each_epoch")
def test_the_seconds_before_an_interruption_count(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    record = record_of(folder)
    kept = JobCheckpoints([record], path="eager", device=CPU)
    kept.load()
    monkeypatch.setattr(kept, "_begun", time.monotonic() - 100)
    epochs = eager(members(settings_of(epochs=2), 1), kept)
    next(epochs)
    next(epochs)

    again = record_of(folder)
    JobCheckpoints([again], path="eager", device=CPU).load()

    assert 100 <= again.seconds < 130


@pytest.mark.slow
def test_a_study_interrupted_between_epochs_goes_on_from_its_checkpoints(
    bench: Bench, tiny: Study, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.executor = InlineExecutor(device="cpu")
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    monkeypatch.setattr(module, "MOST_SHARE", float("inf"))
    taken: list[int] = []
    take = RunRecord.take

    def interrupted(record: RunRecord, epoch: Any) -> None:
        take(record, epoch)
        taken.append(epoch.epoch)
        if len(taken) % 5 == 0:
            stopping.ask(signal.SIGTERM)

    monkeypatch.setattr(RunRecord, "take", interrupted)
    for _ in range(20):
        try:
            outcome = bench.run(tiny)
            break
        except KeyboardInterrupt:
            stopping._asked = None
    monkeypatch.setattr(RunRecord, "take", take)

    undisturbed = Bench(tmp_path / "undisturbed", data_cache)
    undisturbed.run(tiny)
    assert {Outcome.DONE: 8} == outcome.ended
    assert [1] * 8 + [2] * 8 == sorted(taken)
    assert undisturbed.metrics(tiny) == bench.metrics(tiny)
    assert [] == list((bench.state.folder / "begun").glob("*"))
    assert 8 == len(bench.tracker._runs)
