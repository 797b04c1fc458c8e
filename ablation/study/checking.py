"""Checks the values of a study file and gives the checked spec and its variants, or every problem at once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ablation.errors import Problem, StudyFileError
from ablation.lookup import did_you_mean, nearest_names, replaced
from ablation.results import METRICS, Variant
from ablation.study.design import factorial, make_variant, variant_name
from ablation.study.file import Location, path_of
from ablation.study.spec import LATER_DESIGNS, NOT_BUILT_YET, SECTIONS, Section, StudySpec, names_of

FACTORS_OF_DATA = ("data.limit", "data.validation", "data.augmentation")
NOT_FACTORS = ("model.name", "training.threads")
UNION_TAGS = frozenset(name for model in SECTIONS["data"] for name in names_of(model))
MAX_VARIANTS = 1000


def check(
    values: Mapping[str, Any], *, source: str, lines: Mapping[Location, int]
) -> tuple[StudySpec, tuple[Variant, ...]]:
    """Return the spec and its variants, the baseline first.

    Raises:
        StudyFileError: with every problem found.
    """
    found = list(_later_features(values))
    named = {location for location, _ in found}
    spec, errors = _validated(values)
    found += [(location, message) for location, message in errors if not _is_under(location, named)]
    found += _factor_problems(values, base_errors=errors)
    variants: tuple[Variant, ...] = ()
    if spec is not None and not found:
        found += [*_baseline_problems(spec), *_meaning_problems(spec)]
    if spec is not None and not found:
        variants, more = _variants(spec, values)
        found += more
    if spec is None or found:
        raise StudyFileError(source, [_problem(location, message, lines) for location, message in dict.fromkeys(found)])
    return spec, variants


Found = tuple[Location, str]


def _problem(location: Location, message: str, lines: Mapping[Location, int]) -> Problem:
    known = next((location[:end] for end in range(len(location), 0, -1) if location[:end] in lines), ())
    return Problem(message=message, path=path_of(location), line=lines.get(known))


def _is_under(location: Location, parents: Iterable[Location]) -> bool:
    return any(location[: len(parent)] == parent for parent in parents)


def _later_features(values: Mapping[str, Any]) -> Iterator[Found]:
    """Name what the format will have later, wherever it is used."""
    for section, inner in (("", values), *((name, values.get(name)) for name in (*SECTIONS, "seeds"))):
        if isinstance(inner, Mapping):
            for key in inner.keys() & NOT_BUILT_YET.keys():
                location: Location = (section, key) if section else (key,)
                yield location, f"{NOT_BUILT_YET[key]} ({key}) is not built yet"
    if values.get("design") in LATER_DESIGNS:
        yield ("design",), f"design {values['design']!r} is not built yet; built in: factorial"
    for section in ("model", "data"):
        inner = values.get(section)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if isinstance(name, str) and ":" in name:
            yield (
                (section, "name"),
                f"{name!r}: a {section} of your own, by 'package.module:attribute', is not built yet",
            )


def _validated(values: Mapping[str, Any]) -> tuple[StudySpec | None, list[Found]]:
    try:
        return StudySpec.model_validate(_with_tuples(values)), []
    except ValidationError as error:
        return None, [_reworded(details, values) for details in error.errors(include_url=False)]


def _with_tuples(value: Any) -> Any:
    """Give sequences the type that strict models ask for."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _reworded(details: Mapping[str, Any], values: Mapping[str, Any]) -> Found:
    location = _location_in_file(details["loc"], values)
    given = details["input"]
    kind = details["type"]
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1], values)
        return location, f"unknown key {location[-1]!r}{did_you_mean(str(location[-1]), known) or _allowed(known)}"
    if kind == "missing":
        return location, "is missing"
    if kind == "union_tag_not_found":
        return (*location, "name"), "is missing"
    if kind == "union_tag_invalid":
        return (
            *location,
            "name",
        ), f"unknown {location[-1]} {context['tag']!r}; built in: {_plain_list(context['expected_tags'])}"
    if kind == "literal_error" and location and location[-1] == "name":
        return location, f"unknown {location[-2]} {given!r}; built in: {_plain_list(context['expected'])}"
    if kind == "value_error":
        return location, str(context["error"])
    if kind == "string_pattern_mismatch":
        return (
            location,
            f"{_short(given)} has characters that a name may not have; allowed: letters, digits and ._+=,@[]-",
        )
    message = (
        str(details["msg"])
        .replace("Input should be", "must be")
        .replace("valid tuple", "list")
        .replace("Tuple", "List")
    )
    message = message.replace("valid dictionary or instance of", "mapping, the section").replace(
        "valid dictionary", "mapping"
    )
    return location, f"{message[0].lower()}{message[1:]}, not {_short(given)}"


def _location_in_file(loc: tuple[str | int, ...], values: Mapping[str, Any]) -> Location:
    """Drop from a pydantic location the parts that name a type of a union instead of a key of the file."""
    location: list[str | int] = []
    inner: Any = values
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(inner, Mapping) and (part in inner or (is_last and part not in UNION_TAGS)):
            inner = inner.get(part)
            location.append(part)
        elif isinstance(inner, list) and isinstance(part, int):
            inner = inner[part] if part < len(inner) else None
            location.append(part)
    return tuple(location)


def _known_keys(section: Location, values: Mapping[str, Any]) -> list[str]:
    if not section:
        return list(StudySpec.model_fields)
    if section[0] in SECTIONS:
        return sorted(key for model in _models_of(str(section[0]), values) for key in model.model_fields)
    if section[0] == "questions":
        return ["effect", "interaction", "on", "meaningful"]
    return ["name", "direction", "meaningful"] if section[0] == "metric" else []


def _models_of(section: str, values: Mapping[str, Any]) -> tuple[type[Section], ...]:
    """Return the models that a section may be of: the one its `name` says, or all."""
    inner = values.get(section)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    named = tuple(model for model in SECTIONS[section] if name in names_of(model))
    return named or SECTIONS[section]


def _allowed(known: Iterable[str]) -> str:
    listed = sorted(set(known))
    return f"; allowed: {', '.join(listed)}" if listed else ""


def _plain_list(expected: str) -> str:
    return expected.replace("'", "").replace(" or ", ", ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def factor_paths(values: Mapping[str, Any]) -> list[str]:
    """Return the paths that can be factors of a study with these sections."""
    model = [f"model.{key}" for key in _known_keys(("model",), values)]
    training = [f"training.{key}" for key in _known_keys(("training",), values)]
    return [path for path in [*model, *training, *FACTORS_OF_DATA] if path not in NOT_FACTORS]


def _factor_problems(values: Mapping[str, Any], *, base_errors: list[Found]) -> Iterator[Found]:
    """Check each factor's path, and each of its levels by putting it in the place of the baseline's."""
    factors = values.get("factors")
    if not isinstance(factors, Mapping):
        return
    known = factor_paths(values)
    for path, levels in factors.items():
        here: Location = ("factors", path)
        if path not in known:
            near = nearest_names(path, known, limit=1) or nearest_names(path.rpartition(".")[2], known, limit=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; factors are: {', '.join(known)}"
            yield here, f"unknown factor {path!r}{hint}"
        elif isinstance(levels, list):
            for index, level in enumerate(levels):
                _, errors = _validated(replaced(values, path, level))
                for location, message in errors:
                    if path_of(location).startswith(path) and (location, message) not in base_errors:
                        yield (*here, index), message


def _baseline_problems(spec: StudySpec) -> Iterator[Found]:
    sections = spec.model_dump(include={"data", "model", "training"})
    for path, levels in spec.factors.items():
        section, _, key = path.partition(".")
        baseline = sections[section][key]
        for index, level in enumerate(levels):
            if level in levels[:index]:
                yield ("factors", path, index), f"level {level!r} stands twice"
        if baseline not in levels:
            yield ("factors", path), f"the baseline's level {baseline!r} is missing from the factor's levels"


def _meaning_problems(spec: StudySpec) -> Iterator[Found]:
    """Check what only makes sense, or doesn't, beside something else in the file."""
    metrics: list[tuple[Location, str]] = [(("metric", "name"), spec.metric.name)]
    for index, question in enumerate(spec.questions):
        here: Location = ("questions", index)
        for factor in question.factors:
            if factor not in spec.factors:
                yield here, f"{factor!r} is not a factor of this study{did_you_mean(factor, spec.factors)}"
        if question.interaction is not None and question.interaction[0] == question.interaction[1]:
            yield (*here, "interaction"), "an interaction is of two different factors"
        if question in spec.questions[:index]:
            yield here, "stands twice"
        if question.on is not None:
            metrics.append(((*here, "on"), question.on))
    for location, name in metrics:
        if name not in METRICS:
            yield location, f"unknown metric {name!r}{did_you_mean(name, METRICS) or _allowed(METRICS)}"
        elif location == ("metric", "name") and spec.metric.direction != METRICS[name].direction:
            yield (
                ("metric", "direction"),
                f"{name} is there to {METRICS[name].direction}, not to {spec.metric.direction}",
            )
    choices = (spec.training.epoch_choice, *spec.factors.get("training.epoch_choice", ()))
    validations = (spec.data.validation, *spec.factors.get("data.validation", ()))
    if "best-validation" in choices and "none" in validations:
        yield ("training", "epoch_choice"), "choosing an epoch needs a validation split, and data.validation is none"


def _variants(spec: StudySpec, values: Mapping[str, Any]) -> tuple[tuple[Variant, ...], list[Found]]:
    assignments = factorial(spec.factors) if _count(spec) <= MAX_VARIANTS else []
    if not assignments:
        return (), [(("factors",), f"make {_count(spec)} variants; a study has at most {MAX_VARIANTS}")]
    sections = spec.model_dump(include={"data", "model", "training"})
    baseline = {path: sections[path.partition(".")[0]][path.partition(".")[2]] for path in spec.factors}
    variants: list[Variant] = []
    found: list[Found] = []
    for levels in sorted(assignments, key=lambda levels: levels != baseline):
        resolved_values = dict(values)
        for path, level in levels.items():
            resolved_values = replaced(resolved_values, path, level)
        resolved, errors = _validated(resolved_values)
        if resolved is None:
            found += [
                (("factors",), f"variant {variant_name(levels, list(spec.factors))}: {m} @ {path_of(at)}")
                for at, m in errors
            ]
            continue
        variant = make_variant(spec, levels, resolved=resolved, is_baseline=levels == baseline)
        twin = next((other for other in variants if other.configuration == variant.configuration), None)
        if twin is not None:
            found.append((("factors",), f"variants {twin.name} and {variant.name} resolve to the same configuration"))
        variants.append(variant)
    return tuple(variants), found


def _count(spec: StudySpec) -> int:
    count = 1
    for levels in spec.factors.values():
        count *= len(levels)
    return count
