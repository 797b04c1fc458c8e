"""What every executor promises, and what one with processes of its own promises beyond that."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from ablation.errors import CodeInvalid
from ablation.executors import Executor, Files, JobExited, Needed, Place, WorkerLost
from ablation.stopping import Preempted, stopping

PATIENCE_S = 60.0
JOBS = 6
TOLD = 20_000


class Unreadable(Exception):
    """An error whose pickle nobody can read: its constructor takes more than it keeps."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class ExecutorContract:
    """The rules of an executor. Inherit it, and override the fixture `executor`."""

    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        """Yield an executor of one or more slots on the CPU, and leave its context afterwards."""
        raise NotImplementedError("override the fixture `executor`")

    def test_slots_are_names_of_devices_and_their_kind_is_known(self, executor: Executor) -> None:
        assert {"cpu"} == set(executor.slots)
        assert not executor.is_on_gpu

    def test_a_future_holds_the_functions_result(self, executor: Executor) -> None:
        assert executor.submit(pow, 2, 10).result(timeout=PATIENCE_S) == 1024

    def test_a_job_with_files_writes_to_the_folders_that_it_leaves_and_each_change_is_told(
        self, executor: Executor, tmp_path: Path
    ) -> None:
        changed: list[str] = []
        files = Files(home=tmp_path, leaves=("begun/study/run",), on_change=changed.append)

        told = executor.submit(_write_below_its_place, "run", files=files).result(timeout=PATIENCE_S)

        assert told == "written"
        assert (tmp_path / "begun/study/run/metrics.jsonl").read_text() == "{}\n"
        assert set(changed) == {"begun/study/run"}

    def test_a_job_finds_what_it_needs_below_its_place(self, executor: Executor, tmp_path: Path) -> None:
        there = tmp_path / "data" / f"words-{'0' * 12}"
        there.mkdir(parents=True)
        (there / "words.txt").write_text("seven")
        needed = Needed(name=f"data/{there.name}", files={"words.txt": there / "words.txt"})

        found = executor.submit(_read_below_its_place, needed.name, files=Files(home=tmp_path, needs=(needed,)))

        assert found.result(timeout=PATIENCE_S) == "seven"

    def test_what_is_required_is_checked_with_the_devices_of_its_slots(self, executor: Executor) -> None:
        executor.require(_is_a_name)

        assert executor.submit(abs, -4).result(timeout=PATIENCE_S) == 4
        assert executor.take_notes() == []

    def test_a_future_raises_what_the_function_raised(self, executor: Executor) -> None:
        future = executor.submit(int, "three")

        with pytest.raises(ValueError, match="three"):
            future.result(timeout=PATIENCE_S)
        assert not isinstance(future.exception(), WorkerLost)

    def test_one_failing_job_fails_alone(self, executor: Executor) -> None:
        futures = [executor.submit(int, text) for text in ("1", "no", "3")]

        assert [futures[index].result(timeout=PATIENCE_S) for index in (0, 2)] == [1, 3]
        assert isinstance(futures[1].exception(timeout=PATIENCE_S), ValueError)

    def test_an_error_arrives_with_its_message_and_its_attributes(self, executor: Executor) -> None:
        error = executor.submit(_raise_code_invalid).exception(timeout=PATIENCE_S)

        assert isinstance(error, CodeInvalid)
        assert (error.path, str(error)) == ("model.name", "no such file @ model.name")

    def test_an_error_that_cannot_be_pickled_is_told_and_costs_no_other_job(self, executor: Executor) -> None:
        error = executor.submit(_raise_unreadable).exception(timeout=PATIENCE_S)

        assert isinstance(error, JobExited)
        assert str(error) == "Unreadable: odd: because"
        assert executor.submit(abs, -4).result(timeout=PATIENCE_S) == 4

    @pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
    def test_a_future_never_raises_what_would_end_whoever_asks(
        self, executor: Executor, kind: type[BaseException]
    ) -> None:
        with stopping.listening():
            error = executor.submit(_raise, kind).exception(timeout=PATIENCE_S)

        assert isinstance(error, JobExited)
        assert str(error).startswith(kind.__name__)
        assert executor.submit(abs, -4).result(timeout=PATIENCE_S) == 4


class WorkersContract(ExecutorContract):
    """The rules of an executor whose jobs run in processes of their own, any of which may die or be killed.

    Two or more slots.
    """

    def test_jobs_run_in_other_processes_no_more_than_there_are_slots(self, executor: Executor) -> None:
        workers = {executor.submit(os.getpid).result(timeout=PATIENCE_S) for _ in range(JOBS)}

        assert len(workers) <= len(executor.slots)
        assert os.getpid() not in workers

    def test_a_killed_worker_takes_only_its_own_job_with_it(self, executor: Executor) -> None:
        futures = [executor.submit(_slow_square, number) for number in range(JOBS)]
        killed = executor.submit(_kill_this_process)

        assert isinstance(killed.exception(timeout=PATIENCE_S), WorkerLost)
        assert [number**2 for number in range(JOBS)] == [future.result(timeout=PATIENCE_S) for future in futures]

    def test_a_worker_killed_while_idle_costs_at_most_the_next_job(self, executor: Executor) -> None:
        pids = {executor.submit(_slow_pid).result(timeout=PATIENCE_S) for _ in range(4)}
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

        futures = [executor.submit(_slow_square, number) for number in range(JOBS)]

        errors = [_error(future) for future in futures]
        assert all(error is None or isinstance(error, WorkerLost) for error in errors)
        assert sum(error is not None for error in errors) <= len(pids)
        assert executor.submit(_slow_square, 9).result(timeout=PATIENCE_S) == 81

    def test_workers_killed_again_and_again_lose_no_other_job(self, executor: Executor) -> None:
        futures = [executor.submit(_kill_this_process if number % 3 else _slow_pid) for number in range(15)]

        for number, future in enumerate(futures):
            error = _error(future)
            assert (error is None) == (number % 3 == 0)
            assert error is None or isinstance(error, WorkerLost)

    def test_a_worker_asked_to_end_lets_its_job_come_to_an_end(self, executor: Executor) -> None:
        error = executor.submit(_ask_this_process_to_end).exception(timeout=PATIENCE_S)

        assert isinstance(error, Preempted)
        assert executor.submit(_slow_square, 9).result(timeout=PATIENCE_S) == 81

    def test_a_worker_that_nobody_hears_goes_on(self, executor: Executor, tmp_path: Path) -> None:
        files = Files(home=tmp_path, leaves=("begun/study/run",))

        assert executor.submit(_tell_again_and_again, files=files).result(timeout=PATIENCE_S) == TOLD

    def test_workers_leave_an_interrupt_to_the_process_that_started_them(self, executor: Executor) -> None:
        assert executor.submit(signal.getsignal, signal.SIGINT).result(timeout=PATIENCE_S) == signal.SIG_IGN


def _write_below_its_place(name: str, place: Place) -> str:
    folder = place.folder / "begun" / "study" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("{}\n")
    place.changed(f"begun/study/{name}")
    return "written"


def _tell_again_and_again(place: Place) -> int:
    for _ in range(TOLD):
        place.changed("begun/study/run")
    return TOLD


def _read_below_its_place(name: str, place: Place) -> str:
    return (place.folder / name / "words.txt").read_text()


def _is_a_name(device: str) -> None:
    assert isinstance(device, str)


def _error(future: Future[Any]) -> BaseException | None:
    return future.exception(timeout=2 * PATIENCE_S)


def _raise(kind: type[BaseException]) -> None:
    raise kind


def _raise_code_invalid() -> None:
    raise CodeInvalid("no such file", path="model.name")


def _raise_unreadable() -> None:
    raise Unreadable("odd", "because")


def _slow_square(number: int) -> int:
    time.sleep(0.05)
    return number**2


def _slow_pid() -> int:
    time.sleep(0.05)
    return os.getpid()


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _ask_this_process_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    while not stopping.is_asked:
        time.sleep(0.01)
    raise Preempted
