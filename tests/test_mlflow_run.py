"""The project as MLflow runs it, against real stores: `mlflow run`, a real server, and a first use by many at once."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import command_environment
from forking import PROJECT, Starter
from mlflow.tracking import MlflowClient

from ablation.tracking.mlflow.views import view_key

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path, data_cache: Path, empty_store: Path) -> dict[str, str]:
    return command_environment(tmp_path, data_cache, store=empty_store)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_project(environment: dict[str, str], tmp_path: Path, starter: Starter) -> Run:
    """Runs an entry point of the project as `mlflow run` does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "mlflow", "run", str(PROJECT), "--env-manager", "local", *arguments]
        done = starter.run(command, environment=environment, folder=tmp_path)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def study(environment: dict[str, str], tmp_path: Path, starter: Starter) -> Run:
    """Runs `ablation study` of the tiny study."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["-m", "ablation", "study", "tiny.yaml", *arguments]
        return starter.run(command, environment=environment, folder=tmp_path)

    return run


def test_mlflow_run_makes_its_run_the_study_run_and_links_the_next_one_to_it(
    environment: dict[str, str], tmp_path: Path, run_project: Run
) -> None:
    parameters = ["-P", f"study={tmp_path / 'tiny.yaml'}", "-P", "seeds=1", "-P", "executor=inline", "-P", "fuse=2"]
    parameters += ["-P", "cudnn_benchmark=on"]
    run_project("-e", "study", *parameters, "-P", "depth=1,2", "-P", "normalization=none,batch")
    run_project("-e", "study", *parameters)

    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    runs = {run.info.run_id: run for run in client.search_runs(["0"])}
    by_kind = {
        kind: [run for run in runs.values() if run.data.tags.get("ablation.kind") == kind]
        for kind in ("study", "run", "launch")
    }
    (study_run,), (launch,) = by_kind["study"], by_kind["launch"]
    assert ("tiny", "FINISHED") == (study_run.info.run_name, study_run.info.status)
    assert "1,2" in study_run.data.params["depth"]
    assert 4 == len(by_kind["run"])
    assert {study_run.info.run_id} == {run.data.tags["mlflow.parentRunId"] for run in by_kind["run"]}
    assert study_run.info.run_id == launch.data.tags["ablation.study_run"]
    assert "report.md" in [file.path for file in client.list_artifacts(launch.info.run_id)]
    assert {"FINISHED"} == {run.info.status for run in runs.values()}


def test_every_parameter_of_the_study_entry_point_reaches_the_study(
    environment: dict[str, str], tmp_path: Path, run_project: Run
) -> None:
    given = {
        "study": str(tmp_path / "tiny.yaml"),
        "name": "given",
        "seeds": "1",
        "depth": "2",
        "normalization": "none,layer",
        "epochs": "1",
        "set": "data.limit=50;training.batch_size=10",
        "device": "cpu",
        "executor": "processes",
        "workers": "1",
    }
    run_project("-e", "study", *[word for item in given.items() for word in ("-P", "=".join(item))])

    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    runs = client.search_runs(["0"], "tags.`ablation.study` = 'given' and tags.`ablation.kind` = 'run'")
    assert {"none", "layer"} == {run.data.params["model.normalization"] for run in runs}
    expected = {
        "model.depth": "2",
        "training.epochs": "1",
        "training.batch_size": "10",
        "data.limit": "50",
        "seed": "0",
    }
    assert [expected] * 2 == [{name: run.data.params[name] for name in expected} for run in runs]


def test_the_plan_and_summarize_entry_points_work(tmp_path: Path, run_project: Run, study: Run) -> None:
    assert 0 == study("--executor", "inline", "--seeds", "1").returncode

    planned = run_project("-e", "plan", "-P", f"study={tmp_path / 'tiny.yaml'}", "-P", "seeds=2,3")
    run_project("-e", "summarize", "-P", "study=tiny", "-P", f"output={tmp_path / 'report'}")

    assert "4 variants × 2 to 3 seeds (looks at 2, 3) = 8 to 12 runs" in planned.stdout
    assert (tmp_path / "report" / "report.md").exists()


def test_a_study_of_two_processes_equals_one_in_this_process_to_the_bit(
    environment: dict[str, str], tmp_path: Path, study: Run
) -> None:
    results = []
    for name, executor in (("inline", "inline"), ("pool", "processes")):
        state = tmp_path / name
        state.mkdir()
        (state / "data").symlink_to(tmp_path / "state" / "data")
        done = study("--name", name, "--seeds", "1", "--executor", executor, "--state-dir", str(state))
        assert 0 == done.returncode, done.stderr
        report = json.loads((state / "reports" / name / "report.json").read_text())
        client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
        runs = client.search_runs([client.get_experiment_by_name(name).experiment_id], "tags.`ablation.kind` = 'run'")
        kept = ("test_accuracy", "test_loss", "train_loss", "final_train_loss", "train_sample_loss")
        results.append({run.info.run_name: [run.data.metrics[metric] for metric in kept] for run in runs})
        assert report

    assert 4 == len(results[0])
    assert results[0] == results[1]


def test_a_study_runs_against_a_real_server(environment: dict[str, str], server: str, study: Run) -> None:
    environment["MLFLOW_TRACKING_URI"] = server

    first, again = (study("--seeds", "1", "--workers", "2") for _ in range(2))

    assert 0 == first.returncode, first.stderr
    assert "4 done" in again.stdout
    assert f"{server}/#/experiments/" in first.stdout
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], "tags.`ablation.kind` = 'run'")
    assert 4 == len(runs)
    assert [1, 2] == [entry.step for entry in client.get_metric_history(runs[0].info.run_id, "train_loss")]
    assert {"evaluation.json", "confusion_test.png", "configuration.json", "curves.csv", "model_state.pt"} <= {
        file.path for file in client.list_artifacts(runs[0].info.run_id)
    }


def test_the_saved_view_is_one_that_the_server_accepts(environment: dict[str, str], server: str, study: Run) -> None:
    environment["MLFLOW_TRACKING_URI"] = server
    assert 0 == study("--seeds", "1", "--executor", "inline").returncode
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("tiny")
    view = json.loads(experiment.tags[f"mlflow.sharedViewState.{view_key('tiny', 'runs')}"])

    state = _inflated(view["state"])
    found = client.search_runs(
        [experiment.experiment_id], state["searchFilter"], order_by=[f"{state['orderByKey']} ASC"]
    )

    names = [f"depth={depth},normalization={norm}/seed-0" for depth in (1, 2) for norm in ("none", "batch")]
    assert names == [run.info.run_name for run in found]


def test_four_processes_may_use_a_fresh_store_for_the_first_time_at_once(
    tmp_path: Path, data_cache: Path, starter: Starter
) -> None:
    environment = command_environment(tmp_path, data_cache)
    code = (
        "import sys\n"
        "from ablation.tracking import open_mlflow\n"
        "open_mlflow(sys.argv[1]).store.client.create_experiment(sys.argv[2])\n"
    )
    uri = environment["MLFLOW_TRACKING_URI"]
    processes = [
        starter.start(["-c", code, uri, f"first-{index}"], environment=environment, folder=tmp_path)
        for index in range(4)
    ]
    outputs = ["".join(process.communicate(timeout=280)) for process in processes]

    assert [0] * 4 == [process.returncode for process in processes], "\n".join(outputs)
    client = MlflowClient(uri)
    assert 4 == sum(experiment.name.startswith("first-") for experiment in client.search_experiments())


def _inflated(state: str) -> dict[str, Any]:
    import base64
    import zlib

    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;"))))
    return found
