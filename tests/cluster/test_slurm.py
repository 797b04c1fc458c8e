"""A study's workers under a real SLURM: an array of them, each with its GPU, preempted and queued again."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_bed import Bed
from cluster_study import Alone
from conftest import eventually
from engine import Cluster, worker_command
from leftovers import open_to_others, processes_of_folder
from slurm import GPUS, GRACE_S, LOOKS_EVERY_S, NODES, Slurm, why_not

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
pytest.importorskip("distributed", reason="the extra `dask` is not installed")

pytest_plugins = ["cluster_fixtures"]
WORKERS = len(NODES) * len(GPUS)


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    made = Slurm(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
    assert [] == processes_of_folder(folder)


def workers_script(cluster: Cluster, output: Path) -> str:
    """Return an array of workers, each with a GPU and a folder of its own.

    Where SLURM wants its node, a job's step gets SIGTERM. A job that ended by itself then would not be queued again:
    it waits for its end, longer than the partition's GraceTime and the time between SLURM's looks for that.
    """
    return f"""#!/bin/bash
#SBATCH --array=1-{WORKERS} --gres=gpu:1 --requeue --open-mode=append --output={output}/%a.txt
mkdir -p {output}/$SLURM_ARRAY_TASK_ID && cd {output}/$SLURM_ARRAY_TASK_ID
srun {shlex.join(worker_command(cluster.file))} --name $SLURM_ARRAY_TASK_ID-${{SLURM_RESTART_COUNT:-0}}
sleep {GRACE_S + LOOKS_EVERY_S + 5}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What SLURM gave a worker: its node and its GPUs; `name` is the worker's, with how often its job began before."""

    name: str
    node: str
    gpus: str


def workers_in(folder: Path) -> list[Given]:
    """Return what the workers that run below a folder have been given, by what their environments say."""
    found = []
    for process in processes_of_folder(folder):
        words = process.cmdline()
        if words[0] == sys.executable and "--name" in words:
            told, name = process.environ(), words[words.index("--name") + 1]
            found.append(Given(name=name, node=told["SLURMD_NODENAME"], gpus=told["CUDA_VISIBLE_DEVICES"]))
    return found


def test_each_worker_of_an_array_has_a_gpu_of_its_own_and_all_is_on_loopback(
    bed: Bed, slurm: Slurm, tmp_path: Path
) -> None:
    cluster = bed.cluster
    cluster.start_scheduler()
    job = slurm.submit(workers_script(cluster, tmp_path))
    eventually(lambda: len(cluster.workers()) == WORKERS)

    places = sorted((worker.node, worker.gpus) for worker in workers_in(tmp_path))

    assert [(node, str(gpu)) for node in NODES for gpu in GPUS] == places
    assert [] == [address for process in [*slurm.daemons, *cluster.processes()] for address in open_to_others(process)]
    slurm.cancel(job)


def test_a_study_is_resumed_where_workers_are_preempted_which_come_back_when_their_jobs_are_queued_again(
    bed: Bed, expected: Alone, slurm: Slurm, tmp_path: Path
) -> None:
    bed.cluster.start_scheduler()
    slurm.submit(workers_script(bed.cluster, tmp_path), environment=bed.cluster.environment)
    eventually(lambda: len(bed.cluster.workers()) == WORKERS)
    others = {worker.name for worker in workers_in(tmp_path) if worker.node == NODES[1]}
    bed.command.start()
    bed.await_epochs(3, runs=WORKERS)

    urgent = slurm.submit("#!/bin/bash\nsleep 600\n", "--partition=high", "--exclusive", f"--nodelist={NODES[0]}")
    eventually(lambda: others == set(bed.cluster.workers()))
    output = bed.check(expected).output
    resumed = re.findall(r"its worker was asked to end; it resumes after epoch (\d+)", output)
    slurm.cancel(urgent)
    eventually(lambda: len(bed.cluster.workers()) == WORKERS)

    assert 2 == len(others)
    assert 2 == len(resumed)
    assert all(int(epoch) >= 3 for epoch in resumed)
    assert {"-1"} == {name[-2:] for name in set(bed.cluster.workers()) - others}
