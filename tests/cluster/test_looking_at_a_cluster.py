"""What `ablation doctor` says of a cluster, and which clusters are refused as others may reach them."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import PROJECT, TINY, eventually
from engine import Cluster

from ablation.cli import main

pytest.importorskip("distributed", reason="the extra `dask` is not installed")  # with its configuration
import dask

pytestmark = pytest.mark.slow

ELSEWHERE = "tcp://10.0.0.5:8786"
OLDER = "import ablation\nablation.__version__ = '0.0.1'\n"
SCHEDULER_ELSEWHERE = f"""
def dask_setup(scheduler):
    identity = scheduler.handlers["identity"]
    scheduler.handlers["identity"] = lambda *args, **options: {{**identity(*args, **options), "address": "{ELSEWHERE}"}}
"""
WORKER_ELSEWHERE = f"""
def dask_setup(scheduler):
    scheduler.handlers["ncores"] = lambda *args, **options: {{"{ELSEWHERE}": 1}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "ABLATION_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_bytes(TINY)
    return tmp_path


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    with Cluster(folder / "cluster") as made:
        made.start_scheduler()
        yield made


def certificate(home: Path) -> Path:
    """Make a certificate by the commands of docs/cluster.md, and return the folder of dask's configuration with it."""
    page = (PROJECT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (commands,) = [block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "openssl" in block]
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    subprocess.run(["bash", "-ec", commands], env=environment, cwd=home, check=True, capture_output=True)
    return home / ".config" / "dask"


def configured(folder: Path) -> Any:
    """Return a context in which this process has dask's configuration of a folder."""
    return dask.config.set(dask.config.merge(dask.config.config, dask.config.collect([str(folder)], env={})))


def preloading(role: str, folder: Path, code: str) -> dict[str, str]:
    """Return what has a scheduler or a worker run code when it starts."""
    file = folder / f"preloaded_by_{role}.py"
    file.write_text(code)
    return {f"DASK_DISTRIBUTED__{role.upper()}__PRELOAD": str([str(file)])}


def invoke(*words: object) -> Result:
    result = CliRunner().invoke(main, list(map(str, words)), env={"COLUMNS": "2000"})
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    return result


def doctor(where: object, *words: str) -> Result:
    return invoke("doctor", "--executor", f"dask:{where}", *words)


def workers_of(where: object) -> str:
    """Return what is said of a cluster's workers, where all else is as it should be."""
    result = doctor(where, "--json")
    assert 0 == result.exit_code, result.output
    return next(one["found"] for one in json.loads(result.stdout)["machine"] if one["what"] == "workers")


def test_each_node_is_told_with_its_folder_and_whether_it_is_fit(folder: Path, cluster: Cluster) -> None:
    cluster.add("good")
    cluster.add("older", environment=preloading("worker", folder, OLDER))
    cluster.add("blocked", kept=folder / "tiny.yaml" / "node")
    eventually(lambda: len(cluster.workers()) == 3)

    result = doctor(cluster.file, "tiny.yaml", "--json")

    assert 0 == result.exit_code, result.output
    nodes = {node["label"].partition("(")[2].rstrip(")"): node for node in json.loads(result.stdout)["nodes"]}
    assert {"good": True, "older": False, "blocked": False} == {name: node["is_fit"] for name, node in nodes.items()}
    assert {"cpu": 1} == nodes["good"]["slots"]
    assert str(cluster.folder / "good" / "node") == nodes["good"]["folder"]
    assert abs(nodes["good"]["clock_s"]) < 5
    assert "it has ablation 0.0.1, and this machine ablation" in nodes["older"]["why"]
    assert nodes["blocked"]["why"].startswith("its folder cannot be used: ")
    assert str(folder / "tiny.yaml") in nodes["blocked"]["why"]
    assert "(older) gets no runs: it has ablation 0.0.1" in doctor(cluster.file).stdout
    (folder / "tf32.yaml").write_bytes(TINY.replace(b"epochs: 2", b"epochs: 2, precision: tf32"))
    required = doctor(cluster.file, "tf32.yaml")
    assert 2 == required.exit_code
    assert "(good) gets no runs: " in required.stdout
    assert "tf32" in required.stdout.partition("(good) gets no runs: ")[2]


def test_a_folder_that_nodes_see_too_is_told_as_shared(folder: Path, cluster: Cluster) -> None:
    cluster.add("here")
    eventually(lambda: len(cluster.workers()) == 1)

    found = [json.loads(doctor(cluster.file, "--json").stdout)["nodes"][0]["is_shared"]]
    (folder / ".ablation").mkdir()
    found.append(json.loads(doctor(cluster.file, "--json").stdout)["nodes"][0]["is_shared"])

    assert [None, True] == found
    assert [] == list((folder / ".ablation").iterdir())


def test_a_cluster_without_workers_is_no_mistake_and_one_without_a_fit_one_is(folder: Path, cluster: Cluster) -> None:
    assert "none yet: a study would wait for one" == workers_of(cluster.file)

    cluster.add("older", environment=preloading("worker", folder, OLDER))
    eventually(lambda: len(cluster.workers()) == 1)
    result = doctor(cluster.file)

    assert 2 == result.exit_code
    assert "Error: workers: none of 1 can train runs" in result.stderr


def test_a_scheduler_that_is_not_there_is_told_with_how_to_start_one() -> None:
    result = doctor("scheduler.json")

    assert 2 == result.exit_code
    assert "Error: scheduler: there is no scheduler at scheduler.json" in result.stderr
    assert "dask scheduler --scheduler-file scheduler.json" in result.stderr


def test_a_scheduler_that_listens_to_others_is_refused_however_it_is_reached(folder: Path) -> None:
    with Cluster(folder / "cluster", preloading("scheduler", folder, SCHEDULER_ELSEWHERE)) as cluster:
        cluster.start_scheduler()
        refused = doctor(cluster.address)
        study = invoke("study", "tiny.yaml", "--executor", f"dask:{cluster.address}")
        accepted = doctor(cluster.address, "--insecure-network")

    assert (2, 2, 0) == (refused.exit_code, study.exit_code, accepted.exit_code)
    assert f"Error: scheduler: {ELSEWHERE} may be reached from elsewhere" in refused.stderr
    assert f"Error: {ELSEWHERE} may be reached from elsewhere" in study.stderr


def test_a_worker_that_listens_to_others_gets_no_runs(folder: Path) -> None:
    with Cluster(folder / "cluster", preloading("scheduler", folder, WORKER_ELSEWHERE)) as cluster:
        cluster.start_scheduler()
        result = doctor(cluster.file)

    assert 2 == result.exit_code
    assert f"gets no runs: {ELSEWHERE} may be reached from elsewhere" in result.stdout


def test_a_cluster_with_tls_is_used_with_its_certificate_and_no_other(folder: Path) -> None:
    ours, others = certificate(folder / "ours"), certificate(folder / "others")
    with Cluster(folder / "cluster", {"DASK_CONFIG": str(ours)}) as cluster:
        cluster.start_scheduler()
        cluster.add("only")
        with configured(ours):
            eventually(lambda: workers_of(cluster.file).startswith("1, 1 of them fit"))
            study = invoke("study", "tiny.yaml", "--executor", f"dask:{cluster.file}", "--seeds", "1")
        without = doctor(cluster.file)
        with configured(others):
            foreign = doctor(cluster.file)

    assert 0 == study.exit_code, study.output
    assert "4 done" in study.stdout
    assert (2, 2) == (without.exit_code, foreign.exit_code)
    assert "asks for a certificate" in without.stderr
    assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in without.stderr
    assert "has another certificate" in foreign.stderr
