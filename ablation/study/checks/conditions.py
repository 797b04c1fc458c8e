"""Checks beside which levels of other factors a factor varies: that they are there, and can be there together."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ablation.lookup import did_you_mean, is_same
from ablation.records import DATA
from ablation.study.checks.baseline import baseline_levels
from ablation.study.conditions import Conditions, circle, combinations, conditions_of, holds, requirements
from ablation.study.factors import levels_of
from ablation.study.file import Location, shown
from ablation.study.level_names import NOT_VARIED

Found = tuple[Location, str]
_MOST_TRIED = 100_000
"""Combinations of levels that are looked through for one beside which a condition holds."""
POINT_DESIGNS = ("add-one", "leave-one-out+add-one")
"""Designs that turn all factors off at once, where no condition would hold."""


def condition_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with the conditions of an unchecked study's factors."""
    factors, design = values.get("factors"), values.get("design", "factorial")
    if not isinstance(factors, Mapping):
        return
    conditions = conditions_of(factors)
    wrong = dict(_reference_problems(conditions, factors))
    if not wrong and (names := circle(conditions)):
        way = " → ".join([*names, names[0]])
        wrong["factors", names[0], "when"] = f"the conditions go in a circle: {way}; leave one of them out"
    if not wrong:
        wrong = dict(_never_true(conditions, factors))
    yield from wrong.items()
    for name in conditions if design in POINT_DESIGNS else ():
        message = f"design {design} turns all factors off at once, so none can vary beside another alone"
        yield ("factors", name, "when"), message


def has_no_baseline(name: str, factor: Any, values: Mapping[str, Any]) -> bool:
    """Whether the baseline needs none of a factor's levels: it does not vary there, or its condition is a mistake."""
    is_wrong = isinstance(factor, Mapping) and "when" in factor and not conditions_of({name: factor})
    wrong = {here[1] for here, _ in condition_problems(values)}
    conditions = conditions_of(values["factors"])
    is_wrong = is_wrong or (name in conditions and bool(circle(conditions)))
    return is_wrong or name in wrong or baseline_levels(values)[name] == NOT_VARIED


def _reference_problems(conditions: Conditions, factors: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse conditions on the factor itself, on factors and on levels that are not there."""
    for name, condition in conditions.items():
        for other, allowed in condition.items():
            here: Location = ("factors", name, "when", other)
            levels = levels_of(factors.get(other))
            if other == name:
                yield here, "a factor cannot depend on itself; name another factor"
            elif other == DATA:
                yield here, "every factor varies on each data set; a condition names another factor of this study"
            elif other not in factors:
                near = did_you_mean(str(other), factors)
                yield (
                    here,
                    f"{shown(other)} is not a factor of this study{near}",
                )
            elif not allowed:
                yield here, "names no level"
            for level in allowed if other in factors and other != name else ():
                if not any(is_same(level, each) for each in levels):
                    yield here, f"{shown(level)} is none of its levels: {', '.join(map(shown, levels))}"


def _never_true(conditions: Conditions, factors: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse conditions that hold beside no combination of the levels that they depend on."""
    for name, condition in conditions.items():
        needed = requirements(name, conditions)
        levels = {other: levels_of(factors[other]) for other in factors if other in needed}
        tried = itertools.islice(combinations(levels, conditions), _MOST_TRIED)
        if not any(holds(condition, found) for found in tried):
            own = " and ".join(f"{other} = {' or '.join(map(shown, each))}" for other, each in condition.items())
            yield ("factors", name, "when"), f"no combination of levels has {own}, so {name} would never vary"
