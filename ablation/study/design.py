"""Turns factors and a design into variants, and says what the design asks of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.lookup import is_same
from ablation.records import DATA, Variant
from ablation.study.conditions import Conditions, combinations, in_order, requirements, settled
from ablation.study.data_sets import data_names
from ablation.study.factors import levels_of
from ablation.study.level_names import level_text, short_names, variant_name, varied
from ablation.study.search_spaces import FROM_FILE, SETTINGS, TUNED
from ablation.study.spec import OTHERS, Question, StudySpec

Assignments = list[tuple[str, dict[str, Any]]]
"""Variants by name, each with its levels; the baseline first."""
FULL, BASELINE, ALL_OFF = "full", "baseline", "all-off"


def assignments(spec: StudySpec) -> Assignments:
    """Return the variants of a study's design by name, the baseline first; `forbid` is not applied yet.

    factorial: every combination. one-at-a-time: the baseline, and it with one factor at another level. leave-one-out:
    the same, where each factor is a part that is there or not. add-one: the baseline, all parts off, and one part on
    at a time. leave-one-out+add-one: both. listed: the baseline, and what the file lists.
    """
    return DESIGNS[spec.design].assignments(spec)


def variants_of(spec: StudySpec, *, tuned: Mapping[str, Mapping[str, Any]] | None = None) -> tuple[Variant, ...]:
    """Return the variants, the baseline first, without the forbidden ones.

    `tuned` gives the settings found for each by its name; a study that compares tuned and untuned variants has either.
    """
    found = [(name, levels) for name, levels in _on_each_data_set(spec) if not is_forbidden(levels, spec.forbid)]
    variants = []
    for name, levels in found:
        own = (tuned or {}).get(name, {})
        is_baseline = levels == spec.baseline_assignment
        if spec.tune is None or not spec.tune.also_untuned:
            variants.append(make_variant(spec, name, levels, is_baseline=is_baseline, tuned=own))
            continue
        for settings, values in ((TUNED, own), (FROM_FILE, {})):
            both = {**levels, SETTINGS: settings}
            is_first = is_baseline and settings == TUNED
            variants.append(
                make_variant(spec, f"{name},{SETTINGS}={settings}", both, is_baseline=is_first, tuned=values)
            )
    return tuple(sorted(variants, key=lambda variant: not variant.is_baseline))


def _on_each_data_set(spec: StudySpec) -> Assignments:
    """Return the variants of a design, each on every data set where a study has several."""
    if not spec.data_sets:
        return assignments(spec)
    return [
        (f"{name},{DATA}={data}", {**levels, DATA: data})
        for name, levels in assignments(spec)
        for data in spec.data_sets
    ]


def home_of(
    factor: str, baseline: Mapping[str, Any], levels: Mapping[str, Sequence[Any]], conditions: Conditions
) -> dict[str, Any]:
    """Return the levels that a factor is changed beside: the baseline's, but for what its condition needs."""
    found = dict(baseline)
    needed = requirements(factor, conditions)
    for name in in_order(list(levels), conditions):
        if name in needed and not any(is_same(found[name], each) for each in needed[name]):
            found = settled({**found, name: next(iter(needed[name]), found[name])}, levels, conditions)
    return settled(found, levels, conditions)


def asked_questions(spec: StudySpec) -> tuple[Question, ...]:
    """Return the file's questions, or what its design is for, each with where alone its factors vary."""
    return tuple(
        _where_it_varies(question, spec.conditions)
        for question in with_settings(spec, spec.questions) or default_questions(spec)
    )


def _where_it_varies(question: Question, conditions: Conditions) -> Question:
    """Return a question with the one level of each other factor that its factors vary beside."""
    needed = {name: levels for factor in question.factors for name, levels in requirements(factor, conditions).items()}
    only = {
        name: levels[0]
        for name, levels in needed.items()
        if len(levels) == 1 and name not in (*question.factors, *question.at)
    }
    return question.model_copy(update={"at": {**only, **question.at}}) if only else question


def default_questions(spec: StudySpec) -> tuple[Question, ...]:
    """Return what a design is for: each factor's effect, each listed variant's; both part designs, interactions too.

    Where tuned variants are compared beside untuned ones, everything is asked of either.
    """
    asked = DESIGNS[spec.design].asked(spec)
    return with_settings(spec, tuple(Question.model_validate(question) for question in asked))


def with_settings(spec: StudySpec, questions: tuple[Question, ...]) -> tuple[Question, ...]:
    """Return the questions, asked of the tuned variants and of the untuned ones where a study has both."""
    if spec.tune is None or not spec.tune.also_untuned:
        return questions
    return tuple(
        question if SETTINGS in (*question.at, *question.factors) else question.model_copy(update={"at": at})
        for settings in (TUNED, FROM_FILE)
        for question in questions
        if (at := {**question.at, SETTINGS: settings}) and (settings == TUNED or SETTINGS not in question.factors)
    )


def is_forbidden(levels: Mapping[str, Any], forbidden: Sequence[Mapping[str, Any]]) -> bool:
    return any(all(levels[name] == level for name, level in combination.items()) for combination in forbidden)


def declared_levels(study: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return the levels of every factor in a study's plain values, as they are declared there."""
    spec_levels = {name: levels_of(factor) for name, factor in study.get("factors", {}).items()}
    tune, data = study.get("tune") or {}, data_names(study.get("data"))
    return {
        **spec_levels,
        **({DATA: data} if data else {}),
        **({SETTINGS: (TUNED, FROM_FILE)} if tune.get("also_untuned") else {}),
    }


def make_variant(
    spec: StudySpec,
    name: str,
    levels: Mapping[str, Any],
    *,
    is_baseline: bool,
    tuned: Mapping[str, Any] | None = None,
) -> Variant:
    """Return the variant of `spec` with these levels, and with tuned settings where it has them."""
    resolved = spec.with_levels(levels, tuned=tuned)
    return Variant(
        name=name,
        levels=json.loads(json.dumps(levels)),
        settings=resolved.settings(),
        configuration=resolved.configuration(),
        is_baseline=is_baseline,
    )


def _every_combination(spec: StudySpec) -> Assignments:
    baseline, levels = spec.baseline_levels(), spec.levels
    found = sorted(combinations(levels, spec.conditions), key=lambda each: each != baseline)
    return [(variant_name(each, list(levels)), each) for each in found]


def _listed(spec: StudySpec) -> Assignments:
    baseline, levels, conditions = spec.baseline_levels(), spec.levels, spec.conditions
    listed = {name: settled({**baseline, **changed}, levels, conditions) for name, changed in spec.listed.items()}
    return _distinct([(BASELINE, baseline), *listed.items()])


def _one_at_a_time(spec: StudySpec) -> Assignments:
    return _distinct([(BASELINE, spec.baseline_levels()), *_changed_one(spec)])


def _leave_one_out(spec: StudySpec) -> Assignments:
    baseline = spec.baseline_levels()
    return _distinct([(FULL, baseline), *_changed_one(spec)])


def _add_one(spec: StudySpec) -> Assignments:
    baseline = spec.baseline_levels()
    return _distinct([(FULL, baseline), *_only_one(baseline, spec.levels)])


def _each_factor(spec: StudySpec) -> list[dict[str, Any]]:
    return [{"effect": factor} for factor in spec.factors]


def _each_variant(spec: StudySpec) -> list[dict[str, Any]]:
    return [{"variant": name} for name in spec.variants]


def _effects_and_gaps(spec: StudySpec) -> list[dict[str, Any]]:
    """Ask for each part's effect, and how much it depends on the other part, or on the others together."""
    if len(spec.factors) == 2:
        return [*_each_factor(spec), {"interaction": tuple(spec.factors)}]
    gaps = [{"interaction": (factor, OTHERS)} for factor in spec.factors] if len(spec.factors) > 2 else []
    return [*_each_factor(spec), *gaps]


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignKind:
    """What a design makes of factors: its variants, what it asks unless the file says otherwise, and where it compares.

    `points` says where the other factors stand in a comparison: all at the baseline's level (True), all off it (False);
    None is anywhere.
    """

    assignments: Callable[[StudySpec], Assignments]
    asked: Callable[[StudySpec], Sequence[Mapping[str, Any]]] = _each_factor
    points: tuple[bool, ...] | None = (True,)


DESIGNS: Mapping[str, DesignKind] = {
    "factorial": DesignKind(assignments=_every_combination, points=None),
    "one-at-a-time": DesignKind(assignments=_one_at_a_time),
    "leave-one-out": DesignKind(assignments=_leave_one_out),
    "add-one": DesignKind(assignments=_add_one, points=(False,)),
    "leave-one-out+add-one": DesignKind(
        assignments=lambda spec: _distinct([*_leave_one_out(spec), *_add_one(spec)]),
        asked=_effects_and_gaps,
        points=(True, False),
    ),
    "listed": DesignKind(assignments=_listed, asked=_each_variant, points=None),
}


def _changed_one(spec: StudySpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the baseline with one factor at another level.

    A factor that does not vary in the baseline is changed where its condition holds, from there, which is yielded too.
    """
    baseline, levels, conditions = spec.baseline_levels(), spec.levels, spec.conditions
    labels = short_names(list(levels))
    for factor, own in levels.items():
        home = home_of(factor, baseline, levels, conditions)
        for level in own:
            found = settled({**home, factor: level}, levels, conditions)
            if found != baseline:
                changed = {name: each for name, each in varied(found).items() if each != baseline[name]}
                yield ",".join(f"{labels[name]}={level_text(each)}" for name, each in changed.items()), found


def _only_one(baseline: Mapping[str, Any], levels: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    labels = short_names(list(levels))
    off = {factor: next(level for level in own if level != baseline[factor]) for factor, own in levels.items()}
    yield ALL_OFF, off
    for factor, level in baseline.items():
        shown = "" if level == "present" else f"={level_text(level)}"
        yield f"only-{labels[factor]}{shown}", {**off, factor: level}


def _distinct(found: Assignments) -> Assignments:
    kept: Assignments = []
    for name, levels in found:
        if all(levels != other for _, other in kept):
            kept.append((name, levels))
    return kept
