"""The contract of executors, held by each of them; and what only a pool of processes can promise."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PROJECT
from jobs import fork_and_die, write_then_sleep

from ablation.executors import Executor, InlineExecutor, ProcessExecutor, TakenSlots, WorkerLost, make_executor
from ablation.executors.cores import available_cores
from ablation.testing import ExecutorContract, WorkersContract


class TestInlineExecutor(ExecutorContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with make_executor("inline", devices=("cpu",), workers=2, threads=1) as made:
            yield made


@pytest.mark.slow
class TestProcessExecutor(WorkersContract):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        with make_executor("processes", devices=("cpu",), workers=2, threads=1) as made:
            yield made


def test_the_first_free_slot_is_one_that_there_is_now_and_that_no_job_has() -> None:
    executor = InlineExecutor(device="cuda:0")
    taken = TakenSlots(executor)
    executor.slots = ("cuda:0", "cuda:1", "cuda:0")

    assert "cuda:0" == taken.first_free()
    taken.take("cuda:0")
    assert "cuda:1" == taken.first_free()
    taken.take("cuda:1")
    assert "cuda:0" == taken.first_free()
    taken.take("cuda:0")
    assert taken.first_free() is None

    taken.give_back("cuda:0")
    assert "cuda:0" == taken.first_free()
    executor.slots = ("cuda:0",)
    assert taken.first_free() is None
    executor.slots = ()
    assert taken.first_free() is None


def test_a_worker_that_dies_is_noticed_though_its_job_has_forked(tmp_path: Path) -> None:
    with ProcessExecutor(slots=("cpu",)) as executor:
        error = executor.submit(fork_and_die, tmp_path / "child").exception(timeout=60)

        assert isinstance(error, WorkerLost)
        assert "SIGKILL" in str(error)
    deadline = time.monotonic() + 20
    while _is_alive(int((tmp_path / "child").read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(int((tmp_path / "child").read_text()))


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


@pytest.mark.slow
def test_stop_ends_what_is_running(tmp_path: Path) -> None:
    executor = ProcessExecutor(slots=("cpu",))
    begun = executor.submit(write_then_sleep, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)

    executor.stop()

    assert begun.exception(timeout=10) is not None
    assert not _is_alive(int((tmp_path / "begun").read_text()))


@pytest.mark.slow
def test_an_exception_that_leaves_the_context_stops_the_workers(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ProcessExecutor(slots=("cpu",)) as executor:  # noqa: PT012 - the wait belongs inside
        executor.submit(write_then_sleep, tmp_path / "begun")
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


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" != Path(f"/proc/{pid}/stat").read_text().split()[2]
