"""Checks the values of a study file and gives the checked spec and its variants, or every problem at once."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ablation.code import NO_FOLDERS, CodeFolders, is_code
from ablation.errors import Problem, StudyFileError
from ablation.lookup import did_you_mean
from ablation.records import DATA, RUN_COLUMNS, SIGNS, TASKS, Variant
from ablation.study.checks.baseline import setting
from ablation.study.checks.conditions import condition_problems
from ablation.study.checks.data import data_problems
from ablation.study.checks.design import design_problems, made_variants, question_problems
from ablation.study.checks.factors import factor_problems, tuning_problems, unread_list_problems, unread_problems
from ablation.study.checks.labels import label_problems, same_names
from ablation.study.checks.metrics import own_metric_problems
from ablation.study.checks.model import model_problems
from ablation.study.checks.own_training import own_training_problems
from ablation.study.checks.reasons import reason_for_key, reason_for_metric, reason_for_metric_text
from ablation.study.checks.recipes import recipe_problems
from ablation.study.checks.replicates import replicate_problems
from ablation.study.checks.training import training_problems
from ablation.study.checks.tuning import idle_space_problems, space_condition_problems, validation_metric_problems
from ablation.study.data_sets import data_names, is_list_of_data, list_problems, of_each_data_set
from ablation.study.expected import expected, is_union, member_of, unannotated
from ablation.study.factors import varied_settings
from ablation.study.file import Location, path_of, plain_text, shown, value_text
from ablation.study.looks import PlannedLooks
from ablation.study.sections import CODE_FORM, SECTIONS, LossName, Section, built_in_names, unknown_name
from ablation.study.spec import (
    StudySpec,
    factor_fields,
    filled,
    is_own_training,
    is_task_unknown,
    known_metrics,
    recipe_fields,
    task_of,
)

Found = tuple[Location, str]


def check(
    values: Mapping[str, Any],
    *,
    source: str,
    lines: Mapping[Location, int | None],
    problems: Sequence[Problem] = (),
    code: CodeFolders = NO_FOLDERS,
) -> tuple[StudySpec, tuple[Variant, ...]]:
    """Return the spec and its variants, the baseline first; `code` is where the user's own code is looked for.

    Raises:
        StudyFileError: with every problem found, and with `problems`, which were found before; in the order of lines.
    """
    named, whole = _as_mappings(_with_tuples(values))
    names, (values, *others) = data_names(whole.get(DATA)), [filled(each) for each in of_each_data_set(whole)]
    spec, errors = _validated(values)
    in_list = _in_list if is_list_of_data(whole) else _as_it_is
    found = _merged(
        named,
        list_problems(whole),
        factor_problems(values),
        recipe_problems(values),
        condition_problems(values),
        unread_problems(values, code),
        own_training_problems(values, code),
        tuning_problems(values),
        space_condition_problems(values),
        validation_metric_problems(values),
        in_list(data_problems(values)),
        in_list(replicate_problems(values)),
        in_list(errors),
        training_problems(values),
        model_problems(values, code),
        label_problems(values),
        _section_problems(values),
        _metric_problems(values),
        own_metric_problems(values),
        design_problems(values, data=names),
        question_problems(values, data=names),
        _selection_problems(values),
        _loss_problems(values),
        *(_other_data_problems(other, index) for index, other in enumerate(others, start=1)),
        unread_list_problems(whole, code),
    )
    if spec is not None and others and not found:
        sections = [each.data for each in (spec, *(_validated(other)[0] for other in others)) if each is not None]
        found = {
            (DATA, index): "is the same data set as one before it; leave it out"
            for index, section in enumerate(sections)
            if section in sections[:index]
        }
        spec = spec.of_data_sets(dict(zip(names, sections, strict=True)))
    variants: tuple[Variant, ...] = ()
    if spec is not None and not found and not problems:
        variants, found = made_variants(spec)
        found = found or dict(idle_space_problems(spec, variants))
        found = {**dict(same_names(spec, variants)), **found}
    if spec is None or found or problems:
        order = list(StudySpec.model_fields)
        told = sorted(
            found.items(), key=lambda item: order.index(item[0][0]) if item[0][:1] and item[0][0] in order else 0
        )
        all_problems = [*problems, *(_problem(location, message, lines) for location, message in told)]
        raise StudyFileError(source, sorted(all_problems, key=lambda problem: problem.line or 0))
    return spec, variants


_A_NAME = re.compile(r"[A-Za-z][\w./:-]{0,59}", re.ASCII)


def _as_mappings(values: Mapping[str, Any]) -> tuple[list[Found], dict[str, Any]]:
    """Return where a mere name stands for a section or the metric, and the values with what was meant by it."""
    names = {key: name for key in (*SECTIONS, "metric") if isinstance(name := values.get(key), str)}
    names = {key: name for key, name in names.items() if key != "training" or is_code(name)}
    meant = {**values, **{key: {"name": name} for key, name in names.items()}}
    found: list[Found] = []
    for key, name in names.items():
        way = f"; write `{key}: {{name: {plain_text(name)}}}`" if _A_NAME.fullmatch(name) else ""
        if key == "metric":
            way = reason_for_metric_text(name, known_metrics(filled(meant)), is_own=is_own_training(meant))
        found.append(((key,), f"must be a mapping of keys to values, not {shown(name)}{way}"))
    return found, meant


def _as_it_is(found: Iterable[Found]) -> Iterable[Found]:
    return found


def _in_list(found: Iterable[Found], index: int = 0) -> Iterator[Found]:
    """Say of problems with a data set that it is one of a list."""
    for location, message in found:
        is_inside = location[:1] == (DATA,) and len(location) > 1
        yield ((DATA, index, *location[1:]) if is_inside else location), message


def _other_data_problems(values: Mapping[str, Any], index: int) -> Iterator[Found]:
    """Check a study as it is with another of its data sets: that, and the factors which are settings of data."""
    here = [*data_problems(values), *replicate_problems(values), *_validated(values)[1]]
    yield from _in_list((found for found in here if found[0][:1] == (DATA,)), index)
    fields = recipe_fields(values)
    for location, path, _ in varied_settings(values.get("factors")):
        if str(path).startswith(f"{DATA}.") and path not in fields:
            key = str(path).removeprefix(f"{DATA}.")
            yield location[:2], f"data[{index}] has no {key}: a factor of data is one of every data set; add it there"


def _with_tuples(value: Any) -> Any:
    """Give sequences the type that strict models ask for."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _merged(*groups: Iterable[Found]) -> dict[Location, str]:
    """Return one message per location; where a group has spoken, the next say nothing of what is around or inside."""
    found: dict[Location, str] = {}
    for group in groups:
        around = {location[:end] for location in found for end in range(len(location) + 1)}
        fresh: dict[Location, str] = {}
        for location, message in group:
            if location not in around and not any(location[:end] in found for end in range(len(location))):
                fresh.setdefault(location, message)
        found |= fresh
    return found


def _problem(location: Location, message: str, lines: Mapping[Location, int | None]) -> Problem:
    known = next((location[:end] for end in range(len(location), 0, -1) if location[:end] in lines), ())
    return Problem(message=message, path=path_of(location), line=lines.get(known))


def _validated(values: Mapping[str, Any]) -> tuple[StudySpec | None, list[Found]]:
    try:
        return StudySpec.model_validate(values), []
    except ValidationError as error:
        return None, [_reworded(details, values) for details in error.errors(include_url=False)]


def _reworded(details: Mapping[str, Any], values: Mapping[str, Any]) -> Found:
    """Say what pydantic found in the words of the file; of its own message nothing is kept."""
    loc = details["loc"]
    if loc[-1] == "[key]":
        location, kind, _ = _place(loc[:-2])
        return (*location, loc[-2]), f"a key must be {expected(get_args(kind)[0])}, not {shown(loc[-2])}"
    is_too_short = details["type"] == "missing" and isinstance(loc[-1], int)  # of a list of so many values
    location, kind, model = _place(loc[:-1] if is_too_short else loc)
    match details["type"]:
        case "extra_forbidden":
            section = next((name for name, kinds in SECTIONS.items() if model in kinds), None)
            is_told = model in (StudySpec, PlannedLooks) or section is not None
            reason = reason_for_key(str(location[-1]), section) if is_told else ""
            why = reason or _near_or_all(str(location[-1]), model.model_fields)
            return location, f"unknown key {shown(location[-1])}{why}"
        case "missing" if location[-1] == loc[-1]:
            return location, "is missing" + _for_example(model, str(location[-1]))
        case "value_error":
            return location, str(details["ctx"]["error"])
        case "union_tag_not_found" if isinstance(_at(values, location), Mapping):
            return (*location, "name"), f"is missing; built in: {', '.join(built_in_names(str(location[0])))}"
        case "union_tag_invalid":
            location = (*location, "name")
    given = _at(values, location)
    is_of_question = len(location) == 2 and location[0] == "questions"
    if is_of_question and isinstance(given, str) and _A_NAME.fullmatch(given):
        return location, f"must be a mapping of keys to values, not {shown(given)}; for example `effect: {given}`"
    if location == ("metric",):
        return location, f"must be a mapping of keys to values, not {shown(given)}{_for_example(model, 'metric')}"
    if location[0] in SECTIONS and location[1:] == ("name",) and details["type"] == "union_tag_invalid":
        return location, unknown_name(str(location[0]), given, shown(given))
    return location, f"must be {expected(kind)}, not {shown(given)}"


def _for_example(model: type[BaseModel], key: str) -> str:
    return "".join(f"; for example `{example}`" for example in model.model_fields[key].examples or [])


def _place(loc: Sequence[str | int]) -> tuple[Location, Any, type[BaseModel]]:
    """Return where in the file a pydantic location is, the type of what should be there, and the model around it.

    The parts of a location that name a member of a union are no keys of the file.
    """
    location: list[str | int] = []
    annotation: Any = StudySpec
    model: type[BaseModel] = StudySpec
    for part in loc:
        kind = _not_null(unannotated(annotation)[0])
        member = member_of(kind, part) if is_union(kind) else None
        if isinstance(kind, type) and issubclass(kind, Section):
            model = kind
            field = model.model_fields.get(str(part))
            own = model.__annotations__.get("__pydantic_extra__")
            annotation = field.rebuild_annotation() if field is not None else get_args(own)[1] if own else None
        elif member is not None:
            annotation = member
            continue
        elif get_origin(kind) in (tuple, dict):
            annotation = get_args(kind)[0 if get_origin(kind) is tuple else 1]
        else:
            break
        location.append(part)
    return tuple(location), annotation, model


def _not_null(kind: Any) -> Any:
    """Return the one type that may stand where null may too; any other type as it is."""
    members = [member for member in get_args(kind) if member is not type(None)] if is_union(kind) else []
    return unannotated(members[0])[0] if len(members) == 1 else kind


def _at(values: Any, location: Location) -> Any:
    for part in location:
        values = values[part]
    return values


def _near_or_all(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean(name, known)
    odd = next((char for char in name if not char.isascii()), None)
    if hint and odd is not None:  # it may look as one of the known keys does
        return f"{hint} Its {value_text(odd)} is U+{ord(odd):04X}, {unicodedata.name(odd, 'without a name').lower()}"
    return hint or f"; allowed: {', '.join(sorted(known))}"


def _section_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Ask for the sections that only a user's training function can do without."""
    for section in ("data", "model"):
        if values.get(section) is None and not is_own_training(values):
            example = {"data": "data: {name: digits}", "model": "model: {name: cnn, depth: 3}"}[section]
            yield (section,), f"is missing; for example `{example}`"


def _metric_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse metrics that nothing measures; a user's training function may return any, its direction given."""
    known, metric, questions = known_metrics(values), values.get("metric"), values.get("questions")
    named: list[Found] = []
    if isinstance(metric, Mapping) and isinstance(name := metric.get("name"), str):
        named.append((("metric", "name"), name))
        if is_own_training(values) and name not in known and metric.get("direction") is None:
            yield ("metric", "direction"), f"is missing: say whether to maximize or minimize {name}"
        engine = TASKS[task_of(values)].metrics.get(name)
        given = metric.get("direction", engine.direction) if engine is not None else None
        if engine is not None and isinstance(given, str) and given in SIGNS and given != engine.direction:
            yield ("metric", "direction"), f"must be {engine.direction!r} for {name}, not {value_text(given)}"
    for index, question in enumerate(questions if isinstance(questions, tuple) else ()):
        if isinstance(question, Mapping) and isinstance(question.get("on"), str):
            named.append((("questions", index, "on"), question["on"]))
    own = isinstance(metric, Mapping) and is_own_training(values) and metric.get("name")
    for location, name in named if not is_task_unknown(values) else ():
        if name not in known and name != own:
            yield location, f"unknown metric {name!r}{reason_for_metric(name, known, is_own=is_own_training(values))}"
    yield from _taken_names(values)


def _taken_names(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse to compare on a metric that has the name of a factor, or of another column of the run table."""
    metric, declared, factors = values.get("metric"), values.get("metrics"), values.get("factors")
    chosen = metric.get("name") if isinstance(metric, Mapping) else None
    own = declared if isinstance(declared, Mapping) else {}
    taken = (*RUN_COLUMNS, *(factors if isinstance(factors, Mapping) else ()))
    for location, name in ((("metric", "name"), chosen), *((("metrics", name), name) for name in own)):
        if name in taken:
            what = "a column of every run table" if name in RUN_COLUMNS else "a factor of this study"
            yield location, f"{shown(name)} is {what}; give the metric another name, such as {shown(f'{name}_value')}"


def _loss_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse losses that are another task's."""
    if is_task_unknown(values):
        return
    task, path = task_of(values), "training.loss"
    allowed, training = TASKS[task].losses, values.get("training")
    here = training.get("loss") if isinstance(training, Mapping) and not is_own_training(values) else None
    named: list[tuple[Location, Any]] = [(("training", "loss"), here)]
    named += [(where, level) for where, varied, level in varied_settings(values.get("factors")) if varied == path]
    for location, loss in named:
        if loss in get_args(LossName) and loss not in allowed:
            yield location, f"{loss} is no loss of {task}; it has {', '.join(allowed)}, or your own: {CODE_FORM}"


def _selection_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse what would choose on the test split."""
    data = values.get("data")
    sections = data if isinstance(data, list | tuple) else (data,)
    if not any(isinstance(each, Mapping) and each.get("validation") == "none" for each in sections):
        return
    if "best-validation" in _choices(values, "training.epoch_choice"):
        yield ("training", "epoch_choice"), "choosing an epoch needs a validation split, and data.validation is none"
    if any(choice != "none" for choice in _choices(values, "training.patience")):
        message = "ending by patience needs a validation split, and data.validation is none: it never looks at test"
        yield ("training", "patience"), message
    if values.get("tune") is not None:
        yield ("tune",), "tuning needs a validation split, and data.validation is none"


def _choices(values: Mapping[str, Any], path: str) -> tuple[Any, ...]:
    """Return a setting of the baseline and as a factor's levels; nothing where it is none of the study's."""
    field = factor_fields(values).get(path)
    levels = [level for _, varied, level in varied_settings(values.get("factors")) if varied == path]
    return (setting(values, path, field), *levels) if field else ()
