"""A study on real nodes, whatever happens to them: each run once, and equal to the bit to what it comes to alone."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_bed import LEASE_S, PAUSE_S, TRACEBACK, Bed, MakeBed
from cluster_chaos import NodesChaos
from cluster_checks import left_at, unequal_files
from cluster_study import PAUSE, Alone, alone
from conftest import eventually
from counting import counted
from disks import fill, mounted
from engine import Node
from forking import PROJECT, QUICK
from leftovers import open_to_others

import ablation
from ablation.stopping import GRACE_S

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
pytest.importorskip("distributed", reason="the extra `dask` is not installed")

CARRIED_S = 2.0
"""For the checkpoint of a node that is asked to end, beyond the grace."""
OTHER_VERSION = "0.0.7"
CHAOS_SEEDS = (1, 2)
CHAOS_STUDY_SEEDS = 4
CHAOS_S = 10.0
pytest_plugins = ["cluster_fixtures"]


@pytest.fixture(scope="session")
def expected_of_more(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Alone:
    return alone(tmp_path_factory.mktemp("alone"), data_cache, seeds=CHAOS_STUDY_SEEDS)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "small", mib=96) as folder:
        yield folder


def test_a_study_on_two_nodes_comes_to_what_it_does_alone(bed: Bed, expected: Alone) -> None:
    bed.start("a")
    bed.cluster.add("b", is_nannied=True)

    bed.await_epochs(runs=2)
    heard = [address for process in bed.cluster.processes() for address in open_to_others(process)]
    bed.check(expected)

    assert [] == heard
    assert [1, 1] == [len(list(node.kept.glob("data/*"))) for node in bed.cluster.nodes]


def test_a_training_process_that_is_killed_costs_its_run_a_resumption(bed: Bed, expected: Alone) -> None:
    (node,) = bed.start("a")
    bed.await_epochs(3)

    (training,) = node.trainings()
    training.kill()

    assert "its worker died: its process ended by SIGKILL" in bed.check(expected).output
    assert node.is_up


def test_runs_of_a_node_that_is_gone_are_resumed_at_another(bed: Bed, expected: Alone) -> None:
    first, _ = bed.start("a", "b")
    bed.await_epochs(3, runs=2)

    first.kill()

    bed.check(expected)


def test_a_node_that_is_asked_to_end_has_its_checkpoint_carried_within_the_grace(bed: Bed, expected: Alone) -> None:
    (first,) = bed.start("a")
    bed.await_epochs(5)
    known, begun = bed.epochs(), time.monotonic()

    first.ask_to_end()
    eventually(lambda: not first.is_up)
    seconds = time.monotonic() - begun
    kept = {identity: bed.begun(identity).lasting_epochs() for identity in known}
    bed.cluster.add("b")

    bed.check(expected)
    assert all(kept[identity] >= known[identity] for identity in known), (known, kept)
    assert seconds <= GRACE_S + CARRIED_S


def test_a_study_waits_for_a_scheduler_that_is_gone(bed: Bed, expected: Alone) -> None:
    bed.start("a")
    bed.await_epochs(3)

    bed.cluster.kill_scheduler()
    eventually(lambda: bed.is_still_running() and "scheduler" in bed.command.output)
    bed.cluster.start_scheduler()
    bed.cluster.add("b")

    bed.check(expected)


def test_leases_end_the_jobs_of_a_study_that_is_killed_and_the_same_command_resumes_it(
    bed: Bed, expected: Alone
) -> None:
    (node,) = bed.start("a")
    bed.await_epochs(3)

    bed.command.send(signal.SIGKILL)
    killed = bed.command.ending("killed")
    assert 128 + signal.SIGKILL == killed.status
    begun = time.monotonic()
    eventually(lambda: node.jobs() == [])
    seconds = time.monotonic() - begun
    bed.command.start()

    bed.check(expected)
    assert LEASE_S - 2.0 <= seconds <= LEASE_S + GRACE_S


def test_a_study_that_is_asked_to_end_is_out_within_ten_seconds_and_leaves_its_nodes_free(
    bed: Bed, expected: Alone
) -> None:
    (node,) = bed.start("a")
    bed.await_epochs(3)
    known, begun = bed.epochs(), time.monotonic()

    bed.command.send(signal.SIGTERM)
    ending = bed.command.ending("asked to end")
    seconds = time.monotonic() - begun
    jobs, kept = node.jobs(), {identity: bed.begun(identity).lasting_epochs() for identity in known}
    bed.command.start()

    assert 128 + signal.SIGTERM == ending.status, ending.output
    assert TRACEBACK not in ending.output
    assert seconds <= 10.0
    assert [] == jobs
    assert all(kept[identity] >= known[identity] for identity in known), (known, kept)
    bed.check(expected)


def test_what_a_node_sends_that_was_taken_for_lost_is_refused(bed: Bed, expected: Alone) -> None:
    first, _ = bed.start("a", "b")
    bed.await_epochs(3, runs=2)

    first.suspend()
    eventually(lambda: bed.is_still_running() and "(a)" in bed.command.output)
    first.resume()

    bed.check(expected)
    eventually(lambda: first.jobs() == [])


def test_a_node_whose_disk_is_full_gets_no_more_jobs_and_its_run_is_resumed_at_another(
    bed: Bed, expected: Alone, small_disk: Path
) -> None:
    bed.cluster.start_scheduler()
    full = bed.cluster.add("a", kept=small_disk / "node")
    bed.command.start()
    bed.await_epochs(3)

    fill(small_disk, but_kib=0)
    eventually(lambda: bed.is_still_running() and "No space left on device" in bed.command.output)
    bed.cluster.add("b")

    bed.check(expected)
    assert full.is_up


def test_a_node_of_another_version_gets_no_job_and_both_versions_are_said(
    bed: Bed, expected: Alone, tmp_path: Path
) -> None:
    bed.cluster.start_scheduler()
    bed.cluster.add("a", environment={"PYTHONPATH": os.pathsep.join(map(str, (other_version(tmp_path), QUICK)))})
    bed.command.start()
    eventually(lambda: bed.is_still_running() and f"ablation {OTHER_VERSION}" in bed.command.output)
    bed.cluster.add("b")

    output = bed.check(expected).output

    assert 1 == output.count(f"ablation {OTHER_VERSION}")
    assert f"and this machine ablation {ablation.__version__}" in output


def test_files_that_are_not_as_alone_and_what_jobs_left_at_a_node_are_told(expected: Alone, tmp_path: Path) -> None:
    found = {identity: dict(files) for identity, files in expected.files.items()}
    first, second, third, _ = found
    found[first]["model_state.pt"] = "another"
    del found[second]["test_logits.npz"]
    found[third]["more.txt"] = "more"
    node = Node(tmp_path / "a", [], {}, is_nannied=False, kept=None)
    run = node.kept / "of" / "7" / "begun" / "nodes" / first
    run.mkdir(parents=True)
    (run / "metrics.jsonl").touch()

    assert [
        f"{first}: model_state.pt is not as alone",
        f"{second}: test_logits.npz is not as alone",
        f"{third}: alone there is no more.txt",
    ] == list(unequal_files(found, expected.files))
    assert [f"a: of/7/begun/nodes/{first}/metrics.jsonl is left"] == list(left_at(node))
    assert [] == list(unequal_files(expected.files, expected.files))


def other_version(folder: Path) -> Path:
    """Return a folder in which `ablation` is of another version."""
    there = folder / "other"
    shutil.copytree(PROJECT / "ablation", there / "ablation")
    file = there / "ablation" / "__init__.py"
    file.write_text(file.read_text().replace(f'"{ablation.__version__}"', f'"{OTHER_VERSION}"'))
    return there


def test_two_studies_share_a_cluster(make_bed: MakeBed, expected: Alone) -> None:
    first = make_bed("first")
    second = make_bed("second", first.cluster)
    first.start("a", "b")
    second.command.start()

    for bed in (first, second):
        bed.end()  # before what is left at their nodes is looked for: that of the other is theirs too
    first.check(expected)
    second.check(expected)


def test_nodes_may_come_late_and_leave(bed: Bed, expected: Alone) -> None:
    bed.take(str(bed.cluster.file), "--device", "cpu")  # else the first worker decides, and is waited for
    bed.start()
    eventually(lambda: bed.is_still_running() and "there is no worker now" in bed.command.output)
    first = bed.cluster.add(
        "a", environment={PAUSE: str(4 * PAUSE_S)}
    )  # so that it has not done all when another comes
    bed.await_epochs()
    bed.cluster.add("b")
    bed.await_epochs(runs=2)
    first.ask_to_end()

    bed.check(expected)


MIB = 1024**2
LARGE = """
import numpy as np

def load():
    images = np.random.default_rng(0).integers(0, 256, (5_000, 64, 64, 3), dtype=np.uint8)
    labels = np.arange(5_000) % 4
    return {"train": (images[:4_900], labels[:4_900]), "test": (images[4_900:], labels[4_900:])}
"""


def test_a_large_data_set_is_sent_twice_however_many_nodes_there_are(bed: Bed) -> None:
    (bed.folder / "large.py").write_text(LARGE)
    file = bed.folder / "nodes.yaml"
    file.write_text(file.read_text().replace("name: digits", 'name: "large.py:load"'))
    bed.cluster.start_scheduler()
    names = "abcd"
    for name in names:
        bed.cluster.add(name)
    eventually(lambda: sorted(bed.cluster.workers()) == list(names))
    with counted(bed.cluster.port) as way:
        bed.take(f"tcp://127.0.0.1:{way.port}")
        bed.command.start()
        ending = bed.end()

    assert 0 == ending.status, ending.output
    sizes = [sum(path.stat().st_size for path in node.kept.glob("data/*/*")) for node in bed.cluster.nodes]
    assert all(size > 58 * MIB for size in sizes), sizes
    assert sizes[0] < way.sent <= 2 * sizes[0] + 8 * MIB


@pytest.mark.parametrize("seed", CHAOS_SEEDS)
def test_nothing_is_lost_or_doubled_whatever_becomes_of_nodes_scheduler_and_command(
    bed: Bed, expected_of_more: Alone, seed: int
) -> None:
    bed.take(str(bed.cluster.file), "--seeds", str(CHAOS_STUDY_SEEDS))
    chaos = NodesChaos(bed, seed=seed, duration_s=CHAOS_S)

    problems = chaos.run(expected_of_more)

    assert [] == problems, chaos.story()
