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

from ablation.errors import NoModel, StudyChanged, StudyNarrowed, StudyUnknown, VariantsAlike
from ablation.lookup import differences, nearest_names
from ablation.results import (
    Component,
    DataFacts,
    DataOutline,
    DataShape,
    ModelSummary,
    Outcome,
    Plan,
    PlannedRun,
    TunedVariant,
    Variant,
)
from ablation.state import State
from ablation.study import Study, locked_hash

if TYPE_CHECKING:
    from pandas import DataFrame

    from ablation.analysis import Analysis, Comparison, RuleChange
    from ablation.datasets import Dataset
    from ablation.execution import Execution, Progress
    from ablation.executors import Executor
    from ablation.models import ModelChanges
    from ablation.tracking import StudyRecord, Tracker

NO_DATA = DataFacts(
    name="none",
    digest="none",
    shape=DataShape(channels=0, height=0, width=0, classes=()),
    train_images=0,
    test_images=0,
    largest_class_share=0.0,
)
"""Of a study whose training function reads its own data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOutcome:
    """What an execution of a study left: its record, its analysis (None where nothing has a result), its report."""

    record: StudyRecord
    ended: Mapping[Outcome, int]
    analysis: Analysis | None
    report: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantPreview:
    """A variant before anything is trained; `seconds` estimates one run of it, None where it was not measured.

    `changes` says what its model has lost and gained beside the baseline's.
    """

    name: str
    levels: Mapping[str, Any]
    size: ModelSummary
    changes: ModelChanges
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A study before it costs anything."""

    study: Study
    variants: tuple[VariantPreview, ...]

    @property
    def runs(self) -> int:
        return len(self.variants) * self.study.spec.seeds

    @property
    def tuning_runs(self) -> int:
        """How many runs tuning trains at most, before any is compared."""
        tune = self.study.spec.tune
        return len(self.study.design_variants()) * tune.trials * tune.seeds if tune is not None else 0


def preview_study(study: Study, *, state: State, device: str | None) -> Preview:
    """Count a study's parameters and FLOPs, and time a few steps of each variant where a device is given.

    It reads of the data set only what it must to know its shape and size, and writes nothing. A training function of
    the user's is not timed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, ComponentInvalid, CodeInvalid, VariantsAlike, DeviceUnavailable: the
            study cannot run here.
    """
    from ablation.models import model_changes
    from ablation.worker import estimate_seconds

    outline = _outline(study, state)
    sizes = _summaries(study, outline.shape)
    is_timed = device is not None and "name" not in study.spec.settings()["training"]
    variants = tuple(
        VariantPreview(
            name=variant.name,
            levels=variant.levels,
            size=sizes[variant.name],
            changes=model_changes(sizes[study.variants[0].name], sizes[variant.name]),
            seconds=estimate_seconds(variant.settings, outline, device=device, code=study.code)
            if is_timed and device is not None
            else None,
        )
        for variant in study.variants
    )
    return Preview(study=study, variants=variants)


def study_components(study: Study, *, state: State) -> tuple[Component, ...]:
    """Return the modules of the baseline's model: what each costs, and whether it can be removed.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, CodeInvalid: the model cannot be built for the study's data.
        NoModel: the study has none, as a training function of the user's makes its own.
    """
    from ablation.models import build_model, list_components

    settings = study.variants[0].settings["model"]
    if settings is None or study.variants[0].settings["data"] is None:
        raise NoModel(study.name)
    shape = _outline(study, state).shape
    return list_components(lambda: build_model(settings, shape, code=study.code), shape)


def _outline(study: Study, state: State) -> DataOutline:
    from ablation.datasets import describe

    data = study.variants[0].settings["data"]
    if data is None:
        return DataOutline(shape=NO_DATA.shape, train_images=0, test_images=0)
    return describe(data, cache=state.data, code=study.code)


def run_study(
    study: Study, *, tracker: Tracker, executor: Executor, storage_url: str, state: State
) -> Generator[Progress, None, StudyOutcome]:
    """Run a study, or what is left of it, and report it; yield where it stands about twice a second.

    Closing the generator, or an exception, ends the execution in good order: the same call goes on later.

    Raises:
        DataUnavailable, DataInvalid, ModelInvalid, ComponentInvalid, CodeInvalid, VariantFails, VariantsAlike: before
            anything is created.
        StudyChanged, StudyNarrowed: the study has results that this would contradict or leave out.
        StudyLocked: another process is running it.
        TuningFailed: a variant has no settings to be compared with.
        TrackingUnavailable, StorageUnavailable: what was trained is kept, and recorded by the next execution.
    """
    from ablation.execution import Execution
    from ablation.locks import coordinating, sqlite_path
    from ablation.scheduling import open_schedule

    dataset = _prepare(study, state)
    _try_variants(study, dataset)
    database = sqlite_path(storage_url)
    with coordinating(study.name, database.parent / "locks" if database is not None else state.locks):
        known = tuning_on_record(study, tracker=tracker)
        plan = lock_plan(_tuned(study, known), dataset=dataset, tracker=tracker, tuning=known)
        record = tracker.open_study(plan)
        execution = Execution(
            record=record,
            tracker=tracker,
            executor=executor,
            state=state,
            dataset=dataset,
            code=study.code,
            code_digests={variant.name: study.code_digest(variant) for variant in study.variants},
        )
        try:
            if study.spec.tune is not None:
                record = yield from _tune(study, execution, known, storage_url=storage_url)
            recorded = execution.recover_finished()
            schedule = open_schedule(storage_url, record.plan, recorded)
            yield from execution.train(schedule, recorded)
            outcome = _conclude(record, tracker=tracker, state=state)
        except BaseException as error:
            execution.interrupt(killed=isinstance(error, GeneratorExit | KeyboardInterrupt))
            raise
        return outcome


def _tune(
    study: Study, execution: Execution, known: tuple[TunedVariant, ...], *, storage_url: str
) -> Generator[Progress, None, StudyRecord]:
    """Tune the variants that have no settings yet, freeze what was found, and return the study's record with it."""
    from ablation.tuning import VariantTuning

    tuned = {variant.variant for variant in known}
    targets = [variant for variant in study.design_variants() if variant.name not in tuned]
    if not targets:
        return execution.record
    assert execution.dataset is not None
    tuning = VariantTuning(study=study, execution=execution, dataset=execution.dataset, storage_url=storage_url)
    try:
        found = (*known, *(yield from tuning.tune(targets)))
    except BaseException:
        tuning.interrupt()
        raise
    plan = _plan(_tuned(study, found), dataset=execution.dataset, tuning=found)
    before = execution.record.plan
    plan = replace(plan, locked=before.locked, locked_hash=before.locked_hash, deviations=before.deviations)
    execution.record = execution.tracker.open_study(plan)
    return execution.record


def _tuned(study: Study, tuning: tuple[TunedVariant, ...]) -> Study:
    return study.tuned({variant.variant: variant.settings for variant in tuning}) if tuning else study


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


def tuning_on_record(study: Study, *, tracker: Tracker) -> tuple[TunedVariant, ...]:
    """Return the tuning that an earlier execution finished, of the variants that the study still has.

    A study that tunes otherwise than it did has none; where it has results, `lock_plan` refuses that.
    """
    previous = tracker.find_study(study.name) if study.spec.tune is not None else None
    if previous is None or differences(_fixed(previous.plan), {**_fixed(previous.plan), **_asked(study)}):
        return ()
    names = {variant.name for variant in study.design_variants()}
    return tuple(variant for variant in previous.plan.tuning if variant.variant in names)


def lock_plan(
    study: Study, *, dataset: Dataset | None, tracker: Tracker, tuning: tuple[TunedVariant, ...] = ()
) -> Plan:
    """Return the study's plan; what an earlier execution locked stays, and what differs from it is a deviation.

    Raises:
        StudyChanged: the baseline, data, training, tuning or metric is not what the study has results with.
        StudyNarrowed: runs of the study, which has results, would be left out.
    """
    plan = _plan(study, dataset=dataset, tuning=tuning)
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
    left_out = [run.name for run in _settled_runs(previous.plan) if run.identity not in planned]
    if left_out:
        raise StudyNarrowed(study.name, left_out)
    return replace(
        plan,
        locked={**plan.locked, "seeds": previous.plan.locked["seeds"]},
        locked_hash=previous.plan.locked_hash,
        deviations=(*previous.plan.deviations, *_deviations(previous.plan, plan, results=results)),
    )


def _plan(study: Study, *, dataset: Dataset | None, tuning: tuple[TunedVariant, ...]) -> Plan:
    facts = dataset.facts if dataset is not None else NO_DATA
    now = study.locked()
    return Plan(
        study=study.spec.document(),
        variants=study.variants,
        summaries=_summaries(study, facts.shape),
        runs=study.runs(data_digest=facts.digest),
        data=facts,
        locked=now,
        locked_hash=locked_hash(now),
        tuning=tuning,
    )


def _settled_runs(plan: Plan) -> list[PlannedRun]:
    """Return the planned runs whose settings were final: not those of a variant that was still to be tuned."""
    tuned = {variant.variant for variant in plan.tuning}
    is_tuning = bool(plan.study.get("tune"))
    return [run for run in plan.runs if not is_tuning or run.variant.partition(",settings=")[0] in tuned]


def _asked(study: Study) -> dict[str, Any]:
    return {"tune": study.spec.document().get("tune")}


def _fixed(plan: Plan) -> dict[str, Any]:
    return {
        **plan.baseline.configuration,
        "data": {**(plan.baseline.configuration["data"] or {}), "digest": plan.data.digest},
        "metric": plan.locked["metric"],
        "tune": plan.study.get("tune"),
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


def _prepare(study: Study, state: State) -> Dataset | None:
    """Return the study's data set, its splits checked; None where a training function of the user's reads its own."""
    from ablation.datasets import make_split, prepare

    if study.variants[0].settings["data"] is None:
        return None
    dataset = prepare(study.variants[0].settings["data"], cache=state.data, code=study.code)
    for variant in study.variants:
        make_split(dataset, variant.settings["data"], study_seed=study.spec.study_seed, seed=0)
    return dataset


def _try_variants(study: Study, dataset: Dataset | None) -> None:
    """Train one batch of each variant that is not all built in, so that what is wrong with it is said at once."""
    from ablation.worker import needs_trying, try_variant

    for variant in study.design_variants():
        if needs_trying(variant.settings):
            try_variant(variant, dataset, code=study.code)


def _summaries(study: Study, shape: DataShape) -> dict[str, ModelSummary]:
    """Measure each variant's model; variants that differ only in their parts must come out different.

    Raises:
        VariantsAlike: two have the same layers, so one of them is the model unchanged.
    """
    from ablation.models import build_model, summarize_model

    def size(settings: Mapping[str, Any]) -> ModelSummary:
        if settings["model"] is None or shape == NO_DATA.shape:
            return ModelSummary(parameters=0, flops=0, layers=())
        return summarize_model(lambda: build_model(settings["model"], shape, code=study.code), shape)

    sizes = {variant.name: size(variant.settings) for variant in study.variants}
    first: dict[str, Variant] = {}
    for variant in study.variants:
        twin = first.setdefault(repr((_beside_parts(variant), sizes[variant.name].layers)), variant)
        if twin is not variant and sizes[variant.name].layers:
            raise VariantsAlike(twin.name, variant.name)
    return sizes


def _beside_parts(variant: Variant) -> dict[str, Any]:
    """Return all of a variant's configuration but for the modules that it removes and replaces, and its settings."""
    configuration = dict(variant.configuration)
    model = configuration.get("model") or {}
    configuration["model"] = {key: value for key, value in model.items() if key not in ("remove", "replace")}
    return {**configuration, "levels": variant.levels.get("settings")}


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
