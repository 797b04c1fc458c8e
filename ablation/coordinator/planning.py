"""Makes the plan of a study and holds it to what was locked before: models measured, runs identified, changes told."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.errors import DiskFull, StudyChanged, StudyNarrowed, VariantsAlike
from ablation.lookup import differences, few
from ablation.records import (
    DATA,
    KEPT_OUTPUTS,
    NOT_MEASURED,
    TASKS,
    DataFacts,
    DataShape,
    DeclaredMetric,
    LockedQuestion,
    ModelSummary,
    OtherData,
    Plan,
    PlannedRun,
    RecordedRun,
    TunedVariant,
    Variant,
)
from ablation.study import Study, locked_hash
from ablation.study.identity import without_places
from ablation.study.search_spaces import FROM_FILE, SETTINGS, TUNED

if TYPE_CHECKING:
    from ablation.storage.state import State
    from ablation.tracking import Tracker

_MOST_PROBES = 8
"""Runs that are looked up by themselves, to see whether another study has trained the same: first seeds of variants."""
BYTES = 4
"""Of a number."""
LITTLE = 2**20
"""Bytes of what a run leaves beside its model and its outputs, at most."""
CHECKPOINTS = 9
"""Copies of a model's parameters: two checkpoints and one being written, with two numbers of Adam's for each."""
NO_DATA = DataFacts(
    name="none",
    digest="none",
    shape=DataShape(channels=0, height=0, width=0, classes=()),
    train_images=0,
    test_images=0,
    largest_class_share=0.0,
)
"""Of a study whose training function reads its own data."""


def data_remarks(study: Study) -> tuple[str, ...]:
    """Say where a study's data was found, where that may surprise."""
    from ablation.datasets import remark_on_root

    sections = [variant.settings.data for variant in study.variants]
    roots = dict.fromkeys(data.root for data in sections if data is not None and data.root is not None)
    return tuple(remark for root in roots if (remark := remark_on_root(root, study.code.folders)) is not None)


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
    study: Study,
    *,
    data: DataFacts,
    tracker: Tracker,
    tuning: tuple[TunedVariant, ...] = (),
    state: State | None = None,
    other_data: tuple[OtherData, ...] = (),
) -> Plan:
    """Return the study's plan; what an earlier execution locked stays, and what differs from it is a deviation.

    So are results of its runs that could be seen before it was locked: those of other studies in the tracker, and
    those in the state folder, where that is given.

    Raises:
        StudyChanged: the baseline, data, training, tuning, metric or code is not what the study has results with.
        StudyNarrowed: runs of the study, which has results, would be left out.
    """
    plan = plan_of(study, data=data, tuning=tuning, other_data=other_data)
    previous = tracker.find_study(study.name)
    recorded = tracker.recorded_runs(previous, with_details=False) if previous is not None else ()
    results = sum(run.has_result for run in recorded)
    if previous is None or results == 0:
        return replace(plan, deviations=_seen_before(plan, tracker=tracker, state=state)) if plan.family else plan
    changed = {
        **differences(_fixed(previous.plan), _fixed(plan)),
        **_changed_data(previous.plan, plan),
        **_changed_reading(previous.plan, plan),
        **_changed_code(previous.plan, plan),
        **_changed_metrics(previous.plan, plan),
    }
    if changed:
        raise StudyChanged(study.name, changed)
    if left_out := _left_out(previous.plan, plan, recorded):
        raise StudyNarrowed(study.name, left_out)
    first, dropped = previous.plan.locked, _dropped(previous.plan, plan)
    return replace(
        plan,
        locked=replace(plan.locked, seeds=first.seeds, looks=first.looks, seed_indices=first.seed_indices),
        locked_hash=previous.plan.locked_hash,
        measured=previous.plan.measured,
        family=previous.plan.family or (_names(previous.plan) if dropped else ()),
        dropped=dropped,
        deviations=(*previous.plan.deviations, *_deviations(previous.plan, plan, results=results)),
    )


def _dropped(before: Plan, now: Plan) -> tuple[LockedQuestion, ...]:
    """Return the questions of the locked family that a plan does not ask, or not of all levels; each once."""
    asked = set(_names(now))
    family = {*(before.family or _names(before))} - asked
    dropped = [
        question
        for question in before.every_question
        if family.intersection(_names(replace(now, locked=replace(now.locked, questions=(question,)))))
    ]
    return tuple(question for index, question in enumerate(dropped) if question not in dropped[:index])


def _names(plan: Plan) -> tuple[str, ...]:
    from ablation.analysis import contrast_name, contrasts_of

    return tuple(map(contrast_name, contrasts_of(plan)))


def tuned_study(study: Study, tuning: tuple[TunedVariant, ...]) -> Study:
    """Return a study with the settings that tuning found, itself where nothing has been tuned yet."""
    return study.tuned({variant.variant: variant.settings for variant in tuning}) if tuning else study


def _seen_before(plan: Plan, *, tracker: Tracker, state: State | None) -> tuple[str, ...]:
    """Say which of a plan's runs had results before it was locked, under another name."""
    first = {run.variant: run.identity for run in reversed(plan.runs)}
    step = -(-len(first) // _MOST_PROBES)
    elsewhere = tracker.results_elsewhere(list(first.values())[::-step], name=plan.name)
    said = [
        _trained_before([run for run in plan.runs if run.identity in identities], plan, f"as study {study!r}")
        for study, identities in elsewhere.items()
    ]
    known = frozenset[str]().union(*elsewhere.values())
    kept = [
        run for run in plan.runs if state is not None and run.identity not in known and state.has_kept(run.identity)
    ]
    return (*said, *([_trained_before(kept, plan, "in this state folder")] if kept else []))


def _trained_before(runs: Sequence[PlannedRun], plan: Plan, where: str) -> str:
    seeds, variants = sorted({run.seed for run in runs}), list(dict.fromkeys(run.variant for run in runs))
    is_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    named = f"{seeds[0]} to {seeds[-1]}" if is_row else ", ".join(map(str, seeds))
    of = f"all {len(variants)} variants" if len(variants) == len(plan.variants) else few(variants)
    whole = len(seeds) * len(variants)
    counted = f" ({len(runs)} of these {whole} runs)" if len(runs) < whole else ""
    return (
        f"seed{'s' if len(seeds) > 1 else ''} {named} of {of}{counted} had results before the plan was locked, {where}"
    )


def frozen_plan(
    study: Study, before: Plan, *, tuning: tuple[TunedVariant, ...], tracker: Tracker, state: State
) -> Plan:
    """Return the plan of a study once its variants are tuned; what was locked before stays."""
    plan = plan_of(tuned_study(study, tuning), data=before.data, tuning=tuning, other_data=before.other_data)
    seen = () if before.tuning else _seen_before(plan, tracker=tracker, state=state)
    return replace(
        plan,
        locked=before.locked,
        locked_hash=before.locked_hash,
        deviations=(*before.deviations, *seen),
        measured=before.measured,
        same_starts=before.same_starts,
        family=before.family if before.tuning else plan.family,  # known once the first variants are tuned
        dropped=before.dropped,
    )


def plan_of(
    study: Study,
    *,
    data: DataFacts,
    tuning: tuple[TunedVariant, ...] = (),
    other_data: tuple[OtherData, ...] = (),
) -> Plan:
    """Return the plan of a study on its data, its models measured; nothing of an earlier execution counts.

    `data` is the baseline's, `other_data` what some variants are trained on instead.
    """
    others = {variant: other.facts for other in other_data for variant in other.variants}
    plan = replace(
        outline_of(study),
        summaries=measured_models(study, lambda variant: others.get(variant.name, data).shape),
        runs=study.runs(data_digest=data.digest, others={name: facts.digest for name, facts in others.items()}),
        data=data,
        other_data=other_data,
        code={variant.name: digest for variant in study.variants if (digest := study.code_digest(variant))},
        metric_code=study.metric_digests(),
        tuning=tuning,
        takes_model=study.is_own_training and trains_model(study),
    )
    is_settled = study.spec.tune is None or bool(tuning)
    return replace(plan, family=_names(plan)) if is_settled else plan


def outline_of(study: Study) -> Plan:
    """Return what a study asks, of which variants and by which rule, as a plan without runs: it reads no data."""
    now = study.locked()
    return Plan(
        study=study.spec.document(),
        variants=study.variants,
        summaries={},
        runs=(),
        data=NO_DATA,
        locked=now,
        locked_hash=locked_hash(now),
        measured=tuple(TASKS[study.spec.task].metrics),
    )


def power_remark(plan: Plan) -> str | None:
    """Say that a plan can decide nothing of interest, as far as that is so."""
    from ablation.analysis import StudyLooks
    from ablation.analysis.power import power_of
    from ablation.report.power_text import warning

    return warning(power_of(StudyLooks.of(plan, ())), questions=len(plan.locked.questions))


def _left_out(before: Plan, now: Plan, recorded: Sequence[RecordedRun]) -> list[str]:
    """Name the runs of the plan before that a plan may not lack: those that have ended, and a variant's that is gone.

    The last seeds may be left out where nothing was trained of them: the looks locked at first still judge the study.
    """
    planned, passed_over = {run.identity for run in now.runs}, _passed_over(before, now)
    kept = {run.variant for run in before.runs if run.identity in planned}
    ended = {run.planned.identity for run in recorded if run.outcome is not None}
    return [
        run.name
        for run in _settled_runs(before)
        if run.identity not in planned and (run.identity in ended or run.variant not in kept or run.seed in passed_over)
    ]


def _passed_over(before: Plan, now: Plan) -> set[int]:
    """Return the locked seeds that a plan lacks although it has later ones: a seed is not put in another's place."""
    order, planned = before.locked.order, set(now.seeds)
    kept = max((index + 1 for index, seed in enumerate(order) if seed in planned), default=0)
    is_replaced = bool(planned - {*before.seeds, *order})
    return {seed for seed in (order if is_replaced else order[:kept]) if seed not in planned}


def _settled_runs(plan: Plan) -> list[PlannedRun]:
    """Return the planned runs whose settings were final: not those of a variant that was still to be tuned."""
    endings = ("", f",{SETTINGS}={TUNED}", f",{SETTINGS}={FROM_FILE}")
    settled = {f"{variant.variant}{ending}" for variant in plan.tuning for ending in endings}
    is_tuning = bool(plan.study.get("tune"))
    return [run for run in plan.runs if not is_tuning or run.variant in settled]


def _asked(study: Study) -> dict[str, Any]:
    return _tuned_by(study.spec.document())


def _tuned_by(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a study's plain values say of its tuning: spaces, budget, and a metric of its own to judge it by."""
    by = (study.get("metric") or {}).get("validation")
    return {"tune": study.get("tune"), **({"metric.validation": by} if by and study.get("tune") else {})}


def _changed_code(before: Plan, now: Plan) -> dict[str, tuple[Any, Any]]:
    """Return the digests of the user's code by the variants, known already, of which it was edited."""
    known = {repr(variant.configuration): before.code.get(variant.name) for variant in before.variants}
    return {
        f"code of {variant.name}": (known[key], now.code.get(variant.name))
        for variant in now.variants
        if (key := repr(variant.configuration)) in known and known[key] != now.code.get(variant.name)
    }


def _changed_metrics(before: Plan, now: Plan) -> dict[str, tuple[Any, Any]]:
    """Return what was changed of metrics of the user's own that runs have values of: definitions, and their code."""
    known = {metric.name: metric for metric in before.own_metrics}
    both = [(known[metric.name], metric) for metric in now.own_metrics if metric.name in known]
    changed = {
        f"metrics.{new.name}.{key}": pair
        for old, new in both
        for key, pair in differences(old.plain(), new.plain()).items()
        if key != "epochs"  # it alters no value
    }
    digests = {new.name: (before.metric_code.get(new.name), now.metric_code.get(new.name)) for _, new in both}
    return {**changed, **{f"code of metrics.{name}": pair for name, pair in digests.items() if pair[0] != pair[1]}}


def _changed_data(before: Plan, now: Plan) -> dict[str, tuple[Any, Any]]:
    """Return the digests of data by the variants, known already, that are trained on other data than the baseline."""
    known = {_trained_as(variant): before.data_of(variant.name).digest for variant in before.variants}
    pairs = {
        other.name: (known.get(_trained_as(now.variant(other.variants[0]))), other.facts.digest)
        for other in now.other_data
    }
    return {f"data ({name})": pair for name, pair in pairs.items() if pair[0] not in (None, pair[1])}


def _trained_as(variant: Variant) -> str:
    """Return what tells a variant from the others of a plan: several data sets may differ in their roots alone."""
    data = [variant.levels[DATA]] if DATA in variant.levels else []
    return repr([variant.configuration, *data])


def _changed_reading(before: Plan, now: Plan) -> dict[str, tuple[Any, Any]]:
    """Return how the data's files were and are read, where that may be why the data is another one."""
    if before.data.digest == now.data.digest or before.data.notes == now.data.notes:
        return {}
    old, new = ("; ".join(plan.data.notes) or "no remarks" for plan in (before, now))
    return {"data as it is read": (old, new)}


def _fixed(plan: Plan) -> dict[str, Any]:
    configuration = without_places(plan.baseline.configuration)
    return {
        **configuration,
        "data": {**(configuration["data"] or {}), "digest": plan.data.digest},
        "metric": plan.locked.metric.plain(),
        **_tuned_by(plan.study),
    }


def _deviations(before: Plan, now: Plan, *, results: int) -> list[str]:
    """Say what differs from the plan of the execution before, which had so many results to look at."""
    seen = f"after {results} results could be seen"
    then, later = before.locked.plain(), now.locked.plain()
    said = [
        f"{key} changed from {old} to {new}, {seen}"
        for key, old, new in (
            ("seeds", before.replicates_text, now.replicates_text),
            *((key, then[key], later[key]) for key in ("questions", "alpha", "collapse_margin")),
        )
        if old != new
    ]
    known = {_trained_as(variant) for variant in before.variants}  # Python calls 1 and true equal
    added = [variant.name for variant in now.variants if _trained_as(variant) not in known]
    family, asked = {*before.family, *_names(before)}, set(_names(now))
    dropped = [name for name in _names(before) if name in family - asked]
    return [
        *said,
        *_changed_list("metrics", before.own_metrics, now.own_metrics, seen=seen),
        *([f"variants added: {'; '.join(added)}, {seen}"] if added else []),
        *([f"asked no more: {'; '.join(dropped)}, {seen}; alpha stays shared with them"] if dropped else []),
    ]


def _changed_list(
    what: str, before: Sequence[DeclaredMetric], now: Sequence[DeclaredMetric], *, seen: str
) -> list[str]:
    """Say which metrics of the user's own were added and removed."""
    then, later = ([metric.name for metric in metrics] for metrics in (before, now))
    added, removed = ([name for name in one if name not in other] for one, other in ((later, then), (then, later)))
    return [
        f"{what} {how}: {', '.join(names)}, {seen}" for how, names in (("added", added), ("removed", removed)) if names
    ]


def measured_models(study: Study, shape_of: Callable[[Variant], DataShape]) -> dict[str, ModelSummary]:
    """Measure each variant's model for its data; variants that differ only in their parts must come out different.

    What a user's training function trains is not measured, but where it takes the study's model.

    Raises:
        VariantsAlike: two have the same layers, so one of them is the model unchanged.
    """
    from ablation.models import build_model, summarize_model

    is_trained = trains_model(study)

    def size(variant: Variant) -> ModelSummary:
        model, shape = variant.settings.model, shape_of(variant)
        if not is_trained or model is None or shape == NO_DATA.shape:
            return NOT_MEASURED
        found = summarize_model(lambda: build_model(replace(model, frozen=()), shape, code=study.code), shape)
        if not model.frozen:
            return found
        frozen = summarize_model(lambda: build_model(model, shape, code=study.code), shape)
        return replace(found, trainable=frozen.parameters)

    sizes = {variant.name: size(variant) for variant in study.variants}
    first: dict[str, Variant] = {}
    for variant in study.variants:
        twin = first.setdefault(repr((_beside_parts(variant), sizes[variant.name].layers)), variant)
        if twin is not variant and sizes[variant.name].layers:
            raise VariantsAlike(twin.name, variant.name)
    return sizes


def trains_model(study: Study) -> bool:
    """Whether the study's model is what is trained: always by the engine, by a training function where it takes it.

    Raises:
        CodeInvalid: the training function cannot be imported or called.
    """
    if not study.is_own_training:
        return True
    from ablation.worker.own_training import load_training

    settings = study.variants[0].settings
    return settings.data is not None and load_training(settings, study.code).call.takes("model")


def _beside_parts(variant: Variant) -> dict[str, Any]:
    """Return all of a variant's configuration but for the modules that it removes and replaces, and its settings."""
    configuration = {**variant.configuration, "data set": variant.levels.get(DATA)}
    model = configuration.get("model") or {}
    configuration["model"] = {key: value for key, value in model.items() if key not in ("remove", "replace")}
    return {**configuration, "levels": variant.levels.get("settings")}


def check_room(plan: Plan, folder: Path, *, at_once: int) -> None:
    """See that there is room for what the runs of a plan leave, and for the checkpoints of so many at once.

    Raises:
        DiskFull: there is not, and how much is needed.
    """
    answers = max(
        max((test for _, test in data.fold_sizes), default=data.test_images) * math.prod(data.shape.output_shape)
        for data in plan.data_sets
    )
    if TASKS[plan.task].has_positions:
        answers = min(answers, KEPT_OUTPUTS // BYTES)
    parameters = max((summary.parameters for summary in plan.summaries.values()), default=0)
    kept = sum(
        LITTLE + BYTES * (plan.summaries[run.variant].parameters + answers)
        for run in plan.runs_to_train()
        if not (folder / "runs" / run.identity).exists()
    )
    needed = kept + at_once * CHECKPOINTS * BYTES * parameters
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(folder, f"the study needs about {size_text(needed)}, and {size_text(free)} are free")


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
