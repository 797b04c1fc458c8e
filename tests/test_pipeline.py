"""The story of a study, with a tracker in memory and runs trained in this process in a fraction of a second each."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from conftest import TINY

from ablation import scheduling
from ablation.coordinator import conclusion, lease
from ablation.coordinator.conclusion import StudyOutcome
from ablation.errors import (
    DataInvalid,
    DiskFull,
    ModelInvalid,
    NoResults,
    StorageUnavailable,
    StudyChanged,
    StudyLocked,
    StudyNarrowed,
    StudyUnknown,
)
from ablation.executors import InlineExecutor
from ablation.pipeline import summarize_study
from ablation.preview import preview_study
from ablation.records import ModelSettings, Outcome, ReportedEpoch, RunResult
from ablation.report import write_report
from ablation.scheduling import default_storage
from ablation.storage.holder import Holder
from ablation.storage.locks import coordinating
from ablation.storage.run_folder import RunFolder
from ablation.storage.state import State
from ablation.study import Study, parse_override, parse_study
from ablation.tracking import MemoryTracker
from ablation.worker import setup

Run = Callable[..., StudyOutcome]


def changed(*overrides: str, name: str | None = None) -> Study:
    return parse_study(TINY, source="tiny.yaml", overrides=[parse_override(text) for text in overrides], name=name)


def test_every_planned_run_is_trained_once_and_reported(reporting_bench: Bench, tiny: Study) -> None:
    bench = reporting_bench
    outcome = bench.run(tiny)

    assert list(outcome.record.plan.runs) == bench.trained
    assert {Outcome.DONE: 8} == outcome.ended
    assert outcome.report is not None
    assert (outcome.report / "report.md").exists()
    assert "report.json" in bench.tracker.reports["tiny"]


def test_the_report_links_to_the_runs_that_the_tracker_knows_pages_of(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(bench.tracker, "run_address", lambda record, run_id: asked.append((record.plan.name, run_id)))

    def look_up(_analysis: object, folder: Path, *, address: Callable[[str], str | None]) -> None:
        folder.mkdir(parents=True)
        address("run-1")

    monkeypatch.setattr(conclusion, "write_report", look_up)
    bench.run(tiny)

    assert [("tiny", "run-1")] == asked


def test_the_study_is_finished_when_every_run_has_a_result(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    found = bench.tracker.find_study("tiny")
    assert found is not None
    assert "FINISHED" == found.status


def test_the_same_study_again_trains_nothing_and_reports(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    again = bench.run(tiny)

    assert [] == bench.trained
    assert {Outcome.DONE: 8} == again.ended


def test_more_seeds_train_only_what_is_new_and_are_a_deviation(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    outcome = bench.run(changed("seeds=3"))

    assert [2] * 4 == [run.seed for run in bench.trained]
    assert 2 == outcome.record.plan.locked.seeds
    assert ("seeds changed from 2 to 3, after 8 results could be seen",) == outcome.record.plan.deviations


def test_deviations_stay_in_later_executions(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    bench.run(changed("seeds=3"))

    outcome = bench.run(changed("seeds=3"))

    assert 1 == len(outcome.record.plan.deviations)
    assert 2 == outcome.record.plan.locked.seeds


def test_runs_that_a_study_has_results_of_may_not_be_left_out(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    for narrower in ("seeds=1", "factors.model.normalization=[none, layer]"):
        with pytest.raises(StudyNarrowed, match="may only grow"):
            bench.run(changed(narrower))


def test_an_interrupted_study_may_leave_out_seeds_that_nothing_was_trained_of(bench: Bench, tiny: Study) -> None:
    steps = bench.steps(tiny)
    next(progress for progress in steps if progress.latest is not None)
    steps.close()

    outcome = bench.run(changed("seeds=1"))

    assert {Outcome.DONE: 4} == outcome.ended
    assert "seeds changed from 2 to 1, after " in outcome.record.plan.deviations[0]


def test_an_impossible_subset_is_refused_before_anything_is_created(bench: Bench) -> None:
    with pytest.raises(DataInvalid, match=r"data\.limit"):
        bench.run(changed("data.limit=5", name="tiny"))

    assert () == bench.tracker.study_names()


def test_a_study_without_a_result_may_be_changed(bench: Bench, tiny: Study) -> None:
    steps = bench.steps(tiny)
    next(steps)
    steps.close()

    outcome = bench.run(changed("training.epochs=1", name="tiny"))

    assert {Outcome.DONE: 8} == outcome.ended


def test_seeds_changed_before_there_was_a_result_are_no_deviation(bench: Bench, tiny: Study) -> None:
    steps = bench.steps(tiny)
    next(steps)
    steps.close()

    outcome = bench.run(changed("seeds=1"))

    assert () == outcome.record.plan.deviations
    assert 1 == outcome.record.plan.locked.seeds


def test_a_level_may_be_added(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    outcome = bench.run(changed("factors.model.normalization=[none, batch, layer]"))

    assert {"normalization=layer"} == {run.variant.partition(",")[2] for run in bench.trained}
    assert 12 == sum(outcome.ended.values())
    assert "variants added" in outcome.record.plan.deviations[0]


@pytest.mark.slow
def test_an_added_factor_trains_only_what_is_new(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    outcome = bench.run(changed("factors.model.dropout=[0.0, 0.5]"))

    assert all("dropout=0.5" in name for name in outcome.record.plan.deviations[-1].partition(": ")[2].split("; "))
    assert {"dropout=0.5"} == {run.variant.rpartition(",")[2] for run in bench.trained}
    assert 8 == len(bench.trained)


@pytest.mark.slow
def test_a_changed_baseline_under_the_old_name_is_refused_with_the_difference(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    with pytest.raises(StudyChanged, match=r"training\.epochs: 2 -> 3"):
        bench.run(changed("training.epochs=3", name="tiny"))


@pytest.mark.slow
def test_an_override_of_the_fixed_part_is_a_study_of_its_own(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    outcome = bench.run(changed("training.epochs=1", "seeds=1"))

    assert "tiny+training.epochs=1" == outcome.record.plan.name
    assert 4 == len(bench.trained)


def test_an_interrupted_study_goes_on_to_the_numbers_of_an_undisturbed_one(
    bench: Bench, tiny: Study, tmp_path: Path, data_cache: Path
) -> None:
    steps = bench.steps(tiny)
    for _ in range(6):
        next(steps)
    steps.close()
    interrupted = bench.tracker.find_study("tiny")

    bench.run(tiny)

    undisturbed = Bench(tmp_path / "undisturbed", data_cache)
    undisturbed.run(tiny)
    assert interrupted is not None
    assert "KILLED" == interrupted.status
    assert 0 < len(bench.trained) < 8
    assert undisturbed.metrics(tiny) == bench.metrics(tiny)


def test_what_the_tracker_lost_is_recorded_again_from_the_run_folders(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    before = bench.metrics(tiny)
    bench.tracker = MemoryTracker()

    again = bench.run(tiny)

    assert [] == bench.trained
    assert before == bench.metrics(tiny)
    assert {"cpu"} == {run.device for run in bench.tracker.recorded_runs(again.record)}


def test_a_run_whose_folder_is_damaged_is_trained_again(bench: Bench, tiny: Study) -> None:
    outcome = bench.run(tiny)
    lost = outcome.record.plan.runs[3]
    (bench.state.folder / "runs" / lost.identity / "result.json").write_text("{")
    bench.tracker = MemoryTracker()

    bench.run(tiny)

    assert [lost] == bench.trained
    assert bench.state.finished("tiny", lost.identity) is not None


def test_a_run_that_was_finished_and_not_recorded_is_recorded_by_the_next_execution(bench: Bench, tiny: Study) -> None:
    outcome = bench.run(tiny)
    finished = outcome.record.plan.runs[3]
    bench.state.begun("tiny", "x").path.parent.mkdir(parents=True, exist_ok=True)
    (bench.state.folder / "runs" / finished.identity).rename(bench.state.begun("tiny", finished.identity).path)
    bench.tracker = MemoryTracker()

    bench.run(tiny)

    assert [] == bench.trained


def test_a_run_is_taken_from_another_study_that_trained_it(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)
    before = bench.metrics(tiny)

    other = changed(name="other")
    bench.run(other)

    assert [] == bench.trained
    assert before == bench.metrics(other)


@pytest.mark.slow
def test_two_studies_may_train_the_same_runs_at_the_same_time(bench: Bench, tiny: Study) -> None:
    one, other = bench.steps(tiny), bench.steps(changed(name="other"))
    outcomes = []
    while len(outcomes) < 2:
        for steps in (one, other):
            try:
                next(steps)
            except StopIteration as end:
                if end.value is not None:
                    outcomes.append(end.value)

    assert [{Outcome.DONE: 8}] * 2 == [outcome.ended for outcome in outcomes]
    assert [] == list((bench.state.folder / "begun").glob("*/*"))


def test_one_failing_run_fails_alone_and_is_trained_again_where_that_is_asked(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.executor = InlineExecutor(device="cpu")
    build = setup.build_model
    with monkeypatch.context() as patched:
        patched.setattr(setup, "build_model", _failing_on_depth_2_with_batch_norm(build))
        outcome = bench.run(tiny)
    failed = [run for run in bench.tracker.recorded_runs(outcome.record) if run.outcome is Outcome.FAILED]

    assert {Outcome.DONE: 6, Outcome.FAILED: 2} == outcome.ended
    assert {"depth=2,normalization=batch"} == {run.planned.variant for run in failed}
    assert "RuntimeError: no luck" in str(failed[0].error)
    found = bench.tracker.find_study("tiny")
    assert found is not None
    assert "FAILED" == found.status

    assert {Outcome.DONE: 6, Outcome.FAILED: 2} == bench.run(tiny).ended
    assert [] == bench.trained
    assert ["2 failed before; --retry-failed trains them again"] == bench.notes
    bench.retry_failed = True
    assert {Outcome.DONE: 8} == bench.run(tiny).ended
    assert 2 == len(bench.trained)


def test_a_diverged_run_is_a_result(bench: Bench) -> None:
    study = changed(
        "training.learning_rate=1e-3",
        "factors={training.learning_rate: [1e-3, 1000.0]}",
        "seeds=1",
        "training.optimizer=sgd",
    )

    outcome = bench.run(study)

    assert {Outcome.DONE: 1, Outcome.DIVERGED: 1} == outcome.ended
    assert [] == (bench.run(study), bench.trained)[1]


@pytest.mark.slow
def test_the_first_report_is_made_again_from_the_tracker_alone(
    reporting_bench: Bench, tiny: Study, tmp_path: Path
) -> None:
    bench = reporting_bench
    outcome = bench.run(tiny)
    assert outcome.report is not None

    _, analysis = summarize_study("tiny", tracker=bench.tracker)
    write_report(analysis, tmp_path / "again")

    assert _files(outcome.report) == _files(tmp_path / "again")


def test_an_unknown_study_is_named_with_the_near_names(bench: Bench, tiny: Study) -> None:
    bench.run(tiny)

    with pytest.raises(StudyUnknown, match="near it: tiny"):
        summarize_study("tinny", tracker=bench.tracker)


def test_a_study_without_results_has_nothing_to_report(bench: Bench, tiny: Study) -> None:
    steps = bench.steps(tiny)
    next(steps)
    steps.close()

    with pytest.raises(NoResults):
        summarize_study("tiny", tracker=bench.tracker)


def test_a_study_that_the_disk_has_no_room_for_is_refused_before_anything_is_created(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.state.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))

    with pytest.raises(DiskFull, match=r"needs about \d+\.\d MiB, and 1\.0 MiB are free"):
        bench.run(tiny)

    assert () == bench.tracker.study_names()


def test_a_second_coordinator_is_told_who_runs_the_study(bench: Bench, tiny: Study) -> None:
    url = default_storage(bench.state.folder)
    with (
        coordinating("tiny", storage_url=url, folder=bench.state.locks),
        pytest.raises(StudyLocked, match=r"process \d+ on .+ since"),
    ):
        bench.run(tiny)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "pid", "seen_s_ago", "is_refused"),
    [
        (socket.gethostname(), os.getppid(), 10, True),
        (socket.gethostname(), 2**22 + 1, 10, False),
        ("another", 1, 10, True),
        ("another", 1, 1000, False),
    ],
    ids=["alive here", "dead here", "seen elsewhere", "silent elsewhere"],
)
def test_another_state_folder_that_runs_the_study_in_the_same_store_keeps_others_out(
    bench: Bench,
    tiny: Study,
    host: str,
    pid: int,
    seen_s_ago: int,
    is_refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = bench.steps(tiny)
    next(steps)
    record = bench.tracker.find_study("tiny")
    assert record is not None
    seen_ms = int(1000 * (time.time() - seen_s_ago))
    steps.close()
    bench.tracker.open_study(record.plan)
    monkeypatch.setattr(lease, "WATCHED_S", 0.1)
    monkeypatch.setattr(lease, "LOOK_S", 0.05)
    bench.tracker.hold(
        record.study_run_id, Holder(host=host, pid=pid, since="today", place="elsewhere", seen_ms=seen_ms)
    )

    if is_refused:
        with pytest.raises(StudyLocked, match=f"process {pid} on {host} since today, with another state folder"):
            bench.run(tiny)
    else:
        assert {Outcome.DONE: 8} == bench.run(tiny).ended


def test_a_model_that_cannot_be_built_is_refused_before_anything_is_created(bench: Bench) -> None:
    with pytest.raises(ModelInvalid, match=r"@ model\.groups"):
        bench.run(changed("factors.model.normalization=[none, group]"))

    assert () == bench.tracker.study_names()


def test_a_preview_counts_runs_parameters_and_flops_and_writes_nothing(tiny: Study, tmp_path: Path) -> None:
    preview = preview_study(tiny, state=State(folder=tmp_path / "state"), device="cpu")

    assert 8 == preview.runs
    assert [variant.name for variant in tiny.variants] == [variant.name for variant in preview.variants]
    assert all(variant.size.parameters > 0 and variant.size.flops > 0 for variant in preview.variants)
    assert all(variant.seconds is not None and variant.seconds > 0 for variant in preview.variants)
    assert [] == list(tmp_path.iterdir())


def test_a_design_that_decides_nothing_is_warned_of_once_before_it_trains(bench: Bench) -> None:
    warned = "2 seeds, 2 questions: no difference would be found; below 5 seeds, fewer than 3 comparisons"

    bench.run(changed("seeds=2"))
    first = list(bench.notes)
    bench.run(changed("seeds=2"))

    assert [True] == [note.startswith(warned) for note in first]
    assert not any("questions" in note for note in bench.notes)


@pytest.mark.parametrize(
    ("seeds", "said", "time"),
    [
        ("5", "tiny: 4 variants × 5 seeds = 20 runs", "About 3 min of training"),
        (
            "{looks: [5, 8, 12]}",
            "tiny: 4 variants × 5 to 12 seeds (looks at 5, 8, 12) = 20 to 48 runs",
            "About 3 min to 8 min of training",
        ),
    ],
)
def test_a_preview_says_runs_and_time_from_the_first_look_to_the_last(
    seeds: str, said: str, time: str, tmp_path: Path
) -> None:
    shown = preview_study(changed(f"seeds={seeds}"), state=State(folder=tmp_path / "state"), device=None)
    timed = replace(shown, variants=tuple(replace(variant, seconds=10.0) for variant in shown.variants))

    assert said == timed.lines_above()[0]
    assert timed.lines_below()[0].startswith(f"{time}, one run after the other")
    assert timed.lines_below()[1:] == shown.lines_below()
    assert shown.lines_below()[0].startswith("Found with 80 % power")
    assert timed.runs * 10.0 == timed.seconds


def test_a_run_folder_without_a_whole_result_has_none(tmp_path: Path) -> None:
    folder = RunFolder(path=tmp_path / "run")
    folder.take_over({"host": "here"}, is_resumable=True)
    result = RunResult(identity="run", outcome=Outcome.DONE, metrics={"test_accuracy": 0.5}, epochs=1)

    assert folder.result() is None
    folder.finish(replace(result, outcome=Outcome.FAILED))
    assert folder.result() is None
    folder.finish(result)
    assert result == folder.result()


@pytest.mark.parametrize("length", [1, 100, 10_000])
@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("rest", ["", '{"epoch": 99, "metr'])
def test_the_latest_epoch_is_the_last_of_all_epochs(tmp_path: Path, length: int, count: int, rest: str) -> None:
    folder = RunFolder(path=tmp_path)
    for epoch in range(1, count + 1):
        folder.append_epoch(ReportedEpoch(epoch=epoch, metrics={"m" * length: 0.5}, timestamp_ms=1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)

    assert [*folder.epochs()][-1:] == [epoch for epoch in [folder.latest_epoch()] if epoch is not None]


def test_a_run_that_has_not_begun_has_no_epoch(tmp_path: Path) -> None:
    assert RunFolder(path=tmp_path / "run").latest_epoch() is None


def _failing_on_depth_2_with_batch_norm(build: Any) -> Any:
    def failing(settings: ModelSettings, shape: Any, **keywords: Any) -> Any:
        if settings.arguments["depth"] == 2 and settings.arguments["normalization"] == "batch":
            raise RuntimeError("no luck")
        return build(settings, shape, **keywords)

    return failing


def _files(folder: Path) -> Sequence[tuple[str, bytes]]:
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_a_finished_study_stays_so_where_a_start_trains_nothing(
    bench: Bench, tiny: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.run(tiny)

    def failing(*_: object, **__: object) -> None:
        raise StorageUnavailable("sqlite:///optuna.db", "disk I/O error")

    monkeypatch.setattr(scheduling, "open_schedule", failing)

    with pytest.raises(StorageUnavailable):
        bench.run(tiny)

    record = bench.tracker.find_study("tiny")
    assert record is not None
    assert "FINISHED" == record.status
