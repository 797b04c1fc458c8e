"""The contract of executors, held by each of them; and what only a pool of processes can promise."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, wait
from pathlib import Path

import pytest
from conftest import PROJECT

from ablation.executors import Executor, ProcessExecutor, WorkerLost, make_executor
from ablation.executors.cores import available_cores
from ablation.stopping import Preempted, stopping


@pytest.fixture(params=["inline", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with make_executor(request.param, devices=("cpu",), workers=2, threads=1) as made:
        yield made


@pytest.fixture
def processes() -> Iterator[ProcessExecutor]:
    with ProcessExecutor(slots=("cpu", "cpu")) as made:
        yield made


def test_a_future_holds_the_functions_result(executor: Executor) -> None:
    future = executor.submit(pow, 2, 10)

    assert 1024 == future.result(timeout=60)


def test_a_future_raises_what_the_function_raised(executor: Executor) -> None:
    future = executor.submit(int, "three")

    with pytest.raises(ValueError, match="three"):
        future.result(timeout=60)
    assert not isinstance(future.exception(), WorkerLost)


def test_one_failing_job_fails_alone(executor: Executor) -> None:
    futures = [executor.submit(int, text) for text in ("1", "no", "3")]

    assert [1, 3] == [futures[index].result(timeout=60) for index in (0, 2)]
    assert isinstance(futures[1].exception(timeout=60), ValueError)


def test_keyword_arguments_arrive(executor: Executor) -> None:
    assert 255 == executor.submit(int, "ff", base=16).result(timeout=60)


def test_a_killed_worker_takes_only_its_own_job_with_it(processes: ProcessExecutor) -> None:
    futures = [processes.submit(_slow_square, number) for number in range(6)]
    killed = processes.submit(_kill_this_process)
    wait([killed], timeout=60, return_when=FIRST_EXCEPTION)

    assert isinstance(killed.exception(timeout=60), WorkerLost)
    assert [number**2 for number in range(6)] == [future.result(timeout=60) for future in futures]


def test_a_worker_that_dies_is_noticed_though_its_job_has_forked(tmp_path: Path) -> None:
    with ProcessExecutor(slots=("cpu",)) as executor:
        error = executor.submit(_fork_and_die, tmp_path / "child").exception(timeout=60)

        assert isinstance(error, WorkerLost)
        assert "SIGKILL" in str(error)
    deadline = time.monotonic() + 20
    while _is_alive(int((tmp_path / "child").read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(int((tmp_path / "child").read_text()))


def test_a_worker_asked_to_end_lets_its_job_come_to_an_end(processes: ProcessExecutor) -> None:
    error = processes.submit(_ask_this_process_to_end).exception(timeout=60)

    assert isinstance(error, Preempted)
    assert 81 == processes.submit(_slow_square, 9).result(timeout=60)


def test_a_worker_killed_while_idle_costs_at_most_the_next_job(processes: ProcessExecutor) -> None:
    pids = {processes.submit(_slow_pid).result(timeout=60) for _ in range(4)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)

    futures = [processes.submit(_slow_square, number) for number in range(6)]

    errors = [future.exception(timeout=60) for future in futures]
    assert all(error is None or isinstance(error, WorkerLost) for error in errors)
    assert sum(error is not None for error in errors) <= len(pids)
    assert 81 == processes.submit(_slow_square, 9).result(timeout=60)


def test_workers_killed_again_and_again_lose_no_other_job(processes: ProcessExecutor) -> None:
    futures = [processes.submit(_kill_this_process if number % 3 else _slow_pid) for number in range(15)]

    for number, future in enumerate(futures):
        error = future.exception(timeout=120)
        assert (error is None) == (number % 3 == 0)
        assert error is None or isinstance(error, WorkerLost)


def test_a_worker_lives_as_long_as_the_executor(processes: ProcessExecutor) -> None:
    workers = {processes.submit(os.getpid).result(timeout=60) for _ in range(6)}

    assert len(workers) <= len(processes.slots)
    assert os.getpid() not in workers


def test_workers_leave_an_interrupt_to_the_process_that_started_them(processes: ProcessExecutor) -> None:
    assert signal.SIG_IGN == processes.submit(signal.getsignal, signal.SIGINT).result(timeout=60)


MAIN = """
import sys
from ablation.executors import ProcessExecutor

print("main")
before = __spec__, globals().get("__file__")
with ProcessExecutor(slots=("cpu", "cpu")) as executor:
    print(*[future.result(timeout=60) for future in [executor.submit(abs, -number) for number in (4, 5, 6)]])
assert before == (__spec__, globals().get("__file__"))
"""


@pytest.mark.parametrize("words", [["main.py"], ["-m", "main"], ["-"]], ids=["file", "module", "pipe"])
def test_a_worker_does_not_run_the_main_module_again(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)

    done = subprocess.run(
        [sys.executable, *words],
        input=MAIN,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ["main", "4 5 6"] == done.stdout.splitlines()


def test_stop_ends_what_is_running(tmp_path: Path) -> None:
    executor = ProcessExecutor(slots=("cpu",))
    begun = executor.submit(_write_then_sleep, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)

    executor.stop()

    assert begun.exception(timeout=10) is not None
    assert not _is_alive(int((tmp_path / "begun").read_text()))


def test_an_exception_that_leaves_the_context_stops_the_workers(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ProcessExecutor(slots=("cpu",)) as executor:  # noqa: PT012 - the wait belongs inside
        executor.submit(_write_then_sleep, tmp_path / "begun")
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        raise KeyError

    assert not _is_alive(int((tmp_path / "begun").read_text()))


def test_auto_takes_one_process_per_core() -> None:
    executor = make_executor("auto", devices=("cpu",), workers=None, threads=1)

    assert isinstance(executor, ProcessExecutor)
    assert available_cores() == len(executor.slots)


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib, time\n"
        "from ablation.executors import ProcessExecutor\n"
        "if __name__ == '__main__':\n"
        "    executor = ProcessExecutor(slots=('cpu',))\n"
        "    pid = executor.submit(os.getpid).result()\n"
        "    executor.submit(time.sleep, 600)\n"
        "    pathlib.Path(sys.argv[1]).write_text(str(pid))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    (tmp_path / "coordinator.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run(
        [sys.executable, str(tmp_path / "coordinator.py"), str(tmp_path / "pid")], env=environment, check=False
    )

    worker = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 20
    while _is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(worker)


def test_workers_take_turns_on_the_gpus() -> None:
    executor = make_executor("auto", devices=("cuda:0", "cuda:1"), workers=3, threads=1)

    assert ("cuda:0", "cuda:1", "cuda:0") == executor.slots


def _slow_square(number: int) -> int:
    time.sleep(0.05)
    return number**2


def _slow_pid() -> int:
    time.sleep(0.05)
    return os.getpid()


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fork_and_die(path: Path) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    path.write_text(str(child))
    os.kill(os.getpid(), signal.SIGKILL)


def _ask_this_process_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    while not stopping.is_asked:
        time.sleep(0.01)
    raise Preempted


def _write_then_sleep(path: Path) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(str(os.getpid()))
    beside.rename(path)
    time.sleep(600)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" != Path(f"/proc/{pid}/stat").read_text().split()[2]
