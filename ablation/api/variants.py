"""Finds a variant of a recorded study by its name or by its levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablation.api.arguments import check_kind
from ablation.errors import AblationError, NameUnknown
from ablation.lookup import is_same, nearest_names
from ablation.study.conditions import conditions_of, settled
from ablation.study.design import declared_levels

if TYPE_CHECKING:
    from ablation.records import Plan


def variant_name(plan: Plan, asked: str | Mapping[str, Any], *, at: str) -> str:
    """Return the name of a variant; levels that are not given are the baseline's.

    Raises:
        NameUnknown: the study has no such variant or factor, and which it has; `at` says whose argument it was.
        AblationError: no variant has these levels.
    """
    check_kind(at, asked, kind="variant")
    known = [variant.name for variant in plan.variants]
    if isinstance(asked, str):
        if asked not in known:
            raise NameUnknown("variant", asked, near=nearest_names(asked, known), known=known, option=at)
        return asked
    baseline = plan.baseline.levels
    for factor in asked:
        if factor not in baseline:
            raise NameUnknown("factor", factor, near=nearest_names(factor, baseline), known=baseline, option=at)
    factors = plan.study.get("factors")
    wanted = settled({**baseline, **asked}, declared_levels(plan.study), conditions_of(factors))
    for variant in plan.variants:
        if all(is_same(variant.levels[factor], level) for factor, level in wanted.items()):
            return variant.name
    raise AblationError(f"no variant has the levels {wanted}; there are: {', '.join(known)} @ {at}")
