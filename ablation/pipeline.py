"""The story of a study: load → plan → schedule → run → analyse → report. Read this first.

`run_study` is the whole of it. What it needs from outside (an executor, a tracker) it is given, so a dry run and the
tests take others. torch is imported only where something is trained or counted.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import NoResults, StudyChanged, StudyUnknown
from ablation.lookup import differences, nearest_names
from ablation.provenance import provenance
from ablation.results import DataFacts, EpochMetrics, ModelSummary, Outcome, Plan, PlannedRun, RecordedRun, RunResult
from ablation.run_folder import RunFolder
from ablation.study import Study, locked_hash

if TYPE_CHECKING:
    from ablation.analysis import Analysis
    from ablation.datasets import Dataset
    from ablation.executors import Executor
    from ablation.scheduling import Schedule
    from ablation.tracking import StudyRecord, Tracker

POLL_S = 0.5
MAX_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The state folder: data caches, run folders, locks and reports; Optuna's database unless it is elsewhere."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def locks(self) -> Path:
        return self.folder / "locks"

    def run(self, identity: str) -> RunFolder:
        return RunFolder(path=self.folder / "runs" / identity)

    def report(self, study: str) -> Path:
        return self.folder / "reports" / study


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a study stands: how its runs ended so far, what is under way, and the run that ended just now."""

    planned: int
    ended: Mapping[Outcome, int]
    running: tuple[tuple[PlannedRun, EpochMetrics | None], ...]
    latest: tuple[PlannedRun, RunResult] | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What an execution of a study left: its record, its analysis (None where nothing has a result), its report."""

    record: StudyRecord
    ended: Mapping[Outcome, int]
    analysis: Analysis | None
    report: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """A variant before anything is trained; `seconds` estimates one run of it, None where it was not measured."""

    name: str
    levels: Mapping[str, Any]
    size: ModelSummary
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A study before it costs anything."""

    study: Study
    variants: tuple[VariantPreview, ...]

    @property
    def runs(self) -> int:
        return len(self.variants) * self.study.spec.seeds


def preview_study(study: Study, *, state: State, device: str | None) -> Preview:
    """Count a study's parameters and FLOPs, and time a few steps of each variant where a device is given.

    It reads of the data set only what it must to know its shape and size, and writes nothing.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, DeviceUnavailable: the study cannot run here.
    """
    from ablation.datasets import describe
    from ablation.worker import estimate_seconds

    data = study.variants[0].settings["data"]
    outline = describe(data, cache=state.data)
    sizes = _summaries(study, outline.shape)
    variants = tuple(
        VariantPreview(
            name=variant.name,
            levels=variant.levels,
            size=sizes[variant.name],
            seconds=estimate_seconds(variant.settings, outline, device=device) if device is not None else None,
        )
        for variant in study.variants
    )
    return Preview(study=study, variants=variants)


def run_study(
    study: Study, *, tracker: Tracker, executor: Executor, storage_url: str, state: State
) -> Generator[Progress, None, StudyOutcome]:
    """Run a study, or what is left of it, and report it; yield where it stands about twice a second.

    Closing the generator, or an exception, ends the execution in good order: the same call goes on later.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid: before anything is created.
        StudyChanged: the study was begun with other settings.
        StudyLocked: another process is running it.
        TrackingUnavailable, StorageUnavailable: what was trained is kept, and recorded by the next execution.
    """
    from ablation.datasets import prepare
    from ablation.locks import coordinating
    from ablation.scheduling import open_schedule

    dataset = prepare(study.variants[0].settings["data"], cache=state.data)
    sizes = _summaries(study, dataset.facts.shape)
    with coordinating(study.name, state.locks):
        plan = lock_plan(study, data=dataset.facts, sizes=sizes, tracker=tracker)
        record = tracker.open_study(plan)
        execution = _Execution(record=record, tracker=tracker, executor=executor, state=state, dataset=dataset)
        try:
            recorded = execution.recover_finished()
            schedule = open_schedule(storage_url, plan, recorded)
            yield from execution.train(schedule, recorded)
            outcome = _conclude(record, tracker=tracker, state=state)
        except BaseException as error:
            execution.interrupt(killed=isinstance(error, GeneratorExit | KeyboardInterrupt))
            raise
        return outcome


def summarize_study(name: str, *, tracker: Tracker, folder: Path) -> tuple[StudyRecord, Analysis]:
    """Make a study's report again in `folder`, from what the tracker has and nothing else.

    Raises:
        StudyUnknown, NoResults, TrackingUnavailable.
    """
    from ablation.analysis import analyse
    from ablation.report import write_report

    record = find_study(name, tracker=tracker)
    runs = tracker.recorded_runs(record)
    if not any(run.outcome for run in runs):
        raise NoResults(name)
    analysis = analyse(record.plan, runs)
    write_report(analysis, folder)
    return record, analysis


def find_study(name: str, *, tracker: Tracker) -> StudyRecord:
    """Return a recorded study.

    Raises:
        StudyUnknown: there is none of that name, and which names are near.
    """
    record = tracker.find_study(name)
    if record is None:
        known = tracker.study_names()
        where = str(getattr(tracker, "tracking_uri", "this process"))
        raise StudyUnknown(name, tracking_uri=where, near=nearest_names(name, known) or list(known[:5]))
    return record


def lock_plan(study: Study, *, data: DataFacts, sizes: Mapping[str, ModelSummary], tracker: Tracker) -> Plan:
    """Return the study's plan; what an earlier execution locked stays, and what differs from it is a deviation.

    Raises:
        StudyChanged: the baseline, data, training or metric is not what the study was begun with.
    """
    now = study.locked()
    plan = Plan(
        study=study.spec.model_dump(mode="json"),
        variants=study.variants,
        summaries=sizes,
        runs=study.runs(data_digest=data.digest),
        data=data,
        locked=now,
        locked_hash=locked_hash(now),
    )
    previous = tracker.find_study(study.name)
    if previous is None:
        return plan
    changed = differences(_fixed(previous.plan), _fixed(plan))
    if changed:
        raise StudyChanged(study.name, changed)
    results = sum(run.outcome is not None for run in tracker.recorded_runs(previous, with_details=False))
    if results == 0:
        return plan
    return replace(
        plan,
        locked={**now, "seeds": min(previous.plan.locked["seeds"], now["seeds"])},
        locked_hash=previous.plan.locked_hash,
        deviations=(*previous.plan.deviations, *_deviations(previous.plan, plan, results=results)),
    )


def _fixed(plan: Plan) -> dict[str, Any]:
    return {
        **plan.baseline.configuration,
        "data": {**plan.baseline.configuration["data"], "digest": plan.data.digest},
        "metric": plan.locked["metric"],
    }


def _deviations(before: Plan, now: Plan, *, results: int) -> list[str]:
    """Say what differs from the plan of the execution before, which had so many results to look at."""
    seen = f"after {results} results could be seen"
    said = [
        f"{key} changed from {old} to {new}, {seen}"
        for key, old, new in (
            ("seeds", before.study["seeds"], now.study["seeds"]),
            *((key, before.locked[key], now.locked[key]) for key in ("questions", "alpha", "collapse_margin")),
        )
        if old != new
    ]
    known = {variant.name for variant in before.variants}
    added = [variant.name for variant in now.variants if variant.name not in known]
    return [*said, *([f"variants added: {'; '.join(added)}, {seen}"] if added else [])]


def _summaries(study: Study, shape: Any) -> dict[str, ModelSummary]:
    from ablation.models import build_model, summarize_model

    def size(settings: Mapping[str, Any]) -> ModelSummary:
        return summarize_model(lambda: build_model(settings["model"], shape), shape)

    return {variant.name: size(variant.settings) for variant in study.variants}


def _conclude(record: StudyRecord, *, tracker: Tracker, state: State) -> StudyOutcome:
    """Report what there is and mark the study finished, or failed where a planned run has no result."""
    from ablation.report import answers_text

    runs = tracker.recorded_runs(record, with_details=False)
    ended = Counter(run.outcome for run in runs if run.outcome is not None)
    analysis, folder = None, None
    if ended:
        folder = state.report(record.plan.name)
        _, analysis = summarize_study(record.plan.name, tracker=tracker, folder=folder)
        tracker.log_report(record, folder, summary=answers_text(analysis))
    is_complete = ended[Outcome.DONE] + ended[Outcome.DIVERGED] == len(record.plan.runs)
    tracker.close_study(record, "FINISHED" if is_complete else "FAILED")
    return StudyOutcome(record=record, ended=ended, analysis=analysis, report=folder)


@dataclass(slots=True, kw_only=True)
class _Under:
    """A run under way: where its job runs, what the tracker calls it, and which try it is."""

    planned: PlannedRun
    run_id: str
    slot: str
    attempt: int


@dataclass(slots=True, kw_only=True)
class _Execution:
    """One execution of a study: what is under way, and how what has ended ended."""

    record: StudyRecord
    tracker: Tracker
    executor: Executor
    state: State
    dataset: Dataset
    running: dict[Future[RunResult], _Under] = field(default_factory=dict)
    ended: Counter[Outcome] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)

    def recover_finished(self) -> tuple[RecordedRun, ...]:
        """Record the runs that are finished in their folders and unknown to the tracker; return all as recorded."""
        plan = self.record.plan
        recorded = self.tracker.recorded_runs(self.record, with_details=False)
        recovered = False
        for run in recorded:
            folder = self.state.run(run.planned.identity)
            result = folder.result() if not _has_result(run) else None
            if result is not None:
                from ablation.worker import upload

                run_id = self.tracker.start_run(self.record, run.planned, provenance("from its folder"))
                upload(folder, result, tracker=self.tracker, run_id=run_id, heldout_split=plan.heldout_split)
                recovered = True
        return self.tracker.recorded_runs(self.record, with_details=False) if recovered else recorded

    def train(self, schedule: Schedule, recorded: tuple[RecordedRun, ...]) -> Generator[Progress, None, None]:
        """Train what the schedule has left, as many at a time as the executor has slots."""
        self.ended.update(run.outcome for run in recorded if run.outcome is not None and _has_result(run))
        free = deque(self.executor.slots)
        yield self._progress()
        while True:
            while free and (planned := schedule.next_run()) is not None:
                self._submit(planned, free.popleft())
            if not self.running:
                return
            ended, _ = wait(self.running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            for future in ended:
                under = self.running.pop(future)
                free.append(under.slot)
                yield self._settle(future, under, schedule)
            yield self._progress()

    def interrupt(self, *, killed: bool) -> None:
        """End what is under way and say so in the tracker, as far as it can be reached."""
        self.executor.stop()
        try:
            for under in self.running.values():
                self.tracker.abandon_run(under.run_id)
            self.tracker.close_study(self.record, "KILLED" if killed else "FAILED")
        except Exception:  # noqa: BLE001, S110 - the error that brought us here is the one to be seen
            pass

    def _submit(self, planned: PlannedRun, slot: str) -> None:
        from ablation.worker import Job, run_job

        self.attempts[planned.identity] += 1
        variant = next(variant for variant in self.record.plan.variants if variant.name == planned.variant)
        run_id = self.tracker.start_run(self.record, planned, provenance(slot))
        job = Job(
            planned=planned,
            run_id=run_id,
            settings=variant.settings,
            heldout_split=self.record.plan.heldout_split,
            data_folder=self.dataset.folder,
            folder=self.state.run(planned.identity),
            tracker=self.tracker,
            device=slot,
        )
        under = _Under(planned=planned, run_id=run_id, slot=slot, attempt=self.attempts[planned.identity])
        self.running[self.executor.submit(run_job, job)] = under

    def _settle(self, future: Future[RunResult], under: _Under, schedule: Schedule) -> Progress:
        """Take a job's result; a run whose worker died is tried again, a few times, before it counts as failed."""
        from ablation.executors import is_worker_lost

        error = future.exception()
        if error is None:
            result = future.result()
        elif not is_worker_lost(error):
            raise error
        elif under.attempt < MAX_TRIES:
            schedule.release(under.planned)
            return self._progress(note=f"{under.planned.name}: its worker died; it will be trained again")
        else:
            lost = f"its worker died {MAX_TRIES} times, the last time with: {error}"
            result = RunResult(
                identity=under.planned.identity, outcome=Outcome.FAILED, metrics={}, epochs=0, error=lost
            )
            self.tracker.finish_run(under.run_id, result, None)
        self.ended[result.outcome] += 1
        metric = self.record.plan.locked["metric"]["name"]
        epochs = self.state.run(under.planned.identity).epochs()
        schedule.tell(under.planned, outcome=result.outcome, value=result.metrics.get(metric), epochs=epochs)
        return self._progress(latest=(under.planned, result))

    def _progress(self, *, latest: tuple[PlannedRun, RunResult] | None = None, note: str | None = None) -> Progress:
        running = []
        for under in self.running.values():
            epochs = self.state.run(under.planned.identity).epochs()
            running.append((under.planned, epochs[-1] if epochs else None))
        return Progress(
            planned=len(self.record.plan.runs),
            ended=dict(self.ended),
            running=tuple(running),
            latest=latest,
            note=note,
        )


def _has_result(run: RecordedRun) -> bool:
    return run.outcome in (Outcome.DONE, Outcome.DIVERGED)
