"""Checks the factors of a study file and the settings that it tunes, against the sections they are paths into."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablation.code import CodeFolders, is_code
from ablation.lookup import is_same, nearest_names
from ablation.records import ENGINE_METRICS, RUN_COLUMNS, is_recordable_name
from ablation.study.checks.reasons import reason_for_data_factor
from ablation.study.expected import expected
from ablation.study.factors import MAX_LEVELS, is_part
from ablation.study.file import Location, shown
from ablation.study.level_names import level_text
from ablation.study.search_spaces import SETTINGS, SearchSpace, Tuning
from ablation.study.sections import MAX_KEY, OpenSection, Section, own_keys, section_of
from ablation.study.spec import OTHERS, factor_fields, is_own_training

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
        levels = factor["levels"] if isinstance(factor, Mapping) and "levels" in factor else factor
        if is_part(factor) and name in fields:
            yield here, f"give the levels as a list, the baseline's among them: `{name}: [LEVEL, LEVEL]`"
        elif is_part(factor):
            yield from _component_problems(here, values)
        elif name not in fields:
            yield here, _unknown(name, values)
        elif not isinstance(levels, tuple):
            yield here, f"must be a list of levels, the baseline's among them, not {shown(levels)}"
        else:
            here = (*here, "levels") if levels is not factor else here
            yield from _level_problems(here, levels, fields[name], baseline=setting(values, name, fields[name]))


def unread_problems(values: Mapping[str, Any], code: CodeFolders) -> Iterator[Found]:
    """Refuse the factors that only the built-in training carries out, where a user's function trains."""
    factors, training = values.get("factors"), values.get("training")
    name = training.get("name") if isinstance(training, Mapping) else None
    if not isinstance(name, str) or not is_own_training(values):
        return
    for path, factor in factors.items() if isinstance(factors, Mapping) else ():
        section, _, key = str(path).rpartition(".")
        if is_part(factor) or path == "model.remove":
            why = "is given no model, so nothing is removed or replaced in one"
        elif path == "data.augmentation":
            why = "is given the images as they are, and none is moved or mirrored for it"
        elif section == "model" and not _may_read(section, values, name, code):
            why = f"is given no model, and {name} reads no settings['model']"
        elif section == "data" and not _may_read(section, values, name, code):
            why = f"is given the data where it takes `data`, and {name} does not, nor reads settings['data']"
        else:
            continue
        own = "model" if path == "model.name" else key
        way = f"make it a key of training that the function reads, such as training.{own}"
        yield ("factors", path), f"nothing reads this factor: a training function of your own {why}; {way}"


def _may_read(section: str, values: Mapping[str, Any], name: str, code: CodeFolders) -> bool:
    """Whether a training function reads a section; where its source does not tell, any but that of a built-in model."""
    inner = values.get(section)
    if not isinstance(inner, Mapping):
        return False
    read = code.settings_read(name)
    return section == "data" or is_code(inner.get("name")) if read is None else section in read


def tuning_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    tune, factors = values.get("tune"), values.get("factors")
    if not isinstance(tune, Mapping):
        return
    fields = factor_fields(values)
    paths = [key for key in tune if key not in Tuning.model_fields]
    if not paths:
        yield ("tune",), "names no setting to tune; for example `training.learning_rate: {log: [1e-4, 1e-2]}`"
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
    is_name = name.replace("-", "_").isidentifier() and len(name) <= MAX_KEY and is_recordable_name(name)
    if not is_name or name in (OTHERS, SETTINGS):
        message = f"a part's name has at most {MAX_KEY} letters, digits, - and _; '{OTHERS}' and '{SETTINGS}' are taken"
        yield here, message
    elif name in (*RUN_COLUMNS, *ENGINE_METRICS):
        yield here, f"{shown(name)} is a column of every run table; give the part another name"
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
    reason = reason_for_data_factor(path, fields)
    if reason:
        return f"unknown factor {shown(path)}; {reason}"
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
    for index, twin in _twins(levels[:MAX_LEVELS]).items():
        yield (*here, index), _twin_text(levels[twin], levels[index])
    if not wrong and _fits(field, baseline) and not any(is_same(baseline, level) for level in levels):
        choice = f"add it, or set {here[1]} to one of them"
        yield here, f"the baseline's level {shown(baseline)} is missing from the factor's levels; {choice}"


def _twins(levels: tuple[Any, ...]) -> dict[int, int]:
    """Return, for each level that cannot be told from one before it by its name or its value, which that is."""
    found: dict[int, int] = {}
    for index, level in enumerate(levels):
        for before, other in enumerate(levels[:index]):
            if level == other or level_text(level) == level_text(other):
                found.setdefault(index, before)
    return found


def _twin_text(first: Any, second: Any) -> str:
    if shown(first) == shown(second):
        return f"level {shown(second)} stands twice"
    both = f"{shown(first)} and {shown(second)}"
    if level_text(first) == level_text(second):
        return f"two levels are both called `{level_text(second)}`: {both}; runs are told apart by it, so change one"
    return f"two levels are equal as numbers: {both}; runs could not be told apart, so change one"


def _space_problems(here: Location, space: Any, field: FieldInfo) -> Iterator[Found]:
    try:
        ends = SearchSpace.model_validate(space).ends
    except ValidationError:
        return  # said in its own place
    for index, end in enumerate(ends):
        twin = next((before for before in ends[:index] if before == end), None)
        if twin is not None:
            yield here, f"choices {shown(twin)} and {shown(end)} are equal; leave one out"
        if not _fits(field, end) and not _fits(field, int(end) if isinstance(end, float) and end.is_integer() else end):
            yield here, f"a value must be {expected(field.rebuild_annotation())}, not {shown(end)}"


def whole_settings(values: Mapping[str, Any], tuning: Tuning) -> frozenset[str]:
    """Return the paths of tuned settings that are whole numbers, whatever the scale they are looked for on.

    A setting is one where it can be nothing else; an argument of user code where the file's value and the bounds
    are.
    """
    fields = factor_fields(values)
    return frozenset(path for path, space in tuning.spaces.items() if _is_whole(values, path, space, fields[path]))


def _is_whole(values: Mapping[str, Any], path: str, space: SearchSpace, field: FieldInfo) -> bool:
    if space.choices is not None or space.integers is not None:
        return space.integers is not None
    low, high = space.bounds
    between = low + (high - low) / 3
    takes_numbers = _fits(field, between if between != int(between) else between + 0.5)
    if not takes_numbers or not _fits(field, "text"):  # else it is an argument of user code, which may be anything
        return not takes_numbers
    at_hand = (setting(values, path, field), low, high)
    return all(type(value) is int for value in at_hand)


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
