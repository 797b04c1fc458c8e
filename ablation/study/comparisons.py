"""Finds what a question compares: the variants that differ in nothing but what it asks about."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.records import DATA, LockedQuestion, Variant
from ablation.study.design import DESIGNS
from ablation.study.search_spaces import SETTINGS
from ablation.study.spec import OTHERS

LISTED = "variant"
"""The factor of a comparison of a listed variant with the baseline."""
BESIDE_DESIGNS = (DATA, SETTINGS)
"""Factors that are crossed with every design, and are no part of it."""
Levels = Mapping[str, Sequence[Any]]
"""Every factor's levels, the baseline's first."""
Groups = tuple[tuple[Variant, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Two levels of a factor."""

    factor: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One change, or the interaction of two; each of `groups` has a variant per corner, equal in all other factors."""

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
    question: LockedQuestion, variants: Sequence[Variant], *, levels: Levels, design: str
) -> Iterator[Comparison]:
    """Yield what a question compares, a comparison without groups where no variants answer it.

    There are L - 1 comparisons of a factor with L levels, (La - 1)(Lb - 1) of an interaction, one of a listed variant
    and one of a part beside all others.
    """
    if question.variant:
        yield _listed(question.variant, question.at, variants, levels)
        return
    if OTHERS in question.factors:
        part = next(factor for factor in question.factors if factor != OTHERS)
        yield _beside_others(part, question.at, variants, levels)
        return
    each = [
        [Change(factor=factor, before=levels[factor][0], after=level) for level in levels[factor][1:]]
        for factor in question.factors
    ]
    for changes in itertools.product(*each):
        groups = _comparable(variants, corners(changes), order=levels, design=design, at=question.at)
        yield Comparison(changes=changes, groups=groups)


def _listed(name: str, at: Mapping[str, Any], variants: Sequence[Variant], levels: Levels) -> Comparison:
    """Compare a listed variant with the baseline, or with the baseline of its settings; on each data set."""
    baseline = next(variant.name for variant in variants if variant.is_baseline).partition(",")[0]
    settings = f",{SETTINGS}={at[SETTINGS]}" if SETTINGS in at else ""
    known = {variant.name: variant for variant in variants}
    data = [f",{DATA}={level}" for level in ([at[DATA]] if DATA in at else levels.get(DATA, ()))] or [""]
    pairs = [(f"{name}{each}{settings}", f"{baseline}{each}{settings}") for each in data]
    groups = tuple((known[one], known[other]) for one, other in pairs if one in known and other in known)
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


def _comparable(
    variants: Sequence[Variant],
    corners: Sequence[Mapping[str, Any]],
    *,
    order: Levels,
    design: str,
    at: Mapping[str, Any],
) -> Groups:
    """Return the groups of variants, one for each corner, that are equal in all factors which the corners leave open.

    Groups come in the order of levels. In designs that vary parts around fixed points only the groups at these points
    count, also where others happen to exist; `at` narrows further.
    """
    found: list[tuple[Variant, ...]] = []
    asked = corners[0].keys()
    for variant in variants:
        rest = {factor: level for factor, level in variant.levels.items() if factor not in asked}
        if dict(variant.levels) != {**rest, **corners[0]} or not _is_at(rest, at) or not _is_point(rest, design, order):
            continue
        group = _group(variants, [{**rest, **corner} for corner in corners])
        if group is not None:
            found.append(group)
    positions = {factor: {_key(level): index for index, level in enumerate(order[factor])} for factor in order}
    left = [factor for factor in order if factor not in asked]
    return tuple(sorted(found, key=lambda group: [positions[f][_key(group[0].levels[f])] for f in left]))


def _group(variants: Sequence[Variant], wanted: Sequence[Mapping[str, Any]]) -> tuple[Variant, ...] | None:
    """Return the variants with these levels, None where one lacks."""
    found = [next((each for each in variants if dict(each.levels) == levels), None) for levels in wanted]
    group = tuple(each for each in found if each is not None)
    return group if len(group) == len(wanted) else None


def _is_at(rest: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    return all(rest.get(factor) == level for factor, level in at.items())


def _is_point(rest: Mapping[str, Any], design: str, order: Levels) -> bool:
    """Say whether the other factors stand where a design compares: all at the baseline's level, or all off it."""
    points = DESIGNS[design].points
    is_on = [level == order[factor][0] for factor, level in rest.items() if factor not in BESIDE_DESIGNS]
    return points is None or any(all(on is point for on in is_on) for point in points)


def _key(level: Any) -> str:
    return json.dumps(level)
