"""What a process leaves that is killed between two steps is put right by the next one."""

import shutil
from pathlib import Path

import pytest
from bench import Bench

from ablation.records import Outcome, RunResult
from ablation.storage.state import State
from ablation.study import Study


@pytest.mark.slow
def test_a_failed_runs_later_result_that_was_not_recorded_is_recorded(bench: Bench, tiny: Study) -> None:
    record = bench.run(tiny).record
    run = record.plan.runs[0]
    folder = bench.state.begun("tiny", run.identity)
    folder.path.parent.mkdir(parents=True)
    (bench.state.folder / "runs" / run.identity).rename(folder.path)
    failed = RunResult(identity=run.identity, outcome=Outcome.FAILED, metrics={}, epochs=0, error="no")
    bench.tracker.finish_run(bench.tracker.start_run(record, run, {}, attempt="first"), failed, None)

    again = bench.run(tiny)

    assert [] == bench.trained
    assert {Outcome.DONE: 8} == again.ended
    assert () == bench.state.begun_studies()


def test_a_study_whose_last_folder_is_kept_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "begun" / "tiny").mkdir(parents=True)

    assert () == State(folder=tmp_path).begun_studies()


@pytest.mark.slow
def test_what_was_being_written_is_swept_when_a_run_is_begun_again(bench: Bench, tiny: Study) -> None:
    outcome = bench.run(tiny)
    identity = outcome.record.plan.runs[0].identity
    bench.tracker = type(bench.tracker)()
    shutil.rmtree(bench.state.folder / "runs")
    folder = bench.state.begun("tiny", identity)
    folder.checkpoints.mkdir(parents=True)
    left = [folder.path / ".unfinished-result.json.7", folder.checkpoints / ".unfinished-epoch-000001.pt.7"]
    for path in left:
        path.write_bytes(b"{")

    again = bench.run(tiny)

    assert {Outcome.DONE: 8} == again.ended
    assert [] == list((bench.state.folder / "runs").rglob(".*"))
