"""Checks the factors whose levels set several settings: what each level sets, and which of them the baseline has."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablation.lookup import did_you_mean, is_same, overlap
from ablation.study.checks.baseline import setting
from ablation.study.checks.conditions import has_no_baseline
from ablation.study.checks.factors import fits, name_problem, unknown_factor
from ablation.study.expected import expected
from ablation.study.factors import (
    FORM_KEYS,
    MAX_LEVELS,
    RECIPE_EXAMPLE,
    levels_location,
    recipe_of,
    varied_settings,
)
from ablation.study.file import Location, is_plain_text, shown
from ablation.study.level_names import NOT_VARIED
from ablation.study.sections import MAX_KEY, SECTIONS
from ablation.study.spec import recipe_fields

Found = tuple[Location, str]


def recipe_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with the recipes of an unchecked study."""
    factors = values.get("factors")
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        recipe = recipe_of(factor)
        if recipe is None or (name in recipe_fields(values)):
            continue
        problem = name_problem(str(name), kind="factor")
        if problem is not None or name in SECTIONS:
            yield ("factors", name), problem or f"{shown(name)} is a section of the study file; give it another name"
            continue
        here = levels_location(name, factor)
        wrong = list(_level_problems(here, recipe, values)) or list(_conflicts(name, here, recipe, values))
        is_outside = has_no_baseline(name, factor, values)
        yield from wrong or _baseline_problems(here, recipe, values, is_outside=is_outside)


def _level_problems(here: Location, recipe: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Found]:
    if len(recipe) < 2:
        yield here, f"needs at least two levels, one of them with the settings that the file has: {RECIPE_EXAMPLE}"
    elif len(recipe) > MAX_LEVELS:
        yield here, f"has {len(recipe)} levels; at most {MAX_LEVELS} are allowed"
    for level, settings in recipe.items():
        place = (*here, level)
        if (problem := _level_name_problem(level)) is not None:
            yield place, problem
        elif not isinstance(settings, Mapping) or not settings:
            example = "{training.optimizer: sgd}"
            yield place, f"must be a mapping of settings to values, such as {example}, not {shown(settings)}"
        else:
            yield from _setting_problems(place, settings, values)
            inside = [(first, second) for first in settings for second in settings if first != second]
            twice = next((pair for pair in inside if overlap(*map(str, pair)) and len(pair[0]) > len(pair[1])), None)
            if twice is not None:
                yield (*place, twice[0]), f"is set by {twice[1]} too; leave one of them out"


def _level_name_problem(level: Any) -> str | None:
    if level in (*FORM_KEYS, NOT_VARIED):
        return f"no level can be called {shown(level)}, which means something else here; give it another name"
    if not isinstance(level, str) or not level.isprintable() or not level.strip() or len(level) > MAX_KEY:
        return f"the name of a level is printable text of at most {MAX_KEY} characters"
    if not is_plain_text(level):
        return f"the name of a level is text, and {level} is read as something else; begin it with a letter"
    return None


def _setting_problems(here: Location, settings: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Found]:
    fields = recipe_fields(values)
    for path, value in settings.items():
        if path not in fields:
            near = did_you_mean(str(path), fields)
            yield (
                (*here, path),
                f"there is no setting {shown(path)}{near}" if near else unknown_factor(str(path), values),
            )
        elif not fits(fields[path], value):
            wanted = expected(fields[path].rebuild_annotation())
            yield (*here, path), f"must be {wanted}, not {shown(value)}"


def _conflicts(name: str, here: Location, recipe: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse what another factor sets too; what is tuned too is told there."""
    factors = values.get("factors")
    others = {str(path): place[1] for place, path, _ in varied_settings(factors) if place[1] != name}
    for level, settings in recipe.items():
        for path in settings:
            twin = next((other for other in others if overlap(other, path)), None)
            if twin is not None:
                which = f"{twin} is a factor" if others[twin] == twin else f"{others[twin]} sets {twin}"
                yield (*here, level, path), f"{which} of this study too; a setting is varied by one factor alone"


def _baseline_problems(
    here: Location, recipe: Mapping[str, Any], values: Mapping[str, Any], *, is_outside: bool
) -> Iterator[Found]:
    """Refuse two levels that set the same, and a recipe none of whose levels sets what the file has."""
    fields = recipe_fields(values)
    paths = list(dict.fromkeys(path for settings in recipe.values() for path in settings))
    file = {path: setting(values, path, fields[path]) for path in paths}
    whole = {level: {**file, **settings} for level, settings in recipe.items()}
    for index, (level, settings) in enumerate(whole.items()):
        twin = next((other for other in list(whole)[:index] if is_same(whole[other], settings)), None)
        if twin is not None:
            left_out = " (what a level leaves out is as in the file)" if recipe[twin] != recipe[level] else ""
            yield (*here, level), f"sets the same as {shown(twin)}{left_out}; change one of them or leave it out"
    is_valid = all(fits(fields[path], value) for path, value in file.items())  # else said in its own place
    if is_valid and not is_outside and not any(is_same(settings, file) for settings in whole.values()):
        yield here, _no_baseline(recipe, file)


def _no_baseline(recipe: Mapping[str, Any], file: Mapping[str, Any]) -> str:
    def unlike(level: str) -> list[str]:
        return [path for path, value in recipe[level].items() if not is_same(value, file[path])]

    nearest = min(recipe, key=lambda level: len(unlike(level)))
    path = unlike(nearest)[0]
    more = f" and {len(unlike(nearest)) - 1} more" if len(unlike(nearest)) > 1 else ""
    return (
        f"one level must set what the file has, as it is the baseline's; the nearest is {shown(nearest)}, whose {path} "
        f"is {shown(recipe[nearest][path])} where the file has {shown(file[path])}{more}; change that level or the file"
    )
