"""The story of a study: load → plan → schedule → run → analyse → report. Read this first.

`run_study` is the whole of it. What it needs from outside (an executor, a tracker) it is given, so a dry run and the
tests take others. torch is imported only where something is trained or counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import StudyChanged, StudyNarrowed, StudyUnknown
from ablation.lookup import differences, nearest_names
from ablation.results import DataFacts, DataShape, ModelSummary, Outcome, Plan
from ablation.state import State
from ablation.study import Study, locked_hash

if TYPE_CHECKING:
    from pandas import DataFrame

    from ablation.analysis import Analysis, Comparison, RuleChange
    from ablation.execution import Progress
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
        StudyChanged, StudyNarrowed: the study has results that this would contradict or leave out.
        StudyLocked: another process is running it.
        TrackingUnavailable, StorageUnavailable: what was trained is kept, and recorded by the next execution.
    """
    from ablation.datasets import make_split, prepare
    from ablation.execution import Execution
    from ablation.locks import coordinating, sqlite_path
    from ablation.scheduling import open_schedule

    dataset = prepare(study.variants[0].settings["data"], cache=state.data)
    sizes = _summaries(study, dataset.facts.shape)
    for variant in study.variants:
        make_split(dataset, variant.settings["data"], study_seed=study.spec.study_seed, seed=0)
    database = sqlite_path(storage_url)
    with coordinating(study.name, database.parent / "locks" if database is not None else state.locks):
        plan = lock_plan(study, data=dataset.facts, sizes=sizes, tracker=tracker)
        record = tracker.open_study(plan)
        execution = Execution(record=record, tracker=tracker, executor=executor, state=state, dataset=dataset)
        try:
            recorded = execution.recover_finished()
            schedule = open_schedule(storage_url, plan, recorded)
            yield from execution.train(schedule, recorded)
            outcome = _conclude(record, tracker=tracker, state=state)
        except BaseException as error:
            execution.interrupt(killed=isinstance(error, GeneratorExit | KeyboardInterrupt))
            raise
        return outcome


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
        StudyChanged: the baseline, data, training or metric is not what the study has results with.
        StudyNarrowed: runs of the study, which has results, would be left out.
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
    recorded = tracker.recorded_runs(previous, with_details=False)
    results = sum(run.has_result for run in recorded)
    if results == 0:
        return plan
    changed = differences(_fixed(previous.plan), _fixed(plan))
    if changed:
        raise StudyChanged(study.name, changed)
    planned = {run.identity for run in plan.runs}
    left_out = [run.name for run in previous.plan.runs if run.identity not in planned]
    if left_out:
        raise StudyNarrowed(study.name, left_out)
    return replace(
        plan,
        locked={**now, "seeds": previous.plan.locked["seeds"]},
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
    known = [variant.configuration for variant in before.variants]
    added = [variant.name for variant in now.variants if variant.configuration not in known]
    return [*said, *([f"variants added: {'; '.join(added)}, {seen}"] if added else [])]


def _summaries(study: Study, shape: DataShape) -> dict[str, ModelSummary]:
    from ablation.models import build_model, summarize_model

    def size(settings: Mapping[str, Any]) -> ModelSummary:
        return summarize_model(lambda: build_model(settings["model"], shape), shape)

    return {variant.name: size(variant.settings) for variant in study.variants}


def _conclude(record: StudyRecord, *, tracker: Tracker, state: State) -> StudyOutcome:
    """Report what there is and mark the study finished, or failed where a planned run has no result."""
    from ablation.report import answers_text, write_report

    runs = tracker.recorded_runs(record, with_details=False)
    ended = Counter(run.outcome for run in runs if run.outcome is not None)
    analysis, folder = None, None
    if ended:
        folder = state.report(record.plan.name)
        _, analysis = summarize_study(record.plan.name, tracker=tracker)
        write_report(analysis, folder)
        tracker.log_report(record, folder, summary=answers_text(analysis))
    is_complete = ended[Outcome.DONE] + ended[Outcome.DIVERGED] == len(record.plan.runs)
    tracker.close_study(record, "FINISHED" if is_complete else "FAILED")
    return StudyOutcome(record=record, ended=ended, analysis=analysis, report=folder)
