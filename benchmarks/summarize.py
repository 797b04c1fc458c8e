"""Times `ablation summarize` on a store of many runs: seconds, CPU seconds and peak memory of the whole command.

    python -m benchmarks.summarize --output benchmarks/results

It needs the project's requirements, no data, and is run from the repository's root. Nothing is trained: the runs are
recorded through the tracker, as an execution records them, with made-up numbers; each has its metrics, its curves over
the epochs as metrics and as `curves.csv`, and an `evaluation.json` of 10 classes and 10,000 test images. That takes up
to a second a run; `--store` names a folder that keeps the store and is taken as it is the next time.

`--server` reads the same store through `mlflow server` with one worker, which also hands out the artifacts. Beside the
command, whose time includes the imports, the parts of its work are timed in a process of their own: read, analyse,
write.
"""

import argparse
import contextlib
import csv
import json
import math
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil

from ablation.analysis import analyse
from ablation.coordinator.planning import plan_of
from ablation.provenance import LIBRARIES, provenance
from ablation.records import (
    EVALUATION_FILE,
    DataFacts,
    DataShape,
    EpochMetrics,
    Outcome,
    Plan,
    PlannedRun,
    RunEvaluation,
    RunResult,
    epoch_metrics,
)
from ablation.report import write_report
from ablation.storage.databases import sqlite_address
from ablation.study import parse_study
from ablation.tracking import RunDescription, RunNews, open_mlflow
from benchmarks.machine import environment, write_record

STUDY = "many-runs"
CLASSES = tuple(f"class {index}" for index in range(10))
TEST_IMAGES = 10_000
DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
SERVER_START_S = 300


def main() -> None:
    options = parse_options()
    if options.parts is not None:
        print(json.dumps(timed_parts(options.parts)))
        return
    plan = make_plan(variants=options.variants, seeds=options.seeds, epochs=options.epochs)
    with contextlib.ExitStack() as stack:
        folder = options.store or Path(stack.enter_context(TemporaryDirectory()))
        folder = folder.resolve()
        inserting_s = fill(folder, plan, epochs=options.epochs)
        uri = sqlite_address(folder / DATABASE)
        if options.server:
            uri = stack.enter_context(served(folder))
        turns = [timed_command(uri) for _ in range(options.turns)]
        parts = [run_parts(uri) for _ in range(options.turns)]
    result = {"runs": len(plan.runs), "inserting_s": inserting_s, "command": turns, "parts": parts}
    print_result(result)
    if options.output is not None:
        where = environment(options, libraries=(*LIBRARIES, "matplotlib", "scipy", "sqlalchemy"))
        kind = "server" if options.server else "sqlite"
        write_record(options.output, {"environment": where, "result": result}, name="summarize", kind=kind)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=4, help="variants: a square number, two factors as many levels")
    parser.add_argument("--seeds", type=int, default=250, help="runs of each variant")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each run")
    parser.add_argument("--turns", type=int, default=3, help="how often everything is timed")
    parser.add_argument("--server", action="store_true", help="read through `mlflow server`")
    parser.add_argument("--store", type=Path, help="folder that keeps the store; one that has runs is taken as it is")
    parser.add_argument("--output", type=Path, help="folder of the dated result file")
    parser.add_argument("--parts", help=argparse.SUPPRESS)  # the process that times the parts is called with it
    return parser.parse_args()


def make_plan(*, variants: int, seeds: int, epochs: int) -> Plan:
    """Plan a factorial study of two factors; `variants` is a square number of at most 10,000."""
    side = math.isqrt(variants)
    if side * side != variants or side < 2:
        raise SystemExit(f"--variants must be a square number from 4 on, not {variants}")
    factors = {
        "training.weight_decay": [round(0.001 * level, 3) for level in range(side)],
        "model.dropout": [round(0.9 * level / side, 3) for level in range(side)],
    }
    document = {
        "name": STUDY,
        "data": {"name": "digits", "validation": "none"},
        "model": {"name": "cnn"},
        "training": {"epochs": epochs},
        "factors": factors,
        "seeds": seeds,
    }
    study = parse_study(json.dumps(document).encode(), source="the benchmark's study")
    data = DataFacts(
        name="made-up",
        digest="0" * 64,
        shape=DataShape(channels=3, height=32, width=32, classes=CLASSES),
        train_images=50_000,
        test_images=TEST_IMAGES,
        largest_class_share=0.1,
    )
    return plan_of(study, data=data)


def fill(folder: Path, plan: Plan, *, epochs: int) -> float | None:
    """Record every run of the plan in a store in the folder; return the seconds, None where a store is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DATABASE).exists():
        return None
    begun = time.perf_counter()
    where_from = provenance("cpu")
    with contextlib.chdir(folder), TemporaryDirectory() as artifacts:
        tracker = open_mlflow(sqlite_address(folder / DATABASE))
        record = tracker.open_study(plan)
        for done, planned in enumerate(plan.runs, start=1):
            curves, result, evaluation = made_up_run(planned, epochs=epochs)
            write_artifacts(Path(artifacts), curves, evaluation)
            run_id = tracker.start_run(record, planned, where_from, attempt="made up")
            tracker.log_run(run_id, RunNews(description=RunDescription.of(planned, plan)))
            tracker.log_run(run_id, RunNews(epochs=curves, heldout_split=plan.heldout_split))
            tracker.finish_run(run_id, result, Path(artifacts))
            if done % 100 == 0:
                print(f"{done} runs recorded in {time.perf_counter() - begun:.0f} s", flush=True)
        tracker.close_study(record, "FINISHED")
    return time.perf_counter() - begun


def made_up_run(planned: PlannedRun, *, epochs: int) -> tuple[list[EpochMetrics], RunResult, RunEvaluation]:
    """Make the numbers of a run up, the same at every call."""
    generator = np.random.default_rng(int(planned.identity[-12:], 16))
    accuracy = 0.7 + 0.01 * generator.standard_normal()
    curves = [made_up_epoch(epoch, accuracy, generator) for epoch in range(1, epochs + 1)]
    truth = np.arange(TEST_IMAGES) % len(CLASSES)
    is_right = generator.random(TEST_IMAGES) < accuracy
    answers = np.where(is_right, truth, (truth + generator.integers(1, len(CLASSES), TEST_IMAGES)) % len(CLASSES))
    counts = np.zeros((len(CLASSES), len(CLASSES)), dtype=int)
    np.add.at(counts, (truth, answers), 1)
    confusion = {split: tuple(tuple(map(int, row)) for row in counts) for split in ("train", "test")}
    loss, train_loss = 1.0 + 0.01 * generator.random(), 0.5 + 0.01 * generator.random()
    metrics = {
        "test_accuracy": float(is_right.mean()),
        "test_loss": loss,
        "test_brier_score": 0.4 + 0.01 * generator.random(),
        "learning_curve_area": float(np.mean([epoch.heldout_accuracy for epoch in curves])),
        "final_train_accuracy": 0.85 + 0.01 * generator.random(),
        "final_train_loss": train_loss,
        "generalization_gap": loss - train_loss,
        "training_seconds": 100 + generator.random(),
        "total_seconds": 110 + generator.random(),
        "peak_memory_mib": 800 + generator.random(),
    }
    result = RunResult(identity=planned.identity, outcome=Outcome.DONE, metrics=metrics, epochs=epochs)
    correct = "".join("01"[right] for right in is_right.tolist())
    return curves, result, RunEvaluation(confusion=confusion, test_correct=correct)


def made_up_epoch(epoch: int, accuracy: float, generator: np.random.Generator) -> EpochMetrics:
    rise = 1 - 0.8**epoch + 0.01 * generator.random()
    return EpochMetrics(
        epoch=epoch,
        train_loss=2.3 - 1.7 * rise,
        train_accuracy=0.1 + 0.7 * rise,
        sample_loss=2.2 - 1.7 * rise,
        sample_accuracy=0.12 + 0.7 * rise,
        heldout_loss=2.3 - 1.3 * rise,
        heldout_accuracy=0.1 + (accuracy - 0.1) * rise,
        learning_rate=1e-3,
        seconds=5 + generator.random(),
        images_per_second=10_000 + generator.random(),
        timestamp_ms=1_700_000_000_000 + 5_000 * epoch,
    )


def write_artifacts(folder: Path, curves: Sequence[EpochMetrics], evaluation: RunEvaluation) -> None:
    rows = [{"epoch": epoch.epoch, **epoch_metrics(epoch, heldout_split="test")} for epoch in curves]
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / EVALUATION_FILE).write_text(json.dumps(evaluation.to_json()))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a copy of the store's database, in which the artifacts are the server's to hand out."""
    database = folder / "served.db"
    database.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as source:
        source.execute("VACUUM INTO ?", (str(database),))
    with contextlib.closing(sqlite3.connect(database)) as copy, copy:
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            sql = f"UPDATE {table} SET {column} = 'mlflow-artifacts:' || substr({column}, ?) WHERE {column} LIKE ?"
            root = str(folder / ARTIFACTS)
            copy.execute(sql, (len(root) + 1, f"{root}/%"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_address(database), "--artifacts-destination", str(folder / ARTIFACTS)]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        uri = f"http://127.0.0.1:{port}"
        wait_for(f"{uri}/health")
        yield uri
    finally:
        processes = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
        for process in processes:
            process.terminate()
        psutil.wait_procs(processes, timeout=10)


def wait_for(address: str) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def timed_command(uri: str) -> dict[str, float]:
    """Run the command and return its wall and CPU seconds and its peak resident memory in MiB."""
    with TemporaryDirectory() as report:
        command = [sys.executable, "-m", "ablation", "summarize", STUDY, "--tracking-uri", uri, "--output", report]
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall_s = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"the command ended with status {process.returncode}")
    unit = 1024**2 if sys.platform == "darwin" else 1024  # of ru_maxrss: bytes on a Mac, else KiB
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_rss_mib": usage.ru_maxrss / unit}


def run_parts(uri: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.summarize", "--parts", uri]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def timed_parts(uri: str) -> dict[str, float]:
    """Do what the command does step by step, in this process, and return each step's wall seconds."""
    tracker = open_mlflow(uri)
    moments = [time.perf_counter()]
    record = tracker.find_study(STUDY)
    assert record is not None, "the store has no study of the benchmark's"
    moments.append(time.perf_counter())
    runs = tracker.recorded_runs(record)
    moments.append(time.perf_counter())
    tracker.left_out(record)
    moments.append(time.perf_counter())
    analysis = analyse(record.plan, runs)
    moments.append(time.perf_counter())
    with TemporaryDirectory() as folder:
        write_report(analysis, Path(folder))
    moments.append(time.perf_counter())
    names = ("find_s", "read_s", "left_out_s", "analyse_s", "write_s")
    return dict(zip(names, np.diff(moments).tolist(), strict=True))


def print_result(result: Mapping[str, Any]) -> None:
    print(f"\n{result['runs']} runs")
    print(f"{'':<14}{'median':>9}{'lowest':>9}{'highest':>9}")
    for turns in (result["command"], result["parts"]):
        for name in turns[0]:
            values = [turn[name] for turn in turns]
            print(f"{name:<14}{statistics.median(values):>9.2f}{min(values):>9.2f}{max(values):>9.2f}")


if __name__ == "__main__":
    main()
