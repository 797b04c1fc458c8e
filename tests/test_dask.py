"""The contract of executors on a real dask cluster: two workers, each a node with a folder of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from conftest import PROJECT, SPARED, eventually

from ablation.errors import ArgumentInvalid, SchedulerMissing
from ablation.executors import Executor, JobExited, dask, make_executor
from ablation.executors.addresses import Where
from ablation.executors.nodes.fitness import here
from ablation.testing import WorkersContract

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a scheduler with two workers, one of them with a nanny."""
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    started = [_started(folder, "scheduler", "--port", "0", "--scheduler-file", str(file))]
    for name, nanny in (("a", "--no-nanny"), ("b", "--nanny")):
        words = ("--scheduler-file", str(file), "--nthreads", "1", "--memory-limit", "0", nanny, "--name", name)
        started.append(_started(folder / name, "worker", *words, "--death-timeout", "60"))
    yield file
    for process in reversed(started):
        process.terminate()
        process.wait(timeout=60)


def _started(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": SPARED, "ABLATION_NODE_COPY": "yes"}
    with (folder / f"{words[0]}.log").open("wb") as log:
        command = [sys.executable, "-m", "dask", *words, *LOOPBACK]
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def test_a_scheduler_that_is_not_there_is_told_at_once_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "COMES_S", 0.0)
    monkeypatch.setattr(dask, "POLL_S", 0.0)
    file, said = tmp_path / "scheduler.json", list[str]()

    with pytest.raises(SchedulerMissing, match="there is no such file yet"):
        dask.DaskExecutor(str(file), say=said.append)

    assert 1 == len(said)
    assert said[0].startswith(f"there is no scheduler at {file}: there is no such file yet.")
    assert f"`dask scheduler --scheduler-file {file} --host HOST`" in said[0]


@pytest.mark.parametrize("device", ["cuda:1", "gpu"])
def test_which_gpu_a_job_gets_is_the_engines_to_give(device: str) -> None:
    with pytest.raises(ArgumentInvalid, match="auto, cpu or cuda: which GPU a job gets is the engine's to give"):
        dask.DaskExecutor("scheduler.json", device=device, say=str)


class Engine:
    """A scheduler with a worker of another Python, and with a fit one from when that is missed."""

    scheduler = "scheduler"

    def __init__(self) -> None:
        self.there = {"old": 1}
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        if text == dask.NO_FIRST_WORKER:
            self.there["new"] = 1

    async def to(self, address: str, *, is_open: bool) -> "Engine":
        return self

    async def workers(self) -> dict[str, int]:
        return self.there

    async def describe(self, address: str) -> str:
        return address

    async def versions(self, address: str) -> object:
        return {"packages": {"python": "3.9.1.final.0" if address == "old" else sys.version}}

    async def add_agent(self, address: str) -> str | None:
        return None

    async def ask(self, address: str, verb: str, **asked: object) -> object:
        versions = {"version": here()["ablation"], "python": here()["Python"], "torch": here()["torch"]}
        hello = {"agent": address, "folder": address, "slots": {"cpu": 1, "cuda": 0}, **versions}
        return hello if verb == "hello" else None

    async def ask_all(self, addresses: Collection[str], verb: str, **asked: object) -> dict[str, object]:
        return {address: {"agent": address, "free": {}, "is_ending": False, "jobs": {}} for address in addresses}

    async def close(self) -> None:
        return None


def test_until_there_is_a_fit_worker_it_is_said_why_the_others_are_not_and_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine()
    monkeypatch.setattr(dask, "Connection", engine)
    monkeypatch.setattr(dask, "POLL_S", 0.01)

    with dask.DaskExecutor("tcp://127.0.0.1:1", say=engine.say) as executor:
        assert executor.is_on_gpu is False

    assert engine.said == [
        f"node old gets no runs: it has Python 3.9, and this machine Python {here()['Python']}",
        dask.NO_FIRST_WORKER,
    ]


def test_what_ends_the_thread_that_asks_is_told_to_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def ending(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(dask, "Connection", Engine())
    monkeypatch.setattr(dask, "POLL_S", 0.01)

    with dask.DaskExecutor("tcp://127.0.0.1:1", say=str, device="cpu") as executor:
        future = executor.submit(int)
        executor._in_loop(ending)
        eventually(lambda: not executor._thread.is_alive())

        with pytest.raises(JobExited, match="SystemExit: 3"):
            assert executor.slots
        assert isinstance(future.exception(timeout=0), JobExited)


@pytest.mark.slow
class TestDaskExecutor(WorkersContract):
    @pytest.fixture
    def executor(self, scheduler: Path) -> Iterator[Executor]:
        where = Where(text=str(scheduler))
        with make_executor("dask", devices=("auto",), workers=None, threads=1, where=where) as made:
            eventually(lambda: len(made.slots) == 2)
            yield made


HUNG = """
import asyncio, os, signal
from types import SimpleNamespace
from ablation.executors.nodes import plugin

async def main():
    agent = SimpleNamespace(end_all=lambda: None, see_leases=lambda: None)
    service = plugin.AgentService(SimpleNamespace(handlers={}, status=None), agent)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(60)

signal.signal(signal.SIGTERM, lambda *_: None)
plugin.ENDS_S = 0.2
asyncio.run(main())
"""


def test_a_worker_that_dask_does_not_end_ends_all_the_same() -> None:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    done = subprocess.run([sys.executable, "-c", HUNG], env=environment, timeout=60, check=False)

    assert 128 + signal.SIGTERM == done.returncode
