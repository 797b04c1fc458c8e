"""Checks the values of a study file and gives the checked spec and its variants, or every problem at once."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ablation.errors import Problem, StudyFileError
from ablation.lookup import did_you_mean, nearest_names
from ablation.results import Variant
from ablation.study.design import factorial, make_variant
from ablation.study.expected import expected, is_union, unannotated
from ablation.study.file import Location, path_of, shown
from ablation.study.spec import (
    LATER_DESIGNS,
    MAX_LEVELS,
    MAX_VARIANTS,
    NOT_BUILT_YET,
    SECTIONS,
    MetricChoice,
    Section,
    StudySpec,
    factor_fields,
    names_of,
)

Found = tuple[Location, str]


def check(
    values: Mapping[str, Any],
    *,
    source: str,
    lines: Mapping[Location, int | None],
    problems: Sequence[Problem] = (),
) -> tuple[StudySpec, tuple[Variant, ...]]:
    """Return the spec and its variants, the baseline first.

    Raises:
        StudyFileError: with every problem found, and with `problems`, which were found before; in the order of lines.
    """
    values = _with_tuples(values)
    spec, errors = _validated(values)
    found = _merged(
        _later_features(values),
        _factor_problems(values),
        errors,
        _question_problems(values),
        _selection_problems(values),
    )
    variants: tuple[Variant, ...] = ()
    if spec is not None and not found and not problems:
        variants, found = _variants(spec)
    if spec is None or found or problems:
        all_problems = [*problems, *(_problem(location, message, lines) for location, message in found.items())]
        raise StudyFileError(source, sorted(all_problems, key=lambda problem: problem.line or 0))
    return spec, variants


def asked_factors(question: Any) -> list[Any]:
    """Return the factors that an unchecked question is about."""
    asked = question if isinstance(question, Mapping) else {}
    pair = asked.get("interaction")
    effects = [asked["effect"]] if asked.get("effect") is not None else []
    return [*effects, *(pair if isinstance(pair, list | tuple) else [])]


def setting(values: Mapping[str, Any], path: str, field: FieldInfo) -> Any:
    """Return the unchecked value at a path below a section, its default where the file has none."""
    section, _, key = path.partition(".")
    inner = values.get(section)
    return inner.get(key, field.default) if isinstance(inner, Mapping) else field.default


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


def _later_features(values: Mapping[str, Any]) -> Iterator[Found]:
    """Name what the format will have later, wherever it is used."""
    places: list[Location] = [(), *((section,) for section in (*SECTIONS, "factors", "seeds"))]
    for place in places:
        inner = values.get(str(place[0])) if place else values
        for key in inner if isinstance(inner, Mapping) else ():
            if key in NOT_BUILT_YET:
                yield (*place, key), f"{NOT_BUILT_YET[key]} ({key}) is not built yet"
        name = inner.get("name") if place and isinstance(inner, Mapping) else None
        if isinstance(name, str) and ":" in name:
            own = f"a {place[0]} of your own, by 'package.module:attribute', is not built yet"
            yield (*place, "name"), f"{shown(name)}: {own}"
    if values.get("design") in LATER_DESIGNS:
        yield ("design",), f"design {values['design']!r} is not built yet; built in: factorial"


def _validated(values: Mapping[str, Any]) -> tuple[StudySpec | None, list[Found]]:
    try:
        return StudySpec.model_validate(values), []
    except ValidationError as error:
        return None, [_reworded(details, values) for details in error.errors(include_url=False)]


def _reworded(details: Mapping[str, Any], values: Mapping[str, Any]) -> Found:
    """Say what pydantic found in the words of the file; of its own message nothing is kept."""
    location, kind, model = _place(details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return location, f"unknown key {shown(location[-1])}{_near_or_all(str(location[-1]), model.model_fields)}"
        case "missing" if location[-1] == details["loc"][-1]:
            examples = model.model_fields[str(location[-1])].examples or []
            return location, "is missing" + "".join(f"; for example `{example}`" for example in examples)
        case "value_error":
            return location, str(details["ctx"]["error"])
        case "union_tag_not_found":
            return (*location, "name"), f"is missing; built in: {', '.join(_names(location))}"
        case "union_tag_invalid":
            location = (*location, "name")
    given = _at(values, location)
    if location[0] in SECTIONS and location[1:] == ("name",):
        return location, f"unknown {location[0]} {shown(given)}; built in: {', '.join(_names(location))}"
    return location, f"must be {expected(kind)}, not {shown(given)}"


def _place(loc: Sequence[str | int]) -> tuple[Location, Any, type[BaseModel]]:
    """Return where in the file a pydantic location is, the type of what should be there, and the model around it.

    The parts of a location that name a member of a union are no keys of the file.
    """
    location: list[str | int] = []
    annotation: Any = StudySpec
    model: type[BaseModel] = StudySpec
    for part in loc:
        kind, _ = unannotated(annotation)
        members = [member for member in get_args(kind) if isinstance(member, type) and issubclass(member, Section)]
        if isinstance(kind, type) and issubclass(kind, Section):
            model = kind
            field = model.model_fields.get(str(part))
            annotation = field.rebuild_annotation() if field is not None else None
        elif is_union(kind) and members:
            annotation = next(member for member in members if part in names_of(member))
            continue
        elif get_origin(kind) in (tuple, dict):
            annotation = get_args(kind)[0 if get_origin(kind) is tuple else 1]
        else:
            break
        location.append(part)
    return tuple(location), annotation, model


def _at(values: Any, location: Location) -> Any:
    for part in location:
        values = values[part]
    return values


def _names(location: Location) -> list[str]:
    return [name for model in SECTIONS[str(location[0])] for name in names_of(model)]


def _near_or_all(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known) or f"; allowed: {', '.join(sorted(known))}"


def _factor_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    factors = values.get("factors")
    fields = factor_fields(values)
    for path, levels in factors.items() if isinstance(factors, Mapping) else ():
        here: Location = ("factors", path)
        if path not in fields:
            near = nearest_names(path, fields, limit=1) or nearest_names(path.rpartition(".")[2], fields, limit=1)
            hint = f"did you mean {near[0]!r}?" if near else f"factors are: {', '.join(fields)}"
            yield here, f"unknown factor {shown(path)}; {hint}"
        elif not isinstance(levels, tuple):
            yield here, f"must be a list of levels, the baseline's among them, not {shown(levels)}"
        else:
            yield from _level_problems(here, levels, fields[path], baseline=setting(values, path, fields[path]))


def _level_problems(here: Location, levels: tuple[Any, ...], field: FieldInfo, *, baseline: Any) -> Iterator[Found]:
    wrong = [index for index, level in enumerate(levels[:MAX_LEVELS]) if level is None or not _fits(field, level)]
    if len(levels) < 2:
        yield here, f"needs at least one level besides the baseline's {shown(baseline)}"
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


def _fits(field: FieldInfo, value: Any) -> bool:
    try:
        _adapter(field.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return False
    return True


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=Section.model_config)


def _question_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    factors, questions = values.get("factors"), values.get("questions")
    metric = setting(values, "metric.name", MetricChoice.model_fields["name"])
    seen: list[Any] = []
    for index, question in enumerate(questions if isinstance(questions, tuple) else ()):
        asked = asked_factors(question)
        for factor in asked:
            if isinstance(factor, str) and isinstance(factors, Mapping) and factor not in factors:
                key = "effect" if factor == question.get("effect") else "interaction"
                near = did_you_mean(factor, factors)
                yield ("questions", index, key), f"{shown(factor)} is not a factor of this study{near}"
        subject = (sorted(map(str, asked)), question.get("on") or metric) if asked else question
        if subject in seen:
            yield ("questions", index), "asks what a question before it asks"
        seen.append(subject)


def _selection_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse what would choose an epoch on the test split."""
    data, path, factors = values.get("data"), "training.epoch_choice", values.get("factors")
    levels = factors.get(path) if isinstance(factors, Mapping) else ()
    choices = (setting(values, path, factor_fields(values)[path]), *(levels if isinstance(levels, tuple) else ()))
    if "best-validation" in choices and isinstance(data, Mapping) and data.get("validation") == "none":
        yield ("training", "epoch_choice"), "choosing an epoch needs a validation split, and data.validation is none"


def _variants(spec: StudySpec) -> tuple[tuple[Variant, ...], dict[Location, str]]:
    """Return the variants, the baseline first, or why they cannot be told apart."""
    count = math.prod(map(len, spec.factors.values()))
    if count > MAX_VARIANTS:
        return (), {("factors",): f"make {count} variants; a study has at most {MAX_VARIANTS}"}
    baseline = {path: spec.setting(path) for path in spec.factors}
    assignments = sorted(factorial(spec.factors), key=lambda levels: levels != baseline)
    variants = tuple(make_variant(spec, levels, is_baseline=levels == baseline) for levels in assignments)
    return variants, _twin_problems(variants)


def _twin_problems(variants: Sequence[Variant]) -> dict[Location, str]:
    """Name, for each factor that makes no difference somewhere, one pair of variants that it leaves the same."""
    first: dict[str, Variant] = {}
    found: dict[Location, str] = {}
    for variant in variants:
        twin = first.setdefault(repr(variant.configuration), variant)
        idle = [path for path, level in variant.levels.items() if level != twin.levels[path]]
        if idle:
            pair = f"variants {twin.name} and {variant.name} resolve to the same configuration"
            found.setdefault(("factors", idle[-1]), f"{pair}: nothing there depends on {' or '.join(idle)}")
    return found
