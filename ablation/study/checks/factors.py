"""Checks the factors of a study file and the settings that it tunes, against the sections they are paths into."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ablation.code import CodeFolders, is_code
from ablation.lookup import is_same, nearest_names, overlap
from ablation.records import DATA, ENGINE_METRICS, RUN_COLUMNS, is_recordable_name
from ablation.study.checks.baseline import setting
from ablation.study.checks.conditions import has_no_baseline
from ablation.study.checks.reasons import reason_for_data_factor, reason_for_factor
from ablation.study.expected import expected
from ablation.study.factors import (
    MAX_LEVELS,
    is_part,
    labels_by_level,
    named_levels,
    recipe_of,
    varied_settings,
)
from ablation.study.file import Location, is_plain_text, shown, value_text
from ablation.study.level_names import NOT_VARIED, level_text, needs_label
from ablation.study.search_spaces import SETTINGS, SearchSpace, Tuning
from ablation.study.sections import MAX_KEY, SECTIONS, OpenSection, OwnData, Section, section_of
from ablation.study.spec import OTHERS, OWN, factor_fields, is_own_training, own_settings

Found = tuple[Location, str]


def factor_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    factors = values.get("factors")
    fields = factor_fields(values)
    known = factors if isinstance(factors, Mapping) else {}
    for name, factor in known.items():
        here: Location = ("factors", name)
        levels = factor["levels"] if isinstance(factor, Mapping) and "levels" in factor else factor
        if isinstance(levels, Mapping) and name in fields:
            yield here, f"give the levels as a list, the baseline's among them: `{name}: [LEVEL, LEVEL]`"
        elif is_part(factor):
            yield from _component_problems(here, values)
        elif recipe_of(factor) is not None:
            continue  # said in its own place
        elif name not in fields:
            yield here, unknown_factor(name, values)
        elif not isinstance(levels, tuple):
            yield here, f"must be a list of levels, the baseline's among them, not {shown(levels)}"
        elif around := next((other for other in known if other != name and overlap(str(other), name)), None):
            yield here, f"{around} is a factor of this study too; a setting is varied by one factor alone"
        else:
            here = (*here, "levels") if levels is not factor else here
            labels = factor.get("labels") if isinstance(factor, Mapping) else {}
            baseline = setting(values, name, fields[name])
            yield from _level_problems(here, levels, fields[name], baseline=baseline, labels=labels)
            if not has_no_baseline(name, factor, values):
                yield from _baseline_problems(here, levels, fields[name], baseline)


def unread_problems(values: Mapping[str, Any], code: CodeFolders) -> Iterator[Found]:
    """Refuse the factors that only the built-in training carries out, where a user's function trains."""
    factors, training = values.get("factors"), values.get("training")
    name = training.get("name") if isinstance(training, Mapping) else None
    if not isinstance(name, str) or not isinstance(training, Mapping) or not is_own_training(values):
        return
    read, call = code.settings_read(name, list(training)), code.training_call(name, list(training))
    may_take_model = values.get("model") is not None and (call is None or call.takes("model"))
    for here, path in _varied(factors):
        section, _, key = path.partition(".")
        is_of_parts = not key or path in ("model.remove", "model.frozen", "model.weights")
        if is_of_parts and not may_take_model:
            why = "is given no model, so nothing is removed or replaced in one"
        elif path == "data.augmentation":
            why = "is given the images as they are, and none is moved or mirrored for it"
        elif section == "model" and not _may_read(section, values, read):
            why = f"is given no model, and {name} reads no settings['model']"
        elif section == "data" and not _may_read(section, values, read):
            why = f"is given the data where it takes `data`, and {name} does not, nor reads settings['data']"
        else:
            continue
        own = "model" if path == "model.name" else key or path
        way = f"make it a key of training that the function reads, such as training.{own}"
        if section == "model" or is_of_parts:
            way = f"have the function take `model`, which is that model, built; or {way}"
        yield here, f"nothing reads this factor: a training function of your own {why}; {way}"


def unread_list_problems(values: Mapping[str, Any], code: CodeFolders) -> Iterator[Found]:
    """Refuse several data sets where a user's training function reads none."""
    training = values.get("training")
    name = training.get("name") if isinstance(training, Mapping) else None
    if not isinstance(name, str) or not isinstance(training, Mapping) or not isinstance(values.get(DATA), tuple):
        return
    if not is_own_training(values) or (read := code.settings_read(name, list(training))) is None or DATA in read:
        return
    yield (DATA,), f"{name} does not take `data`, nor reads settings['data'], so all data sets would be the same to it"


def _varied(factors: Any) -> Iterator[tuple[Location, str]]:
    """Yield the paths that factors vary and the names of parts, and where they stand."""
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        if is_part(factor):
            yield ("factors", name), str(name)
    for here, path, _ in varied_settings(factors):
        yield here if here[1] != path else here[:2], str(path)


def _may_read(section: str, values: Mapping[str, Any], read: frozenset[str] | None) -> bool:
    """Whether a training function reads a section; where its source does not tell, any but that of a built-in model."""
    inner = values.get(section)
    if not isinstance(inner, Mapping):
        return False
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
        varied = next((place for place, other, _ in varied_settings(factors) if overlap(str(other), path)), None)
        if varied is not None:
            who = "is" if varied[1] == path else f"is set by {varied[1]}, which is"
            yield here, f"{path} {who} a factor of this study: it is compared, so it cannot be tuned"
        elif path.startswith("data.") and path.removeprefix("data.") in own_settings("data", values):
            yield here, f"{path} makes other data, which is prepared before anything is tuned; make it a factor"
        elif path not in fields:
            yield here, f"there is no setting {shown(path)}; {reason_for_factor(path, fields)}"
        else:
            yield from _space_problems(here, tune[path], fields[path])


def _component_problems(here: Location, values: Mapping[str, Any]) -> Iterator[Found]:
    if (problem := name_problem(str(here[-1]), kind="part")) is not None:
        yield here, problem
    if values.get("model") is None:
        yield here, "there is no model section whose modules could be removed or replaced"


def name_problem(name: str, *, kind: str) -> str | None:
    """Return why a factor that is no path cannot have a name, or None; `kind` says what it is."""
    is_name = name.replace("-", "_").isidentifier() and len(name) <= MAX_KEY and is_recordable_name(name)
    if not is_name or name in (OTHERS, SETTINGS):
        return f"a {kind}'s name has at most {MAX_KEY} letters, digits, - and _; '{OTHERS}' and '{SETTINGS}' are taken"
    if name in (*RUN_COLUMNS, *ENGINE_METRICS):
        return f"{shown(name)} is a column of every run table; give the {kind} another name"
    return None


def unknown_factor(path: str, values: Mapping[str, Any]) -> str:
    """Say that a path is none that can vary, and what to do."""
    fields = factor_fields(values)
    section, _, key = path.partition(".")
    kind = section_of(section, values) if section in SECTIONS else None
    is_argument = all(part.isidentifier() for part in key.split("."))
    is_open = kind is not None and issubclass(kind, OpenSection) and is_argument
    if kind is not None and is_open and key not in kind.model_fields and values.get(section):
        near = nearest_names(key, own_settings(section, values), limit=1)
        hint = f", or did you mean '{section}.{near[0]}'?" if near else ""
        around, _, last = path.rpartition(".")
        return f"the baseline's level is missing: add `{last}: …` to {around}, one of the factor's levels{hint}"
    reason = reason_for_data_factor(path, fields, is_own=kind is OwnData)
    if reason:
        return f"unknown factor {shown(path)}; {reason}"
    return f"unknown factor {shown(path)}; {reason_for_factor(path, fields)}"


def _level_problems(
    here: Location, levels: tuple[Any, ...], field: FieldInfo, *, baseline: Any, labels: Any
) -> Iterator[Found]:
    wrong = [index for index, level in enumerate(levels[:MAX_LEVELS]) if not _fits_level(field, level)]
    if len(levels) < 2:
        yield here, f"needs at least one level besides the baseline's {_shown_setting(baseline)}"
    elif len(levels) > MAX_LEVELS:
        yield here, f"has {len(levels)} levels; at most {MAX_LEVELS} are allowed"
    for index in wrong:
        yield (*here, index), f"must be {expected(field.rebuild_annotation())}, not {shown(levels[index])}"
    yield from _unnamed(here, levels[:MAX_LEVELS], labels)
    for index, twin in _twins(levels[:MAX_LEVELS]).items():
        yield (*here, index), _twin_text(levels[twin], levels[index])


def _baseline_problems(here: Location, levels: tuple[Any, ...], field: FieldInfo, baseline: Any) -> Iterator[Found]:
    is_right = all(_fits_level(field, level) for level in (*levels[:MAX_LEVELS], baseline))
    if is_right and not any(is_same(baseline, level) for level in levels):
        choice = f"add it, or set {here[1]} to one of them"
        yield here, f"the baseline's level {shown(baseline)} is missing from the factor's levels; {choice}"


def _fits_level(field: FieldInfo, level: Any) -> bool:
    return fits(field, level) and (level is not None or field is OWN)


def _unnamed(here: Location, levels: tuple[Any, ...], labels: Any) -> Iterator[Found]:
    """Refuse levels whose name would be no name: too large ones without a label, and those called as a level is not."""
    known = labels_by_level(labels, levels)
    large = [index for index, level in enumerate(levels) if needs_label(level)]
    for index in large:
        label = known.get(level_text(levels[index]))
        if label is None:
            named = [known.get(level_text(each), "NAME" if needs_label(each) else None) for each in levels]
            line = f"{here[1]}: {{levels: {value_text(levels)}, labels: {value_text(named).replace(_NAME, 'NAME')}}}"
            message = f"level {shown(levels[index])} is named by its label, and has none; write `{line}`"
            yield (*here, index), message
        elif isinstance(label, str) and not is_plain_text(label):
            message = f"the label names this level, and {label} is read as something else; begin it with a letter"
            yield (*here, index), message
    names = named_levels(levels, labels)
    for index, name in enumerate(names):
        twin = next((other for other in range(index) if level_text(names[other]) == level_text(name)), None)
        if level_text(name) == NOT_VARIED:
            yield (*here, index), f"no level can be called {shown(NOT_VARIED)}, which means something else here"
        elif twin is not None and {twin, index} & {*large}:
            both = f"{shown(levels[twin])} and {shown(levels[index])}"
            yield (*here, index), f"two levels are both called `{level_text(name)}`: {both}; change a label"


_NAME = value_text("NAME")


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
        if not fits(field, end) and not fits(field, int(end) if isinstance(end, float) and end.is_integer() else end):
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
    takes_numbers = fits(field, between if between != int(between) else between + 0.5)
    if not takes_numbers or not fits(field, "text"):  # else it is an argument of user code, which may be anything
        return not takes_numbers
    at_hand = (setting(values, path, field), low, high)
    return all(type(value) is int for value in at_hand)


def _shown_setting(value: Any) -> str:
    return "own" if value is PydanticUndefined else shown(value)


def fits(field: FieldInfo, value: Any) -> bool:
    try:
        _adapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=Section.model_config)
