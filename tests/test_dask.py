"""The contract of executors on a real dask cluster: two workers, each a node with a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SPARED, eventually

from ablation.executors import Executor, make_executor
from ablation.executors.addresses import Where
from ablation.testing import WorkersContract

pytestmark = pytest.mark.slow
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


class TestDaskExecutor(WorkersContract):
    @pytest.fixture
    def executor(self, scheduler: Path) -> Iterator[Executor]:
        where = Where(text=str(scheduler))
        with make_executor("dask", devices=("auto",), workers=None, threads=1, where=where) as made:
            eventually(lambda: len(made.slots) == 2)
            yield made
