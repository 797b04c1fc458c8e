"""Checks the factors of a study file and the settings that it tunes, against the sections they are paths into."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablation.lookup import nearest_names
from ablation.study.expected import expected
from ablation.study.file import Location, shown
from ablation.study.sections import OpenSection, Section, own_keys, section_of
from ablation.study.spec import MAX_LEVELS, OTHERS, factor_fields, is_own_training
from ablation.study.tuning import SETTINGS, SearchSpace, Tuning

Found = tuple[Location, str]


def setting(values: Mapping[str, Any], path: str, field: FieldInfo) -> Any:
    """Return the unchecked value at a path below a section, its default where the file has none."""
    section, _, key = path.partition(".")
    inner = values.get(section)
    return inner.get(key, field.default) if isinstance(inner, Mapping) else field.default


def factor_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    factors = values.get("factors")
    fields = factor_fields(values)
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        here: Location = ("factors", name)
        if isinstance(factor, Mapping):
            yield from _component_problems(here, values)
        elif name not in fields:
            yield here, _unknown(name, values)
        elif not isinstance(factor, tuple):
            yield here, f"must be a list of levels, the baseline's among them, not {shown(factor)}"
        else:
            yield from _level_problems(here, factor, fields[name], baseline=setting(values, name, fields[name]))


def tuning_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    tune, factors = values.get("tune"), values.get("factors")
    if not isinstance(tune, Mapping):
        return
    fields = factor_fields(values)
    paths = [key for key in tune if key not in Tuning.model_fields]
    if not paths:
        yield ("tune",), "names no setting to tune; for example `training.learning_rate: {log: [1e-4, 1e-2]}`"
    if is_own_training(values):
        yield ("tune",), "tuning a training function of your own is not built yet; tune inside it, on validation data"
    for path in paths:
        here: Location = ("tune", path)
        if isinstance(factors, Mapping) and path in factors:
            yield here, f"{path} is a factor of this study: it is compared, so it cannot be tuned"
        elif path not in fields:
            near = nearest_names(path, fields, limit=1)
            yield here, f"there is no setting {shown(path)}" + (f"; did you mean {near[0]!r}?" if near else "")
        else:
            yield from _space_problems(here, tune[path], fields[path])


def _component_problems(here: Location, values: Mapping[str, Any]) -> Iterator[Found]:
    name = str(here[-1])
    if not name.replace("-", "_").isidentifier() or name in (OTHERS, SETTINGS):
        yield here, f"a part's name has letters, digits, - and _; '{OTHERS}' and '{SETTINGS}' are taken"
    if values.get("model") is None:
        yield here, "there is no model section whose modules could be removed or replaced"


def _unknown(path: str, values: Mapping[str, Any]) -> str:
    fields = factor_fields(values)
    section, _, key = path.partition(".")
    kind = section_of(section, values) if section in ("model", "training") else None
    if kind is not None and issubclass(kind, OpenSection) and key.isidentifier() and values.get(section):
        near = nearest_names(key, own_keys(section, values), limit=1)
        hint = f", or did you mean '{section}.{near[0]}'?" if near else ""
        return f"the baseline's level is missing: add `{key}: …` to {section}, one of the factor's levels{hint}"
    near = nearest_names(path, fields, limit=1) or nearest_names(path.rpartition(".")[2], fields, limit=1)
    hint = f"did you mean {near[0]!r}?" if near else f"factors are: {', '.join(fields)}"
    return f"unknown factor {shown(path)}; {hint}"


def _level_problems(here: Location, levels: tuple[Any, ...], field: FieldInfo, *, baseline: Any) -> Iterator[Found]:
    wrong = [index for index, level in enumerate(levels[:MAX_LEVELS]) if level is None or not _fits(field, level)]
    if len(levels) < 2:
        yield here, f"needs at least one level besides the baseline's {_shown_setting(baseline)}"
    elif len(levels) > MAX_LEVELS:
        yield here, f"has {len(levels)} levels; at most {MAX_LEVELS} are allowed"
    for index in wrong:
        yield (*here, index), f"must be {expected(field.rebuild_annotation())}, not {shown(levels[index])}"
    for index, level in enumerate(levels[:MAX_LEVELS]):
        if level in levels[:index]:
            yield (*here, index), f"level {shown(level)} stands twice"
    if not wrong and _fits(field, baseline) and baseline not in levels:
        choice = f"add it, or set {here[1]} to one of them"
        yield here, f"the baseline's level {shown(baseline)} is missing from the factor's levels; {choice}"


def _space_problems(here: Location, space: Any, field: FieldInfo) -> Iterator[Found]:
    try:
        ends = SearchSpace.model_validate(space).ends
    except ValidationError:
        return  # said in its own place
    for end in ends:
        if not _fits(field, end) and not _fits(field, int(end) if isinstance(end, float) and end.is_integer() else end):
            yield here, f"a value must be {expected(field.rebuild_annotation())}, not {shown(end)}"


def _shown_setting(value: Any) -> str:
    return "own" if value is PydanticUndefined else shown(value)


def _fits(field: FieldInfo, value: Any) -> bool:
    try:
        _adapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=Section.model_config)
