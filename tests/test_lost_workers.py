"""Workers that die with a run: it goes on, and counts as failed where three die without getting on."""

import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from bench import Bench
from conftest import TINY

from ablation.coordinator import execution
from ablation.executors import Files, InlineExecutor, NodeLost, WorkerLost
from ablation.records import Outcome
from ablation.stopping import Preempted
from ablation.study import Study, parse_override, parse_study
from ablation.worker import run as worker_run
from ablation.worker.checkpoints import JobCheckpoints

T = TypeVar("T")
KILLED, ASKED_TO_END = -signal.SIGKILL, -signal.SIGTERM
EPOCHS = 6
UNLUCKY = "depth=2,normalization=batch"
GONE = NodeLost("n7", "has left")


class DeadlyExecutor(InlineExecutor):
    """Loses workers: of one variant's runs, each so many times, before they begin; of others at Preempted."""

    def __init__(
        self, *, unlucky: str = "", times: int = 1000, exit_code: int = KILLED, error: Exception | None = None
    ) -> None:
        super().__init__(device="cpu")
        self._unlucky, self._times, self._error = unlucky, times, error or WorkerLost(exit_code)
        self.jobs: Counter[str] = Counter()

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]":
        first: Any = args[0]
        planned = (first[0] if isinstance(first, list) else first).planned
        self.jobs[planned.name] += 1
        lost: Future[T] = Future()
        lost.set_exception(self._error)
        if planned.variant == self._unlucky and self.jobs[planned.name] <= self._times:
            return lost
        future = super().submit(function, *args, files=files)
        return lost if isinstance(future.exception(), Preempted) else future


def die_at_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each epoch kept, and the worker die with it."""
    save = JobCheckpoints.save

    def save_and_die(self: JobCheckpoints, *arguments: Any) -> None:
        save(self, *arguments)
        raise Preempted

    monkeypatch.setattr(JobCheckpoints, "is_due", lambda _self: True)
    monkeypatch.setattr(JobCheckpoints, "save", save_and_die)


def tiny_study(*changes: str) -> Study:
    chosen = ["seeds=1", f"training.epochs={EPOCHS}", *changes]
    return parse_study(TINY, source="tiny.yaml", overrides=[parse_override(text) for text in chosen])


def tuned_study() -> Study:
    return tiny_study(
        "data.validation=0.2",
        "factors={model.normalization: [none, batch]}",
        "tune={training.learning_rate: {log: [1e-4, 1e-1]}, trials: 2}",
    )


@pytest.mark.slow
def test_a_run_has_failed_at_the_third_death_and_the_others_are_trained(bench: Bench) -> None:
    study = tiny_study()
    bench.executor = executor = DeadlyExecutor(unlucky=UNLUCKY)

    outcome = bench.run(study)

    assert {Outcome.DONE: 3, Outcome.FAILED: 1} == outcome.ended
    assert 3 == executor.jobs[f"{UNLUCKY}/seed-0"]
    (failed,) = [run for run in bench.tracker.recorded_runs(outcome.record) if run.outcome is Outcome.FAILED]
    assert (UNLUCKY, "lost worker") == (failed.planned.variant, failed.failure)
    assert "its worker died 3 times without getting on; the last time, its process ended by SIGKILL" in str(
        failed.error
    )
    assert 2 == sum(f"{UNLUCKY}/seed-0: its worker died" in note for note in bench.notes)

    bench.executor = InlineExecutor(device="cpu")
    bench.retry_failed = True
    assert {Outcome.DONE: 4} == bench.run(study).ended


@pytest.mark.slow
def test_deaths_after_each_of_which_it_gets_on_are_no_failure(
    bench: Bench, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny_study()
    undisturbed = Bench(tmp_path / "other", data_cache)
    undisturbed.run(study)
    die_at_checkpoints(monkeypatch)
    bench.executor = executor = DeadlyExecutor()

    outcome = bench.run(study)

    assert {Outcome.DONE: 4} == outcome.ended
    assert {EPOCHS + 1} == set(executor.jobs.values())
    assert undisturbed.metrics(study) == bench.metrics(study)


@pytest.mark.slow
def test_being_asked_to_end_is_no_death(bench: Bench) -> None:
    bench.executor = DeadlyExecutor(unlucky=UNLUCKY, times=5, exit_code=ASKED_TO_END)

    assert {Outcome.DONE: 4} == bench.run(tiny_study()).ended


@pytest.mark.slow
def test_a_lost_node_is_no_death_of_its_run_unless_ten_are_lost_without_getting_on(bench: Bench) -> None:
    bench.executor = executor = DeadlyExecutor(unlucky=UNLUCKY, times=9, error=GONE)
    assert {Outcome.DONE: 4} == bench.run(tiny_study()).ended
    assert 10 == executor.jobs[f"{UNLUCKY}/seed-0"]
    assert 9 == sum(f"{UNLUCKY}/seed-0: its node n7 has left; it begins anew" in note for note in bench.notes)

    bench.executor = executor = DeadlyExecutor(unlucky=UNLUCKY, error=GONE)
    outcome = bench.run(tiny_study("study_seed=2", "name=again"))

    assert {Outcome.DONE: 3, Outcome.FAILED: 1} == outcome.ended
    assert 10 == executor.jobs[f"{UNLUCKY}/seed-0"]
    (failed,) = [run for run in bench.tracker.recorded_runs(outcome.record) if run.outcome is Outcome.FAILED]
    assert failed.error == "10 nodes were lost with it before it got on; the last time, its node n7 has left"


class Forgetful(InlineExecutor):
    """Trains each job, and loses the result of the first."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.has_lost = False

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]":
        future = super().submit(function, *args, files=files)
        if not self.has_lost:
            assert files is not None
            (files.home / files.leaves[0] / "result.json").unlink()
            self.has_lost = True
        return future


@pytest.mark.slow
def test_a_run_that_is_said_to_be_done_and_has_no_result_is_trained_again(bench: Bench) -> None:
    bench.executor = Forgetful()

    assert {Outcome.DONE: 4} == bench.run(tiny_study()).ended
    assert 1 == sum("its result did not reach its folder; it resumes after" in note for note in bench.notes) + sum(
        "its result did not reach its folder; it begins anew" in note for note in bench.notes
    )


@pytest.mark.slow
def test_a_trial_of_tuning_goes_on_when_its_node_was_lost(bench: Bench) -> None:
    bench.executor = DeadlyExecutor(unlucky="tuning/normalization=batch/trial-0", times=9, error=GONE)

    tuned = bench.run(tuned_study()).record.plan.tuning

    assert [["done", "done"]] * 2 == [[trial.outcome for trial in one.trials] for one in tuned]


@pytest.mark.slow
def test_a_trial_of_tuning_has_failed_at_the_third_death(bench: Bench) -> None:
    bench.executor = executor = DeadlyExecutor(unlucky="tuning/normalization=batch/trial-0")

    outcome = bench.run(tuned_study())

    tuned = {one.variant: [trial.outcome for trial in one.trials] for one in outcome.record.plan.tuning}
    assert {"normalization=none": ["done", "done"], "normalization=batch": ["failed", "done"]} == tuned
    assert 3 == max(executor.jobs.values())
    assert {Outcome.DONE: 2} == outcome.ended


@pytest.mark.slow
def test_a_trial_that_gets_on_after_each_death_is_tuned_as_if_nothing_had_happened(
    bench: Bench, tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = Bench(tmp_path / "other", data_cache).run(tuned_study()).record.plan.tuning
    die_at_checkpoints(monkeypatch)
    bench.executor = DeadlyExecutor()

    found = bench.run(tuned_study()).record.plan.tuning

    assert [[(trial.outcome, trial.curve) for trial in one.trials] for one in undisturbed] == [
        [(trial.outcome, trial.curve) for trial in one.trials] for one in found
    ]


class ComingExecutor(InlineExecutor):
    """Has no worker the first times that it is asked for its slots, and again after each job."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.looks = 0

    @property
    def slots(self) -> tuple[str, ...]:
        self.looks += 1
        return ("cpu",) if self.looks % 4 == 0 else ()

    @slots.setter
    def slots(self, _slots: tuple[str, ...]) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("study", [tiny_study(), tuned_study()], ids=["runs", "tuning"])
def test_a_study_without_a_worker_says_so_and_waits_for_one(
    study: Study, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "POLL_S", 0.0)
    bench.executor = ComingExecutor()

    outcome = bench.run(study)

    assert {Outcome.DONE: len(outcome.record.plan.runs)} == outcome.ended
    assert 1 == bench.notes.count("there is no worker now that is fit and free; the study waits for one")


@pytest.mark.slow
def test_a_study_that_has_nothing_to_train_needs_no_worker(bench: Bench) -> None:
    study = tiny_study()
    bench.run(study)
    bench.executor = executor = InlineExecutor(device="cpu")
    executor.slots = ()

    assert {Outcome.DONE: 4} == bench.run(study).ended


@pytest.mark.slow
def test_a_run_says_where_it_was_trained_by_its_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study()
    there = {"host": "a node", "device": "cpu", "torch_version": "9.9"}
    monkeypatch.setattr(worker_run, "provenance", lambda device, **_: {**there, "device": f"{device} there"})

    outcome = bench.run(study)

    runs = bench.tracker.recorded_runs(outcome.record)
    assert {("a node", "cpu there, eager", "9.9")} == {(run.host, run.device, run.versions["torch"]) for run in runs}
