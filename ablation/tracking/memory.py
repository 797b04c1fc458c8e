"""A tracker that keeps everything in memory: the dry run, and the tests' fake."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ablation.errors import StudyLocked, StudyRunGone
from ablation.records import (
    EVALUATION_FILE,
    MODEL_FILE,
    TASKS,
    AnswerSummary,
    LeftOut,
    Outcome,
    Plan,
    PlannedRun,
    RecordedRun,
    RunResult,
    Spending,
    device_and_path,
    epoch_metrics,
    is_at_chance,
    output_file,
)
from ablation.storage.holder import Holder
from ablation.tracking.checking import (
    NO_PROBLEMS,
    checked_evaluation,
    checked_metrics,
    is_number,
    library_versions,
    missing_curves,
    too_large,
)
from ablation.tracking.interface import NO_NEWS, RunDescription, RunNews, StudyRecord, StudyStatus


@dataclass(slots=True, kw_only=True)
class _Run:
    planned: PlannedRun
    study: str
    provenance: Mapping[str, str]
    attempt: str = ""
    is_under_way: bool = True
    description: RunDescription | None = None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    result: RunResult | None = None
    evaluation: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    """Files that the run left and that are read again, by name."""


class MemoryTracker:
    """Remembers as long as it lives; its runs are trained in this process."""

    settles_s = 0.0

    def __init__(self) -> None:
        self._studies: dict[str, StudyRecord] = {}
        self._runs: dict[str, _Run] = {}
        self._holders: dict[str, Holder] = {}
        self._deleted: dict[str, frozenset[str]] = {}
        """By study: the identities of its runs, which were deleted."""
        self._spendings: dict[str, Spending] = {}
        self._begun = self._studies_begun = 0
        self.reports: dict[str, tuple[str, ...]] = {}
        """By study: the names of the report's files."""
        self.answered: dict[str, Mapping[str, AnswerSummary]] = {}
        """By study: the answers of its report, by their names."""
        self.looks: dict[str, int] = {}
        """By study: how many looks are complete."""

    def elsewhere(self) -> None:
        return None

    def answers(self) -> bool:
        return True

    def find_study(self, name: str) -> StudyRecord | None:
        record = self._studies.get(name)
        if record is None:
            return None
        spending = self._spendings.get(record.study_run_id, Spending())
        return replace(record, spending=spending, has_answers=name in self.answered)

    def study_names(self) -> tuple[str, ...]:
        return tuple(reversed(self._studies))

    def remarks(self, _name: str) -> tuple[str, ...]:
        return ()

    def study_run_id(self, name: str, *, beside: str | None = None) -> str | None:  # noqa: ARG002 - there is one experiment
        return self._studies[name].study_run_id if name in self._studies else None

    def make_study_run(self, plan: Plan, *, holder: Holder | None) -> str:
        self._studies_begun += 1
        run_id = f"study-{self._studies_begun}"
        self._studies[plan.name] = StudyRecord(
            study_run_id=run_id, experiment_id=plan.name, plan=plan, status="RUNNING"
        )
        self.hold(run_id, holder)
        return run_id

    def open_study(self, plan: Plan, *, holder: Holder | None = None) -> StudyRecord:
        run_id = self.study_run_id(plan.name) or self.make_study_run(plan, holder=holder)
        held_by = self.holder(run_id)
        if holder is not None and held_by is not None and held_by.nonce != holder.nonce:
            raise StudyLocked(plan.name, str(held_by))
        record = StudyRecord(study_run_id=run_id, experiment_id=plan.name, plan=plan, status="RUNNING")
        self._studies[plan.name] = record
        return record

    def holder(self, study_run_id: str) -> Holder | None:
        record = next((one for one in self._studies.values() if one.study_run_id == study_run_id), None)
        if record is None:
            raise StudyRunGone(study_run_id)
        found = self._holders.get(study_run_id)
        return found if found is not None and (found.nonce or record.status == "RUNNING") else None

    def hold(self, study_run_id: str, holder: Holder | None) -> None:
        self._holders.pop(study_run_id, None)
        if holder is not None:
            self._holders[study_run_id] = holder

    def discard_study_run(self, study_run_id: str) -> None:
        """There is no other: a study made again replaces the one before."""

    def identities(self, name: str) -> frozenset[str]:
        found = {run.planned.identity for run in list(self._runs.values()) if run.study == name}
        return frozenset(found) | self._deleted.get(name, frozenset())

    def results_elsewhere(self, probes: Sequence[str], /, *, name: str) -> Mapping[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for run in list(self._runs.values()):
            is_elsewhere = run.study in self._studies and run.study != name
            if is_elsewhere and run.result is not None and Outcome(run.result.outcome).is_result:
                found.setdefault(run.study, set()).add(run.planned.identity)
        return {study: frozenset(known) for study, known in sorted(found.items()) if known.intersection(probes)}

    def count_runs(self, name: str) -> int:
        named = (name, f"tuning of {name}")
        return sum(run.study in named for run in list(self._runs.values())) + (name in self._studies)

    def is_deleted(self, name: str) -> bool:
        return name in self._deleted

    def delete_study(self, name: str) -> None:
        self._deleted[name] = self.identities(name)
        named = (name, f"tuning of {name}")
        for run_id in [run_id for run_id, run in list(self._runs.items()) if run.study in named]:
            del self._runs[run_id]
        self._studies.pop(name, None)
        self.answered.pop(name, None)

    def clear_experiment(self, name: str) -> None:
        """There is none."""

    def recorded_runs(self, record: StudyRecord, *, with_details: bool = True) -> tuple[RecordedRun, ...]:
        by_identity = {
            run.planned.identity: run_id for run_id, run in list(self._runs.items()) if run.study == record.plan.name
        }
        return tuple(
            self._recorded(record.plan, planned, by_identity.get(planned.identity), with_details=with_details)
            for planned in record.plan.runs
        )

    def run_file(self, run_id: str, name: str, /, *, limit: int) -> tuple[bytes | None, str]:
        content = self._runs[run_id].files.get(name)
        return too_large(name, limit) if content is not None and len(content) > limit else (content, "")

    def left_out(self, record: StudyRecord) -> tuple[LeftOut, ...]:
        planned = {run.identity for run in record.plan.runs}
        return tuple(
            LeftOut(run_id=run_id, name=run.planned.name, reason="it is none of the planned runs")
            for run_id, run in list(self._runs.items())
            if run.study == record.plan.name and run.planned.identity not in planned
        )

    def reconcile(self, record: StudyRecord) -> None:
        for run in list(self._runs.values()):
            if run.study == record.plan.name:
                run.is_under_way = False

    def start_run(
        self, record: StudyRecord, planned: PlannedRun, provenance: Mapping[str, str], *, attempt: str
    ) -> str:
        return self._start(_Run(planned=planned, study=record.plan.name, provenance=provenance, attempt=attempt))

    def start_tuning_run(
        self,
        record: StudyRecord,
        planned: PlannedRun,
        settings: Mapping[str, Any],
        provenance: Mapping[str, str],
        *,
        attempt: str,
    ) -> str:
        named = PlannedRun(identity=planned.name, variant=str(settings["variant"]), seed=planned.seed)
        study = f"tuning of {record.plan.name}"
        return self._start(_Run(planned=named, study=study, provenance=provenance, attempt=attempt))

    def log_run(self, run_id: str, news: RunNews) -> None:
        self._runs[run_id].description = news.description or self._runs[run_id].description
        for epoch in news.epochs:
            for name, value in epoch_metrics(epoch, heldout_split=news.heldout_split).items():
                self._runs[run_id].curves.setdefault(name, {})[epoch.epoch] = value

    def finish_run(self, run_id: str, result: RunResult, artifacts: Path | None, news: RunNews = NO_NEWS) -> None:
        MemoryTracker.log_run(self, run_id, news)
        self._runs[run_id].result = result
        self._runs[run_id].is_under_way = False
        if artifacts is not None and (artifacts / EVALUATION_FILE).exists():
            self._runs[run_id].evaluation = (artifacts / EVALUATION_FILE).read_text()
        for name in (MODEL_FILE, *{output_file(task)[0] for task in TASKS}):
            if artifacts is not None and (artifacts / name).exists():
                self._runs[run_id].files[name] = (artifacts / name).read_bytes()

    def add_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        result = self._runs[run_id].result
        assert result is not None
        self._runs[run_id].result = replace(result, metrics={**result.metrics, **metrics})

    def abandon_run(self, run_id: str) -> None:
        self._runs[run_id].is_under_way = False

    def note_look(self, record: StudyRecord, look: int) -> None:
        if record.plan.locked.looks:
            self.looks[record.plan.name] = look

    def note_spending(self, study_run_id: str, spending: Spending) -> None:
        self._spendings[study_run_id] = spending

    def log_report(
        self,
        record: StudyRecord,
        folder: Path,
        *,
        overview: Sequence[str],  # noqa: ARG002 - it is shown nowhere
        answers: Sequence[AnswerSummary],
    ) -> None:
        files = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
        self.reports[record.plan.name] = files
        self.answered[record.plan.name] = {answer.name: answer for answer in answers}

    def close_study(self, record: StudyRecord, status: StudyStatus) -> None:
        self._studies[record.plan.name] = StudyRecord(
            study_run_id=record.study_run_id, experiment_id=record.experiment_id, plan=record.plan, status=status
        )

    def links(self, _record: StudyRecord) -> tuple[tuple[str, str], ...]:
        return ()

    def run_address(self, _record: StudyRecord, _run_id: str) -> str | None:
        return None

    def _start(self, begun: _Run) -> str:
        key = (begun.study, begun.planned.identity)
        same = [run_id for run_id, run in list(self._runs.items()) if (run.study, run.planned.identity) == key]
        for run_id in same:
            if self._runs[run_id].attempt == begun.attempt:
                self._runs[run_id].is_under_way = True
                return run_id
            del self._runs[run_id]
        self._begun += 1
        self._runs[f"run-{self._begun}"] = begun
        return f"run-{self._begun}"

    def _recorded(self, plan: Plan, planned: PlannedRun, run_id: str | None, *, with_details: bool) -> RecordedRun:
        run = self._runs[run_id] if run_id is not None else None
        result = run.result if run is not None else None
        if run is None or result is None:
            return RecordedRun(planned=planned, run_id=run_id, outcome=None, metrics={}, curves={}, confusion={})
        is_done = result.outcome is Outcome.DONE
        metrics, problems = checked_metrics(result.metrics, plan.expected_metrics) if is_done else ({}, NO_PROBLEMS)
        points = {
            name: [(epoch, value) for epoch, value in values.items() if is_number(value)]
            for name, values in run.curves.items()
        }
        curves = {name: tuple(sorted(pairs)) for name, pairs in points.items()} if with_details else {}
        evaluation, more = None, NO_PROBLEMS
        if (
            is_done
            and not plan.is_own_training
            and (with_details or is_at_chance(plan, planned.variant, result.outcome, metrics))
        ):
            evaluation, more = checked_evaluation(run.evaluation, plan.data_of(planned.variant, planned.seed))
            more = (*missing_curves(curves, plan.heldout_split, plan.task), *more) if with_details else NO_PROBLEMS
        return RecordedRun(
            planned=planned,
            run_id=run_id,
            outcome=Outcome(result.outcome),
            metrics=metrics,
            curves=curves,
            confusion=evaluation.confusion if evaluation else {},
            test_correct=evaluation.test_correct if evaluation else "",
            constant_share=evaluation.constant_share if evaluation else None,
            details=evaluation.details if evaluation else {},
            device=device_and_path(run.provenance.get("device", ""), result.path),
            host=run.provenance.get("host", ""),
            commit=run.provenance.get("git_commit", ""),
            versions=library_versions(run.provenance),
            is_first=result.is_first,
            problems=(*problems, *more, *filter(None, ["; ".join(result.left_out)])),
            error=result.error,
            failure=result.failure,
            diverged_epoch=result.diverged_epoch,
            attempt=run.attempt,
        )
