"""Names variants after the levels of their factors: `depth=3,normalization=none`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.study.file import value_text

NOT_VARIED = "not varied"
"""Stands for a level where a factor's condition does not hold."""
_SECTION = re.compile(r"(data|model|training)\.")


def variant_name(levels: Mapping[str, Any], factors: Sequence[str]) -> str:
    """Return `depth=3,normalization=none`: each factor by the last part of its path, or whole where that is shared."""
    labels = short_names(factors)
    return ",".join(f"{labels[factor]}={level_text(level)}" for factor, level in varied(levels).items())


def varied(levels: Mapping[str, Any]) -> dict[str, Any]:
    """Return the levels of the factors that vary where a variant stands."""
    return {factor: level for factor, level in levels.items() if level != NOT_VARIED}


def short_name(factor: str) -> str:
    """Return the last part of a factor's path; a label, which is no path, as it is."""
    return _SECTION.sub("", factor, count=1) if _SECTION.match(factor) else factor


def short_names(factors: Sequence[str]) -> dict[str, str]:
    """Return the last part of each factor's path, or the whole where another factor shares it."""
    short = [short_name(factor) for factor in factors]
    return {factor: last if short.count(last) == 1 else factor for factor, last in zip(factors, short, strict=True)}


def needs_label(level: Any) -> bool:
    """Whether a level is too large for a name: a mapping, or a list with lists or mappings in it."""
    inside = level if isinstance(level, list | tuple) else ()
    return isinstance(level, Mapping) or any(isinstance(item, Mapping | list | tuple) for item in inside)


def level_text(level: Any) -> str:
    """Return a level as it stands in names: `3`, `none`, `0.001`, `128-64`; of one that needs a label, its value."""
    if needs_label(level):
        return value_text(_sorted(level))
    if isinstance(level, list | tuple):
        return "-".join("null" if item is None else str(item) for item in level) or "empty"
    if level is None:
        return "null"
    return str(level).lower() if isinstance(level, bool) else str(level)


def _sorted(value: Any) -> Any:
    """Return a plain value whose mappings have their keys in order, as order alters nothing."""
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list | tuple) else value
