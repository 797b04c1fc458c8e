"""Real processes, killed, interrupted and cut off: every run is finished once, to the numbers it would have had."""

import http.client
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from bench import Bench
from click.testing import CliRunner
from conftest import answer_alone, command_environment, eventually, forked_server
from factories import make_plan
from forking import Forked, Starter
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from sparing import RECORDED_BESIDE

from ablation.cli import main
from ablation.errors import TrackingUnavailable
from ablation.records import Outcome
from ablation.storage.holder import this_process
from ablation.study import Study, load_study, parse_override
from ablation.tracking import open_mlflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("hearing_signals")]

EPOCHS = 60
LONG = ("--seeds", "1", "--set", f"training.epochs={EPOCHS}", "--name", "long")
FILE_LIMIT = 100
"""Bytes: less than a checkpoint, or an epoch of a run."""
KEPT = ("test_accuracy", "test_loss", "final_train_loss", "learning_curve_area")


class Place:
    """A folder with a study file, where the real command is run."""

    def __init__(self, folder: Path, data_cache: Path, store: Path, starter: Starter) -> None:
        self.folder, self.starter = folder, starter
        environment = command_environment(folder, data_cache, store=store)
        self.environment = {**environment, "ABLATION_CHECKPOINT_SECONDS": "0", RECORDED_BESIDE: "yes"}
        self.begun = folder / "state" / "begun" / "long"

    def study(self) -> Forked:
        command = ["-m", "ablation", "study", "tiny.yaml", *LONG, "--workers", "2"]
        return self.starter.start(command, environment=self.environment, folder=self.folder)

    def command(self, *arguments: str) -> str:
        """Run a command in this process and return what it says."""
        result = CliRunner().invoke(main, arguments, env=self.environment)
        assert 0 == result.exit_code, result.output
        return result.output

    def wait_for_epochs(self, count: int = 3) -> None:
        def is_there() -> bool:
            return any(len(path.read_text().splitlines()) >= count for path in self.begun.glob("*/metrics.jsonl"))

        eventually(is_there)

    def runs(self) -> list[Run]:
        client = MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        experiment = client.get_experiment_by_name("long")
        return client.search_runs([experiment.experiment_id], "tags.`ablation.kind` = 'run'")

    def check(self, undisturbed: Mapping[str, Mapping[str, float]]) -> None:
        """See that every run is finished once, each epoch once, to the undisturbed numbers, and nothing is left."""
        runs = self.runs()
        client = MlflowClient(self.environment["MLFLOW_TRACKING_URI"])
        found = {run.info.run_name: {name: run.data.metrics[name] for name in KEPT} for run in runs}
        steps = [[entry.step for entry in client.get_metric_history(run.info.run_id, "train_loss")] for run in runs]

        assert ["FINISHED"] * 4 == [run.info.status for run in runs]
        assert undisturbed == found
        assert [list(range(1, EPOCHS + 1))] * 4 == steps
        assert [] == list((self.folder / "state" / "begun").glob("*/*"))
        assert [] == list((self.folder / "state" / "runs").glob("*/checkpoints"))


@pytest.fixture
def place(tmp_path: Path, data_cache: Path, empty_store: Path, starter: Starter) -> Place:
    return Place(tmp_path, data_cache, empty_store, starter)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Mapping[str, Mapping[str, float]]:
    """The numbers that the runs come to where nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command_environment(folder, data_cache)
    overrides = [parse_override(text) for text in ("seeds=1", f"training.epochs={EPOCHS}")]
    study: Study = load_study(folder / "tiny.yaml", overrides=overrides, name="long")
    (folder / "bench").mkdir()
    bench = Bench(folder / "bench", data_cache)
    with pytest.MonkeyPatch.context() as patch:
        answer_alone(patch)
        assert {Outcome.DONE: 4} == bench.run(study).ended
    return bench.metrics(study)


def test_a_study_started_twice_is_run_once_and_ends_in_good_order_when_asked(place: Place) -> None:
    starts = [place.study(), place.study()]
    eventually(lambda: any(start.poll() is not None for start in starts))
    first, second = sorted(starts, key=lambda start: start.poll() is not None)
    refused = second.communicate()[1]
    assert 2 == second.returncode, refused
    assert f"is being run by process {first.pid} on " in refused
    assert "ablation status long" in refused
    place.wait_for_epochs()
    children = psutil.Process(first.pid).children(recursive=True)  # one tidies up after the others have ended

    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)

    assert 128 + signal.SIGTERM == first.returncode, errors
    assert "Resume with the same command" in errors
    assert "Traceback" not in errors
    eventually(lambda: not any(_is_there(child) for child in children))
    status = place.command("status", "long")
    assert "long: killed; " in status
    assert {"KILLED", "FINISHED"} >= {run.info.status for run in place.runs()}


def test_another_container_is_refused_and_who_was_replaced_while_suspended_stops(
    place: Place, data_cache: Path
) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a PID namespace of its own needs root and unshare")
    container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m", "ablation")
    there = place.folder / "there"
    there.mkdir()
    (there / "data").symlink_to(data_cache)
    first = place.study()
    place.wait_for_epochs()
    workers = psutil.Process(first.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()  # so that the study does not end before it was looked at

    for command in (("study", "tiny.yaml", *LONG), ("sync", "long")):
        refused = subprocess.run(
            [*container, *command, "--state-dir", str(there)],
            env=place.environment,
            cwd=place.folder,
            capture_output=True,
            text=True,
        )
        assert 2 == refused.returncode, refused.stderr
        assert f"is being run by process {first.pid} on " in refused.stderr
        assert "with another state folder" in refused.stderr
    assert "long: running; " in place.command("status", "long")

    client = MlflowClient(place.environment["MLFLOW_TRACKING_URI"])
    record = open_mlflow(place.environment["MLFLOW_TRACKING_URI"]).find_study("long")
    assert record is not None
    theirs = replace(
        this_process(nonce="theirs"), host="elsewhere", pid=7, boot="another", seen_ms=time.time_ns() // 10**6
    )
    first.send_signal(signal.SIGSTOP)
    for worker in workers:
        worker.resume()
    client.set_tag(record.study_run_id, "ablation.holder", theirs.to_json())
    before = {run.info.run_id: run.info.status for run in place.runs()}
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate(timeout=120)

    assert 2 == first.returncode, errors
    assert "was taken over by process 7 on elsewhere" in errors
    assert "Traceback" not in errors
    assert before == {run.info.run_id: run.info.status for run in place.runs()}
    study_run = client.get_run(record.study_run_id)
    assert ("RUNNING", theirs.to_json()) == (study_run.info.status, study_run.data.tags["ablation.holder"])


def test_a_second_signal_ends_at_once_and_a_full_disk_in_a_sentence_and_both_cost_nothing(
    place: Place, undisturbed: Mapping[str, Mapping[str, float]]
) -> None:
    first = place.study()
    place.wait_for_epochs()
    workers = psutil.Process(first.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()  # so that none comes to the end of its epoch, and one signal alone ends nothing
    first.send_signal(signal.SIGINT)
    line_with(first, "Once more ends at once")
    time.sleep(1.2)  # within a second they are one
    first.send_signal(signal.SIGINT)
    assert 128 + signal.SIGINT == first.wait(timeout=30)
    for worker in workers:
        worker.resume()
    assert "Traceback" not in first.communicate()[1]
    eventually(lambda: not any(_is_there(worker) for worker in workers))

    begun = time.time()
    full = place.study()
    eventually(lambda: any(path.stat().st_mtime > begun for path in place.begun.glob("*/metrics.jsonl")))
    for worker in psutil.Process(full.pid).children(recursive=True):
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
    _, errors = full.communicate(timeout=200)
    assert 2 == full.returncode, errors
    assert "Traceback" not in errors
    assert "File too large" in errors

    again = place.study()
    _, errors = again.communicate(timeout=200)
    assert 0 == again.returncode, errors
    place.check(undisturbed)


def test_a_study_outlives_its_server_and_is_recorded_afterwards(
    place: Place, undisturbed: Mapping[str, Mapping[str, float]]
) -> None:
    with forked_server(place.folder, place.starter) as address:
        place.environment["MLFLOW_TRACKING_URI"] = address
        study = place.study()
        place.wait_for_epochs(1)
    output, errors = study.communicate(timeout=200)

    assert 2 == study.returncode, output + errors
    assert "Training goes on" in errors
    assert "Traceback" not in errors
    assert "ablation sync long` records what is left" in errors
    left = len(list(place.begun.glob("*/result.json")))
    assert 1 <= left <= 4  # some may have been recorded while the server ended
    with forked_server(place.folder, place.starter, port=int(address.rpartition(":")[2])):
        assert f"{left} ended, not yet recorded in MLflow" in place.command("status", "long")
        assert f"long: {left} runs recorded, 0 to do" in place.command("sync")
        place.check(undisturbed)
        assert "long: finished; 4 done" in place.command("status", "long")


def test_an_answer_that_is_lost_makes_no_second_run(server: str) -> None:
    plan = make_plan(seeds=1)
    with losing_answers(server, to="/runs/create", count=2) as (address, lost):
        tracker = open_mlflow(address)
        record = persistently(partial(tracker.open_study, plan))
        for planned in plan.runs:
            persistently(partial(tracker.start_run, record, planned, {"device": "cpu"}, attempt="first"))

    assert 2 == len(lost)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("quick")
    names = [run.info.run_name for run in client.search_runs([experiment.experiment_id])]
    assert sorted(["quick", *(planned.name for planned in plan.runs)]) == sorted(names)


T = TypeVar("T")


def persistently(call: Callable[[], T]) -> T:
    """Call again what failed, as an upload does."""
    while True:
        try:
            return call()
        except TrackingUnavailable:
            continue


@contextmanager
def losing_answers(server: str, *, to: str, count: int) -> Iterator[tuple[str, list[str]]]:
    """Pass requests on to a server, and drop every second answer to some of them, so many in all."""
    host = server.removeprefix("http://")
    seen: list[str] = []
    lost: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            with closing(http.client.HTTPConnection(host)) as connection:
                connection.request(self.command, self.path, body, kept)
                answer = connection.getresponse()
                content = answer.read()
            seen.extend([self.path] if to in self.path else [])
            if to in self.path and len(seen) % 2 and len(lost) < count:
                lost.append(self.path)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815 - the base class's names

        def log_message(self, *args: Any) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", lost
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()


def line_with(process: Forked, words: str) -> str:
    """Return the line of a process's errors that has these words."""
    assert process.stderr is not None
    seen = []
    while line := process.stderr.readline():
        seen.append(line)
        if words in line:
            return line
    raise AssertionError("".join(seen))


def _is_there(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
