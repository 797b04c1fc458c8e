"""Names variants after the levels of their factors: `depth=3,normalization=none`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SECTION = re.compile(r"(data|model|training)\.")


def variant_name(levels: Mapping[str, Any], factors: Sequence[str]) -> str:
    """Return `depth=3,normalization=none`: each factor by the last part of its path, or whole where that is shared."""
    labels = short_names(factors)
    return ",".join(f"{labels[factor]}={level_text(level)}" for factor, level in levels.items())


def short_name(factor: str) -> str:
    """Return the last part of a factor's path; a label, which is no path, as it is."""
    return _SECTION.sub("", factor, count=1) if _SECTION.match(factor) else factor


def short_names(factors: Sequence[str]) -> dict[str, str]:
    """Return the last part of each factor's path, or the whole where another factor shares it."""
    short = [short_name(factor) for factor in factors]
    return {factor: last if short.count(last) == 1 else factor for factor, last in zip(factors, short, strict=True)}


def level_text(level: Any) -> str:
    """Return a level as it stands in names: `3`, `none`, `0.001`, `128-64`."""
    if isinstance(level, list | tuple):
        return "-".join(map(str, level)) or "empty"
    if level is None:
        return "null"
    return str(level).lower() if isinstance(level, bool) else str(level)
