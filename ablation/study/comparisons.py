"""Finds what a question compares: the variants that differ in nothing but what it asks about."""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.lookup import is_same
from ablation.records import DATA, LockedQuestion, Variant
from ablation.study.conditions import NO_CONDITIONS, Conditions, dependents, requirements
from ablation.study.design import DESIGNS
from ablation.study.level_names import NOT_VARIED
from ablation.study.search_spaces import SETTINGS
from ablation.study.spec import OTHERS

LISTED = "variant"
"""The factor of a comparison of a listed variant with the baseline."""
BESIDE_DESIGNS = (DATA, SETTINGS)
"""Factors that are crossed with every design, and are no part of it."""
Levels = Mapping[str, Sequence[Any]]
"""Every factor's levels, the baseline's first."""
Side = tuple[Variant, ...]
"""The variants at a corner, which are averaged: several where a factor varies there and not at every corner."""
Groups = tuple[tuple[Side, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Two levels of a factor."""

    factor: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One change, or the interaction of two; each of `groups` has a side per corner, equal in all other factors.

    But for those that do not vary at one of the corners: a side is the average over their levels.
    """

    changes: tuple[Change, ...]
    groups: Groups

    @property
    def corners(self) -> list[dict[str, Any]]:
        return corners(self.changes)


def corners(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Return the combinations of the levels compared: (after, before), or (both, first alone, second alone, none)."""
    levels = itertools.product(*((change.after, change.before) for change in changes))
    return [{change.factor: level for change, level in zip(changes, corner, strict=True)} for corner in levels]


def comparisons(
    question: LockedQuestion,
    variants: Sequence[Variant],
    *,
    levels: Levels,
    design: str,
    conditions: Conditions = NO_CONDITIONS,
) -> Iterator[Comparison]:
    """Yield what a question compares, a comparison without groups where no variants answer it.

    There are L - 1 comparisons of a factor with L levels, (La - 1)(Lb - 1) of an interaction, one of a listed variant
    and one of a part beside all others; one of a factor of which the question names two levels.
    """
    if question.variant:
        yield _listed(question.variant, question.at, variants, levels)
        return
    if OTHERS in question.factors:
        part = next(factor for factor in question.factors if factor != OTHERS)
        yield _beside_others(part, question.at, variants, levels)
        return
    each = [
        [Change(factor=factor, before=before, after=after) for before, after in _pairs(factor, question, own)]
        for factor, own in compared_levels(question, levels, conditions).items()
    ]
    for changes in itertools.product(*each):
        where = _Where(levels=levels, design=design, conditions=conditions, at=question.at)
        yield Comparison(changes=changes, groups=_comparable(variants, corners(changes), where))


def compared_levels(question: LockedQuestion, levels: Levels, conditions: Conditions) -> Levels:
    """Return the levels of each factor that a question is about: those beside which the others of it vary."""
    needed = [requirements(factor, conditions) for factor in question.factors]
    return {
        factor: [
            level for level in levels[factor] if all(_is_among(level, own.get(factor, (level,))) for own in needed)
        ]
        for factor in question.factors
    }


def _pairs(factor: str, question: LockedQuestion, levels: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return the levels that are compared: two that the question names, or the first with each other."""
    if factor in question.levels:
        return [question.levels[factor]]
    return [(levels[0], level) for level in levels[1:]]


def _listed(name: str, at: Mapping[str, Any], variants: Sequence[Variant], levels: Levels) -> Comparison:
    """Compare a listed variant with the baseline, or with the baseline of its settings; on each data set."""
    baseline = next(variant.name for variant in variants if variant.is_baseline).partition(",")[0]
    settings = f",{SETTINGS}={at[SETTINGS]}" if SETTINGS in at else ""
    known = {variant.name: variant for variant in variants}
    data = [f",{DATA}={level}" for level in ([at[DATA]] if DATA in at else levels.get(DATA, ()))] or [""]
    pairs = [(f"{name}{each}{settings}", f"{baseline}{each}{settings}") for each in data]
    groups = tuple(((known[one],), (known[other],)) for one, other in pairs if one in known and other in known)
    change = Change(factor=LISTED, before=f"{baseline}{settings}", after=f"{name}{settings}")
    return Comparison(changes=(change,), groups=groups)


def _beside_others(part: str, at: Mapping[str, Any], variants: Sequence[Variant], levels: Levels) -> Comparison:
    """Compare a part's gap: all parts absent, the others absent, the part alone absent, all present."""
    changes = (
        Change(factor=OTHERS, before="present", after="absent"),
        Change(factor=part, before=levels[part][0], after=levels[part][-1]),
    )
    found = []
    beside = [factor for factor in BESIDE_DESIGNS if factor in levels]
    for combination in itertools.product(*(levels[factor] for factor in beside)):
        own = dict(zip(beside, combination, strict=True))
        on, off = ({name: each[index] for name, each in levels.items()} | own for index in (0, -1))
        wanted = (off, {**off, part: on[part]}, {**on, part: off[part]}, on)
        if _is_at(own, at) and (group := _group(variants, wanted)) is not None:
            found.append(group)
    return Comparison(changes=changes, groups=tuple(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """What says where a question compares: all factors' levels and conditions, the design, what is asked for."""

    levels: Levels
    design: str
    conditions: Conditions
    at: Mapping[str, Any]


def _comparable(variants: Sequence[Variant], corners: Sequence[Mapping[str, Any]], where: _Where) -> Groups:
    """Return the groups of variants, a side for each corner, that are equal in all factors which corners leave open.

    Groups come in the order of levels. In designs that vary parts around fixed points only the groups at these points
    count, also where others happen to exist; `at` narrows further. Factors whose condition depends on what is compared
    are averaged over.
    """
    asked = [*corners[0]]
    open_ = dependents(asked, where.conditions)
    sides: dict[str, list[list[Variant]]] = {}
    rests: dict[str, Mapping[str, Any]] = {}
    for variant in variants:
        own = {factor: variant.levels[factor] for factor in asked}
        corner = next((index for index, each in enumerate(corners) if own == each), None)
        rest = {factor: level for factor, level in variant.levels.items() if factor not in own}
        if corner is None or not _is_at(rest, where.at) or not _is_point(rest, asked, where):
            continue
        alike = {factor: level for factor, level in rest.items() if factor not in open_}
        rests.setdefault(key := _key(alike), alike)
        sides.setdefault(key, [[] for _ in corners])[corner].append(variant)
    found = [(rests[key], _matched(each, open_)) for key, each in sides.items()]
    positions = {
        factor: {_key(level): index for index, level in enumerate(own)} for factor, own in where.levels.items()
    }
    left = [factor for factor in where.levels if factor not in asked and factor not in open_]
    whole = [(rest, each) for rest, each in found if all(each)]
    whole.sort(key=lambda pair: [positions[factor].get(_key(pair[0][factor]), -1) for factor in left])
    return tuple(each for _, each in whole)


def _matched(sides: Sequence[Sequence[Variant]], factors: Collection[str]) -> tuple[Side, ...]:
    """Return the variants of each side that have a partner on every other: equal in these factors where both vary."""

    def are_partners(first: Variant, second: Variant) -> bool:
        pairs = ((first.levels[factor], second.levels[factor]) for factor in factors)
        return all(NOT_VARIED in pair or pair[0] == pair[1] for pair in pairs)

    if not factors:
        return tuple(map(tuple, sides))
    return tuple(
        tuple(own for own in side if all(any(are_partners(own, each) for each in other) for other in sides))
        for side in sides
    )


def _group(variants: Sequence[Variant], wanted: Sequence[Mapping[str, Any]]) -> tuple[Side, ...] | None:
    """Return a side of one variant for each of these levels, None where one lacks."""
    found = [next((each for each in variants if dict(each.levels) == levels), None) for levels in wanted]
    group = tuple((each,) for each in found if each is not None)
    return group if len(group) == len(wanted) else None


def _is_at(rest: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    return all(rest.get(factor) == level for factor, level in at.items())


def _is_point(rest: Mapping[str, Any], asked: Sequence[str], where: _Where) -> bool:
    """Say whether the other factors stand where a design compares: all at the baseline's level, or all off it.

    What an asked factor needs to vary and the baseline has otherwise, stands at the first level that it needs.
    """
    points = DESIGNS[where.design].points
    if points is None:
        return True
    home = {factor: own[0] for factor, own in where.levels.items() if own}
    for each in asked:
        for name, needed in requirements(each, where.conditions).items():
            home[name] = next((level for level in (home[name], *needed) if _is_among(level, needed)), home[name])
    is_on = [level in (NOT_VARIED, home[factor]) for factor, level in rest.items() if factor not in BESIDE_DESIGNS]
    return any(all(on is point for on in is_on) for point in points)


def _is_among(level: Any, levels: Sequence[Any]) -> bool:
    return any(is_same(level, each) for each in levels)


def _key(level: Any) -> str:
    return json.dumps(level)
