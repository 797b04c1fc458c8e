"""Ends an execution of a study: the report of what there is, and how the study stands."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ablation.analysis import Analysis, StudyLooks, analyse
from ablation.code import is_weights
from ablation.coordinator.lease import Lease
from ablation.records import Outcome, PlannedRun
from ablation.report import answer_summaries, overview, write_report
from ablation.report.labels import labelled
from ablation.storage.state import State
from ablation.study import Study
from ablation.tracking import StudyRecord, Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What an execution of a study left: its record, its analysis (None where nothing has a result), its report.

    `runs` are those that its looks have asked for.
    """

    record: StudyRecord
    runs: tuple[PlannedRun, ...]
    ended: Mapping[Outcome, int]
    analysis: Analysis | None
    report: Path | None


def conclude(lease: Lease, *, tracker: Tracker, state: State) -> StudyOutcome:
    """Report what there is and mark the study finished, or failed where a planned run has no result.

    One that ended for its budget is finished too, but where a run has failed.
    """
    lease.check()
    lease.note_spending()
    spending = lease.spending
    record = replace(lease.record, spending=spending)
    tracker.reconcile(lease.record)
    runs = tracker.recorded_runs(lease.record, with_details=False)
    looks = StudyLooks.of(lease.record.plan, runs, is_out_of_budget=spending.is_out)
    ended = Counter(run.outcome for run in runs if run.outcome is not None)
    analysis, folder, name = None, None, lease.record.plan.name
    if ended:
        folder = state.report(name)
        found = tracker.find_study(name) or lease.record  # as the tracker has it: what `summarize` will read
        analysis = analyse(
            found.plan,
            tracker.recorded_runs(found),
            left_out=tracker.left_out(found),
            out_of_budget=spending.out,
        )
        write_report(analysis, folder, address=partial(tracker.run_address, found))
        lease.check()
        tracker.log_report(
            lease.record, folder, overview=overview(labelled(analysis)), answers=answer_summaries(analysis)
        )
        tracker.note_look(record, looks.look)
    is_complete = ended[Outcome.DONE] + ended[Outcome.DIVERGED] == len(looks.runs)
    has_ended_well = is_complete or (spending.is_out and not ended[Outcome.FAILED])
    tracker.close_study(lease.record, "FINISHED" if has_ended_well else "FAILED")
    return StudyOutcome(record=record, runs=looks.runs, ended=ended, analysis=analysis, report=folder)


def keep_code(study: Study, folder: Path) -> None:
    """Copy the study's own code to where its report will be: without it nobody else could train what was compared.

    Files of weights stay where they are, for their size; runs have their digest.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for relative, file in study.code.files(name for name in study.code_names() if not is_weights(name)).items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / relative)
