"""The story of a study: prepare → plan → tune → train → report. Read this first.

`run_study` is the whole of it, a step a function. What it needs from outside (an executor, a tracker) it is given, so a
dry run and the tests take others. torch is imported only where something is trained or counted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ablation.coordinator.planning import (
    check_room,
    frozen_plan,
    lock_plan,
    power_remark,
    tuned_study,
    tuning_on_record,
)
from ablation.coordinator.request import Request
from ablation.errors import RunsNotRecorded, StudyDeleted, StudyUnknown, StudyUnplanned
from ablation.lookup import nearest_names
from ablation.storage.databases import without_password

if TYPE_CHECKING:
    from pathlib import Path

    from pandas import DataFrame

    from ablation.analysis import Analysis, Comparison, RecordedStudy, RuleChange
    from ablation.code import CodeFolders
    from ablation.coordinator.budget import Budget
    from ablation.coordinator.conclusion import StudyOutcome
    from ablation.coordinator.execution import Execution
    from ablation.coordinator.lease import Lease
    from ablation.coordinator.preparation import Prepared
    from ablation.coordinator.progress import Progress
    from ablation.coordinator.uploads import Uploads
    from ablation.records import DeclaredMetric, Plan
    from ablation.storage.locks import Coordination
    from ablation.storage.state import State
    from ablation.tracking import StudyRecord, Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedMetrics:
    """Metrics that somebody asks for after the runs, where their code is, and where data may be kept."""

    metrics: tuple[DeclaredMetric, ...]
    code: CodeFolders
    data_cache: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOutcome:
    """What `sync_study` found: how many runs it recorded, and how many have still to be trained."""

    record: StudyRecord
    recorded: int
    to_do: int


def run_study(request: Request) -> Generator[Progress, None, StudyOutcome]:
    """Run a study, or what is left of it, and report it; yield where it stands about twice a second.

    Closing the generator, or an exception, ends the execution in good order: the same call resumes it later.

    Raises:
        PrecisionUnavailable, DataUnavailable, DataInvalid, ModelInvalid, ComponentInvalid, CodeInvalid, VariantFails,
            VariantsAlike, StateUnavailable: before anything is created.
        StudyChanged, StudyNarrowed: the study has results that this would contradict or leave out.
        StudyLocked: another process is running it.
        StudyTakenOver: another process has begun to run it, as this one was silent for minutes.
        TuningFailed: a variant has no settings to be compared with.
        DiskFull, TrackingUnavailable, StorageUnavailable, RunsNotRecorded: what was trained is kept, and recorded by
            the next execution.
    """
    from ablation.coordinator.preparation import prepare_study
    from ablation.coordinator.uploads import Uploads

    study, tracker, begun = request.study, request.tracker, request.clock()
    prepared = yield from prepare_study(request)
    with _alone(study.name, tracker=tracker, storage_url=request.storage_url, state=request.state) as (lock, lease):
        yield from _begin(request, lease)
        with closing(Uploads(tracker, lease)) as uploads:
            budget = _budget(request, lease, begun=begun)
            execution, plan = yield from _plan(request, prepared, lock, lease, uploads, budget)
            try:
                _open(request, execution, plan)
                if (yield from _tune(request, execution)):
                    yield from _train(request, execution)
                    yield from _measure(request, execution)
                return _report(execution)
            except BaseException as error:
                execution.interrupt(killed=isinstance(error, GeneratorExit | KeyboardInterrupt))
                raise


@contextmanager
def _alone(name: str, *, tracker: Tracker, storage_url: str, state: State) -> Iterator[tuple[Coordination, Lease]]:
    """Hold a study's lock, and have its lease in MLflow ready to be taken: nobody else runs the study meanwhile."""
    from ablation.coordinator.lease import Lease
    from ablation.storage.locks import coordinating

    with coordinating(name, storage_url=storage_url, folder=state.locks) as lock:
        yield lock, Lease(name, tracker=tracker, state_folder=state.folder)


def _begin(request: Request, lease: Lease) -> Generator[Progress, None, None]:
    """Say why it takes long, where it does, and delete what is recorded of the study where it begins anew."""
    from ablation.coordinator.deletion import delete_before

    if (why := lease.why_it_takes_long()) is not None:
        yield request.note(why)
    if request.is_fresh:
        note = delete_before(
            request.study.name, tracker=request.tracker, storage_url=request.storage_url, state=request.state
        )
        yield request.note(note)


def _budget(request: Request, lease: Lease, *, begun: float) -> Budget:
    """Take the lease, and count this execution's time to that of those before."""
    from ablation.coordinator.budget import Budget

    lease.take()
    before = request.tracker.find_study(request.study.name)
    spent_s = before.spending.spent_s if before is not None else 0.0
    budget = Budget(limit_s=request.budget_s, spent_before_s=spent_s, begun=begun, clock=request.clock)
    lease.count(lambda: budget.spending)
    return budget


def _plan(
    request: Request, prepared: Prepared, lock: Coordination, lease: Lease, uploads: Uploads, budget: Budget
) -> Generator[Progress, None, tuple[Execution, Plan]]:
    """Lock the plan, or hold the study to what was locked before, and see that there is room for it."""
    from ablation.coordinator.deletion import leave_deleted
    from ablation.coordinator.execution import Execution
    from ablation.coordinator.jobs import StudyJobs

    study, tracker, state = request.study, request.tracker, request.state
    tuning, before = tuning_on_record(study, tracker=tracker), tracker.find_study(study.name)
    is_again = request.is_fresh or request.is_reused or (before is None and tracker.is_deleted(study.name))
    locked = lock_plan(
        tuned_study(study, tuning),
        data=prepared.facts,
        other_data=prepared.other_data,
        tracker=tracker,
        tuning=tuning,
        state=None if is_again else state,  # what is there may be of the very study that was deleted
    )
    plan = replace(locked, same_starts=prepared.same_starts)
    if request.is_reused:
        state.take_back(study.name)
    elif (note := leave_deleted(plan, tracker=tracker, storage_url=request.storage_url, state=state)) is not None:
        yield request.note(note)
    if request.is_fresh:
        state.remove(study.name, {run.identity for run in plan.runs})
    check_room(plan, state.folder, at_once=len(request.executor.slots) * (request.fuse or 1))
    execution = Execution(
        lease=lease,
        tracker=tracker,
        uploads=uploads,
        lock=lock,
        executor=request.executor,
        state=state,
        budget=budget,
        jobs=StudyJobs.of(request, prepared),
        fuse=request.fuse,
        was_out_of_budget=before is not None and before.spending.is_out,
        status_before=before.status if before is not None and before.plan.runs == plan.runs else None,
    )
    return execution, plan


def _open(request: Request, execution: Execution, plan: Plan) -> None:
    """Record the study as under way, and keep its own code where the report will be."""
    from ablation.coordinator.conclusion import keep_code

    request.tracker.reconcile(execution.lease.open(plan))
    keep_code(request.study, request.state.report(request.study.name) / "code")


def _tune(request: Request, execution: Execution) -> Generator[Progress, None, bool]:
    """Tune the variants that have no settings yet, and freeze what was found in the study's record.

    Say whether all have theirs now: the budget may be spent before.
    """
    from ablation.coordinator.tuning import VariantTuning

    study, before = request.study, execution.record.plan
    if study.spec.tune is None:
        return True
    tuned = {variant.variant for variant in before.tuning}
    targets = [variant for variant in study.design_variants() if variant.name not in tuned]
    if targets:
        tuning = VariantTuning(study=study, execution=execution, storage_url=request.storage_url)
        try:
            found = yield from tuning.tune(targets)
        except BaseException:
            tuning.interrupt()
            raise
        _wait_for(study.name, execution.uploads)
        if found is None:
            return False
        chosen = (*before.tuning, *found)
        plan = frozen_plan(study, before, tuning=chosen, tracker=request.tracker, state=request.state)
        execution.lease.open(plan)
    execution.state.forget_tuning(study.name)  # also of one that was killed when it had frozen what it found
    return True


def _train(request: Request, execution: Execution) -> Generator[Progress, None, None]:
    """Train what the looks ask for and has no result yet, by the schedule, until all of it is recorded."""
    from ablation.coordinator.looks import LooksUnderWay
    from ablation.coordinator.recovery import altered_since, found_text, recover_ended
    from ablation.scheduling import open_schedule

    record, state = execution.record, request.state
    recorded = request.tracker.recorded_runs(record, with_details=False)
    ended = recover_ended(execution.uploads, recorded, plan=record.plan, state=state, retry_failed=request.retry_failed)
    altered = altered_since(recorded, plan=record.plan, state=state)
    yield request.note(found_text(recorded, ended, altered, again=request.retry_failed))
    settled = tuple(run for run in ended if run.has_result or not request.retry_failed)
    if not any(run.outcome is not None for run in ended) and (remark := power_remark(record.plan)) is not None:
        yield request.note(remark)
    looks = LooksUnderWay(record.plan, settled)
    asked = replace(record.plan, runs=looks.runs)
    report = state.report(record.plan.name) / "report.html"
    schedule = open_schedule(request.storage_url, asked, settled, alike=execution.alike, report=report)
    if schedule.note is not None:
        yield request.note(schedule.note)
    if execution.was_out_of_budget:
        execution.uploads.tell_look(looks.look)  # it said that the study is out of budget
    execution.budget.note_prepared()
    yield from execution.train(schedule, settled, looks)
    _wait_for(request.study.name, execution.uploads)


def _measure(request: Request, execution: Execution) -> Generator[Progress, None, None]:
    """Compute metrics that runs lack, as they were trained before the study had these, from the outputs they kept."""
    from ablation.coordinator.kept_outputs import compute_metrics
    from ablation.records import Outcome

    record, tracker = execution.record, request.tracker
    own = record.plan.own_metrics
    runs = tracker.recorded_runs(record, with_details=False) if own else ()
    done = {run.planned.identity: run for run in runs if run.outcome is Outcome.DONE}
    lacking = [run for run in done.values() if any(metric.name not in run.metrics for metric in own)]
    if not lacking:
        return
    found = compute_metrics(
        record.plan, lacking, own, tracker=tracker, code=request.study.code, data_cache=request.state.data
    )
    for identity, values in found.values.items():
        if values:
            tracker.add_metrics(str(done[identity].run_id), values)
    yield request.note(f"metrics that runs had not measured are {found.text()}")


def _report(execution: Execution) -> StudyOutcome:
    """Write the report from what the tracker has, and mark how the study stands."""
    from ablation.coordinator.conclusion import conclude

    return conclude(execution.lease, tracker=execution.tracker, state=execution.state)


def _wait_for(name: str, uploads: Uploads) -> None:
    """Wait until all is recorded.

    Raises:
        RunsNotRecorded: the tracker does not answer.
    """
    if not uploads.wait():
        raise _not_recorded(name, uploads)


def _not_recorded(name: str, uploads: Uploads) -> RunsNotRecorded:
    return RunsNotRecorded(name, uploads.waiting, uploads.problem or "MLflow does not answer")


def sync_study(
    name: str, *, tracker: Tracker, storage_url: str, state: State, say: Callable[[str], object] = lambda _: None
) -> SyncOutcome:
    """Record what a study's executions have left in their folders, and report it where that makes it complete.

    `say` is told why it takes long, where it does.

    Raises:
        StateUnavailable, StudyUnknown, StudyLocked, StudyTakenOver, TrackingUnavailable, RunsNotRecorded.
    """
    from ablation.coordinator.uploads import Uploads

    state.make()
    with _alone(name, tracker=tracker, storage_url=storage_url, state=state) as (_, lease):
        find_study(name, tracker=tracker)
        if (why := lease.why_it_takes_long()) is not None:
            say(why)
        with closing(Uploads(tracker, lease)) as uploads:
            lease.take()
            return _synced(name, lease, uploads, tracker=tracker, state=state)


def _synced(name: str, lease: Lease, uploads: Uploads, *, tracker: Tracker, state: State) -> SyncOutcome:
    from ablation.analysis import StudyLooks
    from ablation.coordinator.conclusion import conclude
    from ablation.coordinator.recovery import recover_ended

    lease.take_up(find_study(name, tracker=tracker))
    lease.check()
    record = lease.record
    tracker.reconcile(record)
    recorded = tracker.recorded_runs(record, with_details=False)
    ended = recover_ended(uploads, recorded, plan=record.plan, state=state)
    if not uploads.wait():
        uploads.close(limit_s=0.0)
        raise _not_recorded(name, uploads)
    count = sum(now is not before for now, before in zip(ended, recorded, strict=True))
    looks = StudyLooks.of(record.plan, ended, is_out_of_budget=record.spending.is_out)
    asked = {run.identity for run in looks.runs}
    to_do = sum(run.outcome is None and run.planned.identity in asked for run in ended)
    if not to_do and (count or record.status != "FINISHED" or not record.has_answers):
        conclude(lease, tracker=tracker, state=state)
    elif record.status == "RUNNING":
        lease.check()
        tracker.close_study(lease.record, "KILLED")
    return SyncOutcome(record=lease.record, recorded=count, to_do=to_do)


def summarize_study(
    name: str, *, tracker: Tracker, change: RuleChange | None = None, asked: AskedMetrics | None = None
) -> tuple[StudyRecord, Analysis]:
    """Analyse a study again, from what the tracker has and nothing else, by its locked rule or a changed one.

    A changed rule judges the runs that the locked one has asked for: it has no others trained. Metrics that are `asked`
    for are computed from the outputs that the runs have kept; the first is judged by, where the rule names none.

    Raises:
        StudyUnknown, NoResults, NameUnknown, TrackingUnavailable.
        MetricTaken, OutputsNotKept, CodeInvalid: a metric cannot be computed.
    """
    from ablation.analysis import RuleChange, StudyLooks, analyse, with_rule

    record = find_study(name, tracker=tracker)
    runs, plan = tracker.recorded_runs(record), record.plan
    if asked is not None and asked.metrics:
        from ablation.coordinator.kept_outputs import with_metrics

        plan, runs = with_metrics(
            plan, runs, asked.metrics, tracker=tracker, code=asked.code, data_cache=asked.data_cache
        )
        change = replace(change or RuleChange(), metric=(change and change.metric) or asked.metrics[0].name)
    if change is not None and with_rule(plan, change) != plan:
        looks = StudyLooks.of(plan, runs, is_out_of_budget=record.spending.is_out)
        plan = with_rule(looks.plan_so_far, change)
    found = analyse(plan, runs, left_out=tracker.left_out(record), out_of_budget=record.spending.out)
    return record, replace(found, most_runs=len(record.plan.runs))


def compare_study(name: str, first: str, second: str, *, tracker: Tracker) -> Comparison:
    """Compare two variants of a recorded study.

    Raises:
        StudyUnknown, NameUnknown, TrackingUnavailable.
    """
    from ablation.analysis import compare_variants

    study = _recorded_study(name, tracker)
    return compare_variants(study.plan, study.runs, first, second, is_out_of_budget=study.is_out_of_budget)


def compare_across(first: tuple[str, str, Tracker], second: tuple[str, str, Tracker]) -> Comparison:
    """Compare variants of two recorded studies, each given as (study, variant, where it is recorded).

    Raises:
        StudyUnknown, NameUnknown, StudiesApart, TrackingUnavailable.
    """
    from ablation.analysis import compare_studies

    one, other = ((_recorded_study(name, tracker), variant) for name, variant, tracker in (first, second))
    return compare_studies(one, other)


def _recorded_study(name: str, tracker: Tracker) -> RecordedStudy:
    from ablation.analysis import RecordedStudy

    record = find_study(name, tracker=tracker)
    runs = tracker.recorded_runs(record)
    return RecordedStudy(plan=record.plan, runs=runs, is_out_of_budget=record.spending.is_out)


def export_study(name: str, *, tracker: Tracker, by_epoch: bool) -> DataFrame:
    """Return a recorded study's run table, or one with a row per epoch.

    Raises:
        StudyUnknown, TrackingUnavailable.
    """
    from ablation.analysis import StudyLooks, epoch_table, run_table

    record = find_study(name, tracker=tracker)
    runs = tracker.recorded_runs(record, with_details=by_epoch)
    looks = StudyLooks.of(record.plan, runs, is_out_of_budget=record.spending.is_out)
    return (epoch_table if by_epoch else run_table)(looks.plan_so_far, runs)


def find_study(name: str, *, tracker: Tracker) -> StudyRecord:
    """Return a recorded study.

    Raises:
        StudyUnknown: there is none of that name, and which names are near.
        StudyUnplanned, StudyDeleted: there was one, and nothing of it can be read.
    """
    record = tracker.find_study(name)
    if record is None:
        known = tuple(sorted(tracker.study_names()))
        if name in known:
            raise StudyUnplanned(name)
        where = without_password(str(getattr(tracker, "tracking_uri", "this process")))
        if tracker.is_deleted(name):
            raise StudyDeleted(name, tracking_uri=where)
        near = nearest_names(name, known) or [other for other in known if other.startswith(f"{name}+")]
        raise StudyUnknown(name, tracking_uri=where, near=near, known=known)
    return record
