"""Finds what an unchecked study has for its baseline: each setting, and each factor's level."""

from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from ablation.lookup import is_same, value_at
from ablation.study.conditions import circle, conditions_of, holds, in_order
from ablation.study.factors import is_part, levels_of, part_levels, recipe_of, written_levels
from ablation.study.level_names import NOT_VARIED
from ablation.study.spec import recipe_fields


def setting(values: Mapping[str, Any], path: str, field: FieldInfo) -> Any:
    """Return the unchecked value at a path below a section, its default where the file has none."""
    section, _, key = path.partition(".")
    inner = values.get(section)
    if "." in key:
        return value_at(inner, key)
    return inner.get(key, field.get_default()) if isinstance(inner, Mapping) else field.get_default()


def baseline_levels(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return each factor's level in the baseline: `NOT_VARIED` where it does not vary, None where it has no such level.

    Where conditions go in a circle, which is told in its own place, none is looked at.
    """
    factors = values.get("factors")
    known = factors if isinstance(factors, Mapping) else {}
    conditions = conditions_of(known)
    conditions = {} if circle(conditions) else conditions
    found: dict[str, Any] = {}
    for name in in_order(list(known), conditions):
        varies = name not in known or holds(conditions.get(name, {}), found)
        found[name] = _level(name, known.get(name), values) if varies else NOT_VARIED
    return {name: found[name] for name in known}


def _level(name: str, factor: Any, values: Mapping[str, Any]) -> Any:
    if is_part(factor):
        return part_levels(factor)[0]
    recipe, fields = recipe_of(factor), recipe_fields(values)
    levels = written_levels(factor) if recipe is None else recipe.values()
    each = [{name: level} if recipe is None else level for level in levels]
    for level, settings in zip(levels_of(factor), each, strict=True):
        if isinstance(settings, Mapping) and all(
            path in fields and is_same(setting(values, path, fields[path]), value) for path, value in settings.items()
        ):
            return level
    return None
