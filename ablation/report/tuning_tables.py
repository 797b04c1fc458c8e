"""Lays out how variants were tuned before they were compared: spaces, budget, what was found, at which cost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, MeasuredMetric
from ablation.records import SIGNS, TASKS, TunedVariant, TuningTrial, declared_metrics, directions_of
from ablation.report.limits import shown_interval
from ablation.report.names import comparison_text
from ablation.report.numbers import (
    NONE,
    differences_text,
    duration_text,
    unit_of_differences,
    value_text,
)
from ablation.report.prose.amounts import difference_decimals
from ablation.report.prose.verdicts import verdict_text
from ablation.report.table import Table, interval_cell
from ablation.report.tables import interval_head, interval_mark
from ablation.study.level_names import level_text, short_names
from ablation.study.search_spaces import FIRST_TUNING_SEED, FROM_FILE, SETTINGS, TUNED

_SAMPLERS = {"tpe": "TPE sampler", "random": "random sampler"}
_PRUNERS = {
    "median": "the median pruner stops a trial early that is behind the median of the earlier ones",
    "none": "no trial is stopped early",
}
_KINDS = {"log": "on a log scale", "linear": "on a linear scale", "integers": "among whole numbers"}
_BUDGET = ("trials", "seeds", "sampler", "pruner", "also_untuned")


def objective(analysis: Analysis) -> MeasuredMetric:
    """Return what the trials are judged by."""
    filed = analysis.study.get("metric") or {}
    compared = filed.get("name", analysis.metric.name)
    if (by := filed.get("validation")) is not None:
        direction = directions_of(analysis.study).get(by, filed.get("direction", analysis.metric.direction))
        return MeasuredMetric(name=by, label=by, direction=direction, unit="score")
    task = TASKS[analysis.data.task]
    if (own := next((each for each in declared_metrics(analysis.study) if each.name == compared), None)) is not None:
        label, unit = f"validation {own.name}", own.metric().unit
        return MeasuredMetric(name=f"validation_{own.name}", label=label, direction=own.direction, unit=unit)
    known = task.metrics.get(compared)  # None where a later version's metric was compared
    name = (known and known.tuned_by) or task.score
    unit = task.loss_unit if name == "loss" else task.scores[name].unit
    label = name if name == "loss" else task.scores[name].label
    return MeasuredMetric(
        name=f"validation_{name}", label=f"validation {label}", direction=task.direction_of(name), unit=unit
    )


def spaces(analysis: Analysis) -> list[tuple[str, str]]:
    """Return (path, where it was looked for) of each setting that was tuned."""
    tune: Mapping[str, Any] = analysis.study.get("tune") or {}
    return [(path, _space_text(space)) for path, space in tune.items() if path not in _BUDGET]


def budget_text(analysis: Analysis) -> str:
    """Return the budget that every variant had alike, and what the trials looked at, in sentences."""
    tune: Mapping[str, Any] = analysis.study.get("tune") or {}
    trials, seeds = int(tune.get("trials", 0)), int(tune.get("seeds", 1))
    judged = objective(analysis)
    end = "highest" if SIGNS[judged.direction] > 0 else "lowest"
    pruner = _PRUNERS.get(str(tune.get("pruner")), "no pruner named")
    each = f" of {seeds} seeds each, over which it is averaged" if seeds > 1 else ""
    return (
        f"Before anything was compared, each variant was tuned with the same budget: {trials} "
        f"trial{'s' if trials != 1 else ''}{each}; {_SAMPLERS.get(str(tune.get('sampler')), 'no sampler named')}; "
        f"{pruner}. The trial with the {end} {judged.label} is chosen. Tuning has seed indices of its own (from "
        f"{FIRST_TUNING_SEED:,} on), which no comparison uses, and {_test_text(analysis)}.{_conditions_text(tune)}"
    )


def _test_text(analysis: Analysis) -> str:
    """Return what trials saw of the test split; nothing is known of data that a training function reads itself."""
    if (by := (analysis.study.get("metric") or {}).get("validation")) is None:
        return "never looks at the test split"
    split = (
        "on the validation split, which a trial is given in the place of test too"
        if analysis.study.get("data")
        else "on the data that the training function holds out"
    )
    return f"a trial is judged by what the training function returned as {by}, else by what it reported last, {split}"


def _conditions_text(tune: Mapping[str, Any]) -> str:
    if not _has_conditions(tune):
        return ""
    return (
        " A setting with a condition is tuned where that holds, and is the study file's elsewhere: so many trials may "
        "be of fewer settings in one variant than in another. A variant that tunes none has one trial."
    )


def _has_conditions(tune: Mapping[str, Any]) -> bool:
    return any(isinstance(space, Mapping) and space.get("when") for path, space in tune.items() if path not in _BUDGET)


def tuning_seconds(analysis: Analysis) -> float:
    """Return the training time of all trials together, which is no part of the analysis's cost."""
    return sum(trial.seconds for tuned in analysis.tuning for trial in tuned.trials)


def cost_text(analysis: Analysis) -> str:
    """Return what all trials cost beside the compared runs."""
    seconds = tuning_seconds(analysis)
    whole = seconds + analysis.cost.training_seconds
    count = sum(len(tuned.trials) for tuned in analysis.tuning)
    share = f", {100 * seconds / whole:.0f} % of the study's whole training time" if whole else ""
    return f"Tuning is apart from that: its {count:,} trials trained for {duration_text(seconds)}{share}."


def tuned_variants(analysis: Analysis) -> Table:
    """Return what each variant's tuning found and cost, a column per setting."""
    tuned = analysis.tuning
    paths = list(dict.fromkeys(path for each in tuned for path in each.settings))
    names = short_names(paths)
    tune: Mapping[str, Any] = analysis.study.get("tune") or {}
    head = (
        "variant",
        *(names[path] for path in paths),
        *(["settings tuned"] if _has_conditions(tune) else []),
        objective(analysis).label,
        "chosen trial",
        "trials done",
        "stopped early",
        "diverged or failed",
        "training of all trials",
        "share of the study's",
    )
    rows = tuple(_tuned_row(each, paths, analysis, is_counted=_has_conditions(tune)) for each in tuned)
    return Table(head=head, rows=rows, text_columns=1 + len(paths))


def tuned_and_untuned(analysis: Analysis) -> Table:
    """Return each comparison with tuned settings beside the same one with the file's, where a study asks both."""
    columns = ("difference, {}", interval_head(analysis.answers), "verdict, {}")
    head = ("comparison", "metric", *(name.format(which) for which in ("tuned", "file's") for name in columns))
    rows = tuple(
        (*_subject(tuned), *_cells(tuned, analysis), *_cells(untuned, analysis))
        for tuned, untuned in _pairs(analysis.answers)
    )
    return Table(head=head, rows=rows, text_columns=2)


def _space_text(space: Mapping[str, Any]) -> str:
    given = {kind: values for kind, values in space.items() if values is not None and kind != "when"}
    where = f", where {condition_text(space['when'])}" if space.get("when") else ""
    if "choices" in given:
        return ", ".join(map(level_text, given["choices"])) + where
    low, high = next(values for values in given.values() if values is not True)
    kinds = " ".join(_KINDS[kind] for kind in reversed(given))
    return f"{setting_text(low)} to {setting_text(high)}, {kinds}{where}"


def condition_text(when: Mapping[str, Any]) -> str:
    """Return a condition of a space in words."""
    names = short_names(list(when))
    return " and ".join(
        f"{names[name]} is {' or '.join(map(level_text, wanted if isinstance(wanted, list | tuple) else [wanted]))}"
        for name, wanted in when.items()
    )


def setting_text(value: Any) -> str:
    """Return a setting's value, a number of a scale with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else level_text(value)


def _tuned_row(tuned: TunedVariant, paths: Sequence[str], analysis: Analysis, *, is_counted: bool) -> tuple[str, ...]:
    outcomes = [trial.outcome for trial in tuned.trials]
    seconds = sum(trial.seconds for trial in tuned.trials)
    whole = analysis.cost.training_seconds + tuning_seconds(analysis)
    value = chosen_trial(tuned).value
    return (
        tuned.variant,
        *(setting_text(tuned.settings[path]) if path in tuned.settings else NONE for path in paths),
        *([_settings_text(tuned)] if is_counted else []),
        value_text(value, objective(analysis).unit) if value is not None else NONE,
        str(tuned.chosen + 1),
        str(outcomes.count("done")),
        str(outcomes.count("pruned")),
        str(outcomes.count("diverged") + outcomes.count("failed")),
        duration_text(seconds),
        f"{100 * seconds / whole:.0f} %" if whole else NONE,
    )


def _settings_text(tuned: TunedVariant) -> str:
    """Return how many settings a variant's trials were of, which choices among them may decide."""
    counts = [len(trial.settings) for trial in tuned.trials]
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} to {most}"


def chosen_trial(tuned: TunedVariant) -> TuningTrial:
    return next(trial for trial in tuned.trials if trial.number == tuned.chosen)


def _pairs(answers: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Yield (tuned, with the file's settings) of each comparison that was asked of both."""
    untuned = {_subject(answer): answer for answer in answers if answer.at.get(SETTINGS) == FROM_FILE}
    for answer in answers:
        if answer.at.get(SETTINGS) == TUNED and _subject(answer) in untuned:
            yield answer, untuned[_subject(answer)]


def _subject(answer: Answer) -> tuple[str, str]:
    """Return the comparison and its metric, the same for tuned settings and the file's."""
    at = {factor: level for factor, level in answer.at.items() if factor != SETTINGS}
    return comparison_text(replace(answer, at=at)), answer.metric.label


def _cells(answer: Answer, analysis: Analysis) -> tuple[str, str, str]:
    effect, unit = answer.effect, answer.metric.unit
    if effect is None:
        return NONE, NONE, answer.verdict.value
    shown = shown_interval(answer)
    bounds = (shown.low, shown.high) if shown else ()
    mean, *ends = differences_text([effect.mean, *bounds], unit, decimals=difference_decimals(answer))
    interval = interval_cell(ends) + (interval_mark(answer, analysis.answers) if ends else "")
    return f"{mean} {unit_of_differences(unit)}".rstrip(), interval, verdict_text(answer)
