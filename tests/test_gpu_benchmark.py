"""The benchmark of a GPU: parts of which one that hangs costs itself alone, and goals that say what is not known."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.apart import Answer, run_apart
from benchmarks.gpu_case import TRIED
from benchmarks.gpu_convolutions import benchmarked, convolutions
from benchmarks.gpu_device import Rates
from benchmarks.gpu_goals import Verdict, judge
from benchmarks.gpu_parts import PARTS, chosen_parts
from benchmarks.gpu_training import FusedTimes, Gradients, LoaderTimes, SoloTimes, StepTraffic

ROOT = Path(__file__).parents[1]


def test_what_ends_gives_its_value() -> None:
    answer = run_apart(lambda: os.getpid(), limit_s=60)

    assert answer.error is None
    assert isinstance(answer.value, int)
    assert os.getpid() != answer.value


def test_what_raises_says_so_in_a_line_and_where_beside() -> None:
    def failing() -> None:
        raise ValueError("of no use\nand more of it")

    answer = run_apart(failing, limit_s=60)

    assert "ValueError: of no use" == answer.error
    assert "in failing" in answer.said


@pytest.mark.slow
def test_what_hangs_is_ended_at_its_limit_and_says_where_it_hung() -> None:
    def hanging() -> None:
        signal.pause()

    answer = run_apart(hanging, limit_s=5)

    assert "it did not end within 5 s" == answer.error
    assert "in hanging" in answer.said
    assert answer.seconds < 20


def test_what_dies_says_of_what() -> None:
    answer = run_apart(lambda: os.kill(os.getpid(), signal.SIGSEGV), limit_s=60)

    assert "its process ended with exit code -11 and no answer" == answer.error
    assert "Segmentation fault" in answer.said


def test_what_a_part_has_started_is_ended_with_it() -> None:
    answer = run_apart(lambda: subprocess.Popen(["sleep", "600"]).pid, limit_s=60)

    assert isinstance(answer.value, int)
    status = Path(f"/proc/{answer.value}/stat")
    deadline = time.monotonic() + 30
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline


def test_parts_are_chosen_by_name_or_by_the_name_of_several() -> None:
    chosen = [part.name for part in chosen_parts(["fused-bf16", "solo"])]

    assert ["solo-bf16", "solo-tf32", "solo-fp32", "fused-bf16"] == chosen
    assert PARTS == chosen_parts([])


def test_a_part_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(SystemExit, match="no part is called 'fused-fp64'; there are rates, gradients, "):
        chosen_parts(["rates", "fused-fp64"])


def test_all_parts_together_may_take_less_than_ten_minutes() -> None:
    assert sum(part.limit_s for part in PARTS) < 600


def test_algorithms_that_cudnn_timed_are_measured_in_a_part_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    chosen = convolutions(torch.device("cpu"), TRIED, precision="fp32")
    timed = benchmarked(torch.device("cpu"), TRIED, precision="fp32")

    assert {False} == {one.is_benchmarked for one in chosen}
    assert {("grouped", "nhwc", True), ("grouped", "nchw", True)} == {
        (one.way, one.layout, one.is_benchmarked) for one in timed
    }
    assert [] == [one.error for one in (*chosen, *timed) if one.error]


def answered(value: object) -> Answer:
    return Answer(value=value, error=None, said="", seconds=1.0)


def fused(seconds: float) -> Answer:
    few, many = (
        FusedTimes(
            runs=runs,
            step_seconds={"grouped": own, "streams": 2 * own},
            errors={},
            fastest="grouped",
            epoch_seconds_per_step=(own,),
            peak_gib=1.0,
        )
        for runs, own in ((8, 1.0), (32, seconds))
    )
    return answered((few, many))


def verdicts(**changes: Answer | None) -> dict[str, Verdict]:
    """Return the verdicts by goal: a run's step takes 1 ms as a graph, 3 eagerly and 20 in the conventional loop."""
    rates = Rates(card="one", copy_bytes_per_second=1e9, flop_per_second={})
    counted = StepTraffic(precision="bf16", backend="grouped", runs=32, kernels=1, bytes=2_000_000, copies=0)
    answers = {
        "rates": answered(rates),
        "gradients": answered(Gradients(fused={"grouped": 1e-6, "matmul": 1e-3}, graph_loss=1e-5)),
        "traffic": answered((counted,)),
        **{f"solo-{one}": answered(SoloTimes(eager=(0.003,), graph=(0.001,))) for one in ("fp32", "tf32", "bf16")},
        **{
            f"conventional-{one}": answered(LoaderTimes(seconds_per_step=(0.02,), workers=1))
            for one in ("tf32", "bf16")
        },
        "fused-tf32": fused(0.008),
        "fused-bf16": fused(0.005),
        **{name.replace("_", "-"): answer for name, answer in changes.items()},
    }
    found = judge({name: answer for name, answer in answers.items() if answer is not None})
    return {verdict.goal: verdict for verdict in found}


def test_a_goal_that_one_precision_must_reach_is_met_by_one() -> None:
    verdict = verdicts()["fused / graph"]

    assert "met" == verdict.verdict
    assert {"tf32": 4.0, "bf16": pytest.approx(6.4)} == verdict.figures
    assert "met           fused / graph (≥ 6, in one): tf32 4, bf16 6.4" == str(verdict)


def test_a_goal_that_each_must_reach_is_missed_by_one() -> None:
    verdict = verdicts()["relative error of a fused run's first gradient, fp32"]

    assert "missed" == verdict.verdict


@pytest.mark.parametrize(
    ("tf32", "verdict"),
    [(0.008, "not measured"), (0.005, "met")],
    ids=["what is there falls short", "what is there reaches it"],
)
def test_what_is_missing_counts_where_it_could_change_the_verdict(tf32: float, verdict: str) -> None:
    hung = Answer(value=None, error="it did not end within 40 s", said="", seconds=40.0)

    found = verdicts(fused_tf32=fused(tf32), fused_bf16=hung)["fused / graph"]

    assert verdict == found.verdict
    assert {"bf16": "part fused-bf16 failed: it did not end within 40 s"} == found.missing


def test_what_was_not_run_is_not_measured() -> None:
    found = verdicts(solo_fp32=None)["graph / eager"]

    assert "not measured" == found.verdict
    assert {"fp32": "part solo-fp32 was not run"} == found.missing


def test_a_step_is_compared_with_the_bytes_of_the_backend_that_was_fastest() -> None:
    verdict = verdicts()["a fused step / time to move its bytes"]

    assert {"bf16": 2.5} == verdict.figures  # 5 ms, and 2 MB at 1 GB a second
    assert "met" == verdict.verdict


def benchmark(folder: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--output", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (written,) = folder.glob("gpu-*.json")
    return done.returncode, done.stdout, json.loads(written.read_text())


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="its parts end well where there is a GPU")
def test_the_file_is_written_where_every_part_fails(tmp_path: Path) -> None:
    status, printed, record = benchmark(tmp_path, "--try", "--parts", "rates,replays")

    assert 1 == status
    assert ["rates", "replays"] == list(record["parts"])
    assert all(part["error"] and "Traceback" in part["said"] for part in record["parts"].values())
    assert {"not measured"} == {goal["verdict"] for goal in record["goals"]}
    assert "not measured  a fused step / time to move its bytes (≤ 3): part fused-bf16 was not run" in printed


ASKING = """
import os, sys, torch
here, asked = os.getpid(), []
def asking(name):
    return lambda *args: asked.append(name) if os.getpid() == here else 0
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    setattr(torch._C, name, asking(name))
sys.argv = ["gpu", "--try", "--parts", "rates"]
from benchmarks.gpu import main
main()
print("asked:", *asked)
"""


@pytest.mark.slow
def test_the_process_that_forks_asks_nothing_of_a_gpu() -> None:
    """Those that it starts could not use one then."""
    done = subprocess.run([sys.executable, "-c", ASKING], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "asked:" == done.stdout.splitlines()[-1]


def check_all_ended_well(status: int, record: dict[str, Any]) -> None:
    assert {} == {name: part for name, part in record["parts"].items() if "error" in part}
    found = [one for part in record["parts"].values() if isinstance(part["found"], list) for one in part["found"]]
    assert [] == [one for one in found if one.get("error") or one.get("errors")]
    assert 0 == status


@pytest.mark.slow
def test_parts_end_well_on_a_cpu(tmp_path: Path) -> None:
    names = "conventional-bf16,traffic,evaluation"

    status, _, record = benchmark(tmp_path, "--device", "cpu", "--parts", names)

    check_all_ended_well(status, record)
    assert 3 == len(record["parts"])


@pytest.mark.slow
def test_parts_end_well_on_a_simulated_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tests" / "simulated_gpu")
    from simulated_gpu import why_not

    if (why := why_not()) is not None:
        pytest.skip(why)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "simulated_gpu"))
    names = "rates,failed-capture,convolutions-tf32,solo-tf32,fused-tf32"

    status, _, record = benchmark(tmp_path, "--try", "--parts", names)

    check_all_ended_well(status, record)
    assert 5 == len(record["parts"])
    assert "works" == record["parts"]["failed-capture"]["found"]["next_capture_after"]
