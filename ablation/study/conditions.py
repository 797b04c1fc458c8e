"""Says where a factor varies that varies only beside some levels of others: what combinations of levels there are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablation.lookup import is_same
from ablation.study.factors import levels_of
from ablation.study.level_names import NOT_VARIED

Condition = Mapping[str, tuple[Any, ...]]
"""The factors that a factor depends on, each with the levels beside which it varies."""
Conditions = Mapping[str, Condition]
"""The condition of each factor that has one."""
NO_CONDITIONS: Conditions = {}
Levels = Mapping[str, Sequence[Any]]


def conditions_of(factors: Any) -> dict[str, Condition]:
    """Return the conditions in the plain values of a study's factors, which may be unchecked."""
    known = factors if isinstance(factors, Mapping) else {}
    written = {name: factor.get("when") for name, factor in known.items() if _may_have_one(factor)}
    return {
        name: {other: _levels(levels, levels_of(known.get(other))) for other, levels in when.items()}
        for name, when in written.items()
        if isinstance(when, Mapping) and when
    }


def _may_have_one(factor: Any) -> bool:
    """Whether `when` is the condition of a factor, and not a level of a recipe."""
    return isinstance(factor, Mapping) and not factor.keys().isdisjoint(("levels", "remove", "replace"))


def _levels(written: Any, known: Sequence[Any]) -> tuple[Any, ...]:
    """Return the levels that a condition names: one, or a list of them; a list may be one level itself."""
    if not isinstance(written, list | tuple) or _is_among(written, known):
        return (written,)
    return tuple(written)


def holds(condition: Condition, levels: Mapping[str, Any]) -> bool:
    """Whether a factor with this condition varies beside these levels of other factors."""
    return all(_is_among(levels.get(name), allowed) for name, allowed in condition.items())


def circle(conditions: Conditions) -> list[str]:
    """Return factors each of which depends on the next, and the last on the first; none where there is no circle."""
    left = set(conditions)
    while free := {name for name in left if not left & conditions[name].keys()}:
        left -= free
    path: list[str] = []
    name = min(left, default="")
    while left and name not in path:
        path.append(name)
        name = min(left & conditions[name].keys())
    return path[path.index(name) :] if left else []


def in_order(names: Sequence[str], conditions: Conditions) -> list[str]:
    """Return factors in their order, but each after those that it depends on."""
    found: dict[str, None] = {}

    def place(name: str) -> None:
        for other in conditions.get(name, {}):
            if other not in found:
                place(other)
        found[name] = None

    for name in names:
        if name not in found:
            place(name)
    return list(found)


def dependents(names: Sequence[str], conditions: Conditions) -> set[str]:
    """Return the factors that vary only beside some levels of these, or of others that do."""
    found: set[str] = set()
    while more := {each for each, own in conditions.items() if own.keys() & {*names, *found}} - found:
        found |= more
    return found - {*names}


def requirements(name: str, conditions: Conditions) -> dict[str, tuple[Any, ...]]:
    """Return all levels of others that a factor needs, those that its condition's factors need among them."""
    found: dict[str, tuple[Any, ...]] = {}
    waiting, seen = [name], {name}
    while waiting:
        for other, allowed in conditions.get(waiting.pop(0), {}).items():
            found[other] = tuple(each for each in found.get(other, allowed) if _is_among(each, allowed))
            waiting += [other] if other not in seen else []
            seen.add(other)
    return found


def _is_among(level: Any, levels: Sequence[Any]) -> bool:
    return any(is_same(level, each) for each in levels)


def combinations(levels: Levels, conditions: Conditions) -> Iterator[dict[str, Any]]:
    """Yield every combination of levels, the first factor varying slowest; without a level where one does not vary."""
    order = in_order(list(levels), conditions)

    def extended(found: dict[str, Any], rest: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not rest:
            yield {name: found[name] for name in levels}
            return
        name = rest[0]
        varies = holds(conditions.get(name, {}), found)
        for level in levels[name] if varies else (NOT_VARIED,):
            yield from extended({**found, name: level}, rest[1:])

    return extended({}, order)


def settled(wanted: Mapping[str, Any], levels: Levels, conditions: Conditions) -> dict[str, Any]:
    """Return levels without those of factors that do not vary beside them; where one now varies, its first."""
    found = dict(wanted)
    for name in in_order(list(wanted), conditions):
        if name in conditions and not holds(conditions[name], found):
            found[name] = NOT_VARIED
        elif name in conditions and found[name] == NOT_VARIED:
            found[name] = levels[name][0]
    return found
