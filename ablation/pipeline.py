"""The story of a study: load → plan → schedule → run → analyse → report. Read this first.

`run_study` is the whole of it. What it needs from outside (an executor, a tracker) it is given, so a dry run and the
tests take others. torch is imported only where something is trained or counted.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ablation.code import code_names
from ablation.coordinator.planning import NO_DATA, check_room, data_remarks, lock_plan, plan_of, tuning_on_record
from ablation.errors import RunsNotRecorded, StudyDeleted, StudyNowhere, StudyUnknown, StudyUnplanned
from ablation.lookup import nearest_names
from ablation.records import Outcome, Plan, RecordedRun, TunedVariant, same_starts_text
from ablation.storage.databases import without_password
from ablation.storage.state import State
from ablation.storage.temporary import remove_left_behind
from ablation.study import Study

if TYPE_CHECKING:
    from pandas import DataFrame

    from ablation.analysis import Analysis, Comparison, RuleChange
    from ablation.coordinator.execution import Execution, Progress
    from ablation.coordinator.lease import Lease
    from ablation.coordinator.uploads import Uploads
    from ablation.datasets import Dataset
    from ablation.executors import Executor
    from ablation.tracking import StudyRecord, Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What an execution of a study left: its record, its analysis (None where nothing has a result), its report."""

    record: StudyRecord
    ended: Mapping[Outcome, int]
    analysis: Analysis | None
    report: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOutcome:
    """What `sync_study` found: how many runs it recorded, and how many have still to be trained."""

    record: StudyRecord
    recorded: int
    to_do: int


def run_study(
    study: Study,
    *,
    tracker: Tracker,
    executor: Executor,
    storage_url: str,
    state: State,
    fuse: int | None = None,
    cudnn_benchmark: bool = False,
    retry_failed: bool = False,
    is_fresh: bool = False,
    is_reused: bool = False,
) -> Generator[Progress, None, StudyOutcome]:
    """Run a study, or what is left of it, and report it; yield where it stands about twice a second.

    `fuse` is how many runs a job may train together; by default as many as pay on a GPU, and one on a CPU. With
    `cudnn_benchmark`, cuDNN's algorithms are chosen on a GPU by timing. Runs that have failed are trained again with
    `retry_failed` only. `is_fresh` deletes what is recorded of the study first; `is_reused` takes what was trained of
    it before it was deleted in the tracker.

    Closing the generator, or an exception, ends the execution in good order: the same call goes on later.

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
    from ablation.coordinator.deletion import leave_deleted
    from ablation.coordinator.execution import Execution, Progress
    from ablation.coordinator.lease import Lease
    from ablation.coordinator.uploads import Uploads
    from ablation.scheduling import check_storage, default_storage
    from ablation.storage.locks import coordinating
    from ablation.worker import check_devices, device_remarks, needs_trying, try_variant

    check_devices(study.variants, executor.slots)
    state.make()
    check_storage(storage_url, is_rebuilt=storage_url == default_storage(state.folder))
    planned = len(study.variants) * study.spec.seeds
    dataset = _prepare(study, state)
    facts = dataset.facts if dataset is not None else NO_DATA
    for remark in (*device_remarks(study.variants, executor.slots), *data_remarks(study), *facts.notes):
        yield Progress(planned=planned, ended={}, running=(), note=remark)
    tried = [variant for variant in study.design_variants() if needs_trying(variant.settings)]
    if tried:
        yield Progress(planned=planned, ended={}, running=(), note=f"trying {len(tried)} variants on one batch each")
    same_starts = tuple(
        variant.name for variant in tried if try_variant(variant, facts.shape, dataset=dataset, code=study.code)
    )
    if same_starts:
        yield Progress(planned=planned, ended={}, running=(), note=same_starts_text(same_starts))
    if is_fresh:
        plan_of(study, data=facts)  # what cannot be planned is refused before anything is deleted
    remove_left_behind()
    for remark in tracker.remarks(study.name):
        yield Progress(planned=planned, ended={}, running=(), note=remark)
    with coordinating(study.name, storage_url=storage_url, folder=state.locks) as lock:
        lease = Lease(study.name, tracker=tracker, state_folder=state.folder)
        if (why := lease.why_it_takes_long()) is not None:
            yield Progress(planned=planned, ended={}, running=(), note=why)
        if is_fresh:
            note = _deleted(study.name, tracker, storage_url, state)
            yield Progress(planned=planned, ended={}, running=(), note=note)
        uploads = Uploads(tracker, lease)
        try:
            lease.take()
            known = tuning_on_record(study, tracker=tracker)
            before = tracker.find_study(study.name)
            plan = lock_plan(_tuned(study, known), data=facts, tracker=tracker, tuning=known)
            plan = replace(plan, same_starts=same_starts)
            if is_reused:
                state.take_back(study.name)
            elif (note := leave_deleted(plan, tracker=tracker, storage_url=storage_url, state=state)) is not None:
                yield Progress(planned=planned, ended={}, running=(), note=note)
            if is_fresh:
                state.remove(study.name, {run.identity for run in plan.runs})
            check_room(plan, state.folder, at_once=len(executor.slots) * (fuse or 1))
            execution = Execution(
                lease=lease,
                tracker=tracker,
                uploads=uploads,
                lock=lock,
                executor=executor,
                state=state,
                dataset=dataset,
                code=study.code,
                code_digests={variant.name: study.code_digest(variant) for variant in study.variants},
                fuse=fuse,
                cudnn_benchmark=cudnn_benchmark,
                status_before=before.status if before is not None and before.plan.runs == plan.runs else None,
            )
            return (
                yield from _execute(study, execution, plan, known, storage_url=storage_url, retry_failed=retry_failed)
            )
        finally:
            uploads.close()


def _deleted(name: str, tracker: Tracker, storage_url: str, state: State) -> str | None:
    """Delete what there is of a study and say so; None where there was nothing. Why it takes long was said before."""
    from ablation.coordinator.deletion import delete_held, holdings_of

    tracker.clear_experiment(name)
    try:
        found = holdings_of(name, tracker=tracker, state=state)
    except StudyNowhere:
        return None
    delete_held(found, tracker=tracker, storage_url=storage_url, state=state, say=lambda _: None)
    return "begun anew: what was recorded of the study before is in MLflow's trash"


def _execute(
    study: Study,
    execution: Execution,
    plan: Plan,
    known: tuple[TunedVariant, ...],
    *,
    storage_url: str,
    retry_failed: bool,
) -> Generator[Progress, None, StudyOutcome]:
    """Open the study's record, tune, train what has no result yet, and report."""
    from ablation.coordinator.execution import Progress
    from ablation.coordinator.uploads import altered_since, recover_ended
    from ablation.scheduling import open_schedule

    tracker, uploads, state = execution.tracker, execution.uploads, execution.state
    planned = len(study.variants) * study.spec.seeds
    try:
        tracker.reconcile(execution.lease.open(plan))
        _keep_code(study, state.report(study.name) / "code")
        if study.spec.tune is not None:
            yield from _tune(study, execution, known, storage_url=storage_url)
        record = execution.record
        recorded = tracker.recorded_runs(record, with_details=False)
        ended = recover_ended(uploads, recorded, plan=record.plan, state=state, retry_failed=retry_failed)
        altered = altered_since(recorded, plan=record.plan, state=state)
        found = _found_text(recorded, ended, altered, again=retry_failed)
        yield Progress(planned=planned, ended={}, running=(), note=found)
        settled = tuple(run for run in ended if run.has_result or not retry_failed)
        schedule = open_schedule(storage_url, record.plan, settled, alike=execution.alike)
        if schedule.note is not None:
            yield Progress(planned=planned, ended={}, running=(), note=schedule.note)
        yield from execution.train(schedule, settled)
        if not uploads.wait():
            raise _not_recorded(study.name, uploads)
        return _conclude(execution.lease, tracker=tracker, state=state)
    except BaseException as error:
        execution.interrupt(killed=isinstance(error, GeneratorExit | KeyboardInterrupt))
        raise


def _not_recorded(name: str, uploads: Uploads) -> RunsNotRecorded:
    return RunsNotRecorded(name, uploads.waiting, uploads.problem or "MLflow does not answer")


def _found_text(
    recorded: Sequence[RecordedRun], ended: Sequence[RecordedRun], altered: Sequence[str], *, again: bool
) -> str | None:
    """Say what of a study has ended before and is not trained again, and whose numbers are not what they were."""
    mended = [
        now.planned.name
        for now, before in zip(ended, recorded, strict=True)
        if before.outcome is Outcome.DONE and now is not before
    ]
    kept = sum(run.outcome is not None for run in ended) - sum(run.outcome is not None for run in recorded)
    failed = sum(run.outcome is Outcome.FAILED for run in ended)
    said = []
    if kept:
        said.append(f"{kept} runs have ended before in this state folder and are not trained again")
    if failed and not again:
        said.append(f"{failed} failed before; --retry-failed trains them again")
    if mended:
        said.append(
            f"MLflow had other metrics of {_few(mended)} than were measured, and has those of the run folders now"
        )
    if altered:
        said.append(
            f"result.json of {_few(altered)} in this state folder was changed since it was recorded, or MLflow was: "
            "MLflow counts"
        )
    return "; ".join(said) or None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tune(
    study: Study, execution: Execution, known: tuple[TunedVariant, ...], *, storage_url: str
) -> Generator[Progress, None, None]:
    """Tune the variants that have no settings yet, and freeze what was found in the study's record."""
    from ablation.coordinator.tuning import VariantTuning

    tuned = {variant.variant for variant in known}
    targets = [variant for variant in study.design_variants() if variant.name not in tuned]
    if not targets:
        execution.state.forget_tuning(study.name)  # of one that was killed when it had frozen what it found
        return
    assert execution.dataset is not None
    tuning = VariantTuning(study=study, execution=execution, dataset=execution.dataset, storage_url=storage_url)
    try:
        found = (*known, *(yield from tuning.tune(targets)))
    except BaseException:
        tuning.interrupt()
        raise
    if not execution.uploads.wait():
        raise _not_recorded(study.name, execution.uploads)
    plan = plan_of(_tuned(study, found), data=execution.dataset.facts, tuning=found)
    before = execution.record.plan
    plan = replace(
        plan,
        locked=before.locked,
        locked_hash=before.locked_hash,
        deviations=before.deviations,
        measured=before.measured,
        same_starts=before.same_starts,
    )
    execution.lease.open(plan)
    execution.state.forget_tuning(study.name)


def _tuned(study: Study, tuning: tuple[TunedVariant, ...]) -> Study:
    return study.tuned({variant.variant: variant.settings for variant in tuning}) if tuning else study


def sync_study(
    name: str, *, tracker: Tracker, storage_url: str, state: State, say: Callable[[str], object] = lambda _: None
) -> SyncOutcome:
    """Record what a study's executions have left in their folders, and report it where that makes it complete.

    `say` is told why it takes long, where it does.

    Raises:
        StateUnavailable, StudyUnknown, StudyLocked, StudyTakenOver, TrackingUnavailable, RunsNotRecorded.
    """
    from ablation.coordinator.lease import Lease
    from ablation.coordinator.uploads import Uploads
    from ablation.storage.locks import coordinating

    state.make()
    with coordinating(name, storage_url=storage_url, folder=state.locks):
        find_study(name, tracker=tracker)
        lease = Lease(name, tracker=tracker, state_folder=state.folder)
        if (why := lease.why_it_takes_long()) is not None:
            say(why)
        uploads = Uploads(tracker, lease)
        try:
            lease.take()
            return _synced(name, lease, uploads, tracker=tracker, state=state)
        finally:
            uploads.close()


def _synced(name: str, lease: Lease, uploads: Uploads, *, tracker: Tracker, state: State) -> SyncOutcome:
    from ablation.coordinator.uploads import recover_ended

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
    is_complete = all(run.outcome is not None for run in ended)
    if is_complete and (count or record.status != "FINISHED"):
        _conclude(lease, tracker=tracker, state=state)
    elif record.status == "RUNNING":
        lease.check()
        tracker.close_study(lease.record, "KILLED")
    return SyncOutcome(record=lease.record, recorded=count, to_do=sum(run.outcome is None for run in ended))


def summarize_study(name: str, *, tracker: Tracker, change: RuleChange | None = None) -> tuple[StudyRecord, Analysis]:
    """Analyse a study again, from what the tracker has and nothing else, by its locked rule or a changed one.

    Raises:
        StudyUnknown, NoResults, NameUnknown, TrackingUnavailable.
    """
    from ablation.analysis import analyse, with_rule

    record = find_study(name, tracker=tracker)
    plan = with_rule(record.plan, change) if change is not None else record.plan
    runs = tracker.recorded_runs(record)
    return record, analyse(plan, runs, left_out=tracker.left_out(record))


def compare_study(name: str, first: str, second: str, *, tracker: Tracker) -> Comparison:
    """Compare two variants of a recorded study.

    Raises:
        StudyUnknown, NameUnknown, TrackingUnavailable.
    """
    from ablation.analysis import compare_variants

    record = find_study(name, tracker=tracker)
    return compare_variants(record.plan, tracker.recorded_runs(record), first, second)


def export_study(name: str, *, tracker: Tracker, by_epoch: bool) -> DataFrame:
    """Return a recorded study's run table, or one with a row per epoch.

    Raises:
        StudyUnknown, TrackingUnavailable.
    """
    from ablation.analysis import epoch_table, run_table

    record = find_study(name, tracker=tracker)
    runs = tracker.recorded_runs(record, with_details=by_epoch)
    return (epoch_table if by_epoch else run_table)(record.plan, runs)


def find_study(name: str, *, tracker: Tracker) -> StudyRecord:
    """Return a recorded study.

    Raises:
        StudyUnknown: there is none of that name, and which names are near.
        StudyUnplanned, StudyDeleted: there was one, and nothing of it can be read.
    """
    record = tracker.find_study(name)
    if record is None:
        known = tracker.study_names()
        if name in known:
            raise StudyUnplanned(name)
        where = without_password(str(getattr(tracker, "tracking_uri", "this process")))
        if tracker.is_deleted(name):
            raise StudyDeleted(name, tracking_uri=where)
        near = nearest_names(name, known) or [other for other in known if other.startswith(f"{name}+")]
        raise StudyUnknown(name, tracking_uri=where, near=near, known=known)
    return record


def _prepare(study: Study, state: State) -> Dataset | None:
    """Return the study's data set, its splits checked; None where a training function of the user's reads its own."""
    from ablation.datasets import make_split, prepare

    if study.variants[0].settings["data"] is None:
        return None
    dataset = prepare(study.variants[0].settings["data"], cache=state.data, code=study.code)
    for variant in study.variants:
        make_split(dataset, variant.settings["data"], study_seed=study.spec.study_seed, seed=0)
    return dataset


def _conclude(lease: Lease, *, tracker: Tracker, state: State) -> StudyOutcome:
    """Report what there is and mark the study finished, or failed where a planned run has no result."""
    from ablation.report import answers_text, write_report

    lease.check()
    tracker.reconcile(lease.record)
    runs = tracker.recorded_runs(lease.record, with_details=False)
    ended = Counter(run.outcome for run in runs if run.outcome is not None)
    analysis, folder, name = None, None, lease.record.plan.name
    if ended:
        folder = state.report(name)
        _, analysis = summarize_study(name, tracker=tracker)
        write_report(analysis, folder)
        lease.check()
        tracker.log_report(lease.record, folder, summary=answers_text(analysis))
    is_complete = ended[Outcome.DONE] + ended[Outcome.DIVERGED] == len(lease.record.plan.runs)
    tracker.close_study(lease.record, "FINISHED" if is_complete else "FAILED")
    return StudyOutcome(record=lease.record, ended=ended, analysis=analysis, report=folder)


def _keep_code(study: Study, folder: Path) -> None:
    """Copy the study's own code to where its report will be: without it nobody else could train what was compared."""
    shutil.rmtree(folder, ignore_errors=True)
    names = {name for variant in study.variants for name in code_names(variant.settings)}
    for relative, file in study.code.files(names).items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / relative)
