"""What every tracker promises: what was recorded is given back, and recording it again changes nothing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from ablation.records import (
    MODEL_FILE,
    TASKS,
    AnswerSummary,
    EpochMetrics,
    Outcome,
    OutOfBudget,
    RunResult,
    Spending,
)
from ablation.storage.holder import Holder
from ablation.testing.plans import TEST_IMAGES, make_plan
from ablation.tracking import RunDescription, RunNews, StudyRecord, Tracker

PROVENANCE = {
    "device": "cpu",
    "host": "here",
    "git_commit": "abc+changes",
    "torch_version": "2.15.0",
    "python_version": "3.11.7",
    "version": "1.0",
}
MATRIX = tuple(tuple(10 if true == guess else 1 for guess in range(4)) for true in range(4))
EVALUATION = {"confusion": {"train": MATRIX, "test": MATRIX}, "test_correct": "1" * TEST_IMAGES}


class TrackerContract:
    """The rules of a tracker. Inherit it, and override the fixture `tracker`, `report_files` and `answers_of`."""

    @pytest.fixture
    def tracker(self) -> Tracker:
        """Return a tracker that remembers nothing yet."""
        raise NotImplementedError("override the fixture `tracker`")

    def report_files(self, tracker: Tracker, record: StudyRecord) -> list[str]:
        """Return the names of the files that `log_report` kept with a study."""
        raise NotImplementedError("override `report_files`")

    def answers_of(self, tracker: Tracker, record: StudyRecord) -> Mapping[str, tuple[str, float | None]]:
        """Return the verdict and the mean of each answer that `log_report` kept with a study, by its name."""
        raise NotImplementedError("override `answers_of`")

    @pytest.fixture
    def record(self, tracker: Tracker) -> StudyRecord:
        return tracker.open_study(make_plan(seeds=2))

    def test_an_unknown_study_is_none(self, tracker: Tracker) -> None:
        assert tracker.find_study("nobody's") is None
        assert tracker.study_names() == ()

    def test_an_opened_study_is_found_with_its_plan_whole(self, tracker: Tracker, record: StudyRecord) -> None:
        found = tracker.find_study("quick")

        assert found == record
        assert tracker.study_names() == ("quick",)

    def test_opening_a_study_again_takes_the_same_study_run(self, tracker: Tracker, record: StudyRecord) -> None:
        again = tracker.open_study(make_plan(seeds=3))

        assert again.study_run_id == record.study_run_id
        assert len(tracker.recorded_runs(again)) == 3 * 4

    def test_a_closed_study_has_the_status_it_was_closed_with(self, tracker: Tracker, record: StudyRecord) -> None:
        tracker.close_study(record, "KILLED")

        found = tracker.find_study("quick")
        assert found is not None
        assert found.status == "KILLED"

    def test_every_planned_run_has_a_record_in_plan_order(self, tracker: Tracker, record: StudyRecord) -> None:
        recorded = tracker.recorded_runs(record)

        assert list(record.plan.runs) == [run.planned for run in recorded]
        assert {None} == {run.outcome for run in recorded}

    def test_a_finished_run_is_given_back_as_it_was_recorded(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        planned = record.plan.runs[1]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1), epoch_of(2)], heldout_split="test"))

        tracker.finish_run(run_id, result_of(planned.identity), artifacts_in(tmp_path))

        found = tracker.recorded_runs(record)[1]
        assert (planned, run_id, Outcome.DONE) == (found.planned, found.run_id, found.outcome)
        assert found.metrics["test_accuracy"] == 0.7
        assert found.curves["test_accuracy"] == ((1, 0.6), (2, 0.7))
        assert found.confusion == {"train": MATRIX, "test": MATRIX}
        assert len(found.test_correct) == TEST_IMAGES
        assert (found.device, found.host, found.commit) == ("cpu", "here", "abc+changes")
        assert found.versions == {"torch": "2.15.0", "python": "3.11.7", "ablation": "1.0"}
        assert found.problems == ()

    def test_what_runs_at_chance_answered_is_given_without_details_too(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        for planned, accuracy in zip(record.plan.runs[:2], (0.3, 0.31), strict=True):
            run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
            result = result_of(planned.identity)
            measured = replace(result, metrics={**result.metrics, "test_accuracy": accuracy})
            tracker.finish_run(run_id, measured, artifacts_in(tmp_path))

        found = tracker.recorded_runs(record, with_details=False)[:2]
        assert [run.confusion for run in found] == [{"train": MATRIX, "test": MATRIX}, {}]
        assert [run.curves for run in found] == [{}, {}]

    def test_a_workers_first_run_is_known_as_one(self, tracker: Tracker, record: StudyRecord) -> None:
        for planned, is_first in zip(record.plan.runs[:2], (True, False), strict=True):
            run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
            tracker.finish_run(run_id, replace(result_of(planned.identity), is_first=is_first), None)

        assert [run.is_first for run in tracker.recorded_runs(record)[:2]] == [True, False]

    def test_what_executions_took_is_read_back(self, tracker: Tracker, record: StudyRecord) -> None:
        out = OutOfBudget(limit_s=60.0, spent_s=41.5, needed_s=None)
        for spending in (Spending(spent_s=12.5), Spending(spent_s=41.5, limit_s=60.0, out=out)):
            tracker.note_spending(record.study_run_id, spending)

            found = tracker.find_study(record.plan.name)
            assert found is not None
            assert spending == found.spending

    def test_a_run_under_way_has_no_outcome(self, tracker: Tracker, record: StudyRecord) -> None:
        run_id = tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first")
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1)], heldout_split="test"))

        assert tracker.recorded_runs(record)[0].outcome is None

    def test_an_abandoned_run_has_no_outcome(self, tracker: Tracker, record: StudyRecord) -> None:
        tracker.abandon_run(tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first"))

        assert tracker.recorded_runs(record)[0].outcome is None

    def test_recording_the_same_epochs_again_changes_nothing(self, tracker: Tracker, record: StudyRecord) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1), epoch_of(2)], heldout_split="test"))
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1), epoch_of(2)], heldout_split="test"))
        tracker.finish_run(run_id, result_of(planned.identity), None)

        assert tracker.recorded_runs(record)[0].curves["test_accuracy"] == ((1, 0.6), (2, 0.7))

    def test_starting_a_run_again_removes_the_unfinished_try(self, tracker: Tracker, record: StudyRecord) -> None:
        planned = record.plan.runs[0]
        first = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(first, RunNews(epochs=[epoch_of(1)], heldout_split="test"))
        second = tracker.start_run(record, planned, PROVENANCE, attempt="second")
        tracker.finish_run(second, result_of(planned.identity), None)

        found = tracker.recorded_runs(record)[0]
        assert second == found.run_id
        assert first != second
        assert found.curves.get("train_loss", ()) == ()

    @pytest.mark.parametrize("nonce", ["one", ""], ids=["lease", "of a version before leases"])
    def test_a_study_says_who_runs_it(self, tracker: Tracker, record: StudyRecord, nonce: str) -> None:
        holder = Holder(host="here", pid=7, since="today", place="there", nonce=nonce, seen_ms=1)
        assert tracker.holder(record.study_run_id) is None

        tracker.hold(record.study_run_id, holder)

        assert holder == tracker.holder(record.study_run_id)
        tracker.close_study(record, "FINISHED")
        assert (holder if nonce else None) == tracker.holder(record.study_run_id)
        tracker.hold(record.study_run_id, None)
        assert tracker.holder(record.study_run_id) is None

    def test_the_same_attempt_again_goes_on_with_its_run(self, tracker: Tracker, record: StudyRecord) -> None:
        planned = record.plan.runs[0]
        first = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(first, RunNews(epochs=[epoch_of(1)], heldout_split="test"))
        tracker.abandon_run(first)
        again = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(again, RunNews(epochs=[epoch_of(1), epoch_of(2)], heldout_split="test"))
        tracker.finish_run(again, result_of(planned.identity), None)

        found = tracker.recorded_runs(record)[0]
        assert first == again == found.run_id
        assert found.curves["test_accuracy"] == ((1, 0.6), (2, 0.7))

    def test_a_failed_run_keeps_its_error(self, tracker: Tracker, record: StudyRecord) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        failed = replace(
            result_of(planned.identity), outcome=Outcome.FAILED, metrics={}, error="Traceback\nValueError: why"
        )
        tracker.finish_run(run_id, failed, None)

        found = tracker.recorded_runs(record)[0]
        assert found.outcome == Outcome.FAILED
        assert found.error is not None
        assert found.error.endswith("ValueError: why")

    def test_a_diverged_run_keeps_its_epoch(self, tracker: Tracker, record: StudyRecord) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1, train_loss=float("inf"))], heldout_split="test"))
        diverged = replace(result_of(planned.identity), outcome=Outcome.DIVERGED, metrics={}, diverged_epoch=1)
        tracker.finish_run(run_id, diverged, None)

        found = tracker.recorded_runs(record)[0]
        assert (found.outcome, found.diverged_epoch) == (Outcome.DIVERGED, 1)

    def test_a_report_is_kept_with_the_study(self, tracker: Tracker, record: StudyRecord, tmp_path: Path) -> None:
        tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[])

        assert "report.md" in self.report_files(tracker, record)

    def test_a_study_has_the_answers_of_its_last_report(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        helps, unstable = answer_of("depth 2 to 3", mean=0.02), answer_of("norm", verdict="unstable", mean=None)
        for _ in range(2):
            tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[helps, unstable])
        assert self.answers_of(tracker, record) == {"depth 2 to 3": ("helps", 0.02), "norm": ("unstable", None)}

        hurts = replace(helps, verdict="hurts", mean=-0.01)
        tracker.log_report(record, report_in(tmp_path), overview=["It hurts."], answers=[hurts])

        assert self.answers_of(tracker, record) == {"depth 2 to 3": ("hurts", -0.01)}

    def test_a_study_says_whether_it_has_the_answers_of_a_report(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        before = tracker.find_study(record.plan.name)
        tracker.log_report(record, report_in(tmp_path), overview=["It helps."], answers=[answer_of("depth 2 to 3")])
        after = tracker.find_study(record.plan.name)

        assert before is not None
        assert after is not None
        assert (before.has_answers, after.has_answers) == (False, True)

    def test_the_address_of_a_runs_page_names_the_run_where_a_server_shows_it(
        self, tracker: Tracker, record: StudyRecord
    ) -> None:
        run_id = tracker.start_run(record, record.plan.runs[0], PROVENANCE, attempt="first")

        address = tracker.run_address(record, run_id)

        assert address is None or (address.startswith(("http://", "https://")) and run_id in address)

    def test_two_studies_do_not_see_each_others_runs(self, tracker: Tracker, record: StudyRecord) -> None:
        other = tracker.open_study(make_plan(name="other", seeds=2))
        planned = other.plan.runs[0]
        tracker.finish_run(
            tracker.start_run(other, planned, PROVENANCE, attempt="first"), result_of(planned.identity), None
        )

        assert {None} == {run.outcome for run in tracker.recorded_runs(record)}
        assert tracker.study_names() == ("other", "quick")

    def test_results_of_the_same_runs_in_another_study_are_found_by_a_few_of_them(
        self, tracker: Tracker, record: StudyRecord
    ) -> None:
        first, second, *_ = record.plan.runs
        for planned, outcome in (
            (first, Outcome.DONE),
            (second, Outcome.DIVERGED),
            (record.plan.runs[2], Outcome.FAILED),
        ):
            run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
            tracker.finish_run(run_id, replace(result_of(planned.identity), outcome=outcome), None)
        tracker.start_run(record, record.plan.runs[3], PROVENANCE, attempt="first")
        other = tracker.open_study(make_plan(name="other", seeds=3))
        known = frozenset({first.identity, second.identity})

        assert {"quick": known} == tracker.results_elsewhere([first.identity, "f" * 32], name="other")
        assert tracker.results_elsewhere([first.identity], name="quick") == {}
        assert tracker.results_elsewhere([other.plan.runs[-1].identity], name="other") == {}
        assert tracker.results_elsewhere([record.plan.runs[3].identity], name="other") == {}

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (None, "evaluation.json is missing"),
            ("", "evaluation.json is damaged"),
            ("[1, 2]", "evaluation.json is damaged"),
            ("[" * 100_000, "evaluation.json is damaged"),
            ('{"confusion": {"test": [[Infinity]]}, "test_correct": ""}', "evaluation.json is damaged"),
            (
                json.dumps({**EVALUATION, "confusion": {"train": MATRIX, "test": [[1, 0], [0, 1]]}}),
                "evaluation.json has no confusion matrix of the test split",
            ),
            (
                json.dumps({**EVALUATION, "test_correct": "101"}),
                "evaluation.json lacks an answer for some of the 360 test images",
            ),
        ],
        ids=["missing", "empty", "list", "deep", "infinite", "other size", "other length"],
    )
    def test_a_damaged_evaluation_is_a_problem_of_a_run_that_counts(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path, text: str | None, problem: str
    ) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.log_run(run_id, RunNews(epochs=[epoch_of(1)], heldout_split="test"))
        tracker.finish_run(run_id, result_of(planned.identity), artifacts_in(tmp_path, text))

        found = tracker.recorded_runs(record)[0]
        assert (Outcome.DONE, 0.7, (problem,)) == (found.outcome, found.metrics["test_accuracy"], found.problems)

    def test_a_file_that_a_run_left_is_read_back_whole_or_not_at_all(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        planned, artifacts = record.plan.runs[0], artifacts_in(tmp_path)
        (artifacts / MODEL_FILE).write_bytes(b"\x80tensors")
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.finish_run(run_id, result_of(planned.identity), artifacts)

        assert tracker.run_file(run_id, MODEL_FILE, limit=8) == (b"\x80tensors", "")
        assert tracker.run_file(run_id, "absent.pt", limit=8) == (None, "")
        content, problem = tracker.run_file(run_id, MODEL_FILE, limit=7)
        assert content is None
        assert f"{MODEL_FILE} is damaged: it is larger than" in problem

    def test_a_metric_that_is_added_to_a_finished_run_is_a_final_one(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.finish_run(run_id, result_of(planned.identity), artifacts_in(tmp_path))

        tracker.add_metrics(run_id, {"f1": 0.25})
        tracker.add_metrics(run_id, {"f1": 0.25})

        found = tracker.recorded_runs(record)[0]
        assert (found.outcome, found.metrics["test_accuracy"], found.metrics["f1"]) == (Outcome.DONE, 0.7, 0.25)

    def test_missing_curves_and_metrics_are_problems(
        self, tracker: Tracker, record: StudyRecord, tmp_path: Path
    ) -> None:
        planned = record.plan.runs[0]
        run_id = tracker.start_run(record, planned, PROVENANCE, attempt="first")
        tracker.finish_run(run_id, replace(result_of(planned.identity), metrics={}), artifacts_in(tmp_path))

        problems = tracker.recorded_runs(record)[0].problems
        assert {"no metric test_loss", "no curve of test_accuracy"} <= set(problems)

    def test_a_run_that_is_planned_no_more_is_left_out(self, tracker: Tracker, record: StudyRecord) -> None:
        run_id = tracker.start_run(record, record.plan.runs[-1], PROVENANCE, attempt="first")
        smaller = tracker.open_study(make_plan(seeds=1))

        assert tracker.left_out(record) == ()
        assert [(run_id, "it is none of the planned runs")] == [
            (run.run_id, run.reason) for run in tracker.left_out(smaller)
        ]

    def test_a_data_set_with_a_name_of_any_length_is_recorded_with_its_runs(self, tracker: Tracker) -> None:
        plan = make_plan(seeds=1)
        plan = replace(plan, data=replace(plan.data, name=f"{'long/' * 800}data.py:load"))
        record = tracker.open_study(plan)
        run_id = tracker.start_run(record, plan.runs[0], {}, attempt="one")

        tracker.log_run(run_id, RunNews(description=RunDescription.of(plan.runs[0], plan)))
        tracker.finish_run(run_id, result_of(plan.runs[0].identity), None)

        assert Outcome.DONE is tracker.recorded_runs(record)[0].outcome


def epoch_of(epoch: int, *, train_loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        train={"loss": train_loss, "accuracy": 0.5},
        sample={"loss": 0.9, "accuracy": 0.55},
        heldout={"loss": 1.1, "accuracy": round(0.5 + epoch / 10, 1)},
        learning_rate=1e-3,
        seconds=2.0,
        images_per_second=100.0,
        timestamp_ms=1_700_000_000_000 + epoch,
    )


def report_in(folder: Path) -> Path:
    report = folder / "report"
    report.mkdir(exist_ok=True)
    (report / "report.md").write_text("# It helps\n")
    return report


def answer_of(name: str, *, verdict: str = "helps", mean: float | None = 0.02, seeds: int = 5) -> AnswerSummary:
    return AnswerSummary(
        name=name,
        change=name,
        headline=f"{name} {verdict}",
        sentence=f"{name} {verdict}: by as much as was measured.",
        verdict=verdict,
        is_decided=verdict in ("helps", "hurts"),
        metric="test accuracy",
        unit="fraction",
        mean=mean,
        low=mean - 0.01 if mean is not None else None,
        high=mean + 0.01 if mean is not None else None,
        seeds=seeds,
        cost="",
    )


def result_of(identity: str) -> RunResult:
    metrics = {**dict.fromkeys(TASKS["classification"].metrics, 0.5), "test_accuracy": 0.7}
    return RunResult(identity=identity, outcome=Outcome.DONE, metrics=metrics, epochs=2)


def artifacts_in(folder: Path, evaluation: str | None = json.dumps(EVALUATION)) -> Path:
    artifacts = folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    if evaluation is not None:
        (artifacts / "evaluation.json").write_text(evaluation)
    return artifacts
