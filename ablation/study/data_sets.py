"""Several data sets in a study file: `data` as a list, the first the baseline's; every variant is trained on each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from ablation.records import DATA, is_recordable_name
from ablation.study.factors import varied_settings
from ablation.study.file import Location
from ablation.study.labels import label_problem
from ablation.study.level_names import level_text
from ablation.study.sections import DataSection

MOST_DATA_SETS = 20
LABEL = "label"
_DEFAULTS: Mapping[str, Any] = {key: field.default for key, field in DataSection.model_fields.items()}


def is_list_of_data(values: Mapping[str, Any]) -> bool:
    """Whether an unchecked study names its data as a list."""
    return isinstance(values.get(DATA), list | tuple)


def data_names(data: Any) -> tuple[str, ...]:
    """Return what data sets in plain values are called, by their labels or their names; none of what is no list."""
    found = data if isinstance(data, list | tuple) else ()
    return tuple(str(each.get(LABEL, each.get("name"))) for each in found if isinstance(each, Mapping))


def of_each_data_set(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return an unchecked study as it is with each of its data sets alone, the baseline's first."""
    data = values.get(DATA)
    if not isinstance(data, list | tuple) or not data:
        return [values]
    return [{**values, DATA: _unlabelled(each)} for each in data]


def with_first_data(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an unchecked study as it is with the baseline's data set."""
    return of_each_data_set(values)[0]


def list_problems(values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Refuse data sets that cannot be told apart, or that no question could be averaged over."""
    data, factors = values.get(DATA), values.get("factors")
    if not isinstance(data, list | tuple):
        return
    if len(data) < 2:
        what = "a list of one data set" if data else "an empty list"
        yield (DATA,), f"is {what}; write it as a mapping, `data: {{name: …}}`, or add another"
    if len(data) > MOST_DATA_SETS:
        yield (DATA,), f"has {len(data)} data sets; at most {MOST_DATA_SETS} are allowed"
    if isinstance(factors, Mapping) and DATA in factors:
        yield ("factors", DATA), "`data` is a list already, which every variant is trained on; leave the factor out"
    if values.get("replicates") is not None:
        yield ("replicates",), "folds of several data sets are not built yet; use `seeds`, or a study of each data set"
    for index, each in enumerate(data):
        if not isinstance(each, Mapping):
            yield (DATA, index), "must be a mapping such as {name: digits}"
    yield from _name_problems(data)
    yield from _shared_problems(data)
    yield from _factor_problems(data, factors)


def _name_problems(data: Sequence[Any]) -> Iterator[tuple[Location, str]]:
    seen: dict[str, int] = {}
    kept: list[Any] = []
    for index, each in enumerate(data):
        if not isinstance(each, Mapping):
            continue
        label = each.get(LABEL)
        problem = _label_problem(label) if LABEL in each else None
        if problem is not None:
            yield (DATA, index, LABEL), problem
            continue
        if _unlabelled(each) in kept:
            yield (DATA, index), "is the same data set as one before it; leave it out"
            continue
        kept.append(_unlabelled(each))
        name = level_text(label if label is not None else each.get("name"))
        twin = seen.setdefault(name, index)
        if twin != index:
            yield (DATA, index), f"is called {name!r} as data[{twin}] is; give each a `label` of its own"


def _label_problem(label: Any) -> str | None:
    if not isinstance(label, str):
        return "a label is text, such as photos"
    if not is_recordable_name(label) or "," in label or "=" in label:
        return "the label stands in names of runs: letters, digits, spaces and -_.:/ only"
    return label_problem(label)


def _shared_problems(data: Sequence[Any]) -> Iterator[tuple[Location, str]]:
    first = data[0] if data and isinstance(data[0], Mapping) else {}
    usual = {**_DEFAULTS, "task": "classification"}
    for index, each in enumerate(data[1:], start=1):
        if not isinstance(each, Mapping):
            continue
        task, other = (one.get("task", usual["task"]) for one in (each, first))
        if task != other:
            yield (
                (DATA, index, *(("task",) if "task" in each else ())),
                f"its task is {task}, and that of data[0] is {other}: one metric is compared, so all have one task",
            )
        held_out = [one.get("validation", usual["validation"]) == "none" for one in (each, first)]
        if held_out[0] != held_out[1]:
            yield (
                (DATA, index, *(("validation",) if "validation" in each else ())),
                "all data sets have a validation split, or none: curves are drawn on one split",
            )


def _factor_problems(data: Sequence[Any], factors: Any) -> Iterator[tuple[Location, str]]:
    """Refuse a factor whose baseline's level is not one: data sets that have other values of it."""
    for here, path in dict.fromkeys((here[:2], str(path)) for here, path, _ in varied_settings(factors)):
        section, _, key = path.partition(".")
        default = _DEFAULTS.get(key, MISSING)
        given = [
            value for each in data if isinstance(each, Mapping) and (value := each.get(key, default)) is not MISSING
        ]
        if section == DATA and any(value != given[0] for value in given):
            yield (
                here,
                f"the data sets have other values of {key} ({', '.join(map(level_text, given))}): as a factor it has "
                "the same levels in each, so give it the baseline's in all",
            )


def _unlabelled(data: Any) -> Any:
    return {key: value for key, value in data.items() if key != LABEL} if isinstance(data, Mapping) else data
