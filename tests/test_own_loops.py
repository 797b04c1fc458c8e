"""Loops of the user's own that are resumed: killed or asked to end, they come to what an undisturbed one comes to."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablation.code import CodeFolders
from ablation.records import Outcome, PlannedRun, RunResult, Settings
from ablation.stopping import Preempted, stopping
from ablation.storage.run_folder import RunFolder
from ablation.worker import checkpoints
from ablation.worker.own_checkpoints import StateUnfit, TriedStates, _read
from ablation.worker.own_training import Report
from ablation.worker.run import Job, run_jobs

LOOP = """
import os, random, signal
import numpy as np
import torch
from torch import nn


def train(epochs, report, kill_at=0, ask_at=0):
    from ablation.stopping import stopping
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters())
    own = np.random.default_rng(0)
    first, best = 0, np.float64(9.0)
    was_restored = report.restored is not None
    if was_restored:
        kept = report.restored
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        own.bit_generator.state = kept["own"]
        first, best = kept["epoch"], kept["best"]
    for epoch in range(first, epochs):
        inputs = torch.rand(8, 4) * random.random() + float(np.random.rand()) + own.random()
        loss = nn.functional.dropout(model(inputs), 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        best = min(best, np.float64(loss.item()))
        (report.folder / "last.txt").write_text(str(epoch + 1))
        if epoch + 1 == ask_at and not was_restored:
            stopping.ask(signal.SIGTERM)
        report(loss=loss.item())
        report.checkpoint({
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "own": own.bit_generator.state,
            "epoch": epoch + 1, "best": best, "history": np.arange(epoch),
        })
        if epoch + 1 == kill_at and not was_restored:
            report(loss=-1.0)  # lost with it
            os.kill(os.getpid(), signal.SIGKILL)
    weights = torch.cat([one.flatten() for one in model.parameters()]).double().sum().item()
    written = int((report.folder / "last.txt").read_text())
    return {"best": best, "weights": weights, "seed_index": report.seed_index, "written": written}


def reporting(epochs, report):
    for epoch in range(epochs):
        report(loss=1.0)
    return {"best": 0.0}


def unfit(report):
    report.checkpoint({"fine": 1, "inner": [torch.ones(2), nn.Linear(1, 1)]})
    return {}
"""


@pytest.fixture(autouse=True)
def _kept_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_asked", None)
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "MOST_SHARE", float("inf"))


Make = Callable[..., Job]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    (tmp_path / "loop.py").write_text(LOOP)

    def job(folder: str = "run", function: str = "train", **keys: Any) -> Job:
        training = {"name": f"loop.py:{function}", "threads": 1, **keys}
        (tmp_path / folder).mkdir(exist_ok=True)
        return Job(
            planned=PlannedRun(identity="a" * 32, variant="rate=1", seed=3),
            settings=Settings.from_plain({"training": training}),
            heldout_split="validation",
            data_folder=None,
            folder=RunFolder(path=tmp_path / folder),
            device="cpu",
            code=CodeFolders(folders=(tmp_path,)),
            study="loops",
        )

    return job


def run(job: Job) -> RunResult:
    (result,) = run_jobs([job])
    return result


def measured(result: RunResult) -> dict[str, float]:
    assert result.outcome is Outcome.DONE, result.error
    return {name: value for name, value in result.metrics.items() if "seconds" not in name and "memory" not in name}


def losses(folder: RunFolder) -> list[tuple[int, float]]:
    return [(epoch.epoch, epoch.metrics["loss"]) for epoch in folder.epochs()]  # type: ignore[union-attr]


def killed(job: Job) -> None:
    child = os.fork()
    if child == 0:
        run(job)
        os._exit(0)
    assert signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) * -1


def asked(job: Job) -> None:
    with pytest.raises(Preempted):
        run(job)
    stopping._asked = None


@pytest.mark.parametrize(("how", "keys"), [(killed, {"kill_at": 3}), (asked, {"ask_at": 3})], ids=["killed", "asked"])
def test_a_resumed_loop_comes_to_what_an_undisturbed_one_comes_to(
    how: Callable[[Job], None], keys: dict[str, int], make: Make
) -> None:
    undisturbed, disturbed = make("undisturbed", epochs=5), make(epochs=5, **keys)
    expected = measured(run(undisturbed))
    how(disturbed)
    attempt = disturbed.folder.attempt()
    assert [3, 2] == [number for number, _, _ in disturbed.folder.kept_checkpoints()]
    assert 3 == disturbed.folder.lasting_epochs()

    found = measured(run(disturbed))

    assert expected == found
    assert losses(undisturbed.folder) == losses(disturbed.folder)
    assert {"seed_index": 3.0, "written": 5.0}.items() <= found.items()
    assert attempt == disturbed.folder.attempt()
    assert () == tuple(disturbed.folder.kept_checkpoints())


def test_a_damaged_checkpoint_costs_what_came_after_the_one_before_and_that_is_said(make: Make) -> None:
    expected, job = measured(run(make("undisturbed", epochs=5))), make(epochs=5, kill_at=3)
    killed(job)
    latest, attempt = job.folder.kept_checkpoints()[0][2], job.folder.attempt()
    latest.write_bytes(latest.read_bytes()[:-40])

    result = run(job)

    assert expected == measured(result)
    assert (
        "its last checkpoint could not be restored (it is damaged); it resumed from the one before" in result.left_out
    )
    assert attempt != job.folder.attempt()  # the epochs that were recorded after it are another training's


@pytest.mark.parametrize(("torch_version", "said"), [(None, "it is damaged"), ("1.0", "it was kept with torch 1.0")])
def test_a_run_begins_anew_where_nothing_can_be_restored_and_that_is_said(
    torch_version: str | None, said: str, make: Make
) -> None:
    expected, job = measured(run(make("undisturbed", epochs=5))), make(epochs=5, kill_at=3)
    killed(job)
    for _, _, file in job.folder.kept_checkpoints():
        if torch_version is None:
            file.write_bytes(b"")
            continue
        content = _read(file)
        assert content is not None
        checkpoints.keep_checkpoint(job.folder, file, {**content, "torch": torch_version})
    (job.folder.path / "artifacts" / "files" / "last.txt").write_text("of before")

    result = run(make(epochs=5))

    assert expected == measured(result)
    assert [f"its checkpoint could not be restored ({said}); it began anew"] == list(result.left_out)
    assert [1, 2, 3, 4, 5] == [epoch.epoch for epoch in job.folder.epochs()]


def test_a_loop_that_keeps_no_checkpoint_leaves_at_the_next_report_and_begins_anew(make: Make) -> None:
    job = make(function="reporting", epochs=3)
    stopping.ask(signal.SIGTERM)
    with pytest.raises(Preempted):
        run(job)
    stopping._asked = None

    assert 1 == job.folder.lasting_epochs()
    run(job)
    assert [1, 2, 3] == [epoch.epoch for epoch in job.folder.epochs()]


def test_checkpoints_that_are_not_due_are_not_kept_but_the_first(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 1000.0)
    job = make(epochs=5, kill_at=5)
    killed(job)

    assert [1] == [number for number, _, _ in job.folder.kept_checkpoints()]
    assert 1 == job.folder.lasting_epochs()


def test_what_could_not_be_restored_is_refused_at_the_first_checkpoint(make: Make) -> None:
    result = run(make(function="unfit"))

    assert Outcome.FAILED is result.outcome
    assert result.error is not None
    assert "state['inner'][1] is Linear, which could not be restored; keep its state_dict()" in result.error


@pytest.mark.parametrize(
    "state",
    [
        *(1, {"a": [1.5, "x", b"y", None, True]}, (1, {2}), {"r": np.random.default_rng(1).bit_generator.state}, {}),
        *(np.ones((2, 0)), np.array(["a"]), {0: np.int64(3)}, random.getstate(), torch.ones(1).bfloat16()),
    ],
    ids=lambda state: type(state).__name__,
)
def test_plain_values_arrays_and_tensors_can_be_kept(state: Any, tmp_path: Path) -> None:
    Report(folder=tmp_path, on_epoch=print).checkpoint(state)


@pytest.mark.parametrize(
    ("state", "place"),
    [
        (None, "state is NoneType"),
        ({"a": {"b": range(3)}}, "state['a']['b'] is range"),
        ([1, lambda: 1], "state[1] is function"),
        ({"x": np.array([object()])}, "state['x'] is ndarray"),
        (torch.Generator(), "state is Generator"),
    ],
)
def test_what_cannot_be_read_without_running_code_is_named(state: Any, place: str) -> None:
    with pytest.raises(StateUnfit) as caught:
        TriedStates().keep(state, [])

    assert place in str(caught.value)
