"""Turns an analysis into the one that people read: factors, levels and variants by the labels of the study file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ablation.analysis.analysis_record import Analysis, DamagedRecord, OtherDataDescription
from ablation.analysis.answer_records import Answer, LevelChange, MissingRun
from ablation.analysis.answers import estimand_of
from ablation.analysis.descriptive_records import FactorPair, LayerRow, VariantRow
from ablation.study.comparisons import LISTED
from ablation.study.labels import NO_LABELS, Labels

_VARIANTS = ("variant", "dominated_by", "baseline")
_LEVELS = ("at", "levels")
_NAMED_AS_RUNS = (MissingRun, DamagedRecord)
"""Their variants stand in names of runs, which MLflow has too."""


def labelled(analysis: Analysis) -> Analysis:
    """Return the analysis as people read it; names of runs and the study file stay, and labels are used once."""
    if analysis.labels == NO_LABELS:
        return analysis
    labels = analysis.labels
    found: Analysis = _relabelled(dataclasses.replace(analysis, labels=NO_LABELS), labels)
    same_starts = tuple(map(labels.variant, analysis.diagnostics.same_starts))
    return dataclasses.replace(
        found,
        factors={labels.factor(path): _each_level(path, levels, labels) for path, levels in analysis.factors.items()},
        parts=tuple(map(labels.factor, analysis.parts)),
        diagnostics=dataclasses.replace(found.diagnostics, same_starts=same_starts),
    )


def _relabelled(value: Any, labels: Labels) -> Any:
    """Return a record with what it names, and the records in it, by labels; other values as they are."""
    if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
        return tuple(_relabelled(each, labels) for each in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, (type, Labels, *_NAMED_AS_RUNS)):
        return value
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {name: _field(name, each, labels) for name, each in fields.items()}
    found = dataclasses.replace(value, **{name: each for name, each in changed.items() if each is not fields[name]})
    own = _OF_RECORDS.get(type(value))
    return own(found, labels) if own is not None else found


def _field(name: str, value: Any, labels: Labels) -> Any:
    if name in _VARIANTS and isinstance(value, str):
        return labels.variant(value)
    if name in _LEVELS:
        return _levels(value, labels)
    if name == "averaged_over":
        return {labels.factor(path): _each_level(path, levels, labels) for path, levels in value.items()}
    if name == "combinations":
        return tuple(_levels(levels, labels) for levels in value)
    return _relabelled(value, labels)


def _levels(levels: Mapping[str, Any], labels: Labels) -> dict[str, Any]:
    return {labels.factor(path): _level(path, level, labels) for path, level in levels.items()}


def _each_level(path: str, levels: tuple[Any, ...], labels: Labels) -> tuple[Any, ...]:
    return tuple(_level(path, level, labels) for level in levels)


def _level(path: str, level: Any, labels: Labels) -> Any:
    """Return a level's label; what a comparison of listed variants has for levels are variants."""
    return labels.variant(level) if path == LISTED else labels.level(path, level)


def _change(change: LevelChange, labels: Labels) -> LevelChange:
    name = labels.factor(change.factor)
    before, after = _each_level(change.factor, (change.before, change.after), labels)
    return LevelChange(factor=name, label=name if name != change.factor else change.label, before=before, after=after)


def _answer(answer: Answer, _: Labels) -> Answer:
    return dataclasses.replace(answer, estimand=estimand_of(answer))


def _row(row: VariantRow, labels: Labels) -> VariantRow:
    return dataclasses.replace(row, name=labels.variant(row.name))


def _pair(pair: FactorPair, labels: Labels) -> FactorPair:
    return dataclasses.replace(pair, first=labels.factor(pair.first), second=labels.factor(pair.second))


def _layer(layer: LayerRow, labels: Labels) -> LayerRow:
    sizes = {labels.variant(variant): size for variant, size in layer.parameters.items()}
    return dataclasses.replace(layer, parameters=sizes)


def _other_data(data: OtherDataDescription, labels: Labels) -> OtherDataDescription:
    return dataclasses.replace(data, variants=tuple(map(labels.variant, data.variants)))


_OF_RECORDS: Mapping[type, Callable[[Any, Labels], Any]] = {
    LevelChange: _change,
    Answer: _answer,
    VariantRow: _row,
    FactorPair: _pair,
    LayerRow: _layer,
    OtherDataDescription: _other_data,
}
