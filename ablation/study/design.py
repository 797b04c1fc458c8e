"""Turns factors and a design into variants: the assignments of levels that are trained and compared."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ablation.results import Variant
from ablation.study.spec import StudySpec


def factorial(factors: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return every combination of levels, the first factor varying slowest."""
    return [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]


def variant_name(levels: Mapping[str, Any], factors: Sequence[str]) -> str:
    """Return `depth=3,normalization=none`: each factor by the last part of its path, or whole where that is shared."""
    short = [factor.rpartition(".")[2] for factor in factors]
    labels = [last if short.count(last) == 1 else factor for factor, last in zip(factors, short, strict=True)]
    return ",".join(f"{label}={level_text(levels[factor])}" for factor, label in zip(factors, labels, strict=True))


def level_text(level: Any) -> str:
    """Return a level as it stands in names: `3`, `none`, `0.001`, `128-64`."""
    if isinstance(level, list | tuple):
        return "-".join(map(str, level)) or "empty"
    if level is None:
        return "null"
    return str(level).lower() if isinstance(level, bool) else str(level)


def make_variant(spec: StudySpec, levels: Mapping[str, Any], *, is_baseline: bool) -> Variant:
    """Return the variant of `spec` with these levels."""
    resolved = spec.with_levels(levels)
    return Variant(
        name=variant_name(levels, list(spec.factors)),
        levels=json.loads(json.dumps(levels)),
        settings=resolved.settings(),
        configuration=resolved.configuration(),
        is_baseline=is_baseline,
    )
